"""Whether the conditions of a problem speak of every coordinate in which it differentiates."""

from __future__ import annotations

import warnings
from typing import Any

from ntangent._base.errors import UndeterminedWarning
from ntangent.pinn.conditions import Initial, Periodic, Symmetry
from ntangent.pinn.conditions.base import Located
from ntangent.pinn.objective import PinnObjective
from ntangent.pinn.problem import Problem, plain


def warn_undetermined(objective: PinnObjective) -> None:
    """Warn of coordinates in which an equation differentiates and about whose ends nothing is said.

    A forgotten initial condition is found in this way; a training without it ends well, in some solution.
    Nothing is said of ends by data, by integrals, or by an ansatz: with these no question is asked.
    """
    problem = objective.problem
    if problem.ansatz is not plain:
        return
    orders = [0] * problem.domain.dimension
    for block in objective.blocks[: len(problem.equations)]:
        for name, members in block.demand.fields.items():
            if name in problem.components:
                orders = [max(n, *(b[i] for b in members)) for i, n in enumerate(orders)]
    named: set[str] = set()
    for condition in problem.conditions:
        own = _named(condition, problem)
        if own is None:
            return
        named |= own
    names = problem.domain.names
    silent = [name for name, order in zip(names, orders, strict=True) if order and name not in named]
    if silent:
        low, _ = problem.interval(silent[0])
        what = "Initial(...)" if silent[0] == "t" else f"Dirichlet({silent[0]}={low:g}, value=...)"
        warnings.warn(
            f"no condition speaks of {' or '.join(silent)}, which the equations differentiate in: the "
            f"solution is not determined, and training finds any of them; add for example {what}",
            UndeterminedWarning,
            stacklevel=3,
        )


def _named(condition: Any, problem: Problem) -> set[str] | None:
    """Return the coordinates of whose ends a condition speaks; None for all of them, or who knows."""
    if isinstance(condition, Initial):
        return {condition.axis(problem)}
    if isinstance(condition, Periodic):
        return {condition.coordinate}
    if isinstance(condition, Located | Symmetry) and condition.on is None:
        return set(condition.coordinates)
    return None
