"""LazyConfigs as plain values: classes and functions become names, and only names of modelling code are taken back.

So a checkpoint holds all of its network, and loading it runs no code of strangers.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from mammodet.errors import InputError

#: Prefixes of modules whose classes and functions a stored LazyConfig may name.
TRUSTED = ("detectron2.layers", "detectron2.modeling", "detectron2.projects", "detectron2.structures", "torch.nn")
TARGET, NAMED, PARTIAL = "_target_", "_named_", "_partial_"


def to_plain(node: Any, place: str) -> Any:
    """Plain values of a LazyConfig: classes, functions and partials as names, data classes as calls."""
    from omegaconf import DictConfig, ListConfig, OmegaConf

    if isinstance(node, DictConfig) and dataclasses.is_dataclass(OmegaConf.get_type(node)):
        node = OmegaConf.to_object(node)
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        fields = {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
        return {TARGET: _name(type(node), place), **to_plain(fields, place)}
    if isinstance(node, (DictConfig, dict)):
        plain = {}
        for key, value in node.items():
            if key == TARGET:
                plain[key] = value if isinstance(value, str) else _name(value, place)
            else:
                plain[str(key)] = to_plain(value, f"{place}.{key}")
        return plain
    if isinstance(node, (ListConfig, list, tuple)):
        return [to_plain(value, f"{place}.{index}") for index, value in enumerate(node)]
    if isinstance(node, functools.partial):
        if node.args:
            raise InputError(f"{place}: a partial with positional arguments; give them by name")
        return {PARTIAL: _name(node.func, place), "with": to_plain(dict(node.keywords), place)}
    if callable(node):
        return {NAMED: _name(node, place)}
    if node is None or isinstance(node, (str, int, float, bool)):
        return node
    raise InputError(f"{place}: a {type(node).__name__} cannot be stored in a checkpoint; use numbers, text, lists")


def _name(value: Any, place: str) -> str:
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not module or not name or "<" in name:
        raise InputError(f"{place}: {value!r} has no name that a checkpoint could keep; define it in a module")
    dotted = f"{module}.{name}"
    _locate(dotted, place)
    return dotted


def _locate(dotted: str, place: str) -> Callable[..., Any]:
    """The class or function of a name, if it is modelling code of detectron2 or torch."""
    refusal = InputError(
        f"{place}: {dotted} is not modelling code of detectron2 or torch ({', '.join(TRUSTED)}); a checkpoint may name "
        "nothing else, since loading it would run that code"
    )
    if not _is_trusted(dotted):
        raise refusal
    parts = dotted.split(".")
    found: Any = None
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part, None)
        break
    # The name may lead through a module to anything it imports; what it is decides.
    if not (inspect.isclass(found) or inspect.isroutine(found)) or not _is_trusted(str(found.__module__)):
        raise refusal
    return found


def _is_trusted(name: str) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in TRUSTED)


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
