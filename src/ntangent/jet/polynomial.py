"""Polynomials in an argument x and states z1..zm: the language in which activations are written.

A row of the activation table states z' = P(z, x) x' and y = O(z, x). The polynomials P and O
are data, so one row yields the eager recurrence, its derivative to any order, the raw
derivatives that Faà di Bruno's formula needs, and the source of the compiled kernels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

Number = int | float | Fraction
Exponents = tuple[int, ...]


@dataclass(frozen=True)
class Polynomial:
    """A polynomial as a sorted tuple of (exponents, coefficient).

    The exponents are those of (x, z1, ..., zm). Coefficients stay exact while they are integers or
    fractions. Build one with :func:`variables` and ordinary arithmetic.
    """

    terms: tuple[tuple[Exponents, Number], ...]
    arity: int

    @staticmethod
    def collect(terms: Iterable[tuple[Exponents, Number]], arity: int) -> Polynomial:
        """Sum equal monomials, drop zeros, sort."""
        total: dict[Exponents, Number] = {}
        for exponents, coefficient in terms:
            total[exponents] = total.get(exponents, 0) + coefficient
        return Polynomial(tuple(sorted((e, c) for e, c in total.items() if c != 0)), arity)

    def _lift(self, other: Polynomial | Number) -> Polynomial:
        if isinstance(other, Polynomial):
            return other
        return Polynomial.collect([((0,) * self.arity, other)], self.arity)

    def __add__(self, other: Polynomial | Number) -> Polynomial:
        return Polynomial.collect(self.terms + self._lift(other).terms, self.arity)

    def __mul__(self, other: Polynomial | Number) -> Polynomial:
        products = [
            (tuple(a + b for a, b in zip(e, f, strict=True)), c * d)
            for e, c in self.terms
            for f, d in self._lift(other).terms
        ]
        return Polynomial.collect(products, self.arity)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Polynomial:
        return self * -1

    def __sub__(self, other: Polynomial | Number) -> Polynomial:
        return self + -self._lift(other)

    def __rsub__(self, other: Number) -> Polynomial:
        return -self + other

    def __pow__(self, exponent: int) -> Polynomial:
        result = self._lift(1)
        for _ in range(exponent):
            result = result * self
        return result

    def partial(self, variable: int) -> Polynomial:
        """Return the partial derivative in one variable (0 is x)."""
        terms = []
        for exponents, coefficient in self.terms:
            power = exponents[variable]
            if power:
                lowered = (*exponents[:variable], power - 1, *exponents[variable + 1 :])
                terms.append((lowered, coefficient * power))
        return Polynomial.collect(terms, self.arity)

    def along(self, flow: tuple[Polynomial, ...]) -> Polynomial:
        """Return d/dx of this polynomial when the states obey dz_i/dx = flow[i]."""
        total = self.partial(0)
        for i, velocity in enumerate(flow):
            total = total + self.partial(i + 1) * velocity
        return total


def variables(states: int) -> tuple[Polynomial, ...]:
    """Return the polynomials x, z1, ..., zm for a row with ``states`` states."""
    arity = states + 1
    units = [tuple(int(i == j) for j in range(arity)) for i in range(arity)]
    return tuple(Polynomial(((unit, 1),), arity) for unit in units)
