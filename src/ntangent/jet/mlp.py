"""The plain network that everything is tried on first."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import nn

from ntangent._base.check import check_positive
from ntangent._base.errors import UnknownNameError
from ntangent._base.registry import nearest_names

MODULES: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "mish": nn.Mish,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "leaky_relu": nn.LeakyReLU,
    "logsigmoid": nn.LogSigmoid,
    "tanhshrink": nn.Tanhshrink,
}


class _Pointwise(nn.Module):
    """A torch function as a module, for activations that torch has no module for."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Any) -> Any:
        return getattr(torch, self.name)(x)

    def extra_repr(self) -> str:
        return self.name


FUNCTIONS = ("sin", "cos", "exp", "erf", "atan", "asinh", "square")


def MLP(
    inputs: int,
    outputs: int,
    *,
    width: int = 24,
    depth: int = 3,
    activation: str = "tanh",
    bias: bool = True,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | int | None = None,
) -> nn.Sequential:
    """Return a plain multilayer perceptron as an ``nn.Sequential``.

    Weights are Glorot-normal, biases zero but in the first layer, where they are uniform in
    (-1, 1): with zero biases every neuron of a network on an interval would bend at the origin.

    Args:
        inputs: dimension of the points.
        outputs: number of fields.
        width: neurons in each hidden layer.
        depth: number of hidden layers.
        activation: name of an activation.
        bias: whether the layers have biases.
        dtype: precision of the parameters.
        device: where they live.
        generator: source of randomness, a generator or a seed; torch's own by default.

    Raises:
        ArgumentError: if a size is not a positive integer.
        UnknownNameError: if the activation is unknown.
    """
    for value, name in ((inputs, "inputs"), (outputs, "outputs"), (width, "width"), (depth, "depth")):
        check_positive(value, name, integer=True)
    if activation not in MODULES and activation not in FUNCTIONS:
        raise UnknownNameError(
            f"unknown activation {activation!r}", "", nearest_names(activation, [*MODULES, *FUNCTIONS])
        )
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)
    sizes = [inputs, *[width] * depth, outputs]
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        layer = nn.Linear(fan_in, fan_out, bias=bias, dtype=dtype, device=device)
        with torch.no_grad():
            nn.init.xavier_normal_(layer.weight, generator=generator)
            if bias:
                layer.bias.zero_() if i else layer.bias.uniform_(-1, 1, generator=generator)
        layers.append(layer)
        if i < depth:
            layers.append(MODULES[activation]() if activation in MODULES else _Pointwise(activation))
    return nn.Sequential(*layers)
