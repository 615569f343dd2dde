"""Taylor rules of functions with branches: the branch is chosen by the value, order 0.

At a kink the rule follows PyTorch's own gradients, for all orders alike: ``clamp`` counts its bounds
to the inside; ``maximum``, ``minimum``, ``amax``, ``amin`` and the full ``max()`` average the series
that tie; ``max(dim)``, ``sort`` and ``topk`` take the one whose index torch returns. Steps (``sign``,
``floor``, ...) are constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ntangent._base.errors import MissingRule
from ntangent.jet import activations as table
from ntangent.jet.activations import Activation
from ntangent.jet.dispatch import name_of, rule
from ntangent.jet.entries import gather
from ntangent.jet.layers import ActivationRule, activation_rule, where
from ntangent.jet.series import Jet, lift
from ntangent.jet.shapes import Dims, axes_of, both, flatten, total

# --- rows of the table ---------------------------------------------------------------------------


def _row(row: Activation) -> Callable[..., Activation]:
    def select(*, inplace: bool = False) -> Activation:
        del inplace  # the dispatch refuses it
        return row

    return select


activation_rule(_row(table.ASIN), *both("asin", "arcsin"))
activation_rule(_row(table.ACOS), *both("acos", "arccos"))
activation_rule(_row(table.ACOSH), *both("acosh", "arccosh"))
activation_rule(_row(table.ATANH), *both("atanh", "arctanh"))
activation_rule(_row(table.ERFINV), *both("erfinv"), torch.special.erfinv)
activation_rule(_row(table.SOFTSIGN), F.softsign)
activation_rule(_row(table.HARDSIGMOID), F.hardsigmoid)
activation_rule(_row(table.HARDSWISH), F.hardswish)
activation_rule(_row(table.ABS), *both("absolute"))


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Activation:
    del inplace
    return table.hardtanh(float(min_val), float(max_val))


def _shrink(row: Callable[[float], Activation]) -> Callable[..., Activation]:
    return lambda lambd=0.5: row(float(lambd))


def _threshold(threshold: float, value: float, inplace: bool = False) -> Activation:
    del inplace
    return table.threshold(float(threshold), float(value))


def _celu(alpha: float = 1.0, inplace: bool = False) -> Activation:
    del inplace
    return table.celu(float(alpha))


activation_rule(_hardtanh, F.hardtanh)
activation_rule(_shrink(table.softshrink), F.softshrink)
activation_rule(_shrink(table.hardshrink), *both("hardshrink"))
activation_rule(_threshold, F.threshold, torch.threshold)
activation_rule(_celu, F.celu, torch.celu)


@rule(F.rrelu, torch.rrelu)
def _rrelu(input: Jet, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False) -> Jet:
    if training:
        raise MissingRule("rrelu in training mode draws its slopes at random", "", "net.eval()")
    return ActivationRule(lambda: table.leaky_relu((lower + upper) / 2))(input)


@rule(*both("prelu"))
def _prelu(input: Jet, weight: Any) -> Any:
    if input.ndim > 1 and weight.numel() > 1:
        weight = weight.reshape(-1, *[1] * (input.ndim - 2))
    return where(input > 0, input, input * weight)


@rule(F.glu)
def _glu(input: Jet, dim: int = -1) -> Any:
    first, second = torch.chunk(input, 2, dim)  # type: ignore[arg-type]
    if first.shape != second.shape:
        raise MissingRule(f"glu needs an even size along axis {dim}", "", "")
    return first * torch.sigmoid(second)


# --- bounds --------------------------------------------------------------------------------------


@rule(*both("clamp", "clip"))
def _clamp(input: Any, min: Any = None, max: Any = None) -> Jet:
    if min is None and max is None:
        raise MissingRule("clamp needs min or max", "", "x.clamp(min=0)")
    result = input if isinstance(input, Jet) else lift(input, min if isinstance(min, Jet) else max)
    if min is not None:
        result = where(_value(result) < _value(min), min, result)
    if max is not None:
        result = where(_value(result) > _value(max), max, result)
    return result


def _value(x: Any) -> Any:
    return x.value if isinstance(x, Jet) else x


@rule(*both("clamp_min"))
def _clamp_min(input: Any, min: Any) -> Jet:
    return _clamp(input, min=min)


@rule(*both("clamp_max"))
def _clamp_max(input: Any, max: Any) -> Jet:
    return _clamp(input, max=max)


def _extreme(above: Callable[[Any, Any], Tensor]) -> Callable[..., Jet]:
    def apply(input: Any, other: Any) -> Jet:
        a, b = _value(input), _value(other)
        tied = (input + other) * 0.5
        return where(above(a, b), input, where(above(b, a), other, tied))

    return apply


maximum, minimum = _extreme(torch.gt), _extreme(torch.lt)
rule(*both("maximum"))(maximum)
rule(*both("minimum"))(minimum)


# --- along axes ----------------------------------------------------------------------------------


def _reduced(extreme: Any) -> Callable[..., Jet]:
    def apply(input: Jet, dim: Dims = None, keepdim: bool = False) -> Jet:
        axes = tuple(a - 1 for a in axes_of(dim, input.ndim))
        if not axes:
            return input
        reached = input.value == extreme(input.value, axes, keepdim=True)
        share = reached / reached.sum(axes, keepdim=True)
        # An unreached infinity must not become 0 · inf.
        kept = where(reached, input, 0.0)
        return total(kept * share, axes, keepdim)

    return apply


amax, amin = _reduced(torch.amax), _reduced(torch.amin)
rule(*both("amax"))(amax)
rule(*both("amin"))(amin)


def _selected(function: Any, full: Callable[..., Jet], elementwise: Callable[..., Jet]) -> Callable[..., Any]:
    result = getattr(torch.return_types, function.__name__)

    def apply(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
        if isinstance(dim, Jet | Tensor) or other is not None:
            return elementwise(input, dim if other is None else other)
        if dim is None:
            return full(input)
        if input.ndim == 0:
            return result((input, function(input.value, dim).indices))
        indices = function(input.value, dim, keepdim=True).indices
        values: Any = gather(input, dim, indices)
        if not keepdim:
            values, indices = values.squeeze(dim), indices.squeeze(dim)
        return result((values, indices))

    return apply


rule(*both("max"))(_selected(torch.max, amax, maximum))
rule(*both("min"))(_selected(torch.min, amin, minimum))


@rule(*both("sort"))
def _sort(input: Jet, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Any:
    indices = torch.sort(input.value, dim=dim, descending=descending, stable=stable).indices
    values: Any = gather(input, dim, indices) if input.ndim else input
    return torch.return_types.sort((values, indices))


@rule(*both("topk"))
def _topk(input: Jet, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    indices = torch.topk(input.value, k, dim, largest, sorted).indices
    values: Any = gather(input, dim, indices) if input.ndim else input
    return torch.return_types.topk((values, indices))


# --- steps ---------------------------------------------------------------------------------------


def _step(function: Any) -> Callable[..., Jet]:
    def apply(input: Jet, **options: Any) -> Jet:
        return lift(function(input.value.detach(), **options), input)

    return apply


for _function in (torch.sign, torch.floor, torch.ceil, torch.trunc, torch.round):
    rule(*both(_function.__name__))(_step(_function))
rule(*both("sgn"))(_step(torch.sign))
rule(*both("fix"))(_step(torch.trunc))


@rule(*both("frac"))
def _frac(input: Jet) -> Any:
    return input - input.value.detach().trunc()


def _modulo(function: Any, rounding: str) -> Callable[..., Any]:
    def apply(input: Any, other: Any) -> Any:
        if not isinstance(input, Jet):
            input = lift(input, other)
        # x - n·y with the whole number n that the values give.
        quotient = torch.div(input.value, _value(other), rounding_mode=rounding).detach()
        exact = function(input.value, _value(other))
        series = input - other * quotient
        return Jet(torch.cat([exact[None], series.data[1:]]), series.order, series.directions)

    apply.__name__ = name_of(function)
    return apply


rule(*both("remainder"), torch.Tensor.__mod__)(_modulo(torch.remainder, "floor"))
rule(*both("fmod"))(_modulo(torch.fmod, "trunc"))


def _max_pool(function: Any, dims: int, several: bool) -> Callable[..., Any]:
    def apply(
        input: Jet, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = several,
    ) -> Any:  # fmt: skip
        geometry = (kernel_size, stride or None, padding, dilation, ceil_mode)
        indices = function(input.value, *geometry, return_indices=True)[1]
        start = input.ndim - dims
        flat = gather(flatten(input, start), start, indices.flatten(start))
        taken = flat.map_rows(lambda rows: rows.reshape(len(rows), *indices.shape))
        return (taken, indices) if return_indices else taken

    return apply


for _dims, (_plain, _other, _indexed) in enumerate(
    (
        (F.max_pool1d, torch.max_pool1d, F.max_pool1d_with_indices),
        (F.max_pool2d, torch.max_pool2d, F.max_pool2d_with_indices),
        (F.max_pool3d, torch.max_pool3d, F.max_pool3d_with_indices),
    ),
    1,
):
    rule(_plain, _other)(_max_pool(_indexed, _dims, False))
    rule(_indexed)(_max_pool(_indexed, _dims, True))
