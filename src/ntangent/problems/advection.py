"""Linear advection."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ntangent._base.check import check_positive
from ntangent.pinn import Box, Initial, Periodic, Problem
from ntangent.problems.catalogue import Published, Standard, catalogued


@catalogued("advection")
@dataclass(frozen=True)
class Advection(Standard):
    """u_t + c u_x = 0, periodic on (0, 2π), started from sin x, to t = 1; u = sin(x - ct).

    Args:
        speed: c; 30 to 50 make plain PINNs fail (Krishnapriyan et al., NeurIPS 2021).
    """

    points: int = 600
    iterations: int = 0
    features: int = 600
    speed: float = 50.0

    published = (Published(6.88e-4, "speed 50", "jaxpi, arXiv 2308.08468"),)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.speed, "speed")

    def problem(self) -> Problem:
        """Return the problem."""
        return Problem(
            domain=Box(x=(0.0, 2 * math.pi), t=(0.0, 1.0)),
            equations=[lambda u: u.t / self.speed + u.x],
            conditions=[Initial(lambda x: torch.sin(x), hard=True), Periodic("x", hard=True)],
            reference=lambda x, t: torch.sin(x - self.speed * t),
        )

    def slope(self) -> tuple[float, ...]:
        """Return the largest slope of a feature."""
        return (4.0, self.speed / 2 + 8.0)
