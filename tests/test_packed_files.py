"""Safetensors files: what half precision keeps, a round trip, plain weights, and every way to be damaged."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import pytest
import timm
import torch
from conftest import SMALL
from safetensors.torch import save_file
from small_weights import resnet_state, torchvision_state

from mammodet.config import load_config
from mammodet.errors import InputError
from mammodet.modeling.build import build_model
from mammodet.modeling.packed_files import FORMAT, Parts, read_parts, read_state, to_half, write_packed
from mammodet.modeling.weight_files import KEY, read_torch, read_weights

FACTS = {"format": "x", "patients": ["P_ä", "P_2"]}


def encoded(value: object) -> str:
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


@pytest.mark.parametrize(
    ("tensor", "halved"),
    [
        (torch.tensor([[1.0, -0.3], [1e-9, 0.0]]), True),
        (torch.tensor([[1.0, 70000.0]]), False),  # half ends at 65504
        (torch.tensor([[1e-9, 2e-9]]), False),  # half begins at 6e-8
        (torch.tensor([[1e-6, 2e-6]]), False),  # a few bits are left
        (torch.tensor([1.0, 2.0]), False),  # a bias, or a variance
        (torch.tensor(3), False),
        (torch.tensor([[1, 2]]), False),
        (torch.zeros(0, 3), True),
    ],
)
def test_half_precision_takes_what_it_keeps(tensor: torch.Tensor, halved: bool) -> None:
    found = to_half(tensor)
    assert found.dtype == (torch.float16 if halved else tensor.dtype)
    if halved and tensor.numel():
        assert (found.float() - tensor).abs().max() <= 2**-11 * tensor.abs().max()


def test_packed_file_gives_back_tensors_and_parts(tmp_path: Path) -> None:
    numbers = torch.arange(6.0).reshape(2, 3)
    state = {"a": numbers, "same": numbers, "turned": numbers.T, "half": numbers.half(), "count": torch.tensor(7)}
    size = write_packed(tmp_path / "m.bin", state, Parts(FACTS, card={"title": "ü"}))
    assert size == (tmp_path / "m.bin").stat().st_size
    assert read_parts(tmp_path / "m.bin") == Parts(FACTS, None, {"title": "ü"})
    found = read_state(tmp_path / "m.bin")
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor.float() if name == "half" else tensor)
    assert found["half"].dtype == torch.float32
    assert read_torch(tmp_path / "m.bin")[KEY] == FACTS
    assert b"P_2" not in (tmp_path / "m.bin").read_bytes()  # compressed


def test_larger_file_than_asked_for_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_text("old")
    with pytest.raises(InputError, match="more than --max-bytes 100"):
        write_packed(path, {"a": torch.zeros(100)}, Parts(FACTS), 100)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": "mammodet-model/2", "facts": encoded(FACTS)}, "format is 'mammodet-model/2'; this version of"),
        ({"format": FORMAT}, "'facts' are missing"),
        ({"format": FORMAT, "facts": encoded(FACTS), "extra": "1", "more": "2"}, "2 faults(.|\n)*'extra'(.|\n)*'more'"),
        ({"format": FORMAT, "facts": "?"}, "facts are damaged"),
        ({"format": FORMAT, "facts": base64.b64encode(b"none").decode()}, "facts are damaged"),
        ({"format": FORMAT, "facts": encoded(FACTS)[:24]}, "facts are (damaged|cut short)"),
        ({"format": FORMAT, "facts": encoded([1])}, "facts: holds a list; expected an object"),
        ({"format": FORMAT, "facts": '{"a": NaN}'}, "facts: holds NaN"),
        ({"format": FORMAT, "facts": encoded({"a": "x" * 2**26})}, "unpack to more than 67108864 bytes"),
        ({"format": FORMAT, "facts": '{"a":' + "[" * 100_000}, "facts: is nested too deep"),
    ],
)
def test_damaged_header_is_refused_in_words(metadata: dict[str, str], message: str, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata)
    with pytest.raises(InputError, match=message):
        read_torch(tmp_path / "m.safetensors")


def test_file_that_is_cut_short_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    write_packed(tmp_path / "whole", {"a": torch.zeros(2, 3), "b": torch.ones(4)}, Parts(FACTS))
    content = (tmp_path / "whole").read_bytes()
    for end in range(0, len(content), 7):
        (tmp_path / "cut").write_bytes(content[:end])
        with pytest.raises(InputError, match="cut short"):
            read_torch(tmp_path / "cut")


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ((2**31).to_bytes(8, "little") + b"{", "its header names 2147483648 bytes"),
        ((20).to_bytes(8, "little") + b'{"a":{"dtype":"F32",', "cut short or damaged"),
        (
            (63).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[9999999],"data_offsets":[0,39999996]}}',
            "cut short or damaged",
        ),
    ],
)
def test_header_that_promises_more_than_the_file_holds_is_refused(start: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(start)
    with pytest.raises(InputError, match=message):
        read_weights(tmp_path / "m.safetensors")


@pytest.mark.parametrize("half", [False, True])
def test_plain_safetensors_are_read_as_torch_files_are(half: bool, tmp_path: Path) -> None:
    for state, layout in ((torchvision_state(), "torchvision"), (resnet_state(), "torchvision")):
        given = {name: tensor.half() if half else tensor for name, tensor in state.items()}
        save_file(given, tmp_path / "weights.pth", {"format": "pt"})  # told by its content, not by its name
        found = read_weights(tmp_path / "weights.pth")
        assert found.layout == layout
        assert found.config == {}
        assert found.state.keys() == state.keys()
        assert all(torch.equal(found.state[name], tensor.float()) for name, tensor in given.items())


def test_timm_weights_start_a_detector(tmp_path: Path) -> None:
    name = "mobilenetv3_small_050"
    weights = timm.create_model(name).state_dict()
    save_file(weights, tmp_path / "timm.safetensors")
    backbone = (f"model.detector.backbone.name=timm/{name}", "model.detector.backbone.norm=BN")
    config = load_config(None, (*SMALL, *backbone, f"model.weights={tmp_path}/timm.safetensors"))
    body = "detector.model.backbone.body."
    found = {key: tensor for key, tensor in build_model(config, 1).state_dict().items() if key.startswith(body)}
    assert len(found) > 100
    first = found.pop(f"{body}conv_stem.weight")  # its three colours are one grey here
    assert torch.allclose(first.sum(dim=1), weights["conv_stem.weight"].sum(dim=1), atol=1e-6)
    assert all(torch.equal(tensor, weights[key.removeprefix(body)]) for key, tensor in found.items())
