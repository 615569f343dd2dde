"""Causal weights: a later time counts once the earlier ones are solved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent._base.check import check_choice, check_positive
from ntangent._base.errors import DtypeError, ProblemError
from ntangent.pinn.weighting.base import (
    WEIGHTINGS,
    Layout,
    Memory,
    Term,
    View,
    Weighting,
    check_common,
    check_fraction,
)


@dataclass(frozen=True)
class Causal(Weighting):
    """Causal weights: w_i = exp(-ε · sum over k < i of L(t_k)) for chunk i of the time interval.

    L(t_k) is the mean squared residual of the points in chunk k, summed over the terms it acts on,
    without the user's weights; all of them share w. Chunks have equal length; one without points adds
    nothing. As soon as the smallest weight exceeds ``delta``, the next ε of the schedule is taken.

    Source: Wang, Sankaran & Perdikaris, CMAME 421 (2024) 116813, arXiv 2203.07404, algorithm 1. They
    average over chunks and this loss over points, which is the same for equally filled chunks.

    Args:
        time: name of the coordinate that has a direction.
        chunks: number of chunks.
        schedule: values of ε, in the order of their use; large ones enforce the order of times.
        delta: smallest weight at which the next ε is taken, in [0, 1).
        terms: the terms it acts on.
        every: iterations between updates; None is 1, or what the optimiser can follow.

    Raises:
        ProblemError: when the training begins, if there is no such coordinate, or one of the terms
            has residuals that do not belong to points.
    """

    time: str = "t"
    chunks: int = 32
    schedule: tuple[float, ...] = (1e-2, 1e-1, 1.0, 10.0, 100.0)
    delta: float = 0.99
    terms: tuple[str, ...] = ("equation",)
    every: int | None = None

    def __post_init__(self) -> None:
        check_positive(self.chunks, "chunks", integer=True)
        if not isinstance(self.schedule, Sequence) or not self.schedule:
            raise DtypeError(f"schedule must list numbers, got {self.schedule!r}", "", "schedule=(0.1, 1.0)")
        for value in self.schedule:
            check_positive(value, "schedule")
        object.__setattr__(self, "schedule", tuple(self.schedule))
        check_fraction(self.delta, "delta")
        check_common(self)

    def idle(self, layout: Layout) -> str | None:  # noqa: ARG002
        """Return a reason where there is one chunk."""
        return "Causal with one chunk has no effect" if self.chunks == 1 else None

    def start(self, layout: Layout, generator: torch.Generator) -> Memory:  # noqa: ARG002
        """Return weights 1 and the chunk of every point."""
        terms = layout.select(self.terms)
        check_choice(self.time, layout.intervals, "coordinate")
        places = {term.name: self._places(term, layout) for term in terms}
        return {"weights": terms[0].weights.new_ones(self.chunks), "places": places, "stage": 0}

    def _places(self, term: Term, layout: Layout) -> Tensor:
        """Return the chunk of every point, shape (N,)."""
        if len(term.points) != term.size:
            raise ProblemError(
                f"the term {term.name!r} has {term.size} residuals and {len(term.points)} points",
                "a residual without a point has no time",
                'Causal(terms=("equation",))',
            )
        low, high = layout.intervals[self.time]
        t = term.points[:, list(layout.intervals).index(self.time)]
        return ((t - low) * (self.chunks / (high - low))).long().clamp(0, self.chunks - 1)

    def update(self, state: Memory, view: View) -> Memory:
        """Recompute the weights. Cost: a few operations per point."""
        stage, weights = state["stage"], state["weights"]
        losses = torch.zeros_like(weights)
        for name, places in state["places"].items():
            squares = view.layout[name].relative @ view.rows[name].square()
            count = torch.bincount(places, minlength=self.chunks).clamp_min(1)
            losses = losses + torch.zeros_like(weights).index_add_(0, places, squares) / count
        before = losses.cumsum(dim=0) - losses
        # Not below the smallest positive number: a factor never vanishes.
        new = torch.exp(-self.schedule[stage] * before.clamp_min(0)).clamp_min(torch.finfo(losses.dtype).tiny)
        if bool(new.min() > self.delta) and stage + 1 < len(self.schedule):
            stage += 1
        return state | {"weights": new, "stage": stage}

    def factors(self, state: Memory) -> dict[str, Tensor]:
        """Return the weight of every point's chunk, shape (N,)."""
        return {name: state["weights"][places] for name, places in state["places"].items()}

    def moved(self, state: Memory, layout: Layout, origin: Mapping[str, Tensor]) -> Memory:  # noqa: ARG002
        """Find the chunks of the new points."""
        return state | {"places": {name: self._places(layout[name], layout) for name in state["places"]}}

    def describe(self, state: Memory) -> dict[str, float]:
        """Return the smallest weight and ε."""
        return {"causal weight": float(state["weights"].min()), "causal ε": self.schedule[state["stage"]]}


WEIGHTINGS.add("causal", Causal)
