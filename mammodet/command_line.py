"""Options that are said once: a pydantic model checks what a program gives, and makes the command line."""

from __future__ import annotations

import argparse
import types
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from mammodet.errors import InputError


class Options(BaseModel):
    """Options of a command: field `per_lesion` is `--per-lesion`, and its description the help.

    A value that does not fit raises an InputError with all faults: flag, value, and what was expected. Validators raise
    a ValueError with the whole message.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError("\n".join(_explain(type(self), dict(item)) for item in error.errors())) from None


Model = TypeVar("Model", bound=Options)
_Group = argparse._ActionsContainer


def flag(name: str) -> str:
    """`--per-lesion` for `per_lesion`."""
    return f"--{name.replace('_', '-')}"


def add_options(parser: _Group, model: type[Options], *, leave_out: Collection[str] = ()) -> None:
    """A flag for each field of a model; what is not given is not in the parsed namespace."""
    for name in model.model_fields:
        if name not in leave_out:
            add_option(parser, model, name)


def add_option(parser: _Group, model: type[Options], name: str, *, before: str = "", after: str = "") -> None:
    """A flag for one field; `before` and `after` stand around its help."""
    field = model.model_fields[name]
    kind, several = _kind(field.annotation)
    text = before + (field.description or "")
    if field.default not in (None, False, (), "") and not field.is_required():
        text += f" ({field.default}{after})"
    settings: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "required": field.is_required()}
    if kind is bool:
        settings["action"] = "store_true"
    elif get_origin(kind) is Literal:
        settings["choices"] = get_args(kind)
    else:
        settings |= {"type": kind, "metavar": "N" if kind is int else name.split("_")[-1].upper()}
    if several:  # none at all is another thing than no flag where there is a default
        settings |= {"nargs": "*" if field.default is None else "+", "action": "extend"}
    parser.add_argument(flag(name), help=text.replace("%", "%%"), **settings)


def chosen_options(model: type[Model], chosen: argparse.Namespace, **more: Any) -> Model:
    """The options of a parsed command line, and `more` that it says in another way.

    Raises:
        InputError: with everything that does not fit.
    """
    given = {name: value for name, value in vars(chosen).items() if name in model.model_fields}
    return model(**given | more)


def _kind(annotation: Any) -> tuple[Callable[[str], Any] | Any, bool]:
    """What one value is, and whether there may be several of them."""
    if get_origin(annotation) in (Union, types.UnionType):
        return _kind(next(one for one in get_args(annotation) if one is not types.NoneType))
    if get_origin(annotation) is tuple:
        return _kind(get_args(annotation)[0])[0], True
    return annotation, False


def _explain(model: type[Options], item: dict[str, Any]) -> str:
    if not item["loc"]:
        return str(item["msg"]).removeprefix("Value error, ")
    name = str(item["loc"][0])
    field = model.model_fields.get(name)
    if field is None:
        return f"{flag(name)}: no such option; expected some of {', '.join(map(flag, model.model_fields))}"
    if item["type"] == "value_error":
        return str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "missing":
        return f"{flag(name)}: is missing"
    value = item["input"] if isinstance(item["input"], str | int | float) else repr(item["input"])
    return f"{flag(name)} {value}: expected {_expected(field)}"


def _expected(field: FieldInfo) -> str:
    kind, _ = _kind(field.annotation)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    names: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
    words = names.get(kind, "text")
    low = next(
        (str(item.ge if isinstance(item, Ge) else item.gt) for item in field.metadata if isinstance(item, Ge | Gt)), ""
    )
    high = next(
        (str(item.le if isinstance(item, Le) else item.lt) for item in field.metadata if isinstance(item, Le | Lt)), ""
    )
    if low and high:
        return f"{words} from {low} to {high}"
    return f"{words} of {low} or more" if low else f"{words} of {high} or less" if high else words


__all__ = ["Options", "add_option", "add_options", "chosen_options", "flag"]
