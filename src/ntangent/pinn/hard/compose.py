"""Hard conditions: an ansatz that satisfies them whatever the network is.

u = lift(data) + homogeneous(network). The conditions at whole ends of a coordinate (faces of a box,
initial conditions) are interpolated along that coordinate, one coordinate after the other; those on
other boundaries go through distance functions. Every part is a function of jets, so all derivatives
of u are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_choice, check_order
from ntangent._base.errors import ArgumentError, ProblemError
from ntangent.jet import Jet
from ntangent.jet.series import lift
from ntangent.pinn.domains.base import Boundary, Domain
from ntangent.pinn.domains.tools import fixed_draw
from ntangent.pinn.hard.along import Function, at_end, normal_trace, plain, project
from ntangent.pinn.hard.data import Data
from ntangent.pinn.hard.line import End, Line, Terms
from ntangent.pinn.hard.mirror import Mirror
from ntangent.pinn.hard.shape import Shape

Net = Callable[[Any], Any]
_SOFT = "leave out hard=True on one of them: a soft condition combines with everything"
# Data given in float64 that differ by more than this, relative to their size, contradict each other.
_AGREE = 1e-9


@dataclass(frozen=True)
class Trace:
    """One hard condition: sum c_k ∂^k u/∂n^k = value on a piece of the boundary, n outward.

    Args:
        where: the piece: ``domain.face(x=-1)``, ``domain.boundary["circle"]``.
        terms: (k, c_k).
        value: number or function of the coordinates.
        component: of the network's output.
    """

    where: Boundary
    terms: Terms
    value: Any = 0.0
    component: int = 0

    def __post_init__(self) -> None:
        check_order(self.component, "component")
        if not self.terms or all(c == 0 for _, c in self.terms):
            raise ArgumentError("a condition without terms", "it says nothing", "terms=((0, 1.0),)")
        object.__setattr__(self, "terms", tuple(sorted((k, float(c)) for k, c in self.terms if c != 0)))


def dirichlet(where: Boundary, value: Any = 0.0, component: int = 0) -> list[Trace]:
    """Return the hard condition u = value."""
    return [Trace(where, ((0, 1.0),), value, component)]


def neumann(where: Boundary, value: Any = 0.0, component: int = 0) -> list[Trace]:
    """Return the hard condition ∂u/∂n = value, n the outward normal."""
    return [Trace(where, ((1, 1.0),), value, component)]


def robin(where: Boundary, a: float, b: float, value: Any = 0.0, component: int = 0) -> list[Trace]:
    """Return the hard condition a u + b ∂u/∂n = value."""
    return [Trace(where, ((0, a), (1, b)), value, component)]


def clamped(where: Boundary, value: Any = 0.0, slope: Any = 0.0, component: int = 0) -> list[Trace]:
    """Return the hard conditions u = value and ∂u/∂n = slope."""
    return [*dirichlet(where, value, component), *neumann(where, slope, component)]


def initial(domain: Domain, values: Sequence[Any], time: str = "t", component: int = 0) -> list[Trace]:
    """Return the hard conditions u = values[0], ∂u/∂t = values[1], ... at the lower end of ``time``."""
    face = domain.face(**{time: domain.interval(time)[0]})
    return [Trace(face, ((k, (-1.0) ** k),), value, component) for k, value in enumerate(values)]


@dataclass(frozen=True)
class Scalar:
    """The ansatz of one component.

    Args:
        domain: where.
        traces: its conditions.
    """

    domain: Domain
    traces: tuple[Trace, ...]

    @cached_property
    def _rows(self) -> list[tuple[Any, Terms, Data]]:
        names = self.domain.names
        return [(part, t.terms, Data(t.value, names)) for t in self.traces for part in t.where.parts]

    @cached_property
    def shape(self) -> Shape | None:
        """The conditions that are not on whole ends of a coordinate."""
        rows = tuple(row for row in self._rows if not row[0].complete)
        if not rows:
            return None
        shape = Shape(rows)
        _ = shape.kind
        return shape

    @cached_property
    def lines(self) -> tuple[tuple[Line, tuple[Data, ...]], ...]:
        """The conditions on ends of each coordinate, with their data."""
        found = []
        for axis, name in enumerate(self.domain.names):
            own = [row for row in self._rows if row[0].complete and row[0].end[0] == name]
            if not own:
                continue
            ends = tuple(End(part.end[2], _along_axis(terms, part.end[2])) for part, terms, _ in own)
            line = Line(name, axis, *self.domain.interval(name), ends)
            _ = line.cardinals
            found.append((line, tuple(data for _, _, data in own)))
        return tuple(found)

    def lift(self, x: Jet) -> Jet | None:
        """Return the function of the data alone, shape (N, 1); None if all data are 0."""
        if all(data.zero for _, _, data in self._rows):
            return None
        start: Function | None = None
        if self.shape is not None and not all(data.zero for _, _, data in self.shape.rows):
            start = self.shape.lift
        return self._lift_lines(len(self.lines), start)(x)

    def _lift_lines(self, count: int, start: Function | None) -> Function:
        """Return the lift by the first ``count`` lines on top of ``start``."""
        if count == 0:
            return start or (lambda x: lift(x.data.new_zeros(x.shape[0], 1), x))
        line, data = self.lines[count - 1]
        below = self._lift_lines(count - 1, start)
        trivial = start is None and all(d.zero for _, own in self.lines[: count - 1] for d in own)

        def lifted(x: Jet) -> Jet:
            total = below(x)
            for j, (end, value) in enumerate(zip(line.ends, data, strict=True)):
                if trivial and value.zero:
                    continue
                position = line.high if end.upper else line.low
                gap = value(project(x, line.axis, position))
                if not trivial:
                    gap = gap - at_end(below, x, line.axis, position, end.terms)
                total = total + line.polynomial(j, x) * gap
            return total

        return lifted

    def homogeneous(self, f: Function) -> Function:
        """Return a function that satisfies the conditions with data 0, from any f."""
        weights = [line for line, _ in self.lines if line.multiplicities is not None]
        if weights:
            f = _weighted(f, weights)
        if self.shape is not None:
            f = self.shape.homogeneous(f)
        for line, _ in self.lines:
            if line.multiplicities is None:
                f = _corrected(f, line)
        return f

    def check(self) -> None:
        """Compare the lift with the data at boundary points.

        Raises:
            ProblemError: if the data contradict each other where the pieces meet.
        """

        def total(x: Jet) -> Jet:
            found = self.lift(x)
            return lift(x.data.new_zeros(x.shape[0], 1), x) if found is None else found

        for trace in self.traces:
            points, normals = trace.where.sample(64, fixed_draw())
            if self.shape is not None and len(points) > len(trace.where.parts):
                # The sequence begins at corners, where distance functions have no derivatives.
                away = self.shape.distance(plain(points + 0.0)).value[:, 0].isfinite()
                inner = _off_corners(trace.where, points)
                points, normals = points[away & inner], normals[away & inner]
            wanted = Data(trace.value, self.domain.names)(plain(points)).value
            gap = (normal_trace(total, points, normals, trace.terms) - wanted).abs().max()
            if not float(gap) <= _AGREE * (1 + float(wanted.abs().max())):
                raise ProblemError(
                    f"the hard conditions contradict each other: on {', '.join(trace.where.names)} one is "
                    f"missed by {float(gap):.2g}",
                    "where two pieces of the boundary meet, their data must agree",
                    _SOFT,
                )


def _off_corners(where: Boundary, points: Tensor) -> Tensor:
    """Return which points lie on one part only."""
    near = torch.stack([part.level(points)[:, 0].abs() < 1e-6 for part in where.parts])
    return near.sum(0) <= 1


def _along_axis(terms: Terms, upper: bool) -> Terms:
    """Return a functional in outward derivatives as one in derivatives of the coordinate."""
    return tuple((k, c if upper or k % 2 == 0 else -c) for k, c in terms)


def _weighted(f: Function, lines: Sequence[Line]) -> Function:
    def product(x: Jet) -> Jet:
        result = f(x)
        for line in lines:
            result = line.factor(x) * result
        return result

    return product


def _corrected(f: Function, line: Line) -> Function:
    def function(x: Jet) -> Jet:
        result = f(x)
        for j, end in enumerate(line.ends):
            position = line.high if end.upper else line.low
            result = result - line.polynomial(j, x) * at_end(f, x, line.axis, position, end.terms)
        return result

    return function


@dataclass(frozen=True)
class HardAnsatz:
    """The field as a function of the network, all hard conditions built in: ``ansatz(net, x)``.

    Cost: conditions on values, and on all derivatives up to an order, cost one evaluation of the
    network and one of the data. Others (Neumann, Robin, free ends) need the network at the
    projection of every point to each such end, with one row more for each order; in one dimension
    these are single points. On general boundaries Neumann and Robin double the rows.

    Args:
        domain: where.
        traces: the conditions.
        cycles: names of the coordinates in which the network must be periodic.
        mirrors: ends about which the field is symmetric.
    """

    domain: Domain
    traces: tuple[Trace, ...]
    cycles: tuple[str, ...] = ()
    mirrors: tuple[Mirror, ...] = ()

    @cached_property
    def scalars(self) -> dict[int, Scalar]:
        """The ansatz of each component that has conditions."""
        components = sorted({trace.component for trace in self.traces})
        return {c: Scalar(self.domain, tuple(t for t in self.traces if t.component == c)) for c in components}

    def __call__(self, net: Net, x: Any) -> Any:
        """Return the field at points, a tensor or a jet of shape (N, d), as the same; shape (N, c)."""
        points, signs = plain(x), []
        for mirror in self.mirrors:
            points, sign = mirror.into(points)
            signs.append(sign)
        result: Any = self._inside(net, points)
        for mirror, sign in zip(self.mirrors, signs, strict=True):
            result = result if sign is None else mirror.back(result, sign)
        return result.value if isinstance(x, Tensor) else result

    def _inside(self, net: Net, points: Jet) -> Jet:
        """Return the field at points of the domain."""
        whole = _Once(net)
        columns: dict[int, Jet] = {}
        for component, scalar in self.scalars.items():
            value = scalar.homogeneous(_component(whole, component))(points)
            lifted = scalar.lift(points)
            columns[component] = value if lifted is None else value + lifted
        if len(columns) == 1 and 0 in columns and whole.outputs == 1:
            return columns[0]
        full = whole(points)
        pieces: Any = [columns.get(i, full[:, i : i + 1]) for i in range(full.shape[1])]
        result: Any = torch.cat(pieces, 1)
        return plain(result)

    def cancelled(self, axis: int, outputs: int) -> tuple[int, ...]:
        """Return the degrees of polynomials of a coordinate that add nothing to the field; see :class:`Line`.

        Args:
            axis: of the coordinate.
            outputs: of the network; degrees are left out for all of them or for none.
        """
        found = [
            next((line.cancelled for line, _ in scalar.lines if line.axis == axis), ())
            for scalar in self.scalars.values()
        ]
        return found[0] if len(found) == outputs and len(set(found)) == 1 else ()

    def check(self, net: Net, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        """Check what the ansatz needs of the network.

        Raises:
            ProblemError: if the network is not periodic in the coordinates that are to be, or has
                fewer outputs than the conditions name.
        """
        points = self.domain.sample(16, fixed_draw()).to(device=device, dtype=dtype)
        with torch.no_grad():
            outputs = net(points).shape[1]
            if max(self.scalars, default=0) >= outputs:
                raise ProblemError(
                    f"a hard condition names component {max(self.scalars)} of {outputs}", "", "component=0"
                )
        for name in self.cycles:
            _check_period(net, self.domain, name, points)


class _Once:
    """The network, evaluated once for the same jet."""

    def __init__(self, net: Net) -> None:
        self.net, self.outputs = net, 0
        self._seen: dict[int, tuple[Jet, Jet]] = {}

    def __call__(self, x: Jet) -> Jet:
        if id(x) not in self._seen:
            value = self.net(x)
            self._seen[id(x)] = (x, value if isinstance(value, Jet) else lift(value, x))
            self.outputs = value.shape[1]
        return self._seen[id(x)][1]


def _component(net: Callable[[Jet], Jet], index: int) -> Function:
    return lambda x: net(x)[:, index : index + 1]


def _check_period(net: Net, domain: Domain, name: str, points: Tensor) -> None:
    low, high = domain.interval(name)
    axis = domain.names.index(name)
    shifted = points.clone()
    shifted[:, axis] += high - low
    with torch.no_grad():
        first, second = net(points), net(shifted)
    size = max(float(first.abs().max()), 1e-30)
    reach = max(abs(low), abs(high), high - low)
    gap = float((first - second).abs().max())
    if not gap <= 1e3 * float(torch.finfo(points.dtype).eps) * (1 + reach) * (1 + size):
        periods = [high - low if n == name else None for n in domain.names]
        raise ProblemError(
            f"the network is not periodic in {name}: it differs by {gap:.2g} over the period {high - low:g}",
            "an exact periodic condition is built into the network's first layer",
            f"nn.Sequential(e := nt.nn.PeriodicEmbedding({periods}), nt.MLP(e.features, 1))",
        )


def compose(
    domain: Domain,
    conditions: Sequence[Trace],
    periodic: Sequence[str] = (),
    mirrors: Sequence[Mirror] = (),
) -> HardAnsatz:
    """Return the ansatz that satisfies all conditions.

    Supported together: any conditions of any order at whole ends of coordinates (faces of boxes, also
    as factors of a product; initial conditions), as long as those of one coordinate are independent;
    on other boundaries what :class:`Shape` says; periodic coordinates that have no other condition.

    Raises:
        ProblemError: if the conditions contradict each other or no construction is known.
    """
    for name in periodic:
        check_choice(name, domain.names, "coordinate")
        taken = [t for t in conditions if any(p.end and p.end[0] == name for p in t.where.parts)]
        if taken:
            raise ProblemError(
                f"{name} is periodic and has a condition at its end",
                "a periodic coordinate has no end",
                _SOFT,
            )
    ansatz = HardAnsatz(domain, tuple(conditions), tuple(periodic), tuple(mirrors))
    for scalar in ansatz.scalars.values():
        _ = scalar.shape, scalar.lines
        scalar.check()
        for name in periodic:
            _check_lift(scalar, name)
    return ansatz


def _check_lift(scalar: Scalar, name: str) -> None:
    """Refuse data that are not periodic where the field is to be."""
    domain = scalar.domain
    points = domain.sample(32, fixed_draw())[4:]
    axis, (low, high) = domain.names.index(name), domain.interval(name)
    normals = torch.zeros_like(points)
    normals[:, axis] = 1.0
    values = []
    for end in (low, high):
        points[:, axis] = end

        def total(x: Jet) -> Jet:
            found = scalar.lift(x)
            return lift(x.data.new_zeros(x.shape[0], 1), x) if found is None else found

        values.append(torch.stack([normal_trace(total, points, normals, ((k, 1.0),)) for k in (0, 1)]))
    gap = float((values[0] - values[1]).abs().max())
    if not gap <= _AGREE * (1 + float(values[0].abs().max())):
        raise ProblemError(
            f"the data of the hard conditions are not periodic in {name}: they differ by {gap:.2g}",
            "the field would not be either",
            _SOFT,
        )
