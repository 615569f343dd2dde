"""A secant search for an unknown whose true value makes a residual row vanish."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError, ConvergenceError, DtypeError
from ntangent._base.protocols import Objective, Stage, State
from ntangent.optim._stage import check_theta
from ntangent.optim._view import View, Views


@dataclass(frozen=True)
class Funnel:
    """An inner stage runs with one entry q of θ held fixed; a secant search on a residual row moves q.

    Where a solution exists for one value of an unknown only, the rest of a fit cannot remove a certain
    residual row at another value, and its sign tells the side. The search repeats: train with q held,
    read the row, and take the zero of the line through the last two readings. The training of each
    round starts where the one before ended. The second trial of q is ``first_step`` from the first; a
    step of the secant is never longer than four times the one before it.

    An alternative to training the unknown with everything else, which may run it into an end of its
    bracket. An iteration is one of the inner stage.

    Cost: ``rounds`` times the inner stage. ``scipy.optimize.root_scalar`` has the same secant, but it
    cannot be stopped inside a function evaluation and resumed.

    Source: the signed residual as a function of the unknown is the "funnel" of Wang et al., arXiv
    2509.14185 (2025).

    Args:
        inner: the stage of each round.
        signal: index of the residual row that is read.
        unknown: index of q in θ.
        rounds: how many values of q are tried.
        first_step: from the first to the second one.
        accuracy: stop when q would move by no more than this.
    """

    inner: Stage
    signal: int
    unknown: int = -1
    rounds: int = 6
    first_step: float = 0.3
    accuracy: float = 1e-7
    _views: Views = field(default_factory=Views, init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Stage):
            raise DtypeError(
                f"inner is {self.inner!r}",
                "it is the stage that trains",
                "Funnel(LevenbergMarquardt(50), -1)",
            )
        for name in ("signal", "unknown"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise DtypeError(f"{name} must be an integer, got {value!r}", "it is an index", f"{name}=-1")
        if check_positive(self.rounds, "rounds", integer=True) < 3:
            raise ArgumentError(
                f"rounds must be at least 3, got {self.rounds}", "two make a line", "rounds=6"
            )
        if isinstance(self.first_step, bool) or not isinstance(self.first_step, int | float):
            raise DtypeError(f"first_step must be a number, got {self.first_step!r}", "", "first_step=0.3")
        if not (math.isfinite(self.first_step) and self.first_step):
            raise ArgumentError("first_step must be finite and not zero", "", "first_step=0.3")
        check_positive(self.accuracy, "accuracy")

    @property
    def iterations(self) -> int:
        """The budget of the inner stage, once for each round."""
        return self.rounds * self.inner.iterations

    def begin(self, objective: Objective, theta: Tensor) -> State:
        """Return the state before the first iteration of the first round."""
        theta = check_theta(theta)
        rows = len(objective.residuals(theta))
        for name, index, length in (("unknown", self.unknown, len(theta)), ("signal", self.signal, rows)):
            if not -length <= index < length:
                raise ArgumentError(
                    f"{name}={index} is outside a vector of length {length}", "", f"{name}=-1"
                )
        return self._begin_round(objective, theta, {"tried": [], "read": [], "before": 0}, {})

    def step(self, objective: Objective, state: State) -> State:
        """Do one iteration of the inner stage, and the next step of the secant when it has ended."""
        if state.stop is not None:
            return state
        memory = {name: state.memory[name] for name in ("tried", "read", "before", "q")}
        view = self._view(objective, memory["q"], state.theta)
        hidden = view.hide(state)
        inner = self.inner.step(
            view,
            State(hidden.theta, hidden.loss, state.iteration - memory["before"], hidden.memory, {}, None),
        )
        done = memory["before"] + inner.iteration
        shown = view.show(inner, memory)
        info = {**inner.info, "round": float(len(memory["tried"]) + 1)}
        if inner.stop is None and inner.iteration < self.inner.iterations:
            return State(shown.theta, shown.loss, done, shown.memory, info, None)
        return self._next_round(objective, shown.theta, memory, done, info)

    def _next_round(
        self, objective: Objective, theta: Tensor, memory: dict[str, Any], done: int, info: dict[str, float]
    ) -> State:
        tried = [*memory["tried"], memory["q"]]
        read = [*memory["read"], float(objective.residuals(theta)[self.signal])]
        if not math.isfinite(read[-1]):
            raise ConvergenceError(
                f"residual row {self.signal} is {read[-1]} for the unknown's raw value {tried[-1]}",
                "the secant has no direction",
                "Funnel(..., first_step=0.1)",
            )
        moved = {"tried": tried, "read": read, "before": done}
        info = {**info, "signal": read[-1]}
        step = self._secant(tried, read)
        stop = None
        if read[-1] == 0 or abs(step) <= self.accuracy:
            stop = f"the unknown would move by {abs(step):.1e} only, after {len(tried)} rounds"
        elif len(tried) >= self.rounds:
            stop = f"{self.rounds} values of the unknown were tried; the next step would be {step:.1e}"
        if stop is not None:
            r = objective.residuals(theta)
            return State(theta, float(torch.dot(r, r)), done, {**moved, "q": tried[-1]}, info, stop)
        following = theta.clone()
        following[self.unknown] += step
        return self._begin_round(objective, following, moved, info)

    def _secant(self, tried: list[float], read: list[float]) -> float:
        if len(tried) == 1:
            return self.first_step
        last = tried[-1] - tried[-2]
        rise = read[-1] - read[-2]
        step = -read[-1] * last / rise if rise else -last / 2
        return math.copysign(min(abs(step), 4 * abs(last)), step)

    def _begin_round(
        self, objective: Objective, theta: Tensor, memory: dict[str, Any], info: dict[str, float]
    ) -> State:
        memory = {**memory, "q": float(theta[self.unknown])}
        view = self._view(objective, memory["q"], theta)
        inner = self.inner.begin(view, view.inner(theta))
        shown = view.show(inner, memory)
        return State(shown.theta, shown.loss, memory["before"], shown.memory, {**inner.info, **info}, None)

    def _view(self, objective: Objective, q: float, like: Tensor) -> View:
        def make() -> View:
            sizes, shift = torch.ones_like(like), torch.zeros_like(like)
            sizes[self.unknown], shift[self.unknown] = 0.0, q
            return View(objective, sizes, shift)

        return self._views.at(objective, q, make)
