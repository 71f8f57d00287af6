"""A weight file from torchvision's layout to detectron2's, or back, with a header that says what its network is."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import mammodet
from mammodet.errors import InputError
from mammodet.files import atomic_path
from mammodet.modeling.layouts import (
    Architecture,
    describe,
    from_caffe2,
    to_detectron2,
    to_torchvision,
    whole,
    with_eps,
)
from mammodet.modeling.pixel_norms import DETECTRON2_MSRA, NORMS, OURS, TORCHVISION, PixelNorm
from mammodet.modeling.weight_files import HEADER, SEEN, read_weights
from mammodet.modeling.weights import eps_of, has_bottlenecks, inner, pixels_of, stride_of

Target = Literal["torchvision", "detectron2"]
SUFFIXES = (".pth", ".pkl")


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was converted.

    Attributes:
        state: in the target's layout.
        target: whose names it has.
        model: what the weights are of.
        pixels: how the network sees pixels now; `source_pixels`: how it did.
        stride_in_1x1: None where there are no bottlenecks.
        assumed: what the file does not say, in words.
        seen: what the weights were trained or chosen on here (keys of `SEEN`), so that an evaluation can refuse to meet
            it again.
    """

    state: dict[str, Tensor]
    target: Target
    model: Architecture
    source_pixels: PixelNorm
    pixels: PixelNorm
    stride_in_1x1: bool | None
    assumed: tuple[str, ...]
    seen: dict[str, Any]


def convert(
    path: Path,
    target: Target,
    *,
    pixels: str | None = None,
    stride_in_1x1: bool | None = None,
    eps: float | None = None,
) -> Conversion:
    """Read a file and convert it; a file in the target's layout is brought to its names of today.

    Args:
        pixels: a key of `NORMS`: how detectron2's network sees pixels, of the file or of the result; for a file of
            torchvision that stays torchvision's, its own. None: what the file says, or the usual.
        stride_in_1x1: where the file's bottlenecks have their stride. None: what the file says, or the usual.
        eps: what a torchvision file's batch norms add to their variance. None: 0 for torchvision's COCO_V1, else 1e-5.
    Raises:
        InputError: unreadable, not to be converted, or contradicting what the file says of itself.
    """
    file = read_weights(path)
    state, layout = inner(file)
    if layout not in ("torchvision", "detectron2", "caffe2"):
        shown = ", ".join(list(state)[:4])
        raise InputError(f"{path}: neither torchvision's nor detectron2's nor Caffe2's names ({shown}, ...)")
    here = "torchvision" if layout == "torchvision" else "detectron2"
    known, assumed = pixels_of(file), []
    stated = NORMS[pixels] if pixels is not None and here in (target, "detectron2") else None
    _agree(path, "pixels", known, stated)
    source = known or stated or (TORCHVISION if here == "torchvision" else DETECTRON2_MSRA)
    if known is None and stated is None:
        assumed.append(f"pixels as {source.name}'s ({_pixel_text(source)})")
    stride = None
    if has_bottlenecks(state):
        given = stride_of(file)
        # That of a torchvision file without a word on it is usual, and no more than that.
        said = given if file.facts.get("stride_in_1x1") is not None or file.layout == "mammodet" else None
        _agree(path, "stride in the 1x1 convolution", said, stride_in_1x1)
        options = (said, stride_in_1x1, here == "detectron2")
        stride = next(option for option in options if option is not None)
        if said is None and stride_in_1x1 is None:
            place = "1x1 (--no-stride-in-1x1 if not" if stride else "3x3 (--stride-in-1x1 if not"
            assumed.append(f"the bottlenecks' stride in the {place})")
    eps = eps_of(path) if eps is None else eps
    if target == "torchvision":
        goal = source if here == target else (OURS if source.is_grey else TORCHVISION)
        result = with_eps(whole(state), eps) if here == target else to_torchvision(state, source=source, target=goal)
        model = describe(result)
    elif here == "torchvision":
        model = describe(whole(state))
        goal = NORMS[pixels] if pixels else OURS if source.for_channels(model.channels).is_grey else DETECTRON2_MSRA
        result = to_detectron2(state, source=source, target=goal, eps=eps)
    else:
        model, goal, result = describe(to_torchvision(state, source=source, target=source)), source, from_caffe2(state)
    seen = {key: file.facts[key] for key in SEEN if file.facts.get(key) not in (None, [])}
    return Conversion(result, target, model, source, goal, stride, tuple(assumed), seen)


def write_conversion(conversion: Conversion, source: Path, output: Path, *, overwrite: bool = False) -> None:
    """Write `.pth` (torch) or `.pkl` (arrays, as detectron2's zoo has them), whole or not at all.

    Raises:
        InputError: another ending, or a file that is there.
    """
    if output.suffix not in SUFFIXES:
        raise InputError(f"{output}: expected a name that ends in {' or '.join(SUFFIXES)}")
    if output.exists() and (not overwrite or output.samefile(source)):
        raise InputError(f"{output}: is there; choose another name" + ("" if overwrite else ", or give --overwrite"))
    header = {
        "layout": conversion.target,
        "pixels": conversion.pixels.to_json(),
        "stride_in_1x1": conversion.stride_in_1x1,
        "source": source.name,
        "version": mammodet.__version__,
    }
    # detectron2 looks for the names of a backbone alone as ends of a model's names, if it is told to.
    part = conversion.target == "detectron2" and conversion.model.categories is None
    facts: dict[str, Any] = {HEADER: header, "__author__": "mammodet", "matching_heuristics": part}
    if conversion.seen:
        facts["mammodet"] = conversion.seen  # where a checkpoint has it
    with atomic_path(output) as temporary:
        if output.suffix == ".pth":
            torch.save({"model": conversion.state, **facts}, temporary)
        else:
            with open(temporary, "wb") as file:
                pickle.dump({"model": _arrays(conversion.state), **facts}, file, protocol=2)


def report(conversion: Conversion, source: Path, output: Path) -> str:
    """What was read and assumed, and what the network that takes the file must be, for the screen."""
    model = conversion.model
    kind = "ResNet" if model.categories is None else "Mask R-CNN" if model.masks else "Faster R-CNN"
    lines = [f"{source}: {kind} R-{model.depth or '?'}, {len(conversion.state)} tensors"]
    if model.categories is not None:
        lines[0] += f", {model.categories} {'category' if model.categories == 1 else 'categories'}"
    lines += [f"assumed, since the file does not say: {text}" for text in conversion.assumed]
    if conversion.source_pixels != conversion.pixels:
        lines.append(f"pixels: from {conversion.source_pixels.name} to {conversion.pixels.name}")
    lines.append(f"wrote {output} in {conversion.target}'s layout. Where it is used, set")
    settings = _detectron2_settings if conversion.target == "detectron2" else _torchvision_settings
    return "\n".join([*lines, *(f"  {line}" for line in settings(conversion, output))])


def _detectron2_settings(conversion: Conversion, output: Path) -> list[str]:
    model = conversion.model
    mean, std = conversion.pixels.mean_std(model.channels)
    lines = [f"MODEL.WEIGHTS {output}"]
    lines += [f"MODEL.RESNETS.DEPTH {model.depth}"] if model.depth else []
    lines += [f"MODEL.RESNETS.NORM {model.norm}"]
    lines += [f"MODEL.RESNETS.STRIDE_IN_1X1 {conversion.stride_in_1x1}"] if conversion.stride_in_1x1 is not None else []
    lines += [f"MODEL.FPN.NORM {model.fpn_norm}"] if model.fpn_norm else []
    lines += [f"MODEL.PIXEL_MEAN {[round(value, 4) for value in mean]}"]
    lines += [f"MODEL.PIXEL_STD {[round(value, 4) for value in std]}"]
    lines += (
        [f"INPUT.FORMAT {conversion.pixels.order}"] if model.channels == 3 and not conversion.pixels.is_grey else []
    )
    if model.categories is not None:
        lines += [f"MODEL.ROI_HEADS.NUM_CLASSES {model.categories}", f"MODEL.MASK_ON {model.masks}"]
        lines += ["and to answer as torchvision does: MODEL.ROI_BOX_HEAD.POOLER_TYPE ROIAlign, POOLER_SAMPLING_RATIO 2"]
        lines += ["  (and so for MODEL.ROI_MASK_HEAD)"] if model.masks else []
    lines.append(
        "With model.detector.backend=detectron2, mammodet fits the pixels itself: model.weights=" + str(output)
    )
    return lines


def _torchvision_settings(conversion: Conversion, output: Path) -> list[str]:
    model = conversion.model
    place = "model.detector.backbone"
    stride = str(bool(conversion.stride_in_1x1)).lower()
    norm = [f"{place}.norm={model.norm}", f"{place}.stride_in_1x1={stride}"]
    name = [f"{place}.name=resnet{model.depth}"] if model.depth else []
    arch = [] if model.masks or model.categories is None else ["model.detector.arch=faster_rcnn"]
    lines = [" ".join([f"model.weights={output}", *arch, *name, *norm])]
    if conversion.stride_in_1x1:
        lines.append("torchvision's own models have the stride in the 3x3 convolution and would answer wrongly.")
    else:
        mean, std = (
            [round(value / 255, 4) for value in values] for values in conversion.pixels.mean_std(model.channels)
        )
        lines.append(f'In torchvision itself: model.load_state_dict(torch.load("{output.name}")["model"]),')
        lines.append(f"  for images in [0, 1] with image_mean={mean}, image_std={std}")
    return lines


def _agree(path: Path, what: str, said: Any, stated: Any) -> None:
    """Refuse a command line that contradicts the file."""
    if said is None or stated is None:
        return
    if isinstance(said, PixelNorm):
        alike, shown = said.is_like(stated), [_pixel_text(said), _pixel_text(stated)]
    else:
        alike, shown = said == stated, [str(said).lower(), str(stated).lower()]
    if not alike:
        raise InputError(
            f"{path}: says of itself {what}: {shown[0]}; the command line says {shown[1]}. Leave it out there"
        )


def _pixel_text(norm: PixelNorm) -> str:
    mean, std = norm.mean_std(3)
    return (
        f"{norm.order}, 0 to 255, mean {[round(value, 3) for value in mean]}, std {[round(value, 3) for value in std]}"
    )


def _arrays(state: Mapping[str, Tensor]) -> dict[str, Any]:
    # numpy knows no bfloat16.
    return {
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy() for name, tensor in state.items()
    }
