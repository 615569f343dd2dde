"""The biharmonic equation with clamped boundaries, in one and two dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent.pinn import Box, Chebyshev, Dirichlet, Neumann, Problem
from ntangent.problems.catalogue import Standard, catalogued

PI = torch.pi


@catalogued("biharmonic1d")
@dataclass(frozen=True)
class Biharmonic1D(Standard):
    """u'''' = -8π⁴ cos 2πx on (0, 1), clamped: u = u' = 0 at both ends; u = sin² πx."""

    points: int = 80
    iterations: int = 0
    features: int = 80

    def problem(self) -> Problem:
        """Return the problem."""
        return Problem(
            domain=Box(x=(0.0, 1.0)),
            equations=[lambda u, x: u.xxxx / (8 * PI**4) + torch.cos(2 * PI * x)],
            conditions=[Dirichlet(x=(0.0, 1.0), hard=True), Neumann(x=(0.0, 1.0), hard=True)],
            reference=lambda x: torch.sin(PI * x) ** 2,
        )

    def sampler(self) -> Chebyshev:
        """Return the sampler of the collocation points."""
        return Chebyshev(self.points)


def _load(x: Tensor, y: Tensor) -> Tensor:
    """Δ² of sin² πx sin² πy, divided by 8π⁴."""
    a, b = torch.cos(2 * PI * x), torch.cos(2 * PI * y)
    return a * b - 0.5 * (a * (1 - b) + b * (1 - a))


@catalogued("biharmonic2d")
@dataclass(frozen=True)
class Biharmonic2D(Standard):
    """Δ²u = f on the unit square, clamped: u = ∂u/∂n = 0 on the boundary; u = sin² πx sin² πy."""

    points: int = 800
    iterations: int = 0
    features: int = 600

    def problem(self) -> Problem:
        """Return the problem."""
        faces: list[dict[str, Any]] = [{"x": (0.0, 1.0)}, {"y": (0.0, 1.0)}]
        return Problem(
            domain=Box(x=(0.0, 1.0), y=(0.0, 1.0)),
            equations=[lambda u, x, y: (u.d(x=4) + 2 * u.d(x=2, y=2) + u.d(y=4)) / (8 * PI**4) - _load(x, y)],
            conditions=[condition(hard=True, **face) for condition in (Dirichlet, Neumann) for face in faces],
            reference=lambda x, y: torch.sin(PI * x) ** 2 * torch.sin(PI * y) ** 2,
        )

    def slope(self) -> float:
        """Return the largest slope of a feature."""
        return 10.0
