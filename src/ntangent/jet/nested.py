"""One operation without a Taylor rule, by nested reverse mode: exact, and slow in the order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ntangent._base.errors import BackendError, MissingRule
from ntangent.jet.algebra import Algebra
from ntangent.jet.dispatch import FALLBACK, name_of
from ntangent.jet.series import Jet, common


def nested_operation(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the series of a function of jets by differentiating it along each line.

    The coefficients of the arguments are a polynomial curve in a scalar t; the coefficients of the
    result are the derivatives of t ↦ f(curve(t)) at 0, divided by k!. They stay attached to the
    graph of the arguments' coefficients and of constants.

    Args:
        function: the torch function.
        args: its positional arguments, with jets also inside lists, tuples and dicts.
        kwargs: its keyword arguments.

    Raises:
        BackendError: if the jets' rows are not those of lines.
        MissingRule: if the function's value differs from one call to the next (random numbers).

    Cost: grows about 2.5-fold with each order, once for each direction.
    """
    jets: list[Jet] = []
    _replace((args, kwargs), jets.append)
    order, directions = common(jets)
    if isinstance(directions, Algebra):
        raise BackendError(
            f"{name_of(function)} has no Taylor rule, and nested differentiation knows lines only",
            "the rows of this jet are those of several variables at once",
            f"register a rule: ntangent.extend.rule({name_of(function)})",
        )
    with torch.enable_grad():
        lines = [_line(function, args, kwargs, order, d) for d in range(directions or 1)]
    several, keep = isinstance(lines[0], tuple), torch.is_grad_enabled()
    columns = zip(*lines, strict=True) if several else [tuple(lines)]
    results = tuple(_joined(function, column, order, directions, keep) for column in columns)
    return results if several else results[0]


def _joined(function: Any, lines: tuple[Any, ...], order: int, directions: int | None, keep: bool) -> Any:
    """Return the jet of one result from its coefficients along each line."""
    if not isinstance(lines[0], list):
        return lines[0]
    if any(not torch.equal(line[0], lines[0][0]) for line in lines[1:]):
        raise MissingRule(
            f"{name_of(function)} gave two values for one argument",
            "a random function has no Taylor series",
            "net.eval()",
        )
    data = torch.stack([lines[0][0], *[line[k] for k in range(1, order + 1) for line in lines]])
    return Jet(data if keep else data.detach(), order, directions)


def _line(function: Any, args: Any, kwargs: Any, order: int, direction: int) -> Any:
    """Return the coefficients along one line: a list for a floating result, itself for any other."""
    t: Tensor | None = None

    def curve(jet: Jet) -> Tensor:
        nonlocal t
        if t is None:
            t = jet.data.new_zeros(()).requires_grad_()
        rows = [jet.data[0], *[jet.data[1 + k * jet.width + direction] for k in range(jet.degree)]]
        total = rows[-1]
        for row in reversed(rows[:-1]):
            total = total * t + row
        return total

    arguments, options = _replace((args, kwargs), curve)
    y = function(*arguments, **options)
    assert t is not None
    if isinstance(y, tuple | list):
        return tuple(_series(part, t, order) for part in y)
    return _series(y, t, order)


def _series(y: Any, t: Tensor, order: int) -> Any:
    """Return the Taylor coefficients of y at t = 0.

    Each pass differentiates w·y in t for a symbolic cotangent w; the result is linear in w, and its
    gradient in w is the derivative of y, whatever the shape of y.
    """
    if not (isinstance(y, Tensor) and y.is_floating_point()):
        return y
    w = torch.zeros_like(y, requires_grad=True)
    pairing, rows = (w * y).sum(), []
    for k in range(order + 1):
        (row,) = torch.autograd.grad(pairing, w, create_graph=True, allow_unused=True)
        rows.append(torch.zeros_like(y) if row is None else row)
        if k < order:
            slope = None
            if pairing.requires_grad:
                (slope,) = torch.autograd.grad(pairing, t, create_graph=True, allow_unused=True)
            # The k-th coefficient is the derivative divided by k!, one factor at a time.
            pairing = (0 * w).sum() if slope is None else slope / (k + 1) + (0 * w).sum()
    return rows


def _replace(value: Any, change: Callable[[Jet], Any]) -> Any:
    """Return a nest of lists, tuples and dicts with every jet replaced."""
    if isinstance(value, Jet):
        return change(value)
    if isinstance(value, dict):
        return {key: _replace(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        return type(value)([_replace(item, change) for item in value])
    return value


FALLBACK.append(nested_operation)
