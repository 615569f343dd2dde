"""Measurements on the accepted steps of a solve: growth of the step Jacobians, rest of Newton."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent.ode.field import Field
from ntangent.ode.methods.base import Method, RungeKutta
from ntangent.ode.sensitivity.tape import Tape, restore
from ntangent.ode.steppers.base import Step, Steps
from ntangent.ode.trust.decay import sort_modes

# Points at which modes are looked at; more steps are thinned out evenly.
MOST_POINTS = 400


@dataclass(frozen=True)
class Growth:
    """How perturbations grow along the steps, in decades (powers of ten).

    Args:
        decades: the largest growth of a perturbation between two steps, by the scheme.
        own: what the growing modes of the equation explain over the same steps.
        start: time where that growth begins.
        end: time where it ends.
    """

    decades: float
    own: float
    start: float
    end: float

    @property
    def spurious(self) -> float:
        """Decades that the equation does not explain."""
        return self.decades - self.own


def clock(tape: Tape, row: int = 0) -> tuple[Tensor, Tensor]:
    """Return starts and sizes of the accepted steps of a row, (K,)."""
    t = torch.tensor([float(step.t[row]) for step in tape.steps], dtype=torch.float64)
    h = torch.tensor([float(step.h[row]) for step in tape.steps], dtype=torch.float64)
    return t, h


def growth(field: Field, tape: Tape, scale: Tensor) -> Growth:
    """Return the largest growth of a perturbation along the steps.

    The product of the step Jacobians, orthonormalised after every step (Benettin et al. 1980), in
    units of ``scale``; what is compared with it is the integral of the largest Re λ > 0.

    Args:
        field: the right-hand side, with no parameters.
        tape: accepted steps of one row.
        scale: typical sizes of the unknowns, (n,).
    """
    logs = _logs(tape, scale)
    own = own_growth(field, tape)
    low, best, begin, span = 0.0, 0.0, 0, (0, 0)
    total = 0.0
    for k, x in enumerate(logs):
        total += x
        if total < low:
            low, begin = total, k + 1
        if total - low > best:
            best, span = total - low, (begin, k + 1)
    t, h = clock(tape)
    ends = torch.cat([t, (t + h)[-1:]])
    explained = float(own[span[0] : span[1]].sum()) if span[1] > span[0] else 0.0
    return Growth(best, explained, float(ends[span[0]]), float(ends[span[1]]))


def _logs(tape: Tape, scale: Tensor) -> list[float]:
    """Return log10 of the growth of the leading perturbation in every step."""
    n = len(scale)
    fresh = torch.diag(scale)[None, None]
    basis, logs = fresh, []
    stepper = tape.steps[0].stepper
    params, stepper.field.params = stepper.field.params, []  # no columns for parameters are wanted here
    try:
        for chunk in tape.chunks():
            width = len(chunk[0].state)
            if len(basis) != width:
                basis = basis[:1].expand(width, 1, n, n).clone()
            linear = chunk[0].stepper.linearise(restore(chunk))
            for k in range(len(chunk)):
                basis = linear.push(k, basis)
                if not bool(torch.isfinite(basis).all()):
                    logs.append(math.inf)
                    basis = fresh.expand(width, 1, n, n).clone()
                    continue
                q, r = torch.linalg.qr((basis[:, 0] / scale[:, None]).flatten(0, 1).double())
                size = float(r[0, 0].abs())
                logs.append(math.log10(size) if size > 0 else -320.0)
                basis = (q.reshape(width, n, n) * scale[:, None])[:, None].to(scale)
    finally:
        stepper.field.params = params
    return logs


def own_growth(field: Field, tape: Tape) -> Tensor:
    """Return h·max(0, Re λ)/ln 10 of every step, (K,): growth that the equation has itself."""
    _, h = clock(tape)
    chosen = thinned(len(tape.steps))
    values = modes(field, [tape.steps[k] for k in chosen])
    rate = values.real.amax(-1).clamp_min(0)
    where = torch.searchsorted(torch.tensor(chosen), torch.arange(len(h)), right=True) - 1
    return h.abs() * rate[where] / math.log(10)


def thinned(count: int) -> list[int]:
    """Return at most MOST_POINTS even indices."""
    stride = -(-count // MOST_POINTS)
    return list(range(0, count, max(1, stride)))


def modes(field: Field, steps: list[Step]) -> Tensor:
    """Return the eigenvalues at the starts of steps, (K, n), fastest first."""
    t = torch.stack([step.t for step in steps])
    y = torch.stack([step.state[0] for step in steps])
    return sort_modes(field.jacobian(t, y)[:, 0])


def newton_rest(field: Field, tape: Tape, method: Method, scale: Tensor) -> tuple[float, float]:
    """Return the largest Newton correction left at the accepted steps, over ``scale``, and its time.

    The correction M⁻¹G of the stage equations G = Y - y - hA f(Y) at the stages that were accepted;
    (0, nan) for methods that do not iterate.

    Args:
        field: the right-hand side.
        tape: accepted steps of one row.
        method: the method that made them.
        scale: tolerance of each unknown, (n,).
    """
    if not isinstance(method, RungeKutta) or not method.implicit:
        return 0.0, math.nan
    worst, where = 0.0, math.nan
    for step in [tape.steps[k] for k in thinned(len(tape.steps))]:
        full: Steps = restore([step])
        a, _, c, _ = method.tensors(full.state.dtype, full.state.device)
        stages = full.stages[0, :, 0]
        times = (step.t + c.to(step.t.dtype)[:, None] * step.h)[:, :1]
        hk = step.h.to(stages.dtype) * field.values(times, stages[:, None])[:, 0].detach()
        gap = stages - full.state[0, 0] - a @ hk
        jac = field.jacobian(times, stages[:, None])[:, 0] * step.h.to(stages.dtype)
        s, n = stages.shape
        matrix = torch.eye(s * n, dtype=a.dtype) - torch.einsum("ij,jpq->ipjq", a, jac).reshape(s * n, s * n)
        rest = torch.linalg.solve(matrix, gap.reshape(-1)).reshape(s, n)
        # What rounding leaves in the gap is not an unfinished iteration.
        noise = 64 * torch.finfo(a.dtype).eps * (stages.abs() + hk.abs().amax(0)).amax(0)
        size = float(((rest.abs() - noise).clamp_min(0) / scale).max())
        if size > worst or not math.isfinite(size):
            worst, where = size, float(step.t[0])
    return worst, where
