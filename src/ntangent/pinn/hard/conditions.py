"""From the conditions of a problem to its ansatz."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ntangent._base.errors import ProblemError
from ntangent.pinn.conditions import Dirichlet, Initial, Neumann, Periodic, Robin
from ntangent.pinn.conditions.base import chosen
from ntangent.pinn.domains.base import Boundary
from ntangent.pinn.hard.compose import HardAnsatz, Trace, compose, dirichlet, initial, neumann, robin


def _where(condition: Any, problem: Any) -> Boundary:
    """Return the piece of the boundary on which a condition holds."""
    if condition.on is None:
        piece: Boundary = problem.domain.face(**condition.coordinates)
        return piece
    if not isinstance(condition.on, Boundary):
        raise ProblemError(
            f"{condition!r} holds at points",
            "only a piece of the domain's boundary can be built into the field",
            "on=domain.boundary, or hard=False",
        )
    return condition.on


def _factor(value: Any, condition: Any) -> float:
    if isinstance(value, int | float):
        return float(value)
    raise ProblemError(
        f"{condition!r} has a factor that is a function",
        "the exact construction takes numbers a and b",
        "hard=False",
    )


def _robin(condition: Any, problem: Any, component: int) -> list[Trace]:
    a, b = (_factor(v, condition) for v in (condition.a, condition.b))
    return robin(_where(condition, problem), a, b, condition.value, component)


def _initial(condition: Any, problem: Any, component: int) -> list[Trace]:
    return initial(problem.domain, condition.values(problem), condition.axis(problem), component)


# Kind of condition -> its traces, of (condition, problem, component).
TRACES: dict[type, Callable[[Any, Any, int], list[Trace]]] = {
    Dirichlet: lambda c, problem, i: dirichlet(_where(c, problem), c.value, i),
    Neumann: lambda c, problem, i: neumann(_where(c, problem), c.value, i),
    Robin: _robin,
    Initial: _initial,
}


def built_in(problem: Any, name: str | None = None) -> HardAnsatz | None:
    """Return the ansatz of all hard conditions of a problem; None if there are none.

    Args:
        problem: the problem.
        name: of the field, where each has a network of its own; all fields side by side otherwise.

    Raises:
        ProblemError: if a condition has no exact construction, alone or with the others.
    """
    traces: list[Trace] = []
    cycles: list[str] = []
    for condition in problem.conditions:
        if not getattr(condition, "hard", False):
            continue
        field, components = chosen(problem, condition.field, condition.component)
        if name not in (None, field):
            continue
        if isinstance(condition, Periodic):
            cycles.append(condition.coordinate)
            continue
        make = TRACES.get(type(condition))
        if make is None:
            raise ProblemError(
                f"{type(condition).__name__} has no exact construction", "none is known", "hard=False"
            )
        if len(problem.inputs(field)) < problem.domain.dimension:
            raise ProblemError(
                f"{condition!r} is about a field of fewer coordinates than the domain",
                "its values cannot be built in on a face of the domain",
                "hard=False",
            )
        names = list(problem.components)
        first = 0 if name else sum(problem.components[n] for n in names[: names.index(field)])
        for component in components:
            traces += make(condition, problem, first + component)
    if not traces and not cycles:
        return None
    return compose(problem.domain, traces, list(dict.fromkeys(cycles)))
