"""COCO files as other tools write them: ids, crowds, outlines, paths, fractions and turned boxes."""

from __future__ import annotations

import csv

import pytest
from small_coco import BOX, HEIGHT, JOIN, WIDTH, cases, entry, mark, one_image, reasons, run, write_image, write_json

from mammodet.converters.coco.finder import ImageFinder
from mammodet.errors import InputError
from mammodet.geometry import rle_area

TRIANGLE = [2, 2, 12, 2, 2, 12]
RUNS = {"size": [HEIGHT, WIDTH], "counts": [2 * HEIGHT + 3, 4, HEIGHT * WIDTH - 2 * HEIGHT - 7]}


@pytest.mark.parametrize(
    ("number", "reference"),
    [(1, "1"), ("1", 1), (1, 1.0), (1.0, "1"), ("1.0", 1), (0, "0"), ("007", "007"), ("x", "x")],
)
def test_ids_match_as_numbers_and_as_text(tmp_path, number, reference):
    categories = [{"id": number, "name": "Mass"}]
    write_json(
        tmp_path / "in/train/a.json", [entry(number, "1_L_CC.png")], [mark(1, reference, BOX, reference)], categories
    )
    _, records, _ = run(tmp_path / "in")
    assert [lesion.box_xyxy for lesion in records["1_L_CC"].lesions] == [(10, 5, 18, 11)]


def test_ids_that_are_one_are_refused_twice(tmp_path):
    write_json(tmp_path / "in/a.json", [entry(1, "1_L_CC.png"), entry("1", "2_L_CC.png")])
    with pytest.raises(InputError, match=r"image '2_L_CC.png' \(id '1'\): its id is also that of '1_L_CC.png'"):
        run(tmp_path / "in")


@pytest.mark.parametrize("with_rows", [False, True])
def test_no_image_is_normal_while_an_annotation_has_no_image(tmp_path, with_rows):
    source = tmp_path / "in"
    marks = [mark(1, 1, category_id=1), mark(2, "01")]
    write_json(
        source / "train/a.json", [entry(1, "1_L_CC.png"), entry(2, "2_L_CC.png")], marks, [{"id": 1, "name": "benign"}]
    )
    options = ["--without-boxes", "normal"]
    if with_rows:
        options += ["--table", cases(tmp_path / "t.csv", "1,L,CC,BENIGN,3,2", "2,L,CC,NORMAL,,2"), *JOIN]
        options[options.index("patient_id=P_{patient}")] = "patient_id={patient}"
    summary, records, _ = run(source, *options)
    assert records["1_L_CC"].labels == {"tumor": 1, "malignant": None}
    assert records["2_L_CC"].labels == {"tumor": None, "malignant": None}
    assert any("1 annotations belong to no image" in line for line in summary.warnings)
    assert not any("--without-boxes" in line for line in summary.warnings)


def test_crowd_in_every_annotation_means_run_lengths(tmp_path):
    source = one_image(tmp_path, mark(1, 1, None, segmentation=RUNS, iscrowd=1), mark(2, 1, iscrowd=1.0))
    summary, records, _ = run(source)
    assert [lesion.ignore for lesion in records["1_LEFT_CC"].lesions] == [False, False]
    assert records["1_LEFT_CC"].labels["tumor"] == 1
    assert any("2 annotations are marked iscrowd and were taken as lesions" in line for line in summary.warnings)
    summary, records, _ = run(source, "--crowd", "ignore")
    assert [lesion.ignore for lesion in records["1_LEFT_CC"].lesions] == [True, True]
    assert summary.warnings[0].startswith("THE DATA SET HAS NO LESIONS")


def test_crowd_beside_others_is_a_region_to_ignore_unless_said(tmp_path):
    source = one_image(
        tmp_path, mark(1, 1), mark(2, 1, [1, 1, 3, 3], iscrowd=1), mark(3, 1, [2, 2, 4, 4], iscrowd=0.0, ignore="0")
    )
    summary, records, _ = run(source)
    assert [lesion.ignore for lesion in records["1_LEFT_CC"].lesions] == [False, True, False]
    assert any("1 annotations are marked iscrowd and became regions to ignore" in line for line in summary.warnings)
    _, records, _ = run(source, "--crowd", "lesion")
    assert not any(lesion.ignore for lesion in records["1_LEFT_CC"].lesions)


def test_region_that_is_told_to_be_ignored_stays_one(tmp_path):
    _, records, _ = run(one_image(tmp_path, mark(1, 1, iscrowd=1, ignore=1)))
    assert [lesion.ignore for lesion in records["1_LEFT_CC"].lesions] == [True]


@pytest.mark.parametrize(
    ("segmentation", "pixels"),
    [
        ([[]], None),
        (TRIANGLE, 45),  # the 10 x 10 half square has 45 pixel centres off its diagonal
        ([TRIANGLE, []], 45),
    ],
)
def test_outlines_of_other_shapes_are_read(tmp_path, segmentation, pixels):
    summary, records, _ = run(one_image(tmp_path, mark(1, 1, [2, 2, 10, 10], segmentation=segmentation)))
    (lesion,) = records["1_LEFT_CC"].lesions
    assert lesion.box_xyxy == (2, 2, 12, 12)
    assert (rle_area(lesion.rle) if lesion.rle else None) == pixels
    assert reasons(summary) == []


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[10, 5, 18, 11]], "three x, y pairs"),
        ([[*TRIANGLE, 3]], "three x, y pairs"),
        ([TRIANGLE, [1, 2]], "three x, y pairs"),
        ([[str(number) for number in TRIANGLE]], "finite numbers"),
        ([{"x": 1, "y": 2}], "three x, y pairs"),
        ({"size": [HEIGHT, WIDTH], "counts": ""}, "cover 0 pixels"),
        ({"size": [3, 3], "counts": [9]}, "size is [3, 3]"),
        ("outline", "expected run lengths or polygons"),
        ([[0.1, 0.2, 0.3, 0.2, 0.3, 0.4]], "fractions of the image"),
    ],
)
def test_outline_that_cannot_be_read_leaves_the_box(tmp_path, segmentation, reason):
    summary, records, _ = run(one_image(tmp_path, mark(1, 1, segmentation=segmentation)))
    (lesion,) = records["1_LEFT_CC"].lesions
    assert (lesion.box_xyxy, lesion.rle, lesion.geometry) == ((10, 5, 18, 11), None, "box")
    assert not records["1_LEFT_CC"].unlocalized
    ((what, name, told),) = reasons(summary)
    assert (what, name) == ("outline", "1_LEFT_CC.png, annotation 1")
    assert reason in told
    assert told.endswith("its box is kept")
    assert summary.counts["annotations"] == {"listed": 1, "converted": 1, "quarantined": 0}


@pytest.mark.parametrize(
    ("name", "target"),
    [
        (r"images\1_L_CC.png", "images/1_L_CC.png"),
        (r"..\..\media\upload\4\1_L_CC.png", "images/1_L_CC.png"),
        ("/data/upload/4/1_L_CC.png", "images/1_L_CC.png"),
        ("/data/local-files/?d=set/1_L_CC.png", "images/1_L_CC.png"),
        (r"C:\Users\me\set\1_L_CC.png", "images/1_L_CC.png"),
        ("upload/1_l_cc.PNG", "images/1_L_CC.png"),
        ("images/2%5FL_CC.png", "images/2_L_CC.png"),
        (r"C:\set\left\3_L_CC.png", "left/3_L_CC.png"),
    ],
)
def test_paths_of_other_machines_find_their_file(tmp_path, name, target):
    source = tmp_path / "in"
    for path in ("images/1_L_CC.png", "images/2_L_CC.png", "left/3_L_CC.png", "right/3_L_CC.png"):
        write_image(source / path)
    write_json(source / "a.json", [entry(1, name)], [mark(1, 1)], with_files=False)
    _, _, dataset = run(source)
    (record,) = dataset.images
    assert record.file_name == f"images/{target.removeprefix('images/')}"
    assert (tmp_path / "out" / record.file_name).read_bytes() == (source / target).read_bytes()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("left/1.png", "right/1.png has this name, but lies in another folder"),
        ("/left/2.png", "there is a folder 'left'; images/2.png may be another image"),
        ("/left/deep/2.png", "there is a folder 'left'"),
        ("upload/3.png", "2 files of this name: images/3.png, right/3.png"),
        ("anywhere/5.png", "images/5.png has this name, but lies in another folder"),
        (r"C:\set\left\6.png", "right/6.png has this name, but lies in another folder"),
        ("upload/4.png", "no such image file"),
        (r"C:\set\4.png", "leaves the data root"),
        ("", "names no file"),
    ],
)
def test_path_never_means_a_file_of_another_folder(tmp_path, name, reason):
    for path in ("right/1.png", "images/2.png", "left/9.png", "images/3.png", "right/3.png", "images/5.png"):
        write_image(tmp_path / path)
    write_image(tmp_path / "right/6.png")
    with pytest.raises(LookupError) as caught:
        ImageFinder(tmp_path).find(tmp_path, name.replace("\\", "/"))
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("place", "name", "is_found"),
    [
        ("train", r"C:\set\1.png", True),
        ("train", r"C:\set\train\1.png", True),
        ("train", r"C:\set\val\1.png", False),
        ("right", r"C:\set\left\1.png", False),
        ("right", r"C:\set\right\1.png", True),
    ],
)
def test_folder_of_the_json_is_neutral_if_it_is_the_subset(tmp_path, place, name, is_found):
    path = write_image(tmp_path / place / "1.png")
    try:
        found = ImageFinder(tmp_path).find(tmp_path / place, name.replace("\\", "/")).path
    except LookupError:
        found = None
    assert found == (path if is_found else None)


def test_paths_that_could_mean_one_file_are_both_set_aside(tmp_path):
    source = one_image(tmp_path, mark(1, 1))
    images = [entry(1, "1_LEFT_CC.png"), entry(2, "/siteA/2_L_CC.png"), entry(3, "/siteB/2_L_CC.png")]
    write_json(source / "train/a.json", images, [mark(1, 1), mark(2, 2), mark(3, 3)], with_files=False)
    write_image(source / "train/2_L_CC.png")
    summary, records, _ = run(source)
    assert set(records) == {"1_LEFT_CC"}
    assert summary.counts["images"] == {"listed": 3, "converted": 1, "quarantined": 2}
    assert "2 entries could mean 2_L_CC.png" in summary.quarantine[0].reason


def test_links_that_lead_back_do_not_hang(tmp_path):
    source = one_image(tmp_path, mark(1, 1))
    (source / "train/again").symlink_to(source)
    (source / "train/self").symlink_to(source / "train/self")
    write_json(source / "train/a.json", [entry(1, "upload/1_LEFT_CC.png")], [mark(1, 1)], with_files=False)
    assert len(run(source)[2].images) == 1


def test_boxes_as_fractions_are_refused_until_said(tmp_path):
    # 10, 5, 8, 6 of an image 40 high and 30 wide
    box = [10 / WIDTH, 5 / HEIGHT, 8 / WIDTH, 6 / HEIGHT]
    outline = [number / (WIDTH, HEIGHT)[place % 2] for place, number in enumerate(TRIANGLE)]
    source = one_image(
        tmp_path, mark(1, 1, box), mark(2, 1, [2 / WIDTH, 2 / HEIGHT, 10 / WIDTH, 10 / HEIGHT], segmentation=[outline])
    )
    with pytest.raises(InputError, match=r"train/a.json: all 2 boxes lie within one pixel(.|\n)*--boxes fractions"):
        run(source)
    _, records, _ = run(source, "--boxes", "fractions")
    first, second = records["1_LEFT_CC"].lesions
    assert first.box_xyxy == pytest.approx((10, 5, 18, 11))
    assert second.box_xyxy == pytest.approx((2, 2, 12, 12))
    assert rle_area(second.rle) == 45


def test_box_in_pixels_is_no_fraction(tmp_path):
    summary, records, _ = run(one_image(tmp_path, mark(1, 1), mark(2, 1, [0.1, 0.1, 0.2, 0.2])), "--boxes", "fractions")
    assert [what for what, _, _ in reasons(summary)] == ["annotation"]
    assert "expected numbers up to 1" in summary.quarantine[0].reason
    assert records["1_LEFT_CC"].lesions[0].box_xyxy == pytest.approx((3, 4, 9, 12))


def test_corners_are_refused_as_sizes_until_said(tmp_path):
    source = one_image(tmp_path, mark(1, 1, [3, 4, 12, 9]), mark(2, 1, [8, 20, 20, 38]), mark(3, 1, [2, 6, 28, 16]))
    with pytest.raises(
        InputError, match=r"all 3 boxes have w > x and h > y(.|\n)*--boxes corners(.|\n)*--boxes pixels"
    ):
        run(source)
    lesions = run(source, "--boxes", "corners")[1]["1_LEFT_CC"].lesions
    assert [lesion.box_xyxy for lesion in lesions] == [(3, 4, 12, 9), (8, 20, 20, 38), (2, 6, 28, 16)]
    lesions = run(source, "--boxes", "pixels")[1]["1_LEFT_CC"].lesions
    assert [lesion.box_xyxy for lesion in lesions] == [(3, 4, 15, 13), (2, 6, 30, 22)]


def test_percents_are_refused_as_pixels_until_said(tmp_path):
    source = one_image(tmp_path, *(mark(n, 1, [40 + n, 20, 10, 25]) for n in range(3)), height=400, width=300)
    write_image(source / "train/1_LEFT_CC.png", (400, 300))
    with pytest.raises(InputError, match=r"all 3 boxes lie within 100 px of the corner(.|\n)*--boxes percent"):
        run(source)
    lesions = run(source, "--boxes", "percent")[1]["1_LEFT_CC"].lesions
    assert lesions[0].box_xyxy == pytest.approx((120, 80, 150, 180))


@pytest.mark.parametrize("name", ["Normal", "no_finding", "background"])
def test_boxes_of_a_category_that_denies_lesions_are_a_question(tmp_path, name):
    source = one_image(
        tmp_path, mark(1, 1), mark(2, 1, [3, 4, 5, 6], 2), categories=[{"id": 1, "name": name}, {"id": 2, "name": "m"}]
    )
    with pytest.raises(InputError, match=f"category '{name}' seems to say that there is no lesion"):
        run(source)
    assert run(source, "--category", f"{name}={name}")[1]["1_LEFT_CC"].labels["tumor"] == 1
    lesions = run(source, "--category", f"{name}=")[1]["1_LEFT_CC"].lesions
    assert [lesion.ignore for lesion in lesions] == [True, False]


@pytest.mark.parametrize("box", [[], [0, 0, 0, 0]])
def test_empty_box_beside_an_outline_is_made_from_it(tmp_path, box):
    (lesion,) = run(one_image(tmp_path, mark(1, 1, box, segmentation=[TRIANGLE])))[1]["1_LEFT_CC"].lesions
    assert (lesion.box_xyxy, rle_area(lesion.rle)) == ((2, 2, 11, 11), 45)


@pytest.mark.parametrize("outline", [None, [[8, 12, 20, 12, 20, 18, 8, 18]]])
def test_turned_box_becomes_the_upright_one_around_it(tmp_path, outline):
    # 12 x 6 around (14, 15), turned by a quarter: 6 x 12
    source = one_image(
        tmp_path, mark(1, 1, [8, 12, 12, 6], segmentation=outline, attributes={"rotation": 90.0, "a": 1})
    )
    summary, records, _ = run(source)
    (lesion,) = records["1_LEFT_CC"].lesions
    assert lesion.box_xyxy == pytest.approx((11, 9, 17, 21))
    assert (lesion.rle, dict(lesion.attributes)) == (None, {"turned_deg": 90.0, "a": 1})
    assert summary.counts["turned boxes made upright"] == 1


@pytest.mark.parametrize("box", [[8, 12, 12, 6], [11, 9, 6, 12]])
def test_turned_outline_keeps_its_own_box(tmp_path, box):
    outline = [[11, 9, 17, 9, 17, 21, 14, 21]]
    source = one_image(tmp_path, mark(1, 1, box, segmentation=outline, attributes={"rotation": 90}))
    (lesion,) = run(source)[1]["1_LEFT_CC"].lesions
    assert lesion.box_xyxy == pytest.approx((11, 9, 17, 21))
    assert lesion.rle is not None


def test_box_with_a_margin_around_its_outline_is_kept(tmp_path):
    (lesion,) = run(one_image(tmp_path, mark(1, 1, [1, 1, 14, 14], segmentation=[TRIANGLE])))[1]["1_LEFT_CC"].lesions
    assert (lesion.box_xyxy, rle_area(lesion.rle)) == ((1, 1, 15, 15), 45)


def test_boxes_over_the_border_are_cut_as_far_as_said(tmp_path):
    source = one_image(tmp_path, mark(1, 1, [-2, 5, 8, 6]), mark(2, 1, [10, 30, 8, 15]))
    summary, records, _ = run(source)
    assert [lesion.box_xyxy for lesion in records["1_LEFT_CC"].lesions] == [(0, 5, 6, 11)]
    assert summary.counts["boxes cut to the image"] == 1
    summary, records, _ = run(source, "--clip-boxes", 5)
    assert [lesion.box_xyxy for lesion in records["1_LEFT_CC"].lesions] == [(0, 5, 6, 11), (10, 30, 18, 40)]
    assert summary.counts["boxes cut to the image"] == 2
    with pytest.raises(InputError, match="--clip-boxes nan: expected a number of 0 px or more"):
        run(source, "--clip-boxes", "nan")


def test_set_in_which_every_image_is_a_patient_says_so(tmp_path):
    write_json(tmp_path / "in/train/a.json", [entry(1, "1_L_CC.png"), entry(2, "2_L_CC.png")], [mark(1, 1)])
    summary, _, _ = run(tmp_path / "in")
    assert any("every one of the 2 images is a patient of its own" in line for line in summary.warnings)
    write_json(tmp_path / "in/train/a.json", [entry(1, "1_L_CC.png"), entry(2, "1_R_CC.png")], [mark(1, 1)])
    summary, _, _ = run(tmp_path / "in")
    assert not any("patient of its own" in line for line in summary.warnings)


def test_formulas_in_the_quarantine_list_are_text(tmp_path):
    write_json(
        tmp_path / "in/train/a.json", [entry(1, "1_L_CC.png"), entry(2, "=HYPERLINK(1)_2_L_CC.png")], with_files=False
    )
    write_image(tmp_path / "in/train/1_L_CC.png")
    run(tmp_path / "in")
    rows = list(csv.DictReader((tmp_path / "out/quarantine.csv").open(encoding="utf-8")))
    assert [row["name"] for row in rows] == ["'=HYPERLINK(1)_2_L_CC.png"]


def test_rerun_removes_what_a_killed_run_left(tmp_path):
    source = one_image(tmp_path, mark(1, 1))
    run(source)
    mine = tmp_path / "out/images/deep/.1_LEFT_CC.a1b2c3d4.tmp.png"
    mine.parent.mkdir()
    others = [tmp_path / "out" / name for name in ("images/.notes.tmp.png", ".thesis.a1b2c3d4.tmp.tex")]
    for path in (mine, *others):
        path.write_bytes(b"x")
    link = tmp_path / "out/images/.link.abcdefgh.tmp"
    link.mkdir()
    (link / "link").symlink_to(source)
    run(source)
    assert not mine.exists()
    assert not link.exists()
    assert all(path.exists() for path in others)
