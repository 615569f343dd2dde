"""Conditions at the two ends of one coordinate: the polynomials that interpolate them.

Each condition is a functional ℓ_i(u) = sum c_k u^(k) at one end. Polynomials p_j with ℓ_i(p_j) = δ_ij
turn any function N into one that satisfies them: u = N + sum p_j (g_j - ℓ_j N), Hermite-Birkhoff
interpolation. Applied to one coordinate after the other it satisfies conditions on all faces of a
box, if the data agree at the corners, since the functionals of different coordinates commute.
Mortari (2017), Mathematics 5, 57; Mortari & Leake (2019), Mathematics 7, 296.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from ntangent._base.errors import ProblemError
from ntangent.jet import Jet

Terms = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class End:
    """One functional at one end of a coordinate.

    Args:
        upper: at which end.
        terms: (k, c_k), derivatives with respect to the coordinate itself.
    """

    upper: bool
    terms: Terms

    def on_power(self, m: int, length: Fraction) -> Fraction:
        """Return the functional of s^m, s = (x - low)/length."""
        total = Fraction(0)
        for k, c in self.terms:
            if m >= k and (self.upper or m == k):
                total += Fraction(c) / length**k * math.perm(m, k)
        return total


@dataclass(frozen=True)
class Line:
    """The conditions on one coordinate.

    Args:
        name: of the coordinate.
        axis: its index.
        low, high: its ends.
        ends: the functionals.
    """

    name: str
    axis: int
    low: float
    high: float
    ends: tuple[End, ...]

    @property
    def cardinals(self) -> tuple[tuple[float, ...], ...]:
        """Coefficients of p_j in powers of s, of the lowest degrees that do, rounded once."""
        return self._interpolation[1]

    @property
    def cancelled(self) -> tuple[int, ...]:
        """Degrees whose polynomials leave of themselves, N - sum p_j ℓ_j N, no more than lower ones do."""
        return self._interpolation[0] if self.multiplicities is None else ()

    @cached_property
    def _interpolation(self) -> tuple[tuple[int, ...], tuple[tuple[float, ...], ...]]:
        """Return the powers of s that are used, and the coefficients of p_j."""
        length = Fraction(self.high) - Fraction(self.low)
        count = len(self.ends)
        top = 2 * count + 2 * max(k for end in self.ends for k, _ in end.terms)
        # Rows (functionals) in echelon form column by column: a column that adds to the rank is taken.
        powers: list[int] = []
        columns: list[list[Fraction]] = []
        for m in range(top + 1):
            column = [end.on_power(m, length) for end in self.ends]
            if _rank([*columns, column]) > len(columns):
                powers.append(m)
                columns.append(column)
            if len(columns) == count:
                break
        else:
            raise ProblemError(
                f"the conditions at the ends of {self.name} depend on each other",
                "one of them is given twice, or follows from the others",
                "give each condition once",
            )
        inverse = _inverse([[columns[j][i] for j in range(count)] for i in range(count)])
        result = []
        for j in range(count):
            coefficients = [Fraction(0)] * (powers[-1] + 1)
            for n, m in enumerate(powers):
                coefficients[m] = inverse[n][j]
            result.append(tuple(float(c) for c in coefficients))
        return tuple(powers), tuple(result)

    @cached_property
    def multiplicities(self) -> tuple[int, int] | None:
        """Orders to which a factor must vanish at both ends, if that says all of the conditions.

        It does when the functionals at each end are all derivatives up to an order.
        """
        found = []
        for upper in (False, True):
            own = [end for end in self.ends if end.upper is upper]
            if own and max(k for end in own for k, _ in end.terms) != len(own) - 1:
                return None
            found.append(len(own))
        return found[0], found[1]

    def scaled(self, x: Jet) -> Jet:
        """Return s = (x - low)/(high - low), shape (N, 1)."""
        return (x[:, self.axis : self.axis + 1] - self.low) * (1 / (self.high - self.low))

    def factor(self, x: Jet) -> Jet:
        """Return s^m (1 - s)^n, scaled to the maximum 1, for the multiplicities m and n."""
        assert self.multiplicities is not None
        m, n = self.multiplicities
        s = self.scaled(x)
        r = 1.0 - s
        peak = m / (m + n)
        result: Any = 1 / (peak**m * (1 - peak) ** n)
        for base, count in ((s, m), (r, n)):
            for _ in range(count):
                result = base * result
        return result  # type: ignore[no-any-return]

    def polynomial(self, j: int, x: Jet) -> Jet:
        """Return p_j at points, shape (N, 1)."""
        s, coefficients = self.scaled(x), self.cardinals[j]
        total: Any = s * 0.0 + coefficients[-1]
        for c in coefficients[-2::-1]:
            total = total * s + c
        return total  # type: ignore[no-any-return]


def _rank(columns: Sequence[Sequence[Fraction]]) -> int:
    rows = [list(column) for column in columns]
    rank = 0
    for i in range(len(rows[0])):
        pivot = next((r for r in range(rank, len(rows)) if rows[r][i]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for r in range(rank + 1, len(rows)):
            scale = rows[r][i] / rows[rank][i]
            rows[r] = [a - scale * b for a, b in zip(rows[r], rows[rank], strict=True)]
        rank += 1
    return rank


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """Return the inverse by Gauss and Jordan, in exact arithmetic."""
    n = len(matrix)
    rows = [[*row, *(Fraction(int(i == j)) for j in range(n))] for i, row in enumerate(matrix)]
    for i in range(n):
        pivot = next(r for r in range(i, n) if rows[r][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [v / rows[i][i] for v in rows[i]]
        for r in range(n):
            if r != i and rows[r][i]:
                rows[r] = [a - rows[r][i] * b for a, b in zip(rows[r], rows[i], strict=True)]
    return [row[n:] for row in rows]
