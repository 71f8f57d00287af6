"""Damaged configs, weights and data sets: each is read or refused with an InputError, whatever it contains."""

from __future__ import annotations

import copy
import json
import pickle
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_cases import dataset, image, lesion

from mammodet.config import load_config
from mammodet.data.coco import from_json, to_json
from mammodet.errors import InputError
from mammodet.modeling.weight_files import read_weights

CONFIGS = Path(__file__).parent.parent / "configs"
TOKENS = (
    *(
        "&a",
        "*a",
        "!!python/object:os.system",
        "!!binary",
        "!!int",
        "!!set",
        "<<: *a",
        "? [1, 2]",
        "[[",
        "}",
        "- -",
        "|",
    ),
    *(
        "1" * 5000,
        "1e999",
        ".nan",
        "-.inf",
        "2026-13-01",
        "0o7",
        "null",
        "~",
        "yes",
        "'",
        '"',
        "\t",
        "\x00",
        "\ud7ff",
        ":",
    ),
)
HOSTILE = (
    *(None, True, False, 0, -1, 0.5, 1.0, 1e308, 10**400, 2**63, "", "1", "\x00", "../x", "a:b", "L"),
    *([], [[]], [None], {}, {"a": 1}, [1, 2, 3, 4], [10**400] * 4),
)


def tally(read, copies) -> Counter[str]:
    """How many of the copies were read, and how many refused; any other error fails the test."""
    counts: Counter[str] = Counter()
    for one in copies:
        try:
            read(one)
            counts["read"] += 1
        except InputError:
            counts["refused"] += 1
    return counts


def test_damaged_configs_give_only_input_errors(tmp_path):
    rng = random.Random(0)
    text = (CONFIGS / "base.yaml").read_text(encoding="utf-8")
    path = tmp_path / "config.yaml"

    def copies():
        for _ in range(400):
            lines = text.splitlines()
            for _ in range(rng.choice([1, 2, 3])):
                row = rng.randrange(len(lines))
                at = rng.randrange(len(lines[row]) + 1)
                lines[row] = lines[row][:at] + rng.choice(TOKENS) + lines[row][at + rng.choice([0, 1, 5]) :]
            yield "\n".join(lines)

    def read(damaged):
        path.write_text(damaged, encoding="utf-8")
        load_config(path)

    assert min(tally(read, copies()).values()) >= 10


STATE = {f"layer1.0.conv{number}.weight": torch.arange(16.0).reshape(2, 2, 2, 2) for number in (1, 2)}


@pytest.mark.parametrize("kind", ["zip", "old", "pickle", "safetensors"])
def test_damaged_weights_give_only_input_errors(tmp_path, kind):
    rng = random.Random(kind)
    path = tmp_path / "w.pth"
    if kind == "safetensors":
        save_file(STATE, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({name: tensor.numpy() for name, tensor in STATE.items()}, protocol=2))
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()

    def copies():
        yield whole
        for _ in range(300):
            damaged = bytearray(whole)
            for _ in range(rng.choice([1, 1, 3])):
                at = rng.randrange(min(len(whole), 2000))
                damaged[at : at + rng.choice([1, 4])] = rng.choice([b"\xff", b"\0", b"\xff\xff\xff\x7f", b"r", b"."])
            yield bytes(damaged[: rng.choice([len(damaged), len(damaged), rng.randrange(len(damaged))])])

    def read(damaged):
        path.write_bytes(damaged)
        for tensor in read_weights(path).state.values():
            assert np.isfinite(tensor.numel())

    counts = tally(read, copies())
    assert counts["read"] >= 1
    assert counts["refused"] >= 50


@pytest.mark.parametrize("key", ["id", "image_id", "category_id", "file_name", "height", "patient_id", "bbox", "name"])
def test_ids_of_every_type_give_only_input_errors(key):
    value = to_json(dataset(image(1, lesion((10, 10, 30, 30)), patient_id="p"), image(2)))

    def copies():
        for part in ("images", "annotations", "categories"):
            for hostile in HOSTILE:
                damaged = copy.deepcopy(value)
                damaged[part][0][key] = hostile
                yield json.loads(json.dumps(damaged))

    tally(lambda damaged: from_json(damaged, where="data.json"), copies())
