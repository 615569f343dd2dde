"""The loop: rows of a batch walk from output to output, each with steps of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ntangent.ode.ahead import Ahead, Mesh
from ntangent.ode.controller import Control, StepControl, first_step, norm
from ntangent.ode.field import Field
from ntangent.ode.steppers.base import Attempt, Step, Stepper

Observer = Callable[[Step, Attempt], bool]

SUCCESS = "success"
TOO_MANY = "too many steps"
UNDERFLOW = "step size underflow"
DIVERGED = "Newton iteration diverged"
NOT_FINITE = "non-finite values"
STOPPED = "stopped by an event"


@dataclass
class Trajectory:
    """What the loop returns.

    Args:
        states: states at the output times, (T, B, n); NaN where none was reached.
        steps: the accepted steps, where they were asked for.
        t: time reached by each row, (B,).
        h: last step size tried by each row, (B,).
        state: last accepted state, (B, n).
        status: why it ended.
        row: the row that failed, or -1.
        accepted: number of accepted steps of each row, (B,).
        rejected: number of rejected steps of each row, (B,).
    """

    states: Tensor
    steps: list[Step] = field(default_factory=list)
    t: Tensor = field(default_factory=lambda: torch.zeros(0))
    h: Tensor = field(default_factory=lambda: torch.zeros(0))
    state: Tensor = field(default_factory=lambda: torch.zeros(0))
    status: str = SUCCESS
    row: int = -1
    accepted: Tensor = field(default_factory=lambda: torch.zeros(0))
    rejected: Tensor = field(default_factory=lambda: torch.zeros(0))


class Keep(Protocol):
    """What to keep of each accepted step: everything, or less with a checkpoint every so often."""

    def __call__(self, step: Step) -> None:
        """Take one step."""
        ...


class Walk:
    """The state of the loop.

    Args:
        stepper: makes the steps.
        field: the right-hand side.
        y0: initial rows, (B, n).
        times: output times, (T,), float64; the first is the initial time.
        control: how steps are chosen.
        keep: called with every accepted step, or None.
        observe: called with every accepted step and its result; True stops. One row only.
    """

    def __init__(
        self,
        stepper: Stepper,
        field: Field,
        y0: Tensor,
        times: Tensor,
        control: Control,
        *,
        keep: Keep | None = None,
        observe: Observer | None = None,
    ) -> None:
        self.stepper, self.field, self.times, self.control = stepper, field, times, control
        self.keep, self.observe = keep, observe
        self.rows = torch.arange(len(y0), device=y0.device)
        self.sign = 1.0 if bool(times[1] > times[0]) else -1.0
        self.t = times[0].expand(len(y0)).clone()
        self.target = torch.ones_like(self.rows)
        self.state = stepper.initial(self.t, y0)
        self.result = Trajectory(y0.new_full((len(times), *y0.shape), torch.nan))
        self.result.states[0] = y0
        self.result.accepted = torch.zeros_like(self.rows)
        self.result.rejected = torch.zeros_like(self.rows)
        order = stepper.error_order
        self.choice = StepControl(control, order or 1, implicit=stepper.method.implicit)
        self.h = self._first(y0, order or 2)
        longest = stepper.longest_leap(self.state) if control.fixed and observe is None else 1
        self.ahead = Ahead(times, control, longest) if longest > 1 else None

    def _first(self, y0: Tensor, order: int) -> Tensor:
        """Return |h| of the first step of each row."""
        control = self.control
        if control.fixed:
            return self._grid()
        if control.first_step is not None:
            return torch.full_like(self.t, control.first_step)
        h = first_step(self.field, self.t, y0, self.sign, order - 1, control)
        return h.clamp(max=control.max_step)

    def _grid(self) -> Tensor:
        """Return |h| that divides the way to the next output into equal steps."""
        last = self.times[(self.target - 1).clamp(max=len(self.times) - 1)]
        return self.control.given((self.times[self.target.clamp(max=len(self.times) - 1)] - last).abs())

    def run(self) -> Trajectory:
        """Walk to the last output, or until a row fails."""
        attempts = 0
        with torch.no_grad():
            while self.result.status == SUCCESS:
                active = self.target < len(self.times)
                if not bool(active.any()):
                    break
                if attempts >= self.control.max_steps:
                    self._fail(TOO_MANY, active)
                    break
                taken = self._leap(self.control.max_steps - attempts)
                attempts += max(taken, 1)
                if taken == 0:
                    self._round(active)
        self.result.t, self.result.h, self.result.state = self.t, self.h, self.state[0]
        return self.result

    def _leap(self, most: int) -> int:
        """Try to take many given steps at once; return how many were taken."""
        if self.ahead is None:
            return 0
        mesh = self.ahead.mesh(Mesh(float(self.t[0]), float(self.h[0]), int(self.target[0])), most)
        if mesh is None:
            return 0
        t, h = (
            torch.tensor(x, dtype=self.t.dtype, device=self.t.device)[:, None].expand(-1, len(self.rows))
            for x in (mesh.t, mesh.h)
        )
        leap = self.stepper.leap(t, h, self.state)
        self.ahead.learn(len(mesh.h), solved=leap is not None)
        if leap is None:
            return 0
        hits = torch.tensor(mesh.hits, device=self.target.device)
        reached = hits >= 0
        self.result.states[hits[reached]] = leap.states[1:][reached]
        self.result.accepted = self.result.accepted + len(mesh.h)
        if self.keep is not None:
            parts = (t, h, leap.states[:-1, None], leap.stages, hits[:, None].expand_as(t))
            for ti, hi, state, stages, hit in zip(*(part.unbind() for part in parts), strict=True):
                self.keep(Step(self.stepper, ti, hi, state, stages, None, hit))
        self.t, self.target = torch.full_like(self.t, mesh.end), torch.full_like(self.target, mesh.target)
        self.h = torch.full_like(self.h, mesh.size)
        self.state = self.stepper.initial(self.t, leap.states[-1])
        return len(mesh.h)

    def _sizes(self, active: Tensor) -> tuple[Tensor, Tensor]:
        """Return signed steps (0 for finished rows) and which of them end at an output."""
        left = (self.times[self.target.clamp(max=len(self.times) - 1)] - self.t).abs()
        lands = self.h >= left * (1 - 1e-6)
        size = torch.where(lands, left, self.h)
        if not self.control.fixed:  # two even steps instead of a long one and a sliver
            size = torch.where(~lands & (2 * self.h > left), left / 2, size)
        return torch.where(active, self.sign * size, torch.zeros_like(size)), lands & active

    def _round(self, active: Tensor) -> None:
        """Try one step of every active row."""
        h, lands = self._sizes(active)
        attempt = self.stepper.attempt(self.t, h, self.state)
        ok = attempt.ok | ~active
        if self.control.fixed or attempt.error is None:
            error, accepted = None, ok & active
            if not bool(ok.all()):
                self._fail(self._reason(attempt), ~ok)
                return
        else:
            scale = self.control.scale(self.state[0], attempt.state[0])
            error = torch.nan_to_num(norm(attempt.error / scale), nan=torch.inf)
            accepted = ok & active & (error <= 1)
        self._record(accepted, lands, h, attempt)
        self.stepper.accept(accepted, self.t, h, attempt)
        if error is not None:
            self._adapt(active, accepted, ok, h, error, attempt)
        self._advance(accepted, lands, h, attempt)

    def _reason(self, attempt: Attempt) -> str:
        finite = torch.isfinite(attempt.state[0]).all(-1)
        return DIVERGED if bool((finite | attempt.ok).all()) else NOT_FINITE

    def _record(self, accepted: Tensor, lands: Tensor, h: Tensor, attempt: Attempt) -> None:
        """Hand the step on to whoever keeps or observes it."""
        if not bool(accepted.any()) or (self.keep is None and self.observe is None):
            return
        stages = attempt.stages
        if len(accepted) > 1:  # rows that stay where they are have stages that mean nothing
            stages = torch.where(accepted[:, None], stages, self.state[0])
            h = torch.where(accepted, h, torch.zeros_like(h))
        hit = torch.where(accepted & lands, self.target, torch.full_like(self.target, -1))
        step = Step(self.stepper, self.t, h, self.state, stages, attempt.extra, hit)
        if self.keep is not None:
            self.keep(step)
        if self.observe is not None and self.observe(step, attempt):
            self.result.status = STOPPED

    def _adapt(
        self, active: Tensor, accepted: Tensor, ok: Tensor, h: Tensor, error: Tensor, attempt: Attempt
    ) -> None:
        """Choose the next size of every active row."""
        size = h.abs()
        if attempt.power is not None:
            self.choice.order = attempt.power.to(size.dtype)
        factor = self.choice.factor(error, size, accepted, attempt.effort)
        if self.stepper.method.implicit:  # a kept size keeps the factorisation
            factor = torch.where(accepted & (factor >= 1) & (factor <= 1.2), torch.ones_like(factor), factor)
        factor = torch.where(ok, factor, torch.full_like(factor, 0.25))
        new = size * factor.clamp(max=self.stepper.growth)
        # After a step cut short by an output, the size that was planned, as far as the error allows.
        planned = torch.minimum(self.h, size * self.choice.unlimited)
        new = torch.where(accepted & (size < self.h), torch.maximum(new, planned), new)
        new = torch.minimum(new, torch.where(ok, size * self.stepper.growth, size)).clamp(
            max=self.control.max_step
        )
        self.h = torch.where(active, new.clamp(min=self.control.min_step), self.h)
        # Below this, t + h is t; a row that lands now does not mind.
        least = torch.maximum(4 * torch.finfo(self.t.dtype).eps * self.t.abs(), self.h.new_tensor(1e-290))
        short = active & ((self.h <= least) | ~accepted & (size <= self.control.min_step))
        if bool(short.any()):
            self._fail(UNDERFLOW if bool(ok[short].all()) else self._reason(attempt), short)

    def _advance(self, accepted: Tensor, lands: Tensor, h: Tensor, attempt: Attempt) -> None:
        """Move the accepted rows on and write the outputs they reached."""
        self.result.accepted = self.result.accepted + accepted
        self.result.rejected = self.result.rejected + (~accepted & (h != 0))
        if not bool(accepted.any()):
            return
        reached = accepted & lands
        goal = self.times[self.target.clamp(max=len(self.times) - 1)]
        self.t = torch.where(reached, goal, torch.where(accepted, self.t + h, self.t))
        self.state = torch.where(accepted[:, None], attempt.state, self.state)
        if bool(reached.any()):
            rows = self.rows[reached]
            self.result.states[self.target[reached], rows] = self.state[0, rows]
            self.target = self.target + reached
            if self.control.fixed:
                self.h = torch.where(reached, self._grid(), self.h)

    def _fail(self, status: str, rows: Tensor) -> None:
        self.result.status = status
        self.result.row = int(torch.nonzero(rows)[0])
