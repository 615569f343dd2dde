"""The Lorenz system with its three parameters unknown."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntangent.pinn import Box, Initial, PointData, Problem, Unknown
from ntangent.problems.catalogue import Refined, catalogued
from ntangent.problems.reference import trajectory

SIGMA, RHO, BETA = 10.0, 28.0, 8 / 3
START = (-8.0, 7.0, 27.0)


def _rate(_: float, state: Any) -> Any:
    x, y, z = state
    return np.array([SIGMA * (y - x), x * (RHO - z) - y, x * y - BETA * z])


@cache
def _solution(times: tuple[float, ...]) -> Any:
    return trajectory(_rate, np.array(START), np.array(times))


def exact(t: Tensor) -> dict[str, Tensor]:
    """Return x, y and z at N times."""
    flat = t.detach().cpu().reshape(-1)
    values = torch.from_numpy(_solution(tuple(flat.tolist()))).to(t)
    return {name: values[:, i].reshape(t.shape) for i, name in enumerate("xyz")}


@catalogued("lorenz")
@dataclass(frozen=True)
class Lorenz(Refined):
    """x' = σ(y - x), y' = x(ρ - z) - y, z' = xy - βz: find σ, ρ, β from 30 observations to t = 2.

    Args:
        observations: times at which the trajectory is known.
    """

    width: int = 30
    depth: int = 3
    points: int = 200
    iterations: int = 300
    observations: int = 30
    degree: int = 200

    def problem(self) -> Problem:
        """Return the problem."""
        times = torch.linspace(0, 2, self.observations, dtype=torch.float64)
        return Problem(
            domain=Box(t=(0.0, 2.0)),
            fields=("x", "y", "z"),
            equations=[
                lambda x, y, p: (x.t - p.sigma * (y - x)) / 20,
                lambda x, y, z, p: (y.t - x * (p.rho - z) + y) / 20,
                lambda x, y, z, p: (z.t - x * y + p.beta * z) / 20,
            ],
            conditions=[
                *(Initial(value, field=name) for name, value in zip("xyz", START, strict=True)),
                *(PointData(times, values, field=name) for name, values in exact(times).items()),
            ],
            unknowns={
                "sigma": Unknown(5.0, bounds=(1.0, 50.0)),
                "rho": Unknown(15.0, bounds=(1.0, 100.0)),
                "beta": Unknown(1.0, bounds=(0.1, 10.0)),
            },
            expected={"sigma": SIGMA, "rho": RHO, "beta": BETA},
            ansatz=lambda net, t: 20 * net(t),
            reference=exact,
        )
