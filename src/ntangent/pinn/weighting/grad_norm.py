"""Balance by gradients: every term pulls equally hard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ntangent._base.check import check_choice
from ntangent.pinn.weighting.base import (
    WEIGHTINGS,
    Layout,
    Memory,
    View,
    Weighting,
    averaged,
    check_common,
    check_fraction,
)


@dataclass(frozen=True)
class GradNorm(Weighting):
    """Balance the gradients of the terms; λ ← momentum · λ + (1 - momentum) · λ̂.

    "norm": λ̂_i = (sum over j of |∇L_j|) / |∇L_i|, Euclidean norms. Then all weighted gradients are
    equally long. Source: Wang, Sankaran, Wang & Perdikaris, An Expert's Guide to Training
    Physics-informed Neural Networks (2023), arXiv 2308.08468.

    "annealing": λ̂_i = max |∇L_r| / mean |∇L_i| over the entries of the gradients, L_r the sum of the
    reference terms, whose own λ stays 1. Source: Wang, Teng & Perdikaris, SIAM J. Sci. Comput. 43
    (2021) A3055, arXiv 2001.04536; of its text and code, which exchange the two shares of the moving
    average, this is the code.

    The L_i are terms without the user's weights, which stay an emphasis. A term with zero gradient
    keeps its λ. Cost of an update: one backward pass per term.

    Args:
        method: "norm" or "annealing".
        momentum: share of the old λ, in [0, 1).
        reference: the terms that "annealing" compares with.
        every: iterations between updates; None is 100.
    """

    method: str = "norm"
    momentum: float = 0.9
    reference: tuple[str, ...] = ("equation",)
    every: int | None = None
    usual: ClassVar[int] = 100
    balancing: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice(self.method, ("norm", "annealing"), "method")
        check_fraction(self.momentum, "momentum")
        check_common(self)

    def start(self, layout: Layout, generator: torch.Generator) -> Memory:  # noqa: ARG002
        """Return λ = 1 for every term."""
        if self.method == "annealing":
            layout.select(self.reference)
        return {"lambda": {term.name: term.weights.new_ones(()) for term in layout.terms}}

    def update(self, state: Memory, view: View) -> Memory:
        """Compare the gradients of all terms."""
        gradients = {name: view.gradient(name) for name in view.layout.names}
        target = self._norm(gradients) if self.method == "norm" else self._annealing(gradients, view.layout)
        old = state["lambda"]
        return {"lambda": {n: averaged(w, target[n].to(w), self.momentum) for n, w in old.items()}}

    def _norm(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        norms = {name: torch.linalg.vector_norm(g) for name, g in gradients.items()}
        total = torch.stack(list(norms.values())).sum()
        return {name: total / value for name, value in norms.items()}

    def _annealing(self, gradients: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
        reference = [term.name for term in layout.select(self.reference)]
        high = torch.stack([gradients[name] for name in reference]).sum(dim=0).abs().max()
        one = torch.ones_like(high)
        return {n: one if n in reference else high / g.abs().mean() for n, g in gradients.items()}

    def factors(self, state: Memory) -> dict[str, Tensor]:
        """Return λ, a scalar for each term."""
        return dict(state["lambda"])


WEIGHTINGS.add("grad-norm", GradNorm)
