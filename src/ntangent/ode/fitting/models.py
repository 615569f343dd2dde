"""Right-hand sides to train: networks, a known part plus a network, polynomials."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ntangent._base.check import check_positive
from ntangent._base.errors import ShapeError
from ntangent.jet import MLP


def _sizes(values: Tensor | Sequence[float] | None, n: int, name: str) -> Tensor:
    sizes = (
        torch.ones(n, dtype=torch.float64) if values is None else torch.as_tensor(values, dtype=torch.float64)
    )
    if sizes.shape != (n,) or not bool((sizes > 0).all()):
        raise ShapeError(
            f"{name} has shape {tuple(sizes.shape)}",
            f"it has {n} positive entries",
            f"{name}=torch.ones({n})",
        )
    return sizes


class NeuralField(nn.Module):
    """dy/dt = rate · net(y / size): a network between quantities of size one.

    Args:
        n: number of components.
        width: width of the hidden layers.
        depth: number of hidden layers.
        activation: activation of the hidden layers.
        size: typical sizes of the components, (n,).
        rate: typical sizes of their derivatives, (n,).
        seed: of the initial weights.
    """

    size: Tensor
    rate: Tensor

    def __init__(
        self,
        n: int,
        *,
        width: int = 32,
        depth: int = 2,
        activation: str = "tanh",
        size: Tensor | Sequence[float] | None = None,
        rate: Tensor | Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net: nn.Module = MLP(
                n, n, width=width, depth=depth, activation=activation, dtype=torch.float64
            )
        self.register_buffer("size", _sizes(size, n, "size"))
        self.register_buffer("rate", _sizes(rate, n, "rate"))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Return dy/dt."""
        del t
        flat = (y / self.size).reshape(-1, y.shape[-1])
        return self.rate * self.net(flat).reshape(y.shape)  # type: ignore[no-any-return]


class Closure(nn.Module):
    """Known structure plus what is learned: known(t, y) + learned(t, y).

    Args:
        known: a function or module (t, y) -> dy/dt.
        learned: a module of the same kind.
    """

    def __init__(self, known: Callable[[Tensor, Tensor], Any] | nn.Module, learned: nn.Module) -> None:
        super().__init__()
        self.known, self.learned = known, learned

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Return dy/dt."""
        return self.known(t, y) + self.learned(t, y)  # type: ignore[no-any-return]


class PolynomialField(nn.Module):
    """dy/dt as a polynomial of y: rate · Σ_α c_α (y / size)^α, |α| <= degree.

    Args:
        n: number of components.
        degree: total degree.
        size: typical sizes of the components, (n,).
        rate: typical sizes of their derivatives, (n,).
    """

    size: Tensor
    rate: Tensor

    def __init__(
        self,
        n: int,
        degree: int,
        *,
        size: Tensor | Sequence[float] | None = None,
        rate: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_positive(degree, "degree", integer=True)
        chosen = (c for d in range(degree + 1) for c in itertools.combinations_with_replacement(range(n), d))
        self.monomials = list(chosen)
        self.coefficients = nn.Parameter(torch.zeros(n, len(self.monomials), dtype=torch.float64))
        self.register_buffer("size", _sizes(size, n, "size"))
        self.register_buffer("rate", _sizes(rate, n, "rate"))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Return dy/dt."""
        del t
        x = y / self.size
        terms = []
        for factors in self.monomials:
            term = torch.ones_like(x[..., 0])
            for i in factors:
                term = term * x[..., i]
            terms.append(term)
        return self.rate * (torch.stack(terms, dim=-1) @ self.coefficients.T)
