"""Truncated products of Taylor series, and their adjoint, differentiable any number of times.

A series is one tensor of rows: row 0 is the value, row 1 + (k-1)·D + d the coefficient of order
k along direction d. All directions share row 0. Coefficients past the stored ones are zero.

The product and its adjoint are each other's derivatives, so two functions close the algebra:
    (a * b)_k = sum_j a_j b_{k-j}          (Cauchy product)
    (s ⋆ g)_j = sum_k s_k g_{j+k}          (correlation, the adjoint of a ↦ s * a)
Christianson (1992), Reverse accumulation and accurate rounding error estimates for Taylor series.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function

from ntangent.jet.algebra import Algebra

# Up to this order, along so many lines, series are multiplied by a table: beyond, order by order is shorter,
# and a table long.
_TABLED, _TABLED_LINES = 4, 64

# Along how many directions, or in which other algebra, a row tensor is a series.
Structure = int | Algebra


def degree_of(data: Tensor, directions: Structure) -> int:
    """Return the highest stored order of a row tensor."""
    if isinstance(directions, Algebra):
        return directions.degree(data)
    return (data.shape[0] - 1) // directions


def row_count(directions: Structure, degree: int) -> int:
    """Return the number of rows of a series of the given degree."""
    return directions.rows(degree) if isinstance(directions, Algebra) else 1 + degree * directions


def tail_of(data: Tensor, directions: int) -> Tensor:
    """View the rows of order >= 1 as (degree, directions, *shape)."""
    return data[1:].view(degree_of(data, directions), directions, *data.shape[1:])


def product_entries(directions: Structure, degree: int) -> list[tuple[int, int, int, float]]:
    """Return the product table up to a degree: (c, d, b, w), row b of ab gains w · a_c · b_d."""
    if isinstance(directions, Algebra):
        size = directions.rows(degree)
        return [entry for entry in directions.table if entry[2] < size]
    table = [(0, 0, 0, 1.0)]
    for v in range(directions):
        line = [0, *[1 + k * directions + v for k in range(degree)]]
        table += [(line[i], line[k - i], line[k], 1.0) for k in range(1, degree + 1) for i in range(k + 1)]
    return table


@lru_cache(maxsize=64)
def _line_algebra(directions: int, order: int) -> Algebra:
    grades = (0, *[k for k in range(1, order + 1) for _ in range(directions)])
    return Algebra(grades, tuple(product_entries(directions, order)))


def tabled(directions: Structure, order: int) -> Structure:
    """Return series along lines as an algebra of the same rows, where its products take fewer operations."""
    if isinstance(directions, Algebra) or order > _TABLED or directions > _TABLED_LINES:
        return directions
    if torch.compiler.is_compiling():
        return directions
    return _line_algebra(directions, order)


def product_rows(a: Tensor, b: Tensor, directions: Structure, degree: int) -> Tensor:
    """Cauchy product of equal-shaped series, truncated at ``degree``; degree + 1 block operations."""
    if isinstance(directions, Algebra):
        return directions.product(a, b, degree)
    out = a.new_empty((1 + degree * directions, *a.shape[1:]))
    torch.mul(a[0], b[0], out=out[0])
    if degree == 0:
        return out
    ta, tb, tail = tail_of(a, directions), tail_of(b, directions), tail_of(out, directions)
    in_b = min(tb.shape[0], degree)
    torch.mul(tb[:in_b], a[0], out=tail[:in_b])
    tail[in_b:] = 0
    in_a = min(ta.shape[0], degree)
    tail[:in_a].addcmul_(ta[:in_a], b[0])
    for j in range(1, min(in_a, degree - 1) + 1):
        count = min(in_b, degree - j)
        tail[j : j + count].addcmul_(ta[j - 1], tb[:count])
    return out


def correlate_rows(s: Tensor, g: Tensor, directions: Structure, degree: int) -> Tensor:
    """Adjoint of the product with ``s``, applied to ``g``, for a factor of degree ``degree``."""
    directions = tabled(directions, max(degree, degree_of(s, directions), degree_of(g, directions)))
    if isinstance(directions, Algebra):
        return directions.correlate(s, g, degree)
    out = g.new_zeros((1 + degree * directions, *g.shape[1:]))
    torch.mul(s[0], g[0], out=out[0])
    ts, tg, tail = tail_of(s, directions), tail_of(g, directions), tail_of(out, directions)
    top = tg.shape[0]
    both = min(ts.shape[0], top)
    if both:
        out[0] += (ts[:both] * tg[:both]).sum((0, 1))
    count = min(degree, top)
    torch.mul(tg[:count], s[0], out=tail[:count])
    for i in range(1, min(both, top - 1) + 1):
        count = min(degree, top - i)
        tail[:count].addcmul_(ts[i - 1], tg[i : i + count])
    return out


def common_shape(a: torch.Size, b: torch.Size) -> torch.Size:
    """Return the shape to which two broadcast; ``torch.broadcast_shapes`` is slow where they agree."""
    return a if a == b else torch.broadcast_shapes(a, b)


def fold_batch(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> list[Tensor]:
    """Move a vmapped axis behind the rows: it is just one more axis of the value."""
    folded = []
    for tensor, dim in zip(tensors, in_dims, strict=False):
        if dim is None:
            tensor = tensor.unsqueeze(1).expand(-1, info.batch_size, *tensor.shape[1:])
        else:
            tensor = tensor.movedim(dim, 1)
        folded.append(tensor.contiguous())
    return folded


class _Product(Function):
    @staticmethod
    def forward(a: Tensor, b: Tensor, directions: Structure, degree: int) -> Tensor:
        return product_rows(a, b, directions, degree)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        a, b, ctx.directions, ctx.degree = inputs
        ctx.save_for_backward(a, b)
        ctx.save_for_forward(a, b)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        grads = []
        for i, (own, other) in enumerate(((a, b), (b, a))):
            need = ctx.needs_input_grad[i]
            grads.append(
                correlate(other, g, ctx.directions, degree_of(own, ctx.directions)) if need else None
            )
        return (*grads, None, None)

    @staticmethod
    def jvp(ctx: Any, ta: Tensor | None, tb: Tensor | None, *_: Any) -> Tensor:
        a, b = ctx.saved_tensors
        parts = []
        if ta is not None:
            parts.append(product(ta, b, ctx.directions, ctx.degree))
        if tb is not None:
            parts.append(product(a, tb, ctx.directions, ctx.degree))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, a: Tensor, b: Tensor, directions: Structure, degree: int
    ) -> tuple[Tensor, int]:
        a, b = fold_batch(info, in_dims, a, b)
        return product(a, b, directions, degree), 1


class _Correlate(Function):
    @staticmethod
    def forward(s: Tensor, g: Tensor, directions: Structure, degree: int) -> Tensor:
        return correlate_rows(s, g, directions, degree)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        s, g, ctx.directions, ctx.degree = inputs
        ctx.save_for_backward(s, g)
        ctx.save_for_forward(s, g)

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
        s, g = ctx.saved_tensors
        d = ctx.directions
        grad_s = correlate(h, g, d, degree_of(s, d)) if ctx.needs_input_grad[0] else None
        grad_g = product(s, h, d, degree_of(g, d)) if ctx.needs_input_grad[1] else None
        return grad_s, grad_g, None, None

    @staticmethod
    def jvp(ctx: Any, ts: Tensor | None, tg: Tensor | None, *_: Any) -> Tensor:
        s, g = ctx.saved_tensors
        parts = []
        if ts is not None:
            parts.append(correlate(ts, g, ctx.directions, ctx.degree))
        if tg is not None:
            parts.append(correlate(s, tg, ctx.directions, ctx.degree))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, s: Tensor, g: Tensor, directions: Structure, degree: int
    ) -> tuple[Tensor, int]:
        s, g = fold_batch(info, in_dims, s, g)
        return correlate(s, g, directions, degree), 1


def product(a: Tensor, b: Tensor, directions: Structure, degree: int) -> Tensor:
    """Truncated product of two row tensors of equal value shape, differentiable any number of times.

    Args:
        a: rows of degree p, shape (1 + p·D, *shape).
        b: rows of degree q, shape (1 + q·D, *shape).
        directions: D, or the algebra of the rows.
        degree: degree of the result.

    Cost: (degree + 1)(degree + 2)/2 multiply-adds per element and direction.
    """
    return _Product.apply(a, b, directions, degree)  # type: ignore[no-any-return,no-untyped-call]


def correlate(s: Tensor, g: Tensor, directions: Structure, degree: int) -> Tensor:
    """Adjoint of ``x ↦ product(s, x)`` on series x of the given degree; same cost as the product."""
    return _Correlate.apply(s, g, directions, degree)  # type: ignore[no-any-return,no-untyped-call]
