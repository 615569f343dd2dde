"""Self-similar profiles of the inviscid Burgers equation, and the exponents λ at which they exist.

With u = (1-t)^λ U(X), X = x / (1-t)^(1+λ), the Burgers equation becomes
    -λ U + ((1+λ) X + U) U' = 0.
Every λ > 0 has a solution X = -U - C U |U|^(1/λ); it is smooth at the origin only for λ = 1/(2k),
where X = -U - U^(2k+1) with U(±2) = ∓1. Smoothness therefore selects λ: all but one value leave a
singularity in the derivative of order 2k+1 at the origin (arXiv 2412.09752; Eggers & Fontelos
2009). U = 0 and U = -X solve the equation for every λ; the value at X = 2 excludes both.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ntangent import optim
from ntangent._base.check import check_choice, check_order, check_positive
from ntangent._base.errors import ArgumentError
from ntangent._base.protocols import Stage
from ntangent.jet import MLP
from ntangent.pinn import Box, Chebyshev, Dirichlet, Problem, Solution, TaylorResidual, Unknown, odd
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


# Starts of λ, as fractions of its bracket, for second and later attempts.
RESTARTS = (0.5, 0.75, 0.3)
# Levenberg-Marquardt hands over to the polish at this loss; going further takes longer than the polish.
ENOUGH = 1e-12
# Largest Taylor coefficient of the residual at the origin that a smooth solution may show, with and
# without the polish: rounding of the derivative of order 2k+2 on the one hand, what a network of that
# size leaves on the other. At the spurious minima it is above 1e-3.
SMOOTH, ROUGH = 1e-6, 1e-4
# A field this small, or this near to -X, is the trivial one: that of any profile is 1 at X = -2.
TRIVIAL = 1e-3


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
        lam: where λ starts, as a value in that bracket; instead of ``start``.
        method: how λ is found: "trainable" with everything else, or "funnel", by a secant search on the
            sign of the residual's coefficient of order 2k+1 at the origin.
        iterations: budget of Levenberg-Marquardt; it stops at a loss of 1e-12, where the polish begins.
        features: random features of the polish; 0 leaves it out.
        restarts: how often to start again, from another λ and network, when what was found is no
            smooth profile.
        attempt: which of these starts to begin with; 0 is the given one.
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
    lam: float | None = None
    method: Literal["trainable", "funnel"] = "trainable"
    iterations: int = 300
    features: int = 500
    restarts: int = 5
    attempt: int = 0

    def __post_init__(self) -> None:
        for name in ("k", "width", "depth", "points", "near", "iterations"):
            check_positive(getattr(self, name), name, integer=True)
        for name in ("radius", "smoothness"):
            check_positive(getattr(self, name), name)
        for name in ("features", "restarts", "attempt", "seed"):
            check_order(getattr(self, name), name)
        check_choice(self.method, ("trainable", "funnel"), "method")
        if not 0 < self.start < 1:
            raise ArgumentError(f"start is {self.start}", "it is a fraction of the bracket of λ", "start=0.5")
        low, high = self.bracket
        if self.lam is not None and not low < self.lam < high:
            raise ArgumentError(
                f"lam is {self.lam}, outside ({low}, {high})",
                f"the exponent of profile {self.k} lies between its non-smooth neighbours",
                f"lam={(low + high) / 2:.6g}",
            )

    @property
    def bracket(self) -> tuple[float, float]:
        """The interval to which λ is confined: between the neighbouring non-smooth exponents."""
        return 1 / (2 * self.k + 1), 1 / (2 * self.k - 1)

    @property
    def first_lambda(self) -> float:
        """Where λ starts in this attempt."""
        low, high = self.bracket
        given = low + self.start * (high - low) if self.lam is None else self.lam
        if self.attempt == 0:
            return given
        return low + RESTARTS[(self.attempt - 1) % len(RESTARTS)] * (high - low)

    def problem(self) -> Problem:
        """Return the problem."""
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
            unknowns={"lam": Unknown(self.first_lambda, bounds=self.bracket)},
            ansatz=odd,
            reference=lambda x, order: exact_profile(x, order, self.k),
            expected={"lam": 1 / (2 * self.k)},
            extent=Box(X=(-2.0, 2.0)),
        )

    def network(self) -> nn.Module:
        """Return the network, float64."""
        # Seeds of restarts lie far from those that a user counts through.
        seed = self.seed + 1_000_003 * self.attempt
        return MLP(1, 1, width=self.width, depth=self.depth, dtype=torch.float64, generator=seed)

    def sampler(self) -> Chebyshev:
        """Return the sampler of the collocation points."""
        return Chebyshev(self.points)

    def stages(self) -> list[Stage]:
        """Return the stages of training."""
        polish: list[Stage] = []
        if self.features:
            # Slopes of 20 resolve profile 8; the points' box, [0, 2], has width 2.
            polish.append(optim.Polish(12, features=self.features, slope=20.0, seed=self.seed + 1))
        if self.method == "funnel":
            # The last block of residuals is that of the Taylor coefficients, its last row that of order
            # 2k+1, and the first point of the row the origin.
            inner = optim.LevenbergMarquardt(max(20, self.iterations // 6), tolerance=ENOUGH)
            return [optim.Funnel(inner, signal=-self.near, first_step=0.2), *polish]
        return [optim.LevenbergMarquardt(self.iterations, tolerance=ENOUGH), *polish]

    def objection(self, solution: Solution) -> str | None:
        """Return why a solution is not the smooth profile, or None if it is.

        A small loss does not tell: near an end of the bracket waits a minimum with a loss of 1e-8 to
        1e-14 and a wrong λ. There the residual's Taylor coefficients at the origin do not vanish, as
        they do to rounding where the solution is smooth. The trivial solutions are named.
        """
        c = solution.derivatives(0.0, 2 * self.k + 2)[:, 0].double()
        x = torch.linspace(-2, 2, 101, dtype=c.dtype)
        u = solution(x).double()
        if float(u.abs().max()) < TRIVIAL:
            return "it is the trivial solution U = 0"
        if float((u + x).abs().max()) < TRIVIAL:
            return "it is the trivial solution U = -X, which has every λ"
        order = 2 * self.k + 1
        worst = float(origin_coefficients(c, solution.unknowns["lam"]).abs().max())
        allowed = SMOOTH if self.features else ROUGH
        if worst > allowed:
            return (
                f"a Taylor coefficient of the residual at the origin, up to order {order}, is {worst:.1e}, "
                f"not below {allowed:g}: a spurious minimum with λ = {solution.unknowns['lam']:.6g}"
            )
        return None

    def again(self) -> BurgersProfile | None:
        """Return the next attempt, or None if all are used up."""
        if self.attempt >= self.restarts:
            return None
        return dataclasses.replace(self, attempt=self.attempt + 1)

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


def origin_coefficients(derivatives: Tensor, lam: float) -> Tensor:
    """Return the Taylor coefficients R_0, ..., R_(n-1) of the residual at the origin.

    Args:
        derivatives: U, U', ..., of order n, at the origin, shape (n+1,).
        lam: λ.
    """
    n = len(derivatives) - 1
    factorials = derivatives.new_tensor([math.factorial(j) for j in range(n + 1)])
    c = derivatives / factorials
    slope = c[1:] * torch.arange(1, n + 1, dtype=c.dtype)
    j = torch.arange(n, dtype=c.dtype)
    product = torch.stack([(c[: i + 1] * slope[: i + 1].flip(0)).sum() for i in range(n)])
    return ((1 + lam) * j - lam) * c[:-1] + product


CATALOGUE.add("burgers-profile", BurgersProfile)
