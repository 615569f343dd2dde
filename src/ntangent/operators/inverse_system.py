"""The smallest algebra of Taylor coefficients in which given operators can be evaluated.

To evaluate p(∂)u for a composed function u one must carry some linear functionals q(∂) through
every layer, and a set of them is closed under products exactly when the span W of the symbols q
is closed under formal derivatives: q(∂)(fg) expands by q(ξ+η). The smallest such W is the span of
all derivatives of p, Macaulay's inverse system of p, so its dimension is the fewest rows that any
method of this kind can carry. Special cases:
    p = ξ^n in one variable:      1, ξ, ..., ξ^n            the Taylor coefficients along a line
    p = |ξ|²:                     1, ξ_i, |ξ|²              2 + d rows, the forward Laplacian
    p = |ξ|⁴:                     1, ξ_i, ξ_iξ_j, ξ_i|ξ|², |ξ|⁴
    p = ξ_1³ξ_2:                  the 8 monomials below it, a down-closed set of multi-indices
Several operators share the sum of their systems.

Source for the algebra: Macaulay (1916), The Algebraic Theory of Modular Systems, chapter IV;
Iarrobino & Kanev (1999), Power Sums, Gorenstein Algebras, and Determinantal Loci.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ntangent.operators.symbol import (
    Monomial,
    Symbol,
    degree,
    differentiate,
    factorial,
    homogeneous_parts,
    splits,
)


@dataclass(frozen=True)
class InverseSystem:
    """A basis of W, graded, in reduced echelon form, with its product table.

    Args:
        pivots: the leading monomial of each basis element; sorted by degree.
        basis: the basis as symbols; element b has coefficient 1/α! at its pivot α and 0 at every
            other pivot, so that in one variable its rows are normalised Taylor coefficients.
        table: (c, d, b, weight) with (fg)_b = sum of weight · f_c · g_d.
    """

    pivots: tuple[Monomial, ...]
    basis: tuple[Symbol, ...]
    table: tuple[tuple[int, int, int, Fraction], ...]

    @property
    def grades(self) -> tuple[int, ...]:
        """Order of each basis element."""
        return tuple(degree(m) for m in self.pivots)

    def coordinates(self, p: Symbol) -> dict[int, Fraction]:
        """Return the coefficients with which p is a combination of the basis.

        Raises:
            KeyError: never for a symbol whose homogeneous parts were asked for.
        """
        index = {m: b for b, m in enumerate(self.pivots)}
        return {index[m]: c * factorial(m) for m, c in p.items() if m in index and c}


def _reduce(rows: list[Symbol]) -> list[tuple[Monomial, Symbol]]:
    """Return the reduced row echelon form of symbols of one degree, as (pivot, row)."""
    reduced: list[tuple[Monomial, Symbol]] = []
    for row in rows:
        current = dict(row)
        for pivot, other in reduced:
            factor = current.get(pivot)
            if factor:
                _subtract(current, other, factor)
        if not current:
            continue
        pivot = min(current)
        lead = current[pivot]
        current = {m: c / lead for m, c in current.items()}
        for k, (known, other) in enumerate(reduced):
            factor = other.get(pivot)
            if factor:
                other = dict(other)
                _subtract(other, current, factor)
                reduced[k] = (known, other)
        reduced.append((pivot, current))
    return sorted(reduced, key=lambda item: item[0])


def _subtract(row: Symbol, other: Symbol, factor: Fraction) -> None:
    for m, c in other.items():
        value = row.get(m, Fraction(0)) - factor * c
        if value:
            row[m] = value
        else:
            row.pop(m, None)


def inverse_system(symbols: Sequence[Symbol]) -> InverseSystem:
    """Return the smallest inverse system that contains the homogeneous parts of all symbols.

    Cost: exact elimination in each degree; microseconds to milliseconds for the operators of
    PDEs, seconds for a full Hessian in a hundred dimensions.
    """
    pending: dict[int, list[Symbol]] = {0: [{(): Fraction(1)}]}
    for p in symbols:
        for order, part in homogeneous_parts(p).items():
            pending.setdefault(order, []).append(part)
    levels: dict[int, list[tuple[Monomial, Symbol]]] = {}
    for order in range(max(pending), -1, -1):
        levels[order] = _reduce(pending.get(order, []))
        if order:
            below = pending.setdefault(order - 1, [])
            for _, row in levels[order]:
                for i in sorted({i for m in row for i, _ in m}):
                    below.append(differentiate(row, i))
    ordered = [item for order in sorted(levels) for item in levels[order]]
    pivots = tuple(pivot for pivot, _ in ordered)
    basis = tuple({m: c / factorial(pivot) for m, c in row.items()} for pivot, row in ordered)
    return InverseSystem(pivots, basis, _table(pivots, basis))


def _table(
    pivots: tuple[Monomial, ...], basis: tuple[Symbol, ...]
) -> tuple[tuple[int, int, int, Fraction], ...]:
    """Return the product table: the coefficients of q_b(ξ+η) at the pivots in ξ and η."""
    index = {m: b for b, m in enumerate(pivots)}
    table = []
    for b, row in enumerate(basis):
        for m, coefficient in row.items():
            for left, right, count in splits(m):
                c, d = index.get(left), index.get(right)
                if c is not None and d is not None:
                    weight = coefficient * count * factorial(left) * factorial(right)
                    table.append((c, d, b, weight))
    return tuple(table)
