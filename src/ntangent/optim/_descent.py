"""One step downhill by a line search, shared by the quasi-Newton stages."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ntangent._base.protocols import Objective, State
from ntangent.optim._stage import check_theta, is_finite, no_start, norm
from ntangent.optim.line_search import LineSearchResult, strong_wolfe

STUCK = "the line search cannot decrease the loss in this precision, not even along the steepest descent"


@dataclass(frozen=True)
class Point:
    """A parameter vector, shape (P,), with the loss and its gradient, shape (P,)."""

    theta: Tensor
    loss: float
    gradient: Tensor


@dataclass(frozen=True)
class WolfeSettings:
    """The constants of the line search."""

    armijo: float
    curvature: float
    max_evaluations: int


@dataclass(frozen=True)
class Move:
    """What a descent step found.

    Args:
        point: the new point, or None if none was lower.
        step: multiple of ``direction`` that was taken.
        direction: the direction searched last, shape (P,).
        evaluations: how many gradients it cost.
        restarted: whether the direction of the method failed and steepest descent was searched.
        outcome: how the search ended.
    """

    point: Point | None
    step: float
    direction: Tensor
    evaluations: int
    restarted: bool
    outcome: str


def stuck(state: State, evaluations: int) -> State:
    """Return the end of a stage whose line search found nothing lower, after so many evaluations."""
    return replace(
        state,
        memory=state.memory | {"evaluations": evaluations},
        info=state.info | {"evaluations": float(evaluations), "accepted": 0.0},
        stop=STUCK,
    )


def first_point(objective: Objective, theta: Tensor) -> Point:
    """Evaluate at the checked initial vector."""
    theta = check_theta(theta)
    loss, gradient = objective.value_and_gradient(theta)
    if not (math.isfinite(float(loss)) and is_finite(gradient)):
        raise no_start("the loss or its gradient")
    return Point(theta, float(loss), gradient)


def refreshed(objective: Objective, state: State) -> State:
    """Return the state with loss and gradient of an objective that has changed."""
    loss, gradient = objective.value_and_gradient(state.theta)
    evaluations = state.memory["evaluations"] + 1
    return replace(
        state,
        loss=float(loss),
        memory=state.memory | {"gradient": gradient, "evaluations": evaluations},
        info=state.info | {"gradient_norm": norm(gradient), "evaluations": float(evaluations)},
    )


def steepest_scale(point: Point) -> float:
    """Return c such that -c·gradient is a step of sensible length: 2·loss / |gradient|².

    It is the Newton step of a one-dimensional quadratic with minimum zero, never longer than the
    exact minimiser along the gradient of any quadratic with minimum zero, and, unlike 1/|gradient|,
    independent of the units of the loss.
    """
    size = norm(point.gradient)
    return (2 * point.loss / size) / size


def descend(
    objective: Objective, point: Point, direction: Tensor | None, step: float, settings: WolfeSettings
) -> Move:
    """Search along ``direction`` and, if that finds nothing lower, along the steepest descent.

    Args:
        objective: what is minimised.
        point: where the search starts.
        direction: shape (P,); None means steepest descent at once.
        step: first trial, as a multiple of the direction.
        settings: constants of the line search.
    """
    evaluations = 0
    steepest = point.gradient * -steepest_scale(point)
    for trial in ([direction] if direction is not None else []) + [steepest]:
        slope = float(torch.dot(point.gradient, trial))
        if not (math.isfinite(slope) and slope < 0):
            continue
        found = _search(objective, point, trial, slope, step, settings)
        evaluations += found.evaluations
        if found.payload is not None:
            restarted = direction is not None and trial is steepest
            return Move(found.payload, found.step, trial, evaluations, restarted, found.outcome)
    return Move(None, 0.0, steepest, evaluations, direction is not None, "failure")


def _search(
    objective: Objective, point: Point, direction: Tensor, slope: float, step: float, settings: WolfeSettings
) -> LineSearchResult[Point]:
    def phi(t: float) -> tuple[float, float, Point]:
        theta = point.theta.add(direction, alpha=t)
        loss, gradient = objective.value_and_gradient(theta)
        return float(loss), float(torch.dot(gradient, direction)), Point(theta, float(loss), gradient)

    return strong_wolfe(
        phi,
        point.loss,
        slope,
        step,
        armijo=settings.armijo,
        curvature=settings.curvature,
        max_evaluations=settings.max_evaluations,
    )


def curved(s: Tensor, y: Tensor) -> float | None:
    """Return y·s if the pair shows positive curvature beyond rounding, else None.

    The test is on the cosine of s and y, so it does not depend on the size of the loss. For a
    quadratic of condition κ the cosine is at least 2 sqrt(κ) / (κ + 1), far above rounding.
    """
    product = float(torch.dot(y, s))
    bound = torch.finfo(s.dtype).eps * norm(s) * norm(y)
    return product if math.isfinite(product) and product > bound else None
