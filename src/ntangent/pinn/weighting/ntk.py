"""Balance by the neural tangent kernel: every term converges at the same mean rate."""

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
class NTK(Weighting):
    """Balance the traces of the tangent kernel: λ̂_i = (sum over j of tr K_jj) / tr K_ii.

    K_ii = J_i J_iᵀ with J_i the Jacobian of term i's residuals in θ; its trace is the sum of the
    residuals' squared gradients. λ ← momentum · λ + (1 - momentum) · λ̂.

    Source: Wang, Yu & Perdikaris, J. Comput. Phys. 449 (2022) 110768, arXiv 2007.14527, algorithm 1
    ("sum", without momentum); "mean" divides each trace by the number of points, as the means in the
    loss do and as the Expert's Guide (arXiv 2308.08468) has it, with momentum 0.9.

    Terms are compared without the user's weights. A term with zero trace keeps its λ. Cost of an
    update: one Jacobian.

    Args:
        trace: "mean" or "sum" over the points of a term.
        momentum: share of the old λ, in [0, 1).
        every: iterations between updates; None is 100.
    """

    trace: str = "mean"
    momentum: float = 0.9
    every: int | None = None
    usual: ClassVar[int] = 100
    balancing: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice(self.trace, ("mean", "sum"), "trace")
        check_fraction(self.momentum, "momentum")
        check_common(self)

    def start(self, layout: Layout, generator: torch.Generator) -> Memory:  # noqa: ARG002
        """Return λ = 1 for every term."""
        return {"lambda": {term.name: term.weights.new_ones(()) for term in layout.terms}}

    def update(self, state: Memory, view: View) -> Memory:
        """Compare the traces of all terms."""
        traces = {}
        for term in view.layout.terms:
            mean = view.mean(term.name, view.row_squares(term.name))
            traces[term.name] = mean * term.size if self.trace == "sum" else mean
        total = torch.stack(list(traces.values())).sum()
        old = state["lambda"]
        new = {name: averaged(w, (total / traces[name]).to(w), self.momentum) for name, w in old.items()}
        return {"lambda": new}

    def factors(self, state: Memory) -> dict[str, Tensor]:
        """Return λ, a scalar for each term."""
        return dict(state["lambda"])


WEIGHTINGS.add("ntk", NTK)
