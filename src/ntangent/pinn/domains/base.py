"""What a domain is: named coordinates, a region, and a boundary in named parts."""

from __future__ import annotations

import inspect
import keyword
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ntangent._base.check import check_order
from ntangent._base.errors import ArgumentError, ProblemError, ShapeError
from ntangent.pinn.domains.distance import equivalence, trimmed
from ntangent.pinn.field import Field

if TYPE_CHECKING:
    from ntangent.pinn.domains.box import Box

# Maps (count, dimension) to the next points of the unit cube, float64 on the CPU.
Draw = Callable[[int, int], Tensor]
# A tensor of points, shape (N, d), or a jet of such.
Points = Any

# Attributes of a field and arguments of a condition: a coordinate of that name would hide behind them.
OPTIONS = frozenset({"on", "n", "sampler", "seed", "field", "component", "hard"})
RESERVED = frozenset({*dir(Field), *OPTIONS, "value", "weight", "self"})
# Rejection gives up when fewer than one candidate in so many lies in the domain.
_HOPELESS = 1 << 17
# Points of the low-discrepancy rule that measures what has no formula.
_QUADRATURE = 1 << 16


def check_name(name: Any) -> str:
    """Return ``name`` if it can name a coordinate."""
    if not isinstance(name, str):
        raise ArgumentError(f"{name!r} cannot name a coordinate", "a name is a string", 'names=("x", "y")')
    if name in RESERVED or name.startswith("_") or keyword.iskeyword(name) or not name.isidentifier():
        raise ArgumentError(
            f"{name!r} cannot name a coordinate",
            "fields or conditions already use this name" if name in RESERVED else "u.NAME must be readable",
            "Box(x=(-1, 1))",
        )
    return name


def check_names(names: Any, dimension: int) -> tuple[str, ...]:
    """Return names of the coordinates if they are distinct and of the right number."""
    known = tuple(check_name(name) for name in ((names,) if isinstance(names, str) else names))
    if len(known) != dimension or len(set(known)) != dimension:
        fix = "(" + ", ".join(repr("xyzwabc"[i : i + 1] or f"x{i}") for i in range(dimension)) + ")"
        raise ArgumentError(
            f"the names {known} do not fit {dimension} coordinates", "each has one of its own", f"names={fix}"
        )
    return known


def check_shape(points: Points, dimension: int, what: str = "points") -> Points:
    """Return points if their shape is (N, dimension)."""
    if len(points.shape) != 2 or points.shape[1] != dimension:
        raise ShapeError(
            f"{what} have shape {tuple(points.shape)}, the domain has {dimension} coordinate(s)",
            "a row is a point",
            f"torch.rand(100, {dimension})",
        )
    return points


def columns(points: Points) -> list[Any]:
    """Return the coordinates of points, shape (N, 1) each."""
    return [points[:, i : i + 1] for i in range(points.shape[1])]


def rounding(points: Tensor, box: Box) -> float:
    """Return how far a point may leave a domain by the rounding of its coordinates alone."""
    size = max(max(abs(low), abs(high), high - low) for _, low, high in box.intervals)
    return 16 * float(torch.finfo(points.dtype).eps) * size


def by_name(function: Callable[..., Any], names: Sequence[str], points: Points) -> Any:
    """Call a function of coordinates: by their names, or with all points if it names none of them.

    Each coordinate has shape (N, 1); a function of one argument that is no coordinate gets (N, d).
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return function(points)
    taken = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [p.name for p in parameters if p.default is p.empty and p.name in taken]
    known = dict(zip(names, columns(points), strict=True))
    if any(name in known for name in taken):
        strangers = [name for name in needed if name not in known]
        if strangers:
            raise ArgumentError(
                f"a function takes {', '.join(strangers)}, which are no coordinates",
                f"the coordinates are {', '.join(names)}",
                f"lambda {', '.join(names)}: ...",
            )
        return function(**{name: known[name] for name in taken if name in known})
    if len(needed) == len(names) and len(names) > 1:
        return function(*known.values())
    return function(points)


def shares(count: int, measures: Sequence[float]) -> list[int]:
    """Split a number of points in proportion to measures, by largest remainders.

    Every part has a point when there are enough of them.
    """
    floor = 1 if count >= len(measures) else 0
    left, whole = count - floor * len(measures), sum(measures)
    exact = [left * m / whole for m in measures]
    counts = [math.floor(e) for e in exact]
    rest = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for i in rest[: left - sum(counts)]:
        counts[i] += 1
    return [c + floor for c in counts]


def reject(
    count: int, propose: Callable[[int], tuple[Tensor, ...]], keep: Callable[..., Tensor], what: str
) -> tuple[Tensor, ...]:
    """Return ``count`` of the proposals that are kept, spread evenly over all of those.

    Raises:
        ProblemError: if hardly any is.
    """
    found: list[tuple[Tensor, ...]] = []
    have = tried = 0
    while have < count:
        batch = max(64, min(1 << 16, int(1.2 * (count - have) * max(tried, 1) / max(have, 1))))
        proposal = propose(batch)
        mask = keep(*proposal)
        tried, have = tried + batch, have + int(mask.sum())
        found.append(tuple(tensor[mask] for tensor in proposal))
        if tried >= _HOPELESS and have * _HOPELESS < tried * 16:
            raise ProblemError(
                f"only {have} of {tried} candidates lie in {what}",
                "it is tiny in its bounding box, or empty; drawing points by rejection would not end",
                "check the shapes with .contains(...), or give the points: PointCloud(points)",
            )
    # A source may run along a line in order: the first ones would leave its end empty.
    chosen = torch.arange(count) * have // max(count, 1)
    return tuple(torch.cat(parts)[chosen] for parts in zip(*found, strict=True))


def lattice(count: int, dimension: int) -> Tensor:
    """Return fixed low-discrepancy points of the unit cube (Sobol, unscrambled), shape (N, d)."""
    return torch.quasirandom.SobolEngine(dimension).draw(count, dtype=torch.float64)


def fixed_draw() -> Draw:
    """Return the draw of these points, from the first one on."""
    engines: dict[int, Any] = {}

    def draw(count: int, dimension: int) -> Tensor:
        if dimension == 0:
            return torch.zeros(count, 0, dtype=torch.float64)
        engine = engines.setdefault(dimension, torch.quasirandom.SobolEngine(dimension))
        return engine.draw(count, dtype=torch.float64)  # type: ignore[no-any-return]

    return draw


class Boundary(ABC):
    """A piece of a boundary: one named part or several."""

    @property
    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """The named parts."""

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return self.parts[0].coordinates

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parts."""
        return tuple(part.name for part in self.parts)

    @cached_property
    def measure(self) -> float:
        """Length or area; the number of points in one dimension."""
        return sum(part.measure for part in self.parts)

    def __getitem__(self, name: str) -> Boundary:
        found = [part for part in self.parts if part.name == name]
        if not found:
            raise ProblemError(
                f"the boundary has no part {name!r}",
                f"its parts are {', '.join(self.names)}",
                f"domain.boundary[{self.names[0]!r}]",
            )
        return found[0] if len(found) == 1 else Joined(tuple(found))

    def __add__(self, other: Boundary) -> Boundary:
        if self.coordinates != other.coordinates:
            raise ProblemError(
                f"boundaries in {self.coordinates} and {other.coordinates} have no union",
                "they lie in different spaces",
                "",
            )
        return Joined((*self.parts, *(part for part in other.parts if part not in self.parts)))

    def where(self, predicate: Callable[..., Any]) -> Boundary:
        """Return the piece on which a function of the coordinates is true: ``where(lambda x, y: x < 0)``."""
        cut = tuple(piece for piece in (Cut(part, predicate) for part in self.parts) if piece.measure > 0)
        if not cut:
            raise ProblemError(
                f"no point of {', '.join(self.names)} satisfies the predicate",
                "the piece is empty",
                "domain.boundary.where(lambda x, y: x < 0)",
            )
        return Joined(cut)

    def sample(self, count: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return points uniform in length or area with their outward unit normals.

        Args:
            count: number of points. A part that is one point (the end of an interval) gives that
                one whatever the number is.
            draw: source of unit-cube points.

        Returns:
            Points and normals, shape (N, d) each, float64.
        """
        check_order(count, "count")
        counts = shares(count, [part.measure for part in self.parts])
        pieces = [part.draw(n, draw) for n, part in zip(counts, self.parts, strict=True) if n]
        return torch.cat([p for p, _ in pieces]), torch.cat([n for _, n in pieces])

    def distance(self, x: Points) -> Any:
        """Return a smooth approximate distance to the parts, shape (N, 1), jets included.

        It is 0 on the parts and positive elsewhere in the domain, with inward normal derivative 1 on
        them; at corners, where parts meet, it has no derivatives.
        """
        return equivalence([part.span(x) for part in self.parts])


class Joined(Boundary):
    """Several parts together."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self._parts = parts

    @property
    def parts(self) -> tuple[Part, ...]:
        """The named parts."""
        return self._parts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Joined) and self._parts == other._parts

    def __hash__(self) -> int:
        return hash(self._parts)

    def __repr__(self) -> str:
        return " + ".join(map(repr, self._parts))


class Part(Boundary):
    """One smooth part of a boundary.

    Attributes:
        name: its name in the domain, such as ``"x=-1"``.
        end: (coordinate, value, lower or upper) if a coordinate is constant on the part.
        complete: whether the domain is a product in that coordinate and the part a whole end of it,
            so that a condition on it is one along lines.
        whole: whether ``level`` vanishes nowhere else in the closed domain.
        cube: dimension of the unit cube that ``place`` maps to the part; None without such a map.
    """

    name: str
    end: tuple[str, float, bool] | None = None
    complete: bool = False
    whole: bool = True
    cube: int | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        """The part itself."""
        return (self,)

    @property
    @abstractmethod
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates."""

    def place(self, unit: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Map points of the unit cube, shape (N, cube), to the part; return them and outward normals."""
        raise ProblemError(f"no map from the unit cube to {self!r} is known", "", "part.draw(count, draw)")

    def draw(self, count: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return points and outward unit normals, shape (N, d) each; one point in one dimension."""
        count = 1 if len(self.coordinates) == 1 else count
        unit = draw(count, self.cube) if self.cube else torch.zeros(count, 0, dtype=torch.float64)
        return self.place(unit)

    @abstractmethod
    def level(self, x: Points) -> Any:
        """Return a smooth function that vanishes on the part and grows inwards with slope 1, (N, 1)."""

    @abstractmethod
    def trim(self, x: Points) -> Any:
        """Return a function that is positive on the part alone among the zeros of ``level``, or None."""

    def span(self, x: Points) -> Any:
        """Return the smooth approximate distance to this part, shape (N, 1)."""
        trim = None if self.whole else self.trim(x)
        return self.level(x) if trim is None else trimmed(self.level(x), trim)


class Cut(Part):
    """The points of a part that satisfy a predicate."""

    def __init__(self, part: Part, predicate: Callable[..., Any]) -> None:
        if not callable(predicate):
            raise ArgumentError(
                f"the predicate is {predicate!r}", "it is a function", "where(lambda x, y: x < 0)"
            )
        self.part, self.predicate, self.name = part, predicate, part.name

    def __repr__(self) -> str:
        return f"{self.part!r}.where({getattr(self.predicate, '__qualname__', repr(self.predicate))})"

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return self.part.coordinates

    def _holds(self, points: Tensor, *_: Tensor) -> Tensor:
        mask = torch.as_tensor(by_name(self.predicate, self.coordinates, points))
        if mask.dtype != torch.bool or mask.numel() not in (1, len(points)):
            raise ArgumentError(
                f"the predicate returned {mask.dtype} of shape {tuple(mask.shape)}",
                "it says for each point whether it belongs to the piece",
                "where(lambda x, y: x < 0)",
            )
        return mask.reshape(-1).expand(len(points))

    @cached_property
    def measure(self) -> float:
        """Length or area, by quadrature with 2^16 points: relative error about 1e-3."""
        points, _ = self.part.draw(_QUADRATURE, fixed_draw())
        return self.part.measure * float(self._holds(points).double().mean())

    def draw(self, count: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return points and normals by rejection."""
        if len(self.coordinates) == 1:
            points, normals = self.part.draw(1, draw)
            return points[self._holds(points)], normals[self._holds(points)]
        found = reject(count, lambda n: self.part.draw(n, draw), self._holds, repr(self))
        return found[0], found[1]

    def level(self, x: Points) -> Any:  # noqa: ARG002
        """Refuse: a predicate has no smooth distance."""
        raise ProblemError(
            f"{self!r} has no distance function",
            "a predicate is true or false: nothing smooth can be derived from it",
            f"a named part: domain.boundary[{self.part.name!r}], or a soft condition",
        )

    def trim(self, x: Points) -> Any:
        """Refuse: see ``level``."""
        return self.level(x)


class Domain(ABC):
    """A region with named coordinates. Signed distances are negative inside.

    Shapes: points (N, d); one number per point (N,) for ``contains`` and ``signed_distance``, (N, 1)
    for ``distance``, which is made for products with fields. Any dtype and device.
    """

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates, in order."""

    @property
    @abstractmethod
    def box(self) -> Box:
        """A bounding box."""

    @property
    @abstractmethod
    def boundary(self) -> Boundary:
        """The boundary, in named parts."""

    @abstractmethod
    def signed_distance(self, points: Tensor) -> Tensor:
        """Return the distance to the boundary, negative inside, shape (N,).

        Exact for every domain but unions (inside), intersections and differences (outside): there
        the sign is right and the magnitude a lower bound.
        """

    @abstractmethod
    def distance(self, x: Points) -> Any:
        """Return a smooth approximate distance: positive inside, 0 on the boundary with slope 1, (N, 1).

        Jets pass through. There are no derivatives at corners. See :mod:`ntangent.pinn.domains.distance`.
        """

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return len(self.names)

    @cached_property
    def volume(self) -> float:
        """Length, area or volume, here by quadrature with 2^16 points: relative error about 1e-3."""
        box = self.box
        inside = self.signed_distance(box.interior(lattice(_QUADRATURE, self.dimension))) <= 0
        return box.volume * float(inside.double().mean())

    @property
    def cube(self) -> int:
        """Dimension of the unit cube that ``interior`` maps to the domain; 0 if there is no such map."""
        return 0

    def interior(self, unit: Tensor) -> Tensor:  # noqa: ARG002
        """Map points of the unit cube, shape (N, cube), to the domain, preserving uniformity.

        Raises:
            ProblemError: if there is no such map; ``sample`` rejects then.
        """
        raise ProblemError(
            f"no map from the unit cube to {self!r} is known",
            "points are drawn in its bounding box and rejected",
            "domain.sample(count, draw)",
        )

    def sample(self, count: int, draw: Draw) -> Tensor:
        """Return uniform points, shape (count, d), float64, from a source of unit-cube points.

        Raises:
            ProblemError: if the domain fills so little of its bounding box that rejection would not end.
        """
        check_order(count, "count")
        if self.cube:
            return self.interior(draw(count, self.cube))
        box = self.box
        found = reject(
            count,
            lambda n: (box.interior(draw(n, self.dimension)),),
            lambda p: self.signed_distance(p) <= 0,
            repr(self),
        )
        return found[0]

    def contains(self, points: Tensor) -> Tensor:
        """Return whether points lie in the closed domain, within the rounding of their coordinates, (N,)."""
        check_shape(points, self.dimension)
        return self.signed_distance(points) <= rounding(points, self.box)

    def interval(self, name: str) -> tuple[float, float]:
        """Return the ends of a coordinate in the bounding box.

        Raises:
            UnknownNameError: if the domain has no such coordinate.
        """
        return self.box.interval(name)

    def holds(self, name: str, x: float) -> bool:
        """Return whether a number lies in the interval of a coordinate, within rounding to float32."""
        return self.box.holds(name, x)

    def face(self, **ends: Any) -> Boundary:
        """Return faces of a box by coordinate: ``face(x=-1)``, ``face(x=(-1, 1))``, ``face(x=-1, y=0)``.

        Raises:
            ProblemError: if the domain has no such face.
        """
        if not ends:
            raise ProblemError("no face is named", "", f"domain.face({self.names[0]}=...)")
        found: list[Part] = []
        for name, values in ends.items():
            low, high = self.interval(name)
            for value in values if isinstance(values, tuple | list) else (values,):
                number = float(value)
                near = [
                    part
                    for part in self.boundary.parts
                    if part.end and part.end[0] == name and abs(part.end[1] - number) <= 1e-6 * (high - low)
                ]
                if not near:
                    faces = [part.name for part in self.boundary.parts if part.end is not None]
                    raise ProblemError(
                        f"{self!r} has no face {name}={number:g}",
                        f"its faces are {', '.join(faces) or 'none'}; all parts: "
                        + ", ".join(self.boundary.names),
                        f"domain.boundary[{self.boundary.names[0]!r}]",
                    )
                found += near
        return found[0] if len(found) == 1 else Joined(tuple(found))

    def __mul__(self, other: Any) -> Domain:
        return _combine("product", self, other)

    def __or__(self, other: Any) -> Domain:
        return _combine("union", self, other)

    def __and__(self, other: Any) -> Domain:
        return _combine("intersection", self, other)

    def __sub__(self, other: Any) -> Domain:
        return _combine("difference", self, other)


# How domains combine; the modules that define the combinations put them here.
COMBINE: dict[str, Callable[[Domain, Domain], Domain]] = {}


def _combine(kind: str, left: Domain, right: Any) -> Domain:
    if not isinstance(right, Domain):
        raise ProblemError(f"{right!r} is not a domain", f"a {kind} is one of two domains", "Box(t=(0, 1))")
    return COMBINE[kind](left, right)
