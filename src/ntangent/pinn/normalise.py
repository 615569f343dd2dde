"""Input and output normalisation as part of the network, where jets see through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ntangent._base.check import FLOATS, check_finite
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError


class Normalise(nn.Module):
    """A network whose inputs are mapped from a domain's bounding box to [-1, 1]^d.

    y = shift + scale · net((2 x - low - high) / (high - low)). Both maps are affine, and derivatives
    through them are exact. A dense network stays a dense network, with one or two more layers, and
    keeps its fastest kernels.

    Args:
        net: maps (N, d) to (N, c).
        domain: where x lies; anything with a bounding box, such as ``Box(x=(0, 100))``.
        scale: size of the outputs, one number or one for each of the c outputs; not zero.
        shift: centre of the outputs, one number or one for each.

    Raises:
        DtypeError: if the net has no parameter to take dtype and device from.
        ShapeError: if net, domain, scale and shift do not fit together.
    """

    input_weight: Tensor
    input_bias: Tensor
    output_weight: Tensor | None
    output_bias: Tensor | None

    def __init__(
        self,
        net: nn.Module,
        domain: Any,
        scale: float | Sequence[float] = 1.0,
        shift: float | Sequence[float] = 0.0,
    ) -> None:
        super().__init__()
        first = next(net.parameters(), None) if isinstance(net, nn.Module) else None
        if first is None or first.dtype not in FLOATS:
            raise DtypeError(
                f"net is {net!r}",
                "dtype and device are those of its parameters",
                "Normalise(MLP(1, 1), domain)",
            )
        self.net = net
        box = getattr(domain, "box", domain)
        ends = first.detach().new_tensor([box.interval(name) for name in box.names], dtype=torch.float64)
        width = ends[:, 1] - ends[:, 0]
        with torch.no_grad():
            try:
                count = net(ends.mean(dim=1).to(first.dtype)[None]).shape[-1]
            except (RuntimeError, ShapeError) as error:
                raise ShapeError(
                    f"the network does not take points of {len(width)} coordinates",
                    str(error).partition("\n")[0],
                    f"MLP({len(width)}, 1)",
                ) from None
        self.register_buffer("input_weight", torch.diag(2 / width).to(first.dtype))
        self.register_buffer("input_bias", (-ends.sum(dim=1) / width).to(first.dtype))
        sizes, centres = (_per_output(v, n, count, first) for v, n in ((scale, "scale"), (shift, "shift")))
        if bool((sizes == 0).any()):
            raise ArgumentError("a scale is 0", "the output would be constant", "scale=1.0")
        plain = bool((sizes == 1).all()) and bool((centres == 0).all())
        self.register_buffer("output_weight", None if plain else torch.diag(sizes))
        self.register_buffer("output_bias", None if plain else centres)

    def forward(self, x: Tensor) -> Tensor:
        """Return shift + scale · net(normalised x), shape (N, c)."""
        y: Tensor = self.net(functional.linear(x, self.input_weight, self.input_bias))
        return y if self.output_weight is None else functional.linear(y, self.output_weight, self.output_bias)


def _per_output(value: Any, name: str, count: int, like: Tensor) -> Tensor:
    """Return one number per output, shape (c,)."""
    try:
        numbers = torch.as_tensor(value, dtype=like.dtype, device=like.device).detach()
    except (TypeError, ValueError, RuntimeError):
        raise DtypeError(f"{name} must be one or several numbers, got {value!r}", "", f"{name}=1.0") from None
    if numbers.numel() not in (1, count) or numbers.ndim > 1:
        raise ShapeError(
            f"{name} has shape {tuple(numbers.shape)} for {count} output(s)",
            "it is one number, or one for each output",
            f"{name}=1.0",
        )
    return check_finite(numbers, name).reshape(-1).expand(count).clone()
