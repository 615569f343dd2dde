"""The table of problems: name -> a frozen dataclass whose fields are the problem's options."""

from __future__ import annotations

import logging
from typing import Any, Protocol, runtime_checkable

from torch import nn

from ntangent._base.describe import describe
from ntangent._base.protocols import Stage
from ntangent._base.registry import Registry
from ntangent.pinn import Problem, Sampler, Solution, solve
from ntangent.run import distribution

_log = logging.getLogger("ntangent.problems")


class Recipe(Protocol):
    """A problem with everything that solves it well by default.

    Its dataclass fields become the options of ``ntangent solve NAME``; their documentation is
    taken from the ``Args`` of the docstring.
    """

    @property
    def seed(self) -> int:
        """Seed of the network."""
        ...

    def problem(self) -> Problem:
        """Return the problem."""
        ...

    def network(self) -> nn.Module:
        """Return the network."""
        ...

    def sampler(self) -> Sampler:
        """Return the sampler of the collocation points."""
        ...

    def stages(self) -> list[Stage]:
        """Return the stages of training."""
        ...

    def headline(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the numbers that a user of this problem asks for."""
        ...


@runtime_checkable
class Restarting(Recipe, Protocol):
    """A recipe that can tell a wrong result from a right one, and knows another start."""

    def objection(self, solution: Solution) -> str | None:
        """Return why the result is not what was asked for, or None if it is."""
        ...

    def again(self) -> Recipe | None:
        """Return the recipe of the next attempt, or None if there is none."""
        ...


CATALOGUE: Registry[type[Recipe]] = Registry("problem")


def run(name: str, recipe: Recipe, **options: Any) -> Solution:
    """Solve a problem of the catalogue with its own network, points and stages.

    A recipe that objects to its result is followed by its next attempt, in the same run folder,
    which holds the last attempt only. When none is left, the last result is returned and the
    objection logged; ``Recipe.objection`` says it again.

    Args:
        name: its name in the catalogue.
        recipe: the problem with its options.
        options: passed on to :func:`ntangent.pinn.solve` (``run_dir``, ``resume``, ...).
    """
    while True:
        solution = _run_once(name, recipe, **options)
        reason = recipe.objection(solution) if isinstance(recipe, Restarting) else None
        if (team := distribution.current()) is not None:
            reason = team.share(reason)
        if reason is None:
            return solution
        following = recipe.again() if isinstance(recipe, Restarting) else None
        if distribution.leads():
            _log.warning("%s: %s; %s", name, reason, "starting again" if following else "no attempt is left")
        if following is None:
            return solution
        recipe, options = following, {**options, "resume": False, "overwrite": True}


def _run_once(name: str, recipe: Recipe, **options: Any) -> Solution:
    return solve(
        recipe.problem(),
        recipe.network(),
        recipe.stages(),
        sampler=recipe.sampler(),
        seed=recipe.seed,
        recipe={"problem": name, "options": describe(recipe)},
        **options,
    )
