"""Self-adaptive weights: the training minimises in θ and maximises in one weight per point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent._base.check import check_choice, check_positive
from ntangent._base.errors import DtypeError
from ntangent.pinn.weighting.base import (
    WEIGHTINGS,
    Layout,
    Memory,
    View,
    Weighting,
    carried,
    check_common,
    check_fraction,
    fits,
)

# Mask m(λ) and its derivative: non-negative, differentiable, strictly increasing for λ > 0.
MASKS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "square": (lambda x: x * x, lambda x: 2 * x),
    "linear": (lambda x: x, torch.ones_like),
    "sigmoid": (torch.sigmoid, lambda x: torch.sigmoid(x) * torch.sigmoid(-x)),
}


@dataclass(frozen=True)
class SelfAdaptive(Weighting):
    """Self-adaptive weights: loss = mean(m(λ_i) r_i²), descended in θ and ascended in λ.

    The ascent is an Adam of its own on the gradient weight / N · m'(λ_i) · r_i², which is never
    negative: weights only grow, fastest where the residual stays large. Adam's step hardly depends on
    the size of the gradient until that falls near ``eps``; then the weights come to rest.

    Source: McClenny & Braga-Neto, J. Comput. Phys. 474 (2023) 111722, arXiv 2009.04544. The RBA paper's
    Allen-Cahn comparison has ``init={"equation": 1, "initial": 100}`` and ``lr=5e-3``.

    Args:
        lr: rate of the ascent.
        mask: m: "square" λ², "linear" λ, "sigmoid" 1 / (1 + exp(-λ)).
        init: λ at the start, or a mapping from terms to it (1 for a term not named).
        random: multiply the start by uniform random numbers in (0, 1), as the source does.
        betas: decay rates of Adam's moments, in [0, 1).
        eps: Adam's eps.
        terms: the terms it acts on; None is all of them.
        every: iterations between updates; None is 1, or what the optimiser can follow.
    """

    lr: float = 5e-3
    mask: str = "square"
    init: float | Mapping[str, float] = 1.0
    random: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    terms: tuple[str, ...] | None = None
    every: int | None = None

    def __post_init__(self) -> None:
        check_positive(self.lr, "lr")
        check_positive(self.eps, "eps")
        check_choice(self.mask, MASKS, "mask")
        starts = self.init if isinstance(self.init, Mapping) else {"init": self.init}
        for name, value in starts.items():
            check_positive(value, name)
        if not isinstance(self.random, bool):
            raise DtypeError(f"random must be True or False, got {self.random!r}", "", "random=True")
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise DtypeError(f"betas must be a pair of numbers, got {self.betas!r}", "", "betas=(0.9, 0.999)")
        object.__setattr__(self, "betas", tuple(check_fraction(beta, "betas") for beta in self.betas))
        check_common(self)

    def start(self, layout: Layout, generator: torch.Generator) -> Memory:
        """Return the first λ of every point, and zero moments."""
        given = dict(self.init) if isinstance(self.init, Mapping) else {}
        layout.select(list(given))  # a name that fits no term is an error
        weights = {}
        for term in layout.select(self.terms):
            value = float(self.init) if not isinstance(self.init, Mapping) else 1.0
            value = next((v for name, v in given.items() if fits(name, term.name)), value)
            ones = term.weights.new_ones(term.size)
            if self.random:
                # Drawn in float64 on the CPU: the same numbers on every device.
                drawn = torch.rand(term.size, generator=generator, dtype=torch.float64)
                ones = (1 - drawn).to(ones)  # in (0, 1]: never zero
            weights[term.name] = value * ones
        zeros = {name: torch.zeros_like(w) for name, w in weights.items()}
        return {"lambda": weights, "first": zeros, "second": dict(zeros), "updates": 0}

    def update(self, state: Memory, view: View) -> Memory:
        """Do one Adam step uphill. Cost: a few operations per point."""
        (beta1, beta2), count = self.betas, state["updates"] + 1
        new: Memory = {"lambda": {}, "first": {}, "second": {}, "updates": count}
        for name, old in state["lambda"].items():
            term = view.layout[name]
            squares = (term.weights[:, None] * view.rows[name].square()).sum(dim=0) / term.size
            slope = MASKS[self.mask][1](old) * squares
            first = beta1 * state["first"][name] + (1 - beta1) * slope
            second = beta2 * state["second"][name] + (1 - beta2) * slope * slope
            root = (second / (1 - beta2**count)).sqrt() + self.eps
            new["lambda"][name] = old + self.lr * (first / (1 - beta1**count)) / root
            new["first"][name], new["second"][name] = first, second
        return new

    def factors(self, state: Memory) -> dict[str, Tensor]:
        """Return m(λ), shape (N,)."""
        return {name: MASKS[self.mask][0](value) for name, value in state["lambda"].items()}

    def moved(self, state: Memory, layout: Layout, origin: Mapping[str, Tensor]) -> Memory:  # noqa: ARG002
        """Keep λ and moments of points that stay; a new point begins with the mean λ, without moments."""
        new = dict(state)
        for key, fresh in (("lambda", None), ("first", 0.0), ("second", 0.0)):
            new[key] = {n: carried(v, origin[n], fresh) if n in origin else v for n, v in state[key].items()}
        return new


WEIGHTINGS.add("self-adaptive", SelfAdaptive)
