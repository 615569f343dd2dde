"""Self-scaled BFGS and self-scaled Broyden with a dense inverse Hessian."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.protocols import Objective, State
from ntangent.optim._descent import (
    Point,
    WolfeSettings,
    curved,
    descend,
    first_point,
    refreshed,
    steepest_scale,
    stuck,
)
from ntangent.optim._stage import check_tolerance, check_wolfe, norm, verdict


@dataclass(frozen=True)
class _SelfScaled(ABC):
    """A dense quasi-Newton stage; the subclasses choose the member of the Broyden family."""

    iterations: int
    lr: float = 1.0
    tolerance: float = 0.0
    armijo: float = 1e-4
    curvature: float = 0.9
    max_evaluations: int = 25
    settle: ClassVar[int] = 100

    def __post_init__(self) -> None:
        check_positive(self.iterations, "iterations", integer=True)
        check_positive(self.lr, "lr")
        check_tolerance(self.tolerance)
        check_wolfe(self.armijo, self.curvature)
        check_positive(self.max_evaluations, "max_evaluations", integer=True)

    @abstractmethod
    def weights(self, b: float, h: float, size: int, first: bool) -> tuple[float, float]:
        """Return (τ, φ): the scaling of the old matrix and the member of the Broyden family.

        Args:
            b: s'Bs / y's, with B the inverse of H.
            h: y'Hy / y's. By Cauchy-Schwarz b·h >= 1.
            size: number of parameters.
            first: whether H is still a multiple of the identity that carries no information.
        """

    def begin(self, objective: Objective, theta: Tensor) -> State:
        """Return the state before the first iteration, with no matrix yet."""
        point = first_point(objective, theta)
        size = norm(point.gradient)
        return State(
            point.theta,
            point.loss,
            memory={"gradient": point.gradient, "inverse": None, "evaluations": 1},
            info={"gradient_norm": size, "evaluations": 1.0},
            stop=verdict(point.loss, size, self.tolerance, 0, self.iterations),
        )

    def refresh(self, objective: Objective, state: State) -> State:
        """Evaluate loss and gradient anew and keep the matrix.

        It belongs to the old objective and still defines a direction of descent; where the search
        along it finds nothing lower, the method restarts. Cost: one gradient.
        """
        return refreshed(objective, state)

    def step(self, objective: Objective, state: State) -> State:
        """Do one line search and update the matrix; a finished state is returned as is."""
        if state.stop is not None:
            return state
        memory = state.memory
        point = Point(state.theta, state.loss, memory["gradient"])
        inverse = memory["inverse"]
        direction = None if inverse is None else -(inverse @ point.gradient)
        settings = WolfeSettings(self.armijo, self.curvature, self.max_evaluations)
        move = descend(objective, point, direction, self.lr, settings)
        evaluations = memory["evaluations"] + move.evaluations
        if move.point is None:
            return stuck(state, evaluations)
        new = move.point
        inverse = self._update(None if move.restarted else inverse, point, new, move.step)
        size = norm(new.gradient)
        return State(
            new.theta,
            new.loss,
            state.iteration + 1,
            {"gradient": new.gradient, "inverse": inverse, "evaluations": evaluations},
            {
                "gradient_norm": size,
                "step_length": norm(new.theta - point.theta),
                "step": move.step,
                "restarted": float(move.restarted),
                "wolfe": float(move.outcome == "wolfe"),
                "evaluations": float(evaluations),
                "accepted": 1.0,
            },
            verdict(new.loss, size, self.tolerance, state.iteration + 1, self.iterations),
        )

    def _update(self, inverse: Tensor | None, point: Point, new: Point, step: float) -> Tensor | None:
        """Return the matrix after the move, shape (P, P); None asks for a restart. Cost 5 P²."""
        s, y = new.theta - point.theta, new.gradient - point.gradient
        ys = curved(s, y)
        if ys is None:
            return inverse
        first = inverse is None
        if inverse is None:
            # The multiple of the identity that the steepest descent has used.
            unit = torch.eye(s.numel(), dtype=s.dtype, device=s.device)
            inverse = steepest_scale(point) * unit
        hy = inverse @ y
        yhy = float(torch.dot(y, hy))
        if not (math.isfinite(yhy) and yhy > 0):
            return None  # rounding has made the matrix indefinite
        # s = -step·H g, hence s'Bs = -step·s'g without the matrix B.
        sbs = -step * float(torch.dot(s, point.gradient))
        tau, phi = self.weights(sbs / ys, yhy / ys, s.numel(), first)
        if not (math.isfinite(tau) and tau > 0 and math.isfinite(phi)):
            return None if first else inverse
        # H ← (H - Hy y'H / y'Hy + φ v v') / τ + s s' / y's. Each vector carries the root of its
        # weight, so that the matrix stays symmetric to the last bit.
        shrink = hy * (1 / math.sqrt(yhy * tau))
        v = (s * (math.sqrt(yhy) / ys) - hy * (1 / math.sqrt(yhy))) * math.sqrt(abs(phi) / tau)
        grow = s * (1 / math.sqrt(ys))
        updated = inverse / tau
        updated.addr_(shrink, shrink, alpha=-1).addr_(v, v, alpha=math.copysign(1, phi)).addr_(grow, grow)
        return updated


@dataclass(frozen=True)
class SSBFGS(_SelfScaled):
    """Self-scaled BFGS with a dense inverse Hessian and a strong-Wolfe line search.

    The matrix is divided by τ = min(1, y's / s'Bs) before each BFGS update, which lets it forget
    curvature it has overestimated. All tests are ratios: the loss may be multiplied by any constant.
    A failed search restarts with the steepest descent before the stage gives up.

    Cost of an iteration: one gradient per trial (mostly one) and about 6 P² multiplications; memory
    P² for the state's matrix, which every step copies.

    Source: Urbán, Stefanou & Pons 2024, arXiv 2405.04230 (J. Comput. Phys. 523, 113656), after Al-Baali
    1998; the first matrix is sized by y'y / y's (Nocedal & Wright 2006, eq. 6.20).

    Args:
        iterations: budget.
        lr: first trial step of the line search, as a multiple of the quasi-Newton step.
        tolerance: stop when the loss is not above it (in the units of the loss).
        armijo: sufficient-decrease constant of the line search.
        curvature: slope constant of the line search.
        max_evaluations: budget of one line search.
    """

    def weights(self, b: float, h: float, size: int, first: bool) -> tuple[float, float]:  # noqa: ARG002
        """Return (τ, φ) with φ = 1, the BFGS member."""
        return (h if first else min(1.0, 1 / b)), 1.0


@dataclass(frozen=True)
class SSBroyden(_SelfScaled):
    """Self-scaled Broyden with a dense inverse Hessian and a strong-Wolfe line search.

    Like ``SSBFGS``, but the member φ of the Broyden family changes from update to update. On small
    networks either goes orders of magnitude below L-BFGS; which of the two is better varies.

    Cost of an iteration: one gradient per trial (mostly one) and about 6 P² multiplications; memory
    P² for the state's matrix, which every step copies.

    Source: Urbán, Stefanou & Pons 2024, arXiv 2405.04230 (J. Comput. Phys. 523, 113656), the second of
    the variants in their code, after Al-Baali & Khalfan 2005.

    Args:
        iterations: budget.
        lr: first trial step of the line search, as a multiple of the quasi-Newton step.
        tolerance: stop when the loss is not above it (in the units of the loss).
        armijo: sufficient-decrease constant of the line search.
        curvature: slope constant of the line search.
        max_evaluations: budget of one line search.
    """

    def weights(self, b: float, h: float, size: int, first: bool) -> tuple[float, float]:
        """Return the (τ, φ) of the reference; both keep H positive definite."""
        a = max(b * h - 1, 0.0)  # negative by rounding only
        c = math.sqrt(a / (1 + a))
        # h (1 - c) of the reference, without the cancellation in 1 - c for large a.
        low = min(1.0, h / ((1 + a) * (1 + c)))
        lowest = (low - 1) / a if a > 0 else 0.0
        theta = max(lowest, min(1 / low, (1 - b) / b))
        sigma = 1 + theta * a
        phi = (1 - theta) / sigma
        if first:
            return h / sigma, phi
        shrink = min(1.0, 1 / b)
        # In one dimension a = 0 and sigma = 1, whatever the exponent.
        root = sigma ** (1 / (1 - size)) if size > 1 else 1.0
        if theta <= 0:
            return min(shrink * root, sigma), phi
        return shrink * min(root, 1 / theta), phi
