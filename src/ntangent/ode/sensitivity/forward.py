"""Forward sensitivities: the exact tangent of the discrete solution."""

from __future__ import annotations

import torch
from torch import Tensor

from ntangent.ode.field import Field
from ntangent.ode.sensitivity.tape import Tape, restore


def walk_forward(field: Field, tape: Tape, y0: Tensor, outputs: int, *, initial: bool) -> Tensor:
    """Return d(states)/d(parameters, then y0 if asked), shape (T, B, n, P).

    Args:
        field: the right-hand side.
        tape: the accepted steps.
        y0: initial rows, (B, n).
        outputs: T.
        initial: whether the columns of y0 (n for each row) follow those of the parameters.
    """
    count = sum(p.numel() for p in field.params)
    batch, n = y0.shape
    tangent = y0.new_zeros((batch, n, count))
    if initial:
        eye = torch.eye(n, dtype=y0.dtype, device=y0.device).expand(batch, n, n)
        tangent = torch.cat([tangent, eye], dim=-1)
    out = y0.new_zeros((outputs, *tangent.shape))
    out[0] = tangent
    rows = torch.arange(batch, device=y0.device)
    carried = tangent[None]
    for chunk in tape.chunks():
        if len(carried) < len(chunk[0].state):  # a multistep method starts from copies of y0
            carried = carried[:1].expand(len(chunk[0].state), *carried.shape[1:])
        linear = chunk[0].stepper.linearise(restore(chunk))
        for k, step in enumerate(chunk):
            carried = linear.push(k, carried)
            reached = step.hit >= 0
            if bool(reached.any()):
                out[step.hit[reached], rows[reached]] = carried[0, reached]
    return out
