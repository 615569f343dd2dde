"""Continuous solutions: a polynomial on every step."""

from __future__ import annotations

import torch
from torch import Tensor

from ntangent.ode.field import Field
from ntangent.ode.integrate import Trajectory
from ntangent.ode.methods.base import RungeKutta
from ntangent.ode.methods.kinds import Exponential, Taylor
from ntangent.ode.steppers.base import Step, Stepper

# Within this of the end of a step, as a fraction of it, a time is that of the end.
KNOT = 1e-14
# Highest degree of a polynomial through the ends of shorter steps.
MOST = 8


class Recorder:
    """Keeps every accepted step."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def __call__(self, step: Step) -> None:
        """Keep one step."""
        self.steps.append(step)


def continuous(field: Field, stepper: Stepper, step: Step, end: Tensor) -> Tensor:
    """Return coefficients (degree, B, n) of θ, θ², ... of y(t + θh) - y on one step.

    Collocation methods (Gauss, Radau IIA, Lobatto IIIA) have their own polynomial through the
    stages; methods with dense weights use those, and call f where the weights ask for more slopes;
    exponential and Taylor methods the polynomial through shorter steps from the same state; the others
    have the cubic Hermite polynomial.

    Args:
        field: the right-hand side.
        stepper: who made the step.
        step: the step.
        end: the state at its end, (B, n).
    """
    y, h = step.state[0], step.h.to(end.dtype)[:, None]
    method = stepper.method
    if isinstance(method, RungeKutta) and step.stages is not None:
        c = torch.tensor([float(x) for x in method.c], dtype=torch.float64)
        inner = c != 0
        if method.stage_order >= len(c) and len(c.unique()) == len(c) and len(c) > 1:
            powers = c[inner, None] ** torch.arange(1, int(inner.sum()) + 1)
            inverse = torch.linalg.inv(powers).to(end)
            return torch.einsum("ij,jbn->ibn", inverse, (step.stages - y)[inner.to(y.device)])
        weights, more = method.dense_tensor(end.dtype, end.device), method.continuation
        if weights is not None or more is not None:
            times = step.t + c.to(step.t)[:, None] * step.h
            slopes = h * field.values(times, step.stages)
        if more is not None:
            for node, row in zip(more.nodes, more.rows, strict=True):
                at = y + torch.einsum("s,sbn->bn", torch.from_numpy(row).to(end), slopes[: len(row)])
                slopes = torch.cat([slopes, (h * field.value(step.t + node * step.h, at))[None]])
            weights = torch.from_numpy(more.weights).to(end)
        if weights is not None:
            return torch.einsum("sp,sbn->pbn", weights, slopes)
    explicit = isinstance(method, Taylor) and not method.implicit
    if explicit or isinstance(method, Exponential):  # whose steps may be long: shorter ones are cheap
        degree = max(3, min(method.order, MOST)) if isinstance(method, Taylor) else MOST
        theta = (1 - torch.cos(torch.pi * torch.arange(1, degree + 1, dtype=torch.float64) / degree)) / 2
        shorter = [stepper.attempt(step.t, float(x) * step.h, step.state).state[0] - y for x in theta[:-1]]
        powers = theta[:, None] ** torch.arange(1, degree + 1)
        return torch.einsum("ij,jbn->ibn", torch.linalg.inv(powers).to(end), torch.stack([*shorter, end - y]))
    first = h * field.value(step.t, y)
    last = h * field.value(step.t + step.h, end)
    rise = end - y
    return torch.stack([first, 3 * rise - 2 * first - last, first + last - 2 * rise])


class Interpolant:
    """The solution between the steps.

    Args:
        field: the right-hand side.
        stepper: who made the steps.
        steps: the accepted steps.
        result: the trajectory.
    """

    def __init__(self, field: Field, stepper: Stepper, steps: list[Step], result: Trajectory) -> None:
        self.field, self.stepper, self.steps = field, stepper, steps
        self.t = torch.stack([step.t for step in steps]) if steps else torch.zeros(0)
        self.h = torch.stack([step.h for step in steps]) if steps else torch.zeros(0)
        self.last, self.first, self.end = result.state, result.states[0], result.t
        self._known: dict[int, Tensor] = {}

    def knots(self) -> Tensor:
        """Return starts of the steps and the end, (K + 1, B)."""
        return torch.cat([self.t, self.end[None]]) if self.steps else self.end[None]

    def _following(self, k: int) -> Tensor:
        return self.steps[k + 1].state[0] if k + 1 < len(self.steps) else self.last

    def _coefficients(self, k: int) -> Tensor:
        if k not in self._known:
            with torch.no_grad():
                self._known[k] = continuous(self.field, self.stepper, self.steps[k], self._following(k))
        return self._known[k]

    def __call__(self, times: Tensor) -> Tensor:
        """Return the states (Q, B, n) at the times (Q,); NaN where the solution did not get."""
        rows = self.last.shape[0]
        out = self.last.new_full((len(times), rows, self.last.shape[1]), torch.nan)
        for q, t in enumerate(times):
            if not self.steps:
                continue
            theta = torch.where(self.h != 0, (t - self.t) / self.h, torch.full_like(self.h, -1.0))
            inside = (theta >= -1e-12) & (theta <= 1 + 1e-12)
            for k in inside.int().argmax(0).unique().tolist():
                mine = inside[k] & (inside.int().argmax(0) == k)
                x = theta[k].clamp(0, 1).to(self.last.dtype)[:, None]
                value = self.steps[k].state[0].clone()
                if bool(((theta[k] <= 0) | (theta[k] >= 1 - KNOT) | ~mine).all()):  # states that are there
                    value = torch.where(x > 0.5, self._following(k), value)
                else:
                    for j, c in enumerate(self._coefficients(k)):
                        value = value + x ** (j + 1) * c
                out[q] = torch.where(mine[:, None], value, out[q])
        return out
