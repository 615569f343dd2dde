"""``odeint`` and ``solve``: differential equations with derivatives that can be trusted."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_choice
from ntangent._base.errors import NoEffectWarning, SolverError
from ntangent.ode.dense import Interpolant, Recorder
from ntangent.ode.events import Event, EventWatch
from ntangent.ode.field import Func, Jacobian
from ntangent.ode.integrate import STOPPED, SUCCESS, Trajectory
from ntangent.ode.methods.base import Method
from ntangent.ode.problem import Problem, failure_of, make_control, needs_steps, on_grid, pose
from ntangent.ode.sensitivity.adjoint import DiscreteAdjoint
from ntangent.ode.sensitivity.forward import walk_forward
from ntangent.ode.sensitivity.tape import Tape
from ntangent.ode.solution import Solution
from ntangent.ode.steppers import make_stepper
from ntangent.ode.steppers.base import Step, Stepper


def odeint(
    func: Func,
    y0: Any,
    t: Tensor,
    *,
    method: str | Method | None = None,
    rtol: float = 1e-6,
    atol: float | Tensor = 1e-9,
    options: Mapping[str, Any] | None = None,
    event_fn: Callable[[Tensor, Any], Tensor] | None = None,
    batched: bool = False,
    params: Iterable[Tensor] | None = None,
    jacobian: Jacobian | None = None,
    checkpoint: int | None = None,
) -> Any:
    """Solve y' = func(t, y) and return the states at the times t.

    Gradients flow to y0, to t and to everything func depends on: the exact adjoint of the discrete
    solution. The forward pass has no tape; the backward pass walks the accepted steps back, with
    the implicit function theorem at each. Step sizes count as constants. Second derivatives raise an
    error. The gradient for t is f · cotangent, that of the exact solution at the computed state.

    Steps land on the output times. Methods without an error estimate (``euler``, ``rk4``) take one
    step from output to output unless options give a step size, as in torchdiffeq.

    Args:
        func: ``func(t, y)`` returns dy/dt in the shape of y. An ``nn.Module`` or any callable.
        y0: initial state: a tensor of any shape or a tuple of tensors.
        t: times, (T,), increasing or decreasing; t[0] belongs to y0.
        method: name in ``ode.methods``, or a method; radau5 by default.
        rtol: relative tolerance of each step.
        atol: absolute tolerance: a number, or one for each unknown (flattened).
        options: ``step_size`` or ``steps`` (between outputs) for fixed steps, or all of them by
            ``grid_constructor(func, y0, t)``; ``first_step``, ``max_num_steps``, ``min_step``,
            ``max_step``, ``safety``, ``ifactor``, ``dfactor``; for ``explicit_adams`` and
            ``implicit_adams`` ``max_order``, for the latter ``max_iters``.
        event_fn: stop where this function of (t, y) vanishes, see :func:`odeint_event`.
        batched: whether func treats the rows of y (first axis) independently. Then each row has its
            own steps and its own Newton iteration, and func gets t of shape (B, 1, ...).
        params: tensors to differentiate for; by default all leaf tensors that func depends on.
        jacobian: df/dy as a function of (t, y), shape (n, n), or (B, n, n) if batched.
        checkpoint: keep the stages of no step, and recompute those of this many at a time on the
            way back: less memory for one more solve of the stages.

    Returns:
        States, (T, *y0.shape), or a tuple of such; with ``event_fn`` the event time and states.

    Raises:
        SolverError: too many steps, step size underflow, Newton divergence or non-finite values.

    Sources: Hairer & Wanner, Solving ODEs II, IV.8; Sandu, On the properties of Runge-Kutta discrete
    adjoints (2006).
    """
    if event_fn is not None:
        return odeint_event(
            func, y0, t[0], event_fn=event_fn, reverse_time=len(t) > 1 and bool(t[1] < t[0]),
            method=method, rtol=rtol, atol=atol, options=options,
        )  # fmt: skip
    times, index, options = on_grid(func, y0, t, options)
    control = make_control(rtol, atol, options)
    problem = pose(
        func, y0, times, method or "radau5", control, batched=batched, params=params, jacobian=jacobian
    )
    states, result, _ = _states(problem, checkpoint)
    if result.status != SUCCESS:
        raise failure_of(problem, result)
    return problem.packing.unpack(states if index is None else states[index])


def _states(problem: Problem, checkpoint: int | None) -> tuple[Tensor, Trajectory, Stepper]:
    """Return states at the output times, with the adjoint attached where a gradient can be asked for."""
    inputs = [problem.rows, problem.t, *problem.field.params]
    tracked = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    stepper = problem.stepper(tight=tracked)
    tape = Tape(checkpoint)
    results: list[Trajectory] = []

    def solve_it() -> Tensor:
        results.append(problem.walk(stepper, problem.times(), keep=tape if tracked else None))
        if results[0].status != SUCCESS:
            error = failure_of(problem, results[0])
            if tracked:
                raise error
        return results[0].states

    if not tracked:
        return solve_it(), results[0], stepper
    params = problem.field.params
    adjoint: Any = DiscreteAdjoint.apply
    states = adjoint(problem.field, tape, solve_it, problem.t, problem.rows, *params)
    return states, results[0], stepper


def solve(
    func: Func,
    y0: Any,
    t: Tensor,
    *,
    method: str | Method = "radau5",
    rtol: float = 1e-6,
    atol: float | Tensor = 1e-9,
    options: Mapping[str, Any] | None = None,
    batched: bool = False,
    jacobian: Jacobian | None = None,
    events: Sequence[Event | Callable[[Tensor, Any], Tensor]] = (),
    failure: str = "raise",
) -> Solution:
    """Solve y' = func(t, y) with free steps, and return the solution as a function of time.

    Without gradients: use :func:`odeint` or :func:`sensitivity` for those. Outputs are taken from
    the continuous extension of the steps.

    Args:
        func: as for :func:`odeint`.
        y0: as for :func:`odeint`.
        t: as for :func:`odeint`.
        method: as for :func:`odeint`.
        rtol: as for :func:`odeint`.
        atol: as for :func:`odeint`.
        options: as for :func:`odeint`.
        batched: as for :func:`odeint`.
        jacobian: as for :func:`odeint`.
        events: functions g(t, y) whose zeros are located, or :class:`Event` for terminal ones.
        failure: ``"raise"``, or ``"return"`` for a partial solution with a status.

    Returns:
        A :class:`Solution`: ``.t``, ``.y``, ``.status``, the counts, ``solution(t)``, ``.events``.

    Raises:
        SolverError: as for :func:`odeint`; its ``.solution`` holds what was reached.
    """
    check_choice(failure, ["raise", "return"], "failure")
    knots, index, options = on_grid(func, y0, t, options)
    control = make_control(rtol, atol, options)
    with torch.no_grad():
        problem = pose(func, y0, knots, method, control, batched=batched, params=(), jacobian=jacobian)
        if make_stepper(problem.method, problem.field, control, tight=False).error_order is None:
            needs_steps(problem)
        stepper = problem.stepper(tight=False)
        goals = problem.times()
        times = goals if index is None else goals[index]
        recorder = Recorder()
        watch = EventWatch(problem.field, stepper, events) if events else None
        # Fixed steps between outputs belong to them; others are free to pass them.
        goals = goals if problem.control.fixed else times[[0, -1]]

        def keep(step: Step) -> None:
            recorder(step)

        result = problem.walk(stepper, goals, keep=keep, watch=watch)
        dense = Interpolant(problem.field, stepper, recorder.steps, result)
        solution = Solution.collect(problem.packing, problem.field, stepper, result, dense, times, watch)
    if result.status not in (SUCCESS, STOPPED) and failure == "raise":
        error = failure_of(problem, result)
        error.solution = solution
        raise error
    return solution


def sensitivity(
    func: Func,
    y0: Any,
    t: Tensor,
    params: Iterable[Tensor] | None = None,
    *,
    method: str | Method = "radau5",
    rtol: float = 1e-6,
    atol: float | Tensor = 1e-9,
    options: Mapping[str, Any] | None = None,
    batched: bool = False,
    jacobian: Jacobian | None = None,
    initial: bool = False,
) -> tuple[Any, Any]:
    """Return the solution and its forward sensitivities: the exact tangent of the discrete solution.

    The variational equation discretised by the very same steps, all parameters at once, so that the
    product with a vector equals that of :func:`odeint`'s adjoint to rounding. Cost for each step:
    one factorisation, and m·n transposed products of func for m stages of n unknowns.

    Args:
        func: as for :func:`odeint`.
        y0: as for :func:`odeint`.
        t: as for :func:`odeint`.
        params: tensors with ``requires_grad``; by default all leaf tensors that func depends on.
        method: as for :func:`odeint`.
        rtol: as for :func:`odeint`.
        atol: as for :func:`odeint`.
        options: as for :func:`odeint`.
        batched: as for :func:`odeint`.
        jacobian: as for :func:`odeint`.
        initial: whether the sensitivities to y0 follow, n columns (for a batch, of each own row).

    Returns:
        y, (T, *y0.shape), and dy/dp, (T, *y0.shape, P) with the parameters flattened one after
        the other; tuples where y0 is one.
    """
    times, index, options = on_grid(func, y0, t, options)
    control = make_control(rtol, atol, options)
    problem = pose(func, y0, times, method, control, batched=batched, params=params, jacobian=jacobian)
    stepper, tape = problem.stepper(tight=True), Tape()
    result = problem.walk(stepper, problem.times(), keep=tape)
    if result.status != SUCCESS:
        raise failure_of(problem, result)
    slopes = walk_forward(problem.field, tape, problem.rows.detach(), len(times), initial=initial)
    states = result.states
    if index is not None:
        states, slopes = states[index], slopes[index]
    columns = problem.packing.unpack(slopes.movedim(-1, 0))
    if problem.packing.several:
        return problem.packing.unpack(states), tuple(c.movedim(0, -1) for c in columns)
    return problem.packing.unpack(states), columns.movedim(0, -1)


def odeint_adjoint(func: Func, y0: Any, t: Tensor, **arguments: Any) -> Any:
    """Call :func:`odeint`, whose gradients already need no tape of the forward pass.

    torchdiffeq's ``adjoint_params`` are the ``params``; its other adjoint options describe a second
    integration backwards in time that does not happen here, and are ignored with a warning.
    """
    chosen = arguments.pop("adjoint_params", None)
    idle = [name for name in list(arguments) if name.startswith("adjoint_")]
    given = [name for name in idle if arguments.pop(name) is not None]
    if given:
        warnings.warn(
            f"ode: {', '.join(given)} ignored: the adjoint walks back the steps of the forward solve",
            NoEffectWarning,
            stacklevel=2,
        )
    if chosen is not None:
        arguments["params"] = tuple(chosen)
    return odeint(func, y0, t, **arguments)


def odeint_event(
    func: Func,
    y0: Any,
    t0: Tensor,
    *,
    event_fn: Callable[[Tensor, Any], Tensor],
    reverse_time: bool = False,
    odeint_interface: Callable[..., Any] = odeint,
    **arguments: Any,
) -> tuple[Tensor, Any]:
    """Solve until ``event_fn(t, y)`` changes sign; the event time is differentiable.

    The time comes from the continuous extension; then one Newton step for g(t, y(t)) = 0 is taken
    on the tape, which by the implicit function theorem carries its gradient to y0 and the parameters.

    Args:
        func: as for :func:`odeint`.
        y0: as for :func:`odeint`.
        t0: initial time, a scalar tensor.
        event_fn: g(t, y), a tensor; the first of its entries to change sign ends the solution.
        reverse_time: whether time runs backwards.
        odeint_interface: :func:`odeint` or :func:`odeint_adjoint`, called for the final solution.
        arguments: further arguments of :func:`odeint`.

    Returns:
        The event time and the states at t0 and at the event, (2, *y0.shape).

    Raises:
        SolverError: if no event is met.
    """
    start = t0.detach().double().reshape(())
    far = start + (-1.0 if reverse_time else 1.0) * 1e10 * max(1.0, abs(float(start)))
    known = {k: v for k, v in arguments.items() if k in ("rtol", "atol", "options", "jacobian")}
    plain = tuple(y.detach() for y in y0) if isinstance(y0, tuple) else y0.detach()
    method = arguments.get("method") or "radau5"
    event = Event(event_fn, terminal=True)
    found = solve(func, plain, torch.stack([start, far]), method=method, events=[event], **known)
    if not found.events or not len(found.events[0]):
        raise SolverError(
            f"no event between t = {float(start):.6g} and {float(far):.3g}",
            "event_fn kept its sign",
            "ode.solve(func, y0, t, events=[event_fn])  # events within given times",
        )
    stop = found.events[0][-1].to(t0)
    states = odeint_interface(func, y0, torch.stack([t0.reshape(()), stop]), **arguments)
    end = tuple(y[-1] for y in states) if isinstance(states, tuple) else states[-1]
    return _attach(func, event_fn, stop, states, end)


def _attach(
    func: Func, event_fn: Callable[[Tensor, Any], Tensor], stop: Tensor, states: Any, end: Any
) -> tuple[Tensor, Any]:
    """Return the event time and the states with the implicit function theorem on the tape."""
    parts = end if isinstance(end, tuple) else (end,)
    with torch.enable_grad():
        leaf_t = stop.detach().requires_grad_()
        leaves = tuple(part.detach().requires_grad_() for part in parts)
        slope = func(leaf_t, leaves if isinstance(end, tuple) else leaves[0])
        value = event_fn(leaf_t, leaves if isinstance(end, tuple) else leaves[0]).reshape(-1)
        which = int(value.detach().abs().argmin())
        grads = torch.autograd.grad(value[which], [leaf_t, *leaves], allow_unused=True)
    slopes = [s.detach() for s in (slope if isinstance(end, tuple) else (slope,))]
    rate = torch.zeros_like(stop) if grads[0] is None else grads[0]
    for grad, s in zip(grads[1:], slopes, strict=True):
        rate = rate + (0 if grad is None else (grad * s).sum())
    if not math.isfinite(float(rate)) or float(rate) == 0:
        raise SolverError(
            f"the event at t = {float(stop):.6g} touches zero without crossing",
            "its time has no derivative",
            "event_fn=lambda t, y: y[0] - 0.5  # a function that changes sign",
        )
    now = event_fn(stop, end).reshape(-1)[which]
    time = stop - (now / rate).to(stop)
    moved = [p + s * (time - stop.detach()).to(p) for p, s in zip(parts, slopes, strict=True)]
    if isinstance(states, tuple):
        return time, tuple(torch.cat([s[:-1], m[None]]) for s, m in zip(states, moved, strict=True))
    return time, torch.cat([states[:-1], moved[0][None]])
