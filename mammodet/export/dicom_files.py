"""Predictions as DICOM objects beside the images they belong to: which are written, and their files."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mammodet.data.images import is_dicom
from mammodet.data.inputs import Inputs
from mammodet.data.predictions import Predictions
from mammodet.errors import InputError, raise_faults
from mammodet.evaluation.calibration_file import Calibration
from mammodet.files import atomic_path
from mammodet.reporting.prediction_tables import findings_of, spacings_of


def check_sources(inputs: Inputs, kinds: Sequence[str], *, with_masks: bool) -> None:
    """Refuse what cannot be written, before anything is predicted.

    Raises InputError: with each image that is no DICOM file, or does not say which object it is.
    """
    try:
        import highdicom  # noqa: F401

        from mammodet.export.dicom_source import read_source
    except ImportError as error:
        raise InputError(f'--dicom: needs {error.name}; pip install "mammodet[dicom-out]"') from None
    faults = ["--dicom seg: this model has no masks; leave seg out"] if "seg" in kinds and not with_masks else []
    first: dict[str, str] = {}
    patients: dict[str, tuple[str, str]] = {}
    for record in inputs.dataset.images:
        path = inputs.root / record.file_name
        if not is_dicom(path):
            faults.append(f"{record.file_name}: is no DICOM file; DICOM output must refer to one")
            continue
        try:
            source = read_source(path)
        except InputError as error:
            faults.append(str(error))
            continue
        if (other := first.setdefault(str(source.SOPInstanceUID), record.file_name)) != record.file_name:
            faults.append(f"{record.file_name}: has the SOP Instance UID of {other}")
        patient = str(source.PatientID)
        found, other = patients.setdefault(str(source.StudyInstanceUID), (patient, record.file_name))
        if found != patient:
            faults.append(f"{record.file_name}: is of the study of {other}, and of another patient")
    raise_faults(faults, where="--dicom", advice="Leave --dicom out, or give DICOM images alone, each once.")


def write_dicom(
    predictions: Predictions,
    inputs: Inputs,
    folder: Path,
    kinds: Sequence[str],
    score_threshold: float,
    calibration: Calibration | None = None,
) -> list[Path]:
    """Write objects of the given kinds (`sr`, `seg`, `sc`, `gsps`), named by their SOP Instance UIDs.

    One report per study; of the others one object per image, no segmentation where there is no finding. UIDs follow
    from image, model and threshold, so that a second run replaces the objects of the first, here and in a PACS.

    Raises InputError: with each object that cannot be written, once the others are.
    """
    from pydicom.dataset import Dataset

    from mammodet.data.dicom.file import quiet
    from mammodet.export import dicom_objects
    from mammodet.export.dicom_report import make_report
    from mammodet.export.dicom_source import Maker, Reading, read_source

    maker = Maker.of(predictions.model, score_threshold)
    studies: dict[str, list[Reading]] = {}
    spacings = spacings_of(inputs)
    for image in predictions.images:
        path = inputs.root / image.file_name
        found = findings_of(image.detections, score_threshold)
        names = tuple(predictions.categories[int(number) - 1] for number in found.category_ids)
        reading = Reading(read_source(path), path, image, found, names, spacings.get(image.file_name))
        studies.setdefault(str(reading.source.StudyInstanceUID), []).append(reading)
    written, faults = [], []

    def write(kind: str, where: str, make: Callable[[], Dataset]) -> None:
        try:
            with quiet:
                dataset = make()
                path = folder / f"{kind}_{dataset.SOPInstanceUID}.dcm"
                with atomic_path(path) as whole:
                    dataset.save_as(whole, enforce_file_format=True)
        # what highdicom and pydicom say of headers that they refuse
        except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
            reason = str(error)[:200] if isinstance(error, ValueError) else "its header lacks something, or is damaged"
            faults.append(f"{where}: no {kind} can be written: {reason}")
            return
        written.append(path)

    per_image = {
        "seg": dicom_objects.make_segmentation,
        "sc": dicom_objects.make_capture,
        "gsps": dicom_objects.make_presentation,
    }
    for study, readings in studies.items():
        if "sr" in kinds:
            write("sr", f"study {study}", lambda readings=readings: make_report(readings, maker, 1, calibration))  # type: ignore[misc]
        for number, reading in enumerate(readings, 1):
            for kind in kinds:
                if kind != "sr" and not (kind == "seg" and not len(reading.findings)):
                    make = per_image[kind]
                    write(kind, reading.image.file_name, lambda m=make, r=reading, n=number: m(r, maker, n))  # type: ignore[misc]
    raise_faults(faults, where=str(folder), advice=f"{len(written)} objects were written.")
    return written
