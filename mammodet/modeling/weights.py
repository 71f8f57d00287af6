"""Start a model from weights that come from elsewhere: what fits is taken, and it is said what did not."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from mammodet.errors import InputError
from mammodet.files import dig, file_hash
from mammodet.modeling.pixel_stats import IMAGENET, PixelStats
from mammodet.modeling.weight_files import Layout, WeightFile, layout_of, read_weights

T = TypeVar("T")

#: A first convolution: of a detector's backbone, of a classifier's network, or of a plain torchvision or timm model.
_FIRST_CONV = re.compile(r"(?:.*body\.)?(?:conv1|conv_stem|features\.0\.0)\.weight")
#: Where the body of a network lies in a detector, and in a classifier.
_DETECTOR_BODY, _CLASSIFIER_BODY = "detector.model.backbone.body.", "network.body."
#: What our checkpoints put before the names of a detector's library, and of a classifier's.
_OWN = ("detector.model.", "network.body.")
#: torchvision's COCO_V1 files (Mask, Faster and Keypoint R-CNN R50-FPN) by the start of their SHA-256, which is part of
#: their names: their batch norms add nothing to the variance.
_WITHOUT_EPS = ("bf2d0c1e", "258fb6c6", "fc266e95")
#: What every batch norm of these libraries adds to the variance, but for those files.
_EPS = 1e-5
#: torchvision's names before 2022, and what they are since.
_OLD_NAMES = (
    (r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)", r"\1.0.\2"),
    (r"(rpn\.head\.conv)\.(weight|bias)", r"\1.0.0.\2"),
)
#: Names of norms of torch, torchvision and timm, and so of what is made of them.
_NORMS = ("BatchNorm2d", "GroupNorm", "FrozenBatchNorm2d", "FrozenBatchNormAct2d")
#: Where a config of ours keeps that of a detectron2 network.
_RESOLVED = ("detectron2", "resolved", "MODEL")
#: Where detectron2's model zoo lies.
_ZOO = ("detectron2://", "https://dl.fbaipublicfiles.com/detectron2/")


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
    """Copy every tensor whose name and shape fit; a first convolution is adapted to the number of input channels.

    Raises InputError: NaN or infinite weights.
    """
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise InputError(f"weights: {len(broken)} tensors hold NaN or infinity, for instance {broken[0]}; take others")
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


def norms_left_out(module: nn.Module, body: nn.Module, loaded: Iterable[str]) -> list[str]:
    """Norms of a body in `module` that took nothing from a file, while the convolution before each did."""
    taken = {name.removesuffix(".weight") for name in loaded}
    own, lost, filled = set(body.modules()), [], False
    for name, part in module.named_modules():
        if part not in own:
            continue
        if isinstance(part, nn.Conv2d):
            filled = name in taken
        elif any(kind.__name__ in _NORMS for kind in type(part).__mro__):
            lost += [name] if filled and name not in taken else []
            filled = False
    return lost


def between_bodies(state: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """A classifier's weights under the names of a detector's backbone, or the other way round; others as they are.

    So a classifier of patches can start the backbone of a detector.

    Args:
        own: the names of the model that is started.
    """
    detector = any(name.startswith(_DETECTOR_BODY) for name in state)
    here, there = (_DETECTOR_BODY, _CLASSIFIER_BODY) if detector else (_CLASSIFIER_BODY, _DETECTOR_BODY)
    renamed = {
        f"{there}{name.removeprefix(here)}" if name.startswith(here) else name: tensor for name, tensor in state.items()
    }
    return spelled_as(renamed, own)


def spelled_as(state: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """Names as a model spells them: timm's `stages.0` is `stages_0` in a model that gives features."""
    spelled = {name.replace(".", "_"): name for name in own}
    return {spelled.get(name.replace(".", "_"), name): tensor for name, tensor in state.items()}


def fetch_hub(fetch: Callable[[], T], what: str, where: str) -> T:
    """Run a download; where the hub cannot be reached, say the two ways on."""
    try:
        return fetch()
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{what} could not be downloaded from {where} ({error}). Either bring the file by other means and give its "
            "path (model.weights=PATH), or start without (model.weights=none with model.detector.backbone.norm=GN)."
        ) from error


def coco_state() -> dict[str, Tensor]:
    """torchvision's Mask R-CNN R50-FPN trained on COCO, for batch norms that add 1e-5 to their variance.

    torchvision itself sets theirs to add nothing when it loads this file.
    """
    weights = MaskRCNN_ResNet50_FPN_Weights.COCO_V1
    state = fetch_hub(lambda: weights.get_state_dict(progress=True), "COCO weights", weights.url)
    return without_eps(modern_names(state))


def modern_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's weights under its names of today."""
    renamed = {}
    for name, tensor in state.items():
        for old, new in _OLD_NAMES:
            name = re.sub(f"^{old}$", new, name)
        if layer := re.fullmatch(r"roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)", name):
            name = f"roi_heads.mask_head.{int(layer[1]) - 1}.0.{layer[2]}"
        renamed[name] = tensor
    return renamed


def without_eps(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Batch norms that add 1e-5 to their variance, and answer as these did, which add nothing.

    The variance gives 1e-5 away. Where it would fall below zero it is zero, and the norm's weight takes up the rest.
    """
    changed = dict(state)
    for name, variance in state.items():
        if not name.endswith(".running_var"):
            continue
        wanted = variance.double() - _EPS
        changed[name] = wanted.clamp(min=0).to(variance.dtype)
        key = f"{name.removesuffix('.running_var')}.weight"
        weight, factor = state[key], (_EPS / (wanted + _EPS)).sqrt()
        changed[key] = torch.where(wanted < 0, (weight.double() * factor).to(weight.dtype), weight)
    return changed


def is_published(weights: str) -> bool:
    """Whether `model.weights` names weights that a library publishes: of detectron2's zoo, or a file of torch's hub.

    The name of such a file ends in the start of its SHA-256, as in `resnet18-f37072fd.pth`.
    """
    path = Path(weights)
    if weights.startswith(_ZOO) or (weights.endswith((".yaml", ".py")) and not path.exists()):
        return True
    digest = re.search(r"-([0-9a-f]{8,})$", path.stem)
    return digest is not None and path.is_file() and file_hash(path).startswith(digest[1])


def inner(file: WeightFile) -> tuple[dict[str, Tensor], Layout]:
    """The detector's or the network's own weights, under their library's names, and whose names these are."""
    if file.layout != "mammodet":
        return file.state, file.layout
    own = next((own for own in _OWN if any(name.startswith(own) for name in file.state)), None)
    if own is None:
        return file.state, "unknown"
    state = {name.removeprefix(own): tensor for name, tensor in file.state.items() if name.startswith(own)}
    return state, layout_of(state)


def stride_of(file: WeightFile) -> bool | None:
    """Whether the bottlenecks have their stride in the 1x1 convolution, where the file says so."""
    stride = dig(file.config, "model", *_RESOLVED, "RESNETS", "STRIDE_IN_1X1")
    if stride is None and inner(file)[1] == "torchvision":
        # torchvision has no other than in the 3x3 convolution, and ours only where a config says so.
        stride = dig(file.config, "model", "detector", "backbone", "stride_in_1x1") or False
    return None if stride is None else bool(stride)


def _own_stats(file: WeightFile, path: Path) -> PixelStats:
    """Of a checkpoint of ours; a training fills in what is `auto`."""
    seen = dig(file.config, "model", "pixels")
    if not isinstance(seen, dict):
        raise InputError(f"{path}: does not say which pixels its network sees (model.pixels); train it again")
    mean, std = seen.get("mean"), seen.get("std")
    return PixelStats(mean, std) if isinstance(mean, float) and isinstance(std, float) else IMAGENET


def torchvision_state(path: Path, *, stride_in_1x1: bool | None, pixels: PixelStats = IMAGENET) -> dict[str, Tensor]:
    """Weights that start a network of torchvision's, or of timm's, here.

    Args:
        stride_in_1x1: of the network; None where it has no bottlenecks.
        pixels: that the network sees.
    Returns:
        names of ours (`detector.model. ...`), or of torchvision's models of today.
    Raises:
        InputError: unreadable, in detectron2's layout, with the stride elsewhere, or of a network of ours that sees
            other pixels.
    """
    file = read_weights(path)
    state, layout = inner(file)
    if layout in ("detectron2", "caffe2"):
        raise InputError(
            f"{path}: is in {layout}'s layout, and this model is torchvision's. Choose model.detector.backend="
            "detectron2 with model.detectron2.config=NAME of its network, or other weights (docs/weights.md)"
        )
    if layout == "torchvision" and stride_in_1x1 is not None and has_bottlenecks(state):
        _refuse_other_stride(path, bool(stride_of(file)), stride_in_1x1)
    if file.layout == "mammodet" and file.config and (own := _own_stats(file, path)) != pixels:
        raise InputError(
            f"{path}: its network sees pixels with mean {own.mean:g} and std {own.std:g}, this one with "
            f"{pixels.mean:g} and {pixels.std:g}. Add model.pixels.mean={own.mean:g} model.pixels.std={own.std:g}"
        )
    if file.layout == "mammodet" or layout != "torchvision":
        return file.state
    state = modern_names(state)
    return without_eps(state) if file_hash(path)[:8] in _WITHOUT_EPS else state


def detectron2_state(
    path: Path, names: Iterable[str] = (), *, stride_in_1x1: bool, pixel_std: float
) -> dict[str, Tensor]:
    """Weights that start a network of detectron2's here, which sees every channel alike: pixels of 0 to 255, our mean.

    Args:
        names: of the network; files with a backbone alone have ends of them.
        stride_in_1x1: `MODEL.RESNETS.STRIDE_IN_1X1` of the network.
        pixel_std: `MODEL.PIXEL_STD` of the network, one figure for all channels.
    Returns:
        detectron2's names; of a checkpoint of ours `detector.model.` before them, and the image head's as they are.
    Raises:
        InputError: unreadable, in torchvision's layout, with the stride elsewhere, or for other pixels.
    """
    file = read_weights(path)
    state, layout = inner(file)
    if layout == "torchvision":
        raise InputError(
            f"{path}: is in torchvision's layout, and this model is detectron2's. Choose "
            "model.detector.backend=torchvision, or weights of detectron2's (docs/weights.md)"
        )
    given = stride_of(file)
    if given is not None and has_bottlenecks(state):
        _refuse_other_stride(path, given, stride_in_1x1, detectron2=True)
    std = dig(file.config, "model", *_RESOLVED, "PIXEL_STD")
    if isinstance(std, list) and std and not math.isclose(mean := sum(std) / len(std), pixel_std, rel_tol=0.01):
        raise InputError(
            f"{path}: its network sees pixels with std {mean:g}, this one with {pixel_std:g}. Set MODEL.PIXEL_STD "
            f"{std} in model.detectron2.opts"
        )
    if file.layout == "mammodet":
        others = {name: tensor for name, tensor in file.state.items() if not name.startswith(_OWN[0])}
        return {f"{_OWN[0]}{name}": tensor for name, tensor in state.items()} | others
    if layout == "caffe2":
        state = from_caffe2(state)
    return match_ends(state, names) if file.are_ends or "stem.conv1.weight" in state else state


def from_caffe2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ResNet of detectron2's zoo under Caffe2's names (`res2_0_branch2a_w`) in detectron2's; others as they are.

    Its batch norms are a scale and a bias alone; mean 0 and variance 1 (less the 1e-5 that are added) complete them.
    """
    renamed = {}
    for name, tensor in state.items():
        found = re.fullmatch(r"(?:(?:res_)?conv1|res(\d)_(\d+)_branch(1|2[abc]))_(w|bn_s|bn_b|bn_rm|bn_riv)", name)
        if found is None:
            renamed[name] = tensor
            continue
        stage, block, branch, kind = found.groups()
        place = f"res{stage}.{block}.{_CAFFE2_BRANCHES[branch]}" if stage else "stem.conv1"
        renamed[f"{place}.{_CAFFE2_KINDS[kind]}"] = tensor
        if kind == "bn_s":
            renamed.setdefault(f"{place}.norm.running_mean", torch.zeros_like(tensor))
            renamed.setdefault(f"{place}.norm.running_var", torch.ones_like(tensor) - _EPS)
    return renamed


_CAFFE2_BRANCHES = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_CAFFE2_KINDS = {
    "w": "weight", "bn_s": "norm.weight", "bn_b": "norm.bias", "bn_rm": "norm.running_mean",
    "bn_riv": "norm.running_var",
}  # fmt: skip


def match_ends(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Weights under the names of a model that end in theirs, the longest first; others keep their name.

    As detectron2 does for files that hold a backbone alone (`matching_heuristics`).
    """
    matched: dict[str, Tensor] = {}
    used = set()
    for name in names:
        parts = name.split(".")
        found = next((end for start in range(len(parts)) if (end := ".".join(parts[start:])) in state), None)
        if found is not None:
            matched[name] = state[found]
            used.add(found)
    return matched | {name: tensor for name, tensor in state.items() if name not in used}


def has_bottlenecks(state: Mapping[str, Tensor]) -> bool:
    """Whether there are blocks of three convolutions, whose stride has two places."""
    return any(re.search(r"(layer\d|res\d)[._]\d+[._](conv3\.|branch2c)", name) for name in state)


def _refuse_other_stride(path: Path, given: bool, wanted: bool, *, detectron2: bool = False) -> None:
    if given == wanted:
        return
    places = {True: "1x1", False: "3x3"}
    value = str(given) if detectron2 else str(given).lower()
    key = f"MODEL.RESNETS.STRIDE_IN_1X1 {value} in model.detectron2.opts"
    raise InputError(
        f"{path}: was trained with the bottlenecks' stride in the {places[given]} convolution, and this model has it "
        f"in the {places[wanted]}; its weights would give other features. Set "
        + (key if detectron2 else f"model.detector.backbone.stride_in_1x1={value} (detectors only)")
    )
