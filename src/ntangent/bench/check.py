"""Whether what was timed is right: every timed cell is compared with another backend."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent._base.precision import tolerance
from ntangent.bench.cells import Cell
from ntangent.bench.contenders import Outcome, work_of
from ntangent.jet.api import derivatives

JUDGE, SECOND_JUDGE = "eager", "faa-di-bruno"  # the second one judges the first


@dataclass(frozen=True)
class Verdict:
    """How far a contender is from another.

    Args:
        against: the other one.
        error: the largest error of the derivatives of one order or of the gradient, each relative to
            the largest entry of its kind.
        allowed: what rounding explains.
    """

    against: str
    error: float
    allowed: float

    @property
    def right(self) -> bool:
        """Whether rounding explains the difference; NaN is never right."""
        return self.error <= self.allowed

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as plain data."""
        return {**asdict(self), "right": self.right}


def judge_of(name: str) -> str:
    """Return the backend that a contender is compared with."""
    return SECOND_JUDGE if name == JUDGE else JUDGE


def truth(cell: Cell, seed: int, judge: str) -> Outcome:
    """Return what a backend finds in float64 for the network and the points of the cell."""
    net = copy.deepcopy(cell.network(seed)).double().cpu()
    x = cell.points(seed).double().cpu()

    def rows(net: torch.nn.Module, x: Tensor, order: int) -> Tensor:
        return derivatives(net, x, order, backend=judge)

    outcome = work_of(rows, net, x, cell.order).outcome
    assert outcome is not None  # work_of always gives one
    return outcome()


def compare(cell: Cell, found: Outcome, true: Outcome, against: str) -> Verdict:
    """Return how far two outcomes are apart."""
    pairs: list[tuple[Tensor, Tensor]] = list(zip(found.rows, true.rows, strict=True))
    pairs.append((found.gradient, true.gradient))
    errors = [float((a - b).abs().max() / b.abs().max().clamp_min(1e-300)) for a, b in pairs]
    worst = max(error if error == error else float("inf") for error in errors)
    return Verdict(against, worst, tolerance(cell.torch_dtype, cell.order, cell.width * cell.depth))


class Judge:
    """Compares the contenders of one cell, computing each truth once.

    Args:
        cell: the cell.
        seed: of its network and points.
        affordable: says of a backend's name whether one more pass of it can be afforded.
    """

    def __init__(self, cell: Cell, seed: int, affordable: Callable[[str], bool]) -> None:
        self.cell, self.seed, self.affordable = cell, seed, affordable
        self.outcomes: dict[str, Outcome] = {}
        self._truths: dict[str, Outcome] = {}

    def verdict(self, name: str) -> Verdict | None:
        """Return the verdict on a contender whose outcome is in ``outcomes``; None if nothing can judge."""
        judge = judge_of(name)
        if not self.affordable(judge):
            others = [other for other in self.outcomes if other != name]
            if not others:
                return None
            return compare(self.cell, self.outcomes[name], self.outcomes[others[0]], others[0])
        return compare(self.cell, self.outcomes[name], self._truth(judge), f"{judge}, float64")

    def _truth(self, judge: str) -> Outcome:
        if self.cell.dtype == "float64" and self.cell.device == "cpu" and judge in self.outcomes:
            return self.outcomes[judge]
        if judge not in self._truths:
            self._truths[judge] = truth(self.cell, self.seed, judge)
        return self._truths[judge]
