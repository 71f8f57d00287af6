"""COCO files that are damaged or hostile raise input errors, and no others."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from small_dataset import fault_of, full_dataset, read, tiny

from mammodet.data.coco import data_hash, read_coco, to_json, write_coco
from mammodet.errors import InputError
from mammodet.geometry import rle_to_mask


@pytest.mark.parametrize(
    "value",
    [
        [],
        None,
        "images",
        5,
        True,
        {},
        {"images": []},
        {"images": {}, "categories": []},
        {"images": [], "categories": None},
    ],
)
def test_other_json_is_refused(tmp_path, value):
    assert "expected a COCO object with lists 'images', 'annotations' and 'categories'" in fault_of(tmp_path, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": {}}, "'annotations' is {}; expected a list"),
        ({"annotations": None}, "'annotations' is None; expected a list"),
        ({"annotations": [None]}, "annotation at position 0: is None; expected an object"),
        ({"images": [["a.png"]], "annotations": []}, "image at position 0: is ['a.png']; expected an object"),
        ({"info": [1]}, "'info' is [1]; expected an object"),
        ({"info": "made by hand"}, "'info' is 'made by hand'; expected an object"),
    ],
)
def test_parts_of_another_kind_are_refused(tmp_path, change, message):
    assert message in fault_of(tmp_path, tiny() | change)


def test_nan_in_the_file_is_refused(tmp_path):
    value = tiny()
    value["annotations"][0]["bbox"][0] = float("nan")
    assert "holds NaN, which is not JSON" in fault_of(tmp_path, value)


HOSTILE = (
    None, True, False, 0, 1, -1, 2, 1.5, 1e300, 10**400, 2**63, "", ".", "..", "/", "\0", "x", "ä", "o" * 50, "1" * 9,
    [], [[]], [None], [1, 2, 3, 4], [0] * 8, [[0, 0, 9, 9, 9, 0]], {}, {"size": [40, 30], "counts": "0"}, {"id": 1},
    {"native_size_hw": [40, 30], "steps": [["flip"]]},
)  # fmt: skip


def mutate(value: Any, draw: random.Random) -> Any:
    """Replace, remove, add or double one thing anywhere in a JSON value, in place."""
    places = []

    def walk(item: Any) -> None:
        keys = list(item) if isinstance(item, dict) else list(range(len(item))) if isinstance(item, list) else []
        for key in keys:
            places.append((item, key))
            walk(item[key])

    walk(value)
    holder, key = draw.choice(places)
    action = draw.choice(["replace", "replace", "replace", "remove", "double", "shake"])
    if action == "remove":
        del holder[key]
    elif action == "double" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    elif action == "shake" and isinstance(holder[key], str) and holder[key]:
        text = list(holder[key])
        text[draw.randrange(len(text))] = chr(draw.choice([draw.randrange(32, 127), 0, 0xE4]))
        holder[key] = "".join(text)
    elif action == "shake" and isinstance(holder[key], int | float) and abs(holder[key]) < 1e9:
        holder[key] += draw.choice([-1, 1, 1000, 0.5, -1e6])
    else:
        holder[key] = copy.deepcopy(draw.choice(HOSTILE))
    return value


def test_damaged_files_raise_input_errors_only(tmp_path):
    draw = random.Random(0)
    valid = to_json(full_dataset())
    valid["annotations"].append(valid["annotations"][0] | {"id": 4, "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]]})
    valid["annotations"].append(
        valid["annotations"][0] | {"id": 5, "segmentation": {"size": [40, 30], "counts": [202, 2, 996]}}
    )
    refused = 0
    for _ in range(800):
        value = copy.deepcopy(valid)
        for _ in range(draw.choice([1, 1, 2, 5])):
            value = mutate(value, draw)
        for skip_invalid in (False, True):
            try:
                dataset = read(tmp_path, value, skip_invalid=skip_invalid)
            except InputError:
                refused += not skip_invalid
                continue
            # What was let in can be used: masks decode, hashes and files are made.
            for image in dataset.images:
                for lesion in image.lesions:
                    assert lesion.rle is None or rle_to_mask(lesion.rle).shape == image.size_hw
            data_hash(dataset)
            write_coco(dataset, tmp_path / "again.json")
            assert read_coco(tmp_path / "again.json").images == dataset.images
    assert 300 < refused < 800


def test_damaged_bytes_raise_input_errors_only(tmp_path):
    draw = random.Random(1)
    content = json.dumps(to_json(full_dataset())).encode()
    path = tmp_path / "train.json"
    refused = 0
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(draw.choice([1, 3])):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        path.write_bytes(bytes(changed[: draw.choice([len(changed), draw.randrange(len(changed))])]))
        try:
            read_coco(path)
        except InputError:
            refused += 1
    assert refused > 100
