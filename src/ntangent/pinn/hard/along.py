"""Derivatives of a function of jets along a direction, again as jets.

The point is moved by ε v with ε^(n+1) = 0: the rows of the jet are multiplied by those of a
polynomial in ε. So a derivative at a projected point, the normal derivative on a face say, is
exact and has itself all the derivatives that the jet carries.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ntangent.jet import Jet
from ntangent.jet.algebra import Algebra
from ntangent.jet.arithmetic import Structure, product_entries
from ntangent.jet.series import lift, padded

Function = Callable[[Jet], Jet]


def plain(x: Any) -> Jet:
    """Return points as a bare jet: a tensor has order 0."""
    return Jet(x[None], 0) if isinstance(x, Tensor) else Jet(x.data, x.order, x.directions)


@lru_cache(maxsize=256)
def _algebra(structure: Structure, order: int) -> Algebra:
    """Return the algebra of a jet, also of one along lines."""
    if isinstance(structure, Algebra):
        return structure
    grades = (0, *(k for k in range(1, order + 1) for _ in range(structure)))
    return Algebra(grades, tuple(product_entries(structure, order)))


@lru_cache(maxsize=256)
def _extended(structure: Structure, order: int, times: int) -> tuple[Algebra, tuple[tuple[int, int], ...]]:
    """Return the algebra times polynomials in ε of degree ``times``, and (row, power of ε) of its rows."""
    base = _algebra(structure, order)
    size = base.rows(order)
    rows = sorted(
        ((b, i) for b in range(size) for i in range(times + 1)), key=lambda r: (base.grades[r[0]] + r[1], r)
    )
    index = {row: n for n, row in enumerate(rows)}
    table = {(c, d, b): w for c, d, b, w in base.table if c and d and b < size}
    table |= {(0, b, b): 1.0 for b in range(size)} | {(b, 0, b): 1.0 for b in range(size)}
    entries = [
        (index[c, i], index[d, j], index[b, i + j], w)
        for (c, d, b), w in table.items()
        for i in range(times + 1)
        for j in range(times + 1 - i)
    ]
    return Algebra(tuple(base.grades[b] + i for b, i in rows), tuple(entries)), tuple(rows)


def along(f: Function, x: Jet, direction: Any, times: int) -> list[Jet]:
    """Return the derivatives of order 0..times of f along a direction at x, as jets like x.

    Args:
        f: maps points, a jet of shape (N, d), to a jet of shape (N, c).
        x: the points.
        direction: tensor or jet, shape (N, d) or (1, d); a jet's own derivatives are not taken into
            account beyond the first order (the line through x is straight).
        times: how many.

    Cost: one evaluation of f with times + 1 times the rows.
    """
    if times == 0:
        return [f(x)]
    algebra, rows = _extended(x.structure, x.order, times)
    tangent = direction if isinstance(direction, Jet) else lift(direction.expand(x.shape), x)
    points, moves = padded(x, x.order), padded(tangent, x.order)
    blank = torch.zeros_like(points[:1])
    size = len(points)
    # Row (b, 0) is the point's, (b, 1) the direction's, and the others are zero.
    source = [b if i == 0 else size + b if i == 1 else 2 * size for b, i in rows]
    data = torch.cat([points, moves, blank])[torch.tensor(source, device=points.device)]
    order = x.order + times
    result = f(Jet(data, order, algebra))
    found = padded(result, order)
    jets = []
    for power in range(times + 1):
        own = torch.tensor([n for n, (_, i) in enumerate(rows) if i == power], device=data.device)
        jets.append(Jet(found[own] * float(math.factorial(power)), x.order, x.directions))
    return jets


def combine(terms: tuple[tuple[int, float], ...], derivatives: list[Jet]) -> Jet:
    """Return the sum of coefficients times derivatives."""
    return sum((derivatives[k] * c for k, c in terms[1:]), derivatives[terms[0][0]] * terms[0][1])


def normal_trace(
    f: Function, points: Tensor, normals: Tensor, terms: tuple[tuple[int, float], ...]
) -> Tensor:
    """Return sum c_k ∂_n^k f at boundary points, shape (N, c)."""
    order = max(k for k, _ in terms)
    return combine(terms, along(f, plain(points), normals, order)).value


def project(x: Jet, axis: int, value: float) -> Jet:
    """Return the points with one coordinate replaced by a number."""
    column = lift(x.data.new_full((x.shape[0], 1), value), x)
    parts: Any = [x[:, :axis], column, x[:, axis + 1 :]]
    return torch.cat([p for p in parts if p.shape[1]], 1)  # type: ignore[return-value]


def at_end(f: Function, x: Jet, axis: int, value: float, terms: tuple[tuple[int, float], ...]) -> Jet:
    """Return sum c_k ∂^k f/∂x_axis^k at the projections of points to x_axis = value, as a jet of x.

    In one dimension the projection is one point: f is evaluated there once, for all points.
    """
    order = max(k for k, _ in terms)
    if x.shape[1] == 1:
        end = Jet(x.data.new_full((1, 1, 1), value), 0)
        result = combine(terms, along(f, end, torch.ones_like(end.value), order)).value
        return lift(result.expand(x.shape[0], -1), x)
    direction = x.data.new_zeros(1, x.shape[1])
    direction[0, axis] = 1.0
    return combine(terms, along(f, project(x, axis, value), direction, order))
