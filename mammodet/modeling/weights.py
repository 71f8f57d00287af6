"""Start a model from weights that come from elsewhere: what fits is taken, and it is said what did not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from mammodet.errors import InputError
from mammodet.modeling.backbones import fetch_hub

#: A first convolution: of a detector's backbone, of a classifier's network, or of a plain torchvision or timm model.
_FIRST_CONV = re.compile(r"(?:.*body\.)?(?:conv1|conv_stem|features\.0\.0)\.weight")
#: Where the body of a network lies in a detector, and in a classifier.
_DETECTOR_BODY, _CLASSIFIER_BODY = "detector.model.backbone.body.", "network.body."


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Which parameters were taken (`loaded`), have another shape (`mismatched`), were not there (`missing`), or were
    there and not needed (`unexpected`)."""

    loaded: tuple[str, ...]
    mismatched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def to_text(self) -> str:
        """For the screen."""
        lines = [f"took {len(self.loaded)} of {len(self.loaded) + len(self.mismatched) + len(self.missing)} tensors"]
        for name in ("mismatched", "missing", "unexpected"):
            keys = getattr(self, name)
            if keys:
                shown = ", ".join(keys[:6]) + (f", ... ({len(keys)} in all)" if len(keys) > 6 else "")
                lines.append(f"  {name}: {shown}")
        return "\n".join(lines)


def load_matching(module: nn.Module, state: Mapping[str, Tensor]) -> LoadReport:
    """Copy every tensor whose name and shape fit; a first convolution is adapted to the number of input channels."""
    own = module.state_dict()
    taken: dict[str, Tensor] = {}
    mismatched = []
    for name, tensor in state.items():
        if name not in own:
            continue
        if tensor.shape != own[name].shape and _FIRST_CONV.fullmatch(name) and tensor.ndim == 4:
            channels = own[name].shape[1]
            tensor = tensor.sum(dim=1, keepdim=True).repeat(1, channels, 1, 1) / channels
        if tensor.shape != own[name].shape:
            mismatched.append(f"{name} {tuple(tensor.shape)} for {tuple(own[name].shape)}")
            continue
        taken[name] = tensor
    module.load_state_dict(taken, strict=False)
    wrong = {text.split(" ")[0] for text in mismatched}
    return LoadReport(
        loaded=tuple(taken),
        mismatched=tuple(mismatched),
        missing=tuple(name for name in own if name not in taken and name not in wrong),
        unexpected=tuple(name for name in state if name not in own),
    )


def between_bodies(state: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """A classifier's weights under the names of a detector's backbone, or the other way round; others as they are.

    So a classifier of patches can start the backbone of a detector.

    Args:
        own: the names of the model that is started (timm's `stages.0` is `stages_0` in a model that gives features).
    """
    detector = any(name.startswith(_DETECTOR_BODY) for name in state)
    here, there = (_DETECTOR_BODY, _CLASSIFIER_BODY) if detector else (_CLASSIFIER_BODY, _DETECTOR_BODY)
    spelled = {name.replace(".", "_"): name for name in own}
    renamed = {}
    for name, tensor in state.items():
        new = f"{there}{name.removeprefix(here)}" if name.startswith(here) else name
        renamed[spelled.get(new.replace(".", "_"), new)] = tensor
    return renamed


def coco_state() -> dict[str, Tensor]:
    """torchvision's Mask R-CNN R50-FPN trained on COCO."""
    weights = MaskRCNN_ResNet50_FPN_Weights.COCO_V1
    return dict(fetch_hub(lambda: weights.get_state_dict(progress=True), "COCO weights", weights.url))


def read_torch(path: Path) -> Any:
    """Load a torch file without running code from it.

    Raises:
        InputError: missing, cut short, or holding more than tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; expected a checkpoint file") from None
    except Exception:  # torch raises half a dozen kinds for a damaged file, and advises to load it unsafely
        raise InputError(
            f"{path}: cannot be read as a checkpoint; it is cut short, damaged, or holds more than weights"
        ) from None


def state_of(value: Any, path: Path) -> dict[str, Tensor]:
    """The weights inside a file: a plain state dict, or under `state_dict` or `model`."""
    if isinstance(value, dict):
        for key in ("state_dict", "model"):
            if isinstance(value.get(key), dict):
                value = value[key]
                break
    tensors = (
        {str(key): item for key, item in value.items() if isinstance(item, Tensor)} if isinstance(value, dict) else {}
    )
    if not tensors:
        raise InputError(f"{path}: holds no weights")
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
