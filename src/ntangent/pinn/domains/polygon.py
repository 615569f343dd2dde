"""Polygons without self-intersection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError
from ntangent.pinn.domains.base import Boundary, Domain, Joined, Part
from ntangent.pinn.domains.box import Box
from ntangent.pinn.domains.distance import trimmed
from ntangent.pinn.domains.tools import Points, check_names, check_shape

Vertex = tuple[float, float]


def _turn(a: Vertex, b: Vertex, c: Vertex) -> float:
    """Return twice the signed area of a triangle, positive counterclockwise."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _between(a: Vertex, b: Vertex, p: Vertex) -> bool:
    return min(a[0], b[0]) <= p[0] <= max(a[0], b[0]) and min(a[1], b[1]) <= p[1] <= max(a[1], b[1])


def _meet(a: Vertex, b: Vertex, c: Vertex, d: Vertex) -> bool:
    """Return whether two closed segments have a common point."""
    turns = _turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b)
    if turns[0] * turns[1] < 0 and turns[2] * turns[3] < 0:
        return True
    on = ((a, b, c), (a, b, d), (c, d, a), (c, d, b))
    return any(t == 0 and _between(*triple) for t, triple in zip(turns, on, strict=True))


def _area(vertices: Sequence[Vertex]) -> float:
    return 0.5 * sum(
        a[0] * b[1] - b[0] * a[1] for a, b in zip(vertices, [*vertices[1:], vertices[0]], strict=True)
    )


def _triangulate(vertices: Sequence[Vertex]) -> list[tuple[Vertex, Vertex, Vertex]]:
    """Cut a counterclockwise polygon into triangles by clipping ears; O(n³) for n vertices."""
    left, triangles = list(vertices), []
    while len(left) > 3:
        n = len(left)
        best = None
        for i in range(n):
            a, b, c = left[i - 1], left[i], left[(i + 1) % n]
            if _turn(a, b, c) <= 0:
                continue
            others = (p for p in left if p not in (a, b, c))
            if any(_turn(a, b, p) >= 0 and _turn(b, c, p) >= 0 and _turn(c, a, p) >= 0 for p in others):
                continue
            best = i
            break
        if best is None:  # only vertices on a straight line are left besides the last triangle
            best = min(range(n), key=lambda i: abs(_turn(left[i - 1], left[i], left[(i + 1) % n])))
        triangles.append((left[best - 1], left[best], left[(best + 1) % n]))
        del left[best]
    triangles.append((left[0], left[1], left[2]))
    return [t for t in triangles if _turn(*t) > 0]


@dataclass(frozen=True)
class Polygon(Domain):
    """A polygon, convex or not, ``Polygon([(0, 0), (1, 0), (0, 1)])``.

    Its boundary parts are ``"edge 0"``, from the first vertex to the second, and so on. Area, signed
    distance and points (by triangulation) are exact.

    Args:
        vertices: in order along the boundary, either way round; no edge may touch another.
        names: names of the two coordinates.

    Raises:
        ArgumentError: if the edges cross or touch.
    """

    vertices: Sequence[Vertex]
    names: tuple[str, ...] = ("x", "y")

    def __post_init__(self) -> None:
        fix = "Polygon([(0, 0), (1, 0), (0, 1)])"
        try:
            vertices = tuple((float(x), float(y)) for x, y in self.vertices)
        except (TypeError, ValueError):
            raise ArgumentError(f"the vertices are {self.vertices!r}", "each is a pair", fix) from None
        if len(vertices) < 3 or not all(math.isfinite(c) for v in vertices for c in v):
            raise ArgumentError(
                f"{len(vertices)} vertices", "a polygon has three or more, with finite coordinates", fix
            )
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "names", check_names(self.names, 2))
        edges = list(zip(vertices, (*vertices[1:], vertices[0]), strict=True))
        for i, (a, b) in enumerate(edges):
            if a == b:
                raise ArgumentError(f"the vertex {a} is repeated", "an edge has no length", fix)
            for j in range(i + 1, len(edges)):
                c, d = edges[j]
                if j == i + 1 or (i == 0 and j == len(edges) - 1):  # neighbours share one vertex only
                    shared, one, two = (b, a, d) if j == i + 1 else (a, b, c)
                    along = (one[0] - shared[0]) * (two[0] - shared[0])
                    along += (one[1] - shared[1]) * (two[1] - shared[1])
                    crossed = _turn(shared, one, two) == 0 and along > 0
                else:
                    crossed = _meet(a, b, c, d)
                if crossed:
                    raise ArgumentError(
                        f"edge {i}, {a} to {b}, meets edge {j}, {c} to {d}",
                        "a polygon does not intersect itself",
                        "list the vertices in order along the boundary; join polygons with |",
                    )

    @cached_property
    def _ring(self) -> tuple[Vertex, ...]:
        """The vertices counterclockwise."""
        vertices = tuple(self.vertices)
        return vertices if _area(vertices) > 0 else (vertices[0], *vertices[:0:-1])

    @cached_property
    def convex(self) -> bool:
        """Whether no angle exceeds a straight one."""
        ring = self._ring
        return all(_turn(ring[i - 2], ring[i - 1], ring[i]) >= 0 for i in range(len(ring)))

    @cached_property
    def box(self) -> Box:
        """The bounding box."""
        sides = zip(*self.vertices, strict=True)
        return Box(**{n: (min(side), max(side)) for n, side in zip(self.names, sides, strict=True)})

    @cached_property
    def volume(self) -> float:
        """Area, exact."""
        return _area(self._ring)

    @property
    def cube(self) -> int:
        """Two numbers make a point."""
        return 2

    def interior(self, unit: Tensor) -> Tensor:
        """Map points of the unit square to triangles in proportion to their areas."""
        corners = unit.new_tensor(_triangulate(self._ring))
        sides = corners[:, 1:] - corners[:, :1]
        areas = (sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0]) / 2
        ends = areas.cumsum(0)
        position = unit[:, 0] * ends[-1]
        which = torch.searchsorted(ends, position, right=True).clamp(max=len(areas) - 1)
        # What is left of the first number within its triangle is uniform again.
        first = ((position - (ends - areas)[which]) / areas[which]).clamp(0, 1).sqrt()[:, None]
        second = unit[:, 1:2]
        return corners[which, 0] + first * ((1 - second) * sides[which, 0] + second * sides[which, 1])

    def signed_distance(self, points: Tensor) -> Tensor:
        """Return the exact distance to the nearest edge, negative inside, shape (N,)."""
        check_shape(points, 2)
        start = points.new_tensor(self._ring)
        side = start.roll(-1, 0) - start
        offset = points[:, None] - start
        along = ((offset * side).sum(-1) / (side * side).sum(-1)).clamp(0, 1)
        nearest = (offset - along[..., None] * side).norm(dim=-1).amin(1)
        return torch.where(self._inside(points), -nearest, nearest)

    def _inside(self, points: Tensor) -> Tensor:
        """Count the edges that a ray to the right crosses."""
        start = points.new_tensor(self._ring)
        end = start.roll(-1, 0)
        x, y = points[:, :1], points[:, 1:]
        spans = (start[:, 1] > y) != (end[:, 1] > y)
        rise = torch.where(end[:, 1] == start[:, 1], 1.0, end[:, 1] - start[:, 1])
        crossing = start[:, 0] + (y - start[:, 1]) / rise * (end[:, 0] - start[:, 0])
        return (spans & (x < crossing)).sum(1) % 2 == 1

    def distance(self, x: Points) -> Any:
        """Return the R-equivalence of the trimmed edges, with the sign of the side, shape (N, 1)."""
        check_shape(x, 2)
        size = self.boundary.distance(x)
        points = x if isinstance(x, Tensor) else x.value
        inside = (self.signed_distance(points.detach()) <= 0)[:, None]
        return torch.where(inside, size, -size)

    @cached_property
    def boundary(self) -> Boundary:
        """The edges, in the order of the vertices given."""
        vertices = tuple(self.vertices)
        return Joined(tuple(Edge(self, i) for i in range(len(vertices))))


@dataclass(frozen=True)
class Edge(Part):
    """One edge of a polygon.

    Args:
        owner: the polygon.
        index: of its first vertex.
    """

    owner: Polygon
    index: int

    @property
    def name(self) -> str:  # type: ignore[override]
        """``edge i``."""
        return f"edge {self.index}"

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return tuple(self.owner.names)

    @property
    def whole(self) -> bool:  # type: ignore[override]
        """The line of an edge enters a polygon that is not convex."""
        return self.owner.convex

    @property
    def cube(self) -> int:  # type: ignore[override]
        """One number makes a point."""
        return 1

    @cached_property
    def _ends(self) -> tuple[Vertex, Vertex]:
        vertices = self.owner.vertices
        return vertices[self.index], vertices[(self.index + 1) % len(vertices)]

    @cached_property
    def measure(self) -> float:
        """Length."""
        return math.dist(*self._ends)

    @cached_property
    def normal(self) -> Vertex:
        """Outward unit normal."""
        (ax, ay), (bx, by) = self._ends
        sign = 1.0 if _area(self.owner.vertices) > 0 else -1.0
        return sign * (by - ay) / self.measure, sign * (ax - bx) / self.measure

    def place(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Map numbers of the unit interval; return points and normals."""
        a, b = (unit.new_tensor(end) for end in self._ends)
        return a + unit * (b - a), unit.new_tensor(self.normal).expand(len(unit), 2)

    def level(self, x: Points) -> Any:
        """Return the distance to the line, positive inside, shape (N, 1)."""
        (ax, ay), (nx, ny) = self._ends[0], self.normal
        return (x[:, :1] - ax) * -nx - (x[:, 1:2] - ay) * ny

    def trim(self, x: Points) -> Any:
        """Return ((L/2)² - |x - c|²)/L, c the middle of the edge."""
        (ax, ay), (bx, by) = self._ends
        dx, dy = x[:, :1] - (ax + bx) / 2, x[:, 1:2] - (ay + by) / 2
        return ((self.measure / 2) ** 2 - dx * dx - dy * dy) * (1 / self.measure)

    def span(self, x: Points) -> Any:
        """Return the smooth approximate distance to the edge, also outside of the polygon."""
        return trimmed(self.level(x), self.trim(x))
