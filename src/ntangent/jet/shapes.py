"""Taylor rules of linear operations that move or sum entries: they act on every row alike.

An axis of the value is the next axis of the rows, so a rule shifts dimensions by one and calls
torch once for all orders and directions. Dimensions are checked first: a negative one out of range
would otherwise reach the axis of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ntangent._base.errors import MissingRule, ShapeError
from ntangent.jet.dispatch import name_of, rule
from ntangent.jet.series import Jet

Dims = int | Sequence[int] | None


def both(*names: str) -> list[Any]:
    """Return the functions of these names in torch and the methods of torch.Tensor, once each."""
    found = [getattr(owner, name, None) for name in names for owner in (torch, torch.Tensor)]
    return list(dict.fromkeys(f for f in found if f is not None))


def axis_of(dim: Any, ndim: int, extra: int = 0) -> int:
    """Return the axis of the rows that is axis ``dim`` of a value with ``ndim`` axes.

    Args:
        dim: axis of the value, negative from the end.
        ndim: number of axes of the value.
        extra: axes that the result has more than the value (one for ``unsqueeze``).

    Raises:
        ShapeError: if there is no such axis.
    """
    size = max(ndim + extra, 1)
    if isinstance(dim, bool) or not isinstance(dim, int) or not -size <= dim < size:
        raise ShapeError(f"there is no axis {dim!r} in {ndim + extra} axes", "", f"dim={ndim + extra - 1}")
    return dim % size + 1


def axes_of(dim: Dims, ndim: int) -> tuple[int, ...]:
    """Return the axes of the rows for one, several or (None or empty) all axes of the value."""
    if dim is None or (isinstance(dim, Sequence) and len(dim) == 0):
        return tuple(range(1, ndim + 1))
    if ndim == 0:
        return ()
    axes = tuple(axis_of(d, ndim) for d in ((dim,) if isinstance(dim, int) else dim))
    if len(set(axes)) < len(axes):
        raise ShapeError(f"the axes {dim} repeat", "an axis is reduced once", "dim=(0, 1)")
    return axes


def plain(function: Any, *values: Any) -> None:
    """Raise MissingRule if one of the values is a series where a rule takes constants only."""
    for value in values:
        if isinstance(value, Jet):
            raise MissingRule(
                f"{name_of(function)} got a series where its Taylor rule takes a constant",
                "an index, a mask or a weight has no derivative in this rule",
                'jet(..., missing="nested")',
            )


def floating(rows: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return the rows in another floating type."""
    return rows if dtype is None else rows.to(dtype)


def sizes_of(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the numbers of ``f(2, 3)`` and of ``f((2, 3))``."""
    return tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes


# --- reductions ----------------------------------------------------------------------------------


@rule(*both("sum"))
def total(input: Jet, dim: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Jet:
    """Return the sum over axes of the value."""
    axes = axes_of(dim, input.ndim)
    return input.map_rows(lambda rows: floating(rows, dtype).sum(axes, keepdim) if axes else rows.clone())


@rule(*both("mean"))
def mean(input: Jet, dim: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Jet:
    """Return the mean over axes of the value."""
    axes = axes_of(dim, input.ndim)
    return input.map_rows(lambda rows: floating(rows, dtype).mean(axes, keepdim) if axes else rows.clone())


@rule(*both("cumsum"))
def _cumsum(input: Jet, dim: int, *, dtype: torch.dtype | None = None) -> Jet:
    axes = axes_of(dim, input.ndim)
    return input.map_rows(lambda rows: floating(rows, dtype).cumsum(axes[0]) if axes else rows.clone())


@rule(*both("diff"))
def _diff(input: Jet, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Jet:
    axis = axis_of(dim, input.ndim)
    parts = [part for part in (prepend, input, append) if part is not None]
    if input.ndim == 0:
        raise ShapeError("torch.diff needs at least one axis", "", "x[None]")
    whole: Any = input
    if len(parts) > 1:
        whole = torch.cat(parts, axis - 1)  # type: ignore[arg-type]
    return whole.map_rows(lambda rows: rows.diff(n, axis))  # type: ignore[no-any-return]


@rule(*both("trace"))
def _trace(input: Jet) -> Jet:
    if input.ndim != 2:
        raise ShapeError(f"torch.trace got shape {tuple(input.shape)}", "it needs a matrix", "")
    return input.map_rows(lambda rows: rows.diagonal(0, 1, 2).sum(-1))


# --- shapes --------------------------------------------------------------------------------------


def reshape(input: Jet, *shape: int) -> Jet:
    """Return the value in another shape."""
    return input.map_rows(lambda rows: rows.reshape(len(rows), *shape))


@rule(torch.reshape, torch.Tensor.reshape)
def _reshape(input: Jet, *shape: Any) -> Jet:
    return reshape(input, *sizes_of(shape))


@rule(torch.Tensor.view)
def _view(input: Jet, *shape: Any) -> Jet:
    if len(shape) == 1 and isinstance(shape[0], torch.dtype):
        raise MissingRule("no Taylor rule for view(dtype)", "bits have no derivative", "x.to(dtype)")
    return reshape(input, *sizes_of(shape))


@rule(torch.Tensor.view_as, torch.Tensor.reshape_as)
def _view_as(input: Jet, other: Any) -> Jet:
    return reshape(input, *other.shape)


@rule(*both("flatten"))
def flatten(input: Jet, start_dim: int = 0, end_dim: int = -1) -> Jet:
    """Return the value with some neighbouring axes joined."""
    if input.ndim == 0:
        return reshape(input, 1)
    first, last = axis_of(start_dim, input.ndim), axis_of(end_dim, input.ndim)
    return input.map_rows(lambda rows: rows.flatten(first, last))


@rule(*both("ravel"))
def _ravel(input: Jet) -> Jet:
    return flatten(input)


@rule(*both("unflatten"))
def _unflatten(input: Jet, dim: int, sizes: Sequence[int]) -> Jet:
    axis = axis_of(dim, input.ndim)
    return input.map_rows(lambda rows: rows.unflatten(axis, list(sizes)))


@rule(*both("unsqueeze"))
def _unsqueeze(input: Jet, dim: int) -> Jet:
    axis = axis_of(dim, input.ndim, extra=1)
    return input.map_rows(lambda rows: rows.unsqueeze(axis))


@rule(*both("squeeze"))
def _squeeze(input: Jet, dim: Dims = None) -> Jet:
    axes = axes_of(dim, input.ndim) if dim is None or isinstance(dim, int) or len(dim) else ()
    return input.map_rows(lambda rows: rows.squeeze(axes) if axes else rows.clone())


@rule(*both("transpose", "swapaxes", "swapdims"))
def _transpose(input: Jet, dim0: int, dim1: int) -> Jet:
    if input.ndim == 0:
        return input
    first, second = axis_of(dim0, input.ndim), axis_of(dim1, input.ndim)
    return input.map_rows(lambda rows: rows.transpose(first, second))


@rule(*both("t"), torch.Tensor.T.__get__)  # type: ignore[attr-defined]
def _t(input: Jet) -> Jet:
    if input.ndim > 2:
        raise ShapeError(f"a value of {input.ndim} axes has no transpose", "", "x.mT or x.permute(...)")
    return input if input.ndim < 2 else _transpose(input, 0, 1)


@rule(torch.Tensor.mT.__get__)  # type: ignore[attr-defined]
def _matrix_transpose(input: Jet) -> Jet:
    if input.ndim < 2:
        raise ShapeError(f"a value of {input.ndim} axes has no matrix transpose", "", "x[:, None]")
    return _transpose(input, -2, -1)


@rule(*both("permute"))
def _permute(input: Jet, *dims: Any) -> Jet:
    axes = [axis_of(d, input.ndim) for d in sizes_of(dims)]
    return input.map_rows(lambda rows: rows.permute(0, *axes))


@rule(*both("movedim", "moveaxis"))
def _movedim(input: Jet, source: int | Sequence[int], destination: int | Sequence[int]) -> Jet:
    old, new = (
        [axis_of(d, input.ndim) for d in ((value,) if isinstance(value, int) else value)]
        for value in (source, destination)
    )
    return input.map_rows(lambda rows: rows.movedim(old, new))


@rule(*both("expand", "broadcast_to"))
def _expand(input: Jet, *size: Any) -> Jet:
    sizes = sizes_of(size)
    missing = len(sizes) - input.ndim
    if missing < 0 or -1 in sizes[:missing]:
        raise ShapeError(
            f"cannot expand {tuple(input.shape)} to {tuple(sizes)}", "new axes come first, with a size", ""
        )
    return input.map_rows(
        lambda rows: rows.reshape(len(rows), *[1] * missing, *input.shape).expand(-1, *sizes)
    )


@rule(torch.Tensor.expand_as)
def _expand_as(input: Jet, other: Any) -> Jet:
    return _expand(input, *other.shape)


@rule(torch.broadcast_tensors)
def _broadcast_tensors(*tensors: Any) -> tuple[Any, ...]:
    shape = torch.broadcast_shapes(*(t.shape for t in tensors))
    return tuple(_expand(t, *shape) if isinstance(t, Jet) else t.expand(shape) for t in tensors)


@rule(torch.Tensor.repeat)
def _repeat(input: Jet, *repeats: Any) -> Jet:
    times = sizes_of(repeats)
    missing = len(times) - input.ndim
    if missing < 0:
        raise ShapeError(f"repeat{tuple(times)} of {input.ndim} axes", "one number for each axis", "")
    return input.map_rows(
        lambda rows: rows.reshape(len(rows), *[1] * missing, *input.shape).repeat(1, *times)
    )


@rule(*both("tile"))
def _tile(input: Jet, *dims: Any) -> Jet:
    times = sizes_of(dims)
    return _repeat(input, *[1] * (input.ndim - len(times)), *times)


@rule(*both("repeat_interleave"))
def _repeat_interleave(
    input: Any, repeats: Any, dim: int | None = None, *, output_size: int | None = None
) -> Jet:
    plain(torch.repeat_interleave, repeats)
    series = flatten(input) if dim is None else input
    axis = 1 if dim is None else axis_of(dim, input.ndim)
    return series.map_rows(lambda rows: rows.repeat_interleave(repeats, axis, output_size=output_size))
