"""Functions of a user take their arguments by name: fields, parameters, coordinates."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_finite
from ntangent._base.errors import DtypeError, ProblemError, ShapeError

Scope = Mapping[str, Any]
Bound = Callable[[Scope], Any]
PARAMETERS = "p"


def bind(
    function: Any, fields: Sequence[str], coordinates: Sequence[str], what: str = "an equation"
) -> Bound:
    """Return a function of named values that calls ``function`` with those it takes.

    Names of fields, ``p`` for the parameters and names of coordinates are taken in any order.
    With a single field the first argument is that field whatever its name, the second the
    parameters; with a single coordinate the third is the coordinate.

    Raises:
        ProblemError: if an argument is none of them.
    """
    fix = f"lambda {', '.join(fields)}, p, {', '.join(coordinates)}: {fields[0]}.{coordinates[0]} + p.k"
    if not callable(function):
        raise ProblemError(f"{what} is {function!r}", "it is a function of the fields", fix)
    positional = [*fields, PARAMETERS, *coordinates]
    try:
        given = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return lambda scope: function(scope[fields[0]])
    if any(p.kind is p.VAR_POSITIONAL for p in given):
        return lambda scope: function(*[scope[name] for name in positional])
    needed = [p for p in given if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    if not needed:
        raise ProblemError(
            f"{what} takes 0 arguments without a default", "it is a function of the fields", fix
        )
    keys, named = [], {}
    for place, parameter in enumerate(needed):
        keyword = parameter.kind is parameter.KEYWORD_ONLY
        key = _key(parameter.name, 3 if keyword else place, fields, coordinates)
        if key is None:
            raise ProblemError(
                f"{what} takes {len(needed)} argument(s): {', '.join(p.name for p in needed)}; "
                f"{parameter.name!r} is none of {', '.join(positional)}",
                "it is called with fields, parameters (p) and coordinates by their names",
                fix,
            )
        if keyword:
            named[parameter.name] = key
        else:
            keys.append(key)
    if not named:
        return lambda scope: function(*[scope[key] for key in keys])
    return lambda scope: function(
        *[scope[key] for key in keys], **{name: scope[key] for name, key in named.items()}
    )


def _key(name: str, place: int, fields: Sequence[str], coordinates: Sequence[str]) -> str | None:
    if name == PARAMETERS or name in fields or name in coordinates:
        return name
    if len(fields) == 1 and place < 2:
        return (fields[0], PARAMETERS)[place]
    if len(fields) == len(coordinates) == 1 and place == 2:
        return coordinates[0]
    return None


def at_points(value: Any, coordinates: Sequence[str], points: Tensor, what: str = "value") -> Any:
    """Return a given value: itself, or what a function of the coordinates gives at points.

    A function takes coordinates by their names, each of shape (N, 1); one whose only argument has
    another name takes the points, (N, d).
    """
    if not callable(value):
        return value
    columns = {name: points[:, i : i + 1] for i, name in enumerate(coordinates)}
    try:
        given = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return value(points)
    needed = [
        p.name for p in given if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    if needed and all(name in columns for name in needed):
        return value(**{name: columns[name] for name in needed})
    if len(needed) <= 1:
        return value(points)
    if len(needed) == len(coordinates):
        return value(*columns.values())
    raise ProblemError(
        f"the function of {what} takes {', '.join(needed)}",
        f"it is called with coordinates by name: {', '.join(coordinates)}",
        f"lambda {', '.join(coordinates)}: {coordinates[0]}",
    )


def numbers(value: Any, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return real finite numbers as a tensor outside any graph."""
    try:
        tensor = torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else dtype, device=device)
        if tensor.is_complex():
            raise TypeError
    except (TypeError, ValueError, RuntimeError):
        raise DtypeError(
            f"{name} must be one or several numbers, got {value!r}", "", "numbers or a tensor of them"
        ) from None
    return check_finite(tensor.detach().to(dtype), name)


def per_component(value: Any, coordinates: Sequence[str], points: Tensor, components: int) -> Tensor:
    """Return a prescribed value (number, tensor or function of the coordinates), shape (c, N).

    Raises:
        ShapeError: if it fits neither one number, nor one for each point (and component).
    """
    tensor = numbers(at_points(value, coordinates, points), "value", points.dtype, points.device)
    count, shape = len(points), tuple(tensor.shape)
    if tensor.numel() == 1:
        return tensor.reshape(1, 1).expand(components, count)
    if shape == (count, components):
        return tensor.T
    if components == 1 and shape == (count,):
        return tensor[None]
    if shape in ((components,), (1, components)):
        return tensor.reshape(-1, 1).expand(components, count)
    expected = (
        "one for each point" if components == 1 else f"{components} for each point, ({count}, {components})"
    )
    raise ShapeError(
        f"the prescribed value has shape {shape} at {count} point(s)",
        f"it is one number, or {expected}; a function takes the coordinates by name",
        f"value=lambda {', '.join(coordinates)}: torch.sin({coordinates[0]})",
    )
