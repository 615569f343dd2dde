"""What a domain is: named coordinates, a region, and a boundary in named parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ntangent._base.check import check_order
from ntangent._base.errors import ArgumentError, ProblemError
from ntangent.pinn.domains.distance import equivalence, trimmed
from ntangent.pinn.domains.tools import (
    QUADRATURE,
    Draw,
    Points,
    by_name,
    check_shape,
    fixed_draw,
    lattice,
    reject,
    rounding,
    shares,
)

if TYPE_CHECKING:
    from ntangent.pinn.domains.box import Box


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
        points, _ = self.part.draw(QUADRATURE, fixed_draw())
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
        inside = self.signed_distance(box.interior(lattice(QUADRATURE, self.dimension))) <= 0
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

    def between(self, name: str, low: float, high: float) -> Domain:
        """Return the part of the domain in which one coordinate lies between two numbers, as of its kind.

        Raises:
            ProblemError: if the coordinate is not a factor of its own, so that the part is of another kind.
        """
        raise ProblemError(
            f"{self!r} cannot be cut across {name}",
            "only a coordinate that is an interval by itself can be shortened",
            f"Disc() * Box({name}=({low}, {high}))",
        )

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
