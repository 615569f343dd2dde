"""The heat equation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent.pinn import Box, Dirichlet, Initial, Problem
from ntangent.problems.catalogue import Standard, catalogued

PI = torch.pi


@catalogued("heat")
@dataclass(frozen=True)
class Heat(Standard):
    """u_t = α u_xx on (0, 1), u = 0 at both ends, started from sin πx + sin 3πx / 2, to t = 1.

    Args:
        alpha: diffusivity.
    """

    points: int = 800
    iterations: int = 0
    features: int = 600
    alpha: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.alpha, "alpha")

    def problem(self) -> Problem:
        """Return the problem."""

        def exact(x: Tensor, t: Tensor) -> Tensor:
            rate = -self.alpha * PI**2 * t
            return torch.exp(rate) * torch.sin(PI * x) + torch.exp(9 * rate) * torch.sin(3 * PI * x) / 2

        return Problem(
            domain=Box(x=(0.0, 1.0), t=(0.0, 1.0)),
            equations=[lambda u: u.t - self.alpha * u.xx],
            conditions=[
                Initial(lambda x: torch.sin(PI * x) + torch.sin(3 * PI * x) / 2, hard=True),
                Dirichlet(x=(0.0, 1.0), hard=True),
            ],
            reference=exact,
        )

    def slope(self) -> float:
        """Return the largest slope of a feature."""
        return 12.0
