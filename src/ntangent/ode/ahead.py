"""Given steps, looked at ahead of time: where they are, and how many to try at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ntangent.ode.controller import Control

# Fewer steps at once than this gain nothing; after a failure with so few, some are taken one by one.
FEWEST = 4


@dataclass
class Mesh:
    """The next steps, the same for every row.

    Args:
        end: time after the last step.
        size: size planned for the step that follows.
        target: index of the output that is next after the last step.
        t: times at the start of the steps.
        h: signed sizes.
        hits: index of the output that each step ends at, or -1.
    """

    end: float
    size: float
    target: int
    t: list[float] = field(default_factory=list)
    h: list[float] = field(default_factory=list)
    hits: list[int] = field(default_factory=list)


class Ahead:
    """How many given steps to try at once: fewer after a failure, more after a success.

    Args:
        times: output times, (T,), float64.
        control: has the steps.
        longest: most steps at once; less than 2 for never.
    """

    def __init__(self, times: Tensor, control: Control, longest: int) -> None:
        self.times: list[float] = times.tolist()
        self.sizes: list[float] = control.given(times.diff().abs()).tolist()
        self.longest, self.length = longest, longest
        self.sign = 1.0 if self.times[1] > self.times[0] else -1.0
        self.pause, self.wait = 0, 1

    def size(self, target: int) -> float:
        """Return |h| that divides the way to an output into equal steps."""
        return self.sizes[target - 1]

    def mesh(self, start: Mesh, most: int) -> Mesh | None:
        """Return the next steps from an empty mesh on, as many as should be tried at once, or None."""
        if self.pause > 0:
            self.pause -= 1
            return None
        mesh = start
        while len(mesh.h) < min(self.length, most) and mesh.target < len(self.times):
            goal = self.times[mesh.target]
            left = abs(goal - mesh.end)
            lands = mesh.size >= left * (1 - 1e-6)
            mesh.t.append(mesh.end)
            mesh.h.append(self.sign * (left if lands else mesh.size))
            mesh.hits.append(mesh.target if lands else -1)
            mesh.end = goal if lands else mesh.end + mesh.h[-1]
            if lands:
                mesh.target += 1
                mesh.size = self.size(mesh.target) if mesh.target < len(self.times) else 0.0
        return mesh if len(mesh.h) > 1 else None

    def learn(self, tried: int, *, solved: bool) -> None:
        """Hear how a trial ended."""
        if solved:
            self.length, self.wait = min(2 * self.length, self.longest), 1
        elif tried >= 2 * FEWEST:
            self.length = max(tried // 4, FEWEST)
        else:
            self.pause, self.wait = self.wait, 2 * self.wait
