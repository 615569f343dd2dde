"""Stability functions: R(z), R'(z) and what is proved about them.

One step of y' = λy multiplies y by R(z), z = hλ; R' is the sensitivity of that step to z. Rational
functions are kept exact: A-stability is the non-negativity of the E-polynomial
E(y) = |Q(iy)|² - |P(iy)|² on the axis and poles in the right half-plane (Hairer & Wanner,
Solving ODEs II, IV.3); signs of R' on the negative axis come from Sturm's theorem.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntangent._base.check import check_order
from ntangent._base.errors import ArgumentError, DtypeError
from ntangent.ode.algebraic import Number, approximate, sign
from ntangent.ode.polynomial import (
    ONE,
    ZERO,
    Polynomial,
    add,
    common_divisor,
    degree,
    differentiate,
    divide,
    is_hurwitz,
    multiply,
    nonnegative_on_positive_axis,
    refine,
    root_bound,
    scale,
    sign_pieces,
    trim,
)

Interval = tuple[float, float]


class Stability:
    """A stability function. The attributes are those of :class:`ntangent.ode.methods.Method`."""

    at_infinity: float
    decay_order: float
    decay_constant: float
    a_stable: bool
    wrong_sign: tuple[Interval, ...]

    def value(self, z: Any) -> Any:
        """Return R(z) for a number, array or tensor."""
        return _elementwise(self._value, z)

    def derivative(self, z: Any) -> Any:
        """Return R'(z) for a number, array or tensor."""
        return _elementwise(self._derivative, z)

    @abstractmethod
    def _value(self, z: Tensor) -> Tensor: ...

    @abstractmethod
    def _derivative(self, z: Tensor) -> Tensor: ...


def _elementwise(function: Any, z: Any) -> Any:
    """Apply a function of floating tensors to a Python number, a NumPy array or a tensor."""
    if isinstance(z, Tensor):
        return function(z if z.is_floating_point() or z.is_complex() else z.to(torch.float64))
    if isinstance(z, np.ndarray | np.generic):
        array = np.asarray(z)
        if array.dtype.kind not in "iufc":
            raise DtypeError(f"z has dtype {array.dtype}", "it is a number hλ", "z.astype(float)")
        wide = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
        result = function(torch.from_numpy(np.atleast_1d(wide))).numpy().reshape(array.shape)
        return result if isinstance(z, np.ndarray) else result[()]
    if isinstance(z, bool) or not isinstance(z, int | float | complex):
        raise DtypeError(
            f"z must be a number, an array or a tensor, got {z!r}", "it is hλ", "method.stability(-1.0)"
        )
    return function(
        torch.tensor(z, dtype=torch.complex128 if isinstance(z, complex) else torch.float64)
    ).item()


@dataclass(frozen=True, eq=False)
class RationalStability(Stability):
    """R = P / Q with exact coefficients, in lowest terms.

    Args:
        numerator: P, constant first, P(0) = 1.
        denominator: Q, constant first, Q(0) = 1.
    """

    numerator: Polynomial
    denominator: Polynomial

    @functools.cached_property
    def derivative_numerator(self) -> Polynomial:
        """N = P'Q - PQ'; R' = N / Q²."""
        p, q = self.numerator, self.denominator
        return add(multiply(differentiate(p), q), scale(multiply(p, differentiate(q)), -1))

    @functools.cached_property
    def at_infinity(self) -> float:  # type: ignore[override]
        """Limit of R at -∞."""
        gap = degree(self.numerator) - degree(self.denominator)
        lead = self.numerator[-1] / self.denominator[-1]
        if gap < 0:
            return 0.0
        return math.inf * sign(lead) * (-1) ** gap if gap else float(lead)

    @functools.cached_property
    def decay_order(self) -> float:  # type: ignore[override]
        """The p of R' ~ C z^-p."""
        return 2 * degree(self.denominator) - degree(self.derivative_numerator)

    @functools.cached_property
    def decay_constant(self) -> float:  # type: ignore[override]
        """The C of R' ~ C z^-p."""
        return float(self.derivative_numerator[-1] / (self.denominator[-1] * self.denominator[-1]))

    @functools.cached_property
    def e_polynomial(self) -> Polynomial:
        """E as a polynomial in y²: |Q(iy)|² - |P(iy)|²."""
        return add(_modulus_squared(self.denominator), scale(_modulus_squared(self.numerator), -1))

    @functools.cached_property
    def a_stable(self) -> bool:  # type: ignore[override]
        """Proof of A-stability, or of its absence."""
        mirrored = tuple(a * (-1) ** k for k, a in enumerate(self.denominator))
        return is_hurwitz(mirrored) and nonnegative_on_positive_axis(self.e_polynomial)

    @functools.cached_property
    def wrong_sign(self) -> tuple[Interval, ...]:  # type: ignore[override]
        """Intervals of the negative axis where N < 0; ends to rounding error."""
        n = self.derivative_numerator
        bound = root_bound(n)
        found: list[Interval] = []
        for left, right, s in sign_pieces(n, -bound, ZERO):
            if s < 0:
                low = -math.inf if left[0] == -bound else float(refine(n, left))
                high = 0.0 if right == (ZERO, ZERO) else float(refine(n, right))
                if found and found[-1][1] == low:  # touched zero in between
                    low = found.pop()[0]
                found.append((low, high))
        return tuple(found)

    def _value(self, z: Tensor) -> Tensor:
        return _quotient(self._floats[0], self._floats[1], z)

    def _derivative(self, z: Tensor) -> Tensor:
        return _quotient(self._floats[2], self._floats[3], z)

    @functools.cached_property
    def _floats(self) -> tuple[list[float], ...]:
        squared = multiply(self.denominator, self.denominator)
        parts = (self.numerator, self.denominator, self.derivative_numerator, squared)
        return tuple([float(a) for a in part] for part in parts)


def _modulus_squared(p: Polynomial) -> Polynomial:
    """Return |p(iy)|² as a polynomial in x = y²."""
    even = trim([a * (-1) ** k for k, a in enumerate(p[0::2])])
    odd = trim([a * (-1) ** k for k, a in enumerate(p[1::2])])
    return add(multiply(even, even), multiply((ZERO, ONE), multiply(odd, odd)))


def _quotient(p: Sequence[float], q: Sequence[float], z: Tensor) -> Tensor:
    """Return p(z)/q(z), for large |z| in powers of 1/z, so that nothing overflows on the way."""
    large = z.abs() > 1
    one = torch.ones_like(z)
    near, far = torch.where(large, one, z), 1 / torch.where(large, z, one)
    inside = _horner(p, near) / _horner(q, near)
    outside = _horner(p[::-1], far) / _horner(q[::-1], far)
    gap = len(q) - len(p)
    outside = outside * far**gap if gap >= 0 else outside * torch.where(large, z, one) ** (-gap)
    return torch.where(large, outside, inside)


def _horner(coefficients: Sequence[float], x: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


def rational_stability(
    a: Sequence[Sequence[Number]], b: Sequence[Number], order: int, rounding: Fraction = ZERO
) -> RationalStability:
    """Return R(z) = 1 + z bᵀ(I - zA)⁻¹ 1 of a tableau, exactly and in lowest terms.

    The tableau of a method of published decimals (``rounding`` > 0) stands for the method that has
    them rounded: coefficients of P that the order fixes are set to what it makes them, and those
    below ``rounding`` to zero. Without that, R(∞) = 0 would be 1e-16 and no stability provable.

    Raises:
        ArgumentError: if a coefficient is farther than ``rounding`` from what the order makes it.
    """
    denominator = _determinant(a)
    moments: list[Number] = [ONE]
    v: list[Number] = [ONE] * len(b)
    for _ in b:
        moments.append(sum((x * y for x, y in zip(b, v, strict=True)), ZERO))
        v = [sum((x * y for x, y in zip(row, v, strict=True) if x), ZERO) for row in a]
    numerator = list(multiply(tuple(moments), denominator)[: len(b) + 1])
    if rounding:
        numerator += [ZERO] * (len(b) + 1 - len(numerator))
        exponential = tuple(Fraction(1, math.factorial(k)) for k in range(order + 1))
        fixed = multiply(exponential, denominator)
        for k in range(len(numerator)):
            target = fixed[k] if k <= order and k < len(fixed) else numerator[k]
            if abs(approximate(target - numerator[k])) > rounding:
                raise ArgumentError(
                    f"the stability function departs from e^z at z^{k}",
                    f"a method of order {order} cannot",
                    "check the tableau against its source",
                )
            numerator[k] = ZERO if abs(approximate(target)) <= rounding else target
    p = trim(numerator)
    divisor = common_divisor(p, denominator)
    if degree(divisor) > 0:
        p, denominator = divide(p, divisor)[0], divide(denominator, divisor)[0]
    return RationalStability(scale(p, ONE / p[0]), scale(denominator, ONE / denominator[0]))


def _determinant(a: Sequence[Sequence[Number]]) -> Polynomial:
    """Return det(I - zA), by Faddeev and LeVerrier."""
    size = len(a)
    if not any(a[i][j] for i in range(size) for j in range(i + 1, size)):
        product: Polynomial = (ONE,)
        for i in range(size):
            product = multiply(product, trim((ONE, -a[i][i])))
        return product
    coefficients: list[Number] = [ONE]
    m = [[ZERO for _ in a] for _ in a]
    for k in range(1, size + 1):
        shifted: Any = [
            [m[i][j] + (coefficients[-1] if i == j else ZERO) for j in range(size)] for i in range(size)
        ]
        m = [
            [sum((x * shifted[n][j] for n, x in enumerate(row) if x), ZERO) for j in range(size)] for row in a
        ]
        coefficients.append(sum((m[i][i] for i in range(size)), ZERO) / -k)
    return trim(coefficients)


def pade(numerator: int, denominator: int) -> RationalStability:
    """Return the Padé approximant P / Q of e^z with P and Q of the given degrees."""
    check_order(numerator, "numerator")
    check_order(denominator, "denominator")
    total = numerator + denominator

    def coefficients(degree: int, sign_: int) -> tuple[Fraction, ...]:
        return tuple(
            Fraction(sign_**j * math.comb(degree, j) * math.factorial(total - j), math.factorial(total))
            for j in range(degree + 1)
        )

    return RationalStability(coefficients(numerator, 1), coefficients(denominator, -1))


@dataclass(frozen=True, eq=False)
class ExponentialStability(Stability):
    """R(z) = e^z."""

    at_infinity: float = 0.0
    decay_order: float = math.inf
    decay_constant: float = 1.0
    a_stable: bool = True
    wrong_sign: tuple[Interval, ...] = ()

    def _value(self, z: Tensor) -> Tensor:
        return z.exp()

    _derivative = _value


def exponential_stability() -> ExponentialStability:
    """Return the stability function of methods that are exact on linear problems."""
    return ExponentialStability()


@dataclass(frozen=True, eq=False)
class BackwardDifferentiationStability(Stability):
    """The dominant root ζ(z) of the k-step BDF: Σ_{j=1..k} (1 - 1/ζ)^j / j = z.

    R(z) is the root of largest modulus (of a conjugate pair, the one with Im ≥ 0), which is the one
    that continues ζ(0) = 1. Where it is real, ζ' = 1 / (w² Σ_{j<k} (1 - w)^j) with w = 1/ζ; the sum is
    positive for odd k, and for even k where w < 2, which holds for the larger of the two real roots:
    ζ' is never of the wrong sign there.

    Args:
        steps: k.
    """

    steps: int
    at_infinity: float = 0.0
    wrong_sign: tuple[Interval, ...] = ()

    @functools.cached_property
    def alpha(self) -> tuple[Fraction, ...]:
        """α_0..α_k of Σ α_j y_{n-j} = h f_n."""
        total = [ZERO] * (self.steps + 1)
        for j in range(1, self.steps + 1):
            for i in range(j + 1):
                total[i] += Fraction((-1) ** i * math.comb(j, i), j)
        return tuple(total)

    @property
    def decay_order(self) -> float:  # type: ignore[override]
        """ζ^k ~ α_k / z."""
        return 1 + 1 / self.steps

    @property
    def decay_constant(self) -> float:  # type: ignore[override]
        """|ζ'| ~ |α_k|^(1/k) / k · |z|^-(1 + 1/k)."""
        return math.pow(abs(self.alpha[-1]), 1 / self.steps) / self.steps

    @functools.cached_property
    def a_stable(self) -> bool:  # type: ignore[override]
        """Whether Re Σ (1 - w)^j / j ≥ 0 on |w| = 1, as a polynomial in 1 - cos; a proof."""
        chebyshev: list[Polynomial] = [(ONE,), (ZERO, ONE)]
        while len(chebyshev) <= self.steps:
            twice = multiply((ZERO, Fraction(2)), chebyshev[-1])
            chebyshev.append(add(twice, scale(chebyshev[-2], -1)))
        real: Polynomial = ()
        for a, t in zip(self.alpha, chebyshev, strict=False):
            real = add(real, scale(t, a))
        return all(s >= 0 for _, _, s in sign_pieces(real, -ONE, ONE)) if real else True

    @functools.cached_property
    def sector(self) -> float:
        """The angle of A(α)-stability in degrees, from the root locus (2e-4 accurate)."""
        w = torch.exp(1j * torch.linspace(1e-3, math.pi, 200001, dtype=torch.float64))
        z = self._locus(w)
        angle = torch.where(
            z.real < 0, torch.atan2(z.imag.abs(), -z.real), torch.full_like(z.real, math.pi / 2)
        )
        return math.degrees(float(angle.min()))

    def _locus(self, w: Tensor) -> Tensor:
        return _horner([float(a) for a in self.alpha], w)

    def _value(self, z: Tensor) -> Tensor:
        wide = z.to(torch.complex128)
        k = self.steps
        companion = torch.zeros((*z.shape, k, k), dtype=torch.complex128, device=z.device)
        for j in range(1, k + 1):
            companion[..., 0, j - 1] = -float(self.alpha[j]) / (float(self.alpha[0]) - wide)
            if j < k:
                companion[..., j, j - 1] = 1
        roots = torch.linalg.eigvals(companion)
        # Of equal moduli the upper one: a nudge far above rounding and far below any real gap.
        upper = (roots.imag > -1e-12 * roots.abs()).to(torch.float64)
        choice = (roots.abs() * (1 + 1e-10 * upper)).argmax(dim=-1, keepdim=True)
        root = roots.gather(-1, choice).squeeze(-1)
        for _ in range(3):
            w = 1 / root
            root = root - (self._locus(w) - wide) * self._slope(w)
        real = root.imag.abs() <= 1e-14 * root.abs()
        root = torch.where(real, torch.complex(root.real, torch.zeros_like(root.real)), root)
        if z.is_complex():
            return root.to(z.dtype)
        return root.real.to(z.dtype) if bool(real.all()) else root

    def _slope(self, w: Tensor) -> Tensor:
        return 1 / (w * w * _horner([1.0] * self.steps, 1 - w))

    def _derivative(self, z: Tensor) -> Tensor:
        return self._slope(1 / self._value(z))


__all__ = [
    "BackwardDifferentiationStability",
    "ExponentialStability",
    "Interval",
    "RationalStability",
    "Stability",
    "exponential_stability",
    "pade",
    "rational_stability",
]
