"""Implicit-explicit Runge-Kutta steps: one part of func is solved for, the other evaluated.

Source: Kennedy & Carpenter, Appl. Numer. Math. 44 (2003) 139.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ntangent.ode.controller import Control
from ntangent.ode.field import Field
from ntangent.ode.methods.base import Method
from ntangent.ode.methods.kinds import AdditiveRungeKutta
from ntangent.ode.newton import Solved, most_iterations, simplified_newton, stage_tolerance
from ntangent.ode.steppers.base import Attempt, Linearised, Step, Stepper, Steps, serves
from ntangent.ode.steppers.direct import DirectLinearised, attach
from ntangent.ode.steppers.implicit import Matrices


class AdditiveStepper(Stepper):
    """Steps of a pair of an explicit and a singly diagonally implicit tableau."""

    method: AdditiveRungeKutta

    def __init__(self, method: Method, field: Field, control: Control, *, tight: bool) -> None:
        super().__init__(method, field, control, tight=tight)
        assert isinstance(method, AdditiveRungeKutta)
        dtype, device = field.packing.dtype, field.packing.device
        self.explicit, self.implicit = field.split()
        self.outer = method.explicit_part.tensors(dtype, device)[0].tolist()
        a, b, c, b_error = method.implicit_part.tensors(dtype, device)
        self.inner, self.b, self.c = a.tolist(), b.tolist(), c.tolist()
        self.e = None if b_error is None else (b - b_error).tolist()
        self.accuracy = stage_tolerance(control, dtype, tight=tight)
        self.most = most_iterations(control)
        self.gamma = self.inner[-1][-1]
        self.matrices = Matrices(self.implicit, torch.full((1,), self.gamma, dtype=dtype, device=device))
        self.rate = 0.0

    @property
    def error_order(self) -> int | None:
        """The power of h that the error estimate goes with."""
        return None if self.e is None else (self.method.embedded_order or self.method.order - 1) + 1

    def initial(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the state to start from; forgets the Jacobian."""
        self.matrices.forget()
        return super().initial(t, y)

    def accept(self, accepted: Tensor, t: Tensor, h: Tensor, attempt: Attempt) -> None:
        """Drop the Jacobian where the iteration was slow."""
        del t, h, attempt
        if bool(accepted.any()):
            self.matrices.age(self.rate)

    def attempt(self, t: Tensor, h: Tensor, state: Tensor) -> Attempt:
        """Try a step; a Jacobian that is not fresh is renewed when the iteration fails with it."""
        y = state[0]
        self.matrices.prepare(t, y, h)
        solved, slopes = self._stages(t, h, y)
        if not bool(solved.ok.all()) and not self.matrices.fresh:
            self.matrices.prepare(t, y, h, renew=True)
            solved, slopes = self._stages(t, h, y)
        self.rate = solved.rate
        self.newton_iterations += solved.iterations
        self.factorisations = self.matrices.factorisations
        new = y + _sum(self.b, slopes, y)
        error = None
        if self.e is not None and not self.control.fixed:
            error = self.matrices.solve(_sum(self.e, slopes, y)[None], slice(0, 1))[0]
        self.field.evaluations = self.explicit.evaluations + self.implicit.evaluations
        self.field.jacobians = self.implicit.jacobians
        ok = solved.ok & torch.isfinite(new).all(-1)
        return Attempt(new[None], error, ok, solved.value, effort=solved.iterations / self.most)

    def _stages(self, t: Tensor, h: Tensor, y: Tensor) -> tuple[Solved, list[Tensor]]:
        """Return the stages (s, B, n) and h times the sums of both slopes."""
        step, scale = h.to(y.dtype)[:, None], self.control.scale(y)
        stages: list[Tensor] = []
        outer: list[Tensor] = []
        inner: list[Tensor] = []
        ok = torch.ones_like(h, dtype=torch.bool)
        iterations, rate = 0, 0.0
        for i, c in enumerate(self.c):
            known = y + _sum(self.outer[i], outer, y) + _sum(self.inner[i], inner, y)
            at = t + c * h
            if self.inner[i][i] == 0:
                stages.append(known)
                inner.append(step * self.implicit.value(at, known))
            else:
                solved = self._solve(at, step, known, stages[-1], scale)
                stages.append(solved.value[0])
                inner.append((solved.value[0] - known) / self.gamma)
                ok, rate = ok & solved.ok, max(rate, solved.rate)
                iterations = max(iterations, solved.iterations)
            outer.append(step * self.explicit.value(at, stages[-1]))
        slopes = [a + b for a, b in zip(outer, inner, strict=True)]
        return Solved(torch.stack(stages), ok, iterations, rate), slopes

    def _solve(self, t: Tensor, step: Tensor, known: Tensor, start: Tensor, scale: Tensor) -> Solved:
        def correction(z: Tensor) -> Tensor:
            residual = known + self.gamma * step * self.implicit.value(t, z[0]) - z[0]
            return self.matrices.solve(residual[None], slice(0, 1))

        return simplified_newton(start[None], correction, scale, self.accuracy, self.most)

    def linearise(self, steps: Steps) -> Linearised:
        """Return the derivative of accepted steps."""
        return DirectLinearised(self, self._advance, steps)

    def _advance(self, given: Step) -> Tensor:
        y, step = given.state[0], given.h.to(given.state.dtype)[:, None]
        assert given.stages is not None
        eye = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
        times = given.t + torch.tensor(self.c, dtype=given.t.dtype, device=y.device)[:, None] * given.h
        jacobians = self.implicit.jacobian(times, given.stages)
        outer: list[Tensor] = []
        inner: list[Tensor] = []
        for i, at in enumerate(times):
            known = y + _sum(self.outer[i], outer, y) + _sum(self.inner[i], inner, y)
            if self.inner[i][i] == 0:
                stage = known
                inner.append(step * self.implicit.value(at, known))
            else:
                found = given.stages[i]
                residual = found - known - self.gamma * step * self.implicit.value(at, found)
                stage = attach(found, residual, eye - self.gamma * step[..., None] * jacobians[i])
                inner.append((stage - known) / self.gamma)
            outer.append(step * self.explicit.value(at, stage))
        slopes = [a + b for a, b in zip(outer, inner, strict=True)]
        return (y + _sum(self.b, slopes, y))[None]


def _sum(weights: list[float], slopes: list[Tensor], like: Tensor) -> Tensor:
    """Return Σ w_i k_i over the slopes there are."""
    total = torch.zeros_like(like)
    for w, k in zip(weights, slopes, strict=False):
        if w != 0:
            total = torch.add(total, k, alpha=w)
    return total


@serves(lambda method: isinstance(method, AdditiveRungeKutta))
def _additive(method: Method, field: Field, control: Control, tight: bool) -> Stepper:
    return AdditiveStepper(method, field, control, tight=tight)
