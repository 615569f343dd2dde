"""The table of problems: name -> a frozen dataclass whose fields are the problem's options."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ntangent import optim
from ntangent._base.check import check_order, check_positive
from ntangent._base.describe import describe
from ntangent._base.protocols import Stage
from ntangent._base.registry import Registry
from ntangent.jet import MLP
from ntangent.nn import PeriodicEmbedding
from ntangent.pinn import Chebyshev, Periodic, Problem, Sampler, Sobol, Solution, Spectral, march, solve
from ntangent.problems.reference import PeriodicSolution
from ntangent.run import Callback, distribution

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


@dataclass(frozen=True)
class Published:
    """The best error that the literature reports.

    Args:
        error: relative L2 error of the field.
        cost: what it took.
        source: where it stands.
    """

    error: float
    cost: str
    source: str


@dataclass(frozen=True)
class Standard:
    """What most problems share: a tanh network, Levenberg-Marquardt, then a polish.

    A subclass states the problem and overrides what suits it better.

    Args:
        seed: seed of the network, the points and the features of the polish.
        width: neurons in each hidden layer.
        depth: hidden layers.
        points: collocation points.
        iterations: budget of the Levenberg-Marquardt stage; with 0 the network is zero, and the polish
            alone finds the field, which is best for smooth solutions of linear problems.
        features: random features of the polish that follows; 0 for none.
        windows: pieces of the time, solved one after the other; more than 1 for problems with initial
            conditions only.
    """

    seed: int = 0
    width: int = 20
    depth: int = 2
    points: int = 1000
    iterations: int = 200
    features: int = 0
    windows: int = 1

    harmonics: ClassVar[int] = 1
    """Harmonics of the embedding of a periodic coordinate."""

    published: ClassVar[tuple[Published, ...]] = ()
    """The errors to compare with."""

    newton: ClassVar[int] = 3
    """Budget of the polish: of a linear problem the first step finds the minimum, the others round less."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "points", "windows"):
            check_positive(getattr(self, name), name, integer=True)
        for name in ("seed", "iterations", "features"):
            check_order(getattr(self, name), name)

    def problem(self) -> Problem:
        """Return the problem."""
        raise NotImplementedError

    def network(self) -> nn.Module:
        """Return the network, float64: one input for each coordinate, one output for each component.

        Coordinates of a hard periodic condition pass through an embedding.
        """
        problem = self.problem()
        inputs, outputs = problem.domain.dimension, sum(problem.components.values())
        closed = {c.coordinate for c in problem.conditions if isinstance(c, Periodic) and c.hard}
        periods = [high - low if name in closed else None for name, low, high in problem.box.intervals]
        first: list[nn.Module] = []
        if any(periods):
            embedding = PeriodicEmbedding(periods, self.harmonics)
            first, inputs = [embedding], embedding.features
        network = MLP(
            inputs, outputs, width=self.width, depth=self.depth, dtype=torch.float64, generator=self.seed
        )
        if not self.iterations:
            # Nothing trains it: left out, it leaves the polish less to undo.
            last = network[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        return nn.Sequential(*first, *network) if first else network

    def sampler(self) -> Sampler:
        """Return the sampler of the collocation points."""
        return Sobol(self.points, seed=self.seed)

    def slope(self) -> float | tuple[float, ...]:
        """Return the largest slope of a feature of the polish.

        It is a little above the highest wave number of the solution, in a box of width 2.
        """
        return 6.0

    def stages(self) -> list[Stage]:
        """Return the stages of training."""
        stages: list[Stage] = []
        if self.iterations:
            stages.append(optim.LevenbergMarquardt(self.iterations))
        if self.features:
            # Four rows for each feature, so that the residual is small between the points too.
            density = max(1, round(4 * self.features / self.points))
            stages.append(
                optim.Polish(
                    self.newton,
                    features=self.features,
                    slope=self.slope(),
                    density=density,
                    seed=self.seed,
                    activation="sin",
                )
            )
        return stages

    def headline(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the numbers that a user of this problem asks for.

        Args:
            result: what ``Solution.summary`` returned.
        """
        numbers: dict[str, Any] = dict(result.get("unknowns", {}))
        numbers |= {f"{name}_error": error for name, error in result.get("unknown_errors", {}).items()}
        errors = result.get("errors", {})
        if "relative_l2" in result:
            numbers["relative_l2"] = result["relative_l2"]
        if len(errors) > 1:
            numbers |= {f"relative_l2_{name}": own["relative_l2"] for name, own in errors.items()}
        if errors:
            numbers["max_error"] = max(own["max"] for own in errors.values())
        if "max_residual" in result:
            numbers["max_residual"] = result["max_residual"]
        return {**numbers, "seconds": result["seconds"]}


@dataclass(frozen=True)
class Expanded(Standard):
    """A problem by a basis of waves and polynomials, unless it has iterations or features.

    With these it is a :class:`Standard` problem, a network or random sines. Without, which is the default,
    width, depth and points do not count.
    """

    iterations: int = 0

    def modes(self) -> tuple[int, ...]:
        """Return the highest mode in each coordinate."""
        raise NotImplementedError

    def grid(self) -> Sampler:
        """Return the sampler of the points that suit the basis."""
        raise NotImplementedError

    def sampler(self) -> Sampler:
        """Return the sampler of the collocation points."""
        return super().sampler() if self.iterations or self.features else self.grid()

    def stages(self) -> list[Stage]:
        """Return the stages of training."""
        if self.iterations or self.features:
            return super().stages()
        return [optim.Polish(self.newton, modes=self.modes(), density=1)]


@dataclass(frozen=True)
class Marching(Expanded):
    """A problem in x and t by waves or polynomials of x times polynomials of t, in time windows.

    Args:
        waves: largest wave number of x; largest degree where x has ends.
        degree: largest degree in t of what is added to the start of a window, over t.
    """

    waves: int = 100
    degree: int = 8

    periodic: ClassVar[bool] = True
    """Whether x has a hard period."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("waves", "degree"):
            check_positive(getattr(self, name), name, integer=True)

    def modes(self) -> tuple[int, ...]:
        """Return the highest modes of x and of t."""
        return self.waves, self.degree

    def grid(self) -> Sampler:
        """Return the sampler of the points that suit the basis.

        There are a quarter more points in x than functions, and in t two more: the equations are not
        interpolated but fitted, which damps what decays within a window.
        """
        functions = 2 * self.waves if self.periodic else self.waves
        count = math.ceil(1.25 * functions)
        return Spectral(x=count, t=self.degree + 3, periodic="x" if self.periodic else ())


@dataclass(frozen=True)
class Refined(Standard):
    """A problem in one coordinate: a network, and then polynomials that find its last digits.

    Args:
        degree: of the polynomials; 0 for the network alone. It is that of the solution and of the network's
            error, which is less smooth.
    """

    degree: int = 140

    newton = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self.degree, "degree")

    def sampler(self) -> Sampler:
        """Return the sampler of the collocation points: twice as many as polynomials, or more."""
        return Chebyshev(max(self.points, 2 * self.degree + 20 if self.degree else 0))

    def stages(self) -> list[Stage]:
        """Return the stages of training."""
        last = [optim.Polish(self.newton, modes=self.degree, density=1)] if self.degree else []
        return [*super().stages(), *last]


CATALOGUE: Registry[type[Recipe]] = Registry("problem")


@dataclass
class Earlier:
    """A callback that keeps the attempts before this one in the checkpoints, for a resumed run."""

    attempts: list[dict[str, Any]] = field(default_factory=list)

    def on_step(self, _record: Any) -> None:
        """Nothing to note."""

    def on_stage(self, _record: Any) -> None:
        """Nothing to note."""

    def on_end(self, _outcome: Any) -> None:
        """Nothing to note."""

    def state_dict(self) -> dict[str, Any]:
        """Return the attempts."""
        return {"attempts": list(self.attempts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the attempts of the run that is resumed."""
        self.attempts[:] = state["attempts"]


def catalogued(name: str) -> Callable[[type[Any]], type[Any]]:
    """Return a decorator that puts a recipe into the catalogue."""

    def add(kind: type[Any]) -> type[Any]:
        CATALOGUE.add(name, kind)
        return kind

    return add


def run(name: str, recipe: Recipe, **options: Any) -> Solution:
    """Solve a problem of the catalogue with its own network, points and stages.

    A recipe that objects to its result is followed by its next attempt, in the same run folder,
    which holds the files of the last attempt only. Its result has the seconds of all of them, and
    in ``earlier_attempts`` those of each with the objection. When no attempt is left, the last result
    is returned and the objection logged; ``Recipe.objection`` says it again.

    Args:
        name: its name in the catalogue.
        recipe: the problem with its options.
        options: passed on to :func:`ntangent.pinn.solve` (``run_dir``, ``resume``, ...).
    """
    earlier = Earlier()
    while True:
        solution = _run_once(name, recipe, earlier, **options)
        last = solution.outcome.seconds
        if earlier.attempts:
            _count(solution, earlier.attempts)
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
        earlier.attempts.append({"seconds": last, "objection": reason})
        recipe, options = following, {**options, "resume": False, "overwrite": True}


def _count(solution: Solution, attempts: Sequence[dict[str, Any]]) -> None:
    """Add what earlier attempts took to a result."""
    seconds = solution.outcome.seconds + sum(attempt["seconds"] for attempt in attempts)
    solution.outcome = replace(solution.outcome, seconds=seconds)
    solution.notes["earlier_attempts"] = [dict(attempt) for attempt in attempts]
    if solution.folder is not None:
        solution.folder.write_result(solution.summary())


def _run_once(
    name: str, recipe: Recipe, earlier: Earlier, *, callbacks: Sequence[Callback] = (), **options: Any
) -> Solution:
    windows = getattr(recipe, "windows", 1)
    method: Callable[..., Solution] = solve if windows == 1 else partial(march, windows=windows)
    return method(
        recipe.problem(),
        recipe.network(),
        recipe.stages(),
        sampler=recipe.sampler(),
        seed=recipe.seed,
        recipe={"problem": name, "options": describe(recipe)},
        callbacks=[earlier, *callbacks],
        **options,
    )


def on_arrays(function: Callable[..., Any], *coordinates: Tensor) -> Tensor:
    """Return what a function of float64 vectors gives at coordinates of any common shape, as their kind."""
    first = coordinates[0]
    values = function(*(c.detach().cpu().double().reshape(-1).numpy() for c in coordinates))
    return torch.as_tensor(values).reshape(first.shape).to(first)


def spectral(solution: Callable[[], PeriodicSolution]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a reference u(x, t) that solves the equation when it is first asked for."""

    def exact(x: Tensor, t: Tensor) -> Tensor:
        return on_arrays(solution(), x, t)

    return exact
