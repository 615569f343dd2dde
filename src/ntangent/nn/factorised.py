"""Random weight factorisation: each neuron has a length and a direction of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError
from ntangent.nn._build import Making


class FactorisedLinear(nn.Module):
    """An affine layer with weight diag(exp s) V; s and V are the parameters.

    At the start it is the layer it was made from: s is drawn from N(mean, scale²) and V is the given
    weight divided by exp s. A gradient step then moves each neuron on its own scale.

    Source: Wang, Wang, Seidman & Perdikaris (2022), arXiv 2210.01274, equations 5 and 6 (exponential
    parametrisation); the defaults are the authors'.

    Args:
        layer: the affine layer to start from; its numbers are copied.
        mean, scale: of s.
        generator: see :mod:`ntangent.nn`.

    Shape: (*, in) → (*, out).

    Cost: that of the layer and out·in multiplications, independent of the number of points.
    """

    def __init__(
        self,
        layer: nn.Linear,
        *,
        mean: float = 1.0,
        scale: float = 0.1,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        check_positive(scale, "scale")
        weight = layer.weight.detach()
        making = Making(weight.dtype, weight.device, generator)
        s = making.normal(len(weight), scale=scale, mean=mean)
        self.scales = nn.Parameter(s)
        self.directions = nn.Parameter(weight / torch.exp(s)[:, None])
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """The weight diag(exp s) V, shape (out, in)."""
        return torch.exp(self.scales)[:, None] * self.directions

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b."""
        return nn.functional.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return sizes, for printing."""
        out, inputs = self.directions.shape
        return f"in={inputs}, out={out}, bias={self.bias is not None}"


def factorise(
    network: nn.Module,
    *,
    mean: float = 1.0,
    scale: float = 0.1,
    generator: torch.Generator | int | None = None,
) -> nn.Module:
    """Replace every ``nn.Linear`` inside a network by a :class:`FactorisedLinear`, in place, and return it.

    The function computed by the network stays the same up to rounding; only its parameters change.

    Args:
        network: any module that contains affine layers.
        mean: of s, see :class:`FactorisedLinear`.
        scale: standard deviation of s.
        generator: one source for all layers.

    Raises:
        ArgumentError: if there is no ``nn.Linear`` inside, or the network is one itself.

    Example:
        >>> import ntangent as nt
        >>> net = nt.nn.factorise(nt.MLP(1, 1, width=8, generator=0), generator=0)
        >>> type(net[0]).__name__
        'FactorisedLinear'
    """
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)
    found = [
        (parent, name, child)
        for parent in list(network.modules())
        for name, child in parent._modules.items()  # also the second place of a shared layer
        if type(child) is nn.Linear
    ]
    if not found:
        raise ArgumentError(
            "there is no nn.Linear inside this network",
            "nothing would be factorised",
            "factorise(nt.MLP(1, 1))",
        )
    made: dict[int, FactorisedLinear] = {}  # a layer that is used twice stays shared
    for parent, name, child in found:
        if id(child) not in made:
            made[id(child)] = FactorisedLinear(child, mean=mean, scale=scale, generator=generator)
        setattr(parent, name, made[id(child)])
    return network
