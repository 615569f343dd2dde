"""From the conditions of a problem to its ansatz."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ntangent._base.errors import ProblemError
from ntangent.pinn.conditions import Dirichlet, Initial, Neumann, Periodic, Robin, Symmetry
from ntangent.pinn.conditions.base import check_inside, check_space, chosen
from ntangent.pinn.domains.base import Boundary
from ntangent.pinn.domains.tools import fixed_draw
from ntangent.pinn.hard.compose import HardAnsatz, Trace, compose, dirichlet, initial, neumann, robin
from ntangent.pinn.hard.mirror import Mirror


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
    check_space(condition.on, problem)
    check_inside(condition.on.sample(64, fixed_draw())[0], problem)
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


def _symmetric(condition: Any, problem: Any, component: int) -> list[Trace]:
    ((name, at),) = condition.coordinates.items()
    low, high = problem.interval(name)
    if low < at < high:
        raise ProblemError(
            f"{condition!r} is about a plane inside {problem.domain}",
            "the problem is stated on one side of it, and known on both by the symmetry",
            f"domain with {name}=({at:g}, {high:g}), extent={problem.domain}",
        )
    make = dirichlet if condition.parity == "odd" else neumann
    return make(_where(condition, problem), 0.0, component)


# Kind of condition -> its traces, of (condition, problem, component).
TRACES: dict[type, Callable[[Any, Any, int], list[Trace]]] = {
    Dirichlet: lambda c, problem, i: dirichlet(_where(c, problem), c.value, i),
    Neumann: lambda c, problem, i: neumann(_where(c, problem), c.value, i),
    Robin: _robin,
    Initial: _initial,
    Symmetry: _symmetric,
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
    parities: dict[tuple[str, float, bool], dict[int, str]] = {}
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
            if isinstance(condition, Symmetry):
                end = _where(condition, problem).parts[0].end
                assert end is not None  # a face
                parities.setdefault(end, {})[first + component] = condition.parity
    if not traces and not cycles:
        return None
    mirrors = [_mirror(problem, end, known, name) for end, known in parities.items()]
    return compose(problem.domain, traces, list(dict.fromkeys(cycles)), mirrors)


def _mirror(problem: Any, end: tuple[str, float, bool], known: dict[int, str], field: str | None) -> Mirror:
    """Return the mirror at an end of a coordinate, from the parity of each component."""
    name, position, upper = end
    count = sum(problem.components.values()) if field is None else problem.components[field]
    if len(known) < count:
        raise ProblemError(
            f"{len(known)} of {count} components have a symmetry at {name} = {position:g}",
            "points beyond it are mirrored for all of them at once",
            f'Symmetry("even", {name}={position:g}, field=...) for the others',
        )
    low, high = problem.interval(name)
    if problem.extent is not None:
        reach = 2 * position - (low if upper else high)
        beyond = problem.extent.interval(name)[1 if upper else 0]
        if (beyond > reach) if upper else (beyond < reach):
            raise ProblemError(
                f"the extent reaches to {name} = {beyond:g}",
                f"the mirror at {position:g} carries the field to {reach:g}",
                f"extent=Box({name}=({min(low, reach):g}, {max(high, reach):g}), ...)",
            )
    odd = tuple(known[i] == "odd" for i in range(count))
    return Mirror(problem.domain.names.index(name), position, upper, odd)
