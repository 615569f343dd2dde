"""The residual at points that training does not see."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ntangent.pinn.equation import Block
from ntangent.pinn.field import Parameters
from ntangent.pinn.objective import PinnObjective, scale
from ntangent.pinn.passes import Pass, plan
from ntangent.pinn.sampling import Uniform

# Two forward passes every so many iterations: about 1 % of the time of a first-order method.
EVERY = 50
# Strong optimisers fit the points they see. Sampling noise alone stays well below this factor.
PARTED = 25.0
_MOST = 4096
_log = logging.getLogger("ntangent.pinn")


def other_sampler(sampler: Any, count: int) -> Any:
    """Return a sampler of as many other points: the same with another seed, or uniform ones."""
    if dataclasses.is_dataclass(sampler) and hasattr(sampler, "seed") and count <= _MOST:
        return dataclasses.replace(sampler, seed=sampler.seed + 1_000_003)  # type: ignore[type-var]
    return Uniform(min(count, _MOST), seed=1_000_003)


class HeldOut:
    """Measures the mean square of the equations at held-out points beside that at the trained ones.

    Args:
        objective: what is trained.
        points: the held-out points, shape (N, d).
        every: iterations between two measurements.
    """

    def __init__(self, objective: PinnObjective, points: Tensor, every: int = EVERY) -> None:
        self.points, self.every = points, every
        self.last: dict[str, float] = {}
        self.warning: str | None = None
        self._measure(objective)

    def _measure(self, objective: PinnObjective) -> None:
        self.objective = objective
        self._blocks = [
            dataclasses.replace(block, points=self.points)
            for block in objective.blocks
            if block.free and block.points is objective.points
        ]
        self._passes = plan(objective.problem, self._blocks, objective.chunk)
        self._trained: tuple[int, list[Block], list[Pass]] | None = None

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def measure(self, step: int, theta: Tensor, last: bool = False) -> Mapping[str, float]:
        """Return the numbers for the metrics; nothing between two measurements."""
        if self.objective.latest is not self.objective:
            # A stage has put another objective, with a corrected network, in its place.
            self._measure(self.objective.latest)
        if not self._blocks or not (last or step % self.every == 0):
            return {}
        objective = self.objective
        raw = objective.load(theta)
        named = objective.problem.unknowns.items()
        values = {name: unknown.value(raw[i]) for i, (name, unknown) in enumerate(named)}
        held = self._mean_square(self._blocks, self._passes, Parameters(values))
        trained = self._at_trained(theta, Parameters(values))
        self.last = {"held_out": held, "trained": trained}
        if held > PARTED * trained and self.warning is None:
            when = "at the end" if last else f"in iteration {step}"
            self.warning = (
                f"{when} the mean square residual at held-out points is {held:.2e}, "
                f"{held / trained if trained else float('inf'):.0f} times that at the trained points: "
                "the network fits the points more than the equation; use more or other points"
            )
            _log.warning(self.warning)
        return {"held_out": held}

    def _at_trained(self, theta: Tensor, p: Parameters) -> float:
        """Return the mean square at the points that are trained; free where the gradient has just left it."""
        objective = self.objective
        if (known := objective._known_rows(theta)) is not None:
            blocks = objective._moving()
            return sum(float((known[b.name] * scale(b)[:, None]).square().sum()) for b in blocks)
        if self._trained is None or self._trained[0] != objective.version:
            blocks = objective._moving()
            self._trained = (objective.version, blocks, plan(objective.problem, blocks, objective.chunk))
        return self._mean_square(self._trained[1], self._trained[2], p)

    def _mean_square(self, blocks: list[Block], passes: list[Pass], p: Parameters) -> float:
        total = 0.0
        with torch.no_grad():
            for one in passes:
                for part, rows in one.rows(self.objective.net, lambda _: p):
                    total += float((rows * scale(blocks[part.index])[:, None]).square().sum())
        return total
