"""YAML over its `_base_` over the defaults, then `key=value` overrides; all faults are listed at once."""

import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from mammodet.config.detector import AggregationConfig
from mammodet.config.detectron2 import DETECTRON2_KEYS
from mammodet.config.experiment import MODELS, Config
from mammodet.errors import InputError, raise_faults, short_repr
from mammodet.files import check_tree, load_yaml


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file over its `_base_`, apply `key.key=value` overrides, and check everything.

    `_base_` is a path beside the file. Values of overrides are read as YAML (`null`, `true`, `[1, 2]`, numbers, text).
    Users of detectron2 may write `KEY VALUE` and upper case.

    Args:
        path: a file, or the name of a config that comes with the package, such as `mias/mask_rcnn_r50_fpn`.

    Raises:
        InputError: with all faults at once.
    """
    values = read_yaml(find_config(path)) if path is not None else {}
    for key, text in _pairs(overrides):
        override = f"{key}={text}"
        try:
            value = yaml.safe_load(text)
            check_tree(value, f"override {key}", most=10**5)
        except InputError:
            raise
        except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date such as 2026-13-01
            raise InputError(f"override {override!r}: {text!r} is not a YAML value") from None
        _put(values, key.split("."), value, override)
    return make_config(values, where=str(path or "the defaults"))


def find_config(path: Path) -> Path:
    """The file itself, or the config of this name that comes with the package, with or without `configs/` and `.yaml`.

    Raises InputError: there is neither.
    """
    if path.exists():
        return path
    shipped = next(folder for place in Path(__file__).parents[1:3] if (folder := place / "configs").is_dir())
    name = path.as_posix().removeprefix("configs/").removesuffix(".yaml")
    if not path.is_absolute() and (found := shipped / f"{name}.yaml").is_file():
        return found
    names = [each.relative_to(shipped).with_suffix("").as_posix() for each in sorted(shipped.glob("**/*.yaml"))]
    near = [each for each in names if name in each] or difflib.get_close_matches(name, names)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise InputError(f"{path}: no such file, and mammodet has no config of that name; {hint}docs/config.md lists them")


def _pairs(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Key and value of each override, `KEY=VALUE` or `KEY VALUE`, under our names."""
    items = iter(overrides)
    for item in items:
        key, found, text = item.partition("=")
        value = text if found else next(items, None)
        if not key or value is None:
            raise InputError(f"override {item!r}: expected KEY=VALUE, for instance train.lr=0.01")
        yield (DETECTRON2_KEYS.get(key, key.lower()) if key == key.upper() else key), value


def make_config(values: Mapping[str, Any], *, where: str, stored: bool = False) -> Config:
    """Check plain values; those `stored` in a checkpoint of version 0.1 name the keys of both kinds of models."""
    model = values.get("model")
    # A run's config.yaml of version 0.1, the only file that names all of these.
    if isinstance(model, dict) and (stored or {"detector", "detectron2", "image_head", "classifier"} <= model.keys()):
        values = {**values, "model": _without_other_kind(model)}
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        faults = [_explain(dict(item)) for item in error.errors()]
        raise_faults(faults, where=f"config {where}", advice="docs/config.md lists every key.")
        raise


def _without_other_kind(model: dict[str, Any]) -> dict[str, Any]:
    """A model's settings without those of the other kind, which had no effect."""
    if (mine := MODELS.get(str(model.get("kind", "detector")))) is None:
        return model
    other = {key for each in MODELS.values() for key in each.model_fields} - mine.model_fields.keys()
    kept = {key: value for key, value in model.items() if key not in other}
    if isinstance(rules := kept.get("aggregation"), dict):
        known = mine.model_fields["aggregation"].default.model_dump().keys()
        usual = AggregationConfig.model_fields.keys()
        kept["aggregation"] = {key: value for key, value in rules.items() if key in known or key not in usual}
    return kept


def changes(then: Any, now: Any, place: str = "") -> list[tuple[str, Any, Any]]:
    """Key and both values of every setting in which two configs (as plain values) differ."""
    if isinstance(then, dict) and isinstance(now, dict):
        found = []
        for key in sorted({*then, *now}):
            found += changes(then.get(key), now.get(key), f"{place}.{key}".lstrip("."))
        return found
    return [] if then == now else [(place, then, now)]


def differences(then: Any, now: Any, place: str = "") -> list[str]:
    """The same as lines `key then -> now`."""
    return [f"{key} {before!r} -> {after!r}" for key, before, after in changes(then, now, place)]


def read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys and values of a YAML file over those of its `_base_`; `seen`: the files that led here.

    Raises InputError: missing, not YAML, or not keys and values.
    """
    path = Path(path)
    if path.resolve() in seen:
        raise InputError(f"{path}: its _base_ leads back to itself")
    values = load_yaml(path)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds a {type(values).__name__}; expected keys and values")
    base = values.pop("_base_", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise InputError(f"{path}: _base_ is {short_repr(base)}; expected the path of one YAML file beside it")
    return _merge(read_yaml(path.parent / str(base), (*seen, path.resolve())), values)


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def _put(values: dict[str, Any], keys: Sequence[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        below = values.setdefault(key, {})
        if not isinstance(below, dict):
            raise InputError(f"override {override!r}: {key!r} is a value, not a section")
        values = below
    values[keys[-1]] = value


def _explain(error: dict[str, Any]) -> str:
    # "(...)": the tag of a value that may be of several kinds
    place = [part for part in error["loc"] if isinstance(part, int) or (isinstance(part, str) and part[:1] != "(")]
    key = ".".join(str(part) for part in place)
    if error["type"] == "extra_forbidden":
        return f"{key}: {_unknown(place, [str(part) for part in error['loc']])}"
    if error["type"] == "union_tag_invalid":
        return f"{key}.kind: {error['ctx']['tag'][1:-1]!r:.60}: expected {' or '.join(MODELS)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "model_type":
        message = "expected a section of keys"
    elif error["type"] == "path_type":
        message = "expected a path"
    if "input" in error and not isinstance(error["input"], dict):
        return f"{key}: {short_repr(error['input'])}: {message}"
    return f"{key}: {message}" if key else message


def _unknown(place: Sequence[str | int], tagged: Sequence[str]) -> str:
    """What to do about an unknown key, given as its parts, without and with the tags of values of several kinds."""
    name = str(place[-1])
    if len(place) == 1 and (places := list(dict.fromkeys(_places_of(name)))):
        return f"unknown key; did you mean {' or '.join(places)}?"
    kind = next((part[1:-1] for part in tagged if part[:1] == "(" and part[1:-1] in MODELS), None)
    other = next((each for each in MODELS if each != kind and name in MODELS[each].model_fields), None)
    if kind is not None and len(place) == 2 and other is not None:
        return f"is for {other}s (model.kind={other}), and this model is a {kind}; leave it out"
    known = _fields_at(place[:-1], kind)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"unknown key; did you mean {near[0]!r}?" if near else f"unknown key; known here: {', '.join(known)}"


def _fields_at(place: Sequence[str | int], kind: str | None) -> list[str]:
    model: type[BaseModel] = Config
    members: type[BaseModel] | None = None
    for part in place:
        if isinstance(part, int):  # a position in a list of sections
            continue
        if members is not None:  # a name of the user's, in a dict of sections
            model, members = members, None
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if typing.get_origin(annotation) is dict:
            members = typing.get_args(annotation)[1]
            continue
        sections = [MODELS[kind]] if model is Config and part == "model" and kind else list(_sections_in(annotation))
        if not sections:
            return []
        model = sections[0]
    return list(model.model_fields)


def _places_of(name: str, model: type[BaseModel] = Config, above: str = "") -> Iterator[str]:
    """The keys that end in this name."""
    for field, info in model.model_fields.items():
        if field == name and above:
            yield above + field
        if typing.get_origin(info.annotation) is not dict:
            for section in _sections_in(info.annotation):
                yield from _places_of(name, section, f"{above}{field}.")


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a type holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for item in typing.get_args(annotation):
        yield from _sections_in(item)
