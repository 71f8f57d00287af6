"""Findings of an exam as a Comprehensive SR by TID 1500 (PS3.16), which OHIF, 3D Slicer and others read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

import mammodet
from mammodet.data.dicom.tags import numbers
from mammodet.export.dicom_source import SCHEME, SIDES, Maker, Reading
from mammodet.reporting.prediction_tables import size_mm
from mammodet.targets import label_words


def make_report(readings: Sequence[Reading], maker: Maker, number: int) -> Dataset:
    """One report of the images of a study.

    Each finding is a planar ROI (the outline of its largest part) with its score as Certainty of Finding in percent
    and, if the spacing is real, its diameters; each image has a group with its scores, labels and number of findings.
    """
    sources = [reading.source for reading in readings]
    described = [reading.source for reading in readings if _can_be_described(reading)]
    study = str(sources[0].StudyInstanceUID)
    algorithm = AlgorithmIdentification(
        "mammodet",
        mammodet.__version__,
        parameters=[f"{name}={value}" for name, value in maker.parameters.items()],
    )
    groups = []
    for reading in readings:
        groups += [_finding(reading, index, maker, algorithm) for index in range(len(reading.findings))]
        groups.append(_image(reading, maker, algorithm))
    device = DeviceObserverIdentifyingAttributes(
        uid=maker.uid("device"), name="mammodet", manufacturer_name="mammodet developers", model_name="mammodet"
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
        **maker.series(study, "sr", 9001),
    )


def _can_be_described(reading: Reading) -> bool:
    """Whether a source has what TID 1603 of the image library says of X-ray images; a report refers to all sources."""
    spacing = numbers(reading.source, "ImagerPixelSpacing")
    is_x_ray = str(reading.source.SOPClassUID).startswith("1.2.840.10008.5.1.4.1.1.1.")
    return is_x_ray and reading.orientation is not None and len(spacing) == 2


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


def _image(reading: Reading, maker: Maker, algorithm: AlgorithmIdentification) -> Any:
    measurements = [
        Measurement(_own(f"{name}-score", f"{name} score of the image"), score, codes.UCUM.NoUnits)
        for name, score in reading.image.scores.items()
    ]
    count = _own("findings", f"Number of findings with a score of {maker.score_threshold:g} or more")
    measurements.append(Measurement(count, len(reading.findings), codes.UCUM.NoUnits))
    evaluations = []
    for name, found in reading.labels.items():
        if found.get("probability") is not None and name == "malignant":
            measurements.append(
                Measurement(codes.DCM.ProbabilityOfCancer, found["probability"] * 100, codes.UCUM.Percent)
            )
        if found.get("label") is not None:
            word = label_words(name)[found["label"]]
            rule = f"{name} label: score at least {found['score_threshold']:.6g} ({found['goal']})"
            evaluations.append(QualitativeEvaluation(_own(f"{name}-label", rule[:64]), _own(word, word)))
    return MeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(maker.uid(reading.uid, "image"), f"image {reading.uid}"),
        algorithm_id=algorithm,
        finding_sites=[FindingSite(codes.SCT.Breast, laterality=SIDES.get(reading.image.laterality or ""))],
        measurements=measurements,
        qualitative_evaluations=evaluations or None,
        source_images=[SourceImageForMeasurementGroup(reading.source.SOPClassUID, reading.source.SOPInstanceUID)],
    )


def _own(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value.replace(" ", "-")[:16], SCHEME, meaning)
