"""Residual-based attention: points where the residual stays large count more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent._base.check import check_choice, check_positive
from ntangent._base.errors import ArgumentError
from ntangent.pinn.weighting.base import (
    WEIGHTINGS,
    Layout,
    Memory,
    View,
    Weighting,
    carried,
    check_common,
    check_fraction,
)


@dataclass(frozen=True)
class RBA(Weighting):
    """Residual-based attention: λ_i ← γ λ_i + η · n_i, with n_i the normalised residual of point i.

    n_i = |r_i| / max |r| ("max"), or (|r_i| - min |r|) / (max |r| - min |r|) ("min-max", which lets
    the weight of the best point decay to nothing). Several rows of a term (a Sobolev loss) share λ:
    |r_i| is then the sum of the rows' absolute values, each times the root of its relative weight.
    λ stays below η / (1 - γ) (or its start, if that is larger): 1 for the defaults.

    Source: Anagnostopoulos, Toscano, Stergiopulos, Karniadakis, CMAME 421 (2024), arXiv 2307.00379,
    and their later study, arXiv 2403.18494, which uses "min-max" with ``init="first"`` for Helmholtz.

    Args:
        eta: learning rate η of the weights.
        gamma: decay γ, in [0, 1).
        normalisation: "max" or "min-max".
        init: λ before the first update: "one"; "zero", as in the paper; "first" is zero and η = 1 in the
            first update. From zero the other terms are learned first, which matters where the equation
            alone has a trivial solution (Allen-Cahn falls into u = 0 from one); it needs such a term.
        power: 2 for the loss mean((λ r)²) of the papers, 1 for mean(λ r²), as their JAX code has it.
        terms: the terms it acts on, one λ per point for each.
        every: iterations between updates; None is 1, or what the optimiser can follow.
    """

    eta: float = 1e-3
    gamma: float = 0.999
    normalisation: str = "max"
    init: str = "one"
    power: int = 2
    terms: tuple[str, ...] = ("equation",)
    every: int | None = None

    def __post_init__(self) -> None:
        check_positive(self.eta, "eta")
        check_fraction(self.gamma, "gamma")
        check_choice(self.normalisation, ("max", "min-max"), "normalisation")
        check_choice(self.init, ("one", "zero", "first"), "init")
        if self.power not in (1, 2) or isinstance(self.power, bool):
            raise ArgumentError(
                f"power must be 1 or 2, got {self.power!r}", "the loss is mean(λ^power r²)", "power=2"
            )
        check_common(self)

    def start(self, layout: Layout, generator: torch.Generator) -> Memory:  # noqa: ARG002
        """Return the first λ of every point."""
        begin = 1.0 if self.init == "one" else 0.0
        terms = layout.select(self.terms)
        return {"lambda": {t.name: t.weights.new_full((t.size,), begin) for t in terms}, "updates": 0}

    def update(self, state: Memory, view: View) -> Memory:
        """Decay and add the normalised residuals. Cost: a few operations per point."""
        eta = 1.0 if self.init == "first" and state["updates"] == 0 else self.eta
        new = {}
        for name, old in state["lambda"].items():
            size = (view.layout[name].relative.sqrt()[:, None] * view.rows[name].abs()).sum(dim=0)
            new[name] = self.gamma * old + eta * self._normalised(size)
        return {"lambda": new, "updates": state["updates"] + 1}

    def _normalised(self, size: Tensor) -> Tensor:
        high = size.max()
        if not (torch.isfinite(high) and high > 0):
            return torch.zeros_like(size)
        low = size.min()
        if self.normalisation == "max" or not high > low:
            return size / high  # equal residuals: all are the largest
        return (size - low) / (high - low)

    def factors(self, state: Memory) -> dict[str, Tensor]:
        """Return λ^power, shape (N,)."""
        return {name: value**self.power for name, value in state["lambda"].items()}

    def moved(self, state: Memory, layout: Layout, origin: Mapping[str, Tensor]) -> Memory:  # noqa: ARG002
        """Keep the λ of points that stay; a new point begins with the mean."""
        kept = {n: carried(v, origin[n]) if n in origin else v for n, v in state["lambda"].items()}
        return state | {"lambda": kept}


WEIGHTINGS.add("rba", RBA)
