"""The last digits: a linear correction of random features or of a spectral basis, by Newton's method."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_choice, check_order, check_positive
from ntangent._base.errors import ArgumentError, ConvergenceError, DtypeError
from ntangent._base.protocols import Correctable, Objective, State
from ntangent.optim._damped import LinAlgError
from ntangent.optim._stage import check_theta, check_tolerance, is_finite, no_start, norm, verdict

POWERS = 40  # most steps of the power method for a condition number
SETTLED = 1e-2  # relative growth in a step below which it has found it
DONE = "no part of the step lowers the loss in this precision"


@dataclass(frozen=True)
class Polish:
    """A linear correction by random features or a spectral basis, its weights found by Newton's method.

    A network trained by any method stalls far above round-off, because its last digits are badly
    conditioned. Here it is frozen and its output corrected by sum_j c_j φ_j(x) with random features
    φ_j = tanh(a_j·(x - s_j)) or sin(a_j·x + b_j), periodic where the problem's conditions build a period
    into the field; the ansatz of the problem acts on the corrected output. The residual is
    then (nearly) linear in c, and Gauss-Newton steps, each solved by a singular value decomposition of
    the Jacobian with its columns scaled to length 1, reach round-off in a few iterations. Unlike
    Levenberg-Marquardt they are not damped: singular values below ``rcond`` times the largest are left
    out. A step that does not lower the loss is halved, at most ``halvings`` times.

    With ``modes`` the features are products over the coordinates: of 1, cos kθ, sin kθ (k up to the mode)
    where the problem has a hard period in the coordinate, θ going once round in it, and of the Chebyshev
    polynomials up to that degree elsewhere, on the interval of the coordinate. For smooth solutions in
    boxes that is far better conditioned than random features; with time windows (``pinn.march``) it
    follows nonlinear evolution equations. ``pinn.Spectral`` are the points for it.

    It is a change of what is trained: θ becomes (c, unknowns), and later stages go on with these.

    Cost of an iteration: one Jacobian of the correction and 4 M F² multiplications for F features and M
    residual rows, and O(F³) with a large constant where singular values may have to be left out; memory
    3 M F numbers. In several dimensions the number of features
    that a given accuracy takes grows quickly.

    Source: random features for differential equations, Dong & Li, Comput. Methods Appl. Mech. Eng. 387
    (2021) 114129; least-squares collocation in waves and polynomials, Boyd, Chebyshev and Fourier Spectral
    Methods, Dover 2001; the polish of a trained network is ours. ``scipy.linalg.lstsq`` serves for one step,
    but not on a GPU, and not with both the scaling and the rank that is reported.

    Args:
        iterations: budget; 8 are mostly enough.
        features: number F of features.
        slope: largest slope of a feature, or one for each coordinate, where the box of the points has
            width 2. With sines it bounds the wave numbers: a little above those of the solution is best.
        density: how many times more points the equations hold at than in the stage before.
        rcond: relative size of the smallest singular value that is used.
        halvings: how often a step may be halved.
        tolerance: stop when the loss is not above it (in the units of the loss).
        seed: seed of the features.
        activation: "tanh", or "sin", which is better by orders of magnitude for smooth solutions in
            several dimensions.
        modes: highest mode in each coordinate, in the order of ``domain.names``, or one number for all;
            ``features``, ``slope``, ``seed`` and ``activation`` do not count then. None for random features.
    """

    iterations: int = 8
    features: int = 400
    slope: float | tuple[float, ...] = 12.0
    density: int = 4
    rcond: float = 1e-15
    halvings: int = 6
    tolerance: float = 0.0
    seed: int = 0
    activation: str = "tanh"
    modes: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("iterations", "features", "density"):
            check_positive(getattr(self, name), name, integer=True)
        check_positive(self.rcond, "rcond")
        for value in self.slope if isinstance(self.slope, tuple) else (self.slope,):
            check_positive(value, "slope")
        check_choice(self.activation, ("tanh", "sin"), "activation")
        if self.modes is not None:
            for highest in self.modes if isinstance(self.modes, tuple) else (self.modes,):
                check_order(highest, "modes")
        if self.rcond >= 1:
            raise ArgumentError(
                f"rcond must be below 1, got {self.rcond}", "no singular value would be left", "rcond=1e-15"
            )
        check_order(self.halvings, "halvings")
        check_order(self.seed, "seed")
        check_tolerance(self.tolerance)

    def prepare(self, objective: Objective, theta: Tensor) -> tuple[Objective, Tensor]:
        """Freeze the network at θ and return the objective over (c, unknowns), at c = 0."""
        if not isinstance(objective, Correctable):
            raise DtypeError(
                f"{type(objective).__name__} cannot be corrected",
                "Polish needs an objective with the methods of Correctable",
                "pinn.solve(problem, net, [..., optim.Polish()])",
            )
        if self.modes is not None:
            return objective.with_basis(theta, modes=self.modes, density=self.density)
        return objective.with_features(
            theta, count=self.features, slope=self.slope, density=self.density, seed=self.seed,
            activation=self.activation,
        )  # fmt: skip

    def begin(self, objective: Objective, theta: Tensor) -> State:
        """Return the state before the first step."""
        theta = check_theta(theta)
        r = objective.residuals(theta)
        loss = float(torch.dot(r, r))
        if not math.isfinite(loss):
            raise no_start("the residual")
        return State(
            theta,
            loss,
            memory={"evaluations": 1},
            info={"evaluations": 1.0},
            stop=verdict(loss, math.inf, self.tolerance, 0, self.iterations),
        )

    def step(self, objective: Objective, state: State) -> State:
        """Do one Newton step, shortened until the loss decreases. A finished state is returned as is."""
        if state.stop is not None:
            return state
        r, jacobian = objective.residuals_and_jacobian(state.theta)
        direction, rank = truncated_step(jacobian, r, self.rcond)
        evaluations = state.memory["evaluations"] + 1
        info = {"rank": float(rank), "gradient_norm": norm(2 * (jacobian.T @ r))}
        size = 1.0
        for _ in range(self.halvings + 1):
            theta = state.theta + size * direction
            trial = objective.residuals(theta)
            evaluations += 1
            loss = float(torch.dot(trial, trial))
            if math.isfinite(loss) and loss < state.loss:
                info |= {"step": size, "step_length": norm(size * direction), "accepted": 1.0}
                stop = verdict(
                    loss, info["gradient_norm"], self.tolerance, state.iteration + 1, self.iterations
                )
                return self._state(theta, loss, state.iteration + 1, evaluations, info, stop)
            size /= 2
        info |= {"accepted": 0.0}
        return self._state(state.theta, state.loss, state.iteration + 1, evaluations, info, DONE)

    def _state(
        self, theta: Tensor, loss: float, done: int, evaluations: int, info: dict[str, float], stop: Any
    ) -> State:
        info["evaluations"] = float(evaluations)
        return State(theta, loss, done, {"evaluations": evaluations}, info, stop)


def truncated_step(jacobian: Tensor, residual: Tensor, rcond: float) -> tuple[Tensor, int]:
    """Return the d of least scaled length that minimises |J d + r|, shape (P,), and the rank used.

    Args:
        jacobian: J, shape (M, P).
        residual: r, shape (M,).
        rcond: relative size of the smallest singular value of the column-scaled J that counts.
    """
    lengths = torch.linalg.vector_norm(jacobian, dim=0)
    if not bool((lengths > 0).all()) and bool((lengths > 0).any()):  # features that the conditions cancel
        step = torch.zeros_like(lengths)
        step[lengths > 0], rank = truncated_step(jacobian[:, lengths > 0], residual, rcond)
        return step, rank
    scale = torch.where(lengths > 0, 1 / lengths, torch.zeros_like(lengths))
    scaled = jacobian * scale
    if not is_finite(scaled):
        raise ConvergenceError(
            "the Jacobian of the correction is not finite",
            "the features or the field overflow in the equations",
            "Polish(slope=3.0)",
        )
    triangle, b = scaled, residual
    if len(scaled) > scaled.shape[1]:
        # The triangular factor has the singular values of the whole, at the cost of a smaller problem;
        # its last column is Q'r, so that Q need not be formed.
        factor = torch.linalg.qr(torch.cat([scaled, residual[:, None]], 1), mode="r")[1]
        triangle, b = factor[:-1, :-1], factor[:-1, -1]
        whole = _solved(triangle, b, rcond)
        if whole is not None:
            return -scale * whole, len(triangle)
    try:
        u, values, vh = torch.linalg.svd(triangle, full_matrices=False)
    except LinAlgError as error:
        raise ConvergenceError(
            f"the singular value decomposition of the correction's Jacobian failed: {error}",
            "its entries are finite but too badly scaled",
            "Polish(features=200)",
        ) from error
    kept = values > rcond * values[0]
    filtered = torch.where(kept, (u.T @ b) / torch.where(kept, values, torch.ones_like(values)), 0)
    return -scale * (vh.T @ filtered), int(kept.sum())


def _solved(triangle: Tensor, b: Tensor, rcond: float) -> Tensor | None:
    """Return R^-1 b where no singular value of R is to be left out, else None.

    It is what the singular value decomposition would give, at a tenth of its cost.
    """
    if not bool(triangle.diagonal().all()):
        return None

    def solve(v: Tensor, *, transposed: bool = False) -> Tensor:
        matrix = triangle.mT if transposed else triangle
        found: Tensor = torch.linalg.solve_triangular(matrix, v[:, None], upper=not transposed)
        return found[:, 0]

    largest = _norm_by_powers(lambda v: triangle.mT @ (triangle @ v), triangle)
    inverse = _norm_by_powers(lambda v: solve(solve(v, transposed=True)), triangle)
    return solve(b) if largest * inverse * rcond < 0.5 else None


def _norm_by_powers(square: Callable[[Tensor], Tensor], like: Tensor) -> float:
    """Return the norm of A from v -> A'A v, by the power method: a percent too small at most, mostly."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(len(like), generator=generator, dtype=torch.float64).to(like)
    v, size = v / torch.linalg.vector_norm(v), 0.0
    for _ in range(POWERS):
        v = square(v)
        last, size = size, float(torch.linalg.vector_norm(v))
        if size - last <= SETTLED * size:  # it only grows
            break
        v = v / size
    return math.sqrt(size)
