"""Strong-Wolfe line search on a function of one number, shared by the quasi-Newton stages.

It knows nothing of tensors or devices: ``phi`` maps a step to (value, slope, payload) and the payload
of the accepted step comes back unopened. Every test compares like with like, so multiplying the
function by a constant changes no decision, and no step or decrease is ever too small in itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError

T = TypeVar("T")
Outcome = Literal["wolfe", "decrease", "failure"]

# Fractions of a bracketing interval: an interpolated step keeps this distance from both ends, and
# after an infinite or NaN value, which carries no information, the search goes this far.
MARGIN = 0.1


@dataclass(frozen=True)
class LineSearchResult(Generic[T]):
    """How a line search ended.

    Args:
        step: accepted step; 0 after a failure.
        value: the function there.
        slope: its derivative there.
        payload: what ``phi`` returned with them; None after a failure.
        evaluations: how often ``phi`` was called.
        outcome: "wolfe" (both conditions hold), "decrease" (the value is lower, the conditions
            do not both hold) or "failure" (no trial was lower).
        reason: the outcome in words.
    """

    step: float
    value: float
    slope: float
    payload: T | None
    evaluations: int
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class _Trial(Generic[T]):
    """One evaluated step."""

    step: float
    value: float
    slope: float
    payload: T | None

    @property
    def finite(self) -> bool:
        return math.isfinite(self.value) and math.isfinite(self.slope)


class _Search(Generic[T]):
    """The state of one search: conditions, budget, lowest point so far."""

    def __init__(
        self,
        phi: Callable[[float], tuple[float, float, T]],
        origin: _Trial[T],
        armijo: float,
        curvature: float,
        budget: int,
    ) -> None:
        self.phi, self.origin, self.best = phi, origin, origin
        self.armijo, self.curvature, self.budget = armijo, curvature, budget
        self.evaluations = 0

    @property
    def spent(self) -> bool:
        return self.evaluations >= self.budget

    def at(self, step: float) -> _Trial[T]:
        value, slope, payload = self.phi(step)
        trial = _Trial(step, float(value), float(slope), payload)
        self.evaluations += 1
        if trial.finite and trial.value < self.best.value:
            self.best = trial
        return trial

    def too_long(self, trial: _Trial[T], reference: _Trial[T]) -> bool:
        """Whether ``trial`` lies beyond a minimiser that starts at ``reference``."""
        line = self.origin.value + self.armijo * trial.step * self.origin.slope
        # The second test also demands a strict decrease when the line is flat to rounding.
        return not trial.finite or trial.value > line or trial.value >= reference.value

    def flat(self, trial: _Trial[T]) -> bool:
        return abs(trial.slope) <= -self.curvature * self.origin.slope

    def wolfe(self, trial: _Trial[T]) -> LineSearchResult[T]:
        return LineSearchResult(
            trial.step,
            trial.value,
            trial.slope,
            trial.payload,
            self.evaluations,
            "wolfe",
            "both strong Wolfe conditions hold",
        )

    def lowest(self, why: str) -> LineSearchResult[T]:
        best = self.best
        outcome: Outcome = "decrease"
        reason = f"the value is lower but the Wolfe conditions do not both hold: {why}"
        if best is self.origin:
            outcome, reason = "failure", f"no step lowers the value: {why}"
        return LineSearchResult(
            best.step, best.value, best.slope, best.payload, self.evaluations, outcome, reason
        )


def strong_wolfe(
    phi: Callable[[float], tuple[float, float, T]],
    value: float,
    slope: float,
    step: float = 1.0,
    *,
    armijo: float = 1e-4,
    curvature: float = 0.9,
    max_evaluations: int = 25,
) -> LineSearchResult[T]:
    """Find a step with phi(t) <= phi(0) + armijo·t·phi'(0) and |phi'(t)| <= curvature·|phi'(0)|.

    Source: Nocedal & Wright, Numerical Optimization (2006), algorithms 3.5 (bracketing) and 3.6
    (zoom), with safeguarded cubic interpolation. A NaN or infinite value or slope counts as a step
    that is too long. The value must also decrease strictly. If the budget ends, or the bracket has
    shrunk to two neighbouring numbers, the lowest trial is returned, marked "decrease" or "failure".

    Cost: one call of ``phi`` per trial, at most ``max_evaluations``.

    Args:
        phi: maps a positive step to (value, slope, payload).
        value: phi(0).
        slope: phi'(0); must be negative.
        step: first trial.
        armijo: fraction of the promised decrease that is demanded.
        curvature: largest allowed ratio of the slopes.
        max_evaluations: budget.
    """
    if not (math.isfinite(value) and math.isfinite(slope) and slope < 0):
        raise ArgumentError(
            f"a line search needs a finite value and a negative slope, got {value!r} and {slope!r}",
            "the direction does not lead downhill",
            "search along minus the gradient",
        )
    check_positive(step, "step")
    check_positive(max_evaluations, "max_evaluations", integer=True)
    if not 0 < armijo < curvature < 1:
        raise ArgumentError(
            f"armijo={armijo!r} and curvature={curvature!r} cannot be satisfied together",
            "0 < armijo < curvature < 1 guarantees that a step exists",
            "armijo=1e-4, curvature=0.9",
        )
    origin: _Trial[T] = _Trial(0.0, value, slope, None)
    search = _Search(phi, origin, armijo, curvature, max_evaluations)
    previous = origin
    while not search.spent and math.isfinite(step):
        trial = search.at(step)
        if search.too_long(trial, previous):
            return _zoom(search, previous, trial)
        if search.flat(trial):
            return search.wolfe(trial)
        if trial.slope >= 0:
            return _zoom(search, trial, previous)
        step = _longer(previous, trial)
        previous = trial
    return search.lowest(f"{search.evaluations} evaluations did not bracket a minimum")


def _zoom(search: _Search[T], low: _Trial[T], high: _Trial[T]) -> LineSearchResult[T]:
    """Shrink the interval between ``low`` (the lower end) and ``high`` (algorithm 3.6)."""
    widths = [math.inf, math.inf]
    while not search.spent:
        width = high.step - low.step
        # Interpolation can creep along one end: without a halving in two rounds, bisect.
        creeping = abs(width) > 0.5 * widths[-2]
        widths.append(abs(width))
        step = low.step + width * (0.5 if creeping and high.finite else _fraction(low, high))
        if not min(low.step, high.step) < step < max(low.step, high.step):
            return search.lowest("the bracket has shrunk to the spacing of the numbers")
        trial = search.at(step)
        if search.too_long(trial, low):
            high = trial
        elif search.flat(trial):
            return search.wolfe(trial)
        else:
            if trial.slope * width >= 0:
                high = low
            low = trial
    return search.lowest(f"the budget of {search.budget} evaluations is used")


def _fraction(low: _Trial[T], high: _Trial[T]) -> float:
    """Return where between ``low`` (0) and ``high`` (1) to try next."""
    if not high.finite:
        return MARGIN
    minimum = _cubic_minimum(low, high)
    return 0.5 if minimum is None else min(max(minimum, MARGIN), 1 - MARGIN)


def _longer(previous: _Trial[T], trial: _Trial[T]) -> float:
    """Return a step beyond ``trial``, two to ten times further on from ``previous``."""
    minimum = _cubic_minimum(previous, trial)
    stretch = 10.0 if minimum is None or minimum <= 1 else min(max(minimum, 2.0), 10.0)
    return previous.step + stretch * (trial.step - previous.step)


def _cubic_minimum(a: _Trial[T], b: _Trial[T]) -> float | None:
    """Return the minimiser of the cubic through both ends, in units where a is 0 and b is 1.

    The cubic is p(u) = c3 u³ + c2 u² + c1 u + a.value. Working in u and dividing by the largest
    coefficient makes the result independent of the scales of step and value.
    """
    width = b.step - a.step
    rise, c1, end = b.value - a.value, a.slope * width, b.slope * width
    scale = max(abs(rise), abs(c1), abs(end))
    if not (math.isfinite(scale) and scale > 0):
        return None
    rise, c1, end = rise / scale, c1 / scale, end / scale
    c2, c3 = 3 * rise - 2 * c1 - end, c1 + end - 2 * rise
    root = c2 * c2 - 3 * c3 * c1
    if root < 0:
        return None
    # The form without cancellation of the root of p'(u) = 0 at which p'' >= 0.
    root = math.sqrt(root)
    if c2 > 0:
        return -c1 / (c2 + root)
    return (root - c2) / (3 * c3) if c3 != 0 else None
