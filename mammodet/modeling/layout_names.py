"""The names of a Mask R-CNN's tensors in torchvision, detectron2 and Caffe2, and the way from one to another."""

from __future__ import annotations

import re

#: Of a normalisation; GroupNorm has the first two.
NORM = ("weight", "bias", "running_mean", "running_var")
#: Modules whose rows are categories: scores, boxes, masks (in torchvision's names).
CLS, BOX = "roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"
MASK = "roi_heads.mask_predictor.mask_fcn_logits"
#: Where a detector's ResNet lies.
BODY, BOTTOM_UP = "backbone.body.", "backbone.bottom_up."
#: A ResNet's names in torchvision and in detectron2. `<name+1>`: a number that is greater by one there.
BODY_NAMES = (
    ("conv1.weight", "stem.conv1.weight"),
    ("bn1.<x>", "stem.conv1.norm.<x>"),
    ("layer<stage>.<block>.conv<conv>.weight", "res<stage+1>.<block>.conv<conv>.weight"),
    ("layer<stage>.<block>.bn<conv>.<x>", "res<stage+1>.<block>.conv<conv>.norm.<x>"),
    ("layer<stage>.<block>.downsample.0.weight", "res<stage+1>.<block>.shortcut.weight"),
    ("layer<stage>.<block>.downsample.1.<x>", "res<stage+1>.<block>.shortcut.norm.<x>"),
)
DETECTOR_NAMES = (
    ("backbone.fpn.inner_blocks.<level>.0.<x>", "backbone.fpn_lateral<level+2>.<x>"),
    ("backbone.fpn.inner_blocks.<level>.1.<x>", "backbone.fpn_lateral<level+2>.norm.<x>"),
    ("backbone.fpn.layer_blocks.<level>.0.<x>", "backbone.fpn_output<level+2>.<x>"),
    ("backbone.fpn.layer_blocks.<level>.1.<x>", "backbone.fpn_output<level+2>.norm.<x>"),
    ("rpn.head.conv.0.0.<x>", "proposal_generator.rpn_head.conv.<x>"),
    ("rpn.head.cls_logits.<x>", "proposal_generator.rpn_head.objectness_logits.<x>"),
    ("rpn.head.bbox_pred.<x>", "proposal_generator.rpn_head.anchor_deltas.<x>"),
    ("roi_heads.box_head.fc6.<x>", "roi_heads.box_head.fc1.<x>"),
    ("roi_heads.box_head.fc7.<x>", "roi_heads.box_head.fc2.<x>"),
    ("roi_heads.box_predictor.cls_score.<x>", "roi_heads.box_predictor.cls_score.<x>"),
    ("roi_heads.box_predictor.bbox_pred.<x>", "roi_heads.box_predictor.bbox_pred.<x>"),
    ("roi_heads.mask_head.<layer>.0.<x>", "roi_heads.mask_head.mask_fcn<layer+1>.<x>"),
    ("roi_heads.mask_predictor.conv5_mask.<x>", "roi_heads.mask_head.deconv.<x>"),
    ("roi_heads.mask_predictor.mask_fcn_logits.<x>", "roi_heads.mask_head.predictor.<x>"),
)
#: torchvision's names before 2022, and what they are since.
_OLD_NAMES = (
    (r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)", r"\1.0.\2"),
    (r"(rpn\.head\.conv)\.(weight|bias)", r"\1.0.0.\2"),
)
_CAFFE2_NAMES = (
    (r"conv1", f"{BOTTOM_UP}stem.conv1"),
    (r"res_conv1", f"{BOTTOM_UP}stem.conv1"),
    (r"res(\d)_(\d+)_branch1", rf"{BOTTOM_UP}res\1.\2.shortcut"),
    (r"res(\d)_(\d+)_branch2a", rf"{BOTTOM_UP}res\1.\2.conv1"),
    (r"res(\d)_(\d+)_branch2b", rf"{BOTTOM_UP}res\1.\2.conv2"),
    (r"res(\d)_(\d+)_branch2c", rf"{BOTTOM_UP}res\1.\2.conv3"),
    (r"fpn_inner_res(\d)_\d+_sum(?:_lateral)?", r"backbone.fpn_lateral\1"),
    (r"fpn_res(\d)_\d+_sum", r"backbone.fpn_output\1"),
    (r"conv_rpn_fpn2", "proposal_generator.rpn_head.conv"),
    (r"rpn_cls_logits_fpn2", "proposal_generator.rpn_head.objectness_logits"),
    (r"rpn_bbox_pred_fpn2", "proposal_generator.rpn_head.anchor_deltas"),
    (r"fc6", "roi_heads.box_head.fc1"),
    (r"fc7", "roi_heads.box_head.fc2"),
    (r"cls_score", CLS),
    (r"bbox_pred", BOX),
    (r"_\[mask\]_fcn(\d+)", r"roi_heads.mask_head.mask_fcn\1"),
    (r"conv5_mask", "roi_heads.mask_head.deconv"),
    (r"mask_fcn_logits", "roi_heads.mask_head.predictor"),
)
_CAFFE2_ENDS = {
    "w": "weight", "b": "bias", "bn_s": "norm.weight", "bn_b": "norm.bias", "bn_rm": "norm.running_mean",
    "bn_riv": "norm.running_var", "gn_s": "norm.weight", "gn_b": "norm.bias",
}  # fmt: skip


def caffe2_name(name: str) -> str:
    """detectron2's name, or the same where it is not known."""
    split = re.fullmatch(r"(.+?)_((?:[bg]n_)?(?:w|b|s|rm|riv))", name)
    if split is None or split[2] not in _CAFFE2_ENDS:
        return name
    for pattern, new in _CAFFE2_NAMES:
        if place := re.fullmatch(pattern, split[1]):
            return f"{place.expand(new)}.{_CAFFE2_ENDS[split[2]]}"
    return name


def to_detectron2_name(name: str) -> str | None:
    """detectron2's name of a tensor of torchvision's, or None where it is not known."""
    return next((new for one, other in _rules() if (new := rename(name, one, other))), None)


def to_torchvision_name(name: str) -> str | None:
    """The inverse of `to_detectron2_name`."""
    return next((new for one, other in _rules() if (new := rename(name, other, one))), None)


def _rules() -> list[tuple[str, str]]:
    with_prefix = [(f"{BODY}{one}", f"{BOTTOM_UP}{other}") for one, other in BODY_NAMES]
    return [*with_prefix, *BODY_NAMES, *DETECTOR_NAMES]


def rename(name: str, old: str, new: str) -> str | None:
    """A name that fits the template `old`, as the template `new` has it; None where it does not fit."""
    pattern, less = "", {}
    for text, part, number in _pieces(old):
        pattern += re.escape(text)
        if part:
            pattern += rf"(?P<{part}>{'|'.join((*NORM, 'num_batches_tracked')) if part == 'x' else '[0-9]+'})"
            less[part] = number
    found = re.fullmatch(pattern, name)
    if found is None:
        return None
    filled = ""
    for text, part, number in _pieces(new):
        filled += text
        if part:
            filled += found[part] if part == "x" else str(int(found[part]) - less[part] + number)
    return filled


def _pieces(template: str) -> list[tuple[str, str, int]]:
    """Of `a.<stage+1>.b`: the text, the name behind it (or nothing), and what is added to it."""
    found = re.findall(r"([^<]*)(?:<(\w+)(?:\+(\d))?>)?", template)
    return [(text, part, int(number or 0)) for text, part, number in found]


def modern_name(name: str) -> str:
    """torchvision's name of today."""
    for old, new in _OLD_NAMES:
        name = re.sub(f"^{old}$", new, name)
    if layer := re.fullmatch(r"roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)", name):
        name = f"roi_heads.mask_head.{int(layer[1]) - 1}.0.{layer[2]}"
    return name
