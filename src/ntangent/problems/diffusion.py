"""A diffusion coefficient found from the temperature."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntangent.jet import MLP
from ntangent.pinn import Box, Dirichlet, PointData, Problem
from ntangent.problems.catalogue import Refined, catalogued

PI = torch.pi


def temperature(x: Tensor) -> Tensor:
    """Return u = x + sin(πx)/5, whose slope is nowhere 0: k is determined everywhere."""
    return x + torch.sin(PI * x) / 5


def coefficient(x: Tensor) -> Tensor:
    """Return k = 1 + sin(2πx)/2."""
    return 1 + torch.sin(2 * PI * x) / 2


def _source(x: Tensor) -> Tensor:
    slope, bend = 1 + PI / 5 * torch.cos(PI * x), -(PI**2) / 5 * torch.sin(PI * x)
    return PI * torch.cos(2 * PI * x) * slope + coefficient(x) * bend


@catalogued("diffusion-coefficient")
@dataclass(frozen=True)
class DiffusionCoefficient(Refined):
    """(k(x) u')' = f on (0, 1): find the function k from u at some points and k at x = 0.

    Args:
        observations: points at which u is known.
    """

    width: int = 16
    points: int = 100
    iterations: int = 100
    observations: int = 25
    degree: int = 60

    def problem(self) -> Problem:
        """Return the problem."""
        where = torch.linspace(0, 1, self.observations, dtype=torch.float64)
        return Problem(
            domain=Box(x=(0.0, 1.0)),
            fields=("u", "k"),
            equations=[lambda u, k, x: (k * u.x).x - _source(x)],
            conditions=[
                PointData(where, temperature(where), field="u", weight=1e4),
                Dirichlet(x=0.0, value=1.0, field="k", hard=True),
            ],
            reference=lambda x: {"u": temperature(x), "k": coefficient(x)},
        )

    def network(self) -> nn.Module:
        """Return one network for each function, float64."""
        return nn.ModuleDict(
            {
                name: MLP(
                    1, 1, width=self.width, depth=self.depth, dtype=torch.float64, generator=self.seed + i
                )
                for i, name in enumerate(("u", "k"))
            }
        )
