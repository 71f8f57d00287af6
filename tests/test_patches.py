"""Patches: exact pixels, where they lie, what they are called, and that subsets stay apart."""

from __future__ import annotations

import numpy as np
import pytest
from small_patches import FIXED, ONE, SIZE_HW, box_lesion, cut, film, image

from mammodet.data.breast import Breast
from mammodet.data.images import read_image, write_png
from mammodet.data.predictions import Predictions, write_predictions
from mammodet.errors import InputError
from mammodet.geometry import rle_to_mask
from mammodet.patches import PatchOptions
from mammodet.patches.cut import patch_record
from mammodet.patches.plan import (
    Patch,
    hard_patches,
    lesion_patches,
    lesion_sides,
    tissue_patches,
    wanted_side,
    why_no_negatives,
)
from mammodet.records import Detections, ImagePrediction
from mammodet.trace import Trace


def test_patch_is_the_square_of_context_around_the_lesion(tmp_path):
    # Longest side 12, so the side is 18; the middle is (26, 14), so the corner is (17, 5).
    _, made = cut(tmp_path, image(1, box_lesion((20, 10, 32, 18))), output_size=18, **ONE)
    (patch,) = made.values()
    assert patch.file_name == "images/im1_lesion1.png"
    pixels = read_image(tmp_path / "out" / patch.file_name)
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, film()[5:23, 17:35])
    assert patch.size_hw == (18, 18)
    assert patch.trace == {"native_size_hw": [48, 64], "steps": [["crop", 17, 5, 18, 18]]}
    assert patch.lesions[0].box_xyxy == (3, 5, 15, 13)
    expected = np.zeros((18, 18), dtype=bool)
    expected[5:13, 3:15] = True
    assert np.array_equal(rle_to_mask(patch.lesions[0].rle), expected)
    assert patch.breast_box_xyxy == (0, 0, 18, 18)  # so that no loader crops it again


def test_eight_bits_stay_eight_bits(tmp_path):
    pixels = (film() >> 8).astype(np.uint8)
    write_png(tmp_path / "in/images/im1.png", pixels)
    cut(tmp_path, image(1, box_lesion((20, 10, 32, 18))), output_size=18, **ONE)
    made = read_image(tmp_path / "out/images/im1_lesion1.png")
    assert made.dtype == np.uint8
    assert np.array_equal(made, pixels[5:23, 17:35])


def test_trace_leads_there_and_back_to_the_archives_own_pixels(tmp_path):
    # The file came from 60 x 90 by a crop at (10, 4) and a flip; the patch is doubled.
    own = Trace((60, 90)).then("crop", 10, 4, 64, 48).then("flip")
    box = (20, 10, 32, 18)
    record = image(1, box_lesion(box), trace=own.to_json(), spacing_mm_rc=(0.2, 0.1))
    _, made = cut(tmp_path, record, output_size=36, **ONE)
    patch = made["im1_lesion1"]
    trace = Trace.from_json(patch.trace)
    assert [step.name for step in trace.steps] == ["crop", "flip", "crop", "resize"]
    assert patch.lesions[0].box_xyxy == (6, 10, 30, 26)
    # x = 20 to 32 of the flipped file is 64 - 32 to 64 - 20 of the crop, and 10 more in the archive.
    assert trace.boxes_backward([patch.lesions[0].box_xyxy]).tolist() == [[42, 14, 54, 22]]
    assert trace.boxes_forward([[42, 14, 54, 22]]).tolist() == [[6, 10, 30, 26]]
    native = rle_to_mask(trace.mask_backward(rle_to_mask(patch.lesions[0].rle)))
    assert native.sum() == 12 * 8
    assert native[14:22, 42:54].all()
    assert patch.spacing_mm_rc == (0.1, 0.05)


def test_what_is_known_of_the_image_is_kept(tmp_path):
    known = {
        "patient_id": "p7",
        "laterality": "L",
        "view": "MLO",
        "density": "C",
        "birads": "4",
        "source": "archive",
        "split": "val",
        "notes": ("stretched",),
    }
    _, made = cut(tmp_path, image(1, box_lesion((20, 10, 32, 18)), **known), **ONE)
    patch = made["im1_lesion1"]
    for key in known.keys() - {"notes"}:
        assert getattr(patch, key) == known[key]
    assert patch.notes == ("stretched", "patch of images/im1.png, lesion 1")


def test_fixed_patch_beyond_the_border_is_shifted_inside(tmp_path):
    # Centred on (62, 46), 16 px would reach from (54, 38) to (70, 54).
    _, made = cut(tmp_path, image(1, box_lesion((60, 44, 64, 48))), size=16, **FIXED)
    pixels = read_image(tmp_path / "out/images/im1_lesion1.png")
    assert np.array_equal(pixels, film()[32:48, 48:64])
    assert made["im1_lesion1"].lesions[0].box_xyxy == (12, 12, 16, 16)


def test_patch_shrinks_to_a_smaller_image_and_is_enlarged(tmp_path):
    record = image(1, box_lesion((2, 2, 8, 8), size_hw=(12, 20)), size_hw=(12, 20), spacing_mm_rc=(0.4, 0.4))
    _, made = cut(tmp_path, record, size=24, **FIXED)
    patch = made["im1_lesion1"]
    assert patch.size_hw == (24, 24)
    assert patch.trace["steps"] == [["crop", 0, 0, 12, 12], ["resize", 24, 24]]
    assert patch.lesions[0].box_xyxy == (4, 4, 16, 16)
    assert patch.spacing_mm_rc == (0.2, 0.2)


def test_lesion_that_is_longer_than_the_patch_is_cut_and_told(tmp_path):
    summary, made = cut(tmp_path, image(1, box_lesion((10, 4, 50, 44))), size=16, **FIXED)
    (lesion,) = made["im1_lesion1"].lesions
    assert lesion.box_xyxy == (0, 0, 16, 16)
    assert lesion.attributes["share_on_patch"] == 0.16  # 16 x 16 of 40 x 40
    assert not lesion.ignore  # its own patch
    assert summary.lesions["too large: longer than their patch, which shows a part"] == 1


def test_small_lesions_get_sixteen_pixels(tmp_path):
    summary, made = cut(tmp_path, image(1, box_lesion((20, 20, 24, 24))), **ONE)
    assert made["im1_lesion1"].trace["steps"] == [["crop", 14, 14, 16, 16], ["resize", 224, 224]]
    assert summary.lesions["small: their patches were widened to 16 px"] == 1


def test_lesion_that_would_vanish_gives_no_patch(tmp_path):
    tiny, large = box_lesion((20, 20, 22, 22)), box_lesion((4, 4, 20, 20))
    summary, made = cut(tmp_path, image(1, tiny, large), size=48, output_size=8, **FIXED)
    assert list(made) == ["im1_lesion2"]  # 2 px of 48 are a third of a pixel of 8
    assert len(made["im1_lesion2"].lesions) == 1
    assert "im1.png lesion 1" in summary.to_text()
    assert "too small" in summary.to_text()


def test_shifted_copies_keep_the_lesion_inside_and_differ():
    # Side 18, so at most 4 px of shift; the lesion, 12 x 8, leaves 6 px in x and 10 in y.
    record = image(1, box_lesion((20, 10, 32, 18)))
    patches = lesion_patches(record, PatchOptions(per_lesion=40))
    corners = np.array([patch.corner_xy for patch in patches])
    assert corners[0].tolist() == [17, 5]
    assert len({patch.corner_xy for patch in patches}) == len(patches) > 20
    assert corners.min(axis=0).tolist() == [14, 1]  # x >= 32 - 18; y >= 5 - 4
    assert corners.max(axis=0).tolist() == [20, 9]  # x <= 20; y <= 5 + 4
    other = lesion_patches(record, PatchOptions(per_lesion=40, seed=1))
    assert [patch.corner_xy for patch in other] != [patch.corner_xy for patch in patches]


def test_copies_without_room_are_left_out_and_told(tmp_path):
    size = {"size_hw": (16, 16)}
    record = image(1, box_lesion((4, 4, 12, 12), **size), **size)
    summary, made = cut(tmp_path, record, fixed=True, size=16, per_lesion=3, negatives=0)
    assert list(made) == ["im1_lesion1"]
    assert summary.lesions["with fewer than 3 patches: no room to shift them"] == 1


def test_wanted_side_never_cuts_a_lesion():
    assert wanted_side((0, 0, 100, 40), PatchOptions(context=1.5)) == 150
    assert wanted_side((0, 0, 30.2, 4), PatchOptions(context=1.0)) == 31
    assert wanted_side((0, 0, 2, 2), PatchOptions()) == 16
    assert wanted_side((0, 0, 100, 40), PatchOptions(fixed=True, size=64)) == 64


def shown(*lesions, lesion=0, corner=(16, 16), side=16, out=16, **more):
    options = PatchOptions(output_size=out, classes=more.pop("classes", "tumor"))
    return patch_record(image(1, *lesions, **more), Patch("lesion", 1, corner, side, lesion=lesion), "x.png", options)


def test_neighbour_is_cut_and_a_sliver_is_ignored():
    own = box_lesion((18, 18, 24, 24))
    half, sliver, outside = (28, 20, 36, 26), (0, 28, 20, 32), (0, 0, 16, 16)
    made = shown(own, box_lesion(half), box_lesion(sliver), box_lesion(outside))
    assert [lesion.box_xyxy for lesion in made.lesions] == [(2, 2, 8, 8), (12, 4, 16, 10), (0, 12, 4, 16)]
    assert [lesion.ignore for lesion in made.lesions] == [False, False, True]
    assert [lesion.attributes.get("share_on_patch") for lesion in made.lesions] == [None, 0.5, 0.2]
    assert not made.has_complete_boxes


def test_lesion_with_a_box_alone_is_clipped_without_a_mask():
    made = shown(box_lesion((18.5, 18, 36.5, 24.25), masked=False), out=32)
    assert made.lesions[0].box_xyxy == (5, 4, 32, 16.5)
    assert made.lesions[0].rle is None
    assert made.lesions[0].attributes["share_on_patch"] == 0.75  # 13.5 of 18 px


def test_circle_attribute_moves_with_the_patch():
    made = shown(box_lesion((18, 18, 24, 24), circle_xyr=[21.0, 21.5, 3.0]), out=32)
    assert made.lesions[0].attributes["circle_xyr"] == [10, 11, 6]


@pytest.mark.parametrize(
    ("own", "other", "other_box", "more", "malignant", "name"),
    [
        ("benign", None, None, {}, 0, "benign nodule"),
        ("malignant", None, None, {}, 1, "malignant nodule"),
        (None, None, None, {}, None, None),
        ("malignant", "benign", (26, 18, 30, 24), {}, 1, "malignant nodule"),
        ("benign", "malignant", (26, 18, 30, 24), {}, 1, "malignant calcification"),
        ("benign", "malignant", (0, 28, 20, 32), {}, 0, "benign nodule"),  # a fifth of it: ignored
        ("benign", "unclear", (26, 18, 30, 24), {}, None, None),
        ("benign", None, None, {"unlocalized": True, "labels": {"tumor": 1, "malignant": 1}}, None, None),
        ("benign", None, None, {"unlocalized": True, "labels": {"tumor": 1, "malignant": 0}}, 0, "benign nodule"),
    ],
)
def test_labels_and_class_are_those_of_the_worst_lesion_on_the_patch(own, other, other_box, more, malignant, name):
    lesions = [box_lesion((18, 18, 24, 24), pathology=own, abnormality="nodule")]
    if other_box:
        lesions.append(box_lesion(other_box, pathology=other, abnormality="calcification"))
    made = shown(*lesions, classes="abnormality+pathology", **more)
    assert made.labels == {"tumor": 1, "malignant": malignant}
    assert made.class_name == name
    assert made.unlocalized == more.get("unlocalized", False)


@pytest.mark.parametrize(("scheme", "name"), [("tumor", "tumor"), ("category", "mass"), ("abnormality", "nodule")])
def test_class_scheme_names_the_class(scheme, name):
    made = shown(box_lesion((18, 18, 24, 24), abnormality="nodule"), classes=scheme)
    assert made.class_name == name


def half_breast(size_hw=(32, 32)) -> Breast:
    """Tissue in the left half, in a mask of half the resolution."""
    mask = np.zeros((size_hw[0] // 2, size_hw[1] // 2), dtype=bool)
    mask[:, : mask.shape[1] // 2] = True
    return Breast((0.0, 0.0, size_hw[1] / 2, float(size_hw[0])), mask, size_hw)


def test_tissue_patches_lie_on_tissue_and_off_lesions():
    # Lesion 12 px wide, so with a margin of 2 px it takes x < 14, y < 14. 60 % of 8 px is 4.8, so that x + 4.8 <= 16,
    # and the centre x + 4 < 16: x goes from 0 to 11, and no patch passes beside the lesion.
    record = image(1, box_lesion((0, 2, 12, 12), size_hw=(32, 32)), size_hw=(32, 32))
    seen = set()
    for seed in range(300):
        options = PatchOptions(fixed=True, size=8, negatives=1, seed=seed)
        (patch,) = tissue_patches(record, half_breast(), {}, options)
        seen.add(patch.corner_xy)
    xs, ys = ({corner[axis] for corner in seen} for axis in (0, 1))
    # Corners come from a grid of 2 px, the mask's pixels; those that leave the image are shifted inside.
    assert xs == {0, 1, 3, 5, 7, 9, 11}
    assert ys == {15, 17, 19, 21, 23, 24}


def drawn_corners(mask, side):
    """Corners of the patches of 200 seeds on an image of 32 x 32 px."""
    breast = Breast((0.0, 0.0, 32.0, 32.0), mask, (32, 32))
    record = image(1, size_hw=(32, 32))
    options = [PatchOptions(fixed=True, size=side, negatives=1, seed=seed) for seed in range(200)]
    return {patch.corner_xy for one in options for patch in tissue_patches(record, breast, {}, one)}


def test_tissue_patches_are_three_fifths_tissue():
    mask = np.zeros((16, 16), dtype=bool)
    mask[:, :5] = True  # up to x = 10: 10 of 16 px from x = 0, but 9 from x = 1, whose centre is still tissue
    assert {x for x, _ in drawn_corners(mask, 16)} == {0}


def test_tissue_patches_that_are_shifted_inside_still_have_their_centre_on_tissue():
    mask = np.ones((16, 16), dtype=bool)
    mask[5:7, 5:7] = False  # x and y from 10 to 14: where (0, 0, 24, 24) has its centre
    corners = drawn_corners(mask, 24)
    assert (0, 0) not in corners
    assert {(8, 0), (0, 8), (8, 8)} <= corners


def test_tissue_patches_do_not_lie_in_each_other():
    options = PatchOptions(fixed=True, size=8, negatives=50)
    patches = tissue_patches(image(1, size_hw=(32, 32)), half_breast(), {}, options)
    assert 3 <= len(patches) < 50
    assert [patch.number for patch in patches] == list(range(1, len(patches) + 1))
    for number, patch in enumerate(patches):
        for earlier in patches[:number]:
            centre = np.array(patch.corner_xy) + 4 - earlier.corner_xy
            assert ((centre < 0) | (centre > 8)).any()


def test_negatives_have_the_sides_of_lesion_patches_outside_the_test_set():
    wide, narrow = box_lesion((0, 0, 20, 10)), box_lesion((0, 0, 12, 12))
    records = [
        image(1, wide, split="train", source="a"),
        image(2, narrow, split="val", source="b"),
        image(3, box_lesion((0, 0, 30, 30)), split="test", source="a"),
        image(4, box_lesion((0, 0, 40, 40), ignore=True), split="train", source="a"),
    ]
    sides = lesion_sides(records, PatchOptions())
    assert sides == {None: [18, 30], "a": [30], "b": [18]}
    assert lesion_sides(records[2:], PatchOptions()) == {None: [45], "a": [45]}
    (patch,) = tissue_patches(
        image(5, source="c", size_hw=(64, 64)), half_breast((64, 64)), sides, PatchOptions(negatives=1)
    )
    assert patch.side in (18, 30)


@pytest.mark.parametrize(
    ("record", "negatives_from", "gives"),
    [
        (image(1), "any", True),
        (image(1), "normal", True),
        (image(1, box_lesion((0, 0, 9, 9))), "any", True),
        (image(1, box_lesion((0, 0, 9, 9))), "normal", False),
        (image(1, box_lesion((0, 0, 9, 9)), unlocalized=True), "any", False),
        (image(1, box_lesion((0, 0, 9, 9), ignore=True)), "any", False),
        (image(1, labels={}), "any", False),  # nothing is known
        (image(1, labels={"tumor": 1}), "any", False),
        (image(1, labels={"tumor": 1}), "normal", False),
    ],
)
def test_negatives_come_only_from_images_whose_lesions_are_known(record, negatives_from, gives):
    assert (why_no_negatives(record, PatchOptions(negatives_from=negatives_from)) is None) == gives


def test_negatives_are_normal_tissue_with_known_labels(tmp_path):
    normal, positive = image(2), image(1, box_lesion((2, 2, 12, 12)))
    summary, made = cut(tmp_path, positive, normal, per_lesion=1, negatives=2, fixed=True, size=16)
    negatives = [record for stem, record in made.items() if "_normal" in stem]
    assert {stem.split("_")[0] for stem in made if "_normal" in stem} == {"im1", "im2"}
    for record in negatives:
        assert (record.class_name, record.labels) == ("normal", {"tumor": 0, "malignant": 0})
        assert record.lesions == ()
        x, y, *_ = record.trace["steps"][0][1:]
        assert np.array_equal(read_image(tmp_path / "out" / record.file_name), film(SIZE_HW)[y : y + 16, x : x + 16])
        assert x + 16 * 0.6 <= 43  # tissue ends at 42, or a pixel of the breast's mask further
        if record.patient_id == "p1":
            assert x >= 13 or y >= 13
    assert summary.classes == {"normal": {"no subset": len(negatives)}, "tumor": {"no subset": 1}}


def test_images_without_room_and_without_a_breast_are_told(tmp_path):
    black = image(2)
    write_png(tmp_path / "in/images/im2.png", np.zeros(SIZE_HW, np.uint16))
    whole = image(1, box_lesion((0, 0, 60, 44)))
    summary, made = cut(tmp_path, whole, black, image(3, unlocalized=True, labels={"tumor": 1}), per_lesion=1)
    assert list(made) == ["im1_lesion1"]
    assert summary.negatives == {
        "without room for negatives": 1,
        "on which no breast was found": 1,
        "left out: a lesion has no place, or is to be ignored": 1,
    }
    assert "1 on which no breast was found (images/im2.png)" in summary.to_text()


def found(number, *items, size_hw=SIZE_HW) -> ImagePrediction:
    """`items`: (box, score), the highest score first."""
    boxes = np.array([box for box, _ in items], dtype=float).reshape(-1, 4)
    scores = np.array([score for _, score in items])
    detections = Detections(boxes, scores, np.ones(len(items), np.int64))
    return ImagePrediction(number, f"images/im{number}.png", size_hw, {}, detections)


def test_hard_negatives_are_false_positives_strongest_first():
    record = image(1, box_lesion((2, 2, 12, 12)))
    prediction = found(
        1,
        ((5, 5, 8, 8), 0.99),  # its centre is in the lesion, IoU 9/100
        ((0, 9, 12, 22), 0.95),  # IoU 30/226 = 0.13, centre (6, 15.5) outside
        ((40, 20, 50, 30), 0.9),
        ((41, 21, 51, 31), 0.8),  # shows what the one before shows
        ((30, 4, 36, 10), 0.7),
        ((20, 36, 28, 44), 0.6),
        ((40, 2, 50, 12), 0.05),
    )
    patches, without_room = hard_patches(record, prediction, PatchOptions(hard_per_image=5, hard_score=0.1))
    assert [(patch.score, patch.corner_xy, patch.side) for patch in patches] == [
        (0.9, (37, 17), 16),
        (0.7, (25, 0), 16),
        (0.6, (16, 32), 16),
    ]
    assert without_room == 0
    few, _ = hard_patches(record, prediction, PatchOptions(hard_per_image=1, hard_score=0.1))
    assert [patch.score for patch in few] == [0.9]
    assert len(hard_patches(record, prediction, PatchOptions(hard_per_image=9, hard_score=0.01))[0]) == 4


def test_hard_negative_moves_off_a_lesion_as_little_as_it_can():
    # The lesion takes up to x = 13 with its margin. Centred on (18, 26), 16 px would begin at 10; it moves by 3.
    record = image(1, box_lesion((2, 20, 12, 30)))
    (patch,), _ = hard_patches(record, found(1, ((14, 22, 22, 30), 0.9)), PatchOptions())
    assert patch.corner_xy == (13, 18)
    # Close beside it a move would lose a part of the detection, or take more than 4 px.
    patches, without_room = hard_patches(record, found(1, ((12, 22, 22, 30), 0.9)), PatchOptions())
    assert (patches, without_room) == ([], 1)


def test_hard_negatives_are_written_with_their_score(tmp_path):
    records = [image(1, box_lesion((2, 2, 12, 12))), image(2), image(3, unlocalized=True, labels={"tumor": 1})]
    path = tmp_path / "preds.json"
    items = ((20, 20, 30, 30), 0.834), ((2, 2, 10, 12), 0.5)
    write_predictions(Predictions((found(1, *items), found(3, *items)), ("mass",)), path)
    summary, made = cut(tmp_path, *records, hard_negatives=path, output_size=16, **ONE)
    assert list(made) == ["im1_lesion1", "im1_hard1"]  # image 3 has a lesion that could be anywhere
    patch = made["im1_hard1"]
    assert patch.notes == ("patch of images/im1.png", "hard negative, score 0.83")
    assert (patch.class_name, patch.labels, patch.lesions) == ("normal", {"tumor": 0, "malignant": 0}, ())
    assert np.array_equal(read_image(tmp_path / "out" / patch.file_name), film()[17:33, 17:33])
    assert summary.classes["normal, false positive"] == {"no subset": 1}


def test_predictions_of_unknown_images_are_refused(tmp_path):
    path = tmp_path / "preds.json"
    write_predictions(Predictions((found(1), found(9)), ("mass",)), path)
    with pytest.raises(InputError, match=r"prediction for 'images/im9.png': no such image"):
        cut(tmp_path, image(1, box_lesion((20, 10, 32, 18))), hard_negatives=path)
    write_predictions(Predictions((found(1, size_hw=(48, 48)),), ("mass",)), path)
    with pytest.raises(InputError, match=r"predicted at \(48, 48\), the data set says \(48, 64\)"):
        cut(tmp_path, image(1, box_lesion((20, 10, 32, 18))), hard_negatives=path)
