"""Options that are said once: a pydantic model checks what a program gives, and makes the command line."""

import argparse
import dataclasses
from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mammodet.errors import InputError


@dataclasses.dataclass(frozen=True, slots=True)
class Flag:
    """How a field stands on the command line (`flag`)."""

    name: str | None
    metavar: str | None
    group: str | None
    words: str | None
    many: bool
    each: bool
    const: str | None


def flag(
    default: Any,
    help_text: str,
    *,
    name: str | None = None,
    metavar: str | None = None,
    group: str | None = None,
    words: str | None = None,
    many: bool = False,
    each: bool = False,
    const: str | None = None,
    **checks: Any,
) -> Any:
    """A field of options that stands on the command line.

    Args:
        name: without dashes, and after a blank another one; None: the field's.
        words: what the default is, where its value does not say it; "" says nothing.
        many: several values make the field's one; of a tuple that goes without saying.
        each: a flag of several values is given once for each, not once for all.
        const: what the flag means without a value.
        checks: of pydantic's `Field`: `ge`, ...
    """
    extra: Any = {"flag": Flag(name, metavar, group, words, many, each, const)}
    return Field(default, description=help_text, json_schema_extra=extra, **checks)


Pairs = tuple[tuple[str, str], ...]


def pairs(option: str, *, empty: bool = False) -> BeforeValidator:
    """Reads texts `NAME=VALUE` as pairs; `empty`: a value may be."""

    def read(values: Any) -> Any:
        found: dict[str, str] = {}
        for text in values:
            if not isinstance(text, str):
                return values
            left, sign, right = (part.strip() for part in text.partition("="))
            if not sign or not left or not (right or empty):
                raise InputError(f"{option} {text!r}: expected {'OLD=NEW, or OLD=' if empty else 'NAME=VALUE'}")
            if left in found:
                raise InputError(f"{option} {text!r}: {left!r} is said twice")
            found[left] = right
        return tuple(found.items())

    return BeforeValidator(read)


class Options(BaseModel):
    """Options of a command: field `per_lesion` is `--per-lesion` (`flag`).

    A field whose type is a dataclass gives the flags of its fields. Validators raise a ValueError with the message.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def __init__(self, **values: Any) -> None:
        """Raises InputError, with every fault in terms of the command line."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            flags = {leaf.path: leaf for leaf in leaves(type(self))}
            raise InputError("\n".join(_fault(dict(each), flags) for each in error.errors())) from None

    @classmethod
    def of(cls, chosen: argparse.Namespace) -> Self:
        """The options of a command line that `add_arguments` has read."""
        values: dict[str, Any] = {}
        for leaf in leaves(cls):
            if hasattr(chosen, leaf.dest):
                *parents, name = leaf.path
                place = values
                for parent in parents:
                    place = place.setdefault(parent, {})
                place[name] = getattr(chosen, leaf.dest)
        return cls(**values)


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """A field with a flag: its place in the model, its type without `None` and `tuple`, and its limits."""

    path: tuple[str, ...]
    help_text: str
    flag: Flag
    kind: Any
    many: bool
    limits: tuple[Any, ...]

    @property
    def dest(self) -> str:
        return "__".join(self.path)

    @property
    def names(self) -> list[str]:
        return [f"--{name.replace('_', '-')}" for name in (self.flag.name or self.path[-1]).split()]


def leaves(model: Any, place: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """The fields of a model, and of pydantic's dataclasses in it, that have a flag."""
    for name, field in model.__pydantic_fields__.items():
        extra = field.json_schema_extra or {}
        if "flag" in extra:
            kind, many = _kind(field.annotation)
            limits = tuple(field.metadata)
            yield Leaf((*place, name), field.description, extra["flag"], kind, many or extra["flag"].many, limits)
        elif hasattr(field.annotation, "__pydantic_fields__"):
            yield from leaves(field.annotation, (*place, name))


def _kind(hint: Any) -> tuple[Any, bool]:
    """The type of one value, and whether there can be several."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _kind(inner[0])
    if origin is tuple:
        return _kind(inner[0])[0], True
    if NoneType in inner:
        kinds = [each for each in inner if each is not NoneType]
        return _kind(kinds[0]) if len(kinds) == 1 else (str, False)
    return hint, False


def add_arguments(parser: argparse.ArgumentParser, model: type[Options], *, leave_out: tuple[str, ...] = ()) -> None:
    """Add the flags of a model to a command line; what is not given stays out of its namespace."""
    defaults = model()
    groups: dict[str, Any] = {}
    for leaf in leaves(model):
        if leaf.path[-1] in leave_out:
            continue
        group = leaf.flag.group
        if group and group not in groups:
            groups[group] = parser.add_argument_group(group)
        add_argument(groups[group] if group else parser, leaf, reduce(getattr, leaf.path, defaults))


def add_argument(place: Any, leaf: Leaf, default: Any, *, before: str = "", after: str = "") -> None:
    """Add one flag to a parser or a group; `before` stands before its help, `after` behind its default."""
    said = leaf.flag
    text = f"default: {said.words}" if said.words else f"{default}{after}"
    if said.words == "" or (said.words is None and (default is None or default is False or default == ())):
        text = ""
    how: dict[str, Any] = {"dest": leaf.dest, "default": argparse.SUPPRESS}
    how["help"] = before + (f"{leaf.help_text} ({text})" if text else leaf.help_text).replace("%", "%%")
    if leaf.kind is bool:
        how["action"] = "store_true"
    else:
        if said.metavar or not get_args(leaf.kind):
            how["metavar"] = said.metavar or ("N" if leaf.kind is int else leaf.path[-1].split("_")[-1].upper())
        if get_origin(leaf.kind) is Literal:
            how["choices"] = list(get_args(leaf.kind))
        elif leaf.kind in (int, float, Path):
            how["type"] = leaf.kind
        if leaf.many:  # none at all is another thing than no flag where the default is None
            how |= {"action": "append"} if said.each else {"action": "extend", "nargs": "*" if default is None else "+"}
        if said.const:
            how |= {"nargs": "?", "const": said.const}
    place.add_argument(*leaf.names, **how)


def _fault(error: Mapping[str, Any], flags: Mapping[tuple[str, ...], Leaf]) -> str:
    """A fault in terms of the command line."""
    context, place = error.get("ctx") or {}, tuple(str(part) for part in error["loc"])
    if isinstance(context.get("error"), Exception):
        return str(context["error"])
    leaf = next((flags[place[:end]] for end in range(len(place), 0, -1) if place[:end] in flags), None)
    if leaf is None and error["type"] == "extra_forbidden":
        known = ", ".join(each.names[0] for each in flags.values())
        return f"--{'.'.join(place).replace('_', '-')}: no such option; expected some of {known}"
    if leaf is None:
        return f"{'.'.join(place)} {error['input']}: {error['msg']}"
    return f"{leaf.names[0]} {error['input']}: expected {_expected(leaf)}"


def _expected(leaf: Leaf) -> str:
    if get_origin(leaf.kind) is Literal:
        return f"one of {', '.join(map(str, get_args(leaf.kind)))}"
    words = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}.get(leaf.kind, "text")
    unit = " px" if leaf.flag.metavar == "PX" else ""
    limits = {
        key: str(getattr(each, key)) for each in leaf.limits for key in ("ge", "gt", "le", "lt") if hasattr(each, key)
    }
    low, high = limits.get("ge", limits.get("gt", "")), limits.get("le", limits.get("lt", ""))
    if low and high:
        return f"{words} from {low} to {high}{unit}"
    return f"{words} of {low}{unit} or more" if low else f"{words} of {high}{unit} or less" if high else words
