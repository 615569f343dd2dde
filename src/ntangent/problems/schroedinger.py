"""The focusing nonlinear Schrödinger equation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent.pinn import Box, Dirichlet, Initial, Problem, Symmetry
from ntangent.problems.catalogue import Marching, Published, catalogued


def breather(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the real and the imaginary part of the solution that starts from 2 sech x.

    h = 4 e^(it/2) (cosh 3x + 3 e^(4it) cosh x) / (cosh 4x + 4 cosh 2x + 3 cos 4t).

    Source: Satsuma & Yajima, Suppl. Prog. Theor. Phys. 55 (1974) 284.
    """
    fast, slow = 4 * torch.cosh(3 * x), 12 * torch.cosh(x)
    bottom = torch.cosh(4 * x) + 4 * torch.cosh(2 * x) + 3 * torch.cos(4 * t)
    real = fast * torch.cos(t / 2) + slow * torch.cos(4.5 * t)
    imaginary = fast * torch.sin(t / 2) + slow * torch.sin(4.5 * t)
    return real / bottom, imaginary / bottom


def _real(x: Tensor, t: Tensor) -> Tensor:
    return breather(x, t)[0]


def _imaginary(x: Tensor, t: Tensor) -> Tensor:
    return breather(x, t)[1]


@catalogued("schroedinger")
@dataclass(frozen=True)
class Schroedinger(Marching):
    """i h_t + h_xx / 2 + |h|² h = 0 with h = u + iv on (-5, 5), started from 2 sech x, to t = π/2.

    The breather of two solitons on the whole line gives the values at both ends. The literature
    closes the interval periodically instead, where the start has a kink of 0.05 in its slope. The solution
    is even: it is sought on (0, 5), where the peak that forms at x = 0 takes a fifth of the polynomials.
    """

    width: int = 30
    depth: int = 3
    points: int = 3000
    windows: int = 40
    waves: int = 76

    periodic = False
    published = (Published(1.97e-3, "4 x 100 network, L-BFGS, periodic", "Raissi et al., arXiv 1711.10561"),)

    def problem(self) -> Problem:
        """Return the problem."""
        end = math.pi / 2
        return Problem(
            domain=Box(x=(0.0, 5.0), t=(0.0, end)),
            extent=Box(x=(-5.0, 5.0), t=(0.0, end)),
            fields=("u", "v"),
            equations=[
                lambda u, v: u.t + v.xx / 2 + (u * u + v * v) * v,
                lambda u, v: v.t - u.xx / 2 - (u * u + v * v) * u,
            ],
            conditions=[
                Initial(lambda x: 2 / torch.cosh(x), field="u", hard=True),
                Initial(0.0, field="v", hard=True),
                Dirichlet(x=5.0, value=_real, field="u", hard=True),
                Dirichlet(x=5.0, value=_imaginary, field="v", hard=True),
                Symmetry("even", x=0.0, field="u"),
                Symmetry("even", x=0.0, field="v"),
            ],
            reference=lambda x, t: {"u": _real(x, t), "v": _imaginary(x, t)},
        )
