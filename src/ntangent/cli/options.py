"""From the fields of a dataclass to the options of a command, and back from a stored configuration."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

import click

from ntangent._base.errors import ArgumentError, DtypeError
from ntangent.run.files import number

_SCALARS: dict[Any, click.ParamType[Any]] = {int: click.INT, float: click.FLOAT, str: click.STRING}


class _Items(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click only
    """Several values with commas between them."""

    name = "list"

    def __init__(self, item: click.ParamType[Any]) -> None:
        self.item = item
        self.name = f"{item.name},..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the values as a tuple."""
        if not isinstance(value, str):
            return tuple(value)
        return tuple(self.item.convert(part.strip(), param, ctx) for part in value.split(",") if part.strip())


def argument_texts(kind: type) -> dict[str, str]:
    """Return the description of each argument in the ``Args`` sections of a class and its bases."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        texts |= _own_texts(base)
    return texts


def _own_texts(kind: type) -> dict[str, str]:
    texts: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line in inspect.cleandoc(kind.__doc__ or "").splitlines():
        if not line.startswith(" ") and line.strip():
            inside = line.strip() == "Args:"
            continue
        entry = re.match(r"    (\w+(?:, \w+)*): (.*)", line) if inside else None
        if entry:
            names = entry[1].split(", ")
            texts.update(dict.fromkeys(names, entry[2].strip()))
        elif inside and line.strip():
            texts.update({name: f"{texts[name]} {line.strip()}" for name in names})
    return texts


def summary(kind: type) -> str:
    """Return the first paragraph of a class's docstring as one line."""
    return " ".join(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].split())


def fields(kind: type) -> list[dataclasses.Field[Any]]:
    """Return the fields that can be set; none where ``kind`` is not a dataclass."""
    return [f for f in dataclasses.fields(kind) if f.init] if dataclasses.is_dataclass(kind) else []


def build_options(kind: type, defaults: Mapping[str, Any], hidden: frozenset[str]) -> list[click.Option]:
    """Return an option for each field of a dataclass.

    Args:
        kind: the dataclass.
        defaults: values that replace the defaults of the fields.
        hidden: fields without an option.

    Raises:
        DtypeError: a field has a type that cannot be written on a command line.
        ArgumentError: a field has the name of a common option.
    """
    hints, texts = typing.get_type_hints(kind), argument_texts(kind)
    found = []
    for field in fields(kind):
        if field.name in hidden:
            continue
        name = field.name.strip("_").replace("_", "-")
        if name in RESERVED:
            raise ArgumentError(
                f"the field {field.name!r} of {kind.__name__} cannot become an option",
                f"every problem has a common option --{name}",
                f"{field.name}_of_problem: ...",
            )
        settings: dict[str, Any] = {"help": _sentence(texts.get(field.name, "")), "show_default": True}
        default = defaults.get(field.name, _default(field))
        if default is dataclasses.MISSING:
            settings["required"] = True
        elif default is not None:
            settings["default"] = default
        if hints[field.name] is bool:
            found.append(click.Option([f"--{name}/--no-{name}", field.name], **settings))
            continue
        kind_of_value = _parameter(hints[field.name], f"{kind.__name__}.{field.name}")
        if isinstance(kind_of_value, _Items) and default is not dataclasses.MISSING and default is not None:
            settings["default"] = ",".join(str(item) for item in default)
        found.append(click.Option([f"--{name}", field.name], type=kind_of_value, **settings))
    return found


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _optional(hint: Any) -> Any:
    """Return T for T | None, and any other annotation as it is."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [part for part in typing.get_args(hint) if part is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return hint


def _parameter(hint: Any, where: str) -> click.ParamType[Any]:
    hint = _optional(hint)
    if hint in _SCALARS:
        return _SCALARS[hint]
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal and all(isinstance(choice, str) for choice in arguments):
        return click.Choice(arguments)
    if typing.get_origin(hint) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _Items(_parameter(arguments[0], where))
    raise DtypeError(
        f"{where} is annotated as {hint}",
        "an option is a bool, int, float, str, a Literal of strings, a tuple[T, ...] of them, or T | None",
        f"{where.rpartition('.')[2]}: float = 1.0",
    )


def stored_options(kind: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a stored configuration, as the dataclass takes them.

    Names that the dataclass does not know are left out: the comparison of configurations names them.
    """
    hints = typing.get_type_hints(kind)
    return {f.name: _decode(stored[f.name], hints[f.name]) for f in fields(kind) if f.name in stored}


def _decode(value: Any, hint: Any) -> Any:
    hint = _optional(hint)
    if isinstance(value, list) and typing.get_origin(hint) is tuple:
        return tuple(_decode(item, typing.get_args(hint)[0]) for item in value)
    return number(value) if hint is float else value


# Common options of every problem, by name.
RESERVED = frozenset(
    {
        "run-dir",
        "resume",
        "overwrite",
        "json",
        "quiet",
        "monitor",
        "monitor-every",
        "no-report",
        "checkpoint-every",
        "threads",
        "traceback",
        "help",
    }
)
