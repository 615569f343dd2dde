"""Taylor rules of normalisations, norms and softmax, as functions of jets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ntangent._base.errors import MissingRule, ShapeError
from ntangent.jet import activations as table
from ntangent.jet.branches import amax, amin
from ntangent.jet.dispatch import rule
from ntangent.jet.layers import activate
from ntangent.jet.series import Jet, multiply
from ntangent.jet.shapes import Dims, axes_of, both, mean, plain, reshape, total

# --- softmax -------------------------------------------------------------------------------------


def _shift(input: Jet, dim: Dims) -> Tensor:
    """Return the largest value along axes as a constant: it cancels, so it needs no derivative."""
    axes = tuple(a - 1 for a in axes_of(dim, input.ndim))
    largest = input.value.detach().amax(axes, keepdim=True) if axes else input.value.detach()
    return torch.where(largest.isinf(), torch.zeros_like(largest), largest)


@rule(*both("softmax"), F.softmax, torch.special.softmax)
def softmax(
    input: Jet, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Jet:
    """Return exp(x) / sum exp(x): one exponential, one reciprocal and one product of series."""
    series = _ready(input, dim, dtype)
    powers = activate(series - _shift(series, dim), table.EXP)
    return multiply(powers, activate(total(powers, dim, True), table.RECIPROCAL))


def _ready(input: Jet, dim: int | None, dtype: torch.dtype | None) -> Jet:
    if dim is None:
        raise MissingRule("softmax without dim has no Taylor rule", "torch guesses the axis", "dim=-1")
    return input if dtype is None else input.to(dtype)


@rule(F.softmin)
def _softmin(input: Jet, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Jet:
    return softmax(-input, dim, _stacklevel, dtype)


@rule(*both("log_softmax"), F.log_softmax, torch.special.log_softmax)
def _log_softmax(input: Jet, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Jet:
    series = _ready(input, dim, dtype)
    return series - logsumexp(series, dim, True)


@rule(*both("logsumexp"), torch.special.logsumexp)
def logsumexp(input: Jet, dim: Dims, keepdim: bool = False) -> Jet:
    """Return log(sum exp(x)) over axes."""
    shift = _shift(input, dim)
    sums = total(activate(input - shift, table.EXP), dim, True)
    result = activate(sums, table.LOG) + shift
    axes = tuple(a - 1 for a in axes_of(dim, input.ndim))
    return result if keepdim or not axes else torch.squeeze(result, axes)  # type: ignore[call-overload]


# --- moments -------------------------------------------------------------------------------------


def _centred(input: Jet, dim: Dims) -> tuple[Jet, Jet]:
    centre = mean(input, dim, True)
    return input - centre, centre


@rule(*both("var"))
def _variance(
    input: Jet,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: Any = None,
) -> Jet:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise MissingRule("var takes unbiased or correction, not both", "", "correction=1")
    lost = (1 if unbiased is None else int(unbiased)) if correction is None else correction
    centred, _ = _centred(input, dim)
    count = math.prod(input.shape[a - 1] for a in axes_of(dim, input.ndim))
    square = total(activate(centred, table.SQUARE), dim, keepdim)
    return square.map_rows(lambda rows: rows / max(count - lost, 0))


@rule(*both("std"))
def _std(
    input: Jet,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: Any = None,
) -> Jet:
    return activate(_variance(input, dim, unbiased, keepdim, correction=correction), table.SQRT)


def standardised(input: Jet, dim: Dims, eps: float, *, centre: bool = True) -> Jet:
    """Return (x - mean) / sqrt(variance + eps) over axes, without the mean if not ``centre``."""
    centred = _centred(input, dim)[0] if centre else input
    square = mean(activate(centred, table.SQUARE), dim, True)
    return multiply(centred, activate(square + eps, table.RSQRT))


def _affine(series: Any, weight: Any, bias: Any) -> Any:
    series = series if weight is None else series * weight
    return series if bias is None else series + bias


@rule(F.layer_norm, torch.layer_norm)
def _layer_norm(
    input: Jet, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    return _affine(standardised(input, _last(input, normalized_shape), eps), weight, bias)


def _last(input: Jet, normalized_shape: Any) -> tuple[int, ...]:
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or tuple(input.shape[-len(shape) :]) != shape:
        raise ShapeError(f"the last axes of {tuple(input.shape)} are not {shape}", "", "")
    return tuple(range(-len(shape), 0))


@rule(F.rms_norm, torch.rms_norm)
def _rms_norm(
    input: Jet, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None
) -> Any:
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    return _affine(standardised(input, _last(input, normalized_shape), eps, centre=False), weight, None)


@rule(F.group_norm, torch.group_norm)
def _group_norm(
    input: Jet,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Any:
    n, channels, *rest = input.shape
    if channels % num_groups:
        raise ShapeError(f"{channels} channels do not fall into {num_groups} groups", "", "")
    groups = standardised(reshape(input, n, num_groups, channels // num_groups, *rest), _from(2, rest), eps)
    return _affine(reshape(groups, *input.shape), *_channelwise(input, weight, bias))


def _from(first: int, rest: Sequence[int]) -> tuple[int, ...]:
    return tuple(range(first, first + 1 + len(rest)))


def _channelwise(input: Jet, *values: Any) -> tuple[Any, ...]:
    return tuple(None if v is None else v.reshape(-1, *[1] * (input.ndim - 2)) for v in values)


@rule(F.instance_norm)
def _instance_norm(
    input: Jet,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    if not use_input_stats:
        return _batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if running_mean is not None or running_var is not None:
        raise MissingRule("instance_norm would update its running statistics", "", "net.eval()")
    return _affine(standardised(input, tuple(range(2, input.ndim)), eps), *_channelwise(input, weight, bias))


@rule(F.batch_norm)
def _batch_norm(
    input: Jet,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    del momentum  # it only updates the statistics in training mode
    if training or running_mean is None or running_var is None:
        raise MissingRule(
            "batch_norm in training mode has no Taylor rule",
            "statistics of the batch make every point's value depend on all points, and change the module",
            "net.eval(), or LayerNorm",
        )
    plain(F.batch_norm, running_mean, running_var)
    centre, scale, weight, bias = _channelwise(
        input, running_mean, torch.rsqrt(running_var + eps), weight, bias
    )
    return _affine((input - centre) * scale, weight, bias)


# --- norms ---------------------------------------------------------------------------------------


@rule(torch.linalg.vector_norm)
def vector_norm(
    x: Jet, ord: float = 2, dim: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Jet:
    """Return the p-norm over axes; where it vanishes, it has no series (NaN or infinity)."""
    series = x if dtype is None else x.to(dtype)
    if ord == 2:
        return activate(total(activate(series, table.SQUARE), dim, keepdim), table.SQRT)
    size = activate(series, table.ABS)
    if ord == 1:
        return total(size, dim, keepdim)
    if ord in (math.inf, -math.inf):
        return (amax if ord > 0 else amin)(size, dim, keepdim)
    if ord == 0:
        raise MissingRule("no Taylor rule for the norm of order 0", "a count jumps", "ord=1")
    powers: Any = torch.pow(size, ord)  # type: ignore[call-overload]
    return torch.pow(total(powers, dim, keepdim), 1 / ord)  # type: ignore[call-overload,no-any-return]


@rule(torch.norm, torch.Tensor.norm)
def _norm(input: Jet, p: Any = "fro", dim: Dims = None, keepdim: bool = False, dtype: Any = None) -> Jet:
    if p in ("fro", None):
        p = 2
    if isinstance(p, str):
        raise MissingRule(f"no Taylor rule for norm(p={p!r})", "it needs singular values", "p=2")
    return vector_norm(input, p, dim, keepdim, dtype=dtype)


@rule(torch.linalg.norm)
def _linalg_norm(
    A: Jet, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Jet:
    matrix = (dim is None and A.ndim != 1) or (isinstance(dim, Sequence) and len(dim) == 2)
    if ord == "fro" or ord is None:
        ord = 2
    elif matrix or isinstance(ord, str):
        raise MissingRule(
            f"no Taylor rule for the matrix norm {ord!r}", "it needs singular values", "vector_norm"
        )
    return vector_norm(A, ord, dim, keepdim, dtype=dtype)


@rule(F.normalize)
def _normalize(input: Jet, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Any:
    length: Any = vector_norm(input, p, dim, True)
    return input / length.clamp_min(eps)


@rule(F.pairwise_distance)
def _pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Jet:
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)
