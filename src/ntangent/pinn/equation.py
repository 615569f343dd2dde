"""An equation of a problem, and what it needs to be evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ntangent._base.errors import DtypeError, ProblemError, ShapeError
from ntangent.pinn.arguments import PARAMETERS, bind
from ntangent.pinn.field import Field, Note, Parameters, recorder
from ntangent.pinn.indices import Indices, MultiIndex, indices, sums, up_to

Fields = Mapping[str, Field]


@dataclass(frozen=True)
class Demand:
    """What residual rows need of the fields.

    Args:
        fields: for every field and coordinate that goes in, the coefficients it is needed with.
        within: the coefficients that the computation carries; {0} where values are enough.
    """

    fields: Mapping[str, frozenset[MultiIndex]]
    within: frozenset[MultiIndex] = field(default_factory=frozenset)

    def key(self) -> tuple[Any, ...]:
        """Return a hashable form."""
        return (tuple(sorted((n, tuple(sorted(s))) for n, s in self.fields.items())), self.within)


@dataclass(frozen=True)
class Block:
    """Residual rows that share their points.

    Args:
        name: label in metrics and reports.
        points: shape (N, d).
        demand: what the rows need.
        rows: maps fields, parameters and coordinates, by name, to residuals, shape (C, N / fold).
        weights: weight of the mean square of each row, shape (C,).
        fold: how many points a residual depends on: residual i on the points i, i + N/fold, ...
        normals: outward unit normals, shape (N, d), on a boundary.
        free: whether ``rows`` serves any other points as well, so that they can be cut or replaced.
    """

    name: str
    points: Tensor
    demand: Demand
    rows: Callable[[Fields, Parameters, Fields], Tensor]
    weights: Tensor
    fold: int = 1
    normals: Tensor | None = None
    free: bool = False

    @property
    def count(self) -> int:
        """Residuals in each row."""
        return len(self.points) // self.fold


@dataclass(frozen=True)
class Equation:
    """A function of fields, with what evaluating it once has shown.

    Args:
        name: label in messages.
        call: the function of named values.
        note: which derivatives it takes.
        coordinates: names of the coordinates.
    """

    name: str
    call: Callable[[Mapping[str, Any]], Any]
    note: Note
    coordinates: tuple[str, ...]

    @property
    def order(self) -> int:
        """The highest derivative of a field in it."""
        return max((sum(b) for name, b in self.note.uses if name not in self.coordinates), default=0)

    def demand(self, wanted: Iterable[MultiIndex]) -> Demand:
        """Return what the residual's coefficients ``wanted`` (and those below them) need."""
        wanted = list(wanted)
        needs: dict[str, set[MultiIndex]] = {}
        for name, by in self.note.uses:
            needs.setdefault(name, set()).update(sums(wanted, [by]))
        zero = (0,) * len(self.coordinates)
        within = sums(wanted, {zero, *self.note.composites})
        return Demand({name: frozenset(s) for name, s in needs.items()}, frozenset(within))

    def __call__(self, fields: Fields, p: Parameters, coordinates: Fields) -> Field:
        """Return the residual."""
        return checked(self.call({**fields, PARAMETERS: p, **coordinates}), self.name)


def make_equation(
    function: Any, problem: Any, name: str, parameters: Mapping[str, float] | None = None
) -> Equation:
    """Evaluate a function of fields once on recorders and note what it takes.

    Args:
        function: of the problem's fields, parameters and coordinates.
        problem: the problem.
        name: label in messages.
        parameters: values of the unknowns.

    Raises:
        ProblemError: if it cannot be called, or uses no field.
        DtypeError: if it returns no field.
    """
    names: tuple[str, ...] = problem.domain.names
    outputs: Mapping[str, int] = problem.components
    call = bind(function, list(outputs), names, name)
    over = indices(names, ())
    values = {n: u.start for n, u in problem.unknowns.items()} if parameters is None else parameters
    scope = _Scope(
        {PARAMETERS: Parameters({n: torch.tensor([[v]], dtype=torch.float64) for n, v in values.items()})}
    )
    for field_name, count in outputs.items():
        ramp = torch.linspace(0.3, 0.7, count, dtype=torch.float64)[None]
        scope[field_name] = recorder(field_name, over, ramp)
    for coordinate in names:
        low, high = problem.interval(coordinate)
        middle = torch.tensor([[0.75 * low + 0.25 * high]], dtype=torch.float64)
        scope[coordinate] = recorder(coordinate, over, middle)
    residual = checked(call(scope), name)
    assert residual.note is not None
    if residual.note.uses and all(n in names for n, _ in residual.note.uses):
        raise ProblemError(
            f"{name} uses no field",
            "its residual could not change",
            f"lambda {next(iter(outputs))}: {next(iter(outputs))}.{names[0]}",
        )
    # An argument that is taken and not used must be there all the same.
    idle = {(n, (0,) * len(names)) for n in scope.taken - {PARAMETERS, *(n for n, _ in residual.note.uses)}}
    return Equation(name, call, replace(residual.note, uses=residual.note.uses | idle), names)


class _Scope(dict[str, Any]):
    """Named values that remember which of them were taken."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.taken: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.taken.add(name)
        return super().__getitem__(name)


def checked(residual: Any, name: str) -> Field:
    """Return an equation's result if it is a field, else say what went wrong."""
    if isinstance(residual, Field):
        return residual
    raise DtypeError(
        f"{name} returned {type(residual).__name__}, not a series",
        "a residual must be computed from the fields, their derivatives and the coordinates",
        "lambda u, p: u.xx + u",
    )


def per_point(values: Tensor, count: int, what: str) -> Tensor:
    """Return rows of one number for each point: (rows, N, 1) or (rows, N) as (rows, N)."""
    if values.shape[1:] not in ((count, 1), (count,)):
        raise ShapeError(
            f"{what} has shape {tuple(values.shape[1:])} at {count} point(s)",
            "it must be one number for each point: shape (N, 1)",
            "one equation for each component, w[..., 0]",
        )
    return values.reshape(len(values), count)


def residual_block(
    name: str, equation: Equation, points: Tensor, weight: float, sobolev: Sequence[float] = ()
) -> Block:
    """Return the block of an equation at points, with its derivatives for a Sobolev loss.

    Args:
        name: label.
        equation: the equation.
        points: shape (N, d).
        weight: weight of the mean square of the residual.
        sobolev: weights of the mean squares of its partial derivatives of total order 1, 2, ...;
            each multi-index has a row.
    """
    zero = (0,) * len(equation.coordinates)
    if not any(sobolev):
        # Orders of weight zero would be carried for nothing.
        sobolev = ()
    wanted = indices(equation.coordinates, up_to(len(zero), len(sobolev)))
    what = f"the residual of {name}"

    def rows(fields: Fields, p: Parameters, coordinates: Fields) -> Tensor:
        residual = equation(fields, p, coordinates)
        count = len(next(iter((fields or coordinates).values())).value)
        return per_point(_derivatives(residual, wanted), count, what)

    scale = [1.0, *sobolev]
    weights = points.new_tensor([weight * scale[sum(b)] for b in wanted.members])
    return Block(name, points, equation.demand(wanted.members), rows, weights, free=True)


def _derivatives(residual: Field, wanted: Indices) -> Tensor:
    """Return the partial derivatives of a residual over a set as rows."""
    over = residual.indices
    if wanted.trivial:
        return residual.data[:1]
    rows = residual.series()
    if over is not wanted:
        rows = rows[over.rows_of(wanted)]
    factorials = wanted.factorials(rows)
    return rows * factorials.view(-1, *[1] * (rows.ndim - 1)) if wanted.order > 1 else rows


def numbered(blocks: Sequence[Block]) -> list[Block]:
    """Return the blocks under different names: a name that occurs twice is numbered."""
    names = [block.name for block in blocks]
    return [
        replace(block, name=f"{block.name}[{names[:i].count(block.name)}]")
        if names.count(block.name) > 1
        else block
        for i, block in enumerate(blocks)
    ]
