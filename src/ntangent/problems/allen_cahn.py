"""The Allen-Cahn equation of the PINN literature."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from ntangent.pinn import Box, Initial, Periodic, Problem
from ntangent.problems.catalogue import Published, Standard, catalogued, spectral
from ntangent.problems.reference import PeriodicSolution, solve_periodic


@cache
def _solution() -> PeriodicSolution:
    return solve_periodic(
        lambda x: x**2 * np.cos(np.pi * x),
        lambda k: 5 - 1e-4 * k**2,
        lambda u: -5 * u**3,
        (-1.0, 1.0, 1.0),
        points=2048,
        steps=2000,
    )


@catalogued("allen-cahn")
@dataclass(frozen=True)
class AllenCahn(Standard):
    """u_t = 1e-4 u_xx + 5u - 5u³, periodic on (-1, 1), started from x² cos πx, to t = 1.

    The start has a kink where the period closes, so the solution is not smooth at t = 0, x = ±1; the
    reference, Fourier modes and ETDRK4, is exact to 1e-9 from t = 0.01 on.
    """

    width: int = 30
    depth: int = 3
    points: int = 4000
    iterations: int = 500

    published = (
        Published(9.43e-7, "3 x 30 network, SSBroyden", "arXiv 2501.16371, quoted by others"),
        Published(3.48e-6, "PirateNet, SOAP", "arXiv 2502.00604, quoted by others"),
        Published(5.47e-5, "300,000 Adam iterations, 4.9 hours on a GPU", "arXiv 2307.00379"),
        Published(2.91e-2, "300,000 Adam iterations, no weighting", "arXiv 2403.18494"),
    )

    def problem(self) -> Problem:
        """Return the problem."""
        return Problem(
            domain=Box(x=(-1.0, 1.0), t=(0.0, 1.0)),
            equations=[lambda u: u.t - 1e-4 * u.xx - 5 * u + 5 * u**3],
            conditions=[
                Initial(lambda x: x**2 * torch.cos(torch.pi * x), hard=True),
                Periodic("x", hard=True),
            ],
            reference=spectral(_solution),
        )
