"""yacs configs as plain values."""

import copy
from typing import Any

import yaml


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
