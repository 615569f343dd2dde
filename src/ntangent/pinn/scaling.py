"""A problem in characteristic scales: every coordinate, field and residual of size one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_choice, check_positive
from ntangent._base.errors import ProblemError
from ntangent.pinn.arguments import at_points, bind
from ntangent.pinn.domains import Box
from ntangent.pinn.equation import Block, Equation, Fields, residual_block
from ntangent.pinn.field import Field, Parameters, Root
from ntangent.pinn.indices import Indices
from ntangent.pinn.passes import Pass
from ntangent.pinn.problem import Problem
from ntangent.pinn.reference import gives_derivatives
from ntangent.pinn.sampling import Uniform
from ntangent.pinn.solution import Solution

_PHASES, _POINTS = 8, 64


@dataclass(frozen=True)
class Scales:
    """Characteristic sizes, in the user's units.

    Args:
        coordinates: size of a unit of each scaled coordinate: x = size · ξ.
        fields: size of each field: u = size · v.
    """

    coordinates: Mapping[str, float]
    fields: Mapping[str, float]

    def rows(self, over: Indices, size: float, inverse: bool = False) -> list[float]:
        """Return the factor of every coefficient when ξ becomes x and values are multiplied by ``size``."""
        sizes = [self.coordinates[name] for name in over.names]
        sign = 1 if inverse else -1
        return [
            size * math.prod(s ** (sign * n) for s, n in zip(sizes, b, strict=True)) for b in over.members
        ]

    def physical(self, field: Field, size: float) -> Field:
        """Return ``size`` · field as a function of the user's coordinates."""
        if field.note is not None:  # a recorder: which derivatives are taken does not depend on scales
            return field
        root = field.root
        if root is None:
            return Field(_jet(field, self.rows(field.indices, size)), field.indices)
        factors = self.rows(root.indices, size)
        return Root(_times(root.data, factors), root.indices, root.within).at(field.offset)

    def scaled(self, field: Field, size: float) -> Field:
        """Return field / ``size`` as a function of the scaled coordinates."""
        if field.note is not None:
            return field
        return Field(_jet(field, self.rows(field.indices, 1 / size, inverse=True)), field.indices)

    def all_physical(self, fields: Fields, coordinates: Fields) -> tuple[dict[str, Field], dict[str, Field]]:
        """Return fields and coordinates in the user's units."""
        return (
            {name: self.physical(field, self.fields[name]) for name, field in fields.items()},
            {name: self.physical(x, self.coordinates[name]) for name, x in coordinates.items()},
        )

    def points(self, points: Tensor, names: Sequence[str]) -> Tensor:
        """Return points in scaled coordinates, shape (N, d)."""
        return points / points.new_tensor([self.coordinates[name] for name in names])


def _times(data: Tensor, factors: Sequence[float]) -> Tensor:
    scale = data.new_tensor(factors[: len(data)])
    return data * scale.view(-1, *[1] * (data.ndim - 1))


def _jet(field: Field, factors: Sequence[float]) -> Any:
    copy = Field(field, field.indices)
    copy.data = _times(field.data, factors)
    return copy


@dataclass(frozen=True)
class _ScaledCondition:
    """A condition of the original problem, read at scaled fields."""

    condition: Any
    original: Problem
    scales: Scales

    def blocks(self, problem: Problem, dtype: torch.dtype, device: torch.device) -> list[Block]:
        """Return the original blocks, each row divided by its size at fields of size one."""
        found = []
        for block in self.condition.blocks(self.original, dtype, device):
            bare = self._block(block)
            sizes = _sizes(problem, bare)
            found.append(replace(bare, rows=_divided(bare.rows, sizes)))
        return found

    def _block(self, block: Block) -> Block:
        def rows(fields: Fields, p: Parameters, coordinates: Fields) -> Tensor:
            return block.rows(*_in_between(self.scales.all_physical(fields, coordinates), p))

        return replace(block, points=self.scales.points(block.points, self.original.domain.names), rows=rows)


def _in_between(pair: tuple[Any, Any], p: Parameters) -> tuple[Any, Parameters, Any]:
    return pair[0], p, pair[1]


def _divided(rows: Callable[..., Tensor], sizes: Tensor) -> Callable[..., Tensor]:
    return lambda fields, p, coordinates: rows(fields, p, coordinates) / sizes


def _sizes(problem: Problem, block: Block) -> Tensor:
    """Return the root mean square of each row at smooth fields of size one, shape (C, 1).

    The fields are sin(ξ_1 + ... + ξ_d + φ), whose derivatives are all of size one, with φ going
    round the circle: at no point is the mean over φ zero by chance. A row that is zero there has
    size 1.
    """
    total = torch.zeros(len(block.weights), dtype=block.points.dtype, device=block.points.device)
    p = Parameters({n: block.points.new_tensor(u.start) for n, u in problem.unknowns.items()})
    partial = any(problem.inputs(name) != problem.domain.names for name in problem.components)
    one = Pass(problem, [[(0, block, slice(0, block.count))]])
    for k in range(_PHASES):
        phase = 2 * math.pi * k / _PHASES
        nets = {name: _wave(count, phase) for name, count in problem.components.items()}
        net = nets if partial else _wave(sum(problem.components.values()), phase)
        with torch.no_grad():
            for _, rows in one.rows(net, lambda _: p):
                total = total + rows.square().mean(dim=1)
    sizes = (total / _PHASES).sqrt()
    return torch.where(torch.isfinite(sizes) & (sizes > 0), sizes, torch.ones_like(sizes))[:, None]


def _wave(count: int, phase: float) -> Callable[[Any], Any]:
    def net(x: Any) -> Any:
        argument = x.sum(-1, keepdim=True)
        parts = [torch.sin(argument + (phase + j)) for j in range(count)]
        return parts[0] if count == 1 else torch.cat(parts, -1)

    return net


@dataclass(frozen=True)
class _ScaledEquation:
    """An equation of the original problem as a function of scaled fields, of size about one."""

    function: Any
    original: Problem
    scales: Scales
    size: float = 1.0

    def __post_init__(self) -> None:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        given = inspect.Signature([inspect.Parameter(name, kind) for name in self._names()])
        object.__setattr__(self, "__signature__", given)

    def _names(self) -> list[str]:
        """Return which fields, parameters and coordinates the user's function takes."""
        taken: list[str] = []

        class Scope(dict[str, Any]):
            def __missing__(self, name: str) -> None:
                taken.append(name)

        bind(_Like(self.function), list(self.original.components), self.original.domain.names)(Scope())
        return taken

    def __call__(self, *arguments: Any) -> Any:
        names = list(self.__signature__.parameters)  # type: ignore[attr-defined]
        given = dict(zip(names, arguments, strict=True))
        fields, coordinates = self.original.components, self.original.domain.names
        physical, x = self.scales.all_physical(
            {name: value for name, value in given.items() if name in fields},
            {name: value for name, value in given.items() if name in coordinates},
        )
        result = bind(self.function, list(fields), coordinates)({**given, **physical, **x})
        return self.scales.scaled(result, self.size) if isinstance(result, Field) else result


class _Like:
    """Takes the arguments of a function and does nothing."""

    def __init__(self, function: Any) -> None:
        self.__signature__ = inspect.signature(function)

    def __call__(self, *arguments: Any, **named: Any) -> None:
        pass


@dataclass(frozen=True)
class Nondimensional:
    """A problem in characteristic scales, and the way back.

    Args:
        problem: the equivalent problem; its unknowns are those of the original, in their own units.
        original: the problem in the user's units.
        scales: the sizes.
    """

    problem: Problem
    original: Problem
    scales: Scales

    def restore(self, solution: Solution) -> Restored:
        """Return a solution of ``problem`` as a function in the user's units."""
        if solution.problem is not self.problem:
            raise ProblemError(
                "the solution is of another problem",
                "the scales belong to this one",
                "scaled.restore(pinn.solve(scaled.problem, net, stages))",
            )
        return Restored(solution, self.scales)


class Restored:
    """A solution in the user's units.

    Args:
        solution: of the scaled problem.
        scales: the sizes.
    """

    def __init__(self, solution: Solution, scales: Scales) -> None:
        self.solution, self.scales = solution, scales

    @property
    def unknowns(self) -> dict[str, float]:
        """The unknowns that were found: they never were in other units."""
        return dict(self.solution.unknowns)

    def _scaled(self, points: Any, coordinates: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        objective, names = self.solution.objective, self.solution.problem.domain.names
        sizes = [self.scales.coordinates[name] for name in names]
        if points is not None:
            points = torch.as_tensor(points, dtype=objective.dtype, device=objective.device)
            flat = points.ndim < 2
            points = points / (sizes[0] if flat else points.new_tensor(sizes))
        return points, {n: torch.as_tensor(x) / self.scales.coordinates[n] for n, x in coordinates.items()}

    def __call__(self, points: Any = None, **coordinates: Any) -> Any:
        """Return the fields at points; as a call of :class:`Solution`, in the user's units."""
        at, named = self._scaled(points, coordinates)
        values = self.solution(at, **named)
        if isinstance(values, Mapping):
            return {name: value * self.scales.fields[name] for name, value in values.items()}
        return values * next(iter(self.scales.fields.values()))

    def derivative(
        self, by: str | Mapping[str, int], points: Any = None, *, field: str | None = None, **coordinates: Any
    ) -> Tensor:
        """Return a partial derivative, as :meth:`Solution.derivative`, in the user's units."""
        at, named = self._scaled(points, coordinates)
        value = self.solution.derivative(by, at, field=field, **named)
        names = self.solution.problem.domain.names
        if isinstance(by, str):
            by = {by: 1} if by in names else {name: by.count(name) for name in names}
        size = self.scales.fields[field or next(iter(self.scales.fields))]
        return value * (size / math.prod(self.scales.coordinates[name] ** n for name, n in by.items()))


def nondimensionalise(
    problem: Problem,
    *,
    length: float | Mapping[str, float] = 1.0,
    time: float = 1.0,
    field: float | Mapping[str, float] = 1.0,
    clock: str = "t",
) -> Nondimensional:
    """Return the equivalent problem in characteristic scales.

    x = length · ξ, t = time · τ, u = field · v. The equations and conditions are the user's own
    functions, evaluated at fields in the user's units; each residual is then divided by its root
    mean square at smooth v of size one, so that all terms of the loss start on one scale and
    weights mean emphasis.

    Args:
        problem: in the user's units, on a box, with soft conditions.
        length: size of all coordinates but ``clock``, or of each by name (1 for one not named).
        time: size of ``clock``.
        field: size of all fields, or of each by name (1 for one not named).
        clock: name of the time coordinate; need not exist.

    Raises:
        ProblemError: if the domain is not a box or a condition is hard: an ansatz is scaled with the
            network (``Normalise``).
        ArgumentError, UnknownNameError: if a size is not positive, or a name is none of the problem's.
    """
    domain = problem.domain
    if not isinstance(domain, Box) or not isinstance(problem.extent, Box | None):
        raise ProblemError(
            f"the domain is {domain!r}",
            "coordinates are scaled one by one, on a box",
            "Normalise(net, domain)",
        )
    if any(getattr(condition, "hard", False) for condition in problem.conditions):
        raise ProblemError(
            "a condition is hard", "its construction is in the user's units", "Normalise(net, domain)"
        )
    sizes = _named(length, [n for n in domain.names if n != clock], "length")
    if clock in domain.names:
        sizes[clock] = check_positive(time, "time")
    fields = _named(field, list(problem.components), "field")
    scales = Scales({n: float(sizes[n]) for n in domain.names}, {n: float(v) for n, v in fields.items()})
    bare = replace(
        problem,
        domain=_box(domain, scales),
        extent=None if problem.extent is None else _box(problem.extent, scales),
        equations=[_ScaledEquation(function, problem, scales) for function in problem.equations],
        conditions=[_ScaledCondition(condition, problem, scales) for condition in problem.conditions],
        ansatz=_ansatz(problem, scales),
        reference=None if problem.reference is None else _reference(problem, scales),
    )
    points = Uniform(_POINTS).points(bare.domain, torch.float64, torch.device("cpu"))
    found = [bare.equation(i) for i in range(len(bare.equations))]
    pairs = zip(problem.equations, found, strict=True)
    equations = [_ScaledEquation(f, problem, scales, _size(bare, e, points)) for f, e in pairs]
    return Nondimensional(replace(bare, equations=equations), problem, scales)


def _size(problem: Problem, equation: Equation, points: Tensor) -> float:
    return float(_sizes(problem, residual_block(equation.name, equation, points, 1.0)))


def _named(given: Any, names: Sequence[str], what: str) -> dict[str, float]:
    if not isinstance(given, Mapping):
        return dict.fromkeys(names, check_positive(given, what))
    for name, value in given.items():
        check_choice(name, names, f"{what} of")
        check_positive(value, f"{what}[{name!r}]")
    return {name: given.get(name, 1.0) for name in names}


def _box(box: Box, scales: Scales) -> Box:
    sizes = scales.coordinates
    return Box(**{name: (low / sizes[name], high / sizes[name]) for name, low, high in box.intervals})


def _ansatz(problem: Problem, scales: Scales) -> Any:
    """Return the ansatz between scaled coordinates and scaled fields."""
    lengths = [scales.coordinates[name] for name in problem.domain.names]
    outputs = [scales.fields[name] for name, count in problem.components.items() for _ in range(count)]

    def ansatz(net: Any, x: Any) -> Any:
        like = x.value if hasattr(x, "value") else x
        size, unit = like.new_tensor(lengths), like.new_tensor(outputs)

        def physical(y: Any) -> Any:
            return net(y / size) * unit

        return problem.ansatz(physical, x * size) / unit

    # The network itself stays itself, with its fastest kernels.
    return problem.ansatz if problem.ansatz.__name__ == "plain" else ansatz


def _reference(problem: Problem, scales: Scales) -> Any:
    """Return the exact solution in scaled coordinates."""
    names = problem.domain.names
    if gives_derivatives(problem):
        length, size = scales.coordinates[names[0]], next(iter(scales.fields.values()))

        def rows(x: Tensor, order: int) -> Tensor:
            assert problem.reference is not None
            values = torch.as_tensor(problem.reference(x * length, order))
            return values * values.new_tensor([length**k / size for k in range(order + 1)])[:, None]

        return rows

    def fields(points: Tensor) -> Any:
        at = points * points.new_tensor([scales.coordinates[name] for name in names])
        given = at_points(problem.reference, names, at, "reference")
        if isinstance(given, Mapping):
            return {name: value / scales.fields[name] for name, value in given.items()}
        if isinstance(given, list | tuple):
            return [value / size for value, size in zip(given, scales.fields.values(), strict=True)]
        return given / next(iter(scales.fields.values()))

    return fields
