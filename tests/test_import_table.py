"""Import of tables of boxes, whose columns the user names."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_import_coco import NAMES, found, ground_truth

from mammodet.errors import InputError
from mammodet.imports import BOX_KINDS, ImportOptions
from mammodet.imports.run import import_predictions


def columns(image="file", box=(), box_kind="xyxy", size=(None, None), image_scores=(), match="name", **named):
    """Options that name the columns of a table."""
    corners = {f"{name}_column": column for name, column in zip(BOX_KINDS[box_kind], box, strict=False)}
    named = {f"{name}_column": column for name, column in named.items()}
    scores = tuple(f"{label}={column}" for label, column in image_scores)
    sizes = {"width_column": size[0], "height_column": size[1]}
    return {"image_column": image, "match": match, "image_score": scores, **corners, **sizes, **named}


XYXY = columns(image="file", box=("x1", "y1", "x2", "y2"), score="p", category="class")


def take(folder: Path, text: str, table: dict = XYXY, *, names=NAMES, categories=None, name="b.csv", **options):
    """Predictions and summary of a table with this text."""
    (folder / name).write_text(text, encoding="utf-8")
    truth = ground_truth(folder, names, categories or ("mass", "calcification"))
    return import_predictions("csv", folder / name, truth, ImportOptions(**{**table, **options}))


def refusal(folder: Path, text: str, table: dict = XYXY, **options) -> str:
    with pytest.raises(InputError) as caught:
        take(folder, text, table, **options)
    return str(caught.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_corners_in_pixels_are_taken_as_they_are(tmp_path, delimiter):
    rows = ["x1,y1,x2,y2,p,class,file", "10.5,20,40,60.25,0.5,Mass,im1.png", "1,2,3,4,0.75,calcification,im1.png"]
    text = "\n".join(rows).replace(",", delimiter)
    predictions, _ = take(tmp_path, text, name="boxes ä.tsv")
    assert found(predictions.images[0]) == ([[1, 2, 3, 4], [10.5, 20, 40, 60.25]], [0.75, 0.5], [2, 1])


@pytest.mark.parametrize(
    ("kind", "box", "row"),
    [
        ("xyxy", ("a", "b", "c", "d"), "10,20,40,60"),
        ("xywh", ("a", "b", "c", "d"), "10,20,30,40"),
        ("cxcywh", ("a", "b", "c", "d"), "25,40,30,40"),
    ],
)
def test_boxes_are_told_in_three_ways(tmp_path, kind, box, row):
    table = columns(image="file", box_kind=kind, box=box, score="p", category="class")
    predictions, _ = take(tmp_path, f"file,a,b,c,d,p,class\nim1,{row},0.5,mass\n", table)
    assert found(predictions.images[0])[0] == [[10, 20, 40, 60]]


def test_normalized_coordinates_are_scaled_to_the_ground_truth(tmp_path):
    text = "file,x1,y1,x2,y2,p,class\nim1,0.05,0.2,0.25,0.75,0.5,mass\n"
    predictions, _ = take(tmp_path, text, coordinates="normalized")
    assert predictions.images[0].detections.boxes_xyxy[0].tolist() == pytest.approx([10, 20, 50, 75])
    assert "not pixels; say --coordinates normalized" in refusal(tmp_path, text)


def test_boxes_of_another_size_are_scaled(tmp_path):
    # Predicted on 400 x 50 (width x height), the file is 200 x 100.
    table = columns(image="file", box=("x1", "y1", "x2", "y2"), score="p", category="class", size=("W", "H"))
    text = "file,W,H,x1,y1,x2,y2,p,class\nim1,400,50,20,10,80,30,0.5,mass\n"
    predictions, _ = take(tmp_path, text, table)
    assert found(predictions.images[0])[0] == [[10, 20, 40, 60]]
    message = refusal(tmp_path, text.replace("400,50", "0,50"), table)
    assert (
        "line 2 (image 'images/im1.png'): width and height are [0.0, 50.0]; expected positive numbers (px)" in message
    )


def test_byte_order_marks_utf16_and_windows_lines_are_read(tmp_path):
    text = "\ufefffile,x1,y1,x2,y2,p,class\r\n\r\nim1,10,20,40,60,0.5,mass\r\n"
    predictions, _ = take(tmp_path, text)
    assert found(predictions.images[0])[0] == [[10, 20, 40, 60]]
    (tmp_path / "wide.csv").write_bytes(text.lstrip("\ufeff").encode("utf-16"))
    predictions, _ = import_predictions("csv", tmp_path / "wide.csv", tmp_path / "test.json", ImportOptions(**XYXY))
    assert found(predictions.images[0])[0] == [[10, 20, 40, 60]]


def test_a_wrong_column_is_refused_with_the_nearest(tmp_path):
    message = refusal(tmp_path, "file,x1,y1,x2,ymax,prob,class\n", XYXY)
    assert "no column 'y2'" in message
    assert "no column 'p'" in message
    assert "2 faults" in message
    assert "It has 'file', 'x1', 'y1', 'x2', 'ymax', 'prob', 'class'." in message
    table = columns(image="image_path", box=("x1", "y1", "x2", "y2"), score="score", category="class")
    message = refusal(tmp_path, "image_paths,x1,y1,x2,y2,SCORE,class\n", table)
    assert message.count("no column") == 1  # case does not count where it need not
    assert "no column 'image_path'; the nearest is 'image_paths'" in message


def test_a_column_that_stands_twice_is_refused(tmp_path):
    assert "column 'p' stands 2 times" in refusal(tmp_path, "file,x1,y1,x2,y2,p,p,class\n")


def test_all_faults_of_rows_are_told_at_once(tmp_path):
    message = refusal(
        tmp_path,
        "file,x1,y1,x2,y2,p,class\n"
        "im1,10,20,40,60,0.5,mass\n"
        "im1,ten,20,40,60,0.5,mass\n"
        'im1,"10,5",20,40,60,0.5,mass\n'
        "im1,10,20,nan,60,0.5,mass\n"
        "im1,10,20,40,,0.5,mass\n"
        "im1,10,20,40,20,0.5,mass\n"
        "im1,10,20,240,60,0.5,mass\n"
        "im1,10,20,40,60,95,mass\n"
        "im1,10,20,40,60,high,mass\n"
        "im1,10,20,40,60,,mass\n"
        "im1,10,20,40,60,0.5,nodule\n"
        "im9,10,20,40,60,0.5,mass\n"
        ",10,20,40,60,0.5,mass\n"
        "im1,,,,,0.5,mass\n"
        "im1,10,20,40,60,0.5,mass\n"
        "im1,10,20,1_0,60,0.5,mass\n"
        "im1,10,20\n",
    )
    at = "(image 'images/im1.png'): "
    for line in (
        f"line 3 {at}x1 is 'ten'; expected a number",
        f"line 4 {at}x1 is '10,5'; expected a number with a decimal point, not a comma",
        f"line 5 {at}x2 is 'nan'; expected a number",
        f"line 6 {at}y2 is ''; expected a number",
        f"line 7 {at}box '10, 20, 40, 20' (as in the table) is empty; expected a positive width and height",
        f"line 8 {at}box '10, 20, 240, 60' (as in the table) leaves the image by 40 px",
        f"line 9 {at}score is 95.0; expected a number in [0, 1] (--score-scale percent",
        f"line 10 {at}p is 'high'; expected a number",
        f"line 11 {at}score is missing; --default-score",
        "line 12: class 'nodule' is not known; the ground truth has 1 'mass', 2 'calcification'",
        "line 13: image 'im9' is not in the ground truth",
        "line 14: file is empty; expected a file name",
        f"line 15 {at}has the score '0.5' and no box",
        f"line 16 {at}is the same detection as line 2",
        f"line 17 {at}x2 is '1_0'; expected a number",
        "line 18: 3 cells; expected 7, as in the header",
    ):
        assert line in message, line
    assert "16 faults" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty; expected a header"),
        (b"file,\xff\n", "is not UTF-8 text (invalid start byte at byte 5)"),
        (b"fi\0le,x1\n", "holds a null byte, so it is no text"),
        (b'file,x1,y1,x2,y2,p,class\nim1,"10,20\n', "line 2: cannot be read (unexpected end of data)"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, words):
    (tmp_path / "b.csv").write_bytes(content)
    with pytest.raises(InputError) as caught:
        import_predictions("csv", tmp_path / "b.csv", ground_truth(tmp_path), ImportOptions(**XYXY))
    assert words in str(caught.value)


def test_folders_and_missing_files_are_refused(tmp_path):
    truth = ground_truth(tmp_path)
    for source, words in ((tmp_path, "is a folder"), (tmp_path / "none.csv", "no such table")):
        with pytest.raises(InputError, match=words):
            import_predictions("csv", source, truth, ImportOptions(**XYXY))


def test_ids_are_taken_where_they_are_asked_for(tmp_path):
    # The names are numbers, too: 2 is the id of the image named 1.
    names = ("2.png", "1.png")
    text = "file,x1,y1,x2,y2,p,class\n2,10,20,40,60,0.5,mass\n"
    predictions, _ = take(tmp_path, text, names=names)
    assert [len(image.detections) for image in predictions.images] == [1, 0]
    by_id = columns(image="file", box=("x1", "y1", "x2", "y2"), score="p", category="class", match="id")
    predictions, _ = take(tmp_path, text, by_id, names=names)
    assert [len(image.detections) for image in predictions.images] == [0, 1]
    message = refusal(tmp_path, text.replace("\n2,", "\nim2,"), by_id, names=names)
    assert "line 2: file is 'im2'; expected an id, a whole number" in message


def test_a_class_column_is_needed_where_there_are_several_categories(tmp_path):
    table = columns(image="file", box=("x1", "y1", "x2", "y2"), score="p")
    text = "file,x1,y1,x2,y2,p\nim1,10,20,40,60,0.5\n"
    predictions, _ = take(tmp_path, text, table, categories=("mass",))
    assert found(predictions.images[0])[2] == [1]
    assert "--category-column: the ground truth has several categories ('mass', 'calcification')" in refusal(
        tmp_path, text, table
    )


def test_numbers_of_classes_are_mapped(tmp_path):
    text = "file,x1,y1,x2,y2,p,class\nim1,10,20,40,60,0.5,1\n"
    predictions, _ = take(tmp_path, text, category_map=("1=calcification",))
    assert found(predictions.images[0])[2] == [2]
    assert "class '1' is not known" in refusal(tmp_path, text)


SCORED = columns(
    image="file", box=("x1", "y1", "x2", "y2"), score="p", category="class", image_scores=(("tumor", "cancer"),)
)


def test_image_scores_come_from_their_column(tmp_path):
    text = (
        "file,x1,y1,x2,y2,p,class,cancer\n"
        "im1,10,20,40,60,0.5,mass,0.875\n"
        "im1,1,2,3,4,0.25,mass,\n"
        "im2,,,,,,,0.125\n"
        "im3,,,,,,,0\n"
    )
    predictions, _ = take(tmp_path, text, SCORED)
    assert [image.scores for image in predictions.images] == [{"tumor": 0.875}, {"tumor": 0.125}, {"tumor": 0.0}]
    assert [len(image.detections) for image in predictions.images] == [2, 0, 0]
    assert predictions.model["options"]["columns"]["image_scores"] == {"tumor": "cancer"}


def test_a_table_of_image_scores_alone_needs_no_boxes(tmp_path):
    table = columns(image="file", image_scores=(("tumor", "t"), ("malignant", "m")))
    predictions, _ = take(tmp_path, "file,t,m\nim1,90,80\nim2,50,0\nim3,0,0\n", table, score_scale="percent")
    assert predictions.images[0].scores == {"tumor": 0.9, "malignant": 0.8}
    assert predictions.images[1].scores == {"tumor": 0.5, "malignant": 0.0}


def test_image_scores_that_disagree_or_lack_are_refused(tmp_path):
    text = "file,x1,y1,x2,y2,p,class,cancer\nim1,10,20,40,60,0.5,mass,0.5\nim1,1,2,3,4,0.25,mass,0.75\nim2,,,,,,,no\n"
    message = refusal(tmp_path, text, SCORED)
    assert "line 3 (image 'images/im1.png'): cancer is 0.75, but on line 2 of the same image it is another" in message
    assert "line 4 (image 'images/im2.png'): cancer is 'no'; expected a number" in message
    message = refusal(tmp_path, "file,x1,y1,x2,y2,p,class,cancer\nim1,10,20,40,60,0.5,mass,0.5\n", SCORED)
    assert "2 faults" in message
    assert "image 'images/im2.png' has no value in 'cancer'; expected one for every image" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (columns(image="a"), "no column is chosen: name those of a box"),
        (columns(image="a", box=("x", "y")), "--x1-column, --y1-column: no whole box; expected x1 y1 x2 y2"),
        (
            columns(image="a", image_scores=(("cancer", "c"),)),
            "--image-score cancer: its label: expected tumor, malignant",
        ),
        ({**SCORED, "image_score": ("max", "tumor=t")}, "tumor has two sources"),
        (
            {**XYXY, "width_column": "w", "height_column": "h", "coordinates": "normalized"},
            "normalized coordinates need",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(InputError) as caught:
        ImportOptions(**options)
    assert words in str(caught.value)
