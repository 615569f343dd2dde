"""The Kawahara equation: dispersion of fifth order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent.pinn import Box, Chebyshev, Dirichlet, Initial, Neumann, Operator, Problem, Sampler
from ntangent.problems.catalogue import Expanded, catalogued

RATE, SPEED, HEIGHT = 1 / (2 * math.sqrt(13)), 36 / 169, 105 / 169


def soliton(x: Tensor, t: Tensor | float) -> Tensor:
    """Return the solitary wave 105/169 sech⁴((x - 36t/169) / (2 sqrt 13))."""
    return HEIGHT / torch.cosh(RATE * (x - SPEED * t)) ** 4


def _slope(x: Tensor, t: Tensor) -> Tensor:
    return -4 * RATE * torch.tanh(RATE * (x - SPEED * t)) * soliton(x, t)


def _curvature(x: Tensor, t: Tensor) -> Tensor:
    square = torch.tanh(RATE * (x - SPEED * t)) ** 2
    return RATE**2 * (20 * square - 4) * soliton(x, t)


@catalogued("kawahara")
@dataclass(frozen=True)
class Kawahara(Expanded):
    """u_t + u u_x + u_xxx - u_xxxxx = 0 on (-20, 30), to t = 10, with a travelling solitary wave.

    Five boundary values are taken from the wave: u and u_x at both ends, u_xx at the right one.

    Args:
        degree: largest degree in x; in t it is a tenth of that.
    """

    points: int = 1000
    degree: int = 100

    newton = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.degree, "degree", integer=True)

    def problem(self) -> Problem:
        """Return the problem."""
        low, high = -20.0, 30.0
        return Problem(
            domain=Box(x=(low, high), t=(0.0, 10.0)),
            equations=[lambda u: u.t + u * u.x + u.xxx - u.d(x=5)],
            conditions=[
                Initial(lambda x: soliton(x, 0.0), hard=True),
                Dirichlet(x=(low, high), value=soliton, hard=True),
                Neumann(x=low, value=lambda x, t: -_slope(x, t), hard=True),
                Neumann(x=high, value=_slope, hard=True),
                Operator(lambda u, x, t: u.xx - _curvature(x, t), x=high),
            ],
            reference=soliton,
        )

    def modes(self) -> tuple[int, ...]:
        """Return the highest degrees in x and in t."""
        return self.degree, self.degree // 10

    def grid(self) -> Sampler:
        """Return the sampler of the points that suit the basis."""
        return Chebyshev(x=self.degree * 4 // 3 + 4, t=self.degree // 10 + 6)

    def slope(self) -> tuple[float, ...]:
        """Return the largest slope of a feature."""
        return (60.0, 10.0)
