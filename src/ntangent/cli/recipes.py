"""What can be solved by name: the problems of the catalogue, and a user's own file."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ntangent import optim
from ntangent._base.errors import NtangentError, ProblemError, UnknownNameError
from ntangent._base.protocols import Stage
from ntangent._base.registry import nearest_names
from ntangent.jet import MLP
from ntangent.pinn import Chebyshev, Problem, Sampler
from ntangent.pinn.solve import default_sampler
from ntangent.problems import CATALOGUE

METHODS = ("problem", "network", "sampler", "stages", "headline")
EXAMPLE = "problem = pinn.Problem(domain=pinn.Box(x=(0, 1)), equations=[lambda u, p: u.x + u], ...)"


@dataclass(frozen=True)
class Entry:
    """Something that ``ntangent solve`` takes.

    Args:
        name: as it is written into the configuration: a name of the catalogue or a file's path.
        label: name of its default run folder.
        kind: the class whose fields are its options.
        build: returns the recipe, given values for these fields.
        defaults: values that replace the defaults of the fields.
        hidden: fields without an option.
    """

    name: str
    label: str
    kind: type
    build: Callable[..., Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()


@dataclass(frozen=True)
class FileRecipe:
    """The problem of a user's file, with what the file leaves open filled in.

    An option is None where the file settles what it would decide.

    Args:
        module: the names that the file defines.
        seed: seed of the network.
        width: neurons in each hidden layer.
        depth: hidden layers.
        points: Chebyshev points in each coordinate; 128 in one, about 1000 together in several when None.
        iterations: budget of the Levenberg-Marquardt stage.
    """

    module: InitVar[Mapping[str, Any]]
    seed: int = 0
    width: int | None = 32
    depth: int | None = 2
    points: int | None = None
    iterations: int | None = 300

    def __post_init__(self, module: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_module", module)

    def _given(self, name: str) -> Any:
        return vars(self)["_module"].get(name)

    def problem(self) -> Problem:
        """Return the problem of the file."""
        problem: Problem = self._given("problem")
        return problem

    def network(self) -> nn.Module:
        """Return the file's ``net``, or a tanh network in float64."""
        net: nn.Module | None = self._given("net")
        if net is not None:
            return net
        assert self.width is not None
        assert self.depth is not None
        problem, generator = self.problem(), torch.Generator().manual_seed(self.seed)
        options: dict[str, Any] = {"width": self.width, "depth": self.depth, "dtype": torch.float64}
        names = problem.domain.names
        if all(problem.inputs(name) == names for name in problem.components):
            count = sum(problem.components.values())
            return MLP(len(names), count, **options, generator=generator)
        # A field of fewer coordinates has a network of its own.
        return nn.ModuleDict(
            {
                name: MLP(len(problem.inputs(name)), count, **options, generator=generator)
                for name, count in problem.components.items()
            }
        )

    def sampler(self) -> Sampler:
        """Return the file's ``sampler``, or Chebyshev points."""
        sampler: Sampler | None = self._given("sampler")
        if sampler is not None:
            return sampler
        return default_sampler(self.problem()) if self.points is None else Chebyshev(self.points)

    def stages(self) -> list[Stage]:
        """Return the file's ``stages``, or one of Levenberg-Marquardt."""
        stages: Sequence[Stage] | None = self._given("stages")
        if stages is not None:
            return list(stages)
        assert self.iterations is not None
        return [optim.LevenbergMarquardt(self.iterations)]

    def headline(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the unknowns, the errors where truth is known, and the residual."""
        numbers: dict[str, Any] = dict(result["unknowns"])
        numbers |= {f"{name}_error": error for name, error in result.get("unknown_errors", {}).items()}
        if "errors" in result:
            numbers["max_error"] = max(errors["max"] for errors in result["errors"].values())
        if "relative_l2" in result:
            numbers["relative_l2"] = result["relative_l2"]
        if "max_residual" in result:
            numbers["max_residual"] = result["max_residual"]
        return {**numbers, "seconds": result["seconds"]}


def find(name: str) -> Entry:
    """Return what a name or path stands for.

    Raises:
        UnknownNameError: it is neither in the catalogue nor a file; the nearest names are given.
        ProblemError: the file cannot be run or does not define a problem.
    """
    if name in CATALOGUE:
        return Entry(name, name, CATALOGUE[name], CATALOGUE[name])
    path = Path(name)
    if path.suffix == ".py" or path.is_file():
        return _from_file(path)
    raise UnknownNameError(
        f"unknown problem {name!r}",
        "it is neither a name of the catalogue nor a file ending in .py",
        f"{nearest_names(name, list(CATALOGUE))} (ntangent problems lists them)",
    )


def _from_file(path: Path) -> Entry:
    path = path.resolve()
    names = _run_file(path)
    if "recipe" in names:
        return _from_recipe(path, names["recipe"])
    if "problem" not in names:
        raise ProblemError(
            f"{path} defines neither 'problem' nor 'recipe'", "one of them is what is solved", EXAMPLE
        )
    _check(path, names, "problem", Problem, "a pinn.Problem")
    _check(path, names, "net", nn.Module, "a torch.nn.Module")
    _check(path, names, "sampler", None, "a sampler", ("points",))
    stages = names.get("stages")
    if stages is not None:
        wrong = [s for s in stages if not isinstance(s, Stage)] if isinstance(stages, Sequence) else [stages]
        if wrong or not stages:
            raise ProblemError(
                f"'stages' in {path} is {stages!r}",
                "it must be a list of stages, which run one after the other",
                "stages = [optim.LevenbergMarquardt(300)]",
            )
    settled = {"net": {"seed", "width", "depth"}, "sampler": {"points"}, "stages": {"iterations"}}
    hidden = {
        option for name, options in settled.items() if names.get(name) is not None for option in options
    }
    unused: dict[str, Any] = dict.fromkeys(hidden - {"seed"})  # the seed is 0 while the file runs
    return Entry(
        str(path),
        path.stem,
        FileRecipe,
        lambda **options: FileRecipe(names, **unused, **options),
        hidden=frozenset(hidden | {"module"}),
    )


def _from_recipe(path: Path, recipe: Any) -> Entry:
    # A class whose instances are recipes, or such an instance.
    lacking = [name for name in METHODS if not callable(getattr(recipe, name, None))]
    if lacking:
        raise ProblemError(
            f"'recipe' in {path} has no method {', '.join(lacking)}",
            f"a recipe has the methods {', '.join(METHODS)}",
            f"define {lacking[0]}(self), or define 'problem' alone: {EXAMPLE}",
        )
    if isinstance(recipe, type):
        return Entry(str(path), path.stem, recipe, recipe)
    if not hasattr(recipe, "seed"):
        raise ProblemError(f"'recipe' in {path} has no attribute seed", "it is recorded", "seed: int = 0")
    if not dataclasses.is_dataclass(type(recipe)):
        return Entry(str(path), path.stem, type(recipe), lambda: recipe)
    kind: type[Any] = type(recipe)
    values = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe) if f.init}
    return Entry(str(path), path.stem, kind, kind, values)


def _check(
    path: Path,
    names: Mapping[str, Any],
    name: str,
    kind: type | None,
    what: str,
    methods: tuple[str, ...] = (),
) -> None:
    """Raise unless a name is absent or of the right kind."""
    value = names.get(name)
    if value is None and name != "problem":
        return
    if (kind is not None and not isinstance(value, kind)) or not all(hasattr(value, m) for m in methods):
        raise ProblemError(
            f"{name!r} in {path} is {type(value).__name__}",
            f"it must be {what}",
            EXAMPLE if name == "problem" else f"leave {name!r} out to get the default",
        )


def _run_file(path: Path) -> dict[str, Any]:
    """Run a Python file and return its names; the global seed is 0 while it runs.

    Its folder can be imported from, as for a script, and ``__name__`` is not "__main__".
    """
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ProblemError(f"{path} cannot be read", str(reason), "correct the path") from error
    module = types.ModuleType(f"ntangent_user_file_{path.stem}")
    module.__file__ = str(path)
    # Dataclasses look up their module by name; the file's neighbours are importable as for a script.
    sys.modules[module.__name__] = module
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    torch.manual_seed(0)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except NtangentError:
        raise
    except Exception as error:
        raise ProblemError(
            f"{path} cannot be run: {type(error).__name__}: {error}",
            _place(error, path),
            "correct the file; --traceback shows the whole way there",
        ) from error
    return vars(module)


def _place(error: Exception, path: Path) -> str:
    """Return the line of the user's file at which an error came up."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {(error.text or '').strip()}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if not frames:
        return ""
    line = frames[-1].lineno or 0
    text = inspect.cleandoc(frames[-1].line or "")
    return f"line {line}: {text}"
