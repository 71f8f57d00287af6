"""Read detectron2's configs, yacs and LazyConfig alike, keep them as plain values, and fit them to a data set."""

import copy
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from mammodet.config import Detectron2Config, differences
from mammodet.detectron2_install import require_detectron2
from mammodet.errors import InputError, raise_faults
from mammodet.modeling.detectron2_backend.lazy import TARGET, to_objects, to_plain, unkept
from mammodet.modeling.detectron2_backend.opts import is_yacs, merge, network_of, usual, with_opts

#: What the adapter can run.
NETWORKS = ("GeneralizedRCNN", "RetinaNet")
_SYNC = "cannot be shared between processes, since a batch without lesions has no masks; choose GN"


def resolve(settings: Detectron2Config) -> Detectron2Config:
    """The settings with `resolved` and `masks` filled in from `config` and `opts`.

    Where `resolved` is there already, as in a run's `config.yaml`, it must be what `config` gives; it stands for a
    config that is gone.

    Raises InputError: detectron2 is missing, the config cannot be read, or options that are unknown or not its own.
    """
    require_detectron2()
    stored, config = settings.resolved, settings.config
    path = _find(config) if config is not None else None
    if config is None or (path is None and stored is not None):
        assert stored is not None  # the config's own check
        values = stored
    elif path is None:
        raise InputError(
            f"model.detectron2.config={config}: neither a file nor a name of detectron2's model zoo; near: "
            f"{', '.join(_near(config)) or 'none'}"
        )
    else:
        values = _read(config, path)
    where = f"model.detectron2.config={config}" if path else "model.detectron2.resolved"
    with _told(where):
        values = with_opts(values, settings.opts)
        raise_faults(unkept(values.get("model")), where=where)
        raise_faults(_unsupported(values), where=where)
        masks = _has_masks(values)
    if stored is not None:
        raise_faults(
            differences(stored, values),
            where=f"{where}: is not what model.detectron2.resolved holds (resolved -> config)",
            advice="Set model.detectron2.resolved=null to take the config, or model.detectron2.config=null and opts=[] "
            "to keep the network.",
        )
    return settings.model_copy(update={"resolved": values, "masks": masks})


@contextmanager
def _told(where: str) -> Iterator[None]:
    """What a config of others can lack, in words."""
    try:
        yield
    except InputError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}: does not describe a network as detectron2's configs do ({type(error).__name__}: {error})"
        ) from error


def named_weights(settings: Detectron2Config) -> str:
    """The weights that the config itself names, or nothing."""
    values = settings.resolved or resolve(settings).resolved or {}
    return str(values.get("MODEL", {}).get("WEIGHTS") or values.get("weights") or "")


def fit(
    values: dict[str, Any],
    *,
    num_categories: int,
    in_channels: int,
    anchor_sizes: Sequence[Sequence[float]],
    anchor_ratios: Sequence[float],
) -> dict[str, Any]:
    """A resolved config with the classes, channels and anchors of an experiment.

    Where a config has several anchor sizes per level (RetinaNet's three per octave) and ours are one per level, their
    ratios to the level's first are kept; a single level (C4) takes all sizes.

    Args:
        anchor_sizes: sides of each level, in the network's pixels.
    Raises:
        InputError: values that describe no network, or none that works here.
    """
    values = copy.deepcopy(values)
    with _told("model.detectron2.resolved"):
        raise_faults(_unsupported(values), where="model.detectron2.resolved")
        if is_yacs(values):
            _fit_yacs(values["MODEL"], num_categories, in_channels, anchor_sizes, anchor_ratios)
        else:
            _fit_lazy(values["model"], num_categories, in_channels, anchor_sizes, anchor_ratios)
    return values


def instantiate(values: dict[str, Any]) -> nn.Module:
    """The network of a fitted config, on the CPU, with random weights.

    Raises InputError: detectron2 is missing, or cannot build it.
    """
    require_detectron2()
    model: Any
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            if is_yacs(values):
                from detectron2.modeling import build_model

                cfg = usual()
                merge(cfg, values)
                cfg.MODEL.DEVICE = "cpu"
                model = build_model(cfg)
            else:
                from detectron2.config import instantiate as instantiate_lazy

                model = instantiate_lazy(to_objects(values["model"]))
    except InputError:
        raise
    except Exception as error:  # whatever a config of others can get wrong
        raise InputError(
            f"detectron2 cannot build the network of model.detectron2 ({type(error).__name__}: {error})"
        ) from error
    assert isinstance(model, nn.Module)
    return model


def _find(config: str) -> Path | None:
    """The file of a config, by its path or zoo name."""
    from detectron2 import model_zoo

    if Path(config).exists():
        return Path(config)
    try:
        return Path(model_zoo.get_config_file(config))
    except RuntimeError:
        return None


def _read(config: str, path: Path) -> dict[str, Any]:
    """The network's part of a config."""
    if path.suffix not in (".yaml", ".yml", ".py"):
        raise InputError(f"model.detectron2.config={config}: expected a .yaml or a LazyConfig .py")
    try:
        return _read_lazy(path) if path.suffix == ".py" else _read_yacs(path)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a config of others: whatever it raises is shown
        raise InputError(
            f"model.detectron2.config={config}: cannot be read ({type(error).__name__}: {error})"
        ) from error


def _near(config: str) -> list[str]:
    import difflib

    from detectron2 import model_zoo

    root = Path(model_zoo.__file__).parent / "configs"
    names = [path.relative_to(root).as_posix() for path in (*root.rglob("*.yaml"), *root.rglob("*.py"))]
    models = [name for name in names if "/" in name and not name.startswith("common/")]
    same = [name for name in models if Path(name).stem == Path(config).stem]
    return [*same, *(name for name in difflib.get_close_matches(config, models, n=3, cutoff=0.3) if name not in same)]


def _read_yacs(path: Path) -> dict[str, Any]:
    from detectron2 import model_zoo

    # Some of the zoo's own files hold Python expressions; a file that is part of the installed package may.
    own = Path(model_zoo.__file__).parent.resolve() in path.resolve().parents
    cfg = usual()
    logger = logging.getLogger("fvcore.common.config")  # it warns of those expressions
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        cfg.merge_from_file(str(path), allow_unsafe=own)
    except yaml.constructor.ConstructorError as error:
        raise InputError(
            f"{path}: holds Python code, which is not run ({error.problem!s}); write its values out, or start from "
            "the zoo's name and change it by model.detectron2.opts"
        ) from error
    finally:
        logger.setLevel(level)
    return network_of(cfg)


def _read_lazy(path: Path) -> dict[str, Any]:
    from detectron2.config import LazyConfig

    cfg = LazyConfig.load(str(path))
    if "model" not in cfg:
        raise InputError(f"{path}: a LazyConfig without `model`")
    values = {"model": to_plain(cfg.model, "model")}
    weights = cfg.get("train", {}).get("init_checkpoint", "")
    return {**values, "weights": str(weights)} if weights else values


def _unsupported(values: dict[str, Any]) -> list[str]:
    """What our adapter cannot run of a config, in words."""
    if not is_yacs(values):
        return _unsupported_lazy(values["model"])
    model = values["MODEL"]
    if model["META_ARCHITECTURE"] not in NETWORKS:
        return [f"MODEL.META_ARCHITECTURE {model['META_ARCHITECTURE']}: expected {' or '.join(NETWORKS)}"]
    faults = []
    if "Rotated" in model["ANCHOR_GENERATOR"]["NAME"]:
        faults.append(f"MODEL.ANCHOR_GENERATOR.NAME {model['ANCHOR_GENERATOR']['NAME']}: rotated boxes are refused")
    if model["META_ARCHITECTURE"] == "GeneralizedRCNN":
        generator = model["PROPOSAL_GENERATOR"]["NAME"]
        if model["LOAD_PROPOSALS"] or generator != "RPN":
            faults.append(f"MODEL.PROPOSAL_GENERATOR.NAME {generator}: expected RPN, and no precomputed proposals")
        if model["KEYPOINT_ON"]:
            faults.append("MODEL.KEYPOINT_ON: keypoints are not supported")
        if "SyncBN" in str(model["ROI_MASK_HEAD"]["NORM"]):
            faults.append(f"MODEL.ROI_MASK_HEAD.NORM {model['ROI_MASK_HEAD']['NORM']}: {_SYNC}")
        faults += [
            f"MODEL.{head}.POOLER_TYPE {model[head]['POOLER_TYPE']}: rotated boxes are refused"
            for head in ("ROI_BOX_HEAD", "ROI_MASK_HEAD")
            if "Rotated" in model[head]["POOLER_TYPE"]
        ]
    return faults


def _unsupported_lazy(model: dict[str, Any]) -> list[str]:
    name = str(model.get(TARGET, "")).rpartition(".")[2]
    faults = [] if name in NETWORKS else [f"{name or 'model'}: expected {' or '.join(NETWORKS)}"]
    nodes = list(_nodes(model))
    if any("keypoint_head" in node for node in nodes):
        faults.append("keypoints: not supported")
    if any("Rotated" in str(node.get(key, "")) for node in nodes for key in (TARGET, "pooler_type")):
        faults.append("rotated boxes: not supported")
    heads = model.get("roi_heads") or {}
    if name == "GeneralizedRCNN" and not heads:
        faults.append("model.roi_heads: missing")
    if "SyncBN" in str((heads.get("mask_head") or {}).get("conv_norm")):
        faults.append(f"model.roi_heads.mask_head.conv_norm: {_SYNC}")
    if heads.get("mask_in_features") and not heads.get("mask_head"):
        faults.append("model.roi_heads.mask_head: missing; without masks set model.roi_heads.mask_in_features=null")
    return faults


def _has_masks(values: dict[str, Any]) -> bool:
    if is_yacs(values):
        return bool(values["MODEL"]["META_ARCHITECTURE"] == "GeneralizedRCNN" and values["MODEL"]["MASK_ON"])
    heads = values["model"].get("roi_heads") or {}
    # As detectron2 decides it: heads on one level (C4) by their mask head, others by the levels of it.
    return bool(heads.get("mask_head" if str(heads.get(TARGET)).endswith("Res5ROIHeads") else "mask_in_features"))


def _fit_yacs(
    model: dict[str, Any], categories: int, channels: int, sizes: Sequence[Sequence[float]], ratios: Sequence[float]
) -> None:
    for head in ("ROI_HEADS", "RETINANET", "POINT_HEAD"):
        if head in model:
            model[head]["NUM_CLASSES"] = categories
    model["PIXEL_MEAN"] = _one_grey(model["PIXEL_MEAN"], channels)
    model["PIXEL_STD"] = _one_grey(model["PIXEL_STD"], channels)
    anchors = model["ANCHOR_GENERATOR"]
    retinanet = model["META_ARCHITECTURE"] == "RetinaNet"
    levels = len(model["RETINANET" if retinanet else "RPN"]["IN_FEATURES"])
    anchors["SIZES"] = _sizes(anchors["SIZES"], levels, sizes)
    anchors["ASPECT_RATIOS"] = [[float(ratio) for ratio in ratios]]


def _fit_lazy(
    model: dict[str, Any], categories: int, channels: int, sizes: Sequence[Sequence[float]], ratios: Sequence[float]
) -> None:
    per_place = 0
    for node in _nodes(model):
        if "num_classes" in node:
            node["num_classes"] = categories
        if str(node.get(TARGET, "")).endswith("AnchorGenerator"):
            node["sizes"] = _sizes(node["sizes"], len(node["strides"]), sizes)
            node["aspect_ratios"] = [float(ratio) for ratio in ratios]
            per_place = len(node["sizes"][0]) * len(ratios)
    for node in _nodes(model):
        if "num_anchors" in node:
            node["num_anchors"] = per_place
    model["pixel_mean"] = _one_grey(model["pixel_mean"], channels)
    model["pixel_std"] = _one_grey(model["pixel_std"], channels)


def _sizes(given: Any, levels: int, sizes: Sequence[Sequence[float]]) -> list[list[float]]:
    """Anchor sides per level: ours; of one side per level, times the pattern that the config has within a level."""
    if levels not in (1, len(sizes)):
        raise InputError(
            f"model.detectron2.config: anchors on {levels} feature levels; expected {len(sizes)}, as "
            "model.detector.anchors.sizes, or 1"
        )
    if levels == 1:
        return [[float(side) for sides in sizes for side in sides]]
    counts = {len(sides) for sides in sizes}
    if len(counts) != 1:
        raise InputError(
            f"model.detector.anchors.sizes: {', '.join(str(len(sides)) for sides in sizes)} sides per level; "
            "detectron2 needs the same number on each level"
        )
    pattern = [float(side) / float(given[0][0]) for side in given[0]] if counts == {1} else [1.0]
    return [[float(side) * factor for side in sides for factor in pattern] for sides in sizes]


def anchor_strides(values: dict[str, Any]) -> tuple[int, ...]:
    """Strides of the feature levels that a resolved config puts anchors on, fine to coarse.

    Raises InputError: levels whose stride their names do not say.
    """
    if not is_yacs(values):
        node = next(each for each in _nodes(values["model"]) if str(each.get(TARGET, "")).endswith("AnchorGenerator"))
        return tuple(int(stride) for stride in node["strides"])
    model = values["MODEL"]
    names = model["RETINANET" if model["META_ARCHITECTURE"] == "RetinaNet" else "RPN"]["IN_FEATURES"]
    matches = [re.fullmatch(r"(?:p|res)(\d)", str(name)) for name in names]
    if not all(matches):
        raise InputError(f"model.detector.anchors.sizes=auto: strides of {names} are not known; give the sizes")
    return tuple(2 ** int(match[1]) for match in matches if match)


def _one_grey(values: Sequence[float], channels: int) -> list[float]:
    """The mean over colours, for each of our channels."""
    return [sum(float(value) for value in values) / len(values)] * channels


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value)
