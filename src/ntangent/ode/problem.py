"""One initial value problem, checked: state in rows, options, method; and what to say when it fails."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_choice
from ntangent._base.errors import ArgumentError, NoEffectWarning, SolverError
from ntangent.ode import methods
from ntangent.ode.controller import Control
from ntangent.ode.events import EventWatch
from ntangent.ode.field import Field, Func, Jacobian, Packing, check_times
from ntangent.ode.integrate import TOO_MANY, UNDERFLOW, Keep, Trajectory, Walk
from ntangent.ode.methods.adams import Adams
from ntangent.ode.methods.base import Method
from ntangent.ode.steppers import make_stepper
from ntangent.ode.steppers.base import Stepper

# torchdiffeq's names of options, and ours.
OPTIONS = {
    "step_size": "step_size",
    "steps": "steps",
    "first_step": "first_step",
    "max_num_steps": "max_steps",
    "max_steps": "max_steps",
    "min_step": "min_step",
    "max_step": "max_step",
    "safety": "safety",
    "ifactor": "largest",
    "dfactor": "smallest",
    "max_order": "max_order",
    "max_iters": "max_iters",
}
IDLE = {"norm", "dtype", "perturb", "interp", "step_t", "jump_t", "grid_points", "eps"}
FIXES = {
    TOO_MANY: 'options={"max_num_steps": 1_000_000}  # or method="radau5" for a stiff problem',
    UNDERFLOW: "atol=1e-6, rtol=1e-4  # or check func for a singularity near this time",
}


def make_control(rtol: float, atol: float | Tensor, options: Mapping[str, Any] | None) -> Control:
    """Return the control that tolerances and torchdiffeq's options ask for.

    Raises:
        ArgumentError: for an option that no solver knows.
    """
    found: dict[str, Any] = {}
    for name, value in (options or {}).items():
        if name in OPTIONS:
            found[OPTIONS[name]] = float(value) if isinstance(value, Tensor) else value
        elif name in IDLE:
            if value is not None and value is not False:
                idle(name, "here")
        else:
            check_choice(name, [*OPTIONS, *IDLE, "grid_constructor"], "option")
    absolute = atol if isinstance(atol, Tensor) else float(atol)
    tolerances: dict[str, Any] = {"rtol": float(rtol), "atol": absolute}
    return Control(**tolerances, **found)


def idle(name: str, where: str) -> None:
    """Warn that an option does nothing."""
    warnings.warn(
        f"ode: the option {name!r} has no meaning {where} and is ignored", NoEffectWarning, stacklevel=5
    )


def on_grid(
    func: Func, y0: Any, t: Tensor, options: Mapping[str, Any] | None
) -> tuple[Tensor, Tensor | None, Mapping[str, Any] | None]:
    """Return the times to step through, where the outputs are among them, and the other options.

    torchdiffeq's ``grid_constructor(func, y0, t)`` gives the mesh of a fixed-step method, from t[0] to
    t[-1]. Output times that it leaves out become points of the mesh too, where torchdiffeq interpolates.

    Raises:
        ArgumentError: if the grid has other ends, is not monotonic, or a step size is given as well.
    """
    rest = {k: v for k, v in (options or {}).items() if k != "grid_constructor"}
    make = (options or {}).get("grid_constructor")
    if make is None:
        return t, None, rest
    line = 'options={"grid_constructor": lambda func, y0, t: torch.linspace(t[0], t[-1], 101)}'
    fixed = [name for name in ("step_size", "steps") if rest.get(name) is not None]
    if fixed:
        raise ArgumentError(
            f"grid_constructor and {fixed[0]} are both given", "each is a choice of all steps", line
        )
    with torch.no_grad():
        grid = make(func, y0, t.detach())
    sign = 1 if bool(t[-1] > t[0]) else -1
    fits = isinstance(grid, Tensor) and grid.ndim == 1 and len(grid) > 1
    if (
        not fits
        or not bool((sign * grid.diff() > 0).all())
        or not torch.equal(grid[[0, -1]].to(t), t[[0, -1]])
    ):
        raise ArgumentError(
            "grid_constructor must return times that go from t[0] to t[-1]", "they are the mesh", line
        )
    grid, known = grid.detach().to(t), t.detach()
    # A point of the grid that rounding alone keeps apart from an output is that output.
    apart = (grid[:, None] - known[None]).abs().amin(1)
    gaps = torch.cat([grid.diff(), grid.diff()[-1:]]).abs()
    both = torch.cat([t, grid[apart > 1e-4 * gaps]])
    order = (sign * both.detach()).argsort()
    return both[order], order.argsort()[: len(t)], {**rest, "steps": 1}


def fitted(method: Method, control: Control) -> Method:
    """Return the method with the options that only some have: ``max_order`` and ``max_iters``."""
    adams = method if isinstance(method, Adams) else None
    if control.max_iters is not None and not (adams and adams.moulton):
        idle("max_iters", f"for {method.name!r}")
    if control.max_order is None:
        return method
    if adams is None or adams.start != "rising":
        idle("max_order", f"for {method.name!r}")
        return method
    found = adams.limited(control.max_order)
    if not isinstance(found, Adams):
        idle("max_order", f"below 4 but to make {method.name!r} the method {found.name!r}")
    return found


@dataclass
class Problem:
    """One initial value problem, checked and brought into rows.

    Args:
        field: the right-hand side.
        packing: between the user's shape and rows.
        rows: initial rows, (B, n), on the tape of y0.
        t: output times, (T,).
        method: the row of the catalogue.
        control: how steps are chosen.
    """

    field: Field
    packing: Packing
    rows: Tensor
    t: Tensor
    method: Method
    control: Control

    def stepper(self, *, tight: bool) -> Stepper:
        """Return a stepper; a method without an error estimate steps from output to output."""
        stepper = make_stepper(self.method, self.field, self.control, tight=tight)
        if stepper.error_order is None and not self.control.fixed:
            if self.control.rtol != Control.rtol:
                warnings.warn(
                    f"ode: {self.method.name} has no error estimate and steps from output to output: "
                    'rtol does not bound its error; options={"step_size": 0.01}, or more output times, do',
                    NoEffectWarning,
                    stacklevel=4,
                )
            self.control = replace(self.control, steps=1)
            stepper = make_stepper(self.method, self.field, self.control, tight=tight)
        return stepper

    def walk(
        self, stepper: Stepper, times: Tensor, *, keep: Keep | None = None, watch: EventWatch | None = None
    ) -> Trajectory:
        """Integrate through the times."""
        y0 = self.rows.detach()
        return Walk(stepper, self.field, y0, times, self.control, keep=keep, observe=watch).run()

    def times(self) -> Tensor:
        """Return the output times in double precision, where the solver keeps its clock."""
        return self.t.detach().double()


def pose(
    func: Func,
    y0: Tensor | tuple[Tensor, ...],
    t: Tensor,
    method: str | Method,
    control: Control,
    *,
    batched: bool = False,
    params: Iterable[Tensor] | None = None,
    jacobian: Jacobian | None = None,
) -> Problem:
    """Check the arguments and return the problem."""
    packing = Packing(y0, batched)
    times = check_times(t, packing)
    rows = packing.pack(y0)
    if not bool(torch.isfinite(rows.detach()).all()):
        raise ArgumentError("y0 contains non-finite values", "", "y0 = torch.nan_to_num(y0)")
    control.check(rows.detach())
    field = Field(func, packing, params, jacobian)
    ends = times.detach().double()
    field.find_params(ends[:1].expand(packing.rows), rows, ends[-1:].expand(packing.rows))
    found = methods.get(method) if isinstance(method, str) else method
    return Problem(field, packing, rows, times, fitted(found, control), control)


def failure_of(problem: Problem, result: Trajectory) -> SolverError:
    """Return the error for a trajectory that ended early."""
    row = max(result.row, 0)
    where = f" in row {row}" if problem.packing.batched else ""
    t, h = float(result.t[row]), float(result.h[row])
    why = f"method {problem.method.name!r}, {int(result.accepted[row])} steps accepted, "
    why += f"{int(result.rejected[row])} rejected, last step size {h:.3e}"
    if problem.control.fixed:
        fix = 'options={"step_size": %.3g}  # or no fixed step' % (h / 10)
    else:
        explicit = not problem.method.implicit
        stiff = 'method="radau5"  # an implicit method, if the problem is stiff'
        fix = stiff if explicit else FIXES.get(result.status, "check that func is finite near this state")
    return SolverError(f"{result.status} at t = {t:.6g}{where}", why, fix)


def needs_steps(problem: Problem) -> None:
    """Refuse to choose steps for a method that cannot say how large its error is."""
    if not problem.control.fixed:
        raise ArgumentError(
            f"method {problem.method.name!r} has no error estimate",
            "its steps cannot be chosen by rtol and atol",
            'options={"step_size": 0.01}  # or method="radau5"',
        )
