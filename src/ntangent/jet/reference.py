"""Slow, independent ways to the same coefficients: nested autograd, and the Faà di Bruno formula.

Neither shares code with the Taylor recurrences, so each is an oracle for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ntangent._base.errors import DtypeError, ShapeError
from ntangent.jet.dense import Dense


class _Elementary(TorchFunctionMode):
    """Replaces fused normalisations by their formulas while a function is recorded.

    The derivatives of PyTorch's own ``layer_norm`` and ``instance_norm`` are wrong from the third on
    (2.13: by 9 % and by factors of hundreds on small examples), without a warning.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        formula = {F.layer_norm: _layer_norm, F.instance_norm: _instance_norm}.get(func, func)
        return formula(*args, **(kwargs or {}))


def _standardised(input: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = input - input.mean(axes, keepdim=True)
    return centred * torch.rsqrt((centred**2).mean(axes, keepdim=True) + eps)


def _layer_norm(
    input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    y = _standardised(input, tuple(range(-len(normalized_shape), 0)), eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _instance_norm(
    input: Tensor,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    **settings: Any,
) -> Tensor:
    if not use_input_stats or running_mean is not None:
        return F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, **settings)
    y = _standardised(input, tuple(range(2, input.ndim)), settings.get("eps", 1e-5))
    shape = (-1, *[1] * (input.ndim - 2))
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def nested_autograd(f: Callable[[Tensor], Any], x: Tensor, directions: Tensor, order: int) -> Tensor:
    """Return Taylor rows by differentiating t -> f(x + t v) ``order`` times with reverse mode.

    Points must not influence each other (no batch statistics), since one backward pass serves all
    of them.

    Args:
        f: maps (N, d) to (N, out).
        x: points, shape (N, d).
        directions: shape (D, d).
        order: n; the cost grows about 2.5-fold with each order.

    Returns:
        Rows, shape (1 + n·D, N, out), attached to the graph of the parameters and of x.
    """
    keep = torch.is_grad_enabled()
    per_direction = []
    with torch.enable_grad():
        for v in directions:
            t = torch.zeros(x.shape[0], 1, dtype=x.dtype, device=x.device, requires_grad=True)
            columns = []
            with _Elementary():
                y = f(x + t * v)
            check_output(y, x)
            for column in y.unbind(1):
                columns.append(_chain(column, t, order))
            per_direction.append(torch.stack(columns, -1))
    value = per_direction[0][:1]
    rest = torch.stack([series[1:] for series in per_direction], 1).flatten(0, 1)
    rows = torch.cat([value, rest])
    return rows if keep else rows.detach()


def _chain(column: Tensor, t: Tensor, order: int) -> Tensor:
    """Return the normalised derivatives of one output column in t, shape (order + 1, N)."""
    terms, current = [column], column
    for k in range(1, order + 1):
        if not current.requires_grad:
            terms.append(torch.zeros_like(column))
            continue
        (gradient,) = torch.autograd.grad(current.sum(), t, create_graph=True, allow_unused=True)
        current = torch.zeros_like(column) if gradient is None else gradient[:, 0]
        terms.append(current / float(math.factorial(k)))
    return torch.stack(terms)


def check_output(y: Any, x: Tensor) -> None:
    """Raise unless ``y`` is a tensor (or a series) of shape (points, out)."""
    if not hasattr(y, "shape"):
        raise DtypeError(f"f returned {type(y).__name__}", "it must return one tensor", "lambda x: f(x)[0]")
    shape = tuple(y.shape)
    if len(shape) != 2 or shape[0] != x.shape[0]:
        raise ShapeError(
            f"the function maps {tuple(x.shape)} to {shape}",
            "it must map points of shape (N, d) to values of shape (N, out)",
            "lambda x: f(x).reshape(len(x), -1)",
        )


@cache
def partitions(n: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Return the integer partitions of n, each as pairs (part, multiplicity)."""

    def descend(remaining: int, largest: int) -> Iterator[list[tuple[int, int]]]:
        if remaining == 0:
            yield []
            return
        for part in range(min(remaining, largest), 0, -1):
            for times in range(remaining // part, 0, -1):
                for rest in descend(remaining - part * times, part - 1):
                    yield [(part, times), *rest]

    return tuple(tuple(p) for p in descend(n, n))


@cache
def bell_terms(n: int) -> tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...]:
    """Return the terms of Faà di Bruno's formula of order n.

    Each is (coefficient, order of the outer derivative, partition): the coefficient of the
    product of inner derivatives x_j^{p_j} is n! / prod_j(p_j! (j!)^{p_j}).
    """
    terms = []
    for partition in partitions(n):
        weight = math.prod(math.factorial(times) * math.factorial(part) ** times for part, times in partition)
        terms.append((math.factorial(n) // weight, sum(times for _, times in partition), partition))
    return tuple(terms)


def faa_di_bruno(net: Dense, x: Tensor, directions: Tensor, order: int) -> Tensor:
    """Return Taylor rows by Algorithm 1 of n-TangentProp (arXiv 2412.09752), for any order.

    Raw derivatives of the pre-activations are carried through the layers; an activation is
    applied by Faà di Bruno's formula. (Equation 5b of the paper has ξ on both sides; its right-hand
    side uses the derivatives of the pre-activations.) Partitions, Bell coefficients and the
    derivatives of the activations are computed, not tabulated.

    Args:
        net: the layers.
        x: points, shape (N, d).
        directions: shape (D, d).
        order: n; the cost per neuron grows like the number of partitions,
            p(n) ~ exp(pi sqrt(2n/3)) / (4 n sqrt 3), times n.

    Returns:
        Rows, shape (1 + n·D, N, out).
    """
    per_direction = [_one_direction(net, x, v, order) for v in directions]
    rest = [torch.stack([series[k] for series in per_direction]) for k in range(1, order + 1)]
    scaled = [raw / float(math.factorial(k)) for k, raw in enumerate(rest, 1)]
    return torch.cat([per_direction[0][0][None], *scaled])


def _one_direction(net: Dense, x: Tensor, v: Tensor, order: int) -> list[Tensor]:
    series = [x, v.expand_as(x), *[torch.zeros_like(x) for _ in range(order - 1)]][: order + 1]
    for weight, bias, row in zip(net.weights, net.biases, net.activations, strict=True):
        series = [
            torch.nn.functional.linear(y, weight, bias if k == 0 else None) for k, y in enumerate(series)
        ]
        outer = row.raw_derivatives(series[0], order)
        series = [outer[0], *[_compose_term(outer, series, k) for k in range(1, order + 1)]]
    return series


def _compose_term(outer: list[Tensor], inner: list[Tensor], n: int) -> Tensor:
    total = torch.zeros_like(inner[0])
    for coefficient, depth, partition in bell_terms(n):
        term = outer[depth] * float(coefficient)
        for part, times in partition:
            term = term * inner[part] ** times
        total = total + term
    return total
