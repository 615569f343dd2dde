"""Self-similar profiles of the inviscid Burgers equation, and the exponents λ at which they exist.

With u = (1-t)^λ U(X), X = x / (1-t)^(1+λ), the Burgers equation becomes
    -λ U + ((1+λ) X + U) U' = 0.
Every λ > 0 has a solution X = -U - C U |U|^(1/λ); it is smooth at the origin only for λ = 1/(2k),
where X = -U - U^(2k+1) with U(±2) = ∓1. Smoothness therefore selects λ: all but one value leave a
singularity in the derivative of order 2k+1 at the origin (arXiv 2412.09752; Eggers & Fontelos
2009). U = 0 and U = -X solve the equation for every λ; the value at X = 2 excludes both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ntangent import optim
from ntangent._base.check import check_order, check_positive
from ntangent._base.errors import ArgumentError
from ntangent._base.protocols import Stage
from ntangent.jet import MLP
from ntangent.pinn import Box, Chebyshev, Dirichlet, Problem, TaylorResidual, Unknown, odd
from ntangent.problems.catalogue import CATALOGUE


def exact_profile(x: Tensor, order: int, k: int) -> Tensor:
    """Return the smooth profile and its derivatives, shape (order+1, N).

    V = -U solves X = V + V^n with n = 2k+1: the value by Newton's method, the derivatives by
    reversion of the power series around each point.

    Args:
        x: points, shape (N,).
        order: highest derivative.
        k: index of the profile.
    """
    order = check_order(order)
    n = 2 * check_positive(k, "k", integer=True) + 1
    points = x.detach().cpu().double().numpy()
    size = np.abs(points)
    v = np.minimum(size, size ** (1.0 / n))
    for _ in range(100):
        step = (v + v**n - size) / (1.0 + n * v ** (n - 1))
        v = v - step
        if np.all(np.abs(step) <= 1e-17 * np.maximum(size, 1e-300)):
            break
    v = np.sign(points) * v
    coefficients = np.zeros((order + 1, len(points)))
    coefficients[0] = v
    slope = 1.0 + n * v ** (n - 1)
    for j in range(1, order + 1):
        # The coefficient of order j of V^n, with that of V still zero.
        power = coefficients[: j + 1]
        for _ in range(n - 1):
            power = np.stack([(power[: i + 1] * coefficients[i::-1]).sum(0) for i in range(j + 1)])
        coefficients[j] = (float(j == 1) - power[j]) / slope
    factorials = np.cumprod([1.0, *range(1, order + 1)])[:, None]
    return torch.from_numpy(-coefficients * factorials).to(x)


@dataclass(frozen=True)
class BurgersProfile:
    """The k-th smooth self-similar profile and its λ, found together.

    Args:
        k: index of the profile, 1, 2, ...: the answer is λ = 1/(2k).
        seed: seed of the network.
        width: neurons in each hidden layer.
        depth: hidden layers.
        points: collocation points of [0, 2] (the field is odd by construction).
        near: points near the origin at which the residual's Taylor coefficients vanish.
        radius: how far from the origin they reach.
        smoothness: weight of each of those coefficients, orders 0..2k+1. Weights between 1e-5 and
            1e-3 work; 1 fails for k >= 3.
        start: where λ starts, as a fraction of its bracket (1/(2k+1), 1/(2k-1)).
        iterations: budget of the Levenberg-Marquardt stage.
    """

    k: int = 1
    seed: int = 0
    width: int = 24
    depth: int = 2
    points: int = 150
    near: int = 12
    radius: float = 0.2
    smoothness: float = 1e-4
    start: float = 0.5
    iterations: int = 1000

    def __post_init__(self) -> None:
        for name in ("k", "width", "depth", "points", "near", "iterations"):
            check_positive(getattr(self, name), name, integer=True)
        for name in ("radius", "smoothness"):
            check_positive(getattr(self, name), name)
        if not 0 < self.start < 1:
            raise ArgumentError(f"start is {self.start}", "it is a fraction of the bracket of λ", "start=0.5")

    @property
    def bracket(self) -> tuple[float, float]:
        """The interval to which λ is confined: between the neighbouring non-smooth exponents."""
        return 1 / (2 * self.k + 1), 1 / (2 * self.k - 1)

    def problem(self) -> Problem:
        """Return the problem."""
        low, high = self.bracket
        orders = range(2 * self.k + 2)
        return Problem(
            domain=Box(X=(0.0, 2.0)),
            equations=[lambda U, p, X: -p.lam * U + ((1 + p.lam) * X + U) * U.X],
            conditions=[
                Dirichlet(X=2.0, value=-1.0),
                TaylorResidual(
                    torch.linspace(0, self.radius, self.near, dtype=torch.float64), orders, self.smoothness
                ),
            ],
            unknowns={"lam": Unknown(low + self.start * (high - low), bounds=self.bracket)},
            ansatz=odd,
            reference=lambda x, order: exact_profile(x, order, self.k),
            expected={"lam": 1 / (2 * self.k)},
            extent=Box(X=(-2.0, 2.0)),
        )

    def network(self) -> nn.Module:
        """Return the network, float64."""
        return MLP(1, 1, width=self.width, depth=self.depth, dtype=torch.float64, generator=self.seed)

    def sampler(self) -> Chebyshev:
        """Return the sampler of the collocation points."""
        return Chebyshev(self.points)

    def stages(self) -> list[Stage]:
        """Return the stages of training."""
        return [optim.LevenbergMarquardt(self.iterations)]

    def headline(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the numbers that a user of this problem asks for.

        Args:
            result: what ``Solution.summary`` returned.
        """
        return {
            "k": self.k,
            "lambda": result["unknowns"]["lam"],
            "lambda_error": result["unknown_errors"]["lam"],
            "max_error_U": result["max_errors"][0],
            "max_residual": result["max_residual"],
            "seconds": result["seconds"],
        }


CATALOGUE.add("burgers-profile", BurgersProfile)
