"""Rules for ``torch.vmap``: a mapped axis is folded into the points, since points do not mix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Dims = Sequence[int | None]


def fold(x: Tensor, dim: int | None, size: int) -> Tensor:
    """Turn a mapped axis of (rows, points, features) into more points."""
    x = x.unsqueeze(1).expand(-1, size, -1, -1) if dim is None else x.movedim(dim, 1)
    return x.flatten(1, 2)


def unfold(y: Tensor, size: int) -> Tensor:
    """Undo :func:`fold`; the mapped axis is then axis 1."""
    return y.view(y.shape[0], size, y.shape[1] // size, *y.shape[2:])


def select(tensor: Tensor | None, dim: int | None, index: int) -> Tensor | None:
    """Return one slice of a mapped tensor, or the tensor itself if it is not mapped."""
    return tensor if tensor is None or dim is None else tensor.select(dim, index)


def loop(size: int, dims: Dims, tensors: Sequence[Tensor | None], function: Callable[..., Any]) -> Any:
    """Call ``function`` for every slice and stack its results (a tensor, or tensors) along axis 0."""
    results = [function(*(select(t, d, i) for t, d in zip(tensors, dims, strict=True))) for i in range(size)]
    if isinstance(results[0], Tensor):
        return torch.stack(results)
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True))


def map_forward(
    size: int, dims: Dims, tensors: Sequence[Tensor | None], function: Callable[..., Tensor]
) -> tuple[Tensor, int]:
    """Map ``function(x, *params)``: fold when only x is mapped, else loop."""
    if any(d is not None for d in dims[1:]) or size == 0:
        return loop(size, dims, tensors, function), 0
    x = tensors[0]
    assert x is not None
    return unfold(function(fold(x, dims[0], size), *tensors[1:]), size), 1


def map_backward(
    size: int, dims: Dims, tensors: Sequence[Tensor | None], needs: Sequence[bool],
    function: Callable[..., tuple[Tensor, ...]], jacobian: Callable[..., Tensor],
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:  # fmt: skip
    """Map ``function(g, x, *params)``, which returns the needed gradients of x and the parameters.

    ``jacobian(g, x, *params)`` gives the gradient of every point separately, from which those of
    the slices are sums.
    """
    g, x, *params = tensors
    assert g is not None
    assert x is not None
    if any(d is not None for d in dims[2:]) or size == 0:
        stacked = loop(size, dims, tensors, lambda *t: function(needs, *t))
        return stacked, (0,) * len(stacked)
    g, x = fold(g, dims[0], size), fold(x, dims[1], size)
    results: list[Tensor] = []
    places: list[int] = []
    if needs[0]:
        results.append(unfold(function([True] + [False] * len(params), g, x, *params)[0], size))
        places.append(1)
    if any(needs[1:]):
        columns = jacobian(g, x, *params)
        columns = columns.view(size, x.shape[1] // size, columns.shape[1]).sum(1)
        start = 0
        for param, need in zip(params, needs[1:], strict=True):
            if param is None:
                continue
            if need:
                results.append(columns[:, start : start + param.numel()].view(size, *param.shape))
                places.append(0)
            start += param.numel()
    return tuple(results), tuple(places)
