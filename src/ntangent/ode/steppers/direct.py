"""The derivative of steps that solve no nonlinear equations: autograd through one step at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ntangent.ode.field import Field
from ntangent.ode.steppers.base import Steps

Advance = Callable[[Tensor, Tensor, Tensor], Tensor]


class DirectLinearised:
    """Derivative of K steps of a formula that autograd can follow: products, linear solves, calls of f.

    The formula is evaluated again with a tape, one step at a time, so memory is that of one step.

    Args:
        field: the right-hand side.
        advance: (t, h, state) ↦ new state (w, B, n), on the tape of the state and the parameters.
        steps: the accepted steps.
    """

    def __init__(self, field: Field, advance: Advance, steps: Steps) -> None:
        self.field, self.advance, self.steps = field, advance, steps
        self.total = [torch.zeros_like(p) for p in field.params]

    def _replay(self, k: int) -> tuple[Tensor, Tensor]:
        steps = self.steps
        state = steps.state[k].detach().requires_grad_()
        return state, self.advance(steps.t[k], steps.h[k], state)

    def pull(self, k: int, cotangent: Tensor) -> Tensor:
        """Return the cotangent at the start of step k."""
        with torch.enable_grad():
            state, new = self._replay(k)
            grads = torch.autograd.grad(
                new, [state, *self.field.params], cotangent, retain_graph=True, allow_unused=True
            )
        for total, grad in zip(self.total, grads[1:], strict=True):
            if grad is not None:
                total += grad
        assert grads[0] is not None
        return grads[0]

    def gradients(self) -> list[Tensor]:
        """Return the gradients for the parameters."""
        return self.total

    def push(self, k: int, tangent: Tensor) -> Tensor:
        """Return the tangent at the end of step k. Cost: one transposed product for each unknown."""
        with torch.enable_grad():
            state, new = self._replay(k)
            count = new.numel()
            rows = []
            for seed in torch.eye(count, dtype=new.dtype, device=new.device).reshape(count, *new.shape):
                grads = torch.autograd.grad(
                    new, [state, *self.field.params], seed, retain_graph=True, allow_unused=True
                )
                rows.append(
                    [
                        torch.zeros_like(p) if g is None else g
                        for p, g in zip([state, *self.field.params], grads, strict=True)
                    ]
                )
        jac = torch.stack([row[0] for row in rows])
        out = torch.einsum("ivbm,vbmp->ip", jac, tangent)
        if self.field.params:
            source = torch.stack([torch.cat([g.flatten() for g in row[1:]]) for row in rows])
            out = out + torch.nn.functional.pad(source, (0, out.shape[-1] - source.shape[-1]))
        return out.reshape(*new.shape, -1)
