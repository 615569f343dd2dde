"""Time windows: a problem solved piece by piece in time, each from the end of the one before."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ntangent._base.check import check_positive
from ntangent._base.describe import describe
from ntangent._base.errors import ArgumentError, ProblemError
from ntangent._base.protocols import Stage
from ntangent.jet import Jet
from ntangent.jet.series import padded
from ntangent.pinn.conditions import Initial, Periodic, PointData
from ntangent.pinn.conditions.base import Located, chosen, given_points
from ntangent.pinn.domains import Box
from ntangent.pinn.handover import Coordinate, EndState, resolved
from ntangent.pinn.hard.along import plain
from ntangent.pinn.objective import PinnObjective
from ntangent.pinn.problem import Problem
from ntangent.pinn.solution import Solution
from ntangent.pinn.solve import as_module, default_sampler, finish, home, solve
from ntangent.run import Outcome, RunFolder, distribution, run_config

Network = nn.Module | Mapping[str, nn.Module]
FOLDER = "windows"
# Options of a run that do not decide its bits.
_TOLD_TO = ("callbacks", "progress", "checkpoint_every")


def march(
    problem: Problem,
    net: Network | Callable[[Any], Network],
    stages: Sequence[Stage],
    *,
    windows: int | Sequence[float],
    time: str = "t",
    warm: bool = False,
    run_dir: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    recipe: Mapping[str, Any] | None = None,
    **options: Any,
) -> Solution:
    """Solve a problem window by window in time: time marching.

    Long times are hard for one network: errors at early times spoil everything later, and what a network
    can represent is spread over the whole interval. Here each window has a network of its own, and
    begins with the end of the one before: every :class:`Initial` of the problem is replaced by the state
    that was reached, with as many time derivatives as it prescribes.

    A hard initial condition needs the former field with its derivatives in every evaluation. In a box of
    one or two other coordinates that state is kept to rounding as a series, of waves in those with a hard
    period and of Chebyshev polynomials in the others. Where that does not resolve it, or the domain is
    another, it is kept as the networks themselves, so that window k evaluates k of them (once, for points
    that stay).

    Args:
        problem: with an :class:`Initial` condition for every field that evolves. Other conditions are given
            by coordinates (``Dirichlet(x=0)``) or as data, which each window takes its part of.
        net: a network made for the whole domain, of which each window trains a copy that sees the time
            stretched to the whole interval; or a function of the window's domain that returns one:
            ``lambda domain: pinn.Normalise(nt.MLP(2, 1), domain)``.
        stages: optimisers of every window.
        windows: how many, equally long; or the times at which they meet.
        time: name of the time.
        warm: start each network from the one before, where the stages left it what it was.
        run_dir: folder of the whole run; the windows have folders of their own in ``windows/``.
        resume: continue the run of ``run_dir``: finished windows are read, not trained again.
        overwrite: replace a run that is already in ``run_dir``.
        recipe: name and options that rebuild the problem, kept in the configuration.
        options: passed on to :func:`solve` for every window: ``sampler``, ``weighting``, ``seed``, ...

    Returns:
        The solution on the whole domain: a field piecewise in time. Its network is a :class:`Windows`; loss
        and terms are those of the whole at points of the sampler, at the meeting times too.

    Raises:
        ProblemError: if the problem cannot be cut: it has no initial condition, unknowns, an extent of
            other times, or a condition that is bound to a part of the whole domain.
        ArgumentError: if the windows are not times of the problem in order.
        Others as for :func:`solve`.
    """
    if distribution.current() is not None:
        raise ArgumentError(
            "march runs in one process", "its windows follow each other", "solve each window by pinn.solve"
        )
    if isinstance(net, Mapping):
        net = as_module(net)
    _check(problem, time)
    edges = _edges(problem, time, windows)
    folder = None
    if run_dir is not None:
        config = _config(
            problem, net, stages, {"windows": edges, "warm": warm, "time": time}, recipe, options
        )
        if resume:
            folder = RunFolder.resume(run_dir, config)
        else:
            folder = RunFolder.create(run_dir, config, overwrite=overwrite)
    pieces: list[Solution] = []
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        last = pieces[-1] if pieces else None
        part = window(problem, time, low, high, last)
        start = _start(net, problem, part, time)
        if warm and last is not None:
            start = _taken_over(start, last.net)
        own: dict[str, Any] = {}
        if folder is not None:
            path = folder.path / FOLDER / f"{number + 1:03d}"
            begun = resume and (path / "config.json").exists()
            own = {"run_dir": path, "resume": begun, "overwrite": not begun}
        pieces.append(solve(part, start, stages, **own, **options))
    whole = _whole(problem, time, pieces, options)
    return _finish(whole, pieces, folder)


# --- one window -----------------------------------------------------------------------------------------


def window(problem: Problem, time: str, low: float, high: float, last: Solution | None) -> Problem:
    """Return a problem from one time to another, started from the end of another window's solution.

    Args:
        problem: over the whole time.
        time: its name.
        low: where the window begins.
        high: where it ends.
        last: the solution of the window before; None for the first.
    """
    conditions: list[Any] = []
    for condition in problem.conditions:
        if isinstance(condition, Initial) and condition.axis(problem) == time:
            conditions += [condition] if last is None else _started(condition, problem, time, last)
        elif isinstance(condition, PointData):
            conditions += _within(condition, problem, time, low, high)
        else:
            conditions.append(condition)
    domain = problem.domain.between(time, low, high)
    extent = None if problem.extent is None else problem.extent.between(time, low, high)
    return dataclasses.replace(problem, domain=domain, extent=extent, conditions=conditions)


def _started(condition: Initial, problem: Problem, time: str, last: Solution) -> list[Initial]:
    """Return an initial condition with the end of the last window as its data, one for each component."""
    field, components = chosen(problem, condition.field, condition.component)
    axis = problem.domain.names.index(time)
    _, end = last.problem.interval(time)
    separate = isinstance(last.net, nn.ModuleDict)
    names = list(problem.components)
    first = 0 if separate else sum(problem.components[n] for n in names[: names.index(field)])
    others = _others(problem, time, field) if condition.hard else None
    found = []
    for component in components:
        values: list[Any] = []
        for order in range(len(condition.values(problem))):
            state = EndState(
                last.problem, last.net, axis, end, first + component, order, field if separate else None
            )
            series = resolved(state, others) if others is not None else None
            values.append(series or state)
        found.append(
            Initial(
                *values, weight=condition.weight, time=condition.time, n=condition.n, seed=condition.seed,
                sampler=condition.sampler, field=field, component=component, hard=condition.hard,
            )
        )  # fmt: skip
    return found


def _others(problem: Problem, time: str, field: str) -> list[Coordinate] | None:
    """Return all coordinates but the time, if they span a box of one or two dimensions."""
    names = problem.domain.names
    closed = {
        c.coordinate
        for c in problem.conditions
        if isinstance(c, Periodic) and c.hard and c.field in (None, field)
    }
    others = [name for name in names if name != time]
    if len(others) not in (1, 2) or not isinstance(problem.domain, Box):
        return None
    ends = [(name, *problem.interval(name)) for name in others]
    return [Coordinate(names.index(name), low, high - low, name in closed) for name, low, high in ends]


def _within(data: PointData, problem: Problem, time: str, low: float, high: float) -> list[PointData]:
    """Return the part of measured data that lies in a window; points where windows meet belong to both."""
    points = given_points(data.points, problem, torch.float64, torch.device("cpu"))
    t = points[:, problem.domain.names.index(time)]
    inside = (t >= low) & (t <= high)
    if not bool(inside.any()):
        return []
    kept = inside.nonzero()[:, 0]

    def part(values: Any) -> Any:
        if isinstance(values, Mapping):
            return {name: part(own) for name, own in values.items()}
        return torch.as_tensor(values)[kept]

    return [dataclasses.replace(data, points=points[kept], values=part(data.values))]


def _taken_over(start: nn.Module, last: nn.Module) -> nn.Module:
    """Return a network with the parameters of the last window's, where it has the same ones."""
    old, own = last.state_dict(), dict(start.named_parameters())
    if {n: p.shape for n, p in own.items()} != {n: p.shape for n, p in last.named_parameters()}:
        raise ArgumentError(
            "warm=True, but the stages changed what is trained",
            "the network of the window before has other parameters than the one to start",
            "warm=False",
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(old[name])
    return start


class Stretched(nn.Module):
    """A network that sees one coordinate's interval stretched to another; a dense network stays dense.

    Args:
        net: maps (N, inputs) to (N, c).
        inputs: number of coordinates.
        axis: of the coordinate.
        seen: the interval it is made for.
        given: the interval it gets.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, net: nn.Module, inputs: int, axis: int, seen: tuple[float, float], given: tuple[float, float]
    ) -> None:
        super().__init__()
        first = next(net.parameters())
        weight, bias = torch.eye(inputs, dtype=torch.float64), torch.zeros(inputs, dtype=torch.float64)
        weight[axis, axis] = (seen[1] - seen[0]) / (given[1] - given[0])
        bias[axis] = seen[0] - given[0] * weight[axis, axis]
        self.net = net
        self.register_buffer("weight", weight.to(first))
        self.register_buffer("bias", bias.to(first))

    def forward(self, x: Tensor) -> Any:
        """Return the network at the stretched points."""
        return self.net(functional.linear(x, self.weight, self.bias))


def _start(net: Any, problem: Problem, part: Problem, time: str) -> nn.Module:
    """Return the network that a window starts from, or those of the fields."""
    if not isinstance(net, nn.Module):
        made: nn.Module = as_module(net(part.domain))
        return made
    net, seen, given = copy.deepcopy(net), problem.interval(time), part.interval(time)

    def own(one: nn.Module, inputs: Sequence[str]) -> nn.Module:
        return one if given == seen else Stretched(one, len(inputs), inputs.index(time), seen, given)

    if isinstance(net, nn.ModuleDict):
        return nn.ModuleDict({name: own(one, problem.inputs(name)) for name, one in net.items()})
    return own(net, problem.domain.names)


# --- what can be cut ---------------------------------------------------------------------------------------


def _check(problem: Problem, time: str) -> None:
    names = problem.domain.names
    if time not in names:
        raise ProblemError(
            f"the time {time!r} is no coordinate", f"they are {', '.join(names)}", f'time="{names[-1]}"'
        )
    if problem.unknowns:
        raise ProblemError(
            f"the problem has the unknown(s) {', '.join(problem.unknowns)}",
            "each window would find values of its own",
            "pinn.solve(problem, ...)",
        )
    if problem.extent is not None and problem.extent.interval(time) != problem.interval(time):
        raise ProblemError(
            f"the extent has other times than the domain: {problem.extent}",
            "windows are pieces of the time",
            f"extent=None, or one with {time}={problem.interval(time)}",
        )
    partial = [name for name in problem.components if time not in problem.inputs(name)]
    if partial:
        raise ProblemError(
            f"the field {partial[0]!r} does not depend on {time}",
            "each window would find another one",
            "pinn.solve(problem, ...)",
        )
    starts = [c for c in problem.conditions if isinstance(c, Initial) and c.axis(problem) == time]
    if not starts:
        raise ProblemError(
            "the problem has no initial condition", "windows hand their end on to it", "Initial(...)"
        )
    for condition in problem.conditions:
        if isinstance(condition, Located) and (condition.on is not None or time in condition.coordinates):
            raise ProblemError(
                f"{condition!r} is bound to a place in the whole time",
                "it would have to be cut with the windows",
                "name its place by coordinates, Dirichlet(x=0.0), and the start by Initial(...)",
            )


def _edges(problem: Problem, time: str, windows: Any) -> list[float]:
    """Return the ends of the windows, from the first time to the last."""
    low, high = problem.interval(time)
    if isinstance(windows, int) and not isinstance(windows, bool):
        count = int(check_positive(windows, "windows", integer=True))
        return [*(low + (high - low) * i / count for i in range(count)), high]
    if not isinstance(windows, Sequence) or isinstance(windows, str):
        raise ArgumentError(
            f"windows is {windows!r}", "it counts windows or lists the times where they meet", "windows=5"
        )
    inner = [float(t) for t in windows]
    edges = [low, *inner, high]
    if not all(math.isfinite(t) for t in inner) or any(a >= b for a, b in itertools.pairwise(edges)):
        raise ArgumentError(
            f"windows meet at {inner}",
            f"these are times between {low} and {high}, in increasing order",
            f"windows=[{(low + high) / 2}]",
        )
    return edges


# --- the whole ---------------------------------------------------------------------------------------------


class Windows(nn.Module):
    """A field piecewise in time: at each point, that of the window it lies in.

    Where two windows meet, the earlier one counts.

    Args:
        problems: of the windows.
        nets: their networks.
        axis: of the time.
        name: of the field where each has its network.
    """

    def __init__(
        self, problems: Sequence[Problem], nets: Sequence[nn.Module], axis: int, name: str | None = None
    ) -> None:
        super().__init__()
        self.problems, self.axis, self.name = tuple(problems), axis, name
        self.nets = nn.ModuleList(nets)
        coordinate = problems[0].domain.names[axis]
        self.meet = [problem.interval(coordinate)[1] for problem in problems[:-1]]

    def forward(self, x: Any) -> Any:
        """Return the fields at points, a tensor or a series of shape (N, d)."""
        series = plain(x)
        t = series.value[:, self.axis].detach().contiguous()
        which = torch.bucketize(t, t.new_tensor(self.meet))
        places, found, order = [], [], series.order
        for number, (problem, net) in enumerate(zip(self.problems, self.nets, strict=True)):
            place = (which == number).nonzero()[:, 0]
            if len(place):
                part = Jet(series.data[:, place], series.order, series.directions)
                u = problem.outputs(net, part, self.name)
                places.append(place)
                found.append(padded(u, order))
        if not places:
            empty = self.problems[0].outputs(self.nets[0], series, self.name)
            return empty.value if isinstance(x, Tensor) else empty
        back = torch.cat(places).argsort()
        data = torch.cat(found, 1)[:, back]
        return data[0] if isinstance(x, Tensor) else Jet(data, order, series.directions)


def _whole(
    problem: Problem, time: str, pieces: Sequence[Solution], options: Mapping[str, Any]
) -> PinnObjective:
    """Return the objective of the whole problem, at as many points as a window has."""
    axis = problem.domain.names.index(time)
    problems, nets = [piece.problem for piece in pieces], [piece.net for piece in pieces]
    net: nn.Module
    if isinstance(nets[0], nn.ModuleDict):
        names = list(problem.components)
        net = nn.ModuleDict({n: Windows(problems, [own[n] for own in nets], axis, n) for n in names})  # type: ignore[index]
    else:
        net = Windows(problems, nets, axis)
    # What the windows have built in, the pieces have.
    soft = [c for c in problem.conditions if not getattr(c, "hard", False)]
    first = pieces[0].objective
    sampler = options.get("sampler") or default_sampler(problem)
    points = sampler.points(problem.domain, first.dtype, first.device)
    stated = dataclasses.replace(problem, conditions=soft, ansatz=_as_it_is)
    return PinnObjective(stated, net, points, *first.settings)


def _as_it_is(net: Any, x: Any) -> Any:
    """The field itself: the windows apply the ansatz of the problem."""
    return net(x)


def _finish(objective: PinnObjective, pieces: Sequence[Solution], folder: RunFolder | None) -> Solution:
    """Return the solution on the whole domain, with what the windows did."""
    theta = objective.start()
    r = objective.residuals(theta)
    history, steps = [], 0
    for piece in pieces:
        own = piece.outcome.history
        history += [record._replace(step=record.step + steps) for record in own]
        steps += own[-1].step if own else 0
    outcome = Outcome(
        theta, float(r @ r), history,
        tuple(f"window {i + 1}: {why}" for i, piece in enumerate(pieces) for why in piece.outcome.reasons),
        sum(piece.outcome.seconds for piece in pieces),
        next((piece.outcome.stopped for piece in pieces if piece.outcome.stopped), None),
        tuple(note for piece in pieces for note in piece.outcome.warnings),
    )  # fmt: skip
    notes = {"windows": [{"loss": piece.loss, "seconds": piece.outcome.seconds} for piece in pieces]}
    return finish(objective, outcome, folder, notes=notes)


def _config(
    problem: Problem,
    net: Any,
    stages: Sequence[Stage],
    settings: Mapping[str, Any],
    recipe: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the configuration of the whole run."""
    given = dict(recipe or {"problem": "python", "options": {}})
    first = net if isinstance(net, nn.Module) else as_module(net(problem.domain))
    told = {name: describe(value) for name, value in options.items() if name not in _TOLD_TO}
    return run_config(
        dtype=home(first)[0], problem=given["problem"], options=given["options"], stages=stages,
        statement=describe(problem), network=describe(net), **{"seed": 0, **told, **settings},
    )  # fmt: skip
