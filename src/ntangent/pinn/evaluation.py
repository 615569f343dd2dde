"""One network evaluation for all that is needed at a set of points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ntangent._base.errors import ProblemError, ShapeError
from ntangent.jet import Jet
from ntangent.jet.execute import run
from ntangent.jet.series import padded
from ntangent.pinn.equation import Demand
from ntangent.pinn.field import Field, Root
from ntangent.pinn.indices import Indices, MultiIndex, indices, take

if TYPE_CHECKING:
    from ntangent.pinn.problem import Problem


class Evaluation:
    """The series of all fields at points, over the union of what several demands need.

    Args:
        problem: the problem.
        points: shape (N, d).
        demands: what is evaluated there.
    """

    def __init__(self, problem: Problem, points: Tensor, demands: Iterable[Demand]) -> None:
        self.problem, self.points = problem, points
        names = problem.domain.names
        needed: dict[str, set[MultiIndex]] = {}
        for demand in demands:
            for name, members in demand.fields.items():
                needed.setdefault(name, set()).update(members)
        self.fields = [name for name in problem.components if name in needed]
        union = set[MultiIndex]().union(*[needed[name] for name in self.fields])
        self.shared = indices(names, union)
        self.own = {name: indices(names, needed[name]) for name in self.fields}
        self.coordinates = {name: indices(names, needed[name]) for name in names if name in needed}
        self._arguments: dict[tuple[Indices, tuple[int, ...]], Jet] = {}
        self._columns = {
            name: over.tangents(points)[..., i : i + 1]
            for i, name in enumerate(names)
            if (over := self.coordinates.get(name)) is not None
        }

    @property
    def rows(self) -> int:
        """Rows that a network carries for each point."""
        return len(self.shared.members)

    def argument(self, over: Indices, columns: tuple[int, ...]) -> Jet:
        """Return (some columns of) the points as a series over a set; made once."""
        key = (over, columns)
        if key not in self._arguments:
            part = self.points if len(columns) == self.points.shape[1] else self.points[:, list(columns)]
            self._arguments[key] = Jet(over.tangents(part), over.order, over.directions)
        return self._arguments[key]

    def __call__(self, net: Any) -> dict[str, tuple[Tensor, Indices]]:
        """Return the rows of every field, (rows, N, c), and the set they are over."""
        if isinstance(net, nn.ModuleDict | Mapping):
            return self._separate(net)
        if not self.fields:
            return {}
        u = self.problem.outputs(net, self.argument(self.shared, tuple(range(self.points.shape[1]))))
        data = padded(u, 0) if self.shared.trivial else u.data
        total = sum(self.problem.components.values())
        if u.shape != (len(self.points), total):
            raise ProblemError(
                f"the network or ansatz has shape {tuple(u.shape)} at {len(self.points)} point(s)",
                f"the fields {_listed(self.problem.components)} have together {total} value(s) at each point",
                f"MLP({self.points.shape[1]}, {total}), or ansatz=lambda net, x: net(x)[:, :{total}]",
            )
        if len(self.problem.components) == 1:
            return {self.fields[0]: (data, self.shared)}
        parts = data.split(list(self.problem.components.values()), -1)
        named = dict(zip(self.problem.components, parts, strict=True))
        return {name: (named[name], self.shared) for name in self.fields}

    def _separate(self, nets: Any) -> dict[str, tuple[Tensor, Indices]]:
        """Evaluate one network for each field, over the field's own set and coordinates."""
        names, result = self.problem.domain.names, {}
        for name in self.fields:
            over = self.own[name]
            kept = self.problem.inputs(name)
            columns = tuple(names.index(c) for c in kept)
            small = over
            if len(columns) < len(names):
                members = [tuple(b[i] for i in columns) for b in over.members]
                small = indices(kept, members)
            u = self.problem.outputs(nets[name], self.argument(small, columns), name)
            if u.shape != (len(self.points), self.problem.components[name]):
                raise ProblemError(
                    f"the network of {name!r} has shape {tuple(u.shape)} at {len(self.points)} point(s)",
                    f"the field has {self.problem.components[name]} value(s) for each point",
                    f'"{name}": MLP({len(columns)}, {self.problem.components[name]})',
                )
            data = u.data
            if small is not over:
                data = _embedded(padded(u, u.order), small, over, columns)
            result[name] = (data, over)
        return result

    def coordinate_rows(self, part: slice | None = None) -> dict[str, tuple[Tensor, Indices]]:
        """Return the rows of the coordinates that are asked for."""
        return {
            name: (data if part is None else data[:, part], self.coordinates[name])
            for name, data in self._columns.items()
        }


def handed(
    rows: Mapping[str, tuple[Tensor, Indices]], within: Indices, demand: Demand | None = None
) -> dict[str, Field]:
    """Return fields that compute within a set, from their rows.

    Args:
        rows: of each field.
        within: the set.
        demand: which derivatives will be taken, where that is known.
    """
    zero, wanted = within.members[0], {} if demand is None else demand.fields
    return {
        name: Root(data, over, within, len(wanted.get(name, ())) == 1).at(zero)
        for name, (data, over) in rows.items()
    }


def _embedded(data: Tensor, small: Indices, over: Indices, columns: Sequence[int]) -> Tensor:
    """Return rows over fewer coordinates as rows over all: derivatives in the others are zero."""
    zero = data.new_zeros((1, *data.shape[1:]))
    missing = len(data)
    places = []
    for b in over.members:
        part = tuple(b[i] for i in columns)
        places.append(small.place[part] if sum(part) == sum(b) else missing)
    return take(torch.cat([data, zero]), tuple(places))


def _listed(components: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" if count > 1 else name for name, count in components.items())


def checked_series(u: Any, what: str) -> Jet:
    """Return what an ansatz returned if it is a series."""
    if isinstance(u, Jet):
        return u
    raise ProblemError(
        f"{what} returned {type(u).__name__}, not a series",
        "the field must be computed from its argument x",
        "ansatz=lambda net, x: net(x)",
    )


def network_call(net: Callable[[Any], Any], outputs: int) -> Callable[[Any], Any]:
    """Return a network as a function that takes its fastest backend on series, inside any ansatz.

    Args:
        net: the network.
        outputs: how many it should have.
    """

    def call(x: Any) -> Any:
        if not isinstance(x, Jet):
            return net(x)
        try:
            return run(net, x)
        except (RuntimeError, ShapeError) as error:
            width = x.shape[-1]
            if not any(
                words in str(error) for words in ("shapes cannot be multiplied", "weight 0 has shape")
            ):
                raise
            raise ShapeError(
                f"the network does not take points with {width} coordinate(s)",
                "its first layer has one input for each coordinate: " + str(error).split("\n", 1)[0],
                f"MLP({width}, {outputs})",
            ) from error

    return call
