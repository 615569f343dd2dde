"""The table of problems: name -> a frozen dataclass whose fields are the problem's options."""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn

from ntangent._base.describe import describe
from ntangent._base.protocols import Stage
from ntangent._base.registry import Registry
from ntangent.pinn import Problem, Sampler, Solution, solve


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


CATALOGUE: Registry[type[Recipe]] = Registry("problem")


def run(name: str, recipe: Recipe, **options: Any) -> Solution:
    """Solve a problem of the catalogue with its own network, points and stages.

    Args:
        name: its name in the catalogue.
        recipe: the problem with its options.
        options: passed on to :func:`ntangent.pinn.solve` (``run_dir``, ``resume``, ...).
    """
    return solve(
        recipe.problem(),
        recipe.network(),
        recipe.stages(),
        sampler=recipe.sampler(),
        seed=recipe.seed,
        recipe={"problem": name, "options": describe(recipe)},
        **options,
    )
