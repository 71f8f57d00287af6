"""Hashes of the images that a model has seen: recognised by name or content, small, and read back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import TypeAdapter
from small_cases import dataset, image

from mammodet.data.seen_images import SeenImages

JSON = TypeAdapter(SeenImages)


def write(root, **contents):
    (root / "images").mkdir(parents=True)
    for name, content in contents.items():
        (root / "images" / f"{name}.png").write_bytes(content)


def test_images_are_recognised_by_name_or_content(tmp_path):
    write(tmp_path / "one", im1=b"first", im2=b"second")
    write(tmp_path / "other", im2=b"another", im3=b"first", im4=b"new")
    seen = SeenImages.of([image(1, patient_id="p"), image(2)], tmp_path / "one")
    there = dataset(image(2), image(3, patient_id="q"), image(4), image(5))  # im5 is missing: nothing is known of it
    assert seen.found_in(there, tmp_path / "other") == ["images/im2.png", "images/im3.png"]
    larger = dataset(replace(image(2), size_hw=(200, 100)))
    assert seen.found_in(larger, tmp_path / "other") == []
    assert SeenImages().found_in(there, tmp_path / "other") == []


def test_hashes_take_sixteen_characters_an_image_and_are_read_back(tmp_path):
    write(tmp_path, **{f"im{n}": str(n).encode() for n in range(50)})
    seen = SeenImages.of([image(n) for n in range(50)], tmp_path)
    value = JSON.dump_python(seen, mode="json")
    assert sum(map(len, value.values())) == 50 * 16
    assert JSON.validate_python(value) == seen
    again = SeenImages.of([image(50)], tmp_path)
    assert len(seen.joined(again).names) == 51
    assert JSON.validate_python({}) == SeenImages()


@pytest.mark.parametrize("value", [[], "text", {"names": 5}, {"names": "ab"}, {"names": "abcd"}, {"contents": "?" * 8}])
def test_damaged_hashes_are_refused(value):
    with pytest.raises(ValueError):
        JSON.validate_python(value)
