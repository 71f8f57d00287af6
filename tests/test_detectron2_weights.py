"""Where detectron2's networks take their first weights from."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL_DETECTRON2
from torch import Tensor

from mammodet.config import load_config
from mammodet.errors import InputError
from mammodet.modeling.build import build_model
from mammodet.modeling.mammo_rcnn import MammoRCNN

pytestmark = pytest.mark.detectron2
ZOO = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"
FPN = "backbone.fpn_output3.weight"
CONV1 = "backbone.bottom_up.stem.conv1.weight"


def small(*overrides: str, categories: int = 1, seed: int = 0) -> MammoRCNN:
    torch.manual_seed(seed)
    model = build_model(load_config(None, (*SMALL_DETECTRON2, *overrides)), categories)
    assert isinstance(model, MammoRCNN)
    return model


def inner(model: MammoRCNN) -> dict[str, Tensor]:
    return model.detector.model.state_dict()


@pytest.fixture
def zoo_state() -> dict[str, np.ndarray]:
    """What the zoo would hold of this network: colour, and 80 categories."""
    model = small("data.image.channels=[full, tissue, clahe]", categories=80, seed=5)
    return {name: tensor.numpy() for name, tensor in inner(model).items()}


def write_pkl(path: Path, state: dict[str, Any], **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        pickle.dump({"model": state, "__author__": "Detectron2 Model Zoo", **more}, file)
    return path


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """detectron2's download cache, of this test alone; nothing else can be downloaded."""
    from detectron2.utils.file_io import PathManager

    def local(address: str, **_: Any) -> str:
        path = tmp_path / "zoo" / address.split("detectron2/")[-1].split("://")[-1]
        if not path.exists():
            raise OSError("Name or service not known")
        return str(path)

    monkeypatch.setattr(PathManager, "get_local_path", local)
    return tmp_path / "zoo"


@pytest.mark.parametrize("weights", ["coco", ZOO, f"detectron2://{ZOO[:-5]}/137849600/model_final_f10217.pkl", "file"])
def test_zoo_weights_by_name_address_and_path(
    weights: str, zoo: Path, zoo_state: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_pkl(zoo / ZOO[:-5] / "137849600" / "model_final_f10217.pkl", zoo_state)
    found = inner(small(f"model.weights={path if weights == 'file' else weights}"))
    assert np.array_equal(found[FPN].numpy(), zoo_state[FPN])
    # Colour is summed: a grey image answers as it did.
    np.testing.assert_allclose(found[CONV1].numpy()[:, 0], zoo_state[CONV1].sum(axis=1), rtol=1e-5, atol=1e-6)
    printed = capsys.readouterr().out
    assert "roi_heads.box_predictor.cls_score.weight (81, 32) for (2, 32)" in printed
    assert f"took {len(zoo_state) - 6} of {len(zoo_state)} tensors" in printed  # all but three layers of classes


def test_imagenet_weights_are_those_that_the_config_names(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernels = np.random.default_rng(0).normal(size=(64, 3, 7, 7)).astype(np.float32)
    scale = np.arange(64, dtype=np.float32)
    path = zoo / "ImageNetPretrained" / "MSRA" / "R-50.pkl"
    path.parent.mkdir(parents=True)
    # Caffe2's names, as the real file has them.
    with open(path, "wb") as file:
        pickle.dump({"conv1_w": kernels, "res_conv1_bn_s": scale, "res_conv1_bn_b": scale + 1}, file)
    with pytest.raises(InputError, match=r"R-50\.pkl: was trained with batch norm and would be lost under .*GN"):
        small("model.weights=imagenet")
    opts = next(each for each in SMALL_DETECTRON2 if "opts" in each)
    opts = opts.replace("RESNETS.NORM, GN", "RESNETS.NORM, FrozenBN").replace("FPN.NORM, GN", "FPN.NORM, ''")
    found = inner(small(opts, "model.weights=imagenet"))
    np.testing.assert_allclose(found[CONV1].numpy()[:, 0], kernels.sum(axis=1), rtol=1e-5, atol=1e-5)
    assert found["backbone.bottom_up.stem.conv1.norm.weight"].tolist() == scale.tolist()
    assert found["backbone.bottom_up.stem.conv1.norm.bias"].tolist() == (scale + 1).tolist()
    assert "detectron2://ImageNetPretrained/MSRA/R-50.pkl: took 5 of" in capsys.readouterr().out


def test_weights_that_cannot_be_downloaded_name_the_two_ways_on(zoo: Path) -> None:
    with pytest.raises(InputError) as caught:
        small("model.weights=coco")
    text = str(caught.value)
    assert "model_final_f10217.pkl: could not be downloaded (Name or service not known)" in text
    assert "model.weights=PATH" in text
    assert "model.weights=none" in text


def test_config_without_zoo_weights_is_refused(tmp_path: Path) -> None:
    from detectron2 import model_zoo

    own = tmp_path / "mine.yaml"
    own.write_text(f"_BASE_: {model_zoo.get_config_file(ZOO)}\nMODEL: {{WEIGHTS: my.pkl}}\n")
    with pytest.raises(InputError, match=r"model zoo has no weights for .*mine\.yaml; give the zoo name"):
        small(f"model.detectron2.config={own}", "model.weights=coco")
    with pytest.raises(InputError, match=r"the detectron2 config names my\.pkl, which are not ImageNet's"):
        small(f"model.detectron2.config={own}", "model.weights=imagenet")
    with pytest.raises(InputError, match="model zoo has no weights for COCO/nothing"):
        small("model.weights=COCO/nothing.yaml")


def test_checkpoint_of_ours_starts_a_detector_with_its_image_head(tmp_path: Path) -> None:
    first = small(seed=1)
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in first.state_dict().items()}}, tmp_path / "a")
    second = small(f"model.weights={tmp_path / 'a'}", seed=2)
    for name, tensor in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), name


def test_weights_trained_with_batch_norm_are_refused_by_group_norm(tmp_path: Path) -> None:
    opts = next(each for each in SMALL_DETECTRON2 if "opts" in each).replace("RESNETS.NORM, GN", "RESNETS.NORM, BN")
    write_pkl(tmp_path / "bn.pkl", {name: tensor.numpy() for name, tensor in inner(small(opts)).items()})
    with pytest.raises(InputError, match=r"bn\.pkl: was trained with batch norm and would be lost"):
        small(f"model.weights={tmp_path / 'bn.pkl'}")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = {name: tensor.numpy().copy() for name, tensor in inner(small()).items()}
    state[FPN][0] = np.nan
    with pytest.raises(InputError, match=f"1 tensors hold NaN or infinity, for instance {FPN}"):
        small(f"model.weights={write_pkl(tmp_path / 'nan.pkl', state)}")


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    write_pkl(tmp_path / "a.pkl", {"something.weight": np.zeros(3, np.float32)})
    with pytest.raises(InputError, match=r"a\.pkl"):
        small(f"model.weights={tmp_path / 'a.pkl'}")
    with pytest.raises(InputError, match="no such"):
        small(f"model.weights={tmp_path / 'b.pkl'}")
