"""What the stages that average gradients share: their arguments, their start, mini-batches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError, DtypeError
from ntangent._base.protocols import Batched, Objective, State
from ntangent.optim._stage import check_tolerance, is_finite, no_start, norm, verdict
from ntangent.optim.schedules import Schedule


def check_betas(betas: Any, fix: tuple[float, float], more: Sequence[Any] = ()) -> tuple[float, float]:
    """Return the decay rates of two moments as a pair of numbers in [0, 1); ``more`` are others to check."""
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise DtypeError(f"betas must be a pair of numbers, got {betas!r}", "", f"betas={fix}")
    for beta in (*betas, *more):
        check_tolerance(beta, "betas")
        if beta >= 1:
            raise ArgumentError(
                f"betas must lie in [0, 1), got {(*betas, *more)!r}",
                "with 1 a moment would never see the gradient",
                f"betas={fix}",
            )
    return betas[0], betas[1]


def check_rate(lr: Any, schedule: Any) -> None:
    """Refuse a learning rate that is not positive, and what is not a schedule."""
    check_positive(lr, "lr")
    if schedule is not None and not isinstance(schedule, Schedule):
        raise DtypeError(
            f"schedule must have a method factor(iteration, iterations), got {schedule!r}",
            "a resumed run asks it for the rate of any iteration",
            "schedule=Cosine()",
        )


def check_batch(batch: Any) -> None:
    """Refuse a size of mini-batches that is neither None nor a positive integer."""
    if batch is not None:
        check_positive(batch, "batch", integer=True)


def part(objective: Objective, batch: int | None, index: int, stage: str) -> Objective:
    """Return what iteration ``index`` evaluates: all points, or its mini-batch."""
    if batch is None:
        return objective
    if not isinstance(objective, Batched):
        raise DtypeError(
            f"batch={batch} and an objective ({type(objective).__name__}) without a method `batch`",
            "only it knows which residuals belong to a point",
            f"{stage}(1_000)",
        )
    return objective.batch(batch, index)


def evaluated(objective: Objective, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss and its gradient where a stage begins; both are finite."""
    loss, gradient = objective.value_and_gradient(theta)
    if not (math.isfinite(float(loss)) and is_finite(gradient)):
        raise no_start("the loss or its gradient")
    return loss, gradient


def begun(theta: Tensor, loss: Tensor, memory: Mapping[str, Any], tolerance: float, iterations: int) -> State:
    """Return the state before the first iteration; ``memory`` holds the gradient at θ."""
    zero, size = theta.new_zeros(theta.shape), norm(memory["gradient"])
    return State(
        theta,
        float(loss),
        memory={"first": zero, "second": zero, "evaluations": 1, **memory},
        info={"gradient_norm": size, "evaluations": 1.0},
        stop=verdict(float(loss), size, tolerance, 0, iterations),
    )


def halted(state: State, evaluations: int, lr: float) -> State:
    """Return the end of a stage whose step led to a loss or gradient that is not finite."""
    return State(
        state.theta,
        state.loss,
        state.iteration,
        state.memory | {"evaluations": evaluations},
        state.info | {"evaluations": float(evaluations)},
        f"the loss or its gradient is not finite after a step with learning rate {lr:g}; "
        "stopped at the last finite parameters; choose a smaller lr",
    )
