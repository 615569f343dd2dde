"""Limited-memory BFGS that works as well at a loss of 1e-25 as at a loss of 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.protocols import Objective, State
from ntangent.optim._descent import Point, WolfeSettings, curved, descend, first_point, refreshed, stuck
from ntangent.optim._stage import check_tolerance, check_wolfe, norm, verdict


@dataclass(frozen=True)
class LBFGS:
    """L-BFGS with a strong-Wolfe line search and no absolute threshold.

    Every decision is a ratio, so the loss may be multiplied by any constant without changing the
    iterates. (``torch.optim.LBFGS`` drops curvature pairs with y·s <= 1e-10 and so loses its memory
    once the loss is small.)

    Source: Nocedal & Wright, Numerical Optimization (2006), algorithm 7.4 (two-loop recursion) with
    the scaling (7.20), algorithms 3.5 and 3.6 (line search). A pair is kept if the cosine of s and y
    exceeds the machine epsilon. If the search along the quasi-Newton direction finds nothing lower, the
    memory is dropped and the same iteration searches along the steepest descent; if that fails too,
    the stage stops.

    One iteration costs one gradient per trial (mostly one) and 4·history·P multiplications; the state
    holds 2·history + 2 vectors of shape (P,).

    Args:
        iterations: budget.
        history: number of curvature pairs kept.
        lr: first trial step of the line search, as a multiple of the quasi-Newton step.
        tolerance: stop when the loss is not above it (in the units of the loss).
        armijo: sufficient-decrease constant of the line search.
        curvature: slope constant of the line search.
        max_evaluations: budget of one line search.
    """

    iterations: int
    history: int = 50
    lr: float = 1.0
    tolerance: float = 0.0
    armijo: float = 1e-4
    curvature: float = 0.9
    max_evaluations: int = 25
    settle: ClassVar[int] = 100

    def __post_init__(self) -> None:
        check_positive(self.iterations, "iterations", integer=True)
        check_positive(self.history, "history", integer=True)
        check_positive(self.lr, "lr")
        check_tolerance(self.tolerance)
        check_wolfe(self.armijo, self.curvature)
        check_positive(self.max_evaluations, "max_evaluations", integer=True)

    def begin(self, objective: Objective, theta: Tensor) -> State:
        """Return the state before the first iteration, with an empty memory."""
        point = first_point(objective, theta)
        size = norm(point.gradient)
        return State(
            point.theta,
            point.loss,
            memory={"gradient": point.gradient, "s": [], "y": [], "ys": [], "evaluations": 1},
            info={"gradient_norm": size, "evaluations": 1.0},
            stop=verdict(point.loss, size, self.tolerance, 0, self.iterations),
        )

    def refresh(self, objective: Objective, state: State) -> State:
        """Evaluate loss and gradient anew and keep the curvature pairs.

        They belong to the old objective and still define a direction of descent; where the search
        along it finds nothing lower, the method restarts. Cost: one gradient.
        """
        return refreshed(objective, state)

    def step(self, objective: Objective, state: State) -> State:
        """Do one line search and update the memory; a finished state is returned as is."""
        if state.stop is not None:
            return state
        memory = state.memory
        point = Point(state.theta, state.loss, memory["gradient"])
        direction = two_loop(point.gradient, memory["s"], memory["y"], memory["ys"]) if memory["s"] else None
        settings = WolfeSettings(self.armijo, self.curvature, self.max_evaluations)
        move = descend(objective, point, direction, self.lr, settings)
        evaluations = memory["evaluations"] + move.evaluations
        if move.point is None:
            return stuck(state, evaluations)
        new = move.point
        kept: dict[str, Any] = {"s": [], "y": [], "ys": []} if move.restarted else memory
        # The difference of the rounded vectors, which is what y belongs to; not step·direction.
        pairs = self._remember(kept, new.theta - point.theta, new.gradient - point.gradient)
        size = norm(new.gradient)
        return State(
            new.theta,
            new.loss,
            state.iteration + 1,
            {"gradient": new.gradient, **pairs, "evaluations": evaluations},
            {
                "gradient_norm": size,
                "step_length": norm(new.theta - point.theta),
                "step": move.step,
                "pairs": float(len(pairs["s"])),
                "restarted": float(move.restarted),
                "wolfe": float(move.outcome == "wolfe"),
                "evaluations": float(evaluations),
                "accepted": 1.0,
            },
            verdict(new.loss, size, self.tolerance, state.iteration + 1, self.iterations),
        )

    def _remember(self, memory: dict[str, Any], s: Tensor, y: Tensor) -> dict[str, Any]:
        """Return the curvature pairs with (s, y) appended if it shows curvature."""
        ys = curved(s, y)
        if ys is None:
            return {name: memory[name] for name in ("s", "y", "ys")}
        added = {"s": s, "y": y, "ys": ys}
        return {name: [*memory[name], value][-self.history :] for name, value in added.items()}


def two_loop(gradient: Tensor, s: list[Tensor], y: list[Tensor], ys: list[float]) -> Tensor:
    """Return -H·gradient, shape (P,), for the inverse Hessian H of the pairs, oldest first.

    Source: Nocedal & Wright (2006), algorithm 7.4. Cost 4·len(s)·P multiplications.
    """
    q = -gradient
    alphas = []
    for s_i, y_i, ys_i in zip(reversed(s), reversed(y), reversed(ys), strict=True):
        alpha = torch.dot(s_i, q) / ys_i
        alphas.append(alpha)
        q = q - alpha * y_i
    size = norm(y[-1])
    q = q * ((ys[-1] / size) / size)
    for s_i, y_i, ys_i, alpha in zip(s, y, ys, reversed(alphas), strict=True):
        q = q + (alpha - torch.dot(y_i, q) / ys_i) * s_i
    return q
