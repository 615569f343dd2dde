"""Sums of highest-order derivatives by the compiled kernels: the top coefficient is summed early.

For a homogeneous operator Σ_l w_l (v_l·∇)^n the highest coefficient passes through a layer
linearly, so it is summed over the lines before the layers, not after: 1 + L(n-1) + 1 rows for L
lines (the forward Laplacian for n = 2; collapsed Taylor mode in general, arXiv 2505.13644).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ntangent.jet.dense import Dense, Pass
from ntangent.jet.execute import native_pass
from ntangent.operators.constant import Constant
from ntangent.operators.directions import directional_plan
from ntangent.operators.symbol import Symbol, homogeneous_parts


@dataclass(frozen=True)
class SumPlan:
    """Lines along which a homogeneous operator is a sum of highest derivatives.

    Args:
        order: n, at least 2.
        groups: (sign, directions): the operator is the sum over groups of sign · Σ_d c_n(d), with
            c_n the normalised Taylor coefficient along direction d.
    """

    order: int
    groups: tuple[tuple[float, Constant], ...]

    @property
    def rows(self) -> int:
        """Rows that the evaluation carries per point, over all groups."""
        return sum(2 + len(lines.rows) * (self.order - 1) for _, lines in self.groups)

    def value(self, net: Dense, x: Tensor) -> Tensor:
        """Return the operator applied to a dense network at points, shape (N, out)."""
        total: Tensor | None = None
        for sign, lines in self.groups:
            vectors = lines.like(x)
            out = native_pass(Pass(net, (x, vectors), len(vectors), self.order, collapsed=True))[-1]
            part = out if sign > 0 else -out
            total = part if total is None else total + part
        assert total is not None
        return total


def sum_plan(symbol: Symbol, dimension: int) -> SumPlan | None:
    """Return the plan of a homogeneous symbol of order at least 2, or None for any other.

    Each line is stretched by (w·n!)^(1/n), so that its weight is 1; for even n the lines of negative
    weight form a group of their own.
    """
    parts = homogeneous_parts(symbol)
    if len(parts) != 1:
        return None
    ((order, part),) = parts.items()
    if order < 2:
        return None
    (terms,) = directional_plan([part])[1]
    signs: dict[float, list[tuple[float, ...]]] = {}
    for line, _, weight in terms:
        sign = 1.0 if weight > 0 or order % 2 else -1.0
        stretch = math.copysign(float(abs(weight) * math.factorial(order)) ** (1 / order), weight * sign)
        vector = [0.0] * dimension
        for i, c in line:
            vector[i] = float(c) * stretch
        signs.setdefault(sign, []).append(tuple(vector))
    return SumPlan(order, tuple((sign, Constant(tuple(v), dimension)) for sign, v in signs.items()))
