"""Explicit Runge-Kutta steps, and what all Runge-Kutta steppers share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ntangent.ode.controller import Control
from ntangent.ode.field import Field
from ntangent.ode.methods.base import Method, RungeKutta
from ntangent.ode.steppers.base import Attempt, Linearised, Step, Stepper, Steps, serves
from ntangent.ode.steppers.direct import DirectLinearised
from ntangent.ode.steppers.linear import Tableau, increments_weights, linearise

# Up to this many unknowns the Jacobians of all explicit stages, in one call, are cheaper than
# one transposed product for each stage after the other.
FEW_UNKNOWNS = 32


@dataclass
class ErrorWeights:
    """The estimate h e₀ f(t, y) + h Σ e_i k_i, which behaves as h^order.

    Args:
        e: weights of the stages.
        e0: weight of f(t, y).
        order: power of h.
    """

    e: Tensor
    e0: float
    order: int


def error_weights(method: RungeKutta, dtype: torch.dtype, device: torch.device) -> ErrorWeights | None:
    """Return the embedded estimate, made from quadrature on the nodes where the method brings none.

    An implicit method without embedded weights and with nodes different from 0 gets f(t, y) as one
    more node (as Radau IIA in Hairer & Wanner II, IV.8); else the highest divided difference of the
    slopes is taken. Explicit methods without embedded weights have no estimate.
    """
    _, b, _, b_error = method.tensors(dtype, device)
    if b_error is not None:
        order = (method.embedded_order or method.order - 1) + 1
        return ErrorWeights(b - b_error, -float(method.b_error_initial), order)
    c = np.array([float(x) for x in method.c])
    if not method.implicit or len(set(c.tolist())) != len(c):
        return None
    powers = np.vander(c, increasing=True).T
    s = len(c)
    if np.all(c != 0):
        e0 = 0.5 * max(float(method.A[-1][-1]), 1.0 / (s + 1))
        rhs = np.zeros(s)
        rhs[0] = -e0
        e = np.linalg.solve(powers, rhs)
        order = min(s, method.stage_order + 1) + 1
    else:
        e0 = 0.0
        e = np.linalg.solve(powers, np.eye(s)[-1])
        e = e / np.abs(e).max() * float(b.abs().max())
        order = s
    return ErrorWeights(torch.tensor(e, dtype=dtype, device=device), e0, order)


class RungeKuttaStepper(Stepper):
    """Base of the Runge-Kutta steppers: the tableau as tensors, the error weights, the derivative."""

    method: RungeKutta

    def __init__(self, method: Method, field: Field, control: Control, *, tight: bool) -> None:
        super().__init__(method, field, control, tight=tight)
        assert isinstance(method, RungeKutta)
        packing = field.packing
        a, b, c, _ = method.tensors(packing.dtype, packing.device)
        d = None if method.structure == "explicit" else increments_weights(a, b, method.stiffly_accurate)
        self.tableau = Tableau(a, b, c, d, method.structure != "full")
        self.weights = error_weights(method, packing.dtype, packing.device)
        self.rows = a.tolist()

    @property
    def error_order(self) -> int | None:
        """The power of h that the error estimate goes with."""
        return None if self.weights is None else self.weights.order

    def stage_times(self, t: Tensor, h: Tensor) -> Tensor:
        """Return t + c h, (s, B)."""
        return t + self.tableau.c.to(t.dtype)[:, None] * h

    def linearise(self, steps: Steps) -> Linearised:
        """Return the derivative of accepted steps by the implicit function theorem."""
        return linearise(self.field, self.tableau, steps)


class ExplicitStepper(RungeKuttaStepper):
    """Explicit Runge-Kutta steps; the last slope of a first-same-as-last method is used again."""

    def __init__(self, method: Method, field: Field, control: Control, *, tight: bool) -> None:
        super().__init__(method, field, control, tight=tight)
        self.first: Tensor | None = None

    def initial(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the state to start from."""
        self.first = None
        return super().initial(t, y)

    def attempt(self, t: Tensor, h: Tensor, state: Tensor) -> Attempt:
        """Try a step."""
        y, step = state[0], h.to(state.dtype)[:, None]
        times = self.stage_times(t, h)
        if self.first is None:
            self.first = self.field.value(t, y)
        slopes, stages = [self.first], [y]
        for i in range(1, len(self.rows)):
            stages.append(y + step * _combine(self.rows[i], slopes))
            slopes.append(self.field.value(times[i], stages[-1]))
        new = y + step * _combine(self.tableau.b.tolist(), slopes)
        error = None
        if self.weights is not None:
            error = step * _combine(self.weights.e.tolist(), slopes)
        ok = torch.isfinite(new).all(-1)
        return Attempt(new[None], error, ok, torch.stack(stages), slopes[-1])

    def accept(self, accepted: Tensor, t: Tensor, h: Tensor, attempt: Attempt) -> None:
        """Keep the last slope where it is the next first one."""
        del t, h
        last, attempt.extra = attempt.extra, None
        if not self.method.first_same_as_last or last is None:
            if bool(accepted.any()):
                self.first = None
        elif self.first is not None:
            self.first = torch.where(accepted[:, None], last, self.first)

    def linearise(self, steps: Steps) -> Linearised:
        """Return the derivative: by Jacobians for few unknowns, else by transposed products."""
        if steps.state.shape[-1] <= FEW_UNKNOWNS:
            return super().linearise(steps)
        return DirectLinearised(self, self._advance, steps)

    def _advance(self, given: Step) -> Tensor:
        y, step = given.state[0], given.h.to(given.state.dtype)[:, None]
        times = self.stage_times(given.t, given.h)
        slopes = [self.field.value(given.t, y)]
        for i in range(1, len(self.rows)):
            slopes.append(self.field.value(times[i], y + step * _combine(self.rows[i], slopes)))
        return (y + step * _combine(self.tableau.b.tolist(), slopes))[None]


def _combine(weights: list[float], slopes: list[Tensor]) -> Tensor:
    """Return Σ w_i k_i over the slopes there are, leaving out zeros."""
    total: Tensor | None = None
    for w, k in zip(weights, slopes, strict=False):
        if w != 0:
            total = w * k if total is None else torch.add(total, k, alpha=w)
    return torch.zeros_like(slopes[0]) if total is None else total


@serves(lambda method: isinstance(method, RungeKutta) and method.structure == "explicit")
def _explicit(method: Method, field: Field, control: Control, tight: bool) -> Stepper:
    return ExplicitStepper(method, field, control, tight=tight)
