"""Findings of an exam as a Comprehensive SR by TID 1500 (PS3.16), which OHIF, 3D Slicer and others read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from mammodet.data.dicom.tags import numbers
from mammodet.evaluation.calibration_file import Calibration, aggregation_of
from mammodet.export.dicom_source import DEVELOPERS, SCHEME, SIDES, Maker, Reading
from mammodet.reporting.prediction_tables import SOURCES, join_images, size_mm, source_of
from mammodet.targets import REPORTED_WORDS
from mammodet.version import VERSION

_JOINED = {"max": codes.SCT.Maximum, "mean": codes.SCT.Mean}


def make_report(
    readings: Sequence[Reading], maker: Maker, number: int, calibration: Calibration | None = None
) -> Dataset:
    """One report of the images of a study.

    Each finding is a planar ROI (the outline of its largest part) with its score as Certainty of Finding in percent
    and, if the spacing is real, its diameters; the patient, each breast and each image have a group with their scores,
    what these are made of, and of a calibration the probabilities, labels and thresholds.
    """
    sources = [reading.source for reading in readings]
    described = [reading.source for reading in readings if _can_be_described(reading)]
    study = str(sources[0].StudyInstanceUID)
    algorithm = AlgorithmIdentification(
        "mammodet", VERSION, parameters=[f"{name}={value}" for name, value in maker.parameters.items()]
    )
    answers = _Answers(maker, algorithm, calibration)
    groups = [answers.group("patient", f"study {study}", readings)]
    for side in SIDES:
        of_side = [reading for reading in readings if reading.image.laterality == side]
        groups += [answers.group("breast", f"breast {side} of study {study}", of_side)] if of_side else []
    for reading in readings:
        groups += [_finding(reading, index, maker, algorithm) for index in range(len(reading.findings))]
        groups.append(answers.group("image", f"image {reading.uid}", [reading]))
    device = DeviceObserverIdentifyingAttributes(
        uid=maker.uid("device"), name="mammodet", manufacturer_name=DEVELOPERS, model_name="mammodet"
    )
    context = ObserverContext(codes.DCM.Device, device)
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=context),
        procedure_reported=codes.SCT.Mammography,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=described or None,
    )
    return ComprehensiveSR(
        evidence=sources,
        content=content,
        sop_instance_uid=maker.uid("sr", *sorted(reading.uid for reading in readings)),
        instance_number=number,
        is_complete=True,
        coding_schemes=[CodingSchemeIdentificationItem(SCHEME, name="mammodet", responsible_organization=DEVELOPERS)],
        **maker.series(study, "sr", 9001),
    )


def _can_be_described(reading: Reading) -> bool:
    """Whether a source has what TID 1603 of the image library says of X-ray images; a report refers to all sources."""
    spacing = numbers(reading.source, "ImagerPixelSpacing")
    is_x_ray = str(reading.source.SOPClassUID).startswith("1.2.840.10008.5.1.4.1.1.1.")
    return is_x_ray and bool(reading.orientation) and len(spacing) == 2


def _finding(reading: Reading, index: int, maker: Maker, algorithm: AlgorithmIdentification) -> Any:
    identifier, uid = reading.tracking(index, maker)
    side = SIDES.get(reading.image.laterality or "")
    measurements = [
        Measurement(codes.DCM.CertaintyOfFinding, float(reading.findings.scores[index]) * 100, codes.UCUM.Percent)
    ]
    if reading.spacing is not None:
        x1, y1, x2, y2 = reading.findings.boxes_xyxy[index].tolist()
        rle = reading.findings.rles[index] if reading.findings.rles is not None else None
        sides = size_mm((x1, y1, x2, y2), rle, reading.spacing.mm_rc)
        measurements += [
            Measurement(name, side, codes.UCUM.Millimeter)
            for name, side in zip((codes.SCT.LongAxis, codes.SCT.ShortAxis), sides, strict=True)
        ]
    region = ImageRegion(
        "POLYLINE",
        reading.rings(index)[0],
        SourceImageForRegion(reading.source.SOPClassUID, reading.source.SOPInstanceUID),
    )
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(uid, f"{identifier} on {reading.uid}"),
        referenced_region=region,
        finding_type=reading.code(index),
        algorithm_id=algorithm,
        finding_sites=[FindingSite(codes.SCT.Breast, laterality=side)],
        measurements=measurements,
    )


@dataclass(frozen=True, slots=True)
class _Answers:
    """Groups of what is answered for an image, a breast or a patient (PS3.16 TID 1501)."""

    maker: Maker
    algorithm: AlgorithmIdentification
    calibration: Calibration | None

    def group(self, level: str, name: str, readings: Sequence[Reading]) -> Any:
        """The group, with a name for people, of an image, or of the images of a breast or a patient."""
        if level == "image":
            joined, scores = None, readings[0].image.scores
        else:
            joined = aggregation_of(self.maker.model)[1] or "max"
            scores = join_images([reading.image for reading in readings], joined)
        labels = self.calibration.labels(level, scores) if self.calibration is not None else {}
        measurements, evaluations = [], []
        for question, score in scores.items():
            rule = source_of(self.maker.model, question)
            measurements.append(
                Measurement(
                    _own(f"{question}-score-{level}", f"{question} score of the {level}"),
                    score,
                    codes.UCUM.NoUnits,
                    derivation=_JOINED[joined] if joined else None,
                    method=_own(f"score-{rule}", SOURCES.get(rule, rule)),
                )
            )
            if question in labels:
                measurements += _numbers(question, labels[question])
                evaluations.append(_evaluation(question, labels[question]))
        concept = _own("findings", f"Number of findings with a score of {self.maker.score_threshold:g} or more")
        count = sum(len(reading.findings) for reading in readings)
        measurements.append(Measurement(concept, count, codes.UCUM.NoUnits))
        if joined:
            measurements.append(Measurement(_own("images", "Number of images"), len(readings), codes.UCUM.NoUnits))
        return MeasurementsAndQualitativeEvaluations(
            TrackingIdentifier(self.maker.uid(name, "answers"), name),
            algorithm_id=self.algorithm,
            finding_sites=[FindingSite(codes.SCT.Breast, laterality=_side(readings))],
            measurements=measurements,
            qualitative_evaluations=evaluations or None,
            source_images=[
                SourceImageForMeasurementGroup(reading.source.SOPClassUID, reading.source.SOPInstanceUID)
                for reading in readings
            ],
        )


def _side(readings: Sequence[Reading]) -> Any:
    """Left, right or both; None where an image does not say."""
    sides = {reading.image.laterality or "" for reading in readings}
    return codes.SCT.Bilateral if sides == set(SIDES) else SIDES.get(sides.pop()) if len(sides) == 1 else None


def _numbers(question: str, found: Mapping[str, Any]) -> list[Measurement]:
    """The probability and the threshold of a label, as far as they are known."""
    numbers = []
    if found["probability"] is not None:
        own = _own(f"{question}-probability", f"Probability of {question}")
        concept = codes.DCM.ProbabilityOfCancer if question == "malignant" else own
        numbers.append(Measurement(concept, found["probability"] * 100, codes.UCUM.Percent))
    if found["label"] is not None:
        concept = _own(f"{question}-threshold", f"{question} score from which the label is {question}")
        numbers.append(Measurement(concept, found["score_threshold"], codes.UCUM.NoUnits))
    return numbers


def _evaluation(question: str, found: Mapping[str, Any]) -> QualitativeEvaluation:
    """The label, with the operating point that its threshold is of."""
    concept = _own(f"{question}-label", f"{question} label at {found['goal']}")
    if found["label"] is None:
        return QualitativeEvaluation(concept, _own("no-label", "no label: the operating point was not reached"))
    word = REPORTED_WORDS[question][found["label"]]
    sign = "from" if found["label"] else "below"
    return QualitativeEvaluation(concept, _own(f"{question}-{found['label']}", f"{word}: score {sign} the threshold"))


def _own(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, SCHEME, meaning)
