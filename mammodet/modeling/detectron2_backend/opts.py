"""`model.detectron2.opts`: changes to a config of detectron2, all faults told at once."""

import copy
from collections.abc import Sequence
from typing import Any

import yaml

from mammodet.errors import InputError, raise_faults

#: What follows from the data set or from other sections of our config: key, and what to set instead.
_OURS = {
    "MODEL.ROI_HEADS.NUM_CLASSES": "the data set decides it",
    "MODEL.RETINANET.NUM_CLASSES": "the data set decides it",
    "MODEL.POINT_HEAD.NUM_CLASSES": "the data set decides it",
    "MODEL.ANCHOR_GENERATOR.SIZES": "set model.detector.anchors.sizes",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": "set model.detector.anchors.ratios",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "set model.detector.score_threshold",
    "MODEL.RETINANET.SCORE_THRESH_TEST": "set model.detector.score_threshold",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": "set model.detector.nms_threshold",
    "MODEL.RETINANET.NMS_THRESH_TEST": "set model.detector.nms_threshold",
    "TEST.DETECTIONS_PER_IMAGE": "set model.detector.max_detections",
    "MODEL.WEIGHTS": "set model.weights",
    "MODEL.DEVICE": "set train.accelerator",
}
#: The same of LazyConfigs and of built networks: what is kept of the detections.
LIMITS = {
    "test_score_thresh": "score_threshold",
    "test_nms_thresh": "nms_threshold",
    "test_topk_per_image": "max_detections",
    "max_detections_per_image": "max_detections",
}


def with_opts(values: dict[str, Any], opts: Sequence[Any]) -> dict[str, Any]:
    """The config with `opts`; lists every faulty one."""
    pairs = _pairs(opts)
    if not pairs:
        return values
    judge, put = (_yacs_fault, _put_yacs) if is_yacs(values) else (_lazy_fault, _put_lazy)
    whole = "a whole section; give its keys one by one"
    foreign = {
        key: fault for key, value in pairs if (fault := judge(key) or (whole if isinstance(value, dict) else None))
    }
    values, faults = put(values, [pair for pair in pairs if pair[0] not in foreign])
    raise_faults([*(f"{key}: {fault}" for key, fault in foreign.items()), *faults], where="model.detectron2.opts")
    return values


def _yacs_fault(key: str) -> str | None:
    """Why a key of a yacs config has no effect, if it has none."""
    if key in _OURS:
        return _OURS[key]
    return None if key.startswith("MODEL.") else "only keys of MODEL have an effect; for others see our data and train"


def _lazy_fault(key: str) -> str | None:
    """Why a key of a LazyConfig has no effect, if it has none."""
    last = key.rpartition(".")[2]
    if not key.startswith("model."):
        return "only keys of model have an effect; for others see our data and train"
    if last == "num_classes":
        return "the data set decides it"
    if last in LIMITS:
        return f"set model.detector.{LIMITS[last]}"
    anchors = last == "num_anchors" or "anchor_generator" in key.split(".")
    return "set model.detector.anchors" if anchors else None


def _pairs(opts: Sequence[Any]) -> list[tuple[str, Any]]:
    """`KEY=VALUE` texts, and KEY, VALUE, KEY, VALUE."""
    rest, pairs = list(opts), []
    while rest:
        first = rest.pop(0)
        if not isinstance(first, str):
            raise InputError(f"model.detectron2.opts: {first!r} where a key was expected")
        key, equals, text = first.partition("=")
        if equals:
            try:
                pairs.append((key, yaml.safe_load(text)))
            except (yaml.YAMLError, ValueError) as error:
                raise InputError(f"model.detectron2.opts: {first}: its value cannot be read ({error})") from None
        elif rest:
            pairs.append((key, rest.pop(0)))
        else:
            raise InputError(f"model.detectron2.opts: {key} has no value; expected KEY, VALUE or KEY=VALUE")
    return pairs


def _put_yacs(values: dict[str, Any], pairs: Sequence[tuple[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """The config with the pairs in it, and what is wrong with them."""
    cfg = usual()
    merge(cfg, values)
    faults = []
    for key, value in pairs:
        try:
            if isinstance(_at(cfg, key), dict):  # yacs would put a text in its place
                raise ValueError("a whole section; give its keys one by one")
            cfg.merge_from_list([key, value])
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
            faults.append(f"{key}={value!r}: {' '.join(str(each) for each in error.args)}")
    return network_of(cfg), faults


def _put_lazy(values: dict[str, Any], pairs: Sequence[tuple[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """The config with the pairs in it, and what is wrong with them."""
    values = copy.deepcopy(values)
    faults = []
    for key, value in pairs:
        node: Any = values
        *way, last = key.split(".")
        for part in way:
            node = _step(node, part)
        if _step(node, last) is _NOTHING:
            faults.append(f"{key}: no such key")
        elif isinstance(node, list):
            node[int(last)] = value
        else:
            node[last] = value
    return values, faults


def _at(cfg: Any, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg.get(part) if isinstance(cfg, dict) else None
    return cfg


_NOTHING = object()


def _step(node: Any, part: str) -> Any:
    if isinstance(node, list) and part.isdigit() and int(part) < len(node):
        return node[int(part)]
    return node.get(part, _NOTHING) if isinstance(node, dict) else _NOTHING


def is_yacs(values: dict[str, Any]) -> bool:
    return "MODEL" in values


def usual() -> Any:
    """detectron2's defaults, with PointRend's keys."""
    from detectron2.config import get_cfg
    from detectron2.projects.point_rend import add_pointrend_config

    cfg = get_cfg()
    add_pointrend_config(cfg)
    return cfg


def merge(cfg: Any, values: dict[str, Any]) -> None:
    """Put plain values into a yacs config, which wants its lists and tuples as they were."""
    from detectron2.config import CfgNode

    cfg.merge_from_other_cfg(CfgNode(copy.deepcopy(values)))


def network_of(cfg: Any) -> dict[str, Any]:
    """Plain values of what describes the network."""
    values = yaml.safe_load(cfg.dump())
    return {"VERSION": values["VERSION"], "MODEL": values["MODEL"]}
