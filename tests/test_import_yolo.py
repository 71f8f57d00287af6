"""Import of YOLO label folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_cases import box_mask
from test_import_coco import HEIGHT, NAMES, WIDTH, found, ground_truth

from mammodet.errors import InputError
from mammodet.imports import ImportOptions
from mammodet.imports.run import import_predictions

MAP = ("0=mass", "1=calcification")


def take(folder: Path, files: dict[str, str], *, names=NAMES, **options):
    """Predictions and summary of a label folder with these files."""
    labels = folder / "lab els"
    labels.mkdir(exist_ok=True)
    for name, content in files.items():
        (labels / name).parent.mkdir(parents=True, exist_ok=True)
        (labels / name).write_text(content, encoding="utf-8")
    options = {"category_map": MAP, **options}
    return import_predictions("yolo", labels, ground_truth(folder, names), ImportOptions(**options))


def refusal(folder: Path, files: dict[str, str], **options) -> str:
    with pytest.raises(InputError) as caught:
        take(folder, files, **options)
    return str(caught.value)


def test_yolo_boxes_are_shares_of_width_and_height(tmp_path):
    # Of 200 x 100 (width x height): centre (50, 50), 20 wide, 50 high.
    predictions, summary = take(tmp_path, {"im1.txt": "1 0.25 0.5 0.1 0.5 0.75\n\n0 0.5 0.5 1 1 0.875\n"})
    assert found(predictions.images[0]) == ([[0, 0, 200, 100], [40, 25, 60, 75]], [0.875, 0.75], [1, 2])
    assert found(predictions.images[1]) == ([], [], [])  # no file: nothing was found
    assert summary.images_with_detections == 1


def test_our_own_boxes_come_back_from_yolo(tmp_path):
    boxes = [(10.0, 20.0, 40.0, 60.0), (0.0, 0.0, 7.0, 3.0), (100.0, 50.0, 200.0, 100.0)]
    lines = []
    for x1, y1, x2, y2 in boxes:
        shares = ((x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT)
        lines.append(" ".join(["0", *(f"{share!r}" for share in shares), "0.5"]))
    predictions, _ = take(tmp_path, {"im2.txt": "\n".join(lines)})
    assert predictions.images[1].detections.boxes_xyxy.ravel() == pytest.approx(np.ravel(boxes), abs=1e-9)


def test_yolo_outlines_become_masks_and_boxes(tmp_path):
    # x 10 to 14 of 200, y 20 to 25 of 100.
    outline = "0.05 0.2 0.07 0.2 0.07 0.25 0.05 0.25"
    predictions, summary = take(tmp_path, {"im1.txt": f"0 {outline} 0.5\n", "im2.txt": ""})
    detections = predictions.images[0].detections
    assert detections.boxes_xyxy[0].tolist() == pytest.approx([10, 20, 14, 25])
    assert list(detections.rles) == [box_mask((10, 20, 14, 25), (HEIGHT, WIDTH))]
    assert summary.masks == 1


def test_a_line_without_confidence_is_refused_unless_a_score_is_given(tmp_path):
    files = {"im1.txt": "0 0.25 0.5 0.1 0.5\n", "im2.txt": "0 0.05 0.2 0.07 0.2 0.07 0.25\n"}
    message = refusal(tmp_path, files)
    assert "im1.txt line 1 (image 'images/im1.png'): score is missing; --default-score 1 would give one" in message
    predictions, _ = take(tmp_path, files, default_score=0.5, boxes_only=True)
    assert found(predictions.images[0]) == ([[40, 25, 60, 75]], [0.5], [1])


def test_names_with_points_folders_and_umlauts_are_met(tmp_path):
    names = ("a/im.1.png", "b/im.1.png", "Brüste links/ä b.png")
    line = "0 0.25 0.5 0.1 0.5 0.5"
    predictions, _ = take(tmp_path, {"b/im.1.txt": line, "ä b.png.txt": line}, names=names)
    assert [len(image.detections) for image in predictions.images] == [0, 1, 1]


def test_all_faults_of_yolo_lines_are_told_at_once(tmp_path):
    text = (
        "0 0.25 0.5 0.1 0.5 0.5\n0 0.25 0.5 0.1\n0 50 50 20 50 0.5\n0 0.25 nan 0.1 0.5 0.5\n0.5 0.25 0.5 0.1 0.5 0.5\n"
        "0 0.25 0.5 -0.1 0.5 0.5\n0 1.1 0.5 0.1 0.5 0.5\n0 0.25 0.5 0.1 0.5 1.5\n7 0.25 0.5 0.1 0.5 0.5\n"
        "0,0.25,0.5,0.1,0.5,0.5\n0 0.25 0.5 0.1 0.5 0.5\n"
    )
    message = refusal(tmp_path, {"im1.txt": text, "im9.txt": "0 0.25 0.5 0.1 0.5 0.5"})
    at = "(image 'images/im1.png'): "
    for line in (
        f"im1.txt line 2 {at}4 numbers in '0 0.25 0.5 0.1'; expected class, x centre",
        f"im1.txt line 3 {at}'0 50 50 20 50 0.5'; expected shares of the width and height, from 0 to 1, not pixels",
        f"im1.txt line 4 {at}'nan'; expected numbers alone",
        f"im1.txt line 5 {at}class is 0.5; expected a whole number from 0",
        f"im1.txt line 6 {at}line '0 0.25 0.5 -0.1 0.5 0.5' (class, then shares of width and height) is empty",
        f"im1.txt line 7 {at}line '0 1.1 0.5 0.1 0.5 0.5' (class, then shares of width and height) leaves the image",
        f"im1.txt line 8 {at}score is 1.5; expected a number in [0, 1]",
        "im1.txt line 9: class id 7 is not known; the ground truth has 1 'mass', 2 'calcification'",
        f"im1.txt line 10 {at}'0,0.25,0.5,0.1,0.5,0.5'; expected numbers alone, with spaces between",
        f"im1.txt line 11 {at}is the same detection as im1.txt line 1",
        "im9.txt: image 'im9' is not in the ground truth",
    ):
        assert line in message
    assert "11 faults" in message
    assert "Lines are counted from 1." in message


def test_yolo_classes_without_a_map_are_refused_even_where_there_is_one_category(tmp_path):
    message = refusal(tmp_path, {"im1.txt": "1 0.25 0.5 0.1 0.5 0.5"}, category_map=())
    assert (
        "class id 1 is not known; the ground truth has 1 'mass', 2 'calcification'. Say --category-map '1=mass'"
        in message
    )


def test_a_folder_without_label_files_is_refused(tmp_path):
    message = refusal(tmp_path, {})
    assert "lab els: holds no .txt file; expected one per image with detections" in message
    with pytest.raises(InputError, match="no such folder"):
        import_predictions("yolo", tmp_path / "none", ground_truth(tmp_path), ImportOptions())


def test_an_empty_label_file_says_that_nothing_was_found(tmp_path):
    predictions, _ = take(tmp_path, {"im1.txt": ""})
    assert [len(image.detections) for image in predictions.images] == [0, 0, 0]


def test_a_label_file_that_is_no_text_is_told(tmp_path):
    (tmp_path / "lab els").mkdir()
    (tmp_path / "lab els" / "im1.txt").write_bytes(b"\xff\xfe\x00")
    message = refusal(tmp_path, {})
    assert "im1.txt (image 'images/im1.png'): is not text (invalid start byte at byte 0)" in message


def test_the_hash_of_a_folder_changes_with_a_file(tmp_path):
    first, _ = take(tmp_path, {"im1.txt": ""})
    again, _ = take(tmp_path, {})
    other, _ = take(tmp_path, {"im1.txt": "0 0.25 0.5 0.1 0.5 0.5"})
    hashes = [one.model["imported_sha256"] for one in (first, again, other)]
    assert hashes[0] == hashes[1] != hashes[2]
