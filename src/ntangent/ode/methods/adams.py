"""Adams methods: y_{n+1} = y_n + h Σ β_j f_{n+1-j}, the integral of a polynomial through slopes.

Adams-Bashforth takes the k slopes up to f_n, Adams-Moulton those and f_{n+1}. The coefficients are
integrals of Lagrange polynomials: exact fractions on equal steps, quadrature on others.

Source: Hairer, Nørsett & Wanner, Solving ODEs I, III.1 and III.5.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError
from ntangent.ode.methods.base import Method, Vector
from ntangent.ode.methods.catalogue import add, get
from ntangent.ode.methods.proof import refuse
from ntangent.ode.polynomial import ONE, Polynomial, multiply, scale
from ntangent.ode.stability import Interval, Stability

HNW = "Hairer, Nørsett & Wanner, Solving ODEs I"
MOST_ORDER = 12  # beyond it the methods are stable for no step that is worth taking
RISING_START = 3  # slopes with which a rising start leaves its Runge-Kutta steps


@functools.cache
def equal_weights(slopes: int, *, implicit: bool) -> Vector:
    """Return β for equal steps, exactly: the integrals over [0, 1] of Lagrange polynomials.

    Args:
        slopes: k, how many of f_n, f_{n-1}, ... are used; their nodes are 0, -1, ..., 1 - k.
        implicit: whether the node 1 comes first.
    """
    nodes = [Fraction(-j) for j in range(slopes)]
    nodes = [ONE, *nodes] if implicit else nodes
    out = []
    for j, x in enumerate(nodes):
        p: Polynomial = (ONE,)
        for i, other in enumerate(nodes):
            if i != j:
                p = scale(multiply(p, (-other, ONE)), ONE / (x - other))
        out.append(sum((a / (n + 1) for n, a in enumerate(p)), Fraction(0)))
    return tuple(out)


def unequal_weights(nodes: Sequence[float], *, implicit: bool) -> list[float]:
    """Return β for slopes at the given nodes, in units of the step from 0 to 1.

    By Gauss quadrature of the Lagrange polynomials, which is exact but for rounding.

    Args:
        nodes: 0 and those before it, newest first.
        implicit: whether the node 1 comes first.
    """
    x = np.array([1.0, *nodes] if implicit else list(nodes))
    points, weights = np.polynomial.legendre.leggauss(len(x) // 2 + 1)
    points, weights = (points + 1) / 2, weights / 2
    apart = x[:, None] - x[None]
    np.fill_diagonal(apart, 1.0)
    factors = (points[:, None, None] - x[None, None]) / apart[None]
    factors[:, np.arange(len(x)), np.arange(len(x))] = 1.0
    return [float(w) for w in weights @ factors.prod(axis=2)]


class AdamsStability(Stability):
    """The dominant root ζ(z) of ζ^k - ζ^{k-1} = z Σ β_j ζ^{k-j}.

    With w = 1/ζ that is 1 - w = z σ(w), σ = Σ β_j w^j, and ζ' = σ / (w² (1 + z σ'(w))). No Adams
    method is A-stable but those of order one and two that are implicit (Dahlquist 1963).

    Args:
        beta: β_0, β_1, ...; β_0 is that of f_{n+1}.
    """

    def __init__(self, beta: Vector) -> None:
        self.beta = beta
        self._floats = [float(b) for b in beta]
        self._slopes = [j * b for j, b in enumerate(self._floats)][1:]

    @functools.cached_property
    def a_stable(self) -> bool:  # type: ignore[override]
        """Whether it is backward Euler or the trapezoidal rule."""
        return self.beta[0] != 0 and len(self.beta) <= 2

    @functools.cached_property
    def _far(self) -> complex:
        """The root of σ of largest modulus (the upper one of a pair), to which ζ goes at infinity."""
        roots = np.roots(self._floats) if len(self._floats) > 1 else np.zeros(1)
        largest = max(roots, key=lambda r: (round(abs(r), 12), r.imag))
        return complex(largest)

    @property
    def at_infinity(self) -> float:  # type: ignore[override]
        """Limit of ζ at -∞, its modulus where it is not real; -∞ for explicit methods."""
        if not self.beta[0]:
            return -math.inf
        return self._far.real if self._far.imag == 0 else abs(self._far)

    @property
    def decay_order(self) -> float:  # type: ignore[override]
        """ζ ~ β_1 z for explicit methods; ζ - ζ(∞) ~ c / z for implicit ones."""
        return 2.0 if self.beta[0] else 0.0

    @property
    def decay_constant(self) -> float:  # type: ignore[override]
        """The C of ζ' ~ C z^-p, its modulus where it is not real."""
        if not self.beta[0]:
            return self._floats[1]
        root, k = self._far, len(self._floats) - 1
        slope = np.polyval(np.polyder(np.array(self._floats)), root)
        constant = complex(-(root**k - root ** (k - 1)) / slope) if k else 1.0 + 0j
        return constant.real if root.imag == 0 else abs(constant)

    @functools.cached_property
    def wrong_sign(self) -> tuple[Interval, ...]:  # type: ignore[override]
        """Intervals where ζ is real and ζ' < 0, from a scan whose ends are bisected."""
        z = -torch.logspace(4, -4, 4001, dtype=torch.float64)
        wrong = self._wrong(z)
        found: list[Interval] = []
        edges = torch.nonzero(wrong[1:] != wrong[:-1]).flatten().tolist()
        ends = [self._edge(float(z[i]), float(z[i + 1])) for i in edges]
        if bool(wrong[0]):
            ends.insert(0, -math.inf)
        if bool(wrong[-1]):
            ends.append(0.0)
        for low, high in zip(ends[::2], ends[1::2], strict=True):
            found.append((low, high))
        return tuple(found)

    def _wrong(self, z: Tensor) -> Tensor:
        root = self._root(z.to(torch.complex128))
        return (root.imag == 0) & (self._slope(z.to(torch.complex128), root).real < 0)

    def _edge(self, low: float, high: float) -> float:
        left = bool(self._wrong(torch.tensor([low], dtype=torch.float64)))
        for _ in range(60):
            middle = (low + high) / 2
            same = bool(self._wrong(torch.tensor([middle], dtype=torch.float64))) == left
            low, high = (middle, high) if same else (low, middle)
        return (low + high) / 2

    def _root(self, z: Tensor) -> Tensor:
        k = max(len(self._floats) - 1, 1)
        beta = [*self._floats, 0.0][: k + 1]
        companion = torch.zeros((*z.shape, k, k), dtype=torch.complex128, device=z.device)
        for j in range(1, k + 1):
            companion[..., 0, j - 1] = ((j == 1) + z * beta[j]) / (1 - z * beta[0])
            if j < k:
                companion[..., j, j - 1] = 1
        roots = torch.linalg.eigvals(companion)
        # Of equal moduli the upper one: a nudge far above rounding and far below any real gap.
        upper = (roots.imag > -1e-12 * roots.abs()).to(torch.float64)
        choice = (roots.abs() * (1 + 1e-10 * upper)).argmax(dim=-1, keepdim=True)
        w = 1 / roots.gather(-1, choice).squeeze(-1)
        for _ in range(3):
            step = (1 - w - z * _horner(self._floats, w)) / (1 + z * _horner(self._slopes, w))
            w = w + torch.where(torch.isfinite(step), step, torch.zeros_like(step))
        root = 1 / w
        real = root.imag.abs() <= 1e-13 * root.abs()
        return torch.where(real, torch.complex(root.real, torch.zeros_like(root.real)), root)

    def _slope(self, z: Tensor, root: Tensor) -> Tensor:
        w = 1 / root
        return root * root * _horner(self._floats, w) / (1 + z * _horner(self._slopes, w))

    def _value(self, z: Tensor) -> Tensor:
        return _like(z, self._root(z.to(torch.complex128)))

    def _derivative(self, z: Tensor) -> Tensor:
        wide = z.to(torch.complex128)
        return _like(z, self._slope(wide, self._root(wide)))


def _horner(coefficients: Sequence[float], x: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


def _like(z: Tensor, value: Tensor) -> Tensor:
    """Return the value in the precision of z, real where z and all values are."""
    if z.is_complex():
        return value.to(z.dtype)
    return value.real.to(z.dtype) if bool((value.imag == 0).all()) else value


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Adams(Method):
    """An Adams method of k slopes, with given steps.

    Args:
        slopes: k, how many of f_n, f_{n-1}, ... a step uses.
        moulton: whether f_{n+1} is used too, so that a step solves an equation.
        start: ``"full"``: steps of Dormand and Prince's method of order 8 until k slopes are there,
            which keeps the order; ``"rising"``: two steps of the 3/8 rule, then as many slopes as
            there are, as torchdiffeq does it: the start then leaves errors of h⁴ (h⁵ for Moulton)
            whatever k is, though they are small ones.
    """

    slopes: int
    moulton: bool = False
    start: Literal["full", "rising"] = "full"

    @property
    def implicit(self) -> bool:
        """Whether a step solves equations."""
        return self.moulton

    @property
    def stages(self) -> int:
        """One new evaluation of f in a step."""
        return 1

    @property
    def formula_order(self) -> int:
        """Order of the formula of k slopes, whatever the start leaves."""
        return self.slopes + self.moulton

    @property
    def weights(self) -> Vector:
        """β_0, β_1, ..., β_k for equal steps; β_0 = 0 for Adams-Bashforth."""
        beta = equal_weights(self.slopes, implicit=self.moulton)
        return beta if self.moulton else (Fraction(0), *beta)

    @functools.cached_property
    def analysis(self) -> AdamsStability:
        """The dominant root of the characteristic polynomial."""
        return AdamsStability(self.weights)

    @property
    def from_slopes(self) -> int:
        """How many slopes end the Runge-Kutta steps of the start."""
        return RISING_START if self.start == "rising" else self.slopes

    def limited(self, most: int) -> Method:
        """Return the method with torchdiffeq's ``max_order``: of most - 1 slopes, ``rk4`` below 4.

        Raises:
            ArgumentError: if ``most`` is not within 1 and 12, or the start is not a rising one.
        """
        if self.start != "rising" or not 1 <= most <= MOST_ORDER or int(most) != most:
            raise ArgumentError(
                f"max_order={most} for {self.name!r}",
                f"it is an integer up to {MOST_ORDER}, for explicit_adams and implicit_adams",
                'method="explicit_adams", options={"max_order": 6}',
            )
        if most <= RISING_START:
            return get("rk4")
        return _rising(self.name, int(most) - 1, moulton=self.moulton)

    def prove(self) -> None:
        """Check m Σ β_j x_j^{m-1} = 1 for m up to the order and not beyond, and what the start leaves.

        Zero-stability needs no check: ρ = ζ^{k-1} (ζ - 1).
        """
        nodes = [Fraction(1 - j) for j in range(self.slopes + 1)]
        for m in range(1, self.formula_order + 2):
            total = m * sum((b * x ** (m - 1) for b, x in zip(self.weights, nodes, strict=True)), Fraction(0))
            if (total != 1) != (m > self.formula_order):
                raise refuse(self.name, f"the condition of t^{m}", total - 1, f"order {self.formula_order}")
        # One step of order p in the start leaves an error of h^(p+1), which is then carried along.
        first = RISING_START + self.moulton if self.start == "rising" else 8
        kept = min(self.formula_order, first + 1)
        if kept != self.order:
            raise refuse(
                self.name, "the order that its start leaves", kept - self.order, f"order {self.order}"
            )


def _rising(name: str, slopes: int, *, moulton: bool, aliases: tuple[str, ...] = ()) -> Adams:
    return Adams(
        name=name,
        family="Adams-Moulton" if moulton else "Adams-Bashforth",
        source=f"{HNW}, III.1; the rising start of torchdiffeq",
        order=min(slopes + moulton, RISING_START + moulton + 1),
        aliases=aliases,
        slopes=slopes,
        moulton=moulton,
        start="rising",
    )


BASHFORTH = tuple(
    add(
        Adams(
            name=f"adams_bashforth{k}",
            family="Adams-Bashforth",
            source=f"Bashforth & Adams 1883; {HNW}, III.1",
            order=k,
            aliases=(f"ab{k}",),
            slopes=k,
        )
    )
    for k in range(2, 7)
)

MOULTON = tuple(
    add(
        Adams(
            name=f"adams_moulton{k}",
            family="Adams-Moulton",
            source=f"Moulton 1926; {HNW}, III.1",
            order=k,
            aliases=(f"am{k}",),
            slopes=k - 1,
            moulton=True,
        )
    )
    for k in range(3, 7)
)

EXPLICIT_ADAMS = add(_rising("explicit_adams", MOST_ORDER - 1, moulton=False))
IMPLICIT_ADAMS = add(_rising("implicit_adams", MOST_ORDER - 1, moulton=True, aliases=("fixed_adams",)))
