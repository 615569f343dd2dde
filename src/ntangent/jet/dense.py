"""Recognises dense networks: a chain of affine maps and activations, whatever module wraps it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent.jet import activations as table
from ntangent.jet.activations import Activation
from ntangent.jet.dispatch import RULES
from ntangent.jet.layers import ActivationRule, linear


@dataclass(frozen=True)
class Dense:
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
        pairs = zip(self.weights, self.biases, strict=True)
        return tuple(p for pair in pairs for p in pair if p is not None)


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


def as_dense(f: Callable[..., Any]) -> Dense | None:
    """Return the layers of ``f`` if it is a dense network, else None.

    The function is called once on a probe that records affine maps and activations, so any module
    or closure is recognised, however it is nested. A function that does anything else to its
    argument (adds, slices, branches on it) is not a dense network.
    """
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
    if isinstance(f, torch.nn.Module):
        for parameter in f.parameters():
            if parameter.is_floating_point():
                return parameter.dtype
    return None
