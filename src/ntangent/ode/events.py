"""Events: zeros of functions of the solution, located on the polynomial of a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError
from ntangent.ode.dense import continuous
from ntangent.ode.field import Field
from ntangent.ode.steppers.base import Attempt, Step, Stepper


@dataclass(frozen=True)
class Event:
    """A function of (t, y) whose changes of sign are located.

    Args:
        function: g(t, y), a tensor; each entry is watched.
        terminal: whether the solution ends at the first one.
    """

    function: Callable[[Tensor, Any], Tensor]
    terminal: bool = False


class EventWatch:
    """Watches the steps of one row for events.

    Args:
        field: the right-hand side.
        stepper: who makes the steps.
        events: what to watch for.
    """

    def __init__(
        self, field: Field, stepper: Stepper, events: Sequence[Event | Callable[[Tensor, Any], Tensor]]
    ) -> None:
        if field.packing.batched:
            raise ArgumentError(
                "events need batched=False",
                "rows would end at times of their own",
                "[ode.solve(func, y, t, events=events) for y in y0]",
            )
        self.field, self.stepper = field, stepper
        self.events = [event if isinstance(event, Event) else Event(event) for event in events]
        self.times: list[list[Tensor]] = [[] for _ in self.events]
        self.states: list[list[Tensor]] = [[] for _ in self.events]
        self.stop: tuple[Tensor, Tensor] | None = None
        self._last: list[Tensor | None] = [None] * len(self.events)

    def _value(self, event: Event, t: Tensor, y: Tensor) -> Tensor:
        packing = self.field.packing
        return event.function(packing.time(t).to(y.dtype), packing.unpack(y)).detach().reshape(-1)

    def __call__(self, step: Step, attempt: Attempt) -> bool:
        """Look at one accepted step; return whether a terminal event lies in it."""
        end_t, end = step.t + step.h, attempt.state[0]
        found: list[tuple[float, int, Tensor, Tensor]] = []
        for index, event in enumerate(self.events):
            before = self._last[index]
            if before is None:
                before = self._value(event, step.t, step.state[0])
            after = self._value(event, end_t, end)
            self._last[index] = after
            for entry in torch.nonzero((before * after < 0) | ((after == 0) & (before != 0))).flatten():
                theta, y = self._locate(event, int(entry), float(before[entry]), step, end)
                found.append((theta, index, step.t + theta * step.h, y))
        for _, index, t, y in sorted(found, key=lambda item: item[0]):
            self.times[index].append(t[0])
            self.states[index].append(y)
            if self.events[index].terminal:
                self.stop = t, y
                return True
        return False

    def _locate(
        self, event: Event, entry: int, before: float, step: Step, end: Tensor
    ) -> tuple[float, Tensor]:
        """Return θ and the state of a zero by bisection with false position (the ITP of both)."""
        coefficients = continuous(self.field, self.stepper, step, end)

        def state(theta: float) -> Tensor:
            y = step.state[0]
            for j, c in enumerate(coefficients):
                y = y + theta ** (j + 1) * c
            return y

        def value(theta: float) -> float:
            return float(self._value(event, step.t + theta * step.h, state(theta))[entry])

        low, high, at_low, at_high = 0.0, 1.0, before, value(1.0)
        for iteration in range(200):
            if high - low <= 4e-16 or at_high == 0:
                break
            middle = 0.5 * (low + high)
            if iteration % 3 and at_high != at_low:
                guess = (low * at_high - high * at_low) / (at_high - at_low)
                middle = guess if low < guess < high else middle
            if middle in (low, high):
                break
            now = value(middle)
            if now == 0 or (now > 0) == (at_high > 0):
                high, at_high = middle, now
            else:
                low, at_low = middle, now
        return high, state(high)
