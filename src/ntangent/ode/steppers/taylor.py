"""Taylor steps of any order from jets of func: explicit, and implicit two-point ones (Padé).

y' = f(t, y) gives the coefficients one after the other: (k + 1) c_{k+1} is the coefficient of order k
of f along the series so far. The size of the last term is the error estimate of an explicit step
(Jorba & Zou 2005); implicit ones have none, and take the steps they are given.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ntangent.ode.controller import Control
from ntangent.ode.field import Field
from ntangent.ode.methods.base import Method
from ntangent.ode.methods.kinds import Taylor
from ntangent.ode.newton import most_iterations, simplified_newton, stage_tolerance
from ntangent.ode.steppers.base import Attempt, Linearised, Step, Stepper, Steps, serves
from ntangent.ode.steppers.direct import DirectLinearised, attach


class TaylorStepper(Stepper):
    """Steps from derivatives at the start, and for l > 0 also at the end of a step."""

    method: Taylor

    def __init__(self, method: Method, field: Field, control: Control, *, tight: bool) -> None:
        super().__init__(method, field, control, tight=tight)
        assert isinstance(method, Taylor)
        self.accuracy = stage_tolerance(control, field.packing.dtype, tight=tight)
        self.most = most_iterations(control)
        start, end = method.weights
        self.start = [math.factorial(j) * float(x) for j, x in enumerate(start)]
        self.end = [(-1) ** j * math.factorial(j) * float(x) for j, x in enumerate(end)]

    @property
    def error_order(self) -> int | None:
        """The power of h that the error estimate goes with."""
        return None if self.method.implicit else self.method.numerator

    def _terms(self, t: Tensor, h: Tensor, y: Tensor, weights: list[float]) -> list[Tensor]:
        """Return the terms w_j c_j h^j of the series of the solution through (t, y)."""
        step = h.to(y.dtype)[:, None]
        series = [y]
        for k in range(len(weights) - 1):
            series.append(self.field.series(t, series) / (k + 1))
        return [w * c * step**j for j, (w, c) in enumerate(zip(weights, series, strict=True))]

    def attempt(self, t: Tensor, h: Tensor, state: Tensor) -> Attempt:
        """Try a step."""
        y = state[0]
        terms = self._terms(t, h, y, self.start)
        new = torch.stack(terms).sum(0)
        if not self.method.implicit:
            return Attempt(new[None], terms[-1], torch.isfinite(new).all(-1), y[None])
        known = new

        def correction(z: Tensor) -> Tensor:
            residual, jacobian = self._end(t, h, z[0], known)
            change: Tensor = torch.linalg.solve(jacobian, residual[..., None])
            return -change[None, ..., 0]

        guess = y if len(terms) < 2 else y + h.to(y.dtype)[:, None] * self.field.value(t, y)
        solved = simplified_newton(guess[None], correction, self.control.scale(y), self.accuracy, self.most)
        if not bool(solved.ok.all()):
            solved = simplified_newton(y[None], correction, self.control.scale(y), self.accuracy, self.most)
        self.newton_iterations += solved.iterations
        self.factorisations += solved.iterations
        return Attempt(solved.value, None, solved.ok, solved.value, effort=solved.iterations / self.most)

    def _end(self, t: Tensor, h: Tensor, new: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residual at the end of the step and its derivative there, without a tape."""
        with torch.enable_grad():
            new = new.detach().requires_grad_()
            value = torch.stack(self._terms(t + h, h, new, self.end)).sum(0)
            n = new.shape[-1]
            seeds = torch.eye(n, dtype=new.dtype, device=new.device)[:, None].expand(n, *new.shape)
            jacobian = self.field.cotangents(value, [new], seeds, keep=False)[0].transpose(0, 1)
        return value.detach() - known.detach(), jacobian

    def linearise(self, steps: Steps) -> Linearised:
        """Return the derivative of accepted steps."""
        return DirectLinearised(self, self._advance, steps)

    def _advance(self, step: Step) -> Tensor:
        known = torch.stack(self._terms(step.t, step.h, step.state[0], self.start)).sum(0)
        if not self.method.implicit:
            return known[None]
        assert step.stages is not None
        found = step.stages[0]
        jacobian = self._end(step.t, step.h, found, known)[1]
        value = torch.stack(self._terms(step.t + step.h, step.h, found, self.end)).sum(0)
        return attach(found, value - known, jacobian)[None]


@serves(lambda method: isinstance(method, Taylor))
def _taylor(method: Method, field: Field, control: Control, tight: bool) -> Stepper:
    return TaylorStepper(method, field, control, tight=tight)
