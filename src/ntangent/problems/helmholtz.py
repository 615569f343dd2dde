"""The Helmholtz equation of the PINN literature."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent.pinn import Box, Dirichlet, Problem
from ntangent.problems.catalogue import Published, Standard, catalogued

PI = torch.pi


@catalogued("helmholtz")
@dataclass(frozen=True)
class Helmholtz(Standard):
    """Δu + u = q on (-1, 1)² with u = 0 on the boundary; u = sin(a1 πx) sin(a2 πy).

    Args:
        a1: half waves of length 1 in x.
        a2: half waves of length 1 in y; (1, 4) and (6, 6) are the cases of the literature.
    """

    points: int = 1000
    iterations: int = 0
    features: int = 1000
    a1: int = 1
    a2: int = 4

    published = (
        Published(5.83e-6, "20,000 Adam + 1,000 L-BFGS-B iterations, Fourier features", "arXiv 2307.00379"),
        Published(5.86e-5, "the same with an approximate distance function", "arXiv 2307.00379"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("a1", "a2"):
            check_positive(getattr(self, name), name, integer=True)

    def problem(self) -> Problem:
        """Return the problem."""
        factor = (self.a1**2 + self.a2**2) * PI**2 - 1

        def exact(x: Tensor, y: Tensor) -> Tensor:
            return torch.sin(self.a1 * PI * x) * torch.sin(self.a2 * PI * y)

        return Problem(
            domain=Box(x=(-1.0, 1.0), y=(-1.0, 1.0)),
            equations=[lambda u, x, y: (u.xx + u.yy + u + factor * exact(x, y)) / factor],
            conditions=[Dirichlet(x=(-1.0, 1.0), hard=True), Dirichlet(y=(-1.0, 1.0), hard=True)],
            reference=exact,
        )

    def slope(self) -> tuple[float, ...]:
        """Return the largest slope of a feature."""
        return (4.0 * self.a1 + 4.0, 4.0 * self.a2 + 4.0)
