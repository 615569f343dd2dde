"""Taylor rules of functions that are put together from others: two arguments, other bases, sinc."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ntangent._base.errors import MissingRule
from ntangent.jet import activations as table
from ntangent.jet.dispatch import RULES, rule
from ntangent.jet.layers import activate, where
from ntangent.jet.series import Jet, lift, multiply
from ntangent.jet.shapes import both, total


def _log(x: Jet) -> Jet:
    return activate(x, table.LOG)


def _scale(x: Jet, factor: float) -> Jet:
    return x.map_rows(lambda rows: rows * factor)


def _exact(series: Jet, value: Tensor) -> Jet:
    """Return the series with an order 0 that differs by a constant, or by rounding."""
    return series + (value - series.value).detach()


@rule(*both("log2"))
def _log2(input: Jet) -> Jet:
    return _exact(_scale(_log(input), 1 / math.log(2.0)), torch.log2(input.value))


@rule(*both("log10"))
def _log10(input: Jet) -> Jet:
    return _exact(_scale(_log(input), 1 / math.log(10.0)), torch.log10(input.value))


@rule(*both("exp2"), torch.special.exp2)
def _exp2(input: Jet) -> Jet:
    return activate(_scale(input, math.log(2.0)), table.EXP)


@rule(*both("logit"), torch.special.logit)
def _logit(input: Jet, eps: float | None = None) -> Any:
    x: Any = input if eps is None else torch.clamp(input, eps, 1 - eps)  # type: ignore[call-overload]
    return _log(x) - activate(-x, table.LOG1P)


@rule(*both("hypot"))
def _hypot(input: Any, other: Any) -> Any:
    return torch.sqrt(torch.square(input) + torch.square(other))


@rule(*both("atan2", "arctan2"))
def _atan2(input: Any, other: Any) -> Jet:
    """Return the angle: the arc tangent of the smaller coordinate over the larger, and a constant.

    The quotient is at most 1, so the rule holds on both axes; at the origin there is no series.
    """
    like = input if isinstance(input, Jet) else other
    y, x = (v if isinstance(v, Jet) else lift(v, like) for v in (input, other))
    wide = x.value.abs() > y.value.abs()
    quotient: Any = where(wide, y, -x) / where(wide, x, y)
    return _exact(activate(quotient, table.ATAN), torch.atan2(y.value, x.value))


@rule(*both("xlogy"), torch.special.xlogy)
def _xlogy(input: Any, other: Any) -> Any:
    """Return x·log(y), and 0 where x is a constant zero (a series that vanishes needs y > 0)."""
    if isinstance(input, Jet):
        return input * torch.log(other if isinstance(other, Jet) else lift(other, input).value)  # type: ignore[arg-type]
    factor = lift(input, other).value
    safe = where(factor == 0, 1.0, other)
    return multiply(lift(factor, other), _log(safe))


@rule(*both("sinc"), torch.special.sinc)
def sinc(input: Jet) -> Jet:
    """Return sin(πx) / (πx).

    No polynomial differential equation of it is regular at 0. Where |πx| exceeds the order, and
    division by x amplifies nothing, it is the quotient; elsewhere the integral of cos(πxu) over u
    from 0 to 1, by Gauss-Legendre quadrature, exact to rounding: 20 + order cosines.
    """
    far = input.value.abs() * math.pi > input.order + 1
    outside = where(far, input, 1.0)
    quotient = multiply(
        activate(_scale(outside, math.pi), table.SIN), activate(_scale(outside, math.pi), table.RECIPROCAL)
    )
    nodes, weights = _gauss(20 + input.order)
    points, weight = (input.data.new_tensor(v) for v in (nodes, weights))
    inside = where(far, 0.0, input)
    angles = inside.map_rows(lambda rows: rows.unsqueeze(-1) * (math.pi * points))
    integral = total(activate(angles, table.COS) * weight, -1)
    return where(far, quotient, integral)


def _gauss(count: int) -> tuple[list[float], list[float]]:
    """Return nodes and weights of Gauss-Legendre quadrature on (0, 1), by Golub and Welsch."""
    k = torch.arange(1, count, dtype=torch.float64)
    off = k / torch.sqrt(4 * k * k - 1)
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return ((nodes + 1) / 2).tolist(), (vectors[0] ** 2).tolist()


# Other names of functions that have a rule.
_SAME: dict[Any, list[Any]] = {
    torch.atan: both("arctan"),
    torch.asinh: both("arcsinh"),
    torch.neg: both("negative"),
    torch.sub: both("subtract"),
    torch.mul: both("multiply"),
    torch.div: both("divide", "true_divide"),
    torch.expm1: [torch.special.expm1],
    torch.log1p: [torch.special.log1p],
    torch.erf: [torch.special.erf],
    torch.erfc: [torch.special.erfc],
}
for _function, _others in _SAME.items():
    rule(*(other for other in _others if other not in RULES))(RULES[_function])


@rule(*both("positive"))
def _positive(input: Jet) -> Jet:
    return input


@rule(torch.special.entr)
def _entr(input: Jet) -> Any:
    if bool((input.value <= 0).any()):
        raise MissingRule("entr has no Taylor series at zero and below", "", "-x * torch.log(x)")
    return -input * _log(input)
