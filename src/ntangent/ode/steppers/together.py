"""Many given steps of an implicit Runge-Kutta method solved at once.

Given steps wait for no error estimate, so the stages of K of them are one system of equations. With
stages Y_i = y + h Σ a_ij f(Y_j) and y₁ = (1 - Σd) y + Σ d_i Y_i (see ``linear``), Newton's iteration
solves M δY = -G(Y) + 1 ⊗ δy in every step, M = I - hA ⊗ J: f and its Jacobian are evaluated at all
points in one call, all M are inverted in one, and only K products of small matrices that carry δy
from step to step are left to do one after the other. A few large operations replace many small ones.

The equations are those of the single steps, and so is the test of convergence: M^-1 G, the correction
of each step for the state it starts from. Where the iteration does not contract well from the start,
nothing is accepted, and the steps are taken one by one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ntangent.ode.controller import Control, norm
from ntangent.ode.field import Field
from ntangent.ode.steppers.base import Leap
from ntangent.ode.steppers.linear import Tableau

# Points that f is evaluated at in one call, and entries of the inverses: what stays in the cache.
MOST_POINTS, MOST_ENTRIES = 3 * 2**9, 2**18
# Size s·n of the matrix of one step from which on the single steps' smaller matrices are cheaper.
LARGEST_MATRIX = 32
MOST_STEPS, MOST_ITERATIONS = 64, 10
# A slower contraction means that the start was far away; it might end at another solution.
WORST_CONTRACTION = 0.5


class Together:
    """Newton's iteration for the stages of many given steps.

    Args:
        field: the right-hand side.
        tableau: the method, with weights d of the increments.
        control: tolerances that errors are measured in.
        accuracy: accepted error of the stages over the tolerance.
    """

    def __init__(self, field: Field, tableau: Tableau, control: Control, accuracy: float) -> None:
        self.field, self.tableau, self.control, self.accuracy = field, tableau, control, accuracy
        d = tableau.d
        self.stiffly_accurate = d is not None and d[-1] == 1 and not d[:-1].any()

    def longest(self, y: Tensor) -> int:
        """Return how many steps to take at once from rows (B, n); less than 2 for none."""
        batch, n = y.shape
        s = len(self.tableau.b)
        if self.tableau.d is None or s * n > LARGEST_MATRIX or not self.field.takes_many():
            return 1
        return min(MOST_STEPS, MOST_POINTS // (batch * s), MOST_ENTRIES // (batch * (s * n) ** 2))

    def solve(self, t: Tensor, h: Tensor, y: Tensor) -> Leap | None:
        """Return K steps from y, or None where the iteration did not contract well.

        Args:
            t: times at the start of each step, (K, B).
            h: sizes, (K, B).
            y: state at the start of the first, (B, n).
        """
        if not self.field.takes_many():
            return None
        times = (t[:, None] + self.tableau.c.to(t.dtype)[:, None] * h[:, None]).flatten(0, 1)
        step = h.to(y.dtype)
        states, stages, matrices = self._predict(t[0], step, y)
        made, used, renew = 1, 1, False
        last: Tensor | None = None
        done = torch.zeros(len(y), dtype=torch.bool, device=y.device)
        for iteration in range(1, MOST_ITERATIONS + 1):
            if renew:
                slopes, jacobian = self.field.linearised(times, stages.flatten(0, 1))
                matrices = Inverses(self.tableau, step, jacobian.reshape(*stages.shape, -1))
                made, used = made + 1, 0
            else:
                self.field.evaluations += len(times)
                slopes = self.field.many(times, stages.flatten(0, 1))
            if not self.field.takes_many():  # now it is known to be evaluated point by point
                return None
            own, moved, shifts = matrices.correct(states, stages, slopes.reshape(stages.shape))
            states, stages = self._apply(states, stages, moved, shifts)
            used += 1
            scale = self.control.scale(states[:-1])
            size = norm((own / scale[:, None]).transpose(1, 2).flatten(2))
            worst = size.amax(0)
            if not bool(torch.isfinite(worst).all()):
                return None
            if last is None:
                done = worst <= 1e-2 * self.accuracy
                renew = True
            else:
                theta = worst / last.clamp_min(1e-300)
                rest = theta / (1 - theta).clamp_min(1e-16) * worst
                level = norm(stages.abs().amax(1) / scale) * (8 * torch.finfo(y.dtype).eps) + 1e-30
                done = done | (theta < 1) & (rest <= self.accuracy) | (size <= level).all(0)
                # A Jacobian from far off, larger by magnitudes, would make every correction look small.
                far = worst * max(self.control.rtol, 4 * torch.finfo(y.dtype).eps) > 1
                done = done & ~far
                worst_yet = WORST_CONTRACTION if used > 1 else 1.0  # a new Jacobian has yet to show
                if bool((~done & (theta > worst_yet)).any()):
                    return None
                # A Jacobian costs about two iterations.
                renew = bool(far.any() if used == 1 else (~done & (theta**2 * rest > self.accuracy)).any())
            if bool(done.all()):
                return Leap(states, stages, iteration, made)
            last = worst
        return None

    def _predict(self, t: Tensor, step: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Inverses]:
        """Return states, stages and matrices of the equation linearised at the start, f(y) + J (x - y).

        Its solution is found from zero, not from y: a component that decays keeps its leading digits.
        """
        slopes, jacobian = self.field.linearised(t[None], y[None])
        k, s = len(step), len(self.tableau.b)
        even = bool(((step - step[0]).abs() <= 1e-6 * step[0].abs()).all())
        sizes = step[:1] if even else step  # one matrix will do for equal steps
        wide = jacobian[:, None].expand(len(sizes), s, *jacobian.shape[1:])
        matrices = Inverses(self.tableau, sizes, wide)
        states, stages = y.new_zeros((k + 1, *y.shape)), y.new_zeros((k, s, *y.shape))
        rest = slopes - (jacobian @ y[..., None])[..., 0]
        _, moved, shifts = matrices.correct(states, stages, rest.expand_as(stages), y)
        return shifts, moved, matrices

    def _apply(self, states: Tensor, stages: Tensor, moved: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the corrected states and stages."""
        stages = stages + moved
        if self.stiffly_accurate:
            return torch.cat([states[:1], stages[:, -1]]), stages
        return states + shifts, stages


class Inverses:
    """The inverses of the matrices M of K steps, and what carries a change from step to step.

    Args:
        tableau: the method.
        step: sizes, (K, B), or (1, B) where all are equal.
        jacobian: at the stages, (K, s, B, n, n).
    """

    def __init__(self, tableau: Tableau, step: Tensor, jacobian: Tensor) -> None:
        assert tableau.d is not None
        self.a, self.d, self.step = tableau.a, tableau.d, step
        k, s, batch, n, _ = jacobian.shape
        blocks = -step[:, None, :, None, None] * jacobian
        if s == 1:
            blocks = (self.a * blocks)[:, 0]
        else:
            blocks = torch.einsum("ij,kjbpq->kbipjq", self.a, blocks).reshape(k, batch, s * n, s * n)
        blocks.diagonal(dim1=-2, dim2=-1).add_(1)
        self.inverse = torch.linalg.inv_ex(blocks.mT)[0].mT  # rows lie together, for the products below
        self.spread = self.inverse
        if s > 1:
            self.spread = self.inverse.unflatten(-1, (s, n)).sum(-2)
        self.only_stage = s == 1 and bool(self.d[0] == 1)
        self.transfer = self._end(self.spread.unflatten(-2, (s, n)))
        self.transfer.diagonal(dim1=-2, dim2=-1).add_(1 - self.d.sum())

    def _end(self, x: Tensor) -> Tensor:
        """Return Σ d_i x_i over the stages, the third axis."""
        return (x * self.d.reshape(-1, *[1] * (x.ndim - 3))).sum(2)

    def correct(
        self, states: Tensor, stages: Tensor, slopes: Tensor, shift: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return each step's own correction, that with the change of its start, and those of the states.

        Args:
            states: (K + 1, B, n).
            stages: (K, s, B, n).
            slopes: f at the stages, likewise.
            shift: change of the first state, (B, n); None for zero.
        """
        k, s, batch, n = stages.shape
        increments = self.a * slopes if s == 1 else torch.einsum("ij,kjbn->kibn", self.a, slopes)
        defect = torch.addcmul(states[:-1, None] - stages, self.step[:, None, :, None], increments)
        own = _product(self.inverse, defect.transpose(1, 2).reshape(k, batch, s * n, 1))
        ends = self._end(own.unflatten(-2, (s, n)))
        shifts = [torch.zeros_like(ends[0]) if shift is None else shift[..., None]]
        for transfer, end in zip(self.transfer.expand(k, -1, -1, -1), ends, strict=True):
            shifts.append(torch.baddbmm(end, transfer, shifts[-1]))
        carried = torch.stack(shifts)
        if self.only_stage:  # it is the next state
            return _by_stage(own, s), _by_stage(carried[1:], s), carried[..., 0]
        moved = own + _product(self.spread, carried[:-1])
        return _by_stage(own, s), _by_stage(moved, s), carried[..., 0]


def _product(matrices: Tensor, x: Tensor) -> Tensor:
    """Return the products of matrices (K or 1, B, p, q) with (K, B, q, 1)."""
    if len(matrices) == 1:
        columns: Tensor = matrices[0] @ x[..., 0].permute(1, 2, 0)
        return columns.permute(2, 0, 1)[..., None]
    return torch.matmul(matrices, x)


def _by_stage(x: Tensor, s: int) -> Tensor:
    """Return (K, B, s·n, 1) as (K, s, B, n)."""
    split: Tensor = x[..., 0].unflatten(-1, (s, -1))
    return split.transpose(1, 2)
