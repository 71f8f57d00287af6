"""What training images look like is kept with a model, and an image far from them is warned of."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from mammodet.data.coco import read_coco
from mammodet.data.domain import Domain, domain_of
from mammodet.data.doubts import Stored, doubts_of
from mammodet.data.guard import MEASURES
from mammodet.data.images import read_image
from mammodet.engine.facts import RunFacts
from mammodet.records import Dataset, ImageRecord

DOMAIN = Domain(images=10, mammograms=1.0, ranges={"level": (0.4, 0.6)}, origins=("film",), spacing_mm=(0.05, 0.1))


def measured(level: float) -> np.ndarray:
    values = np.zeros(len(MEASURES))
    values[MEASURES.index("level")] = level
    return values


@pytest.mark.parametrize(("level", "expected"), [(0.5, 0), (0.25, 0), (0.2, 1), (0.8, 1)])
def test_values_far_outside_the_range_are_doubtful(level: float, expected: int) -> None:
    # the margin is 0.75 of the range's 0.2, and 0.02
    assert len(DOMAIN.doubts(measured(level), None, None)) == expected


def test_spacing_and_origin_are_compared_where_both_are_known() -> None:
    assert DOMAIN.doubts(measured(0.5), (0.14, 0.14), "film") == []
    (spacing,) = DOMAIN.doubts(measured(0.5), (0.2, 0.2), None)
    assert "0.2 mm" in spacing
    (origin,) = DOMAIN.doubts(measured(0.5), None, "digital")
    assert "digital" in origin
    assert DOMAIN.model_copy(update={"origins": ("unknown",)}).doubts(measured(0.5), None, "digital") == []


def test_trainings_one_after_the_other_are_joined() -> None:
    other = Domain(images=3, mammograms=0.5, ranges={"level": (0.1, 0.5)}, origins=("digital",))
    joined = DOMAIN.joined(other)
    assert joined == Domain(
        images=10, mammograms=0.5, ranges={"level": (0.1, 0.6)}, origins=("digital", "film"), spacing_mm=(0.05, 0.1)
    )
    facts = RunFacts({}, (), "", None, domain=DOMAIN)
    assert facts.with_earlier(RunFacts({}, (), "", None)).domain == DOMAIN
    assert facts.with_earlier(RunFacts({}, (), "", None, domain=other)).domain == joined


def test_facts_keep_the_domain(tmp_path: Path) -> None:
    facts = RunFacts({}, (), "", None, domain=DOMAIN)
    assert RunFacts.from_json(facts.to_json(), tmp_path).domain == DOMAIN


def test_domain_of_phantoms_takes_them_and_warns_of_noisy_ones(phantom_root: Path) -> None:
    dataset = read_coco(phantom_root / "train.json")
    domain = domain_of(dataset, phantom_root)
    assert domain is not None
    assert domain.images == len(dataset.images)
    assert domain.mammograms == 1
    assert domain.origins == ("unknown",)
    record = read_coco(phantom_root / "test.json").images[0]
    pixels = read_image(phantom_root / record.file_name)
    assert doubts_of(pixels, Stored(), record, domain) == []
    rng = np.random.default_rng(0)
    noisy = np.clip(pixels + rng.normal(0, 40, pixels.shape) * (pixels > 40), 0, 255).astype(np.uint8)
    assert any("texture" in doubt for doubt in doubts_of(noisy, Stored(), record, domain, force=True))


def test_a_model_of_patches_refuses_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    records = []
    for number in range(1, 5):
        pixels = cv2.GaussianBlur(rng.integers(0, 256, (96, 96)).astype(np.uint8), (0, 0), 1.5)
        cv2.imwrite(str(tmp_path / f"{number}.png"), pixels)
        records.append(ImageRecord(number, f"{number}.png", (96, 96)))
    domain = domain_of(Dataset(("mass",), tuple(records)), tmp_path)
    assert domain is not None
    assert domain.is_other
    (doubt,) = doubts_of(pixels, Stored(), records[-1], domain)
    assert "no mammogram" in doubt


def test_nothing_readable_has_no_domain(tmp_path: Path) -> None:
    assert domain_of(Dataset(("mass",), (ImageRecord(1, "missing.png", (96, 96)),)), tmp_path) is None
