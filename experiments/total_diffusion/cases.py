"""The problems of the study as the paper sets them up: soft conditions, Allen-Cahn without a boundary."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntangent import diagnose, pinn
from ntangent.pinn import RBA, Weighting

ALLEN_CAHN = RBA(init="zero")
HELMHOLTZ = RBA(normalisation="min-max", init="first")


def allen_cahn() -> pinn.Problem:
    """Return u_t = 1e-4 u_xx - 5 u³ + 5 u from x² cos(πx), with 512 points at t = 0 and no boundary."""
    return pinn.Problem(
        domain=pinn.Box(x=(-1.0, 1.0), t=(0.0, 1.0)),
        equations=[lambda u: u.t - 1e-4 * u.xx + 5 * u**3 - 5 * u],
        conditions=[pinn.Initial(lambda x: x**2 * torch.cos(math.pi * x), n=512)],
    )


def helmholtz() -> pinn.Problem:
    """Return u_xx + u_yy + u = q with the solution sin 6πx sin 6πy, and 100 points on each side."""
    a = 6 * math.pi
    return pinn.Problem(
        domain=pinn.Box(x=(-1.0, 1.0), y=(-1.0, 1.0)),
        equations=[lambda u, x, y: u.xx + u.yy + u - (1 - 2 * a**2) * (a * x).sin() * (a * y).sin()],
        conditions=[
            *[pinn.Dirichlet(0.0, n=100, **{side: end}) for side in ("x", "y") for end in (-1.0, 1.0)]
        ],
    )


def cavity() -> pinn.Problem:
    """Return the lid-driven cavity by stream function ψ and pressure q; Re = 100 (1000 in the paper)."""
    nu = 1e-2

    def momentum_x(psi: Any, q: Any) -> Any:
        u, v = psi.y, -psi.x
        return u * psi.xy + v * psi.yy + q.x - nu * (psi.xxy + psi.yyy)

    def momentum_y(psi: Any, q: Any) -> Any:
        u, v = psi.y, -psi.x
        return -u * psi.xx - v * psi.xy + q.y + nu * (psi.xxx + psi.xyy)

    walls = [{"x": 0.0}, {"x": 1.0}, {"y": 0.0}]
    return pinn.Problem(
        domain=pinn.Box(x=(0.0, 1.0), y=(0.0, 1.0)),
        fields=("psi", "q"),
        equations=[momentum_x, momentum_y],
        conditions=[
            *[pinn.Operator(lambda psi: psi.x, n=100, **wall) for wall in walls],
            *[pinn.Operator(lambda psi: psi.y, n=100, **wall) for wall in walls],
            pinn.Operator(lambda psi: psi.y - 1.0, n=100, y=1.0),
            pinn.Operator(lambda psi: psi.x, n=100, y=1.0),
        ],
    )


def allen_cahn_reference(modes: int = 512, steps: int = 1000) -> tuple[Tensor, Tensor]:
    """Return points (M, 2) and values (M,): Fourier modes and ETDRK4 (Kassam & Trefethen 2005)."""
    x = -1 + 2 * np.arange(modes) / modes
    k, h = np.pi * np.fft.fftfreq(modes, 1 / modes), 1 / steps
    linear = 5 - 1e-4 * k**2
    roots = np.exp(1j * np.pi * (np.arange(1, 33) - 0.5) / 32)
    z = h * linear[:, None] + roots[None, :]
    e, half = np.exp(h * linear), np.exp(h * linear / 2)
    q = h * np.real(np.mean((np.exp(z / 2) - 1) / z, 1))
    f1 = h * np.real(np.mean((-4 - z + np.exp(z) * (4 - 3 * z + z**2)) / z**3, 1))
    f2 = h * np.real(np.mean((2 + z + np.exp(z) * (z - 2)) / z**3, 1))
    f3 = h * np.real(np.mean((-4 - 3 * z - z**2 + np.exp(z) * (4 - z)) / z**3, 1))

    def n(v: Any) -> Any:
        return np.fft.fft(-5 * np.real(np.fft.ifft(v)) ** 3)

    v = np.fft.fft(x**2 * np.cos(np.pi * x))
    rows, times = [np.real(np.fft.ifft(v))], [0.0]
    for step in range(1, steps + 1):
        nv = n(v)
        a = half * v + q * nv
        na = n(a)
        b = half * v + q * na
        nb = n(b)
        c = half * a + q * (2 * nb - nv)
        v = e * v + nv * f1 + 2 * (na + nb) * f2 + n(c) * f3
        if step % (steps // 50) == 0:
            rows.append(np.real(np.fft.ifft(v)))
            times.append(step * h)
    points = np.stack([np.tile(x, len(times)), np.repeat(times, len(x))], 1)
    keep = slice(None, None, 4)
    return torch.from_numpy(points)[keep], torch.from_numpy(np.concatenate(rows))[keep]


def helmholtz_reference(n: int = 80) -> tuple[Tensor, Tensor]:
    """Return points (M, 2) and the exact values (M,)."""
    axis = torch.linspace(-1, 1, n, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    return points, torch.sin(6 * math.pi * points).prod(1)


@dataclass(frozen=True)
class Passive(Weighting):
    """Follows a rule's weights without using them, so that their order is known for plain training too.

    Args:
        rule: the rule that is followed.
        look: updates between two looks at the order.
        every: as for the rule.
    """

    rule: RBA
    look: int = 50
    every: int | None = 1

    def start(self, layout: Any, generator: torch.Generator) -> dict[str, Any]:
        """Return the rule's state with the points."""
        places = {term.name: term.points for term in layout.select(self.rule.terms)}
        ends = list(layout.intervals.values())
        return {"rule": self.rule.start(layout, generator), "places": places, "ends": ends, "order": {}}

    def update(self, state: dict[str, Any], view: Any) -> dict[str, Any]:
        """Update the rule's weights; now and then look at their order."""
        rule, order = self.rule.update(state["rule"], view), state["order"]
        if view.iteration % self.look == 0 and view.iteration:
            order = {
                f"passive {name}": diagnose.residual_order(
                    rule["lambda"][name], points, [tuple(e) for e in state["ends"]]
                )
                for name, points in state["places"].items()
            }
        return {**state, "rule": rule, "order": order}

    def factors(self, state: dict[str, Any]) -> dict[str, Tensor]:  # noqa: ARG002
        """Return none."""
        return {}

    def describe(self, state: dict[str, Any]) -> dict[str, float]:
        """Return the order of the weights."""
        return dict(state["order"])
