"""Pictures and their ranking, on images of a hand's breadth."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mammodet.errors import InputError
from mammodet.geometry import circle_mask, mask_to_rle, rle_box
from mammodet.records import Dataset, Detections, ImagePrediction, ImageRecord, Lesion
from mammodet.reporting import overlay
from mammodet.reporting.canvas import PAPER, View, draw_box, draw_label, outline
from mammodet.reporting.gallery import picture_names, write_overlays
from mammodet.reporting.overlay import OverlayOptions
from mammodet.reporting.ranking import judge, match_detections
from mammodet.reporting.report_gallery import choose_gallery
from mammodet.reporting.text import fit_text, printable, text_alpha, text_width, wrap_text

SIZE = (100, 80)
HOSTILE = "<script>alert(1)</script>"


def grey(size_hw=SIZE, value=60):
    return np.full(size_hw, value, dtype=np.uint8)


def lesion_of(mask, geometry="contour", **more):
    rle = mask_to_rle(mask)
    return Lesion("mass", rle_box(rle), rle, geometry, **more)


def square_mask(x1, y1, x2, y2, size_hw=SIZE):
    mask = np.zeros(size_hw, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def make_record(*lesions, image_id=1, name="a.png", tumor=None, size_hw=SIZE, **more):
    tumor = int(bool(lesions)) if tumor is None else tumor
    return ImageRecord(image_id, name, size_hw, labels={"tumor": tumor}, lesions=lesions, **more)


def make_prediction(*found, image_id=1, name="a.png", tumor=0.5, size_hw=SIZE, masks=False):
    """`found` are (box_xyxy, score) with falling scores."""
    boxes = np.array([box for box, _ in found], dtype=float).reshape(-1, 4)
    rles = [mask_to_rle(square_mask(*map(int, box), size_hw)) for box, _ in found] if masks else None
    scores = np.array([score for _, score in found], dtype=float)
    detections = Detections(boxes, scores, np.ones(len(found), dtype=np.int64), rles)
    return ImagePrediction(image_id, name, size_hw, {"tumor": tumor}, detections)


def where(canvas, colour):
    return (canvas == np.array(colour, dtype=np.uint8)).all(axis=2)


# canvas


def test_outline_of_width_1_is_exactly_the_rim_of_a_square():
    mask = np.ones((4, 5), dtype=bool)
    rim, margin = outline(mask, 1)
    inner = rim[margin:-margin, margin:-margin]
    expected = np.ones((4, 5), dtype=bool)
    expected[1:3, 1:4] = False
    assert (inner == expected).all()
    assert rim.sum() == expected.sum()


def test_outline_grows_outwards_and_never_inwards():
    rim, margin = outline(np.ones((10, 10), dtype=bool), 3)
    inner = rim[margin:-margin, margin:-margin]
    assert not inner[1:-1, 1:-1].any()
    assert rim[margin - 2, margin + 5]
    assert not rim[margin - 3, margin + 5]


def test_view_at_scale_1_leaves_masks_and_pixels_exact():
    mask = square_mask(10, 20, 30, 50)
    view = View.around(SIZE)
    patch, corner = view.mask(mask_to_rle(mask))
    assert patch.all()
    assert (patch.shape, corner) == ((30, 20), (10, 20))
    assert (view.render(grey()) == 60).all()


def test_view_scaled_up_and_down_moves_a_mask_with_its_box():
    rle = mask_to_rle(square_mask(20, 40, 60, 80))
    for scale in (0.5, 2.0):
        view = View((10, 20, 80, 100), scale)
        patch, (x, y) = view.mask(rle)
        rows, columns = np.nonzero(patch)
        box = (x + columns.min(), y + rows.min(), x + columns.max() + 1, y + rows.max() + 1)
        assert box == pytest.approx(view.box((20, 40, 60, 80)), abs=1)


def test_view_scaled_down_keeps_a_mask_thinner_than_a_pixel():
    mask = np.zeros((400, 400), dtype=bool)
    mask[100:300, 200] = True
    shape = View.around((400, 400), height=40).mask(mask_to_rle(mask))
    assert shape is not None
    assert shape[0].any()


def test_view_of_an_empty_mask_is_none():
    assert View.around(SIZE).mask(mask_to_rle(np.zeros(SIZE, dtype=bool))) is None


def test_view_outside_the_image_falls_back_to_all_of_it():
    assert View.around(SIZE, [[500, 500, 600, 600]]).window_xyxy[2:] == (80, 100)


def test_draw_box_covers_the_touched_pixels():
    canvas = np.zeros((20, 20, 3), dtype=np.uint8)
    draw_box(canvas, (4.5, 5.0, 10.0, 12.2), (255, 0, 0), 1)
    rows, columns = np.nonzero(where(canvas, (255, 0, 0)))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (4, 5, 9, 12)
    assert not where(canvas, (255, 0, 0))[6:12, 5:9].any()


@pytest.mark.parametrize("dashed", [False, True])
@pytest.mark.parametrize("box", [(-50.0, -50.0, 300.0, 300.0), (-30.0, 5.0, -10.0, 9.0), (70.0, 95.0, 200.0, 200.0)])
def test_draw_box_that_leaves_the_canvas_is_clipped(box, dashed):
    canvas = np.zeros((100, 80, 3), dtype=np.uint8)
    draw_box(canvas, box, (255, 0, 0), 3, dashed=dashed)
    assert canvas.shape == (100, 80, 3)


@pytest.mark.parametrize("box", [(0, 0, 5, 5), (75, 0, 80, 5), (0, 95, 5, 100), (75, 95, 80, 100), (-9, -9, 99, 99)])
def test_label_at_any_corner_stays_inside_in_full(box):
    canvas = np.zeros((100, 80, 3), dtype=np.uint8)
    occupied = []
    draw_label(canvas, "0.87", box, (255, 255, 255), 12, occupied)
    x1, y1, x2, y2 = occupied[0]
    assert 0 <= x1 < x2 <= 80
    assert 0 <= y1 < y2 <= 100
    ink = text_alpha("0.87", 12) == 255
    assert where(canvas, (255, 255, 255)).sum() == ink.sum()


def test_labels_avoid_each_other():
    canvas = np.zeros((200, 200, 3), dtype=np.uint8)
    occupied = []
    for _ in range(3):
        draw_label(canvas, "mass", (80, 80, 120, 120), (255, 255, 255), 12, occupied)
    for first in range(3):
        for second in range(first):
            a, b = occupied[first], occupied[second]
            assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


# text


def test_printable_keeps_accents_and_escapes_what_the_font_lacks():
    assert printable("Größe_Жук.png") == "Größe_Жук.png"
    assert printable("a\n中") == "a\\n\\u4e2d"
    assert printable("\udc80") == "\\udc80"


def test_fit_text_shortens_in_the_middle():
    text, size = fit_text("a_very_long_file_name_indeed.png", 12, 90)
    assert "…" in text
    assert text.startswith("a_")
    assert text_width(text, size) <= 90


def test_wrap_text_breaks_a_word_that_is_too_wide_and_loses_nothing():
    lines = wrap_text("patient abcdefghijklmnopqrstuvwxyz", 12, 60)
    assert "".join(lines).replace(" ", "") == "patientabcdefghijklmnopqrstuvwxyz"
    assert all(text_width(line, 12) <= 60 for line in lines)


# overlays


@pytest.mark.parametrize("geometry", ["contour", "circle"])
def test_draw_truth_marks_exactly_the_rim_of_a_circle(geometry):
    mask = circle_mask((40.0, 70.0), 15.0, SIZE)
    canvas = overlay.draw_truth(grey(), make_record(lesion_of(mask, geometry)))
    inside = np.pad(mask, 1)
    neighbours = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    rows = slice(50, None)  # the label stands above
    assert (where(canvas, overlay.TRUTH)[rows] == (mask & ~neighbours)[rows]).all()


def test_draw_truth_leaves_all_other_pixels_and_the_input_unchanged():
    pixels = np.random.default_rng(0).integers(0, 255, (200, 160), dtype=np.uint8)
    before = pixels.copy()
    canvas = overlay.draw_truth(
        pixels, make_record(lesion_of(square_mask(60, 100, 90, 130, (200, 160))), size_hw=(200, 160))
    )
    assert (pixels == before).all()
    changed = (canvas != pixels[..., None]).any(axis=2)
    assert changed.any()
    assert not changed[132:].any()  # the label stands above, the rest below the square is untouched
    assert not changed[101:129, 61:89].any()  # and so is the lesion itself


def test_draw_truth_of_a_box_lesion_is_a_rectangle_even_with_a_mask():
    mask = circle_mask((40.0, 70.0), 15.0, SIZE)
    canvas = overlay.draw_truth(grey(), make_record(lesion_of(mask, "box")))
    assert where(canvas, overlay.TRUTH)[84, 25:55].all()


def test_ignored_lesion_is_grey_and_dashed():
    canvas = overlay.draw_truth(grey(), make_record(lesion_of(square_mask(20, 40, 60, 90), "box", ignore=True)))
    assert not where(canvas, overlay.TRUTH).any()
    side = where(canvas, overlay.IGNORED)[41:89, 20]
    assert side.any()
    assert not side.all()


def test_lesion_label_says_abnormality_and_pathology():
    mask = square_mask(1, 1, 9, 9)
    assert overlay.lesion_text(lesion_of(mask)) == "mass"
    known = lesion_of(mask, attributes={"abnormality": "calcification", "pathology": "malignant"})
    assert overlay.lesion_text(known) == "calcification, malignant"


BARE = OverlayOptions(captions=False)


def test_predictions_keep_to_threshold_and_count():
    prediction = make_prediction(((5, 30, 20, 45), 0.9), ((30, 30, 45, 45), 0.6), ((55, 70, 70, 85), 0.2))
    canvas = overlay.draw_overlay(grey(), None, prediction, BARE)
    marked = where(canvas, overlay.PREDICTION)
    assert marked[44, 5:20].all()
    assert marked[44, 30:45].all()
    assert not marked[65:, 50:].any()
    one = where(
        overlay.draw_overlay(grey(), None, prediction, OverlayOptions(captions=False, max_detections=1)),
        overlay.PREDICTION,
    )
    assert not one[30:, 25:].any()


def test_predictions_fill_the_mask():
    canvas = overlay.draw_overlay(grey(value=100), None, make_prediction(((20, 40, 60, 80), 0.9), masks=True), BARE)
    expected = np.round(100 + (np.array(overlay.PREDICTION, float) - 100) * overlay.FILL_ALPHA)
    assert (canvas[60, 40] == expected).all()


def test_size_mismatch_is_told_with_both_sizes():
    with pytest.raises(ValueError, match=r"'a.png'.*50x50.*100x80"):
        overlay.draw_truth(grey((50, 50)), make_record())
    with pytest.raises(ValueError, match="uint8"):
        overlay.draw_truth(grey().astype(np.uint16), make_record())


@pytest.mark.parametrize("has_record", [True, False])
@pytest.mark.parametrize("has_prediction", [True, False])
def test_side_by_side_and_overlay_work_with_half_of_the_facts(has_record, has_prediction):
    record = make_record(lesion_of(square_mask(20, 40, 60, 80))) if has_record else None
    prediction = make_prediction(((20, 40, 60, 80), 0.9), masks=True) if has_prediction else None
    both = overlay.side_by_side(grey((100, 80)), record, prediction)
    one = overlay.draw_overlay(grey((100, 80)), record, prediction)
    assert both.shape[1] > 160
    assert one.shape[1] == 80
    assert where(one[-15:], overlay.PREDICTION).any() == has_prediction  # in the legend
    assert both.dtype == one.dtype == np.uint8


def test_side_by_side_without_captions_has_truth_left_and_prediction_right():
    record = make_record(lesion_of(square_mask(20, 40, 60, 80)))
    prediction = make_prediction(((20, 40, 60, 80), 0.9))
    panels = overlay.side_by_side(grey(), record, prediction, OverlayOptions(captions=False))
    assert panels.shape[0] == 100
    assert where(panels, overlay.TRUTH)[:, :80].any()
    assert not where(panels, overlay.TRUTH)[:, 80:].any()
    assert where(panels, overlay.PREDICTION)[:, 80:].any()
    assert not where(panels, overlay.PREDICTION)[:, :80].any()


def test_crop_to_breast_shows_the_breast_and_everything_that_is_drawn():
    record = make_record(breast_box_xyxy=(0.0, 20.0, 40.0, 60.0))
    options = OverlayOptions(crop_to_breast=True, captions=False)
    assert overlay.draw_overlay(grey(), record, None, options).shape[:2] == (44, 42)
    far = make_prediction(((60, 80, 78, 98), 0.9))
    assert overlay.draw_overlay(grey(), record, far, options).shape[:2] == (100 - 16, 80)


@pytest.mark.parametrize("size_hw", [(1, 1), (8, 300), (300, 8), (40, 40)])
def test_tiny_and_odd_images_are_drawn(size_hw):
    record = make_record(size_hw=size_hw, name="Röntgen_中文.png")
    prediction = make_prediction(((0, 0, 1, 1), 0.9), size_hw=size_hw)
    assert overlay.side_by_side(grey(size_hw), record, prediction).ndim == 3
    assert overlay.draw_overlay(grey(size_hw), record, prediction, OverlayOptions(panel_height=50)).ndim == 3


def test_banner_shows_a_name_of_other_alphabets():
    named = overlay.draw_overlay(grey(), make_record(name="Größe_Жук.png"), None)
    plain = overlay.draw_overlay(grey(), make_record(name="Gr??e_???.png"), None)
    assert named.shape != plain.shape or (named != plain).any()
    assert (named[0] == PAPER).all()


def test_overlay_of_a_large_image_keeps_its_resolution():
    size = (5000, 4000)
    record = make_record(lesion_of(circle_mask((2000.0, 2500.0), 600.0, size), "circle"), size_hw=size)
    found = [((300 * i + 100, 1000, 300 * i + 700, 1700), 0.9 - 0.05 * i) for i in range(5)]
    prediction = make_prediction(*found, size_hw=size, masks=True)
    picture = overlay.side_by_side(grey(size), record, prediction)
    assert picture.shape[0] > 5000
    assert picture.shape[1] > 8000


# ranking

TARGET = (20.0, 20.0, 40.0, 40.0)
LESION = lesion_of(square_mask(20, 20, 40, 40))


def image_error(record, prediction):
    verdict = judge(record, prediction)
    return verdict.error, verdict.reason


def test_image_error_of_a_found_lesion_is_what_the_label_lacks():
    verdict = judge(make_record(LESION), make_prediction((TARGET, 0.8), tumor=0.9))
    assert verdict.error == pytest.approx(0.1)
    assert verdict.is_clean


def test_image_error_of_a_lesion_nobody_saw_is_1():
    verdict = judge(make_record(LESION), make_prediction(tumor=0.9))
    assert verdict.error == 1.0
    assert verdict.reason.startswith("missed lesion (mass): nothing found there")


def test_image_error_of_a_weakly_seen_lesion_is_1_minus_its_score():
    verdict = judge(make_record(LESION), make_prediction((TARGET, 0.2), tumor=0.9))
    assert verdict.error == pytest.approx(0.8)
    assert "best matching score 0.20" in verdict.reason


def test_image_error_of_a_normal_image_is_its_strongest_false_positive():
    verdict = judge(make_record(), make_prediction((TARGET, 0.7), ((50, 50, 60, 60), 0.4), tumor=0.3))
    assert verdict.error == pytest.approx(0.7)
    assert verdict.kind == "false positive"
    assert "0.70" in verdict.reason


def test_image_error_counts_a_second_detection_of_one_lesion():
    verdict = judge(make_record(LESION), make_prediction((TARGET, 0.9), ((21, 21, 41, 41), 0.6), tumor=0.9))
    assert verdict.error == pytest.approx(0.6)
    assert "second detection" in verdict.reason


def test_image_error_one_detection_finds_one_lesion_only():
    other = lesion_of(square_mask(22, 22, 42, 42))
    verdict = judge(make_record(LESION, other), make_prediction((TARGET, 0.9), tumor=0.9))
    assert verdict.error == 1.0
    assert verdict.kind == "missed lesion"


def test_match_follows_the_rule():
    # 4x4 in the middle of 20x20: IoU 16/400 = 0.04
    small = make_prediction(((28, 28, 32, 32), 0.5))
    assert match_detections(make_record(LESION), small, "center").found == {0: 0}
    assert match_detections(make_record(LESION), small, "iou@0.2").found == {}
    assert match_detections(make_record(LESION), small, "iou@0.04").found == {0: 0}
    # 20x20 shifted by 10: IoU 200/600, the centre on the lesion's edge
    shifted = make_prediction(((30, 20, 50, 40), 0.5))
    assert match_detections(make_record(LESION), shifted, "iou@0.3").found == {0: 0}
    assert match_detections(make_record(LESION), shifted, "iou@0.5").false == (0,)


def test_match_by_masks_compares_masks():
    half = lesion_of(square_mask(20, 20, 40, 30))
    whole = make_prediction((TARGET, 0.9), masks=True)  # mask IoU 200/400
    assert match_detections(make_record(half), whole, "mask_iou@0.5").found == {0: 0}
    assert match_detections(make_record(half), whole, "mask_iou@0.6").found == {}
    with pytest.raises(InputError, match=r"image 'a.png'.*hold no masks"):
        match_detections(make_record(half), make_prediction((TARGET, 0.9)), "mask_iou@0.1")
    assert match_detections(make_record(half), make_prediction(), "mask_iou@0.1").found == {}


def test_match_gives_positions_in_the_order_of_the_prediction():
    other = lesion_of(square_mask(50, 60, 70, 80))
    found = make_prediction(((0, 0, 9, 9), 0.2), ((50, 60, 70, 80), 0.5), (TARGET, 0.9), (TARGET, 0.3))  # not sorted
    matches = match_detections(make_record(LESION, other), found)
    assert matches.found == {2: 0, 1: 1}
    assert matches.false == (3, 0)
    assert matches.second == {3}


def test_match_refuses_an_unknown_rule():
    with pytest.raises(InputError, match=r"image 'a.png': match rule 'overlap': expected center"):
        match_detections(make_record(LESION), make_prediction((TARGET, 0.9)), "overlap")


def test_second_detection_counts_only_where_the_protocol_counts_it():
    record, found = make_record(LESION), make_prediction((TARGET, 0.9), ((21, 21, 41, 41), 0.6), tumor=0.9)
    verdict = judge(record, found)
    assert (verdict.kind, verdict.false_score) == ("second detection", None)
    assert verdict.second_score == pytest.approx(0.6)
    assert judge(record, found, count_seconds=False).is_clean


def test_judge_names_every_missed_lesion():
    other = lesion_of(square_mask(50, 60, 70, 80))
    verdict = judge(make_record(LESION, other), make_prediction(((0, 0, 9, 9), 0.9), (TARGET, 0.2)))
    assert [(missed.lesion, missed.score) for missed in verdict.missed] == [(LESION, pytest.approx(0.2)), (other, None)]
    assert verdict.false_score == pytest.approx(0.9)


def test_judge_leaves_detections_on_ignored_regions_out():
    record = make_record(replace(LESION, ignore=True), tumor=0)
    assert judge(record, make_prediction((TARGET, 0.9), tumor=0.1)).is_clean
    elsewhere = judge(record, make_prediction(((60, 60, 70, 70), 0.95), tumor=0.1))
    assert (elsewhere.kind, elsewhere.false_score) == ("false positive", pytest.approx(0.95))


def test_image_error_of_a_wrong_label():
    verdict = judge(make_record(), make_prediction(tumor=0.8))
    assert (verdict.error, verdict.kind) == (pytest.approx(0.8), "image label")


def test_image_error_without_a_place_for_the_lesion_judges_the_label_alone():
    record = make_record(tumor=1, unlocalized=True)
    verdict = judge(record, make_prediction(((60, 60, 70, 70), 0.95), tumor=0.8))
    assert verdict.error == pytest.approx(0.2)
    assert verdict.is_clean
    assert not verdict.judged_boxes


def test_image_error_without_any_truth_is_not_judged():
    record = ImageRecord(1, "a.png", SIZE, unlocalized=True, labels={"biopsy": 1})
    verdict = judge(record, make_prediction())
    assert (verdict.kind, verdict.error) == ("not judged", 0.0)
    assert verdict.reason == "nothing on it that can be compared"
    verdict = judge(ImageRecord(1, "a.png", SIZE), make_prediction())
    assert (verdict.error, verdict.reason) == (0.0, "no ground truth to compare with")


def judged_as(image_id, record, prediction):
    record, prediction = replace(record, image_id=image_id), replace(prediction, image_id=image_id)
    return record, prediction, judge(record, prediction)


def ids(items):
    return [item[0].image_id for item in items]


def test_choose_gallery_puts_the_worst_first_and_keeps_a_quarter_for_successes():
    judged = []
    for index in range(12):
        score = 0.55 + 0.03 * index if index < 8 else 0.1
        judged.append(judged_as(index, make_record(), make_prediction(tumor=score)))
    choice = choose_gallery(judged, 8)
    assert ids(choice.label) == [7, 6, 5, 4, 3, 2]
    assert ids(choice.clean) == [8, 9]
    assert choice.missed == choice.false == []


def test_second_detection_does_not_hide_a_weaker_false_positive():
    found = make_prediction((TARGET, 0.9), ((21, 21, 41, 41), 0.6), ((60, 60, 70, 70), 0.5), tumor=0.9)
    both = judged_as(1, make_record(LESION), found)
    second = judged_as(2, make_record(LESION), make_prediction((TARGET, 0.9), ((21, 21, 41, 41), 0.6), tumor=0.9))
    assert both[2].false_score == pytest.approx(0.5)
    assert "false positive with score 0.50" in both[2].reason
    choice = choose_gallery([both, second], 8)
    assert (ids(choice.false), ids(choice.second)) == ([1], [2])


def test_choose_gallery_shares_its_room_between_kinds_of_errors():
    missed = [judged_as(i, make_record(LESION), make_prediction((TARGET, 0.02 * i), tumor=0.9)) for i in range(5)]
    false = [judged_as(10 + i, make_record(), make_prediction((TARGET, 0.5 + i / 50), tumor=0.1)) for i in range(5)]
    label = [judged_as(20 + i, make_record(), make_prediction(tumor=0.6 + i / 50)) for i in range(5)]
    choice = choose_gallery([*label, *false, *missed], 8)  # no clean image: 8 for errors, 4 + 2 + 2
    assert (ids(choice.missed), ids(choice.false), ids(choice.label)) == ([0, 1, 2, 3], [14, 13], [24, 23])
    alone = choose_gallery(missed, 8)
    assert len(alone.missed) == 5
    few = choose_gallery([*missed, *label[:1]], 8)  # what one kind does not need goes to the others
    assert (len(few.missed), len(few.label)) == (5, 1)


# gallery


def small_dataset():
    lesion = lesion_of(square_mask(20, 20, 40, 40), attributes={"abnormality": HOSTILE})
    images = (
        make_record(lesion, image_id=1, name=f"{HOSTILE}.png", patient_id=HOSTILE),
        make_record(image_id=2, name="Größe_中文.png"),
        make_record(image_id=3, name="c/d.png", tumor=1, unlocalized=True),
        make_record(LESION, image_id=4, name="e.png"),
    )
    return Dataset(("mass",), images)


def small_predictions():
    return [
        make_prediction(((50, 50, 60, 60), 0.9), image_id=1, name=f"{HOSTILE}.png", masks=True),
        make_prediction(image_id=2, tumor=0.1),
        make_prediction(image_id=3, tumor=0.2),
        make_prediction((TARGET, 0.9), image_id=4, tumor=0.9, masks=True),
    ]


def read_grey(record):
    return grey(record.size_hw)


def test_write_overlays_writes_pictures_thumbnails_and_an_index(tmp_path):
    predictions = {prediction.image_id: prediction for prediction in small_predictions()[:2]}
    paths = write_overlays(small_dataset(), predictions, read_grey, tmp_path, panel_height=None, progress=False)
    assert len(paths) == 4
    assert all(path.parent == tmp_path and path.exists() for path in paths)
    assert Image.open(io.BytesIO(paths[0].read_bytes())).width > 160
    assert len(list((tmp_path / "thumbnails").iterdir())) == 4
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "c__d.jpg" in page


@pytest.mark.parametrize("both", [True, False])
def test_write_overlays_limit_and_png(tmp_path, both):
    paths = write_overlays(
        small_dataset(), {}, read_grey, tmp_path, side_by_side=both, limit=2, progress=False, suffix=".png"
    )
    assert [path.suffix for path in paths] == [".png", ".png"]


def test_write_overlays_of_nothing(tmp_path):
    assert write_overlays(Dataset(("mass",), ()), {}, read_grey, tmp_path, progress=False) == []
    assert "no images" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_write_overlays_writes_the_good_and_names_the_bad(tmp_path):
    def reader(record):
        if record.image_id == 2:
            raise OSError("unreadable")
        return read_grey(record)

    with pytest.raises(InputError, match=r"1 fault\n.*id 2.*unreadable\n3 of 4"):
        write_overlays(small_dataset(), {}, reader, tmp_path, progress=False)
    assert len(list(tmp_path.glob("*.jpg"))) == 3
    assert (tmp_path / "index.html").exists()


def test_picture_names_are_flat_unique_and_safe():
    names = ["../../etc/passwd", "a/b.png", "a__b.png", "A__B.dcm", "index.png", "...", "ä:*?.png", "x" * 400]
    records = tuple(make_record(image_id=i, name=name) for i, name in enumerate(names))
    made = picture_names(records, ".jpg")
    assert len({name.casefold() for name in made}) == len(names)
    assert not any("/" in name or name.startswith(".") for name in made)
    assert made[1:5] == ["a__b.jpg", "a__b_2.jpg", "A__B_3.jpg", "index_4.jpg"]
    assert all(len(name.encode()) < 200 for name in made)


def test_reporting_does_not_import_torch():
    code = "import sys, mammodet.reporting.html, mammodet.reporting.gallery; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0
