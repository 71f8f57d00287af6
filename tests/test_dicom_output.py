"""DICOM objects of predictions, read back by highdicom and pydicom; and the tables beside them."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import small_dicom
from small_calibration import CALIBRATION, FIT, UNREACHED, write_checkpoint

from mammodet.commands import predict
from mammodet.data.images import read_image, write_png
from mammodet.data.inputs import Inputs, gather
from mammodet.data.predictions import Predictions, read_predictions
from mammodet.errors import InputError
from mammodet.geometry import mask_to_rle, rle_box, rle_to_mask
from mammodet.records import Dataset, Detections, ImagePrediction, ImageRecord
from mammodet.reporting.prediction_tables import size_mm, write_tables

pytest.importorskip("highdicom", reason="DICOM output was not tested: mammodet[dicom-out] is not installed")
import highdicom

from mammodet.export.dicom_files import check_sources, write_dicom
from mammodet.export.dicom_source import contours

HEIGHT, WIDTH = 96, 64
MODEL = {"checkpoint_sha256": "ab" * 32, "config": {"model": {"aggregation": {"rule": "max", "over_images": "max"}}}}
MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[20:31, 40:50] = True
MASK[31:35, 44:46] = True
SECOND = np.zeros((HEIGHT, WIDTH), bool)
SECOND[90:96, 60:64] = True  # at the corner of the image


def film(path: Path, number: int, **elements: Any) -> Path:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint16)
    pixels[10:80, 30:] = 2000
    pixels[MASK] = 3500
    if elements.get("PhotometricInterpretation") == "MONOCHROME1":
        pixels = 4095 - pixels
    values = {
        **{"StudyInstanceUID": "1.2.8", "SeriesInstanceUID": "1.2.8.1", "SOPInstanceUID": f"1.2.8.1.{number}"},
        **{"Modality": "MG", "ImageLaterality": "L", "ViewPosition": "CC", "PatientName": "Doe^Jane"},
        **{"WindowCenter": 2048, "WindowWidth": 4096, "PatientID": "=1+1"},
        **elements,
    }
    return small_dicom.save(path, small_dicom.image(pixels, 12, **values))


def predicted(name: str, number: int, *masks: np.ndarray) -> ImagePrediction:
    rles = [mask_to_rle(mask) for mask in masks]
    boxes = np.array([rle_box(rle) for rle in rles], float).reshape(-1, 4)
    scores = np.array([0.9, 0.4][: len(rles)])
    detections = Detections(boxes, scores, np.ones(len(rles), np.int64), rles)
    scores = {"tumor": 0.9 if masks else 0.1}
    return ImagePrediction(
        number, name, (HEIGHT, WIDTH), scores, detections, patient_id="=1+1", laterality="L", view="CC"
    )


@pytest.fixture
def study(tmp_path: Path) -> tuple[Predictions, Inputs]:
    """MONOCHROME1 with spacing and frame of reference, MONOCHROME2 without either, and an image without findings."""
    folder = tmp_path / "in"
    folder.mkdir()
    film(
        folder / "a.dcm",
        1,
        PhotometricInterpretation="MONOCHROME1",
        FrameOfReferenceUID="1.2.8.7",
        ImagerPixelSpacing=[0.1, 0.1],
        PatientOrientation=["A", "F"],
        BodyPartThickness=50,
        EstimatedRadiographicMagnificationFactor=1.25,
    )
    film(folder / "b.dcm", 2, ViewPosition="MLO", PatientOrientation="MLO", PixelSpacing=[9.0, 9.0])
    film(folder / "c.dcm", 3, ImageLaterality="R", StudyInstanceUID="1.2.9")
    images = (predicted("a.dcm", 1, MASK, SECOND), predicted("b.dcm", 2, SECOND), predicted("c.dcm", 3))
    found = gather([folder], ["mass"], unpack_to=tmp_path / "unpacked")
    return Predictions(images, ("mass",), MODEL), found


def write(study: tuple[Predictions, Inputs], folder: Path, *kinds: str) -> dict[str, pydicom.Dataset]:
    """Objects by the last part of the UID of the image that they are of."""
    written = write_dicom(*study, folder, kinds, 0.3)
    return {_source(dataset): dataset for dataset in map(pydicom.dcmread, written)}


def _source(dataset: pydicom.Dataset) -> str:
    found = re.findall(r"\(0008,1155\).*UI: (1\.2\.8\.1\.\d)", str(dataset))
    return found[0][-1]


def test_segmentation_has_the_masks_of_the_json(study: tuple[Predictions, Inputs], tmp_path: Path) -> None:
    found = write(study, tmp_path / "out", "seg")
    assert sorted(found) == ["1", "2"]  # none for the image without findings
    for number, masks in (("1", (MASK, SECOND)), ("2", (SECOND,))):
        segments = highdicom.seg.Segmentation.from_dataset(found[number])
        pixels = segments.get_pixels_by_source_instance([f"1.2.8.1.{number}"])
        np.testing.assert_array_equal(pixels[0], np.stack(masks, axis=-1))
        np.testing.assert_array_equal(found[number].pixel_array.reshape(-1, HEIGHT, WIDTH), np.stack(masks))
        assert [item.SegmentLabel for item in found[number].SegmentSequence] == ["mass 1", "mass 2"][: len(masks)]
        assert (found[number].PatientID, found[number].PatientName) == ("=1+1", "Doe^Jane")
    measures = found["1"].SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert list(measures.PixelSpacing) == pytest.approx([0.08, 0.08])
    assert found["1"].FrameOfReferenceUID == "1.2.8.7"
    assert "FrameOfReferenceUID" not in found["2"]
    assert "PixelMeasuresSequence" not in found["2"].SharedFunctionalGroupsSequence[0]


def test_report_has_outlines_scores_sizes_and_the_checkpoint(study: tuple[Predictions, Inputs], tmp_path: Path) -> None:
    reports = [pydicom.dcmread(path) for path in write_dicom(*study, tmp_path / "out", ["sr"], 0.3)]
    assert [report.StudyInstanceUID for report in reports] == ["1.2.8", "1.2.9"]
    content = highdicom.sr.ComprehensiveSR.from_dataset(reports[0]).content
    first, second, third = content.get_planar_roi_measurement_groups()
    for group, mask, score in ((first, MASK, 90), (second, SECOND, 40), (third, SECOND, 90)):
        x1, y1, x2, y2 = rle_box(mask_to_rle(mask))
        points = group.roi.value
        assert (*points.min(axis=0), *points.max(axis=0)) == (x1, y1, x2, y2)
        assert group.finding_type.meaning == "Mass"
        assert group.get_measurements()[0].value == pytest.approx(score)
    sizes = {item.name.meaning: item.value for item in first.get_measurements()[1:]}
    assert sizes == pytest.approx({"Long axis": np.hypot(6, 15) * 0.08, "Short axis": sizes["Short axis"]})
    assert len(third.get_measurements()) == 1  # without spacing no size
    assert "ab" * 32 in reports[0].to_json()
    evidence = reports[0].CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert [item.ReferencedSOPInstanceUID for item in evidence.ReferencedSOPSequence] == ["1.2.8.1.1", "1.2.8.1.2"]
    *_, without = highdicom.sr.ComprehensiveSR.from_dataset(reports[1]).content.get_image_measurement_groups()
    assert {item.name.meaning: item.value for item in without.get_measurements()} == {
        "tumor score of the image": 0.1,
        "Number of findings with a score of 0.3 or more": 0,
    }


def test_report_answers_for_patient_and_breasts_with_the_rule(
    study: tuple[Predictions, Inputs], tmp_path: Path
) -> None:
    predictions, inputs = study
    scores = ({"tumor": 0.8, "malignant": 0.1}, {"tumor": 0.2, "malignant": 0.2}, {"tumor": 0.1, "malignant": 0.4})
    images = [replace(image, scores=one) for image, one in zip(predictions.images, scores, strict=True)]
    images[1] = replace(images[1], laterality="R")
    model = {**MODEL, "config": {"model": {"aggregation": {"rule": "noisy_or", "over_images": "mean"}}}}
    fits = [replace(FIT, level=level, label=label) for level in ("breast", "patient") for label in scores[0]]
    fits[0] = UNREACHED  # of breasts, tumor
    calibration = replace(CALIBRATION, fits=tuple(fits))
    written = write_dicom(
        replace(predictions, images=tuple(images), model=model), inputs, tmp_path, ["sr"], 0.3, calibration
    )
    content = highdicom.sr.ComprehensiveSR.from_dataset(pydicom.dcmread(written[0])).content
    patient, left, right, *_ = content.get_image_measurement_groups()
    assert [group.finding_sites[0].laterality.meaning for group in (patient, left, right)] == [
        "Bilateral",
        "Left",
        "Right",
    ]
    assert [str(item.referenced_sop_instance_uid) for item in patient.source_images] == ["1.2.8.1.1", "1.2.8.1.2"]
    assert [str(item.referenced_sop_instance_uid) for item in right.source_images] == ["1.2.8.1.2"]
    numbers = {item.name.meaning: item.value for item in patient.get_measurements()}
    assert numbers == pytest.approx(
        {
            "tumor score of the patient": 0.5,  # the mean of 0.8 and 0.2
            "Probability of tumor": 50,
            "tumor score from which the label is tumor": 0.2,
            "malignant score of the patient": 0.15,
            "Probability of cancer": 100 * 9 / (9 + 17**2),  # odds of 3 to 17, squared
            "malignant score from which the label is malignant": 0.2,
            "Number of findings with a score of 0.3 or more": 3,
            "Number of images": 2,
        }
    )
    score = patient.get_measurements()[0]
    assert (score.derivation.meaning, score.method.meaning) == ("Mean", "any of the detections (noisy or)")
    assert labels_of(patient) == {
        "tumor label at sensitivity@0.9": "tumor: score from the threshold",
        "malignant label at sensitivity@0.9": "no malignancy reported: score below the threshold",
    }
    assert labels_of(left) == {
        "tumor label at sensitivity@0.9": "no label: the operating point was not reached",
        "malignant label at sensitivity@0.9": "no malignancy reported: score below the threshold",
    }
    assert labels_of(right)["malignant label at sensitivity@0.9"] == "malignant: score from the threshold"


def labels_of(group: Any) -> dict[str, str]:
    return {item.name.meaning: item.value.meaning for item in group.get_qualitative_evaluations()}


def test_sizes_of_findings_without_masks_are_the_box_s_in_report_and_table(
    study: tuple[Predictions, Inputs], tmp_path: Path
) -> None:
    predictions, inputs = study
    images = tuple(replace(each, detections=replace(each.detections, rles=None)) for each in predictions.images)
    predictions = replace(predictions, images=images)
    (path, _) = write_dicom(predictions, inputs, tmp_path / "out", ["sr"], 0.3)
    groups = highdicom.sr.ComprehensiveSR.from_dataset(
        pydicom.dcmread(path)
    ).content.get_planar_roi_measurement_groups()
    x1, y1, x2, y2 = images[0].detections.boxes_xyxy[0]
    sides = sorted([0.08 * (x2 - x1), 0.08 * (y2 - y1)], reverse=True)
    assert [item.value for item in groups[0].get_measurements()[1:]] == pytest.approx(sides)
    write_tables(predictions, inputs, tmp_path, score_threshold=0.3)
    with open(tmp_path / "findings.csv", encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    assert [float(row["long_mm"]), float(row["short_mm"])] == pytest.approx(sides, abs=0.005)


def test_presentation_state_draws_the_contours_and_inverts_monochrome1(
    study: tuple[Predictions, Inputs], tmp_path: Path
) -> None:
    found = write(study, tmp_path / "out", "gsps")
    shapes = {number: dataset.PresentationLUTShape for number, dataset in found.items()}
    assert shapes == {"1": "INVERSE", "2": "IDENTITY", "3": "IDENTITY"}
    graphics = found["1"].GraphicAnnotationSequence[0].GraphicObjectSequence
    for item, mask in zip(graphics, (MASK, SECOND), strict=True):
        points = np.reshape(item.GraphicData, (-1, 2))
        assert item.GraphicAnnotationUnits == "PIXEL"
        assert (*points.min(axis=0), *points.max(axis=0)) == rle_box(mask_to_rle(mask))
    texts = [item.UnformattedTextValue for item in found["1"].GraphicAnnotationSequence[0].TextObjectSequence]
    assert texts == ["mass 1: 0.90", "mass 2: 0.40"]
    assert "GraphicAnnotationSequence" not in found["3"]
    assert found["1"].SOPClassUID == "1.2.840.10008.5.1.4.1.1.11.1"


def test_secondary_capture_shows_the_image_upright_in_colour_without_the_patient(
    study: tuple[Predictions, Inputs], tmp_path: Path
) -> None:
    found = write(study, tmp_path / "out", "sc")
    pixels = found["1"].pixel_array[-HEIGHT:, :WIDTH]
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert np.ptp(pixels[60, 40].astype(int)) == 0  # tissue is grey ...
    assert np.ptp(pixels[25, 45].astype(int)) > 20  # ... and a finding is tinted
    assert pixels[60, 40].mean() > pixels[60, 5].mean() + 50  # bright, of MONOCHROME1
    assert (found["1"].PatientName, found["1"].BurnedInAnnotation, found["3"].PatientOrientation) == (
        "Doe^Jane",
        "NO",
        "",
    )
    same = write((replace_names(study[0]), study[1]), tmp_path / "other", "sc")
    np.testing.assert_array_equal(same["1"].pixel_array, found["1"].pixel_array)


def replace_names(predictions: Predictions) -> Predictions:
    """The same of another patient: what is burned into pixels must not change."""
    return replace(predictions, images=tuple(replace(image, patient_id="OTHER") for image in predictions.images))


def test_second_run_replaces_the_objects_and_another_threshold_makes_others(
    study: tuple[Predictions, Inputs], tmp_path: Path
) -> None:
    kinds = ["sr", "seg", "sc", "gsps"]
    first = write_dicom(*study, tmp_path / "out", kinds, 0.3)
    assert len(first) == 2 + 2 + 3 + 3
    assert write_dicom(*study, tmp_path / "out", kinds, 0.3) == first
    assert sorted((tmp_path / "out").iterdir()) == sorted(first)
    assert not set(write_dicom(*study, tmp_path / "out", kinds, 0.5)) & set(first)
    ids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in first]
    assert all(len(uid) <= 64 and uid in path.name for uid, path in zip(ids, first, strict=True))


def test_what_cannot_be_referred_to_is_refused_with_every_reason(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    film(folder / "good.dcm", 1)
    film(folder / "other.dcm", 1, ViewPosition="MLO")
    film(folder / "patient.dcm", 3, PatientID="P2")
    film(folder / "bare.dcm", 2, SeriesInstanceUID=None)
    write_png(folder / "film.png", np.zeros((8, 8), np.uint8))
    images = [ImageRecord(number, path.name, (8, 8)) for number, path in enumerate(sorted(folder.iterdir()), 1)]
    found = Inputs(Dataset(("mass",), tuple(images)), folder)  # a data set stays as it is: also what it holds twice
    with pytest.raises(InputError) as refused:
        check_sources(found, ["seg"], with_masks=False)
    for part in (
        "film.png: is no DICOM file",
        "no valid SeriesInstanceUID",
        "no masks",
        "other.dcm: has the SOP Instance",
        "patient.dcm: is of the study of good.dcm, and of another patient",
    ):
        assert part in str(refused.value)
    assert "good.dcm: " not in str(refused.value)


def test_contours_stay_within_half_a_pixel_of_the_mask() -> None:
    (square,) = contours(mask_to_rle(np.pad(np.ones((1, 1), bool), ((5, 4), (3, 6)))))
    assert {(float(x), float(y)) for x, y in square} == {(3, 5), (4, 5), (4, 6), (3, 6)}
    rows, columns = np.ogrid[:80, :80]
    disc = (rows - 40) ** 2 + (columns - 36) ** 2 <= 30**2
    disc[:3, :3] = True
    large, small = contours(mask_to_rle(disc))
    assert len(small) == 5
    radius = np.hypot(*(large - (36.5, 40.5)).T)
    assert len(large) < 100
    assert radius.min() > 29
    assert radius.max() < 31.2


def test_size_is_that_of_the_hull_or_of_the_box() -> None:
    mask = np.zeros((20, 20), bool)
    mask[4:8, 5:8] = True
    assert size_mm((0, 0, 1, 1), mask_to_rle(mask), (1.0, 1.0)) == pytest.approx((5.0, 4.8))  # 3-4-5
    assert size_mm((0, 0, 1, 1), mask_to_rle(mask), (2.0, 1.0))[0] == pytest.approx(np.hypot(8, 3))
    assert size_mm((1, 1, 4, 11), None, (0.5, 2.0)) == (6.0, 5.0)


def test_tables_list_every_file_and_quote_formulas(study: tuple[Predictions, Inputs], tmp_path: Path) -> None:
    predictions, found = study
    found = replace(found, left_out=(*found.left_out, *found.skipped))
    paths = write_tables(predictions, found, tmp_path / "out", score_threshold=0.3)
    rows = {path.stem: list(csv.DictReader(path.open(encoding="utf-8"))) for path in paths}
    assert [row["findings"] for row in rows["images"]] == ["2", "1", "0"]
    assert {row["patient_id"] for row in rows["images"]} == {"'=1+1"}
    first, _, third = rows["findings"]
    assert (first["x"], first["y"], first["width"], first["height"]) == ("40.0", "20.0", "10.0", "15.0")
    assert float(first["area_mm2"]) == pytest.approx((110 + 8) * 0.08**2, abs=0.01)
    assert (third["long_mm"], third["spacing"]) == ("", "none: no real spacing is stated")
    assert [(row["exam"], row["laterality"], row["images"]) for row in rows["breasts"]] == [
        ("1.2.8", "L", "2"),
        ("1.2.9", "L", "1"),
    ]
    assert rows["patients"][0]["missing"] == "R CC; R MLO"
    assert rows["images"][0]["tumor_rule"] == "score: the strongest detection; no label: no calibration"


def test_damaged_dates_are_refused_before_prediction(tmp_path: Path) -> None:
    path = film(tmp_path / "a.dcm", 1, StudyDate="20200101")
    path.write_bytes(path.read_bytes().replace(b"20200101", b"2O200101"))
    with pytest.raises(InputError, match=r"a\.dcm: StudyDate is '2O200101'; expected YYYYMMDD"):
        check_sources(gather([path], ["mass"], unpack_to=tmp_path / "unpacked"), ["sr"], with_masks=True)


def test_predict_writes_all_of_a_flipped_and_cropped_study(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "best.ckpt")
    folder = tmp_path / "in"
    folder.mkdir()
    film(folder / "a.dcm", 1, PhotometricInterpretation="MONOCHROME1")
    film(folder / "raw.dcm", 2, SOPClassUID="1.2.840.10008.5.1.4.1.1.1.2.1")
    arguments = ["--checkpoint", checkpoint, "--input", folder, "--output", tmp_path / "out", "--device", "cpu"]
    kinds = ["--overlays", "--score-threshold", "0", "--dicom", "sr", "seg", "sc", "gsps"]
    assert predict.main([*map(str, arguments), *kinds]) == 0
    (image,) = read_predictions(tmp_path / "out" / "predictions.json").images
    with (tmp_path / "out" / "images.csv").open(encoding="utf-8") as file:
        assert [(row["file_name"], row["status"]) for row in csv.DictReader(file)] == [
            ("a.dcm", "predicted"),
            ("raw.dcm", "left out"),
        ]
    assert (tmp_path / "out" / "overlays" / "a.jpg").is_file()
    assert image.detections.rles is not None
    objects = {path.name.split("_")[0]: pydicom.dcmread(path) for path in (tmp_path / "out" / "dicom").iterdir()}
    masks = np.stack([rle_to_mask(rle) for rle in image.detections.rles if rle_to_mask(rle).any()])
    stored = objects["seg"].pixel_array.reshape(-1, HEIGHT, WIDTH)
    for mask in masks:
        assert any(np.array_equal(mask, plane) for plane in stored)
    assert read_image(folder / "a.dcm").shape == (HEIGHT, WIDTH)
    write_png(folder / "b.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match=r"b\.png: is no DICOM file"):
        predict.main([*map(str, arguments), *kinds])
