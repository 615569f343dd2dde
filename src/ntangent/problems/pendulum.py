"""A damped pendulum with its damping and frequency unknown."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntangent._base.check import check_order
from ntangent.pinn import Box, PointData, Problem, Unknown
from ntangent.problems.catalogue import Refined, catalogued
from ntangent.problems.reference import trajectory

DAMPING, STIFFNESS, START = 0.3, 4.0, (2.0, 0.0)


@cache
def _solution(times: tuple[float, ...]) -> Any:
    def rate(_: float, state: Any) -> Any:
        angle, speed = state
        return np.array([speed, -DAMPING * speed - STIFFNESS * np.sin(angle)])

    return trajectory(rate, np.array(START), np.array(times))


def exact(t: Tensor) -> Tensor:
    """Return the angle at N times."""
    flat = t.detach().cpu().reshape(-1)
    return torch.from_numpy(_solution(tuple(flat.tolist()))[:, 0]).to(t).reshape(t.shape)


@catalogued("pendulum")
@dataclass(frozen=True)
class Pendulum(Refined):
    """θ'' + c θ' + k sin θ = 0: find c and k from noisy angles observed to t = 8.

    Args:
        observations: times at which the angle is known.
        noise: standard deviation of the observed angles.
    """

    width: int = 24
    depth: int = 2
    points: int = 150
    iterations: int = 100
    observations: int = 40
    noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self.observations, "observations")

    def problem(self) -> Problem:
        """Return the problem."""
        times = torch.linspace(0, 8, self.observations, dtype=torch.float64)
        generator = torch.Generator().manual_seed(self.seed)
        noise = self.noise * torch.randn(len(times), generator=generator, dtype=torch.float64)
        return Problem(
            domain=Box(t=(0.0, 8.0)),
            fields=("theta",),
            equations=[lambda theta, p: (theta.tt + p.c * theta.t + p.k * torch.sin(theta)) / 4],
            conditions=[PointData(times, exact(times) + noise)],
            unknowns={"c": Unknown(1.0, bounds=(0.0, 5.0)), "k": Unknown(2.0, bounds=(0.1, 20.0))},
            expected={"c": DAMPING, "k": STIFFNESS},
            reference=exact,
        )
