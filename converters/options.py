"""Options of a converter: a pydantic model says each once, and the command line is made of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import reduce
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Self, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mammodet.data.splits import check_shares
from mammodet.errors import InputError


@dataclass(frozen=True, slots=True)
class Flag:
    """How a field stands on the command line; it stands in the field's `Annotated`.

    Attributes:
        name: without dashes, and after a blank another one; None: the field's.
        default: in words, where the field's default does not say it; "" says nothing.
        many: several values make the field's one; of a tuple that goes without saying.
        each: a flag of several values is given once for each, not once for all.
        const: what the flag means without a value.
    """

    help: str
    name: str | None = None
    metavar: str | None = None
    group: str | None = None
    default: str | None = None
    many: bool = False
    each: bool = False
    const: str | None = None


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How patients are divided: shares of patients, number of folds (0: none), seed of the shuffle."""

    test_fraction: Annotated[float, Flag("share of patients for test")] = 0.2
    val_fraction: Annotated[float, Flag("share of patients for validation")] = 0.16
    folds: Annotated[int, Flag("k folds over the patients outside the test set", default="none")] = 0
    seed: Annotated[int, Flag("seed of the splits")] = 0


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
    """What every converter is asked; a converter's own options are fields of a subclass.

    A field whose type is a dataclass gives the flags of its fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    splits: SplitOptions = SplitOptions()
    jobs: Annotated[int, Field(ge=1), Flag("images at a time")] = 2
    #: Whether a bar shows how far the work is.
    progress: bool = True

    def __init__(self, **values: Any) -> None:
        """Raises InputError, with every fault in terms of the command line."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            flags = {leaf.path: leaf for leaf in leaves(type(self))}
            raise InputError("\n".join(_fault(dict(each), flags) for each in error.errors())) from None

    @property
    def divides_test(self) -> bool:
        """Whether the test set is a share of the patients, and not given by the archive."""
        return True

    def check_splits(self) -> None:
        """Refuse shares and folds that no set of patients can meet."""
        chosen = self.splits
        test_fraction = chosen.test_fraction if self.divides_test else 0.0
        check_shares(test_fraction=test_fraction, val_fraction=chosen.val_fraction, folds=chosen.folds)

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


@dataclass(frozen=True, slots=True)
class Leaf:
    """A field with a flag: its place in the model, and its type without `Annotated`, `None` and `tuple`."""

    path: tuple[str, ...]
    flag: Flag
    kind: Any
    many: bool

    @property
    def dest(self) -> str:
        return "__".join(self.path)

    @property
    def text(self) -> str:
        return self.texts[0]

    @property
    def texts(self) -> list[str]:
        return [f"--{name.replace('_', '-')}" for name in (self.flag.name or self.path[-1]).split()]


def leaves(model: type, place: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """The fields of a model, and of dataclasses in it, that have a flag."""
    for name, hint in get_type_hints(model, include_extras=True).items():
        found = [each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Flag)]
        if found:
            kind, many = _kind(hint)
            yield Leaf((*place, name), found[0], kind, many or found[0].many)
        elif is_dataclass(hint) and isinstance(hint, type):
            yield from leaves(hint, (*place, name))


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


def add_arguments(parser: argparse.ArgumentParser, model: type[Options]) -> None:
    """Add the flags of a model to a command line; what is not given stays out of its namespace."""
    defaults = model()
    groups: dict[str, Any] = {}
    for leaf in leaves(model):
        flag = leaf.flag
        default = reduce(getattr, leaf.path, defaults)
        text = f"default: {flag.default}" if flag.default else f"{default}"
        if flag.default == "" or (flag.default is None and (default is None or default is False or default == ())):
            text = ""
        how: dict[str, Any] = {"dest": leaf.dest, "default": argparse.SUPPRESS}
        how["help"] = f"{flag.help} ({text})" if text else flag.help
        if leaf.kind is bool:
            how["action"] = "store_true"
        else:
            if flag.metavar or not get_args(leaf.kind):
                how["metavar"] = flag.metavar or leaf.path[-1].upper()
            if get_origin(leaf.kind) is Literal:
                how["choices"] = list(get_args(leaf.kind))
            elif leaf.kind in (int, float, Path):
                how["type"] = leaf.kind
            if leaf.many:
                how |= {"action": "append"} if flag.each else {"action": "extend", "nargs": "+"}
            if flag.const:
                how |= {"nargs": "?", "const": flag.const}
        if flag.group and flag.group not in groups:
            groups[flag.group] = parser.add_argument_group(flag.group)
        place = groups[flag.group] if flag.group else parser
        place.add_argument(*leaf.texts, **how)


def _fault(error: Mapping[str, Any], flags: Mapping[tuple[str, ...], Leaf]) -> str:
    """A fault in terms of the command line."""
    context, place = error.get("ctx") or {}, tuple(str(part) for part in error["loc"])
    if isinstance(context.get("error"), Exception):
        return str(context["error"])
    leaf = next((flags[place[:end]] for end in range(len(place), 0, -1) if place[:end] in flags), None)
    name = leaf.text if leaf else ".".join(place)
    expected = error["msg"]
    if error["type"] == "literal_error":
        expected = f"expected one of {context['expected'].replace(chr(39), '').replace(' or ', ', ')}"
    elif error["type"] == "greater_than_equal":
        unit = " px" if leaf and leaf.flag.metavar == "PX" else ""
        expected = f"expected at least {context['ge']}{unit}"
    return f"{name} {error['input']}: {expected}"
