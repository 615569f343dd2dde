"""Products of domains with named coordinates, and unions, intersections, differences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_choice
from ntangent._base.errors import ProblemError
from ntangent.pinn.domains.base import COMBINE, Boundary, Domain, Joined, Part
from ntangent.pinn.domains.box import Box
from ntangent.pinn.domains.distance import conjunction, disjunction, length
from ntangent.pinn.domains.tools import Draw, Points, check_shape, fixed_draw, reject

_QUADRATURE = 1 << 14


@dataclass(frozen=True)
class Product(Domain):
    """The product of domains in different coordinates, ``Disc() * Box(t=(0, 1))``.

    Its boundary parts keep the names they have in the factors: ``"circle"`` (at all times), ``"t=0"``
    (the whole disc). Distance and volume are exact where those of the factors are.

    Args:
        factors: two or more domains without a common coordinate.
    """

    factors: tuple[Domain, ...]

    def __post_init__(self) -> None:
        names = [name for factor in self.factors for name in factor.names]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ProblemError(
                f"the factors share the coordinate(s) {', '.join(twice)}",
                "a product is taken of domains in different coordinates",
                "Box(x=(0, 1)) * Box(t=(0, 1)); & for an intersection",
            )

    def __repr__(self) -> str:
        return " * ".join(f"({f!r})" if isinstance(f, Combination) else repr(f) for f in self.factors)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates, factor by factor."""
        return tuple(name for factor in self.factors for name in factor.names)

    @cached_property
    def box(self) -> Box:
        """The bounding box."""
        return Box(**{n: (a, b) for factor in self.factors for n, a, b in factor.box.intervals})

    def split(self, x: Points) -> list[Any]:
        """Return the coordinates of each factor."""
        check_shape(x, self.dimension)
        parts, start = [], 0
        for factor in self.factors:
            parts.append(x[:, start : start + factor.dimension])
            start += factor.dimension
        return parts

    def between(self, name: str, low: float, high: float) -> Product:
        """Return the product with the factor of one coordinate cut; see :meth:`Domain.between`."""
        check_choice(name, self.names, "coordinate")
        return Product(tuple(f.between(name, low, high) if name in f.names else f for f in self.factors))

    @cached_property
    def volume(self) -> float:
        """The product of the volumes."""
        return math.prod(factor.volume for factor in self.factors)

    @property
    def cube(self) -> int:
        """Sum of the factors' cubes, 0 if one has none."""
        cubes = [factor.cube for factor in self.factors]
        return sum(cubes) if all(cubes) else 0

    def interior(self, unit: Tensor) -> Tensor:
        """Map points of the unit cube, factor by factor."""
        if not self.cube:
            return super().interior(unit)
        parts = unit.split([factor.cube for factor in self.factors], 1)
        return torch.cat([f.interior(part) for f, part in zip(self.factors, parts, strict=True)], 1)

    def signed_distance(self, points: Tensor) -> Tensor:
        """Return the distance to the boundary, negative inside, shape (N,)."""
        parts = zip(self.factors, self.split(points), strict=True)
        each = torch.stack([factor.signed_distance(part) for factor, part in parts])
        return length(each.clamp(min=0), 0) + each.amax(0).clamp(max=0)

    def distance(self, x: Points) -> Any:
        """Return the R-conjunction of the factors' functions, shape (N, 1)."""
        parts = zip(self.factors, self.split(x), strict=True)
        return reduce(conjunction, [factor.distance(part) for factor, part in parts])

    @cached_property
    def boundary(self) -> Boundary:
        """The parts of each factor's boundary, times the other factors."""
        return Joined(
            tuple(
                Lateral(self, i, part)
                for i, factor in enumerate(self.factors)
                for part in factor.boundary.parts
            )
        )


@dataclass(frozen=True)
class Lateral(Part):
    """A part of one factor's boundary times the other factors.

    Args:
        owner: the product.
        index: of the factor.
        part: of its boundary.
    """

    owner: Product
    index: int
    part: Part

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the factor's part."""
        return self.part.name

    @property
    def end(self) -> tuple[str, float, bool] | None:  # type: ignore[override]
        """That of the factor's part."""
        return self.part.end

    @property
    def complete(self) -> bool:  # type: ignore[override]
        """That of the factor's part."""
        return self.part.complete

    @property
    def whole(self) -> bool:  # type: ignore[override]
        """That of the factor's part."""
        return self.part.whole

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return self.owner.names

    @property
    def _others(self) -> list[Domain]:
        return [factor for i, factor in enumerate(self.owner.factors) if i != self.index]

    @property
    def cube(self) -> int | None:  # type: ignore[override]
        """Sum of the cubes of the part and the other factors, None if one has none."""
        cubes = [factor.cube for factor in self._others]
        return None if self.part.cube is None or not all(cubes) else self.part.cube + sum(cubes)

    @cached_property
    def measure(self) -> float:
        """The product of the measures."""
        return self.part.measure * math.prod(factor.volume for factor in self._others)

    def place(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Map points of the unit cube: first the part's numbers, then the other factors'."""
        sizes = [self.part.cube or 0, *(factor.cube for factor in self._others)]
        first, *rest = unit.split(sizes, 1)
        pieces = [factor.interior(u) for factor, u in zip(self._others, rest, strict=True)]
        return self._assemble(*self.part.place(first), pieces)

    def draw(self, count: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return points and normals; points of factors that are rejected meet in random order."""
        if self.cube is not None:
            return self.place(draw(count, self.cube))
        if len(self.part.coordinates) == 1:
            points, normals = (t.expand(count, 1) for t in self.part.draw(1, draw))
        else:
            points, normals = self.part.draw(count, draw)
        order = torch.Generator().manual_seed(count)
        pieces = [f.sample(count, draw)[torch.randperm(count, generator=order)] for f in self._others]
        return self._assemble(points, normals, pieces)

    def _assemble(self, points: Tensor, normals: Tensor, pieces: list[Tensor]) -> tuple[Tensor, Tensor]:
        zeros = [torch.zeros_like(piece) for piece in pieces]
        return (
            torch.cat([*pieces[: self.index], points, *pieces[self.index :]], 1),
            torch.cat([*zeros[: self.index], normals, *zeros[self.index :]], 1),
        )

    def level(self, x: Points) -> Any:
        """Return the part's own function, shape (N, 1)."""
        return self.part.level(self.owner.split(x)[self.index])

    def trim(self, x: Points) -> Any:
        """Return a function that is positive over the part and inside the other factors."""
        pieces = self.owner.split(x)
        own = self.part.trim(pieces[self.index])
        others = [f.distance(p) for f, p in zip(self.owner.factors, pieces, strict=True)]
        del others[self.index]
        return reduce(conjunction, others if own is None else [own, *others])

    def span(self, x: Points) -> Any:
        """Return the part's own distance function, which the other coordinates do not enter."""
        return self.part.span(self.owner.split(x)[self.index])


_OPERATORS = {"union": "|", "intersection": "&", "difference": "-"}


@dataclass(frozen=True)
class Combination(Domain):
    """The union, intersection or difference of two domains in the same coordinates.

    Written ``a | b``, ``a & b``, ``a - b``. The signed distance has the right sign; its magnitude is
    exact outside of a union and inside of the others, elsewhere a lower bound. Points are drawn by
    rejection; volume and measures are quadratures (relative error about 1e-3). The boundary parts are
    those of the two domains, cut to what lies on the boundary of the result; where two boundaries
    overlap, the first domain's counts, and smooth distances have another slope than 1.

    Args:
        kind: "union", "intersection" or "difference".
        first, second: the domains.
    """

    kind: str
    first: Domain
    second: Domain

    def __post_init__(self) -> None:
        if self.kind not in _OPERATORS:
            raise ProblemError(f"unknown combination {self.kind!r}", "", "union, intersection or difference")
        if self.first.names != self.second.names:
            raise ProblemError(
                f"domains in {self.first.names} and {self.second.names} have no {self.kind}",
                "both must have the same coordinates, in the same order",
                "a * b for a product with other coordinates",
            )
        if self.kind == "intersection":
            for name in self.names:
                (a, b), (c, d) = self.first.interval(name), self.second.interval(name)
                if max(a, c) >= min(b, d):
                    raise ProblemError(
                        f"{self.first!r} and {self.second!r} do not meet",
                        f"their intervals of {name} are apart",
                        "a | b for a union",
                    )

    def __repr__(self) -> str:
        sides = [
            f"({s!r})" if isinstance(s, Combination | Product) else repr(s) for s in (self.first, self.second)
        ]
        return f"{sides[0]} {_OPERATORS[self.kind]} {sides[1]}"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return self.first.names

    @cached_property
    def box(self) -> Box:
        """A bounding box: that of the first, the common part, or the hull."""
        if self.kind == "difference":
            return self.first.box
        low, high = (max, min) if self.kind == "intersection" else (min, max)
        pairs = zip(self.first.box.intervals, self.second.box.intervals, strict=True)
        return Box(**{n: (low(a, c), high(b, d)) for (n, a, b), (_, c, d) in pairs})

    def signed_distance(self, points: Tensor) -> Tensor:
        """Return the distance to the boundary or a lower bound of it, negative inside, shape (N,)."""
        a, b = self.first.signed_distance(points), self.second.signed_distance(points)
        if self.kind == "union":
            return torch.minimum(a, b)
        return torch.maximum(a, b if self.kind == "intersection" else -b)

    def distance(self, x: Points) -> Any:
        """Return the R-function of the two domains' functions, shape (N, 1)."""
        a, b = self.first.distance(x), self.second.distance(x)
        if self.kind == "union":
            return disjunction(a, b)
        return conjunction(a, b if self.kind == "intersection" else -b)

    @cached_property
    def boundary(self) -> Boundary:
        """The parts of both boundaries that lie on the boundary of the result."""
        first = [Piece(self, part, False) for part in self.first.boundary.parts]
        second = [Piece(self, part, True) for part in self.second.boundary.parts]
        kept = tuple(piece for piece in (*first, *second) if piece.measure > 0)
        if not kept:
            raise ProblemError(f"{self!r} has no boundary", "it is empty or too thin to be found", "")
        return Joined(kept)


@dataclass(frozen=True)
class Piece(Part):
    """What is left of a part in a combination.

    Args:
        owner: the combination.
        part: the part of one of its two domains.
        second: whether it is one of the second domain.
    """

    owner: Combination
    part: Part
    second: bool

    whole = False

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the part."""
        return self.part.name

    @property
    def end(self) -> tuple[str, float, bool] | None:  # type: ignore[override]
        """That of the part, turned where it is the boundary of what was taken away."""
        end = self.part.end
        return end and (end[0], end[1], end[2] != self._flipped)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return self.owner.names

    @property
    def _flipped(self) -> bool:
        return self.second and self.owner.kind == "difference"

    @property
    def _other(self) -> Domain:
        return self.owner.first if self.second else self.owner.second

    def _keep(self, points: Tensor, normals: Tensor) -> Tensor:
        """Return which points have the result on the inner side and not on the outer one."""
        step = 1e-7 * max(high - low for _, low, high in self.owner.box.intervals)
        outside = self.owner.signed_distance(points + step * normals) > 0
        kept = outside & (self.owner.signed_distance(points - step * normals) < 0)
        if self.second:
            kept &= self.owner.first.signed_distance(points).abs() > step / 2
        return kept

    def _propose(self, count: int, draw: Draw) -> tuple[Tensor, Tensor]:
        points, normals = self.part.draw(count, draw)
        return points, -normals if self._flipped else normals

    @cached_property
    def measure(self) -> float:
        """Length or area, by quadrature with 2^14 points on the part."""
        points, normals = self._propose(_QUADRATURE, fixed_draw())
        return self.part.measure * float(self._keep(points, normals).double().mean())

    def draw(self, count: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return points and normals by rejection."""
        if len(self.coordinates) == 1:
            return self._propose(1, draw)
        points, normals = reject(count, lambda n: self._propose(n, draw), self._keep, repr(self))
        return points, normals

    def level(self, x: Points) -> Any:
        """Return the part's function, positive on the side of the result, shape (N, 1)."""
        return -self.part.level(x) if self._flipped else self.part.level(x)

    def trim(self, x: Points) -> Any:
        """Return a function that is positive where the part is on the boundary of the result."""
        other = self._other.distance(x)
        if self.owner.kind == "union" or (self.owner.kind == "difference" and not self.second):
            other = -other
        own = self.part.trim(x)
        return other if own is None else conjunction(own, other)


def _product(left: Domain, right: Domain) -> Domain:
    factors = [f for side in (left, right) for f in (side.factors if isinstance(side, Product) else (side,))]
    if isinstance(left, Box) and isinstance(right, Box) and not set(left.names) & set(right.names):
        return Box(**{n: (a, b) for box in (left, right) for n, a, b in box.intervals})
    return Product(tuple(factors))


COMBINE["product"] = _product
for _kind in _OPERATORS:
    COMBINE[_kind] = lambda left, right, kind=_kind: Combination(kind, left, right)  # type: ignore[misc]
