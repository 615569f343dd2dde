"""Mixed partial derivatives from derivatives along lines, with exact rational weights.

Polarisation: for |α| = n,
    ξ^α = 1/n! Σ_{0<=β<=α} (-1)^{|β|} binomial(α, β) ((α/2 - β)·ξ)^n,
so ∂^α is a combination of n-th derivatives along lines. The terms β and α - β are equal, which
halves their number; directions that differ by a factor are merged over all requested operators.
(Griewank, Utke & Walther 2000, Evaluating higher derivative tensors by forward propagation of
univariate Taylor series, give the interpolation view of the same identity.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

from ntangent.operators.symbol import Monomial, Symbol, degree, homogeneous_parts

Direction = tuple[tuple[int, Fraction], ...]


def polarise(m: Monomial) -> dict[Direction, Fraction]:
    """Return directions v and weights w with ξ^m = Σ w (v·ξ)^n, n the degree of m."""
    n = degree(m)
    weights: dict[Direction, Fraction] = {}
    for beta in itertools.product(*(range(power + 1) for _, power in m)):
        raw = [(i, Fraction(power, 2) - b) for (i, power), b in zip(m, beta, strict=True)]
        scale, direction = _primitive([(i, c) for i, c in raw if c])
        if not direction:
            continue
        weight = Fraction((-1) ** sum(beta), math.factorial(n))
        weight *= math.prod(math.comb(power, b) for (_, power), b in zip(m, beta, strict=True))
        weights[direction] = weights.get(direction, Fraction(0)) + weight * scale**n
    return {v: w for v, w in weights.items() if w}


def _primitive(v: list[tuple[int, Fraction]]) -> tuple[Fraction, Direction]:
    """Return v as scale times a vector of coprime integers with positive first entry."""
    if not v:
        return Fraction(0), ()
    denominator = math.lcm(*(c.denominator for _, c in v))
    integers = [int(c * denominator) for _, c in v]
    divisor = math.gcd(*integers) * (1 if integers[0] > 0 else -1)
    return Fraction(divisor, denominator), tuple(
        (i, Fraction(c, divisor)) for (i, _), c in zip(v, integers, strict=True)
    )


def directional_plan(
    symbols: Sequence[Symbol],
) -> tuple[dict[Direction, int], list[list[tuple[Direction, int, Fraction]]]]:
    """Return the directions that several operators need, with orders, and each operator's weights.

    Returns:
        Direction -> highest order along it; and for each symbol its terms (direction, n, weight):
        the operator is Σ weight · (v·∇)^n.
    """
    orders: dict[Direction, int] = {}
    combinations = []
    for symbol in symbols:
        terms = []
        for n, part in homogeneous_parts(symbol).items():
            total: dict[Direction, Fraction] = {}
            for m, c in part.items():
                for v, w in (polarise(m) if n else {(): Fraction(1)}).items():
                    total[v] = total.get(v, Fraction(0)) + c * w
            terms += [(v, n, w) for v, w in total.items() if w]
        combinations.append(terms)
        for v, n, _ in terms:
            if v:
                orders[v] = max(orders.get(v, 0), n)
    return orders, combinations
