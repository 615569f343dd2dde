"""The activation table: one row per function, written as a polynomial differential equation.

A row says how its states start, z(x0), and how they move, dz/dx = P(z, x); the activation is
y = O(z, x) with polynomial P and O. From that one row follow the Taylor recurrence of any order,
all derivatives of the activation, and the generated kernels.

At a kink (ReLU and its relatives) the branch is chosen by the value of the argument, with the
convention of PyTorch's own gradients: the left branch at the kink itself, sign(0) = 0 for ``abs``.
Derivatives of order two and higher then ignore the jump: they are those of the branch.

Sources: Griewank & Walther, Evaluating Derivatives, 2nd ed., section 13.2 (the recurrences).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ntangent._base.registry import Registry
from ntangent.jet.polynomial import Polynomial, variables
from ntangent.jet.row import Activation as Activation
from ntangent.jet.row import States as States
from ntangent.jet.row import evaluate as evaluate

ACTIVATIONS: Registry[Activation] = Registry("activation")


def _row(
    name: str, states: int, write: Callable[..., tuple[list[Polynomial], Polynomial]], **kwargs: Any
) -> Activation:
    flow, output = write(*variables(states))
    return Activation(name, flow=tuple(flow), output=output, **kwargs)


def _add(
    name: str, states: int, write: Callable[..., tuple[list[Polynomial], Polynomial]], **kwargs: Any
) -> Activation:
    return ACTIVATIONS.add(name, _row(name, states, write, **kwargs))


# --- numerically careful starting values ------------------------------------------------------


def _sech_squared(x: Tensor) -> Tensor:
    return torch.cosh(x).pow(-2)


def _logistic_slope(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * torch.sigmoid(-x)


def _softplus(x: Tensor) -> Tensor:
    return x.clamp_min(0) + torch.log1p(torch.exp(-x.abs()))


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-x / math.sqrt(2.0))


def _normal_pdf(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def _above(x: Tensor, bound: float = 0.0) -> Tensor:
    return (x > bound).to(x.dtype)


def _between(x: Tensor, low: float, high: float) -> Tensor:
    return ((x > low) & (x < high)).to(x.dtype)


# --- smooth functions -------------------------------------------------------------------------

TANH = _add(
    "tanh",
    1,
    lambda x, y: ([1 - y**2], y),
    initial=lambda x: (torch.tanh(x),),
    slope=lambda x: (_sech_squared(x),),
)
SIGMOID = _add(
    "sigmoid",
    1,
    lambda x, y: ([y - y**2], y),
    initial=lambda x: (torch.sigmoid(x),),
    slope=lambda x: (_logistic_slope(x),),
)
SIN = _add("sin", 2, lambda x, s, c: ([c, -s], s), initial=lambda x: (torch.sin(x), torch.cos(x)))
COS = _add("cos", 2, lambda x, s, c: ([c, -s], c), initial=lambda x: (torch.sin(x), torch.cos(x)))
TAN = _add("tan", 1, lambda x, y: ([1 + y**2], y), initial=lambda x: (torch.tan(x),), sample=(-1.0, 1.0))
ATAN = _add(
    "atan", 2, lambda x, y, w: ([w, -2 * x * w**2], y), initial=lambda x: (torch.atan(x), 1 / (1 + x * x))
)
SINH = _add("sinh", 2, lambda x, s, c: ([c, s], s), initial=lambda x: (torch.sinh(x), torch.cosh(x)))
COSH = _add("cosh", 2, lambda x, s, c: ([c, s], c), initial=lambda x: (torch.sinh(x), torch.cosh(x)))
ASINH = _add(
    "asinh",
    2,
    lambda x, y, w: ([w, -x * w**3], y),
    initial=lambda x: (torch.asinh(x), torch.rsqrt(1 + x * x)),
)
# The inverse functions: w is the slope, up to its sign.
ASIN = _add(
    "asin", 2, lambda x, y, w: ([w, x * w**3], y),
    initial=lambda x: (torch.asin(x), torch.rsqrt((1 - x) * (1 + x))), sample=(-0.7, 0.7),
)  # fmt: skip
ACOS = _add(
    "acos", 2, lambda x, y, w: ([-w, x * w**3], y),
    initial=lambda x: (torch.acos(x), torch.rsqrt((1 - x) * (1 + x))), sample=(-0.7, 0.7),
)  # fmt: skip
ACOSH = _add(
    "acosh", 2, lambda x, y, w: ([w, -x * w**3], y),
    initial=lambda x: (torch.acosh(x), torch.rsqrt((x - 1) * (x + 1))), sample=(1.5, 4.0),
)  # fmt: skip
ATANH = _add(
    "atanh", 2, lambda x, y, w: ([w, 2 * x * w**2], y),
    initial=lambda x: (torch.atanh(x), 1 / ((1 - x) * (1 + x))), sample=(-0.6, 0.6),
)  # fmt: skip
ERFINV = _add(
    "erfinv", 2, lambda _, y, w: ([w, 2 * y * w**2], y), sample=(-0.7, 0.7),
    initial=lambda x: (torch.erfinv(x), math.sqrt(math.pi) / 2 * torch.exp(torch.erfinv(x) ** 2)),
)  # fmt: skip
SOFTSIGN = _add(
    "softsign", 2, lambda x, s, w: ([0 * x, -s * w**2], x * w),
    initial=lambda x: (torch.sign(x), 1 / (1 + x.abs())),
)  # fmt: skip
EXP = _add("exp", 1, lambda x, y: ([y], y), initial=lambda x: (torch.exp(x),))
EXPM1 = _add(
    "expm1",
    1,
    lambda x, y: ([y + 1], y),
    initial=lambda x: (torch.expm1(x),),
    slope=lambda x: (torch.exp(x),),
)
LOG = _add(
    "log", 2, lambda x, y, w: ([w, -(w**2)], y), initial=lambda x: (torch.log(x), 1 / x), sample=(0.5, 3.0)
)
LOG1P = _add(
    "log1p",
    2,
    lambda x, y, w: ([w, -(w**2)], y),
    initial=lambda x: (torch.log1p(x), 1 / (1 + x)),
    sample=(-0.4, 2.0),
)
SQRT = _add(
    "sqrt",
    2,
    lambda x, y, w: ([Fraction(1, 2) * w, -Fraction(1, 2) * w**3], y),
    initial=lambda x: (torch.sqrt(x), torch.rsqrt(x)),
    sample=(0.5, 3.0),
)
RSQRT = _add(
    "rsqrt",
    1,
    lambda x, w: ([-Fraction(1, 2) * w**3], w),
    initial=lambda x: (torch.rsqrt(x),),
    sample=(0.5, 3.0),
)
RECIPROCAL = _add("reciprocal", 1, lambda x, w: ([-(w**2)], w), initial=lambda x: (1 / x,), sample=(0.5, 3.0))
SQUARE = _add("square", 0, lambda x: ([], x**2), initial=lambda x: ())
IDENTITY = _add("identity", 0, lambda x: ([], x), initial=lambda x: ())
SOFTPLUS = _add(
    "softplus",
    2,
    lambda x, y, s: ([s, s - s**2], y),
    initial=lambda x: (_softplus(x), torch.sigmoid(x)),
    slope=lambda x: (torch.sigmoid(x), _logistic_slope(x)),
)
LOGSIGMOID = _add(
    "logsigmoid",
    2,
    lambda x, y, s: ([s, s**2 - s], y),
    initial=lambda x: (-_softplus(-x), torch.sigmoid(-x)),
    slope=lambda x: (torch.sigmoid(-x), -_logistic_slope(x)),
)
SILU = _add(
    "silu",
    1,
    lambda x, s: ([s - s**2], x * s),
    initial=lambda x: (torch.sigmoid(x),),
    slope=lambda x: (_logistic_slope(x),),
)
MISH = _add(
    "mish",
    2,
    lambda x, t, s: ([s - s * t**2, s - s**2], x * t),
    initial=lambda x: (torch.tanh(_softplus(x)), torch.sigmoid(x)),
)
ERF = _add(
    "erf",
    2,
    lambda x, y, g: ([g, -2 * x * g], y),
    initial=lambda x: (torch.erf(x), 2 / math.sqrt(math.pi) * torch.exp(-x * x)),
)
ERFC = _add(
    "erfc",
    2,
    lambda x, y, g: ([-g, -2 * x * g], y),
    initial=lambda x: (torch.erfc(x), 2 / math.sqrt(math.pi) * torch.exp(-x * x)),
)
GELU = _add(
    "gelu", 2, lambda x, p, g: ([g, -x * g], x * p), initial=lambda x: (_normal_cdf(x), _normal_pdf(x))
)
GAUSSIAN = _add("gaussian", 1, lambda x, y: ([-2 * x * y], y), initial=lambda x: (torch.exp(-x * x),))
TANHSHRINK = _add(
    "tanhshrink",
    1,
    lambda x, y: ([1 - y**2], x - y),
    initial=lambda x: (torch.tanh(x),),
    slope=lambda x: (_sech_squared(x),),
)

_GELU_C, _GELU_K = math.sqrt(2.0 / math.pi), 0.044715
GELU_TANH = _add(
    "gelu_tanh", 1,
    lambda x, t: ([(1 - t**2) * (_GELU_C + 3 * _GELU_C * _GELU_K * x**2)], Fraction(1, 2) * (x + x * t)),
    initial=lambda x: (torch.tanh(_GELU_C * (x + _GELU_K * x**3)),),
)  # fmt: skip

# --- piecewise functions: the branch is a state that does not move ------------------------------

RELU = _add("relu", 1, lambda x, m: ([0 * x], m * x), initial=lambda x: (_above(x),))
ABS = _add("abs", 1, lambda x, m: ([0 * x], m * x), initial=lambda x: (torch.sign(x),))
RELU6 = _add(
    "relu6",
    2,
    lambda x, m, c: ([0 * x, 0 * x], m * x + c),
    initial=lambda x: (_above(x) * (1 - _above(x, 6.0) - (x == 6.0).to(x.dtype)), 6 * (x >= 6.0).to(x.dtype)),
    sample=(-3.0, 9.0),
)
HARDSWISH = _add(
    "hardswish", 2, lambda x, m, c: ([0 * x, 0 * x], m * (x**2 + 3 * x) * Fraction(1, 6) + c * x),
    initial=lambda x: (_between(x, -3.0, 3.0), (x >= 3.0).to(x.dtype)), sample=(-5.0, 5.0),
)  # fmt: skip
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _linear_pieces(name: str, pieces: Callable[[Tensor], States], **kwargs: Any) -> Activation:
    """A row that is m·x + c with m and c constant on each piece."""
    return _row(name, 2, lambda x, m, c: ([0 * x, 0 * x], m * x + c), initial=pieces, **kwargs)


@cache
def hardtanh(low: float = -1.0, high: float = 1.0) -> Activation:
    """The row of min(max(x, low), high); at a bound the slope is that of the outside, 0."""
    return _linear_pieces(
        f"hardtanh[{low!r},{high!r}]",
        lambda x: (_between(x, low, high), low * (x <= low).to(x.dtype) + high * (x >= high).to(x.dtype)),
        parameters=(low, high), family="hardtanh",
    )  # fmt: skip


HARDSIGMOID = ACTIVATIONS.add("hardsigmoid", _linear_pieces(
    "hardsigmoid", sample=(-5.0, 5.0),
    pieces=lambda x: (_between(x, -3.0, 3.0) / 6, _between(x, -3.0, 3.0) / 2 + (x >= 3.0).to(x.dtype)),
))  # fmt: skip


@cache
def softshrink(bound: float = 0.5) -> Activation:
    """The row of x - sign(x)·bound where |x| > bound, else 0."""
    return _linear_pieces(
        f"softshrink[{bound!r}]",
        lambda x: (_above(x.abs(), bound), -bound * torch.sign(x) * _above(x.abs(), bound)),
        parameters=(bound,), family="softshrink",
    )  # fmt: skip


@cache
def hardshrink(bound: float = 0.5) -> Activation:
    """The row of x where |x| > bound, else 0."""
    return _linear_pieces(
        f"hardshrink[{bound!r}]", lambda x: (_above(x.abs(), bound), 0 * x),
        parameters=(bound,), family="hardshrink",
    )  # fmt: skip


@cache
def threshold(bound: float, value: float) -> Activation:
    """The row of x where x > bound, else ``value``."""
    return _linear_pieces(
        f"threshold[{bound!r},{value!r}]", lambda x: (_above(x, bound), value * (1 - _above(x, bound))),
        parameters=(bound, value), family="threshold",
    )  # fmt: skip


@cache
def celu(alpha: float = 1.0) -> Activation:
    """The row of x if x > 0 else alpha·(exp(x / alpha) - 1)."""
    return _row(
        f"celu[{alpha!r}]", 2,
        lambda x, m, e: ([0 * x, e * (1 / alpha)], m * x + alpha * (e - m * e - 1 + m)),
        initial=lambda x: (_above(x), torch.exp(x.clamp_max(0) / alpha)), parameters=(alpha,), family="celu",
    )  # fmt: skip


@cache
def elu(alpha: float = 1.0, scale: float = 1.0) -> Activation:
    """The row of scale·(x if x > 0 else alpha·(eˣ - 1)): ELU, CELU's parts and SELU."""
    return _row(
        f"elu[{alpha!r},{scale!r}]", 2,
        lambda x, m, e: ([0 * x, e], scale * (m * x) + scale * alpha * (e - m * e - 1 + m)),
        initial=lambda x: (_above(x), torch.exp(x.clamp_max(0))), parameters=(alpha, scale), family="elu",
    )  # fmt: skip


@cache
def softplus(beta: float) -> Activation:
    """The row of log(1 + exp(beta·x)) / beta."""
    return _row(
        f"softplus[{beta!r}]", 2, lambda x, y, s: ([s, beta * (s - s**2)], y), parameters=(beta,),
        initial=lambda x: (_softplus(beta * x) / beta, torch.sigmoid(beta * x)),
        slope=lambda x: (torch.sigmoid(beta * x), beta * _logistic_slope(beta * x)),
    )  # fmt: skip


@cache
def leaky_relu(slope: float = 0.01) -> Activation:
    """The row of x if x > 0 else slope·x."""
    return _row(
        f"leaky_relu[{slope!r}]", 1, lambda x, m: ([0 * x], slope * x + (1 - slope) * (m * x)),
        initial=lambda x: (_above(x),), parameters=(slope,), family="relu",
    )  # fmt: skip


@cache
def relu_power(exponent: int) -> Activation:
    """The row of max(x, 0)^exponent; at the kink all of its derivatives are those of the left branch, 0."""
    return _row(
        f"relu_power[{exponent}]", 1, lambda x, m: ([0 * x], m * x**exponent),
        initial=lambda x: (_above(x),), family="relu",
    )  # fmt: skip


@cache
def power(exponent: float) -> Activation:
    """The row of x^exponent: a plain polynomial for whole exponents, x > 0 otherwise."""
    name = f"power[{exponent!r}]"
    if float(exponent).is_integer() and exponent >= 0:
        return _row(name, 0, lambda x: ([], x ** int(exponent)), initial=lambda x: ())
    if float(exponent).is_integer():
        return _row(
            name, 1, lambda x, w: ([-(w**2)], w ** int(-exponent)),
            initial=lambda x: (1 / x,), sample=(0.5, 3.0), family="reciprocal",
        )  # fmt: skip
    return _row(
        name, 2, lambda x, y, w: ([exponent * (y * w), -(w**2)], y),
        initial=lambda x: (x**exponent, 1 / x),
        parameters=(float(exponent),), sample=(0.5, 3.0), family="power",
    )  # fmt: skip


for _activation in (
    elu(),
    elu(SELU_ALPHA, SELU_SCALE),
    leaky_relu(),
    hardtanh(),
    softshrink(),
    hardshrink(),
    threshold(0.5, -1.0),
    celu(2.0),
    relu_power(2),
    relu_power(3),
    power(2.5),
    power(-2),
    power(3),
):
    ACTIVATIONS.add(_activation.name, _activation)
