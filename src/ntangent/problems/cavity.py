"""The lid-driven cavity, by its stream function."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ntangent._base.check import check_positive
from ntangent.pinn import Box, Dirichlet, Neumann, Problem
from ntangent.problems.catalogue import Published, Standard, catalogued, on_arrays
from ntangent.problems.reference import cavity


@catalogued("cavity")
@dataclass(frozen=True)
class Cavity(Standard):
    """Steady flow in the unit square under a lid with velocity 16x²(1-x)²: ψ_y Δψ_x - ψ_x Δψ_y = Δ²ψ / Re.

    The velocity is (ψ_y, -ψ_x). The lid is regularised: one of constant velocity has no solution with a
    finite fourth derivative at its corners. The reference is a spectral Galerkin solution.

    Args:
        reynolds: Reynolds number, up to about 400.
    """

    points: int = 1000
    iterations: int = 0
    features: int = 1000
    reynolds: float = 100.0

    newton = 12
    published = (
        Published(1.58e-1, "constant lid, Re = 3200", "jaxpi, arXiv 2308.08468"),
        Published(5.57e-2, "constant lid, Re = 1000, 300,000 Adam iterations, RBA", "arXiv 2403.18494"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.reynolds, "reynolds")

    def problem(self) -> Problem:
        """Return the problem."""

        def exact(x: Tensor, y: Tensor) -> Tensor:
            return on_arrays(lambda x, y: cavity(x, y, 1 / self.reynolds), x, y)

        return Problem(
            domain=Box(x=(0.0, 1.0), y=(0.0, 1.0)),
            fields=("psi",),
            equations=[
                lambda psi: psi.y * (psi.xxx + psi.d(x=1, y=2)) - psi.x * (psi.d(x=2, y=1) + psi.yyy)
                - (psi.d(x=4) + 2 * psi.d(x=2, y=2) + psi.d(y=4)) / self.reynolds
            ],
            conditions=[
                Dirichlet(x=(0.0, 1.0), hard=True),
                Dirichlet(y=(0.0, 1.0), hard=True),
                Neumann(x=(0.0, 1.0), hard=True),
                Neumann(y=0.0, hard=True),
                Neumann(y=1.0, value=lambda x: 16 * x**2 * (1 - x) ** 2, hard=True),
            ],
            reference=exact,
        )  # fmt: skip

    def slope(self) -> float:
        """Return the largest slope of a feature."""
        return 20.0
