"""Independent answers: functions by definition at 50 digits, and nested differentiation.

Nothing here uses the activation table or the recurrences. A definition is written as one would in
a book, in mpmath; its Taylor coefficients come from mpmath's own numerical differentiation at a
working precision high enough for all of the 50 digits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import mpmath
import torch
from mpmath import mp, mpf
from torch import Tensor

DIGITS = 50

Real = Any  # mpmath.mpf, which ships no annotations
Definition = Callable[[Real], Real]
# Maps the point to the function that is smooth around it: for a kink, the branch taken there.
Branches = Callable[[Real], Definition]


def smooth(f: Definition) -> Branches:
    """Return a definition that is the same formula everywhere."""
    return lambda _: f


def kink(left: Definition, right: Definition, at: float = 0.0) -> Branches:
    """Return a definition by cases, ``right`` where x > at and ``left`` elsewhere, the kink included."""
    return lambda x0: right if x0 > at else left


def _zero(x: Real) -> Real:
    return 0 * x


def _softplus(x: Real) -> Real:
    return mp.log1p(mp.exp(x)) if x < 0 else x + mp.log1p(mp.exp(-x))


def _logistic(x: Real) -> Real:
    return 1 / (1 + mp.exp(-x))


def _gelu_tanh(x: Real) -> Real:
    return x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mpf(0.044715) * x**3)))


def _elu(alpha: float, scale: float) -> Branches:
    return kink(lambda x: mpf(scale) * mpf(alpha) * mp.expm1(x), lambda x: mpf(scale) * x)


def _abs(x0: Real) -> Definition:
    return lambda x: mp.sign(x0) * x


def _bounded(low: float, high: float, scale: float = 1.0, shift: float = 0.0) -> Branches:
    """Return (min(max(x, low), high) + shift) / scale; at a bound the branch outside, a constant."""

    def branch(x0: Real) -> Definition:
        if low < x0 < high:
            return lambda x: (x + shift) / mpf(scale)
        return lambda x: 0 * x + (mpf(low if x0 <= low else high) + shift) / mpf(scale)

    return branch


def _hardswish(x0: Real) -> Definition:
    if -3 < x0 < 3:
        return lambda x: x * (x + 3) / 6
    return _zero if x0 <= -3 else lambda x: 1 * x


def _shrink(bound: float, shift: float) -> Branches:
    def branch(x0: Real) -> Definition:
        return (lambda x: x - mp.sign(x0) * shift) if abs(x0) > bound else _zero

    return branch


def _relu6(x0: Real) -> Definition:
    if x0 <= 0:
        return _zero
    return (lambda x: 1 * x) if x0 < 6 else (lambda x: 0 * x + 6)


SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805

DEFINITIONS: dict[str, Branches] = {
    "tanh": smooth(mp.tanh),
    "sigmoid": smooth(_logistic),
    "sin": smooth(mp.sin),
    "cos": smooth(mp.cos),
    "tan": smooth(mp.tan),
    "atan": smooth(mp.atan),
    "sinh": smooth(mp.sinh),
    "cosh": smooth(mp.cosh),
    "asinh": smooth(mp.asinh),
    "asin": smooth(mp.asin),
    "acos": smooth(mp.acos),
    "acosh": smooth(mp.acosh),
    "atanh": smooth(mp.atanh),
    "erfinv": smooth(mp.erfinv),
    "softsign": lambda x0: lambda x: x / (1 + mp.sign(x0) * x),
    "hardsigmoid": _bounded(-3.0, 3.0, 6.0, 3.0),
    "hardswish": _hardswish,
    "hardtanh[-1.0,1.0]": _bounded(-1.0, 1.0),
    "softshrink[0.5]": _shrink(0.5, 0.5),
    "hardshrink[0.5]": _shrink(0.5, 0.0),
    "threshold[0.5,-1.0]": kink(lambda x: 0 * x - 1, lambda x: 1 * x, at=0.5),
    "celu[2.0]": kink(lambda x: 2 * mp.expm1(x / 2), lambda x: 1 * x),
    "exp": smooth(mp.exp),
    "expm1": smooth(mp.expm1),
    "log": smooth(mp.log),
    "log1p": smooth(mp.log1p),
    "sqrt": smooth(mp.sqrt),
    "rsqrt": smooth(lambda x: 1 / mp.sqrt(x)),
    "reciprocal": smooth(lambda x: 1 / x),
    "square": smooth(lambda x: x * x),
    "identity": smooth(lambda x: 1 * x),
    "softplus": smooth(_softplus),
    "logsigmoid": smooth(lambda x: -_softplus(-x)),
    "silu": smooth(lambda x: x * _logistic(x)),
    "mish": smooth(lambda x: x * mp.tanh(_softplus(x))),
    "erf": smooth(mp.erf),
    "erfc": smooth(mp.erfc),
    "gelu": smooth(lambda x: x * mp.erfc(-x / mp.sqrt(2)) / 2),
    "gelu_tanh": smooth(_gelu_tanh),
    "gaussian": smooth(lambda x: mp.exp(-x * x)),
    "tanhshrink": smooth(lambda x: x - mp.tanh(x)),
    "relu": kink(_zero, lambda x: 1 * x),
    "abs": _abs,
    "relu6": _relu6,
    "elu[1.0,1.0]": _elu(1.0, 1.0),
    f"elu[{SELU_ALPHA!r},{SELU_SCALE!r}]": _elu(SELU_ALPHA, SELU_SCALE),
    "leaky_relu[0.01]": kink(lambda x: mpf(0.01) * x, lambda x: 1 * x),
    "relu_power[2]": kink(_zero, lambda x: x**2),
    "relu_power[3]": kink(_zero, lambda x: x**3),
    "power[2.5]": smooth(lambda x: x ** mpf(2.5)),
    "power[-2]": smooth(lambda x: x**-2),
    "power[3]": smooth(lambda x: x**3),
}


@cache
def taylor(definition: Branches, x0: float, order: int) -> tuple[Real, ...]:
    """Return the Taylor coefficients 0..order of a function at a point, to 50 digits."""
    with mp.workdps(DIGITS):
        point = mpf(x0)
        return tuple(+c for c in mpmath.taylor(definition(point), point, order))


def derived(series: Sequence[Real], times: int = 1) -> list[Real]:
    """Return the coefficients of a derivative."""
    result = list(series)
    for _ in range(times):
        result = [k * c for k, c in enumerate(result)][1:]
    return result


def truncated_product(a: Sequence[Real], b: Sequence[Real]) -> list[Real]:
    """Return the product of two equally long lists of coefficients, truncated to their length."""
    return [mp.fsum(a[j] * b[k - j] for j in range(k + 1)) for k in range(len(a))]


def compose_series(outer: Sequence[Real], inner: Sequence[Real]) -> list[Real]:
    """Return the coefficients of outer(inner(t)), with ``outer`` expanded around inner(0)."""
    moving = [mpf(0), *inner[1:]]
    total = [outer[-1], *[mpf(0)] * (len(inner) - 1)]
    for c in reversed(outer[:-1]):
        total = truncated_product(total, moving)
        total[0] += c
    return total


def taylor_of_composition(definition: Branches, inner: Sequence[float]) -> list[Real]:
    """Return the coefficients of σ(a(t)), a given by its floating coefficients, to 50 digits."""
    with mp.workdps(DIGITS):
        return compose_series(taylor(definition, inner[0], len(inner) - 1), [mpf(c) for c in inner])


def polygon(values: Sequence[Real]) -> list[Real]:
    """Return the smallest log-concave sequence above the absolute values (their Newton polygon).

    A Taylor coefficient may vanish by accident or by parity; rounding errors do not vanish with it,
    since they come from neighbours of the order and from the states. The polygon says how large a
    coefficient of that order is when nothing cancels.
    """
    points = [(k, mp.log(abs(v))) for k, v in enumerate(values) if v != 0]
    hull: list[tuple[int, Real]] = []
    for k, height in points:
        while len(hull) > 1:
            (i, low), (j, middle) = hull[-2:]
            if (middle - low) * (k - i) > (height - low) * (j - i):
                break
            hull.pop()
        hull.append((k, height))
    above = [mpf(0)] * len(values)
    for k, height in hull[:1]:
        above[k] = mp.exp(height)
    for (i, low), (j, high) in pairwise(hull):
        for k in range(i + 1, j + 1):
            above[k] = mp.exp(low + (high - low) * (k - i) / (j - i))
    return above


def nested_reverse(f: Callable[[Tensor], Tensor], order: int) -> list[Tensor]:
    """Return the Taylor coefficients 0..order at t = 0 of a tensor function of one scalar.

    By ``order`` nested reverse passes, without any Taylor rule. A pass differentiates w·f(t) in t
    for a symbolic cotangent w; the result is linear in w, and its gradient in w is the derivative
    of f, whatever the shape of f.
    """
    with torch.enable_grad():
        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        y = f(t)
        w = torch.zeros_like(y, requires_grad=True)
        pairing = (w * y).sum()
        values, factorial = [], 1.0
        for k in range(order + 1):
            factorial *= max(k, 1)
            (row,) = torch.autograd.grad(pairing, w, retain_graph=True, allow_unused=True)
            values.append(torch.zeros_like(y) if row is None else row / factorial)
            if k < order and pairing.requires_grad:
                (slope,) = torch.autograd.grad(pairing, t, create_graph=True, allow_unused=True)
                pairing = (0 * w).sum() if slope is None else slope + (0 * w).sum()
    return [value.detach() for value in values]
