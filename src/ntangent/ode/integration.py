"""How a right-hand side is integrated where gradients are wanted: scheme, tolerances, mesh."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError
from ntangent.ode import methods
from ntangent.ode.controller import Control
from ntangent.ode.field import Func, Jacobian
from ntangent.ode.integrate import SUCCESS
from ntangent.ode.methods.base import Method
from ntangent.ode.problem import Problem, failure_of, make_control, pose
from ntangent.ode.sensitivity.adjoint import walk_back
from ntangent.ode.sensitivity.forward import walk_forward
from ntangent.ode.sensitivity.tape import Tape


@dataclass(frozen=True)
class Graded:
    """Fixed steps that resolve a fast start, whatever its rate: geometric up to the first output.

    A transient that is not resolved corrupts every later gradient, and no optimiser repairs that;
    40 steps from 1e-6 of the first interval do for rates over six decades.

    Args:
        first: end of the first step, as a fraction of the first output interval.
        points: steps up to the first output.
        steps: equal steps in each later output interval.
    """

    first: float = 1e-6
    points: int = 40
    steps: int = 1

    def __post_init__(self) -> None:
        check_positive(self.first, "first")
        check_positive(self.points, "points", integer=True)
        check_positive(self.steps, "steps", integer=True)
        if self.first >= 1:
            raise ArgumentError(f"first={self.first}", "it is a fraction of the first interval", "first=1e-6")

    def knots(self, t: Tensor) -> Tensor:
        """Return the mesh for output times (T,), float64; it contains them to the bit."""
        times = t.detach().double()
        ratio = torch.linspace(0, 1, self.points, dtype=torch.float64)
        start = times[0] + (times[1] - times[0]) * self.first ** (1 - ratio)
        inner = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)[1:-1]
        later = times[1:-1, None] + times[1:].diff()[:, None] * inner
        blocks = torch.cat([later, times[2:, None]], dim=1).reshape(-1)
        return torch.cat([times[:1], start[:-1], times[1:2], blocks])


@dataclass(frozen=True)
class Integration:
    """A scheme with its tolerances or its mesh.

    Args:
        method: name in ``ode.methods``, or a method.
        rtol: relative tolerance of a step.
        atol: absolute tolerance: a number, or one for each unknown.
        mesh: a fixed mesh instead of tolerances: :class:`Graded`.
        options: further options of :func:`ode.odeint` (``step_size``, ``steps``, ``max_num_steps``).
    """

    method: str | Method = "radau5"
    rtol: float = 1e-6
    atol: float | tuple[float, ...] = 1e-9
    mesh: Graded | None = None
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        methods.get(self.method)
        fixed = {"step_size", "steps"} & set(self.options or {})
        if self.mesh is not None and fixed:
            raise ArgumentError(
                f"mesh and {', '.join(fixed)} are both given",
                "each is a choice of all steps",
                "mesh=Graded()",
            )

    @property
    def scheme(self) -> Method:
        """The row of the catalogue."""
        return methods.get(self.method)

    def control(self, like: Tensor) -> Control:
        """Return the control of the steps."""
        atol = torch.tensor(self.atol, dtype=like.dtype) if isinstance(self.atol, tuple) else self.atol
        found = make_control(self.rtol, atol, self.options)
        return replace(found, steps=1) if self.mesh is not None else found


@dataclass
class Traced:
    """A solved problem with its accepted steps, from which derivatives are taken.

    Args:
        problem: the problem.
        tape: the accepted steps.
        index: where the wanted outputs are among the times, (T,).
        outputs: states there, (T, B, n).
    """

    problem: Problem
    tape: Tape
    index: Tensor
    outputs: Tensor

    def gradient(self, cotangent: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return gradients for the parameters and for y0, (B, n), from cotangents (T, B, n)."""
        field = self.problem.field
        full = cotangent.new_zeros((len(self.problem.t), *cotangent.shape[1:]))
        full[self.index] = cotangent
        start, grads = walk_back(field, self.tape, full)
        return grads, start + full[0]

    def sensitivities(self, *, initial: bool = False) -> Tensor:
        """Return d(outputs)/d(parameters, then y0 if asked), (T, B, n, P)."""
        rows = self.problem.rows.detach()
        slopes = walk_forward(self.problem.field, self.tape, rows, len(self.problem.t), initial=initial)
        return slopes[self.index]

    def knots(self, row: int = 0) -> Tensor:
        """Return the times between which the steps of a row went, float64."""
        moved = [step for step in self.tape.steps if float(step.h[row]) != 0]
        t = [float(step.t[row]) for step in moved]
        return torch.tensor([*t, float(self.problem.t[-1])], dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Question:
    """A right-hand side, where it starts, and what its solution is asked for.

    Args:
        func: func(t, y).
        y0: initial state, (n,), or (B, n) if batched.
        t: output times, (T,).
        params: tensors to differentiate for; None takes what func depends on.
        jacobian: df/dy, or None.
        batched: whether rows are solved on their own.
    """

    func: Func
    y0: Tensor
    t: Tensor
    params: Iterable[Tensor] | None = None
    jacobian: Jacobian | None = None
    batched: bool = False


def trace(question: Question, how: Integration, *, knots: Tensor | None = None) -> Traced:
    """Solve with every stage solved as derivatives need it, and keep the steps.

    Args:
        question: what is solved.
        how: scheme and tolerances.
        knots: go from each of these times to the next in one step; they contain the output times.

    Raises:
        SolverError: as for :func:`ode.odeint`.
    """
    t = question.t.detach().double()
    control = how.control(question.y0)
    if knots is None and how.mesh is not None:
        knots = how.mesh.knots(t)
    times, index = t, torch.arange(len(t))
    if knots is not None:
        times, control = knots, replace(control, steps=1, step_size=None)
        index = torch.searchsorted(knots, t) if bool(t[-1] > t[0]) else torch.searchsorted(-knots, -t)
    problem = pose(
        question.func, question.y0, times, how.scheme, control,
        batched=question.batched, params=question.params, jacobian=question.jacobian,
    )  # fmt: skip
    tape = Tape()
    result = problem.walk(problem.stepper(tight=True), problem.times(), keep=tape)
    if result.status != SUCCESS:
        raise failure_of(problem, result)
    return Traced(problem, tape, index, result.states[index])


def halved(knots: Tensor) -> Tensor:
    """Return the mesh with the middle of every step added."""
    both = torch.stack([knots[:-1], knots[:-1] + knots.diff() / 2], dim=1)
    return torch.cat([both.reshape(-1), knots[-1:]])
