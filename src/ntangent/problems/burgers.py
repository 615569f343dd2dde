"""The viscous Burgers equation of the PINN literature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent.pinn import Box, Clustered, Dirichlet, Initial, Problem, Sampler, Symmetry
from ntangent.problems.catalogue import Published, Standard, catalogued, on_arrays
from ntangent.problems.reference import cole_hopf


@catalogued("burgers")
@dataclass(frozen=True)
class Burgers(Standard):
    """u_t + u u_x = ν u_xx on (-1, 1), u = 0 at both ends, started from -sin πx, to t = 1.

    A front of width ν forms at x = 0. The solution is odd: it is sought on (0, 1), which leaves the network
    one side of the front, and known on (-1, 1) by its symmetry. The reference is the Cole-Hopf transform.

    Args:
        viscosity: ν.
        near: part of the points that gather around the front.
    """

    width: int = 20
    depth: int = 3
    points: int = 4000
    iterations: int = 800
    viscosity: float = 0.01 / math.pi
    near: float = 0.33

    published = (
        Published(1.62e-8, "8 x 20 network, SSBroyden", "arXiv 2501.16371, quoted by others"),
        Published(4.03e-5, "PirateNet, SOAP", "arXiv 2502.00604, quoted by others"),
        Published(1.45e-2, "20,000 Adam iterations", "PINNacle, NeurIPS 2024"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.viscosity, "viscosity")

    def problem(self) -> Problem:
        """Return the problem."""

        def exact(x: Tensor, t: Tensor) -> Tensor:
            return on_arrays(lambda x, t: cole_hopf(x, t, self.viscosity), x, t)

        return Problem(
            domain=Box(x=(0.0, 1.0), t=(0.0, 1.0)),
            extent=Box(x=(-1.0, 1.0), t=(0.0, 1.0)),
            equations=[lambda u: u.t + u * u.x - self.viscosity * u.xx],
            conditions=[
                Initial(lambda x: -torch.sin(torch.pi * x), hard=True),
                Dirichlet(x=1.0, hard=True),
                Symmetry("odd", x=0.0),
            ],
            reference=exact,
        )

    def sampler(self) -> Sampler:
        """Return the sampler of the collocation points."""
        return Clustered(self.points, x=0.0, width=0.05, fraction=self.near, seed=self.seed)
