"""Exponential steps: φ-functions of hL from one matrix exponential of an augmented matrix.

Time is taken into the state (t' = 1), so that exponential Rosenbrock methods keep their order for
non-autonomous problems. φ_1 .. φ_p stand in the first block row of the exponential of
[[Z, I, 0], [0, 0, I], [0, 0, 0]] (Al-Mohy & Higham 2011, Theorem 2.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError, ShapeError
from ntangent.ode.controller import Control
from ntangent.ode.field import Field
from ntangent.ode.methods.base import Method
from ntangent.ode.methods.kinds import Exponential
from ntangent.ode.steppers.base import Attempt, Linearised, Step, Stepper, Steps, serves
from ntangent.ode.steppers.direct import DirectLinearised

Terms = tuple[tuple[int, Any], ...]


def phi_functions(z: Tensor, most: int) -> list[Tensor]:
    """Return φ_0(z) .. φ_most(z) of matrices (..., n, n). Cost: one exponential of size (most + 1)·n."""
    n = z.shape[-1]
    big = z.new_zeros((*z.shape[:-2], (most + 1) * n, (most + 1) * n))
    big[..., :n, :n] = z
    eye = torch.eye(n, dtype=z.dtype, device=z.device)
    for k in range(most):
        big[..., k * n : (k + 1) * n, (k + 1) * n : (k + 2) * n] = eye
    full = torch.linalg.matrix_exp(big)
    return [full[..., :n, k * n : (k + 1) * n] for k in range(most + 1)]


class ExponentialStepper(Stepper):
    """Steps of an explicit exponential Runge-Kutta method."""

    method: Exponential

    def __init__(self, method: Method, field: Field, control: Control, *, tight: bool) -> None:
        super().__init__(method, field, control, tight=tight)
        assert isinstance(method, Exponential)
        self.linear: Callable[[], Tensor] | None = None
        if not method.rosenbrock:
            given = getattr(field.func, "linear", None)
            if given is None:
                raise ArgumentError(
                    f"method {method.name!r} needs the linear part of func",
                    "it is exact for y' = Ly, and L is not known",
                    'func.linear = L  # or method="exponential_rosenbrock_euler"',
                )
            self.linear = given if callable(given) else lambda: given
        used = [k for row in (*method.b, *(method.b_error or ())) for k, _ in row]
        used += [k for stage in method.a for row in stage for k, _ in row]
        self.most = max(used)

    @property
    def error_order(self) -> int | None:
        """The power of h that the error estimate goes with."""
        return None if self.method.b_error is None else (self.method.embedded_order or 1) + 1

    def attempt(self, t: Tensor, h: Tensor, state: Tensor) -> Attempt:
        """Try a step."""
        y = state[0]
        new, error = self._formula(t, h, y, keep=False)
        self.factorisations += 1
        return Attempt(new[None], error, torch.isfinite(new).all(-1), y[None])

    def _matrix(self, t: Tensor, y: Tensor, keep: bool) -> Tensor:
        """Return L of the state with time as its last entry, (B, n + 1, n + 1)."""
        n = y.shape[-1]
        if self.linear is not None:
            matrix = self.linear()
            if matrix.shape[-2:] != (n, n):
                raise ShapeError(
                    f"func.linear has shape {tuple(matrix.shape)}, the state has {n} unknowns",
                    "",
                    f"func.linear = torch.zeros({n}, {n})",
                )
            matrix, slope = matrix.to(y).expand(len(y), n, n), torch.zeros_like(y)
        else:
            jac, slopes = self.field.partials(t[None], y[None], time=True, keep=keep)
            matrix, slope = jac[0], slopes[0]
            self.field.jacobians += 1
        top = torch.cat([matrix, slope[..., None]], dim=-1)
        return torch.cat([top, torch.zeros_like(top[:, :1])], dim=1)

    def _formula(self, t: Tensor, h: Tensor, y: Tensor, *, keep: bool) -> tuple[Tensor, Tensor | None]:
        """Return the new state and the error estimate."""
        method, step = self.method, h.to(y.dtype)[:, None]
        matrix = self._matrix(t, y, keep)
        # Time counts from the start of the step, so that its size does not meet that of y.
        start = torch.cat([y, torch.zeros_like(y[:, :1])], dim=-1)
        at = start
        rests: list[Tensor] = []
        for i, c in enumerate(method.c):
            if i:
                at = self._sum(float(c), matrix, step, start, method.a[i], rests)
            value = self.field.value(t + float(c) * h, at[:, :-1])
            full = torch.cat([value, torch.ones_like(value[:, :1])], dim=-1)
            rests.append(full - (matrix @ at[..., None])[..., 0])
        new = self._sum(1.0, matrix, step, start, method.b, rests)
        if method.b_error is None:
            return new[:, :-1], None
        return new[:, :-1], (new - self._sum(1.0, matrix, step, start, method.b_error, rests))[:, :-1]

    def _sum(
        self,
        c: float,
        matrix: Tensor,
        step: Tensor,
        y: Tensor,
        weights: tuple[Terms, ...],
        rests: list[Tensor],
    ) -> Tensor:
        """Return e^{cZ} y + h Σ_j w_j(cZ) N_j."""
        phi = phi_functions(c * step[..., None] * matrix, self.most)
        total = (phi[0] @ y[..., None])[..., 0]
        for terms, rest in zip(weights, rests, strict=False):
            for k, coefficient in terms:
                total = total + float(coefficient) * step * (phi[k] @ rest[..., None])[..., 0]
        return total

    def linearise(self, steps: Steps) -> Linearised:
        """Return the derivative of accepted steps."""
        return DirectLinearised(self, self._advance, steps)

    def _advance(self, step: Step) -> Tensor:
        return self._formula(step.t, step.h, step.state[0], keep=True)[0][None]


@serves(lambda method: isinstance(method, Exponential))
def _exponential(method: Method, field: Field, control: Control, tight: bool) -> Stepper:
    return ExponentialStepper(method, field, control, tight=tight)
