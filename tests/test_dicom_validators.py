"""DICOM objects before programs of others: dciodvfy (dicom3tools) and dcmqi's reader of TID 1500."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from test_dicom_output import MASK, MODEL, SECOND, film, predicted

from mammodet.data.inputs import gather
from mammodet.data.predictions import Predictions
from mammodet.export.dicom_files import write_dicom

PERSON = {
    **{"PatientName": "Doe^Jane", "PatientID": "P1", "PatientBirthDate": "19500101", "PatientSex": "F"},
    **{"StudyDate": "20200101", "StudyTime": "101010", "StudyID": "1", "AccessionNumber": "A1"},
    **{"ReferringPhysicianName": "Roe^Richard", "StudyDescription": "Mammography", "PatientAge": "070Y"},
}
#: What dciodvfy says of things that are right, or that the source lacks (docs/dicom.md).
EXPECTED = re.compile(
    "Unrecognized defined term = <99MAMMODET>|needed to build DICOMDIR|permitted to be empty when actually unknown"
)


@pytest.fixture
def written(tmp_path: Path) -> dict[str, list[Path]]:
    """Objects by kind, of a study with all that headers may say, a film, and one of which nothing is known."""
    folder = tmp_path / "in"
    folder.mkdir()
    position = {"FrameOfReferenceUID": "1.2.8.7", "BodyPartThickness": 50}
    detector = {"ImagerPixelSpacing": [0.1, 0.1], **PERSON}
    film(
        folder / "a.dcm", 1, PhotometricInterpretation="MONOCHROME1", PatientOrientation="A\\R", **position, **detector
    )
    film(folder / "b.dcm", 2, ViewPosition="MLO", ImageLaterality="R", PatientOrientation="P\\FL", **detector)
    scanned = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "ConversionType": "DF", "PatientOrientation": "CC"}
    film(folder / "c.dcm", 3, StudyInstanceUID="1.2.9", NominalScannedPixelSpacing=[0.05, 0.05], **scanned, **PERSON)
    keywords = ("PatientName", "PatientID", "ImageLaterality", "ViewPosition", "WindowCenter", "WindowWidth")
    unknown = dict.fromkeys(keywords)
    film(folder / "d.dcm", 4, StudyInstanceUID="1.2.10", **unknown)
    images = [predicted(f"{name}.dcm", number, MASK, SECOND) for number, name in enumerate("abc", 1)]
    sided = zip([*images, predicted("d.dcm", 4)], ("L", "R", "L", None), strict=True)
    images = [replace(image, laterality=side) for image, side in sided]
    found = gather([folder], ["mass"], unpack_to=tmp_path / "unpacked")
    paths = write_dicom(Predictions(tuple(images), ("mass",), MODEL), found, tmp_path / "out", KINDS, 0.3)
    return {kind: [path for path in paths if path.name.startswith(f"{kind}_")] for kind in KINDS}


KINDS = ("sr", "seg", "sc", "gsps")


def complaints(*paths: Path) -> list[str]:
    """Errors and warnings of dciodvfy that are not expected."""
    said = []
    for path in paths:
        printed = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, errors="replace").stderr
        lines = [line for line in printed.splitlines() if line.startswith(("Error", "Warning"))]
        said += [f"{path.name}: {line}" for line in lines if not EXPECTED.search(line)]
    return said


def test_dciodvfy_finds_no_fault_in_any_object(written: dict[str, list[Path]], tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("DICOM objects were NOT VALIDATED: no dciodvfy was found (apt-get install dicom3tools)")
    assert [len(paths) for paths in written.values()] == [3, 3, 4, 4]
    assert complaints(*(path for paths in written.values() for path in paths)) == []
    broken = pydicom.dcmread(written["gsps"][0])
    del broken.Laterality
    broken.save_as(tmp_path / "broken.dcm")
    (complaint,) = complaints(tmp_path / "broken.dcm")
    assert "</Laterality(0020,0060)> - Missing attribute" in complaint


def test_captures_and_presentation_states_of_each_side_are_a_series(written: dict[str, list[Path]]) -> None:
    for kind in ("sc", "gsps"):
        found = [pydicom.dcmread(path) for path in written[kind]]
        assert [item.Laterality for item in found] == ["L", "R", "L", ""]
        assert len({item.SeriesInstanceUID for item in found}) == 4  # of three studies, one with both sides
    captures = [pydicom.dcmread(path) for path in written["sc"]]
    assert [list(item.PatientOrientation or []) for item in captures] == [["A", "R"], ["P", "FL"], [], []]
    assert [item.get("StudyDescription") for item in captures] == ["Mammography"] * 3 + [None]


def dcmqi(program: str, path: Path, *options: str | Path) -> None:
    """Run a program of dcmqi on a file."""
    if shutil.which(program) is None:
        pytest.skip(f"DICOM objects were NOT READ BY ANOTHER PROGRAM: no {program} was found (pip install dcmqi)")
    subprocess.run([program, "--inputDICOM", path, *options], check=True, capture_output=True)


def test_report_is_read_by_dcmqi(written: dict[str, list[Path]], tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    dcmqi("tid1500reader", written["sr"][0], "--outputMetadata", output)
    groups = {group["TrackingIdentifier"]: group for group in json.loads(output.read_text())["Measurements"]}
    assert len(groups) == 9  # two images with two findings each, the images, the breasts, and the patient
    first = groups["mass 1 on 1.2.8.1.1"]
    assert (first["Finding"]["CodeMeaning"], first["Laterality"]["CodeMeaning"]) == ("Mass", "Left")
    values = {item["quantity"]["CodeMeaning"]: float(item["value"]) for item in first["measurementItems"]}
    assert values == pytest.approx({**values, "Certainty of Finding": 90, "Long axis": 0.1 * np.hypot(6, 15)})
    assert groups["study 1.2.8"]["Laterality"]["CodeMeaning"] == "Bilateral"


def test_masks_are_read_by_dcmqi_once_they_have_a_position(written: dict[str, list[Path]], tmp_path: Path) -> None:
    dataset, orientation, position = pydicom.dcmread(written["seg"][0]), pydicom.Dataset(), pydicom.Dataset()
    orientation.ImageOrientationPatient, position.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = [orientation]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence = [position]
    dataset.save_as(tmp_path / "seg.dcm")
    dcmqi("segimage2itkimage", tmp_path / "seg.dcm", "--outputDirectory", tmp_path, "-t", "nrrd")
    for number, mask in ((1, MASK), (2, SECOND)):
        packed = (tmp_path / f"{number}.nrrd").read_bytes().partition(b"\n\n")[2]
        pixels = np.frombuffer(gzip.decompress(packed), "<i2").reshape(mask.shape)
        np.testing.assert_array_equal(pixels, mask * number)
