"""Backward differentiation formulas on unequal steps, k fixed.

Σ_j α_j y_{n+1-j} = h f(t_{n+1}, y_{n+1}), where α_j is h times the derivative at t_{n+1} of the
Lagrange polynomials on the last points, so that the accepted mesh alone determines the solution and
its adjoint is exact. With adaptive steps a row starts at order 1 and rises; with given steps the
first ones are Radau IIA steps, which keeps the order.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ntangent.ode.controller import Control
from ntangent.ode.field import Field
from ntangent.ode.methods.base import Method
from ntangent.ode.methods.catalogue import get
from ntangent.ode.methods.kinds import Multistep
from ntangent.ode.newton import most_iterations, simplified_newton, stage_tolerance
from ntangent.ode.steppers.base import Attempt, Linearised, Stepper, Steps, serves
from ntangent.ode.steppers.implicit import GOOD_CONTRACTION, FullStepper, Matrices
from ntangent.ode.steppers.linear import MatrixLinearised, linearise


def coefficients(nodes: Tensor, order: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return α (k + 1, B) of each row's order, and the weights (k + 1, B) of the predictor.

    Args:
        nodes: (τ_j - τ_0) / h for j = 1 .. k + 1, (k + 1, B); those past the row's order may be anything.
        order: q of each row, (B,).
        points: how many points the predictor goes through, (B,).
    """
    count = len(nodes)
    index = torch.arange(1, count + 1, device=nodes.device)[:, None]
    apart = nodes[:, None] - nodes[None]  # x_j - x_i
    apart = torch.where(apart == 0, torch.ones_like(apart), apart)

    def weights(most: Tensor) -> Tensor:
        """Values at 0 of the Lagrange polynomials on nodes 1 .. most."""
        inside = index <= most
        pair = inside[None, :] & ~torch.eye(count, dtype=torch.bool, device=nodes.device)[:, :, None]
        ratio = torch.where(pair, -nodes[None] / apart, torch.ones_like(apart))
        return torch.where(inside, ratio.prod(dim=1), torch.zeros_like(nodes))

    inside = index <= order
    # d/dx at 0 of the polynomial on 0 and nodes j: of ℓ_j it is the value at 0 without node 0, over x_j.
    later = torch.where(inside, weights(order) / nodes, torch.zeros_like(nodes))
    head = -later.sum(0)
    return torch.cat([head[None], later[:-1]]), weights(points)


class EndEquation:
    """y₁ = known + h f(t, y₁), solved by simplified Newton iteration with a Jacobian that is kept.

    Args:
        field: the right-hand side.
        control: tolerances.
        tight: whether derivatives will be taken.
    """

    def __init__(self, field: Field, control: Control, *, tight: bool) -> None:
        self.field, self.control = field, control
        self.accuracy = stage_tolerance(control, field.packing.dtype, tight=tight)
        self.most = most_iterations(control)
        one = torch.ones(1, dtype=field.packing.dtype, device=field.packing.device)
        self.matrices = Matrices(field, one)
        self.rate, self.iterations = 0.0, 0

    @property
    def factorisations(self) -> int:
        """How many matrices were factorised."""
        return self.matrices.factorisations

    def forget(self) -> None:
        """Drop the Jacobian."""
        self.matrices.forget()

    def age(self) -> None:
        """Count the Jacobian as old after a step; drop it where the iteration was slow."""
        if self.rate > GOOD_CONTRACTION:
            self.matrices.forget()
        self.matrices.fresh = False

    def solve(
        self, t: Tensor, h: Tensor, known: Tensor, guess: Tensor, y: Tensor, *, functional: int = 0
    ) -> tuple[Tensor, Tensor, float]:
        """Return which rows were solved, y₁ and the effort.

        Args:
            t: times at the end of the step, (B,).
            h: factor of f, (B,).
            known: the rest of the right-hand side, (B, n).
            guess: where the iteration starts, (B, n).
            y: the state at the start of the step, for the scale.
            functional: fixed-point iterations, which need no Jacobian, before Newton's take over.
        """
        step = h.to(y.dtype)[:, None]
        scale = self.control.scale(y)

        def residual(z: Tensor) -> Tensor:
            return known[None] + step * self.field.value(t, z[0])[None] - z

        def correction(z: Tensor) -> Tensor:
            return self.matrices.solve(residual(z), slice(0, 1))

        at = torch.where(torch.isfinite(guess), guess, y)
        if functional:
            solved = simplified_newton(at[None], residual, scale, self.accuracy, functional)
            self.iterations += solved.iterations
            if bool(solved.ok.all()):
                return solved.ok, solved.value[0], solved.iterations / functional
        self.matrices.prepare(t, at, h)
        solved = simplified_newton(at[None], correction, scale, self.accuracy, self.most)
        if not bool(solved.ok.all()) and not self.matrices.fresh:
            self.matrices.prepare(t, at, h, renew=True)
            solved = simplified_newton(at[None], correction, scale, self.accuracy, self.most)
        self.rate = solved.rate
        self.iterations += solved.iterations
        return solved.ok, solved.value[0], solved.iterations / self.most


class MultistepStepper(Stepper):
    """Steps of BDF-k; the state holds the last k + 1 points, newest first."""

    growth: ClassVar[float] = 2.0
    recomputable: ClassVar[bool] = False

    def __init__(self, method: Method, field: Field, control: Control, *, tight: bool) -> None:
        super().__init__(method, field, control, tight=tight)
        self.k = method.order
        self.equation = EndEquation(field, control, tight=tight)
        self.starter = FullStepper(get("radau_iia3"), field, control, tight=tight) if control.fixed else None
        self.times = torch.zeros(0)
        self.count = torch.zeros(0)

    @property
    def error_order(self) -> int | None:
        """The power of h that the error estimate goes with."""
        return self.k + 1

    def initial(self, t: Tensor, y: Tensor) -> Tensor:
        """Return copies of the start; only the first counts as a point."""
        self.equation.forget()
        if self.starter is not None:
            self.starter.initial(t, y)
        self.times = t.expand(self.k + 1, -1).clone()
        self.count = torch.zeros_like(t, dtype=torch.long)
        return y.expand(self.k + 1, *y.shape)

    def accept(self, accepted: Tensor, t: Tensor, h: Tensor, attempt: Attempt) -> None:
        """Take the new points into the mesh."""
        del attempt
        shifted = torch.cat([(t + h)[None], self.times[:-1]])
        self.times = torch.where(accepted, shifted, self.times)
        self.count = self.count + accepted
        if bool(accepted.any()):
            self.equation.age()

    def attempt(self, t: Tensor, h: Tensor, state: Tensor) -> Attempt:
        """Try a step."""
        if self.starter is not None and int(self.count.max()) < self.k - 1:
            return self._start(t, h, state)
        y = state[0]
        order = self.count.clamp(1, self.k)
        if self.starter is not None:
            order = torch.full_like(order, self.k)
        size = torch.where(h != 0, h, torch.ones_like(h))
        alpha, predictor = coefficients(
            (self.times - (t + h)) / size, order, torch.minimum(order, self.count) + 1
        )
        resting = alpha.new_zeros(len(alpha))
        resting[:2] = torch.tensor([1.0, -1.0])
        alpha = torch.where(h != 0, alpha, resting[:, None]).to(y.dtype)
        known = -torch.einsum("jb,jbn->bn", alpha[1:] / alpha[0], state[: self.k])
        reduced = h / alpha[0].to(h.dtype)
        guess = torch.einsum("jb,jbn->bn", predictor.to(y.dtype), state)
        first = (self.count == 0)[:, None]
        if bool(first.any()):
            guess = torch.where(first, y + h.to(y.dtype)[:, None] * self.field.value(t, y), guess)
        ok, value, effort = self.equation.solve(t + h, reduced, known, guess, y)
        self.newton_iterations, self.factorisations = self.equation.iterations, self.equation.factorisations
        last = torch.gather(self.times, 0, (order.clamp(max=self.k))[None])[0]
        reach = torch.where(self.count == 0, 2 * size, t + h - last)
        scale = (size / reach / alpha[0].to(h.dtype)).to(y.dtype)
        error = None if self.control.fixed else (value - guess) * scale[:, None]
        new = torch.cat([value[None], state[:-1]])
        stages = value[None]
        if self.starter is not None and self.k > 1:
            stages = value.expand(3, *value.shape)
        return Attempt(new, error, ok & torch.isfinite(value).all(-1), stages, alpha, effort, order + 1)

    def _start(self, t: Tensor, h: Tensor, state: Tensor) -> Attempt:
        assert self.starter is not None
        attempt = self.starter.attempt(t, h, state[:1])
        self.starter.accept(attempt.ok, t, h, attempt)
        attempt.state = torch.cat([attempt.state, state[:-1]])
        attempt.extra = state.new_zeros((self.k + 1, state.shape[1]))
        return attempt

    def linearise(self, steps: Steps) -> Linearised:
        """Return the derivative of accepted steps."""
        return MultistepLinearised(self, steps)


class MultistepLinearised:
    """Derivative of K steps, starting ones among them.

    Args:
        stepper: who made the steps.
        steps: the accepted steps.
    """

    def __init__(self, stepper: MultistepStepper, steps: Steps) -> None:
        assert steps.extra is not None
        field, alpha = stepper.field, steps.extra
        self.alpha, self.moved = alpha, (steps.h != 0)[..., None]
        h = steps.h.to(alpha.dtype)[..., None, None]
        self.starts = int((alpha[:, 0] == 0).all(-1).sum())
        self.first: MatrixLinearised | None = None
        if self.starts and stepper.starter is not None:
            early = slice(0, self.starts)
            part = Steps(steps.t[early], steps.h[early], steps.state[early], steps.stages[early], None)
            self.first = linearise(field, stepper.starter.tableau, part)
        rest = slice(self.starts, None)
        times, found = (steps.t + steps.h)[rest], steps.stages[rest, 0]
        n = found.shape[-1]
        inverse = found.new_zeros((0, *found.shape[1:], n))
        if len(found):
            jac = field.jacobian(times, found)
            matrix = alpha[rest, 0][..., None, None] * torch.eye(n, dtype=jac.dtype, device=jac.device)
            inverse = torch.linalg.inv(matrix - h[rest] * jac.mT)
        weights = (h[rest] * inverse)[:, None]
        self.rest = MatrixLinearised(field, times[:, None], found[:, None], inverse, weights)

    def pull(self, k: int, cotangent: Tensor) -> Tensor:
        """Return the cotangent of the history at the start of step k."""
        past = torch.cat([cotangent[1:], torch.zeros_like(cotangent[:1])])
        if self.first is not None and k < self.starts:
            start = torch.cat([past[:1] + self.first.pull(k, cotangent[:1]), past[1:]])
        else:
            w = self.rest.pull(k - self.starts, cotangent[:1])
            start = past - torch.nn.functional.pad(self.alpha[k, 1:, :, None] * w, (0, 0, 0, 0, 0, 1))
        return torch.where(self.moved[k], start, cotangent)

    def gradients(self) -> list[Tensor]:
        """Return the gradients for the parameters."""
        parts = [part.gradients() for part in (self.first, self.rest) if part is not None and part.seen]
        return [torch.stack(column).sum(0) for column in zip(*parts, strict=True)]

    def push(self, k: int, tangent: Tensor) -> Tensor:
        """Return the tangent of the history at the end of step k."""
        if self.first is not None and k < self.starts:
            new = self.first.push(k, tangent[:1])
        else:
            known = -(self.alpha[k, 1:, :, None, None] * tangent[:-1]).sum(0)
            new = self.rest.push(k - self.starts, known[None])
        return torch.where(self.moved[k][..., None], torch.cat([new, tangent[:-1]]), tangent)


@serves(lambda method: isinstance(method, Multistep))
def _multistep(method: Method, field: Field, control: Control, tight: bool) -> Stepper:
    return MultistepStepper(method, field, control, tight=tight)
