"""The exact adjoint of the discrete solution: one autograd function around the whole solve.

The forward pass has no tape. It leaves the accepted steps; the backward pass walks them back, and
the derivative of a step comes from the implicit function theorem at its stages, never from the
iterations that found them. Step sizes are constants: they are not differentiated (differentiating
the controller gives inconsistent adjoints, Alexe & Sandu 2009).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError
from ntangent.ode.field import Field
from ntangent.ode.sensitivity.tape import Tape, restore

Solve = Callable[[], Tensor]


class DiscreteAdjoint(torch.autograd.Function):
    """States at the output times, with the adjoint of the steps that led to them."""

    @staticmethod
    def forward(
        ctx: Any, field: Field, tape: Tape, solve: Solve, t: Tensor, y0: Tensor, *params: Tensor
    ) -> Tensor:
        """Run ``solve``, which fills the tape, and return the states (T, B, n)."""
        states = solve()
        ctx.field, ctx.tape = field, tape
        # Saved for the check that nobody changes them before the way back, which evaluates func again.
        ctx.save_for_backward(t, states, y0, *params)
        return states

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Walk the steps back."""
        field: Field = ctx.field
        t, states, *inputs = ctx.saved_tensors
        grad = grads[0].detach()
        with torch.no_grad():
            cotangent, totals = walk_back(field, ctx.tape, grad)
            dt = time_gradient(field, t, states, grad, cotangent) if ctx.needs_input_grad[3] else None
            found = [dt, cotangent + grad[0], *totals]
        if torch.is_grad_enabled():  # create_graph=True
            once: Any = FirstOrder.apply
            found = [g if g is None else once(g, t, *inputs) for g in found]
        return None, None, None, *found


class FirstOrder(torch.autograd.Function):
    """The identity, which refuses to be differentiated."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *inputs: Tensor) -> Tensor:
        """Return the value, on the tape of the inputs of the solve."""
        del ctx, inputs
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Refuse."""
        del ctx, grads
        raise ArgumentError(
            "second derivatives of odeint are not available",
            "the adjoint of the discrete solution is not on a tape itself",
            "y, slopes = ode.sensitivity(func, y0, t)  # J for Gauss-Newton instead of a Hessian",
        )


def walk_back(field: Field, tape: Tape, grad: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the cotangent of y0 that comes through the steps, and the gradients of the parameters.

    Args:
        field: the right-hand side.
        tape: the accepted steps.
        grad: cotangents of the states at the output times, (T, B, n).
    """
    totals = [torch.zeros_like(p) for p in field.params]
    carried: Tensor | None = None
    rows = torch.arange(grad.shape[1], device=grad.device)
    for chunk in reversed(tape.chunks()):
        if carried is None:
            carried = grad.new_zeros((len(chunk[0].state), *grad.shape[1:]))
        linear = chunk[0].stepper.linearise(restore(chunk))
        hits = torch.stack([step.hit for step in chunk])
        arrived = torch.where((hits >= 0)[..., None], grad[hits.clamp_min(0), rows], grad.new_zeros(()))
        reached = (hits >= 0).any(1).tolist()
        for k in reversed(range(len(chunk))):
            if reached[k]:
                carried = torch.cat([carried[:1] + arrived[k], carried[1:]])
            carried = linear.pull(k, carried)
        for total, part in zip(totals, linear.gradients(), strict=True):
            total += part
    if carried is None:
        return torch.zeros_like(grad[0]), totals
    return carried.sum(0), totals


def time_gradient(field: Field, t: Tensor, states: Tensor, grad: Tensor, start: Tensor) -> Tensor:
    """Return the gradient for the output times: f · cotangent at each; for the first, of the shift.

    This is the derivative of the exact solution at the computed states. Moving the initial time with
    y0 held moves the whole solution by -f(t0, y0).
    """
    rows = states.shape[1]
    with torch.no_grad():
        slopes = field.many(t.double()[:, None].expand(-1, rows), states)
    dt = (slopes * grad).sum((1, 2))
    dt[0] = -(slopes[0] * start).sum()
    return dt.to(t.dtype)
