"""Balance by progress: terms that have fallen less count more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent.pinn.weighting.base import (
    WEIGHTINGS,
    Layout,
    Memory,
    View,
    Weighting,
    check_common,
    check_fraction,
)


def named(layout: Layout, values: Tensor) -> dict[str, Tensor]:
    """Return one scalar per term, in the dtype of the terms."""
    return {term.name: values[i].to(term.weights) for i, term in enumerate(layout.terms)}


@dataclass(frozen=True)
class ReLoBRaLo(Weighting):
    """Relative loss balancing with random look-back.

    With balance(t, s) = m · softmax_i(L_i(t) / (T · L_i(s))) for m terms,
    λ(t) = α · (ρ · λ(t-1) + (1 - ρ) · balance(t, 0)) + (1 - α) · balance(t, t-1), and ρ a coin: 1 with
    probability ``rho``, else 0, which looks back to the beginning. The λ sum to m.

    Source: Bischof & Kraus, Multi-Objective Loss Balancing for Physics-Informed Deep Learning,
    arXiv 2110.09813.

    Args:
        alpha: share of the history, in [0, 1].
        rho: probability of keeping the last λ in it, in [0, 1].
        temperature: T; a small one makes the slowest term dominate.
        every: iterations between updates; None is 1, or what the optimiser can follow.
    """

    alpha: float = 0.999
    rho: float = 0.999
    temperature: float = 0.1
    every: int | None = None
    balancing: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fraction(self.alpha, "alpha", one=True)
        check_fraction(self.rho, "rho", one=True)
        check_positive(self.temperature, "temperature")
        check_common(self)

    def start(self, layout: Layout, generator: torch.Generator) -> Memory:  # noqa: ARG002
        """Return λ = 1 for every term."""
        ones = torch.ones(len(layout.terms), dtype=torch.float64)
        return {"lambda": ones, "first": None, "last": None, "factors": named(layout, ones)}

    def update(self, state: Memory, view: View) -> Memory:
        """Compare the terms with their first and their last values."""
        losses = torch.tensor([view.loss(name) for name in view.layout.names], dtype=torch.float64)
        if state["first"] is None:
            return state | {"first": losses, "last": losses}
        coin = float(torch.rand((), generator=view.generator, dtype=torch.float64)) < self.rho
        history = state["lambda"] if coin else self._balance(losses, state["first"])
        weights = self.alpha * history + (1 - self.alpha) * self._balance(losses, state["last"])
        return state | {"lambda": weights, "last": losses, "factors": named(view.layout, weights)}

    def _balance(self, losses: Tensor, before: Tensor) -> Tensor:
        # A term that was exactly zero has made no progress that could be compared: ratio 1.
        ratio = torch.where(before > 0, losses / before, torch.ones_like(losses))
        return len(losses) * torch.softmax(ratio / self.temperature, dim=0)

    def factors(self, state: Memory) -> dict[str, Tensor]:
        """Return λ, a scalar for each term."""
        return dict(state["factors"])


WEIGHTINGS.add("relobralo", ReLoBRaLo)
