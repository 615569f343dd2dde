"""The wave equation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent.pinn import Box, Dirichlet, Initial, Problem
from ntangent.problems.catalogue import Published, Standard, catalogued

PI = torch.pi


@catalogued("wave")
@dataclass(frozen=True)
class Wave(Standard):
    """u_tt = 4 u_xx on (0, 1), u = 0 at both ends, started at rest, to t = 1.

    u = sin πx cos 2πt + sin 4πx cos 8πt / 2 (Wang, Yu & Perdikaris, J. Comput. Phys. 449, 2022).
    """

    points: int = 1000
    iterations: int = 0
    features: int = 900

    published = (Published(9.79e-2, "20,000 Adam iterations, NTK weights", "PINNacle, NeurIPS 2024"),)

    def problem(self) -> Problem:
        """Return the problem."""

        def exact(x: Tensor, t: Tensor) -> Tensor:
            slow = torch.sin(PI * x) * torch.cos(2 * PI * t)
            return slow + torch.sin(4 * PI * x) * torch.cos(8 * PI * t) / 2

        return Problem(
            domain=Box(x=(0.0, 1.0), t=(0.0, 1.0)),
            equations=[lambda u: (u.tt - 4 * u.xx) / (64 * PI**2)],
            conditions=[
                Initial(lambda x: torch.sin(PI * x) + torch.sin(4 * PI * x) / 2, 0.0, hard=True),
                Dirichlet(x=(0.0, 1.0), hard=True),
            ],
            reference=exact,
        )

    def slope(self) -> tuple[float, ...]:
        """Return the largest slope of a feature."""
        return (8.0, 16.0)
