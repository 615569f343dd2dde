"""What the networks share: sizes, sources of randomness, activations, initial weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntangent._base.check import FLOATS, check_positive
from ntangent._base.errors import DtypeError, UnknownNameError
from ntangent._base.registry import nearest_names
from ntangent.jet.mlp import FUNCTIONS, MODULES, _Pointwise


@dataclass(frozen=True)
class Making:
    """Where, in which precision and from which random numbers parameters are made.

    Args:
        dtype: float32 or float64; torch's default if None.
        device: torch's default if None.
        generator: a seed or a generator on the CPU; torch's own if None.
    """

    dtype: torch.dtype | None = None
    device: torch.device | str | None = None
    generator: torch.Generator | int | None = None

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in FLOATS:
            raise DtypeError(f"dtype is {self.dtype}", "networks are float32 or float64", "torch.float64")
        if isinstance(self.generator, int):
            object.__setattr__(self, "generator", torch.Generator().manual_seed(self.generator))

    def normal(self, *shape: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
        """Return normal numbers, drawn in float64 on the CPU so that they do not depend on the device."""
        values = torch.randn(shape, dtype=torch.float64, generator=self._source)
        return (mean + scale * values).to(dtype=self.dtype or torch.get_default_dtype(), device=self.device)

    def uniform(self, *shape: int, bound: float) -> Tensor:
        """Return numbers uniform in (-bound, bound)."""
        values = (2 * torch.rand(shape, dtype=torch.float64, generator=self._source) - 1) * bound
        return values.to(dtype=self.dtype or torch.get_default_dtype(), device=self.device)

    def linear(self, inputs: int, outputs: int, *, scale: float = 1.0) -> nn.Linear:
        """Return an affine layer with Glorot-normal weights times ``scale`` and zero biases."""
        weight = self.normal(outputs, inputs, scale=scale * (2.0 / (inputs + outputs)) ** 0.5)
        return self.affine(weight, weight.new_zeros(outputs))

    def affine(self, weight: Tensor, bias: Tensor) -> nn.Linear:
        """Return an affine layer with these parameters."""
        layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype, device="meta")
        layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
        return layer

    @property
    def _source(self) -> torch.Generator | None:
        return self.generator if isinstance(self.generator, torch.Generator) else None


def activation_module(name: str) -> nn.Module:
    """Return an activation by its name.

    Raises:
        UnknownNameError: if there is none.
    """
    if name in MODULES:
        return MODULES[name]()
    if name in FUNCTIONS:
        return _Pointwise(name)
    raise UnknownNameError(f"unknown activation {name!r}", "", nearest_names(name, [*MODULES, *FUNCTIONS]))


def check_sizes(**sizes: int) -> None:
    """Raise unless every size is a positive integer."""
    for name, value in sizes.items():
        check_positive(value, name, integer=True)
