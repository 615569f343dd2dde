"""Recognises dense networks: a chain of affine maps and activations, whatever module wraps it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook as has_global_hooks

from ntangent.jet import activations as table
from ntangent.jet.activations import Activation
from ntangent.jet.arithmetic import Structure
from ntangent.jet.dispatch import RULES
from ntangent.jet.layers import ActivationRule, linear


class Dense(NamedTuple):
    """A dense network: after the i-th affine map comes the i-th activation.

    Args:
        weights: shape (out_i, in_i) each.
        biases: shape (out_i,) each, or None.
        activations: one row for each affine map; the last is usually the identity.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]
    activations: tuple[Activation, ...]

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """Weights and biases in the order of the layers."""
        return tuple(p for p in self.interleaved if p is not None)

    @property
    def interleaved(self) -> tuple[Tensor | None, ...]:
        """W1, b1, W2, b2, ...; an absent bias is None."""
        return tuple(p for pair in zip(self.weights, self.biases, strict=True) for p in pair)


class Pass(NamedTuple):
    """One pass through a whole dense network, and what it is applied to.

    Args:
        net: the network; its parameters are what ``jet.jacobian`` differentiates in.
        input: jets, or points and the tangents that all of them share.
        structure: number of lines, or the algebra of the rows.
        order: order of truncation.
        collapsed: the coefficients of the highest order are summed over the lines.
        stacked: what torch operations left behind of the pass; None if the compiled kernels ran it.
    """

    net: Dense
    input: Tensor | tuple[Tensor, Tensor]
    structure: Structure
    order: int
    collapsed: bool = False
    stacked: Any = None


NOT_DENSE = "the function does something besides affine maps and activations"


class _Probe:
    """Walks through a function and notes the layers it meets."""

    def __init__(self, layers: tuple[tuple[Tensor, Tensor | None, Activation], ...] = ()) -> None:
        self.layers = layers

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> _Probe:
        found, kwargs = RULES.get(function), kwargs or {}
        if not args or not isinstance(args[0], _Probe):
            raise TypeError(NOT_DENSE)
        layers = args[0].layers
        if found is linear:
            weight, bias = _linear_arguments(*args[1:], **kwargs)
            return _Probe((*layers, (weight, bias, table.IDENTITY)))
        if isinstance(found, ActivationRule) and layers and layers[-1][2] is table.IDENTITY:
            row = found.select(*args[1:], **kwargs)
            return _Probe((*layers[:-1], (layers[-1][0], layers[-1][1], row)))
        raise TypeError(NOT_DENSE)


def _linear_arguments(weight: Any, bias: Any = None) -> tuple[Tensor, Tensor | None]:
    if not isinstance(weight, Tensor) or not (bias is None or isinstance(bias, Tensor)):
        raise TypeError(NOT_DENSE)
    return weight, bias


# Activation modules without settings, and the torch function that each applies.
PLAIN_MODULES: dict[type[nn.Module], Any] = {
    nn.Tanh: torch.tanh,
    nn.Sigmoid: torch.sigmoid,
    nn.SiLU: F.silu,
    nn.Mish: F.mish,
    nn.LogSigmoid: F.logsigmoid,
    nn.Tanhshrink: F.tanhshrink,
}


@cache
def _plain_rows() -> dict[type[nn.Module], Activation]:
    rules = {kind: RULES[function] for kind, function in PLAIN_MODULES.items()}
    return {kind: found.select() for kind, found in rules.items() if isinstance(found, ActivationRule)}


def _hooked(module: nn.Module) -> bool:
    state = module.__dict__
    return bool(state["_forward_hooks"] or state["_forward_pre_hooks"] or "forward" in state)


def _sequential(f: nn.Sequential) -> Dense | None:
    """Read the layers off an ordinary ``nn.Sequential``, ten times faster than by calling it."""
    rows = _plain_rows()
    weights: list[Tensor] = []
    biases: list[Tensor | None] = []
    activations: list[Activation] = []
    for module in f._modules.values():
        if module is None or _hooked(module):
            return None
        kind, state = type(module), module.__dict__
        if kind is nn.Linear:
            held = state["_parameters"]
            # Elsewhere than usual (an attribute of its own, taken out): the general way finds it.
            if "weight" not in held or "bias" not in held or "weight" in state or "bias" in state:
                return None
            weights.append(held["weight"])
            biases.append(held["bias"])
            activations.append(table.IDENTITY)
        elif kind in rows and activations and activations[-1] is table.IDENTITY:
            activations[-1] = rows[kind]
        else:
            return None
    return Dense(tuple(weights), tuple(biases), tuple(activations)) if weights else None


def as_dense(f: Callable[..., Any]) -> Dense | None:
    """Return the layers of ``f`` if it is a dense network, else None.

    The function is called once on a probe that records affine maps and activations, so any module
    or closure is recognised, however it is nested. A function that does anything else to its
    argument (adds, slices, branches on it) is not a dense network.
    """
    if type(f) is nn.Sequential and not _hooked(f) and not has_global_hooks():
        found = _sequential(f)
        if found is not None:
            return found
    try:
        end = f(_Probe())
    except Exception:  # a user's function may fail on the probe in any way of its own
        return None
    if not isinstance(end, _Probe) or not end.layers:
        return None
    weights, biases, activations = zip(*end.layers, strict=True)
    return Dense(weights, biases, activations)


def module_dtype(f: Any) -> torch.dtype | None:
    """Return the floating dtype of a module's parameters, or None when it has none."""
    if type(f) is nn.Sequential and len(f) and type(first := next(iter(f._modules.values()))) is nn.Linear:
        return first.weight.dtype  # at once: collecting the parameters of a module takes longer
    if isinstance(f, torch.nn.Module):
        for parameter in f.parameters():
            if parameter.is_floating_point():
                return parameter.dtype
    return None
