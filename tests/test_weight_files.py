"""Weight files of all kinds are read, and none of them runs code."""

from __future__ import annotations

import argparse
import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_weights import fill, resnet_state, torchvision_state
from torch import Tensor, nn

from mammodet.errors import InputError
from mammodet.modeling.weight_files import layout_of, read_weights

STEM = "backbone.bottom_up.stem.conv1.weight"


def write(path: Path, value: Any, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def bomb(name: str, argument: str) -> type:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return {"system": os.system, "eval": eval, "exec": exec}[name], (argument,)

    return Bomb


@pytest.mark.parametrize("protocol", range(6))
def test_zoo_pickle_gives_its_arrays_at_any_protocol(tmp_path: Path, protocol: int) -> None:
    arrays = {
        STEM: np.arange(6, dtype=np.float32).reshape(2, 3),
        "column": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        "big": np.array([1, 2, 3], dtype=">i4"),
        "turned": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
        "empty": np.zeros((0, 4), np.float32),
        "one": np.array(7.0),
    }
    content = {"model": arrays, "__author__": "Detectron2 Model Zoo", "number": np.float32(3), "text": "a"}
    found = read_weights(write(tmp_path / "model final ä.pkl", content, protocol))
    assert found.layout == "detectron2"
    assert (found.config, found.are_ends) == ({}, False)
    for name, array in arrays.items():
        assert np.array_equal(found.state[name].numpy(), array), name
    found.state[STEM].mul_(2)  # its own memory, and writable


#: What Python 2 and numpy 1 wrote for {"res2_0_branch2a_w": array([1., -2.], float32)}: protocol 2, bytes as text.
PYTHON_2 = (
    b"\x80\x02}q\x00U\x11res2_0_branch2a_wq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00"
    b"\x85q\x04U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x02\x85q\x08cnumpy\ndtype\nq\tU\x02f4q\nK\x00K\x01\x87q\x0bRq\x0c(K\x03"
    b"U\x01<q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89U\x08\x00\x00\x80?\x00\x00\x00\xc0q\x0ftq\x10bs."
)


def test_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    path = tmp_path / "R-50.pkl"
    path.write_bytes(PYTHON_2)
    found = read_weights(path)
    assert found.state["res2_0_branch2a_w"].tolist() == [1.0, -2.0]
    assert found.layout == "caffe2"
    assert found.are_ends


def test_caffe2_momenta_are_left_out(tmp_path: Path) -> None:
    blobs = {"conv1_w": np.ones(2), "conv1_w_momentum": np.zeros(2)}
    for number, content in enumerate((blobs, {"blobs": blobs, "cfg": "MODEL: ..."})):
        found = read_weights(write(tmp_path / f"{number}.pkl", content))
        assert list(found.state) == ["conv1_w"]
        assert found.layout == "caffe2"


def test_pickled_tensors_are_read(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    content = OrderedDict(a=base, turned=base.T, part=base[:, 1], half=base.half(), weight=nn.Parameter(base))
    found = read_weights(write(tmp_path / "tensors.pkl", content)).state
    assert all(torch.equal(found[name], tensor) for name, tensor in content.items())
    assert not found["weight"].requires_grad


def test_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "was here"
    evil = bomb("system", f"touch '{trace}'")()
    for protocol in range(6):
        for name in ("evil.pkl", "evil.pth", "evil.pyth"):
            path = write(tmp_path / name, {"model": {"a": np.ones(2)}, "x": evil}, protocol)
            text = "cannot be read" if protocol < 2 and name != "evil.pkl" else r"names (posix|nt)\.system"
            with pytest.raises(InputError, match=text):
                read_weights(path)
    torch.save({"model": {"a": torch.ones(2)}, "x": evil}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="holds more than weights"):
        read_weights(tmp_path / "evil.pth")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["eval", "exec"])
def test_pickle_that_evaluates_text_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "evil.pkl", {"a": bomb(name, "open('x', 'w')")()})
    with pytest.raises(InputError, match=rf"names __builtin__\.{name}, and reading it would run that code"):
        read_weights(path)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy", "load"), ("numpy.core.multiarray", "fromfile"), ("numpy", "ndarray.tofile"), ("torch", "load"),
        ("torch._utils", "_rebuild_wrapper_subclass"), ("collections", "deque"), ("builtins", "getattr"),
        ("_codecs", "decode"), ("numpy._core.multiarray", "set_string_function"), ("copyreg", "_reconstructor"),
    ],
)  # fmt: skip
def test_pickle_may_name_nothing_but_array_constructors(tmp_path: Path, module: str, name: str) -> None:
    path = tmp_path / "other.pkl"
    path.write_bytes(b"\x80\x02c" + f"{module}\n{name}\n".encode() + b".")
    with pytest.raises(InputError, match=re.escape(f"is a pickle that names {module}.{name}, and")):
        read_weights(path)


def test_pickle_cannot_change_the_constructors_for_the_next(tmp_path: Path) -> None:
    """BUILD sets attributes of whatever lies on the stack, functions included."""
    text = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nN}X\x0c\x00\x00\x00__defaults__)s\x86b."
    (tmp_path / "a.pkl").write_bytes(text)
    with pytest.raises(InputError, match=r"holds no weights|cannot be read"):
        read_weights(tmp_path / "a.pkl")
    assert read_weights(write(tmp_path / "b.pkl", {"a": np.ones(2)})).state["a"].tolist() == [1, 1]


def test_nested_storage_is_loaded_as_weights_only(tmp_path: Path) -> None:
    """A pickled tensor carries a torch file inside, which could carry anything."""
    import io

    trace = tmp_path / "was here"
    inside = io.BytesIO()
    torch.save(bomb("system", f"touch '{trace}'")(), inside, _use_new_zipfile_serialization=False)

    class Storage:
        def __reduce__(self) -> tuple[Any, tuple[bytes]]:
            return torch.storage._load_from_bytes, (inside.getvalue(),)

    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        read_weights(write(tmp_path / "nested.pkl", {"a": Storage()}))
    assert not trace.exists()


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([{}], object), np.zeros(1, [("x", "f4")])])
def test_arrays_of_other_things_than_numbers_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(InputError, match="holds more than weights"):
        read_weights(write(tmp_path / "odd.pkl", {"a": array}))


def test_files_cut_short_empty_or_missing_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.pkl", {"a": np.ones(1000)})
    path.write_bytes(path.read_bytes()[:600])
    (tmp_path / "empty.pkl").write_bytes(b"")
    write(tmp_path / "none.pkl", {"epoch": 3})
    for name, text in (
        ("cut.pkl", "cut short"), ("empty.pkl", "cut short"), ("none.pkl", "holds no weights"),
        ("missing.pkl", "no such checkpoint"), (".", "is a folder"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=text):
            read_weights(tmp_path / name)


def test_torch_file_is_known_by_its_content(tmp_path: Path) -> None:
    for number, zipped in enumerate((True, False)):
        path = tmp_path / f"{number}.pkl"
        torch.save({"model_state": {"a": torch.ones(2)}}, path, _use_new_zipfile_serialization=zipped)
        assert read_weights(path).state["a"].tolist() == [1, 1]


def test_checkpoint_of_torchvisions_training_script_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model_25.pth"
    torch.save({"model": torchvision_state(), "args": argparse.Namespace(lr=0.02, path="x"), "epoch": 25}, path)
    assert read_weights(path).layout == "torchvision"


def test_weights_come_with_what_their_file_says(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": {"stem.conv1.weight": torch.ones(1)}, "matching_heuristics": True}, path)
    assert (read_weights(path).config, read_weights(path).are_ends) == ({}, True)
    torch.save(
        {"state_dict": {"model.network.body.conv1.weight": torch.ones(1)}, "mammodet": {"config": {"seed": 1}}}, path
    )
    found = read_weights(path)
    assert (found.layout, found.config, found.are_ends) == ("mammodet", {"seed": 1}, False)
    assert list(found.state) == ["network.body.conv1.weight"]


def test_weights_of_the_converter_that_is_gone_are_refused(tmp_path: Path) -> None:
    """Only their header told where their strides are."""
    torch.save({"model": torchvision_state(), "mammodet_weights": {"stride_in_1x1": True}}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth: .*convert-weights.* give its source"):
        read_weights(tmp_path / "a.pth")


def states() -> dict[str, dict[str, Tensor]]:
    state = torchvision_state()
    return {
        "torchvision": state,
        "torchvision resnet": resnet_state("resnet18"),
        "detectron2": {STEM: torch.ones(1), "backbone.fpn_lateral2.bias": torch.ones(1)},
        "detectron2 resnet": {"stem.conv1.weight": torch.ones(1), "res2.0.conv1.norm.bias": torch.ones(1)},
        "caffe2": {"conv1_w": torch.ones(1), "res_conv1_bn_s": torch.ones(1)},
        "mammodet": {f"detector.model.{name}": tensor for name, tensor in state.items()},
        "unknown": {"encoder.weight": torch.ones(1), "roi_heads.box_predictor.cls_score.weight": torch.ones(1)},
    }


@pytest.mark.parametrize("kind", ["torchvision", "torchvision resnet", "detectron2", "detectron2 resnet", "caffe2",
                                  "mammodet", "unknown"])  # fmt: skip
def test_layout_is_told_by_names(kind: str) -> None:
    assert layout_of(states()[kind]) == kind.split()[0]


@pytest.mark.detectron2
def test_checkpoint_of_detectron2s_own_checkpointer_is_read(tmp_path: Path) -> None:
    """With optimiser, scheduler and hooks, as DefaultTrainer saves them."""
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.engine import SimpleTrainer, hooks
    from detectron2.solver import LRMultiplier
    from fvcore.common.param_scheduler import MultiStepParamScheduler

    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.bottom_up = nn.Module()
    model.backbone.bottom_up.stem = nn.Conv2d(1, 2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = LRMultiplier(optimizer, MultiStepParamScheduler([1, 0.1], milestones=[2], num_updates=4), max_iter=4)
    trainer = SimpleTrainer(model, [1], optimizer)
    trainer.iter = 0
    trainer.register_hooks([hooks.LRScheduler(optimizer, scheduler)])
    checkpointer = DetectionCheckpointer(model, str(tmp_path), trainer=trainer, optimizer=optimizer)
    checkpointer.save("model_final", iteration=3, scheduler=scheduler.state_dict())
    found = read_weights(tmp_path / "model_final.pth")
    assert found.layout == "detectron2"
    assert torch.equal(found.state["backbone.bottom_up.stem.weight"], model.backbone.bottom_up.stem.weight)


def test_fill_of_these_tests_keeps_names() -> None:
    assert list(fill({"a.running_var": torch.zeros(30), "b": torch.zeros(2, 40)})) == ["a.running_var", "b"]
