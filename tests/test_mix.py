"""Copy-paste and mixup: pixels, boxes and masks by hand, and labels that are never wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mammodet.config import AugmentConfig, ImageConfig
from mammodet.data.dataset import LesionDataset
from mammodet.data.images import write_png
from mammodet.data.mix import Mixer, Paste, Scene, donors, mix_scenes, paste_lesion
from mammodet.data.prepared import MemoryCache
from mammodet.data.sampling import SampleKey
from mammodet.geometry import box_rle, rle_to_mask
from mammodet.records import Dataset, ImageRecord, Lesion
from mammodet.targets import Target

SIZE_HW = (120, 100)
BREAST = (10, 0, 100, 90)  # rows and columns from, to
PLACES = tuple(np.linspace(0, 0.99, 40).tolist())
MIRRORS = [(False, False), (True, False), (False, True), (True, True)]


def film(level: float, channels: int = 1) -> torch.Tensor:
    """A breast of one brightness on black."""
    image = torch.zeros((channels, *SIZE_HW))
    image[:, BREAST[0] : BREAST[2], BREAST[1] : BREAST[3]] = level
    return image


def lesion(box=(30, 40, 46, 50), **attributes) -> Lesion:
    return Lesion("mass", box, None, "box", attributes)


def scene(level: float, *boxes, with_masks=False, channels=1, labels=None, **record) -> Scene:
    """A breast with a lesion 0.3 brighter at each box, whose left half is 0.1 brighter still."""
    image, masks = film(level, channels), torch.zeros((len(boxes), *SIZE_HW), dtype=torch.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        image[:, y1:y2, x1:x2] = level + 0.3
        image[:, y1:y2, x1 : (x1 + x2) // 2] = level + 0.4
        masks[number, y1:y2, x1:x2] = 1
    record = {"lesions": tuple(lesion(box) for box in boxes)} | record
    return Scene(
        image,
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.ones(len(boxes), dtype=torch.int64),
        masks if with_masks else None,
        ImageRecord(1, "a.png", SIZE_HW, labels=labels or {}, **record),
    )


BOX = (30, 40, 46, 50)


# copy-paste


@pytest.mark.parametrize("with_masks", [True, False])
@pytest.mark.parametrize("mirror_xy", MIRRORS)
@pytest.mark.parametrize("channels", [1, 5])
def test_pasted_lesion_has_its_contrast_at_its_new_place(mirror_xy, with_masks, channels):
    base = scene(0.3, with_masks=with_masks, channels=channels)
    donor = scene(0.5, BOX, with_masks=with_masks, channels=channels)
    before = base.image.clone(), donor.image.clone()
    found = paste_lesion(base, donor, Paste(0, mirror_xy, PLACES))
    assert torch.equal(base.image, before[0])
    assert torch.equal(donor.image, before[1])
    assert found.labels.tolist() == [1]
    x1, y1, x2, y2 = (round(value) for value in found.boxes[0].tolist())
    assert (x2 - x1, y2 - y1) == (16, 10)
    # 0.4 and 0.3 above the surroundings, which were at 0.5 and are at 0.3 now: the rim is what is matched.
    middle = found.image[:, (y1 + y2) // 2, :]
    left, right = (0.6, 0.7) if mirror_xy[0] else (0.7, 0.6)
    if with_masks:
        assert middle[:, x1 + 2].tolist() == pytest.approx([left] * channels, abs=1e-5)
        assert middle[:, x2 - 3].tolist() == pytest.approx([right] * channels, abs=1e-5)
        assert torch.nonzero(found.masks[0]).tolist() == [[y, x] for y in range(y1, y2) for x in range(x1, x2)]
    # Beyond the rim, 0.3 of the longer side, nothing changes; inside it, no pixel stands out of its neighbourhood.
    far = torch.ones(SIZE_HW, dtype=torch.bool)
    far[y1 - 6 : y2 + 6, x1 - 6 : x2 + 6] = False
    assert torch.equal(found.image[:, far], base.image[:, far])


def test_pasted_lesion_lies_in_the_breast_and_beside_other_lesions():
    own = (20, 30, 60, 80)
    base, donor = scene(0.3, own), scene(0.5, BOX)
    corners = set()
    for seed in range(30):
        places = tuple(np.random.default_rng(seed).random(20).tolist())
        found = paste_lesion(base, donor, Paste(0, (False, False), places))
        if found is base:
            continue
        assert found.boxes[0].tolist() == list(own)
        x1, y1, x2, y2 = found.boxes[1].tolist()
        assert x2 <= own[0] or x1 >= own[2] or y2 <= own[1] or y1 >= own[3]
        assert x1 >= BREAST[1]
        assert y1 >= BREAST[0]
        assert x2 <= BREAST[3]
        assert y2 <= BREAST[2]
        corners.add((x1, y1))
    assert len(corners) > 10


def test_lesion_is_pasted_where_the_surroundings_are_most_like_its_own():
    # The right half is as bright as the donor's breast.
    base = scene(0.3)
    base.image[:, 10:100, 45:90] = 0.5
    for seed in range(10):
        places = tuple(np.random.default_rng(seed).random(40).tolist())
        found = paste_lesion(base, scene(0.5, BOX), Paste(0, (False, False), places))
        assert float(found.boxes[0, 0]) >= 42  # its rim may reach over the edge a little


def test_lesion_that_would_saturate_loses_contrast_and_keeps_its_shape():
    base, donor = scene(0.8), scene(0.5, BOX, with_masks=True)
    found = paste_lesion(replace(base, masks=torch.zeros((0, *SIZE_HW))), donor, Paste(0, (False, False), PLACES))
    x1, y1, x2, y2 = (round(value) for value in found.boxes[0].tolist())
    # The brighter half, 0.4 above its surroundings, just reaches white; the other keeps its 3/4 of that.
    assert float(found.image[0, (y1 + y2) // 2, x1 + 2]) == pytest.approx(1.0)
    assert float(found.image[0, (y1 + y2) // 2, x2 - 3]) == pytest.approx(0.95)


@pytest.mark.parametrize(
    "donor",
    [
        scene(0.5),  # its lesion was cropped away
        scene(0.5, (80, 40, 96, 50)),  # across the skin line
        scene(0.5, (0, 40, 16, 50)),  # at the film's edge
    ],
)
def test_lesion_that_cannot_be_cut_out_leaves_the_scene_as_it_is(donor):
    base = scene(0.3)
    assert paste_lesion(base, donor, Paste(0, (False, False), PLACES)) is base


def test_scene_without_a_place_stays_as_it_is():
    base = scene(0.3, (2, 12, 88, 98))
    assert paste_lesion(base, scene(0.5, BOX), Paste(0, (False, False), PLACES)) is base


@pytest.mark.parametrize(
    ("own", "pathology", "of_donor", "expected"),
    [
        ({"tumor": 0, "malignant": 0}, "malignant", None, 1),
        ({"tumor": 0, "malignant": 0}, "benign", None, 0),
        ({"tumor": 0, "malignant": 0}, None, None, None),
        ({"tumor": 0, "malignant": 0}, None, 1, 1),  # its only lesion is what makes the donor malignant
        ({"tumor": 0, "malignant": 0}, None, 0, 0),
        ({"tumor": 1, "malignant": 1}, "benign", 0, 1),
        ({"tumor": 1, "malignant": 1}, None, None, 1),
        ({"tumor": 1, "malignant": None}, "benign", 0, None),
        ({"tumor": None, "malignant": None}, "malignant", 1, 1),
        ({}, "benign", None, None),
    ],
)
def test_labels_after_a_paste(own, pathology, of_donor, expected):
    attributes = {"pathology": pathology} if pathology else {}
    donor = scene(0.5, BOX, labels={"malignant": of_donor}, lesions=(lesion(**attributes),))
    base = scene(0.3, labels={**own, "implant": 0}, birads="2", class_name="normal", density="C", view="CC")
    record = paste_lesion(base, donor, Paste(0, (False, False), PLACES)).record
    # Whether a label of the archive's own still holds is not known; density and view do.
    assert record.labels == {"tumor": 1, "malignant": expected, "implant": None}
    assert (record.birads, record.class_name, record.density, record.view) == (None, None, "C", "CC")


def test_donors_have_a_single_lesion_with_a_place():
    records = [
        scene(0.3, BOX).record,
        scene(0.3).record,
        scene(0.3, BOX, (60, 60, 70, 70)).record,
        scene(0.3, BOX, unlocalized=True).record,
        scene(0.3, BOX, lesions=(replace(lesion(), ignore=True),)).record,
        scene(0.3, BOX).record,
    ]
    assert donors(records) == [0, 5]


# mixup


@pytest.mark.parametrize("with_masks", [True, False])
def test_mixup_by_hand(with_masks):
    first, second = scene(0.2, BOX, with_masks=with_masks), scene(0.6, (60, 60, 70, 70), with_masks=with_masks)
    wide = Scene(
        torch.cat([second.image, torch.ones((1, 120, 20))], dim=2),
        second.boxes,
        torch.tensor([2]),
        torch.nn.functional.pad(second.masks, (0, 20)) if with_masks else None,
        second.record,
    )
    found = mix_scenes(first, wide, 0.4)
    assert found.image.shape == (1, 120, 120)
    assert found.boxes.tolist() == [list(BOX), [60, 60, 70, 70]]
    assert found.labels.tolist() == [1, 2]
    assert float(found.image[0, 45, 32]) == pytest.approx(0.4 * 0.6 + 0.6 * 0.6)  # the first's lesion
    assert float(found.image[0, 65, 68]) == pytest.approx(0.4 * 0.2 + 0.6 * 0.9)  # the other's
    assert float(found.image[0, 0, 110]) == pytest.approx(0.6)  # the other alone
    if with_masks:
        assert found.masks.sum(dim=(1, 2)).tolist() == [160, 100]
        assert found.masks.shape == (2, 120, 120)
    assert float(first.image[0, 45, 32]) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1), (None, 1, 1), (None, 0, None), (0, None, None), (None, None, None)],
)
def test_labels_after_mixup(first, second, expected):
    one = scene(0.2, labels={"tumor": first, "implant": 1}, density="B", view="CC", laterality="L", birads="1")
    other = scene(0.2, labels={"tumor": second, "malignant": second}, density="B", view="CC", laterality="R")
    record = mix_scenes(one, other, 0.5).record
    assert record.label("tumor") == expected
    assert record.label("malignant") == (1 if second == 1 else None)
    assert record.label("implant") is None
    assert (record.density, record.birads, record.view, record.laterality) == (None, None, "CC", None)


@pytest.mark.parametrize("which", ["first", "second"])
def test_mixup_with_a_lesion_without_a_place_teaches_no_boxes(which):
    complete, other = scene(0.2, BOX), scene(0.2, unlocalized=True)
    pair = (complete, other) if which == "second" else (other, complete)
    assert not mix_scenes(*pair, 0.5).record.has_complete_boxes
    assert mix_scenes(complete, complete, 0.5).record.has_complete_boxes


# drawing, and the data set


def test_draw_is_a_function_of_the_seed_and_never_takes_the_image_itself():
    records = [scene(0.3, BOX).record for _ in range(3)]
    mixer = Mixer(AugmentConfig(copy_paste=0.5, mixup=0.25), records)
    drawn = [mixer.draw(1, seed) for seed in range(400)]
    assert drawn == [mixer.draw(1, seed) for seed in range(400)]
    pastes = [paste for paste, _ in drawn if paste is not None]
    overlays = [overlay for _, overlay in drawn if overlay is not None]
    assert 160 < len(pastes) < 240
    assert 70 < len(overlays) < 130
    assert {paste.donor for paste in pastes} == {overlay.other for overlay in overlays} == {0, 2}
    assert {paste.mirror_xy for paste in pastes} == set(MIRRORS)
    assert all(0.4 <= overlay.share <= 0.6 for overlay in overlays)


def test_single_image_is_mixed_with_none():
    assert Mixer(AugmentConfig(mixup=1.0), [scene(0.3).record]).draw(0, 1) == (None, None)


def lesion_dataset(folder: Path, **augment) -> LesionDataset:
    """Two breasts with a lesion, malignant and benign, and a normal one; the lesions have boxes only."""
    records = []
    for number, pathology in enumerate(("malignant", "benign", None)):
        boxes = (BOX,) if pathology else ()
        pixels = (scene(0.3 + 0.1 * number, *boxes).image[0].numpy() * 255).astype(np.uint8)
        write_png(folder / f"{number}.png", pixels)
        labels = {"tumor": int(pathology is not None), "malignant": int(pathology == "malignant")}
        lesions = (lesion(pathology=pathology),) if pathology else ()
        records.append(ImageRecord(number, f"{number}.png", SIZE_HW, labels=labels, lesions=lesions, density="A"))
    image = ImageConfig(max_size=120, crop="none", channels=["full"])
    return LesionDataset(
        Dataset(("mass",), tuple(records)),
        folder,
        image,
        (Target("tumor"), Target("malignant"), Target("density", ("A", "B"))),
        with_masks=True,
        box_masks="ellipse",
        augment=AugmentConfig(**augment),
        prepared=MemoryCache(folder, image),
    )


def test_data_set_pastes_and_mixes_as_the_key_says_and_keeps_its_cache(tmp_path):
    changed = lesion_dataset(tmp_path, copy_paste=1.0)
    plain = lesion_dataset(tmp_path, enabled=False)
    assert plain.mixer is None
    counts = set()
    for seed in range(8):
        sample, again = (changed[SampleKey(2, seed)] for _ in range(2))
        assert torch.equal(sample.image, again.image)
        assert torch.equal(sample.target["masks"], again.target["masks"])
        count = len(sample.target["boxes"])
        donor = changed.mixer.draw(2, seed)[0].donor
        assert sample.labels[:2].tolist() == ([1, 1 - donor] if count else [0, 0])
        assert sample.labels[2] == 0  # its density is what it was
        assert sample.record.labels == {"tumor": 0, "malignant": 0}  # the record speaks of the file
        assert sample.target["masks"].shape[0] == len(sample.target["labels"]) == count
        counts.add(count)
    assert 1 in counts
    mixed = lesion_dataset(tmp_path, mixup=1.0)[SampleKey(2, 0)]
    assert (len(mixed.target["boxes"]), mixed.labels[0]) == (1, 1)
    assert math.isnan(mixed.labels[2])
    for position in range(3):
        assert torch.equal(torch.from_numpy(changed.prepared.kept[position][0]), plain[position].image)


def test_lesion_without_a_mask_is_cut_out_by_the_ellipse_in_its_box():
    donor = scene(0.5, BOX)
    ellipse = torch.from_numpy(rle_to_mask(box_rle(BOX, SIZE_HW, "ellipse")))[None].to(torch.uint8)
    found, expected = (
        paste_lesion(scene(0.3), replace(donor, masks=masks), Paste(0, (True, False), PLACES))
        for masks in (None, ellipse)
    )
    assert len(found.boxes) == 1
    assert torch.equal(found.image, expected.image)
