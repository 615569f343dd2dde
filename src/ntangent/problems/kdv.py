"""The Korteweg-de Vries equation of Zabusky and Kruskal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from ntangent._base.check import check_positive
from ntangent.pinn import Box, Initial, Periodic, Problem
from ntangent.problems.catalogue import Marching, Published, catalogued, spectral
from ntangent.problems.reference import PeriodicSolution, solve_periodic

DISPERSION = 0.022**2


@cache
def _solution(end: float) -> PeriodicSolution:
    return solve_periodic(
        lambda x: np.cos(np.pi * x),
        lambda k: 1j * DISPERSION * k**3,
        lambda u: u**2 / 2,
        (-1.0, 1.0, end),
        points=512,
        steps=400 * max(1, round(80 * end)),
        flux=True,
    )


@catalogued("kdv")
@dataclass(frozen=True)
class KortewegDeVries(Marching):
    """u_t + u u_x + 0.022² u_xxx = 0, periodic on (-1, 1), started from cos πx.

    The start steepens and breaks into solitons. The reference is Fourier modes and ETDRK4.

    Args:
        end: last time. Windows should be about 0.01 long.
    """

    depth: int = 3
    points: int = 4000
    windows: int = 100
    end: float = 1.0

    harmonics = 2
    published = (
        Published(2.17e-6, "vRBA and SSBroyden", "npj AI 2026, quoted by others"),
        Published(3.40e-4, "PirateNet, SOAP", "arXiv 2502.00604, quoted by others"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.end, "end")

    def problem(self) -> Problem:
        """Return the problem."""
        return Problem(
            domain=Box(x=(-1.0, 1.0), t=(0.0, self.end)),
            equations=[lambda u: u.t + u * u.x + DISPERSION * u.xxx],
            conditions=[Initial(lambda x: torch.cos(torch.pi * x), hard=True), Periodic("x", hard=True)],
            reference=spectral(lambda: _solution(self.end)),
        )
