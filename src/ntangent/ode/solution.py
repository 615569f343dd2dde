"""What ``ode.solve`` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent.ode.dense import Interpolant
from ntangent.ode.events import EventWatch
from ntangent.ode.field import Field, Packing
from ntangent.ode.integrate import STOPPED, SUCCESS, Trajectory
from ntangent.ode.steppers.base import Stepper


@dataclass(frozen=True, repr=False)
class Solution:
    """A solution at the output times and between them.

    Args:
        t: output times, (T,); those after a terminal event are left out.
        y: states there, (T, *y0.shape) or a tuple; NaN where a failed solution did not get.
        status: ``"success"``, ``"stopped by an event"`` or what went wrong.
        knots: starts of the accepted steps and the end: (K + 1,), for a batch (K + 1, B).
        accepted: accepted steps (of the row with the most).
        rejected: rejected steps (of the row with the most).
        n_f: evaluations of func; a batch counts as one.
        n_jac: evaluations of its Jacobian.
        n_lu: factorisations.
        n_newton: Newton iterations.
        events: times of each event, in order.
        event_states: states there.
    """

    t: Tensor
    y: Any
    status: str
    knots: Tensor
    accepted: int
    rejected: int
    n_f: int
    n_jac: int
    n_lu: int
    n_newton: int
    events: tuple[Tensor, ...]
    event_states: tuple[Any, ...]
    packing: Packing
    dense: Interpolant

    @classmethod
    def collect(
        cls,
        packing: Packing,
        field: Field,
        stepper: Stepper,
        result: Trajectory,
        dense: Interpolant,
        times: Tensor,
        watch: EventWatch | None,
    ) -> Solution:
        """Build the solution from the pieces of a run."""
        counts = (field.evaluations, field.jacobians, stepper.factorisations, stepper.newton_iterations)
        if watch is not None and watch.stop is not None:
            dense.end = watch.stop[0]
            ahead = (watch.stop[0] - times) * (times[-1] - times[0]).sign() >= 0
            times = times[ahead]
        rows = dense(times)
        rows[0] = dense.first
        found: tuple[Tensor, ...] = ()
        states: tuple[Any, ...] = ()
        if watch is not None:
            found = tuple(torch.stack(t) if t else times.new_zeros(0) for t in watch.times)
            states = tuple(packing.unpack(torch.stack(y)) if y else None for y in watch.states)
        knots = dense.knots()
        return cls(
            times, packing.unpack(rows), result.status, knots if packing.batched else knots[:, 0],
            int(result.accepted.max()), int(result.rejected.max()), *counts, found, states, packing, dense,
        )  # fmt: skip

    @property
    def success(self) -> bool:
        """Whether the solution got to the end or to a terminal event."""
        return self.status in (SUCCESS, STOPPED)

    def __call__(self, t: Tensor | float) -> Any:
        """Return the state at any time within the solution, (*t.shape, *y0.shape)."""
        times = torch.as_tensor(t, dtype=torch.float64, device=self.packing.device)
        rows = self.dense(times.reshape(-1))
        return self.packing.unpack(rows.reshape(*times.shape, *rows.shape[1:]))

    def __repr__(self) -> str:
        return (
            f"<Solution: {self.status}, {len(self.t)} outputs, {self.accepted} steps, {self.rejected} "
            f"rejected, {self.n_f} calls of f, {self.n_jac} Jacobians, {self.n_lu} factorisations>"
        )
