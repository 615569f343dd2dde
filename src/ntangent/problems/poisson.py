"""Poisson's equation in one and two dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent.pinn import Box, Chebyshev, Dirichlet, Problem
from ntangent.problems.catalogue import Standard, catalogued

PI = torch.pi


@catalogued("poisson1d")
@dataclass(frozen=True)
class Poisson1D(Standard):
    """-u'' = π² sin πx on (0, 1) with u = 0 at both ends; u = sin πx."""

    points: int = 60
    iterations: int = 0
    features: int = 60

    def problem(self) -> Problem:
        """Return the problem."""
        return Problem(
            domain=Box(x=(0.0, 1.0)),
            equations=[lambda u, x: u.xx + PI**2 * torch.sin(PI * x)],
            conditions=[Dirichlet(x=(0.0, 1.0), hard=True)],
            reference=lambda x: torch.sin(PI * x),
        )

    def sampler(self) -> Chebyshev:
        """Return the sampler of the collocation points."""
        return Chebyshev(self.points)


def _product(x: Tensor, y: Tensor) -> Tensor:
    return torch.sin(PI * x) * torch.sin(PI * y)


@catalogued("poisson2d")
@dataclass(frozen=True)
class Poisson2D(Standard):
    """-Δu = 2π² sin πx sin πy on the unit square with u = 0 on its boundary; u = sin πx sin πy."""

    points: int = 400
    iterations: int = 0
    features: int = 400

    def problem(self) -> Problem:
        """Return the problem."""
        return Problem(
            domain=Box(x=(0.0, 1.0), y=(0.0, 1.0)),
            equations=[lambda u, x, y: u.xx + u.yy + 2 * PI**2 * _product(x, y)],
            conditions=[Dirichlet(x=(0.0, 1.0), hard=True), Dirichlet(y=(0.0, 1.0), hard=True)],
            reference=_product,
        )
