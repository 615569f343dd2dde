"""Symbols of differential operators: polynomials in ξ, with ξ_i standing for ∂/∂x_i.

A monomial is a sorted tuple of (coordinate, power) pairs, so that a Laplacian in 1000 dimensions
is 1000 short tuples. Coefficients are exact fractions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

from ntangent._base.errors import ArgumentError

Monomial = tuple[tuple[int, int], ...]
Symbol = dict[Monomial, Fraction]


def monomial(index: Iterable[int]) -> Monomial:
    """Return the monomial of a dense multi-index, (2, 0, 1) -> ((0, 2), (2, 1))."""
    powers = tuple((i, int(power)) for i, power in enumerate(index) if power)
    if any(power < 0 for _, power in powers):
        raise ArgumentError(
            f"negative order in {powers}", "there is no derivative of negative order", "(2, 1)"
        )
    return powers


def times(a: Monomial, b: Monomial) -> Monomial:
    """Return the product of two monomials."""
    powers = dict(a)
    for i, power in b:
        powers[i] = powers.get(i, 0) + power
    return tuple(sorted(powers.items()))


def degree(m: Monomial) -> int:
    """Return the total order of a monomial."""
    return sum(power for _, power in m)


def factorial(m: Monomial) -> int:
    """Return α! = prod α_i!."""
    return math.prod(math.factorial(power) for _, power in m)


def splits(m: Monomial) -> Iterator[tuple[Monomial, Monomial, int]]:
    """Yield all (β, γ, binomial(m, β)) with β + γ = m."""
    if not m:
        yield (), (), 1
        return
    (i, power), rest = m[0], m[1:]
    for left, right, count in splits(rest):
        for j in range(power + 1):
            head = ((i, j), *left) if j else left
            tail = ((i, power - j), *right) if power - j else right
            yield head, tail, count * math.comb(power, j)


def differentiate(p: Symbol, coordinate: int) -> Symbol:
    """Return the formal derivative of a symbol in ξ_coordinate."""
    result: Symbol = {}
    for m, c in p.items():
        powers = dict(m)
        power = powers.get(coordinate, 0)
        if power:
            powers[coordinate] = power - 1
            lowered = tuple((i, q) for i, q in sorted(powers.items()) if q)
            result[lowered] = result.get(lowered, Fraction(0)) + c * power
    return result


def homogeneous_parts(p: Mapping[Monomial, Fraction]) -> dict[int, Symbol]:
    """Return the parts of a symbol by total order."""
    parts: dict[int, Symbol] = {}
    for m, c in p.items():
        if c:
            parts.setdefault(degree(m), {})[m] = c
    return parts
