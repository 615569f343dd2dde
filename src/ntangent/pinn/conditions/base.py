"""What all conditions share: where they hold, of which field, and the rows they contribute."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ntangent._base.check import check_order, check_positive
from ntangent._base.errors import ArgumentError, ProblemError, ShapeError
from ntangent._base.registry import nearest_names
from ntangent.pinn.arguments import at_points, numbers, per_component
from ntangent.pinn.domains import Box, Domain
from ntangent.pinn.equation import Block, Demand, Fields
from ntangent.pinn.field import Parameters
from ntangent.pinn.indices import MultiIndex

FACE_POINTS = 64


@runtime_checkable
class Condition(Protocol):
    """Anything that contributes residual rows."""

    def blocks(self, problem: Any, dtype: torch.dtype, device: torch.device) -> list[Block]:
        """Return the blocks of residual rows."""
        ...


@dataclass(frozen=True)
class Place:
    """Points of a condition, with outward unit normals on a boundary; shape (N, d) each."""

    points: Tensor
    normals: Tensor | None = None


class Draws:
    """Unit-cube points for boundaries: equidistant along a line, Sobol points otherwise.

    Args:
        seed: of the scrambling.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._engines: dict[int, Any] = {}
        self._lines = 0

    def __call__(self, count: int, dimension: int) -> Tensor:
        """Return the next points, shape (count, dimension), float64."""
        if dimension == 0:
            return torch.zeros(count, 0, dtype=torch.float64)
        if dimension == 1:
            # Each further line is shifted, by the golden ratio: its points fall between the others.
            shift, self._lines = self._lines * (math.sqrt(5) - 1) / 2, self._lines + 1
            return (((torch.arange(count, dtype=torch.float64) + 0.5 + shift) / max(count, 1)) % 1.0)[:, None]
        if dimension not in self._engines:
            self._engines[dimension] = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=self.seed)
        points: Tensor = self._engines[dimension].draw(count, dtype=torch.float64)
        return points


def column(points: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return numbers or a tensor as finite points of shape (N, 1)."""
    tensor = numbers(points, "points", dtype, device)
    if tensor.ndim > 2 or (tensor.ndim == 2 and tensor.shape[1] != 1):
        raise ShapeError(
            f"points have shape {tuple(tensor.shape)}", "one coordinate is expected", "points[:, :1]"
        )
    return tensor.reshape(-1, 1)


def point_rows(
    points: Any, names: Sequence[str], dtype: torch.dtype, device: torch.device, fix: str
) -> Tensor:
    """Return points as rows, shape (N, d); in one coordinate N numbers serve as well."""
    if len(names) == 1:
        return column(points, dtype, device)
    tensor = numbers(points, "points", dtype, device)
    if tensor.ndim != 2 or tensor.shape[1] != len(names):
        raise ShapeError(
            f"points have shape {tuple(tensor.shape)}",
            f"each row is a point with the coordinates {', '.join(names)}",
            fix,
        )
    return tensor


def given_points(points: Any, problem: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return points that a user lists, shape (N, d), if there are any and all lie where the field is.

    Args:
        points: N numbers in one coordinate; shape (N, d), or a mapping from coordinates to N
            numbers each, in several.
        problem: the problem.
        dtype: of the result.
        device: of the result.
    """
    names = problem.domain.names
    if isinstance(points, Mapping):
        check_names(points, names, "the points")
        parts = [column(points[name], dtype, device) for name in names]
        count = max(len(part) for part in parts)
        if any(len(part) not in (1, count) for part in parts):
            sizes = ", ".join(f"{n}: {len(part)}" for n, part in zip(names, parts, strict=True))
            raise ShapeError(f"the coordinates of points have lengths {sizes}", "they go together", "")
        tensor = torch.cat([part.expand(count, 1) for part in parts], 1)
    else:
        tensor = point_rows(points, names, dtype, device, f"points of shape (N, {len(names)})")
    if len(tensor) == 0:
        raise ShapeError("a condition has no points", "it would contribute nothing", "points=[0.0]")
    check_inside(tensor, problem)
    return tensor


def check_inside(points: Tensor, problem: Any) -> None:
    """Raise unless points lie in the domain, or in the extent that a symmetry gives the field."""
    for i, name in enumerate(problem.domain.names):
        for x in (float(points[:, i].min()), float(points[:, i].max())):
            check_holds(name, x, problem, "points between {low} and {high}")


def check_holds(name: str, x: float, problem: Any, fix: str) -> None:
    """Raise unless a coordinate's value lies where the field is; ``fix`` may name {low} and {high}."""
    where = problem.extent or problem.domain
    box = getattr(where, "box", where)
    if not box.holds(name, x):
        low, high = box.interval(name)
        raise ProblemError(
            f"the condition at {name} = {x} lies outside {where}",
            "the field is not determined there",
            fix.format(low=low, high=high),
        )


def check_space(part: Any, problem: Any) -> None:
    """Raise unless a piece of a boundary has the coordinates of the problem, in their order."""
    names = tuple(problem.domain.names)
    own = tuple(part.names if isinstance(part, Domain) else getattr(part, "coordinates", names))
    if own != names:
        known = getattr(problem.domain.boundary, "names", ())
        same = [name for name in getattr(part, "names", ()) if name in known] or list(known)
        raise ProblemError(
            f"a condition is given in the coordinates {', '.join(own)}, the domain has {', '.join(names)}",
            "its points would not be points of the domain",
            f"on=domain.boundary[{same[0]!r}]" if same else "on=points, of shape (N, d)",
        )


def check_names(given: Mapping[str, Any], names: Sequence[str], what: str) -> None:
    """Raise unless a mapping has one entry for each coordinate."""
    if set(given) != set(names):
        raise ProblemError(
            f"{what} name the coordinate(s) {', '.join(given) or 'none'}, the domain has {', '.join(names)}",
            "every coordinate is needed",
            "{" + ", ".join(f'"{name}": [0.0]' for name in names) + "}",
        )


class Located:
    """Where a condition holds: on faces of a box, on a part of a boundary, or at given points.

    Args:
        on: a part of a boundary (anything with ``sample(n, draw)``), or points, shape (N, d).
        n: points on each face or part.
        sampler: draws the points of a face in its free coordinates, instead of ``n``.
        seed: of the points.
        coordinates: fixed coordinates: one number or several.
    """

    hard = False

    def __init__(
        self, on: Any, n: int | None, sampler: Any, seed: int, coordinates: Mapping[str, Any]
    ) -> None:
        self.on, self.sampler = on, sampler
        self.n = n if n is None else int(check_positive(n, "n", integer=True))
        self.seed = check_order(seed, "seed")
        self.coordinates = dict(coordinates)
        if on is not None and coordinates:
            raise ArgumentError(
                f"a condition is given on {on!r} and at {', '.join(coordinates)}",
                "one of them says where it holds",
                f"{type(self).__name__}({next(iter(coordinates))}=0.0)",
            )
        if sampler is not None and n is not None:
            raise ArgumentError("both n and sampler are given", "the sampler knows its number", "n=64")

    def place(self, problem: Any, dtype: torch.dtype, device: torch.device) -> Place:
        """Return the points, with normals where the place is a boundary."""
        if self.on is not None:
            return self._part(self.on, problem, dtype, device) if hasattr(self.on, "sample") else Place(
                given_points(self.on, problem, dtype, device)
            )  # fmt: skip
        names: tuple[str, ...] = problem.domain.names
        if not self.coordinates or not set(self.coordinates) <= set(names):
            given = ", ".join(self.coordinates) or "none"
            wrong = next((c for c in self.coordinates if c not in names), "")
            raise ProblemError(
                f"the condition names the coordinate(s) {given}, the domain has {', '.join(names)}",
                nearest_names(wrong, list(names)) if wrong else "a condition says where it holds",
                f"{type(self).__name__}({names[0]}={problem.interval(names[0])[1]})",
            )
        if len(self.coordinates) == len(names):
            points = given_points(dict(self.coordinates), problem, dtype, device)
            normals = self._end_normals(points, problem) if len(names) == 1 else None
            return Place(points, normals)
        faces = [self._face(fixed, problem, dtype, device) for fixed in self._fixed()]
        known = [face.normals for face in faces if face.normals is not None]
        return Place(
            torch.cat([face.points for face in faces]),
            torch.cat(known) if len(known) == len(faces) else None,
        )

    def _fixed(self) -> list[dict[str, float]]:
        """Return the fixed coordinates of each face."""
        columns = {
            name: column(values, torch.float64, torch.device("cpu"))[:, 0].tolist()
            for name, values in self.coordinates.items()
        }
        empty = [name for name, values in columns.items() if not values]
        if empty:
            raise ShapeError("a condition has no points", "it would contribute nothing", f"{empty[0]}=0.0")
        return [dict(zip(columns, values, strict=True)) for values in itertools.product(*columns.values())]

    def _face(
        self, fixed: Mapping[str, float], problem: Any, dtype: torch.dtype, device: torch.device
    ) -> Place:
        domain, names = problem.domain, problem.domain.names
        for name, value in fixed.items():
            check_holds(name, value, problem, f"{name}={{low}}, or {name}={{high}}")
        if not hasattr(domain, "intervals"):
            return self._part(domain.face(**fixed), problem, dtype, device)
        free = Box(**{name: problem.interval(name) for name in names if name not in fixed})
        if self.sampler is not None:
            inner = self.sampler.points(free, dtype, device)
        else:
            unit = Draws(self.seed)(self.n or FACE_POINTS, free.dimension)
            low, high = (
                torch.tensor([free.interval(n)[i] for n in free.names], dtype=torch.float64) for i in (0, 1)
            )
            inner = (low + (high - low) * unit).to(dtype=dtype, device=device)
        columns = {name: inner[:, i] for i, name in enumerate(free.names)}
        points = torch.stack(
            [columns[n] if n in columns else inner.new_full((len(inner),), fixed[n]) for n in names], 1
        )
        normals = None
        if len(fixed) == 1:
            normals = self._end_normals(points, problem, next(iter(fixed)))
        return Place(points, normals)

    def _end_normals(self, points: Tensor, problem: Any, name: str | None = None) -> Tensor | None:
        """Return outward normals of an end of a coordinate; None inside."""
        axis = 0 if name is None else problem.domain.names.index(name)
        low, high = problem.interval(problem.domain.names[axis])
        slack = 1e-6 * (high - low)
        x = points[:, axis]
        sign = torch.where((x - low).abs() <= slack, -1.0, torch.where((x - high).abs() <= slack, 1.0, 0.0))
        if bool((sign == 0).any()):
            return None
        normals = torch.zeros_like(points)
        normals[:, axis] = sign.to(points)
        return normals

    def _part(self, part: Any, problem: Any, dtype: torch.dtype, device: torch.device) -> Place:
        if self.sampler is not None:
            raise ArgumentError(
                "a sampler draws points of a box, not of this boundary", "the part draws its own", "n=64"
            )
        check_space(part, problem)
        drawn = part.sample(self.n or FACE_POINTS, Draws(self.seed))
        points, normals = drawn if isinstance(drawn, tuple) else (drawn, None)  # a sub-domain has no normal
        check_inside(points, problem)
        return Place(
            points.to(dtype=dtype, device=device),
            None if normals is None else normals.to(dtype=dtype, device=device),
        )

    def where(self) -> str:
        """Return the place as it is written."""
        return (
            f"on={self.on!r}"
            if self.on is not None
            else ", ".join(f"{n}={v!r}" for n, v in self.coordinates.items())
        )


def chosen(problem: Any, field: str | None, component: int | None) -> tuple[str, list[int]]:
    """Return the field of a condition and the components it is about.

    Raises:
        ProblemError: if there is no such field, or several and none is named.
    """
    names = list(problem.components)
    if field is None:
        if len(names) > 1:
            raise ProblemError(
                f"the condition does not say which of the fields {', '.join(names)} it is about",
                "the problem has several",
                f'field="{names[0]}"',
            )
        field = names[0]
    if field not in names:
        raise ProblemError(
            f"the condition is about the field {field!r}",
            nearest_names(str(field), names),
            f'field="{names[0]}"',
        )
    count = problem.components[field]
    if component is None:
        return field, list(range(count))
    if not isinstance(component, int) or not 0 <= component < count:
        raise ProblemError(
            f"the condition is about component {component!r} of {field!r}",
            f"it has {count}, counted from 0",
            "component=0",
        )
    return field, [component]


Terms = Sequence[tuple[MultiIndex, Tensor | float]]


def linear_block(
    label: str,
    place: Place,
    field: str,
    components: Sequence[int],
    terms: Terms,
    target: Tensor,
    weight: float,
) -> Block:
    """Return the block of Σ factor · ∂^b u_c = target, a row for each component.

    Args:
        label: name of the block.
        place: the points.
        field: name of the field.
        components: of the field.
        terms: multi-indices with their factors, numbers or one for each point, shape (N,).
        target: prescribed values, shape (components, N).
        weight: of each mean square.
    """
    count = len(place.points)

    def rows(fields: Fields, _p: Parameters, _x: Fields) -> Tensor:
        u = fields[field]
        total: Tensor | None = None
        for b, factor in terms:
            value = u.partial(b).data[0]
            value = value.view(1, count) if value.shape[1] == 1 else value[:, list(components)].T
            if not (isinstance(factor, float) and factor == 1.0):
                value = value * factor
            total = value if total is None else total + value
        assert total is not None
        return total - target

    demand = Demand({field: frozenset(b for b, _ in terms)}, frozenset([(0,) * place.points.shape[1]]))
    weights = place.points.new_full((len(components),), weight)
    return Block(label, place.points, demand, rows, weights, normals=place.normals)


def described(value: Any) -> str:
    """Return a prescribed value as it is written."""
    return getattr(value, "__qualname__", None) or repr(value)


def target_of(value: Any, problem: Any, place: Place, components: Sequence[int]) -> Tensor:
    """Return a prescribed value at the points, shape (components, N)."""
    return per_component(value, problem.domain.names, place.points, len(components)).contiguous()


def unit(problem: Any, name: str, order: int = 1) -> MultiIndex:
    """Return the multi-index of a derivative along one coordinate."""
    return tuple(order if n == name else 0 for n in problem.domain.names)


def coefficient(value: Any, problem: Any, points: Tensor) -> Tensor | float:
    """Return a factor (number or function of the coordinates), one number or shape (N,)."""
    result = at_points(value, problem.domain.names, points)
    if isinstance(result, int | float):
        return float(result)
    return per_component(result, problem.domain.names, points, 1)[0]
