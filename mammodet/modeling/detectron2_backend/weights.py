"""Start a detectron2 network from its model zoo, from a file, or from torchvision's weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mammodet.config import DetectorModelConfig
from mammodet.errors import InputError
from mammodet.modeling.detectron2_backend.config import named_weights
from mammodet.modeling.detectron2_backend.detector import Detectron2Detector
from mammodet.modeling.mammo_rcnn import MammoRCNN
from mammodet.modeling.weights import detectron2_state, load_matching
from mammodet.models import model_path

#: Before the names of a checkpoint of ours.
_OWN = "detector.model."


def start_detectron2(model: MammoRCNN, config: DetectorModelConfig) -> None:
    """Give a new model the weights that `model.weights` names; say what was taken.

    Raises InputError: weights that are unknown, cannot be had, or do not fit; none at all for a network that is frozen.
    """
    detector = model.detector
    assert isinstance(detector, Detectron2Detector)
    if config.weights == "none":
        _refuse_frozen(detector.model)
        return
    path, name = _find(config)
    network: Any = detector.model
    std = float(network.pixel_std.flatten()[0])
    state = detectron2_state(path, network.state_dict(), stride_in_1x1=_has_stride_in_1x1(network), pixel_std=std)
    _refuse_batch_norm(network, state, name)
    own = any(key.startswith("detector.") for key in state)
    module: nn.Module = model if own else network
    report = load_matching(module, _fit_input(state, module.state_dict()))
    if not report.loaded:
        raise InputError(f"{name}: none of its {len(state)} tensors fits this network; {report.to_text()}")
    print(f"{name}: {report.to_text()}")


def _refuse_batch_norm(network: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Scales that were learnt with batch statistics mean nothing to a group norm, whose names are the same."""
    groups = [key for key, part in network.named_modules() if isinstance(part, nn.GroupNorm)]
    lost = [key for key in groups if any(f"{prefix}{key}.running_mean" in state for prefix in ("", _OWN))]
    if lost or (groups and name.startswith("detectron2://ImageNetPretrained/MSRA/")):
        raise InputError(
            f"{name}: was trained with batch norm and would be lost under the network's GN ({len(groups)} layers); "
            "leave MODEL.RESNETS.NORM at FrozenBN in model.detectron2.opts, or choose weights that were trained with GN"
        )


def _has_stride_in_1x1(network: nn.Module) -> bool:
    """Where the bottlenecks of a ResNet have their stride; False where there are none."""
    from detectron2.modeling.backbone.resnet import BottleneckBlock

    blocks = [block for block in network.modules() if isinstance(block, BottleneckBlock)]
    return any(block.conv1.stride == (2, 2) for block in blocks)


def _refuse_frozen(network: nn.Module) -> None:
    """Random weights that never learn are a mistake."""
    from detectron2.layers import FrozenBatchNorm2d

    norms = sum(isinstance(part, FrozenBatchNorm2d) for part in network.modules())
    frozen = sum(not parameter.requires_grad for parameter in network.parameters())
    if norms or frozen:
        raise InputError(
            f"model.weights=none, but the config freezes {norms} batch norms and {frozen} other tensors, which would "
            "stay at random. Choose model.weights=coco (the zoo's), imagenet (those its config names) or a file; or, "
            "to learn from nothing, set in model.detectron2.opts MODEL.RESNETS.NORM GN, MODEL.FPN.NORM GN and "
            "MODEL.BACKBONE.FREEZE_AT 0 (or the same in a LazyConfig)"
        )


def _find(config: DetectorModelConfig) -> tuple[Path, str]:
    """The local file of `model.weights`, downloaded where it is an address, and its name for the screen."""
    from detectron2 import model_zoo

    settings, weights = config.detectron2, config.weights
    address = weights
    if weights == "imagenet":
        address = named_weights(settings)
        if "ImageNetPretrained" not in address:
            raise InputError(
                f"model.weights=imagenet: the detectron2 config names {address or 'no weights'}, which are not "
                "ImageNet's; give them as model.weights=PATH, or choose coco or none"
            )
    elif weights == "coco" or (weights.endswith((".yaml", ".py")) and not Path(weights).exists()):
        name = str(settings.config) if weights == "coco" else weights
        try:
            address = model_zoo.get_checkpoint_url(name)
        except RuntimeError:
            raise InputError(
                f"model.weights={weights}: detectron2's model zoo has no weights for {name}; give the zoo name of a "
                "config of the same network, or the path of a file"
            ) from None
    if "://" not in address:
        return model_path(address), address
    return _download(address), address


def _download(address: str) -> Path:
    """A file of the zoo, from detectron2's cache where it is there."""
    from detectron2.utils.file_io import PathManager

    try:
        return Path(PathManager.get_local_path(address))
    except Exception as error:  # urllib, iopath and their kin raise all sorts
        raise InputError(
            f"{address}: could not be downloaded ({error}). Either bring the file by other means and give its path "
            "(model.weights=PATH), or start without (model.weights=none)"
        ) from error


def _fit_input(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with a first convolution of colour summed to grey, where the network takes another number."""
    fitted = dict(state)
    for name, tensor in state.items():
        here = own.get(name)
        if here is None or tensor.ndim != 4 or here.ndim != 4 or tensor.shape[1] != 3 or here.shape[1] == 3:
            continue
        if tensor.shape[0] == here.shape[0] and tensor.shape[2:] == here.shape[2:]:
            fitted[name] = tensor.sum(dim=1, keepdim=True).expand_as(here) / here.shape[1]
    return fitted
