"""The same Mask R-CNN in the words of torchvision, of detectron2, and of Caffe2.

A ResNet, a feature pyramid, region proposals, a box head of two layers and a mask head (none for Faster R-CNN), or the
ResNet alone. What differs: names; the background, torchvision's first class and detectron2's last, which has boxes and
masks of its own in torchvision only; and how pixels are seen (`pixel_norms`). Where a bottleneck has its stride
differs, too, and no conversion of weights can mend that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mammodet.errors import raise_faults
from mammodet.modeling.layout_names import (
    BODY,
    BOTTOM_UP,
    BOX,
    CLS,
    DETECTOR_NAMES,
    MASK,
    NORM,
    caffe2_name,
    modern_name,
    rename,
    to_detectron2_name,
    to_torchvision_name,
)
from mammodet.modeling.pixel_norms import PixelNorm, with_pixels

#: Added to the variance by the batch norms of both libraries.
EPS = 1e-5

#: A classifier's last layer, and what older files keep that is no weight.
_IGNORED_TORCHVISION = r"fc\.(weight|bias)"
_IGNORED_DETECTRON2 = (
    r"proposal_generator\.anchor_generator\.cell_anchors\.\d+|pixel_(mean|std)|(stem\.fc|linear)\.(weight|bias)"
)
_IGNORED_CAFFE2 = r"(fc1000|pred)_[wb]|conv1_b"
_SUPPORTED = (
    "What can be converted: Mask R-CNN and Faster R-CNN with a ResNet, a feature pyramid, one convolution in the "
    "region proposal network and a box head of two layers, or a ResNet alone (docs/weights.md)."
)


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a set of weights is of.

    Attributes:
        depth: of the ResNet, or None where its blocks are of no usual number.
        blocks: of each stage.
        bottleneck: whether blocks have three convolutions.
        norm: `FrozenBN` with statistics, `GN` without; `fpn_norm` of the pyramid, `""` without.
        channels: of the input.
        categories: without the background, or None for a ResNet alone.
        masks: whether there is a mask head.
    """

    blocks: tuple[int, ...]
    bottleneck: bool
    norm: str
    fpn_norm: str
    channels: int
    categories: int | None
    masks: bool

    @property
    def depth(self) -> int | None:
        """Of the ResNet: 50 for (3, 4, 6, 3) bottlenecks."""
        depths = (
            {"3 4 6 3": 50, "3 4 23 3": 101, "3 8 36 3": 152} if self.bottleneck else {"2 2 2 2": 18, "3 4 6 3": 34}
        )
        return depths.get(" ".join(map(str, self.blocks)))


def to_detectron2(
    state: Mapping[str, Tensor], *, source: PixelNorm, target: PixelNorm, eps: float = EPS
) -> dict[str, Tensor]:
    """torchvision's weights (old names or new) in detectron2's names.

    Args:
        source, target: how the network sees pixels in torchvision, and in detectron2.
        eps: see `with_eps`.
    Returns:
        a detector's whole names, or of a ResNet alone `stem.conv1.weight`, `res2.0.conv1.weight`, ..., which are ends
        of a detector's names.
    Raises:
        InputError: with all names that are not known or are missing, and shapes that do not belong together.
    """
    state = with_pixels(with_eps(whole(state), eps), source, target)
    converted = {}
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        if kind == "num_batches_tracked":
            continue  # frozen norms have none, and it serves no norm of a fixed momentum
        if module == CLS:
            tensor = torch.cat([tensor[1:], tensor[:1]])
        elif module in (BOX, MASK):
            tensor = tensor[4 if module == BOX else 1 :].clone()
        converted[str(to_detectron2_name(name))] = tensor
    return converted


def to_torchvision(state: Mapping[str, Tensor], *, source: PixelNorm, target: PixelNorm) -> dict[str, Tensor]:
    """detectron2's or Caffe2's weights in torchvision's names of today; the background's boxes and masks are zeros.

    Args:
        source, target: how the network sees pixels in detectron2, and in torchvision.
    Raises:
        InputError: see `to_detectron2`.
    """
    state = {name: tensor for name, tensor in from_caffe2(state).items() if not re.fullmatch(_IGNORED_DETECTRON2, name)}
    renamed = {to_torchvision_name(name) or name: tensor for name, tensor in state.items()}
    unknown = tuple(name for name in state if to_torchvision_name(name) is None)
    converted = {}
    for name, tensor in renamed.items():
        module = name.rpartition(".")[0]
        if module == CLS:
            tensor = torch.cat([tensor[-1:], tensor[:-1]])
        elif module in (BOX, MASK):
            tensor = torch.cat([torch.zeros_like(tensor[: 4 if module == BOX else 1]), tensor])
        converted[name] = tensor
    _check(converted, to_names=to_detectron2_name, unknown=unknown, background=False)
    return with_pixels(converted, source, target)


def whole(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's weights under its names of today, if they are all there and no others.

    A classifier's last layer is left out.

    Raises:
        InputError: see `to_detectron2`.
    """
    state = {
        name: tensor for name, tensor in modern_names(state).items() if not re.fullmatch(_IGNORED_TORCHVISION, name)
    }
    _check(state, to_names=str)
    return state


def modern_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's weights under its names of today."""
    return {modern_name(name): tensor for name, tensor in state.items()}


def with_eps(state: Mapping[str, Tensor], eps: float) -> dict[str, Tensor]:
    """Batch norms that add 1e-5 to their variance, and answer as these did, which add `eps`.

    The variance takes up the difference. Where it would fall below zero it is zero, and the norm's weight takes up the
    rest. torchvision's first COCO weights (`COCO_V1`) add nothing.
    """
    changed = dict(state)
    for name, variance in state.items():
        if eps == EPS or not name.endswith(".running_var"):
            continue
        wanted = variance.double() + (eps - EPS)
        changed[name] = wanted.clamp(min=0).to(variance.dtype)
        key = f"{name.removesuffix('.running_var')}.weight"
        factor = (EPS / (wanted + EPS)).sqrt()
        weight = state[key]
        changed[key] = torch.where(wanted < 0, (weight.double() * factor).to(weight.dtype), weight)
    return changed


def describe(state: Mapping[str, Tensor]) -> Architecture:
    """Of torchvision's weights (names of today)."""
    prefix = _prefix(state)
    last = dict.fromkeys((1, 2, 3, 4), -1)
    for name in state:
        if block := re.match(rf"{re.escape(prefix)}layer([1-4])\.(\d+)\.", name):
            last[int(block[1])] = max(last[int(block[1])], int(block[2]))
    scores = state.get(f"{CLS}.weight")
    norms = {
        where: ("FrozenBN" if f"{place}.running_var" in state else "GN") if f"{place}.weight" in state else ""
        for where, place in (("body", f"{prefix}bn1"), ("fpn", "backbone.fpn.inner_blocks.0.1"))
    }
    return Architecture(
        blocks=tuple(number + 1 for number in last.values()),
        bottleneck=any(re.search(r"layer\d\.\d+\.conv3\.", name) for name in state),
        norm=norms["body"],
        fpn_norm=norms["fpn"],
        channels=int(state[f"{prefix}conv1.weight"].shape[1]),
        categories=len(scores) - 1 if scores is not None else None,
        masks=f"{MASK}.weight" in state,
    )


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


def from_caffe2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Caffe2's and Detectron's weights (`res2_0_branch2a_w`) in detectron2's names; others as they are.

    Their batch norms are a scale and a bias alone; mean 0 and variance 1 (less the 1e-5 that are added) complete them.
    """
    if not any(name.endswith(("_w", "_s")) for name in state):
        return dict(state)
    renamed = {}
    for name, tensor in state.items():
        if re.fullmatch(_IGNORED_CAFFE2, name):
            continue
        new = caffe2_name(name)
        if new.startswith(f"{BOX}."):
            tensor = tensor[4:].clone()
        elif new.startswith("roi_heads.mask_head.predictor."):
            tensor = tensor[1:].clone()
        elif new.startswith(f"{CLS}."):
            tensor = torch.cat([tensor[1:], tensor[:1]])
        renamed[new] = tensor
        if name.endswith("_bn_s"):
            renamed.setdefault(new.replace(".norm.weight", ".norm.running_mean"), torch.zeros_like(tensor))
            renamed.setdefault(new.replace(".norm.weight", ".norm.running_var"), torch.ones_like(tensor) - EPS)
    if any(not name.startswith((BOTTOM_UP, "conv1_", "res")) for name in renamed):
        return renamed
    return {name.removeprefix(BOTTOM_UP): tensor for name, tensor in renamed.items()}


def _prefix(state: Mapping[str, Tensor]) -> str:
    return BODY if any(name.startswith(BODY) for name in state) else ""


def _check(
    state: Mapping[str, Tensor],
    *,
    to_names: Callable[[str], str | None],
    unknown: Sequence[str] | None = None,
    background: bool = True,
) -> None:
    """Refuse weights that are not whole.

    Args:
        state: torchvision's names of today, beside names that are not known.
        to_names: from these to the names that the user knows.
        unknown: these names; None: those that detectron2 has no name for.
        background: whether the user's tensors have rows for the background's boxes and masks.
    """
    unknown = [name for name in state if to_detectron2_name(name) is None] if unknown is None else unknown
    faults = [f"{name} {tuple(state[name].shape)}: not known" for name in unknown]
    if f"{_prefix(state)}conv1.weight" in state:
        faults += [f"{to_names(name)}: missing" for name in _expected(state) if name not in state]
        faults += _row_faults(state, to_names, background)
    else:
        faults.insert(0, f"{to_names(f'{_prefix(state)}conv1.weight')}: missing, so there is no ResNet")
    raise_faults(faults, where="weights that cannot be converted", advice=_SUPPORTED)


def _expected(state: Mapping[str, Tensor]) -> list[str]:
    """All names that belong to weights of this architecture."""
    model, prefix = describe(state), _prefix(state)
    has_statistics = any(name.startswith(prefix) and name.endswith(".running_var") for name in state)
    norm = NORM if has_statistics else NORM[:2]
    convolutions = (1, 2, 3) if model.bottleneck else (1, 2)
    names = [f"{prefix}conv1.weight", *(f"{prefix}bn1.{x}" for x in norm)]
    for stage, blocks in enumerate(model.blocks, start=1):
        for block in range(max(blocks, 1)):
            place = f"{prefix}layer{stage}.{block}"
            for index in convolutions:
                names += [f"{place}.conv{index}.weight", *(f"{place}.bn{index}.{x}" for x in norm)]
            if block == 0 and (stage > 1 or model.bottleneck):
                names += [f"{place}.downsample.0.weight", *(f"{place}.downsample.1.{x}" for x in norm)]
    if not any(rename(name, one, one) for name in state for one, _ in DETECTOR_NAMES):
        return names
    fpn_has_statistics = any(re.match(r"backbone\.fpn\..+\.running_var", name) for name in state)
    for kind in ("inner", "layer"):
        for level in range(4):
            place = f"backbone.fpn.{kind}_blocks.{level}"
            names += [f"{place}.0.weight", *([] if model.fpn_norm else [f"{place}.0.bias"])]
            names += [f"{place}.1.{x}" for x in (NORM if fpn_has_statistics else NORM[:2]) if model.fpn_norm]
    layers = ["rpn.head.conv.0.0", "rpn.head.cls_logits", "rpn.head.bbox_pred", CLS, BOX]
    layers += ["roi_heads.box_head.fc6", "roi_heads.box_head.fc7"]
    in_mask_head = [int(found[1]) for name in state if (found := re.match(r"roi_heads\.mask_head\.(\d+)\.", name))]
    if in_mask_head or model.masks:
        layers += [f"roi_heads.mask_head.{index}.0" for index in range(max(in_mask_head, default=0) + 1)]
        layers += ["roi_heads.mask_predictor.conv5_mask", MASK]
    return names + [f"{layer}.{x}" for layer in layers for x in ("weight", "bias")]


def _row_faults(state: Mapping[str, Tensor], to_names: Callable[[str], str | None], background: bool) -> list[str]:
    """Boxes and masks that are not of as many categories as the scores."""
    scores = state.get(f"{CLS}.weight")
    faults = []
    for module, each in ((BOX, 4), (MASK, 1)):
        tensor = state.get(f"{module}.weight")
        if scores is None or tensor is None or len(tensor) == each * len(scores):
            continue
        found, wanted = (rows - (0 if background else each) for rows in (len(tensor), each * len(scores)))
        hint = "; one for all categories (class-agnostic) exists in detectron2 only" if found == each else ""
        faults.append(
            f"{to_names(f'{module}.weight')}: {found} rows; expected {wanted}, since there are scores of "
            f"{len(scores) - 1} categories and the background{hint}"
        )
    return faults
