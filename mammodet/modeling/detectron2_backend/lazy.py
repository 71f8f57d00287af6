"""LazyConfigs as plain values: classes and functions become names, and only names of modelling code are taken back.

So a checkpoint holds all of its network, and loading it runs no code of strangers.
"""

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from mammodet.errors import InputError

#: Packages whose network modules a stored LazyConfig may name.
TRUSTED = ("detectron2.layers", "detectron2.modeling", "detectron2.projects", "torch.nn.modules")
#: What it may name beside them. A wider rule is no rule: torch.nn alone has enough functions to reach anything.
PARTS = (
    "detectron2.layers.shape_spec.ShapeSpec",
    "detectron2.modeling.box_regression.Box2BoxTransform",
    "detectron2.modeling.box_regression.Box2BoxTransformLinear",
    "detectron2.modeling.matcher.Matcher",
    "detectron2.modeling.backbone.resnet.ResNet.make_default_stages",
    "detectron2.modeling.backbone.resnet.ResNet.make_stage",
    "torch.nn.functional.relu",
    "torch.nn.functional.silu",
    "torch.nn.functional.leaky_relu",
)
TARGET, NAMED, PARTIAL, UNKEPT = "_target_", "_named_", "_partial_", "_unkept_"


def to_plain(node: Any, place: str) -> Any:
    """Plain values of a LazyConfig: classes, functions and partials as names, data classes as calls.

    What cannot be kept stands as `{UNKEPT: why}`, so that an option can still replace it; see `unkept`.
    """
    from omegaconf import DictConfig, OmegaConf

    if isinstance(node, DictConfig) and dataclasses.is_dataclass(OmegaConf.get_type(node)):
        node = OmegaConf.to_object(node)
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        fields = {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
        return {TARGET: _name(type(node)), **to_plain(fields, place)}
    if isinstance(node, (DictConfig, dict)):
        plain = {}
        for key, value in node.items():
            if key == TARGET:
                plain[key] = value if isinstance(value, str) else _name(value)
            else:
                plain[str(key)] = to_plain(value, f"{place}.{key}")
        return plain
    if isinstance(node, Sequence) and not isinstance(node, str | bytes):  # of omegaconf: lists, since 2.4 tuples
        return [to_plain(value, f"{place}.{index}") for index, value in enumerate(node)]
    if isinstance(node, functools.partial):
        if node.args:
            return {UNKEPT: "a partial with positional arguments; give them by name"}
        return {PARTIAL: _name(node.func), "with": to_plain(dict(node.keywords), place)}
    if callable(node):
        name = _name(node)
        return {NAMED: name} if isinstance(name, str) else name
    if node is None or isinstance(node, (str, int, float, bool)):
        return node
    return {UNKEPT: f"a {type(node).__name__} cannot be stored in a checkpoint; use numbers, text, lists"}


def unkept(node: Any, place: str = "model") -> list[str]:
    """What of a config a checkpoint could not carry, in words."""
    if isinstance(node, dict):
        if UNKEPT in node:
            return [f"{place}: {node[UNKEPT]}, or set {place} in model.detectron2.opts"]
        return [fault for key, value in node.items() for fault in unkept(value, f"{place}.{key}")]
    if isinstance(node, list):
        return [fault for index, value in enumerate(node) for fault in unkept(value, f"{place}.{index}")]
    return []


def _name(value: Any) -> str | dict[str, str]:
    """The name of a class or function, or why it has none that could be kept."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not module or not name or "<" in name:
        return {UNKEPT: f"{value!r} has no name that a checkpoint could keep; define it in a module"}
    dotted = f"{module}.{name}"
    try:
        _locate(dotted, "")
    except InputError as error:
        return {UNKEPT: str(error).removeprefix(": ")}
    return dotted


def _locate(dotted: Any, place: str) -> Callable[..., Any]:
    """The network module or part of a name, if it is one of detectron2's or torch's."""
    found = _find(dotted) if isinstance(dotted, str) else None
    name = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    is_module = inspect.isclass(found) and issubclass(found, nn.Module) and _is_trusted(name)
    # A name may lead through a module to anything that it imports; what is found there decides.
    if found is None or not (is_module or name in PARTS):
        raise InputError(
            f"{place}: {dotted} is no network module of detectron2 or torch ({', '.join(TRUSTED)}), nor one of a few "
            "parts of them; a checkpoint may name nothing else, since loading it would run that code"
        )
    return found


def _find(dotted: str) -> Any:
    """What a name means, or None; other packages are not even imported."""
    if not _is_trusted(dotted) and not dotted.startswith("torch.nn."):
        return None
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part, None)
        return found
    return None


def _is_trusted(name: str) -> bool:
    # mmdetection's wrapper builds whatever its registry knows.
    return name.startswith(tuple(f"{package}." for package in TRUSTED)) and ".mmdet_wrapper." not in name


def to_objects(node: Any, place: str = "model") -> Any:
    """Names back to classes and functions, for detectron2's `instantiate`."""
    if isinstance(node, list):
        return [to_objects(value, f"{place}.{index}") for index, value in enumerate(node)]
    if not isinstance(node, dict):
        return node
    if NAMED in node:
        return _locate(node[NAMED], place)
    if PARTIAL in node:
        return functools.partial(_locate(node[PARTIAL], place), **to_objects(node["with"], place))
    return {
        key: _locate(value, place) if key == TARGET else to_objects(value, f"{place}.{key}")
        for key, value in node.items()
    }
