"""The Euler-Bernoulli beam."""

from __future__ import annotations

from dataclasses import dataclass

from ntangent.pinn import Box, Chebyshev, Initial, Operator, Problem
from ntangent.problems.catalogue import Published, Standard, catalogued


@catalogued("beam")
@dataclass(frozen=True)
class Beam(Standard):
    """Cantilever: u'''' = -1 on (0, 1), u(0) = u'(0) = 0, u''(1) = u'''(1) = 0.

    The clamped end is built in; u = -x⁴/24 + x³/6 - x²/4.
    """

    points: int = 60
    iterations: int = 0
    features: int = 60

    published = (Published(5.8e-4, "example of PaddleScience", "PaddleScience documentation"),)

    def problem(self) -> Problem:
        """Return the problem."""
        return Problem(
            domain=Box(x=(0.0, 1.0)),
            equations=[lambda u: u.xxxx + 1],
            conditions=[
                Initial((0.0, 0.0), hard=True),
                Operator(lambda u: u.xx, x=1.0),
                Operator(lambda u: u.xxx, x=1.0),
            ],
            reference=lambda x: -(x**4) / 24 + x**3 / 6 - x**2 / 4,
        )

    def sampler(self) -> Chebyshev:
        """Return the sampler of the collocation points."""
        return Chebyshev(self.points)
