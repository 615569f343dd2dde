"""The Allen-Cahn equation of the PINN literature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntangent.pinn import Box, Periodic, Problem
from ntangent.problems.catalogue import Published, Standard, catalogued, spectral
from ntangent.problems.reference import PeriodicSolution, solve_periodic


@cache
def _solution() -> PeriodicSolution:
    return solve_periodic(
        lambda x: x**2 * np.cos(np.pi * x),
        lambda k: 5 - DIFFUSION * k**2,
        lambda u: -5 * u**3,
        (-1.0, 1.0, 1.0),
        points=2048,
        steps=2000,
    )


def exact(x: Tensor, t: Tensor) -> Tensor:
    """Return u; at t = 0 the start itself, whose kink waves do not resolve."""
    found = spectral(_solution)(x, t)
    centred = torch.remainder(x + 1, 2.0) - 1
    return torch.where(t > 0, found, centred**2 * torch.cos(math.pi * centred))


DIFFUSION = 1e-4
# Time is shifted by so little at t = 0, where the spread kink has no derivatives.
_INSTANT = 1e-14


def spread(x: Any, t: Any) -> Any:
    """Return a function that starts from x² cos πx, with its kink at x = ±1 spread by diffusion.

    Near x = ±1 the solution is close to the state -1, about which perturbations decay like e^(-10t) and
    diffuse: of the kink 2|s|, s the distance, 2 e^(-10t) (s erf(s/2√(νt)) + 2√(νt/π) exp(-s²/4νt)) is
    left. What remains of the solution is as smooth as a periodic |s|³.
    """
    s = torch.abs(torch.remainder(x, 2.0) - 1.0)
    spot = 4 * DIFFUSION * (t + _INSTANT)
    width = torch.sqrt(spot)
    rounded = s * torch.erf(s / width) + width * torch.exp(-s * s / spot) / math.sqrt(math.pi)
    kinked = 4 / math.pi * torch.sin(math.pi / 2 * s)
    start = -((1 - s) ** 2) * torch.cos(math.pi * s)
    return start - kinked + torch.exp(-10 * t) * (kinked + 2 * (rounded - s))


def from_the_start(net: Any, x: Any) -> Any:
    """Return the field: the spread start, and t times the network."""
    t = x[:, 1:2]
    return spread(x[:, :1], t) + t * net(x)


@catalogued("allen-cahn")
@dataclass(frozen=True)
class AllenCahn(Standard):
    """u_t = 1e-4 u_xx + 5u - 5u³, periodic on (-1, 1), started from x² cos πx, to t = 1.

    The start has a kink where the period closes, so the solution is not smooth at t = 0, x = ±1: it is
    built into the field as diffusion spreads it (:func:`spread`), so that the initial condition holds
    exactly. The reference, Fourier modes and ETDRK4, is exact to 1e-9 at t = 0 and from t = 0.01 on.
    """

    width: int = 20
    depth: int = 3
    points: int = 5000
    iterations: int = 900

    published = (
        Published(9.43e-7, "3 x 30 network, SSBroyden", "arXiv 2501.16371, quoted by others"),
        Published(3.48e-6, "PirateNet, SOAP", "arXiv 2502.00604, quoted by others"),
        Published(5.47e-5, "300,000 Adam iterations, 4.9 hours on a GPU", "arXiv 2307.00379"),
        Published(2.91e-2, "300,000 Adam iterations, no weighting", "arXiv 2403.18494"),
    )

    def problem(self) -> Problem:
        """Return the problem."""
        return Problem(
            domain=Box(x=(-1.0, 1.0), t=(0.0, 1.0)),
            equations=[lambda u: u.t - DIFFUSION * u.xx - 5 * u + 5 * u**3],
            conditions=[Periodic("x", hard=True)],
            ansatz=from_the_start,
            reference=exact,
        )
