"""Residuals written out once more, with nested autograd and nothing of the package."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


def slope(y: Tensor, x: Tensor) -> Tensor:
    """Return dy_i/dx_i for y_i that depends on x_i only."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True, allow_unused=True)
    return torch.zeros_like(x) if g is None else g


def derivatives(f: Function, x: Tensor, order: int) -> list[Tensor]:
    """Return f and its derivatives at x, each with a graph."""
    rows = [f(x)]
    for _ in range(order):
        rows.append(slope(rows[-1], x))
    return rows


def weighted(rows: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the vector whose squares add up to sum of weight · mean(row²)."""
    return torch.cat([r.reshape(-1) * (w / r.numel()) ** 0.5 for r, w in zip(rows, weights, strict=True)])


def leaf(points: Tensor | Sequence[float]) -> Tensor:
    """Return points of shape (N, 1) that can be differentiated in."""
    return torch.as_tensor(points, dtype=torch.float64).reshape(-1, 1).clone().requires_grad_()


def rows_of_jacobian(r: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """Return dr/dinputs, one backward pass for each entry of r."""
    rows = []
    for entry in r:
        grads = torch.autograd.grad(entry, list(inputs), retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).reshape(-1)
                    for p, g in zip(inputs, grads, strict=True)
                ]
            )
        )
    return torch.stack(rows)


def trainable(net: nn.Module) -> list[Tensor]:
    """Return the parameters that are trained."""
    return [p for p in net.parameters() if p.requires_grad]
