"""Rosenbrock steps: one factorisation, one linear solve for each stage, no iteration.

In the variables of the codes (Hairer & Wanner II, (IV.7.25)): u = Γ k, a = αΓ⁻¹, C = diag(1/γ) - Γ⁻¹,
m = bΓ⁻¹, which spares the products with J. The Jacobian is part of the method, so the derivative of a
step contains second derivatives of f; autograd takes them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ntangent.ode.controller import Control
from ntangent.ode.field import Field
from ntangent.ode.methods.base import Method
from ntangent.ode.methods.kinds import Rosenbrock
from ntangent.ode.steppers.base import Attempt, Linearised, Step, Stepper, Steps, serves
from ntangent.ode.steppers.direct import DirectLinearised


class RosenbrockStepper(Stepper):
    """Steps of a Rosenbrock method with ∂f/∂y and ∂f/∂t by automatic differentiation."""

    method: Rosenbrock

    def __init__(self, method: Method, field: Field, control: Control, *, tight: bool) -> None:
        super().__init__(method, field, control, tight=tight)
        assert isinstance(method, Rosenbrock)
        gamma = np.array([[float(x) for x in row] for row in method.gamma])
        alpha = np.array([[float(x) for x in row] for row in method.alpha])
        inverse = np.linalg.inv(gamma)
        self.gamma = float(method.diagonal)
        self.a = (alpha @ inverse).tolist()
        self.c = (np.eye(len(gamma)) / self.gamma - inverse).tolist()
        self.m = (np.array([float(x) for x in method.b]) @ inverse).tolist()
        self.e: list[float] | None = None
        if method.b_error is not None:
            difference = [float(x) - float(y) for x, y in zip(method.b, method.b_error, strict=True)]
            self.e = (np.array(difference) @ inverse).tolist()
        self.nodes = [float(x) for x in method.alpha_sums]
        self.slopes = [float(x) for x in method.gamma_sums]
        self.known: tuple[Tensor, Tensor] | None = None

    @property
    def error_order(self) -> int | None:
        """The power of h that the error estimate goes with."""
        return None if self.e is None else (self.method.embedded_order or self.method.order - 1) + 1

    def initial(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the state to start from."""
        self.known = None
        return super().initial(t, y)

    def accept(self, accepted: Tensor, t: Tensor, h: Tensor, attempt: Attempt) -> None:
        """Forget the Jacobian of the last point."""
        del t, h, attempt
        if bool(accepted.any()):
            self.known = None

    def attempt(self, t: Tensor, h: Tensor, state: Tensor) -> Attempt:
        """Try a step."""
        y = state[0]
        if self.known is None:
            jac, slope = self.field.partials(t[None], y[None], time=True)
            self.known = jac[0], slope[0]
            self.field.jacobians += 1
        new, error = self._formula(t, h, y, *self.known)
        self.factorisations += 1
        ok = torch.isfinite(new).all(-1)
        return Attempt(new[None], error, ok, y[None])

    def _formula(
        self, t: Tensor, h: Tensor, y: Tensor, jac: Tensor, slope: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        step, gamma = h.to(y.dtype)[:, None], self.gamma
        eye = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
        lu, pivots, _ = torch.linalg.lu_factor_ex(eye - gamma * step[..., None] * jac)
        u: list[Tensor] = []
        for i, node in enumerate(self.nodes):
            at = y + sum((w * v for w, v in zip(self.a[i], u, strict=False) if w), torch.zeros_like(y))
            right = step * self.field.value(t + node * h, at) + step**2 * self.slopes[i] * slope
            right = right + sum((w * v for w, v in zip(self.c[i], u, strict=False) if w), torch.zeros_like(y))
            u.append(torch.linalg.lu_solve(lu, pivots, gamma * right[..., None])[..., 0])
        new = y + sum((w * v for w, v in zip(self.m, u, strict=True) if w), torch.zeros_like(y))
        if self.e is None:
            return new, None
        return new, sum((w * v for w, v in zip(self.e, u, strict=True) if w), torch.zeros_like(y))

    def linearise(self, steps: Steps) -> Linearised:
        """Return the derivative of accepted steps."""
        return DirectLinearised(self, self._advance, steps)

    def _advance(self, step: Step) -> Tensor:
        y = step.state[0]
        jac, slope = self.field.partials(step.t[None], y[None], time=True, keep=True)
        return self._formula(step.t, step.h, y, jac[0], slope[0])[0][None]


@serves(lambda method: isinstance(method, Rosenbrock))
def _rosenbrock(method: Method, field: Field, control: Control, tight: bool) -> Stepper:
    return RosenbrockStepper(method, field, control, tight=tight)
