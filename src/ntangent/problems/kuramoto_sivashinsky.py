"""The Kuramoto-Sivashinsky equation of the PINN literature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from ntangent._base.check import check_positive
from ntangent.pinn import Box, Initial, Periodic, Problem
from ntangent.problems.catalogue import Marching, Published, catalogued, spectral
from ntangent.problems.reference import PeriodicSolution, solve_periodic

ALPHA, BETA, GAMMA = 100 / 16, 100 / 16**2, 100 / 16**4


@cache
def _solution(end: float) -> PeriodicSolution:
    return solve_periodic(
        lambda x: np.cos(x) * (1 + np.sin(x)),
        lambda k: BETA * k**2 - GAMMA * k**4,
        lambda u: ALPHA * u**2 / 2,
        (0.0, 2 * math.pi, end),
        points=512,
        steps=400 * max(1, round(160 * end)),
        flux=True,
    )


@catalogued("kuramoto-sivashinsky")
@dataclass(frozen=True)
class KuramotoSivashinsky(Marching):
    """u_t + α u u_x + β u_xx + γ u_xxxx = 0, periodic on (0, 2π), started from cos x (1 + sin x).

    α = 100/16, β = 100/16², γ = 100/16⁴ (arXiv 2308.08468). The reference is Fourier modes and ETDRK4.

    Args:
        end: last time; the solution is chaotic. Windows should be about 0.01 long.
    """

    depth: int = 3
    points: int = 4000
    windows: int = 50
    waves: int = 112
    end: float = 0.5

    harmonics = 2
    published = (
        Published(2.65e-5, "5 windows to t = 0.5, SSBroyden", "arXiv 2501.16371, quoted by others"),
        Published(1.61e-1, "to t = 1", "jaxpi, arXiv 2308.08468"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.end, "end")

    def problem(self) -> Problem:
        """Return the problem."""
        return Problem(
            domain=Box(x=(0.0, 2 * math.pi), t=(0.0, self.end)),
            equations=[lambda u: u.t + ALPHA * u * u.x + BETA * u.xx + GAMMA * u.xxxx],
            conditions=[
                Initial(lambda x: torch.cos(x) * (1 + torch.sin(x)), hard=True),
                Periodic("x", hard=True),
            ],
            reference=spectral(lambda: _solution(self.end)),
        )
