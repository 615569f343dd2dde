"""The Kawahara equation: dispersion of fifth order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent.pinn import Box, Dirichlet, Initial, Neumann, Operator, Problem
from ntangent.problems.catalogue import Standard, catalogued

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
class Kawahara(Standard):
    """u_t + u u_x + u_xxx - u_xxxxx = 0 on (-20, 30), to t = 10, with a travelling solitary wave.

    Five boundary values are taken from the wave: u and u_x at both ends, u_xx at the right one.
    """

    points: int = 1000
    iterations: int = 0
    features: int = 1200

    newton = 8

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

    def slope(self) -> tuple[float, ...]:
        """Return the largest slope of a feature."""
        return (60.0, 10.0)
