"""Sums of highest-order derivatives by the compiled kernels: the top coefficient is summed early.

For a homogeneous operator Σ_l w_l (v_l·∇)^n the highest coefficient passes through a layer
linearly, so it is summed over the lines before the layers, not after: 1 + L(n-1) + 1 rows for L
lines (the forward Laplacian for n = 2; collapsed Taylor mode in general, arXiv 2505.13644).
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

from ntangent.jet.backends import native
from ntangent.jet.dense import Dense
from ntangent.operators.directions import Direction, directional_plan
from ntangent.operators.symbol import Monomial, Symbol, homogeneous_parts

Group = tuple[float, tuple[tuple[Direction, float], ...]]


@lru_cache(maxsize=256)
def sum_plan(symbol: tuple[tuple[Monomial, Fraction], ...]) -> tuple[int, tuple[Group, ...]] | None:
    """Return order and groups of lines of a homogeneous symbol of order at least 2, or None.

    Each line is stretched by (w·n!)^(1/n), so that its weight is 1; for even n the lines of negative
    weight form a group of their own.
    """
    parts = homogeneous_parts(dict(symbol))
    if len(parts) != 1:
        return None
    ((order, part),) = parts.items()
    if order < 2:
        return None
    (terms,) = directional_plan([part])[1]
    signs: dict[float, list[tuple[Direction, float]]] = {}
    for line, _, weight in terms:
        sign = 1.0 if weight > 0 or order % 2 else -1.0
        stretch = math.copysign(float(abs(weight) * math.factorial(order)) ** (1 / order), weight * sign)
        signs.setdefault(sign, []).append((line, stretch))
    return order, tuple((sign, tuple(lines)) for sign, lines in signs.items())


def row_total(symbol: Symbol) -> int | None:
    """Return the rows that the collapsed evaluation of a symbol carries, or None if it has none."""
    found = sum_plan(tuple(sorted(symbol.items())))
    if found is None:
        return None
    order, groups = found
    return sum(2 + len(lines) * (order - 1) for _, lines in groups)


def collapsed_value(net: Dense, x: Tensor, symbol: Symbol) -> Tensor:
    """Return p(∂) of a dense network at points, shape (N, out), for a symbol that has a sum plan."""
    found = sum_plan(tuple(sorted(symbol.items())))
    assert found is not None
    order, groups = found
    total: Tensor | None = None
    for sign, lines in groups:
        vectors = x.new_zeros((len(lines), x.shape[1]))
        for row, (line, stretch) in zip(vectors, lines, strict=True):
            for i, c in line:
                row[i] = float(c) * stretch
        rows = torch.cat([x[None], vectors[:, None].expand(-1, *x.shape)])
        out = native.dense_jet(
            rows, len(lines), order, net.weights, net.biases, net.activations, collapsed=True
        )[-1]  # fmt: skip
        total = sign * out if total is None else total + sign * out
    assert total is not None
    return total
