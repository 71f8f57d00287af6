"""Small weight files that would fill the memory: refused before they are read, and plain ones are not."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from mammodet.engine.checkpoint import RunFacts, read_facts, save_torch
from mammodet.errors import InputError
from mammodet.modeling.weight_files import KEY, read_weights

STATE = {"layer1.0.conv1.weight": torch.arange(36.0).reshape(2, 2, 3, 3)}


def refusal(path):
    with pytest.raises(InputError) as error:
        read_weights(path)
    assert "Traceback" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("new", [True, False])
def test_plain_torch_files_are_read(tmp_path, new):
    torch.save(STATE, tmp_path / "w.pth", _use_new_zipfile_serialization=new)
    assert torch.equal(read_weights(tmp_path / "w.pth").state["layer1.0.conv1.weight"], STATE["layer1.0.conv1.weight"])


def odd(kind):
    value = torch.ones(4, 4)
    return {
        "stride 0": lambda: torch.as_strided(value, (10**6, 10**6), (0, 0)),
        "meta": lambda: torch.empty(4, device="meta"),
        "sparse": lambda: value.to_sparse(),
        "quantized": lambda: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
        "float8": lambda: value.to(torch.float8_e4m3fn),
        "complex": lambda: value.to(torch.complex64),
    }[kind]()


@pytest.mark.parametrize("kind", ["stride 0", "meta", "sparse", "quantized", "float8", "complex"])
def test_tensors_that_are_no_plain_arrays_are_refused(tmp_path, kind):
    torch.save({"layer1.0.conv1.weight": odd(kind)}, tmp_path / "w.pth")
    assert "the tensor 'layer1.0.conv1.weight' is no plain array of numbers" in refusal(tmp_path / "w.pth")


def test_arrays_of_types_that_torch_lacks_are_refused(tmp_path):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"conv1_w": np.ones(3, dtype=np.longdouble)}))
    assert "which torch does not know" in refusal(tmp_path / "w.pkl")


def test_compressed_archives_are_refused(tmp_path):
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "w.pth", "w", 8) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    assert "is a compressed archive" in refusal(tmp_path / "w.pth")


MEMO = b"\x80\x02}r" + struct.pack("<I", 2**29) + b"."
LENGTH = b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"abc"


@pytest.mark.parametrize("content", [MEMO, LENGTH, b"\x80\x02", b"\x80\x04\x95" + b"\xff" * 8 + b"."])
def test_pickles_that_name_more_than_they_hold_are_refused(tmp_path, content):
    (tmp_path / "w.pkl").write_bytes(content)
    assert "w.pkl" in refusal(tmp_path / "w.pkl")
    torch.save(STATE, tmp_path / "plain.pth")
    buffer = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(buffer, "w") as changed:
        for entry in plain.infolist():
            changed.writestr(entry.filename, content if entry.filename.endswith("data.pkl") else plain.read(entry))
    (tmp_path / "w.pth").write_bytes(buffer.getvalue())
    assert "w.pth" in refusal(tmp_path / "w.pth")


def test_facts_whose_lists_stand_in_many_places_are_refused(tmp_path):
    laughs = ["ha"] * 10
    for _ in range(9):
        laughs = [laughs] * 10
    facts = RunFacts({}, ("lesion",), "f" * 64, None).to_json()
    save_torch({"state_dict": STATE, KEY: {**facts, "patients": laughs}}, tmp_path / "w.ckpt")
    with pytest.raises(InputError, match="holds more than 5000000 values"):
        read_facts(tmp_path / "w.ckpt")


@pytest.mark.parametrize(
    "change",
    [
        {"fitted_on": {"tumor": [3]}},
        {"scale": [0.0]},
        {"centre": []},
        {"centre": [float("nan")]},
        {"weights": {"tumor": [[1.0, 2.0], 0.0]}},
        {"weights": {"tumor": [[1.0], float("inf")]}},
        {"weights": None},
    ],
)
def test_a_damaged_aggregation_is_refused_when_it_is_read(tmp_path, change):
    stack = {"features": ["a"], "centre": [0.0], "scale": [1.0], "weights": {"tumor": [[1.0], 0.0]}}
    facts = RunFacts({}, ("lesion",), "f" * 64, None).to_json()
    facts["stack"] = {**stack, "fitted_on": {"tumor": [3, 4]}}
    save_torch({"state_dict": STATE, KEY: facts}, tmp_path / "whole.ckpt")
    assert read_facts(tmp_path / "whole.ckpt")[1].to_json()["stack"] == facts["stack"]
    facts["stack"] = {**facts["stack"], **change}
    save_torch({"state_dict": STATE, KEY: facts}, tmp_path / "w.ckpt")
    with pytest.raises(InputError, match="its facts are damaged"):
        read_facts(tmp_path / "w.ckpt")
