"""The derivative of steps by autograd through their formula, one step at a time; never through iterations.

What an iteration found enters as a constant to which one exact Newton correction is attached: its
value is zero, and its derivative is that of the implicit function theorem.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ntangent.ode.steppers.base import Step, Stepper, Steps

Advance = Callable[[Step], Tensor]


def attach(found: Tensor, residual: Tensor, jacobian: Tensor) -> Tensor:
    """Return the solution ``found`` of residual = 0 with its derivative on the tape.

    Args:
        found: a solution, (B, n), not on the tape.
        residual: the residual there, on the tape of everything it depends on but ``found``.
        jacobian: its derivative for ``found``, (B, n, n), not on the tape.
    """
    correction: Tensor = torch.linalg.solve(jacobian, residual[..., None])
    return found - correction[..., 0]


class DirectLinearised:
    """Derivative of K steps of a formula that autograd can follow: products, linear solves, calls of f.

    The formula is evaluated again with a tape, so memory is that of one step.

    Args:
        stepper: who made the steps.
        advance: step ↦ new state (w, B, n), on the tape of its state and the parameters.
        steps: the accepted steps.
    """

    def __init__(self, stepper: Stepper, advance: Advance, steps: Steps) -> None:
        self.stepper, self.field, self.advance, self.steps = stepper, stepper.field, advance, steps
        field = stepper.field
        self.total = [torch.zeros_like(p) for p in field.params]

    def _replay(self, k: int) -> tuple[Tensor, Tensor]:
        steps = self.steps
        state = steps.state[k].detach().requires_grad_()
        extra = None if steps.extra is None else steps.extra[k]
        hit = torch.full_like(steps.t[k], -1, dtype=torch.long)
        step = Step(self.stepper, steps.t[k], steps.h[k], state, steps.stages[k], extra, hit)
        return state, self.advance(step)

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
