"""Taylor rules that choose, move and join entries, and change where and in which type they are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError, ShapeError
from ntangent.jet.dispatch import name_of, rule
from ntangent.jet.layers import linear_rule, where
from ntangent.jet.series import Jet, broadcast_rows, common, lift, padded
from ntangent.jet.shapes import Dims, axis_of, both, flatten, plain, reshape, sizes_of

# --- pieces and entries --------------------------------------------------------------------------


def _pieces(input: Jet, cut: Callable[[Tensor], Sequence[Tensor]]) -> tuple[Jet, ...]:
    return tuple(Jet(rows, input.order, input.directions) for rows in cut(input.data))


@rule(*both("chunk"))
def _chunk(input: Jet, chunks: int, dim: int = 0) -> tuple[Jet, ...]:
    axis = axis_of(dim, input.ndim)
    return _pieces(input, lambda rows: rows.chunk(chunks, axis))


@rule(*both("split"))
def _split(tensor: Jet, split_size_or_sections: int | list[int], dim: int = 0) -> tuple[Jet, ...]:
    axis = axis_of(dim, tensor.ndim)
    return _pieces(tensor, lambda rows: torch.split(rows, split_size_or_sections, axis))


@rule(*both("tensor_split"))
def _tensor_split(input: Jet, indices_or_sections: Any, dim: int = 0) -> tuple[Jet, ...]:
    axis = axis_of(dim, input.ndim)
    return _pieces(input, lambda rows: torch.tensor_split(rows, indices_or_sections, axis))


@rule(*both("unbind"))
def _unbind(input: Jet, dim: int = 0) -> tuple[Jet, ...]:
    axis = axis_of(dim, input.ndim)
    return _pieces(input, lambda rows: rows.unbind(axis))


@rule(*both("narrow"))
def _narrow(input: Jet, dim: int, start: int, length: int) -> Jet:
    axis = axis_of(dim, input.ndim)
    return input.map_rows(lambda rows: rows.narrow(axis, start, length))


@rule(*both("select"))
def _select(input: Jet, dim: int, index: int) -> Jet:
    axis = axis_of(dim, input.ndim)
    return input.map_rows(lambda rows: rows.select(axis, index))


@rule(*both("index_select"))
def _index_select(input: Jet, dim: int, index: Tensor) -> Jet:
    plain(torch.index_select, index)
    axis = axis_of(dim, input.ndim)
    return input.map_rows(lambda rows: rows.index_select(axis, index))


@rule(*both("gather"))
def gather(input: Jet, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Jet:
    """Return the entries of the value at constant indices along an axis."""
    plain(torch.gather, index)
    axis = axis_of(dim, input.ndim)
    return input.map_rows(
        lambda rows: rows.gather(axis, index.expand(len(rows), *index.shape), sparse_grad=sparse_grad)
    )


@rule(*both("take_along_dim"))
def _take_along_dim(input: Jet, indices: Tensor, dim: int | None = None) -> Jet:
    plain(torch.take_along_dim, indices)
    if dim is None:
        return gather(flatten(input), 0, indices.flatten())
    axis = axis_of(dim, input.ndim)
    return input.map_rows(lambda rows: rows.take_along_dim(indices[None], axis))


@rule(*both("masked_select"))
def _masked_select(input: Jet, mask: Tensor) -> Jet:
    plain(torch.masked_select, mask)
    shape = torch.broadcast_shapes(input.shape, mask.shape)
    return input.map_rows(lambda rows: broadcast_rows(rows, shape)[:, mask.expand(shape)])


@rule(*both("masked_fill"))
def _masked_fill(input: Any, mask: Tensor, value: Any) -> Jet:
    plain(torch.masked_fill, mask)
    return where(mask, value, input)


@rule(*both("roll"))
def _roll(input: Jet, shifts: Any, dims: Dims = None) -> Jet:
    if dims is None or (isinstance(dims, Sequence) and not dims):
        return reshape(flatten(input).map_rows(lambda rows: rows.roll(shifts, 1)), *input.shape)
    axes = [axis_of(d, input.ndim) for d in ((dims,) if isinstance(dims, int) else dims)]
    return input.map_rows(lambda rows: rows.roll(shifts, axes))


@rule(*both("flip"))
def _flip(input: Jet, *dims: Any) -> Jet:
    axes = [axis_of(d, input.ndim) for d in sizes_of(dims)]
    return input.map_rows(lambda rows: rows.flip(axes))


@rule(*both("rot90"))
def _rot90(input: Jet, k: int = 1, dims: Sequence[int] = (0, 1)) -> Jet:
    axes = [axis_of(d, input.ndim) for d in dims]
    return input.map_rows(lambda rows: rows.rot90(k, axes))


def _triangle(function: Any) -> Callable[..., Jet]:
    def apply(input: Jet, diagonal: int = 0) -> Jet:
        if input.ndim < 2:
            raise ShapeError(f"{name_of(function)} got {input.ndim} axes", "it needs a matrix", "x[:, None]")
        return input.map_rows(lambda rows: function(rows, diagonal))

    return apply


for _function in (torch.tril, torch.triu):
    rule(*both(_function.__name__))(_triangle(_function))


@rule(*both("diagonal"))
def _diagonal(input: Jet, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Jet:
    first, second = axis_of(dim1, input.ndim), axis_of(dim2, input.ndim)
    return input.map_rows(lambda rows: rows.diagonal(offset, first, second))


@rule(torch.Tensor.unfold)
def _unfold(input: Jet, dimension: int, size: int, step: int) -> Jet:
    axis = axis_of(dimension, input.ndim)
    return input.map_rows(lambda rows: rows.unfold(axis, size, step))


# --- several series ------------------------------------------------------------------------------


def aligned(values: Sequence[Any]) -> tuple[list[Tensor], Jet]:
    """Return the rows of series and constants, equally many of each, and one of the series as a model."""
    like = next(value for value in values if isinstance(value, Jet))
    jets = [value if isinstance(value, Jet) else lift(value, like) for value in values]
    order, directions = common(jets)
    degree = min(order, max(jet.degree for jet in jets))
    return [padded(jet, degree) for jet in jets], Jet(like.data[:1], order, directions)


@rule(torch.cat, torch.concat, torch.concatenate)
def _cat(tensors: Sequence[Any], dim: int = 0) -> Jet:
    rows, like = aligned(tensors)
    axis = axis_of(dim, like.ndim)
    return Jet(torch.cat(rows, axis), like.order, like.directions)


@rule(torch.stack)
def _stack(tensors: Sequence[Any], dim: int = 0) -> Jet:
    rows, like = aligned(tensors)
    axis = axis_of(dim, like.ndim, extra=1)
    return Jet(torch.stack(rows, axis), like.order, like.directions)


def _stacking(least: int, dim: int | None) -> Callable[[Sequence[Any]], Jet]:
    """Return the rule of a stack along an axis of values with at least so many axes."""

    def apply(tensors: Sequence[Any]) -> Any:
        parts = [_at_least(t, least) for t in tensors]
        return torch.cat(parts, min(parts[0].ndim - 1, 1) if dim is None else dim)

    return apply


def _at_least(x: Any, axes: int, *, columns: bool = False) -> Any:
    """Return a value with at least so many axes: a vector is a row (or a column), a matrix gets depth."""
    if x.ndim == 0 and axes:
        x = x.reshape(1)
    if x.ndim == 1 and axes > 1:
        x = x[:, None] if columns else x[None]
    return x.unsqueeze(-1) if x.ndim == 2 and axes > 2 else x


rule(torch.hstack)(_stacking(1, None))
rule(torch.vstack, torch.row_stack)(_stacking(2, 0))
rule(torch.dstack)(_stacking(3, 2))


@rule(torch.column_stack)
def _column_stack(tensors: Sequence[Any]) -> Any:
    return torch.cat([_at_least(t, 2, columns=True) for t in tensors], 1)


linear_rule(*both("fliplr", "flipud", "diag_embed", "diag"))


# --- types and devices ---------------------------------------------------------------------------


@rule(torch.Tensor.to)
def _to(input: Any, *args: Any, **kwargs: Any) -> Any:
    where_to: list[Any] = [a.value if isinstance(a, Jet) else a for a in args]
    if not isinstance(input, Jet):  # a tensor is moved to where a series is
        return input.to(*where_to, **kwargs)
    rows = input.data.to(*where_to, **kwargs)
    if not rows.is_floating_point():
        raise ArgumentError(f"a series cannot be {rows.dtype}", "its coefficients are floating", "x.value")
    return Jet(rows, input.order, input.directions)


@rule(torch.Tensor.type_as)
def _type_as(input: Any, other: Any) -> Any:
    return _to(input, other.dtype)


def _cast(dtype: torch.dtype) -> Callable[[Jet], Jet]:
    return lambda input: input.map_rows(lambda rows: rows.to(dtype))


for _name, _dtype in (("float", torch.float32), ("double", torch.float64)):
    rule(getattr(torch.Tensor, _name))(_cast(_dtype))


@rule(torch.Tensor.cpu)
def _cpu(input: Jet) -> Jet:
    return input.map_rows(torch.Tensor.cpu)


@rule(*both("detach"))
def _detach(input: Jet) -> Jet:
    return input.detach()
