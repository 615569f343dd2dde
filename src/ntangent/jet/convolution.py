"""Taylor rules of convolutions, padding, pooling and interpolation: linear in the input.

The rows join the batch, so an operation is one call for all orders and directions; a bias touches
order 0 only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ntangent._base.errors import ShapeError
from ntangent.jet.dispatch import rule
from ntangent.jet.layers import linear_rule
from ntangent.jet.series import Jet
from ntangent.jet.shapes import plain


def on_batch(input: Jet, dims: int, operation: Callable[[Tensor], Tensor]) -> Jet:
    """Apply an operation on (batch, channel, *space) or (channel, *space) with ``dims`` space axes."""
    if input.ndim == dims + 1:
        return input.map_rows(operation)
    if input.ndim != dims + 2:
        raise ShapeError(
            f"a value of shape {tuple(input.shape)} has not {dims} axis/axes of space",
            "it needs (batch, channel, *space) or (channel, *space)",
            "x[:, None]",
        )
    return input.map_rows(lambda rows: operation(rows.flatten(0, 1)).unflatten(0, rows.shape[:2]))


def _convolution(function: Any, dims: int) -> Callable[..., Jet]:
    def apply(input: Any, weight: Any, bias: Any = None, *geometry: Any, **options: Any) -> Jet:
        plain(function, weight, bias)
        result = on_batch(input, dims, lambda rows: function(rows, weight, None, *geometry, **options))
        if bias is None:
            return result
        return result + bias.reshape(-1, *[1] * dims)  # type: ignore[no-any-return]

    return apply


for _dims, _names in enumerate(
    (("conv1d", "conv_transpose1d"), ("conv2d", "conv_transpose2d"), ("conv3d", "conv_transpose3d")), 1
):
    for _name in _names:
        _function = getattr(torch, _name)
        rule(_function)(_convolution(_function, _dims))


def _pooling(function: Any, dims: int) -> Callable[..., Jet]:
    def apply(input: Jet, *geometry: Any, **options: Any) -> Jet:
        plain(function, *geometry, *options.values())
        return on_batch(input, dims, lambda rows: function(rows, *geometry, **options))

    return apply


for _dims, _pools in enumerate(
    (
        (F.avg_pool1d, F.adaptive_avg_pool1d),
        (F.avg_pool2d, F.adaptive_avg_pool2d),
        (F.avg_pool3d, F.adaptive_avg_pool3d),
    ),
    1,
):
    for _function in _pools:
        rule(_function)(_pooling(_function, _dims))


@rule(F.interpolate)
def _interpolate(input: Jet, *geometry: Any, **options: Any) -> Jet:
    # Every mode is linear in the input: nearest copies, the others are sums with fixed weights.
    if input.ndim not in (3, 4, 5):
        raise ShapeError(f"interpolate got shape {tuple(input.shape)}", "it needs (N, C, *space)", "")
    return on_batch(input, input.ndim - 2, lambda rows: F.interpolate(rows, *geometry, **options))


@rule(F.pad)
def _pad(input: Jet, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Jet:
    if len(pad) > 2 * input.ndim:
        raise ShapeError(f"{len(pad)} pads for {input.ndim} axes", "two for each axis, the last first", "")
    if mode != "constant":
        return on_batch(input, len(pad) // 2, lambda rows: F.pad(rows, list(pad), mode))
    padded = input.map_rows(lambda rows: F.pad(rows, list(pad)))
    if not value:
        return padded
    border = F.pad(torch.zeros_like(input.value), list(pad), value=value)
    return padded + border


linear_rule(F.unfold, F.fold, torch.pixel_shuffle, torch.pixel_unshuffle)
