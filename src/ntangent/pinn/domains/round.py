"""Discs, balls and the shells between two spheres."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError
from ntangent.pinn.domains.base import Boundary, Domain, Joined, Part
from ntangent.pinn.domains.box import Box
from ntangent.pinn.domains.distance import conjunction, length
from ntangent.pinn.domains.tools import Points, check_names, check_shape

_NAMES = ("x", "y", "z", "w")


def _radius_map(unit: Tensor, dimension: int, inner: float, outer: float) -> Tensor:
    """Map a uniform number to the radius of a uniform point between two spheres, shape (N, 1)."""
    low, high = inner**dimension, outer**dimension
    radius: Tensor = (low + (high - low) * unit) ** (1.0 / dimension)
    return radius


def directions(unit: Tensor, dimension: int) -> Tensor:
    """Map unit-cube points to uniform unit vectors.

    By angle in the plane and by Archimedes' cylinder in space, both from d - 1 numbers; by normal
    quantiles, from d numbers, in more dimensions (Muller 1959, Commun. ACM 2, 19).
    """
    if dimension <= 3:
        angle = 2 * math.pi * unit[:, 0]
        if dimension == 2:
            return torch.stack([torch.cos(angle), torch.sin(angle)], 1)
        height = 2 * unit[:, 1] - 1
        ring = torch.sqrt((1 - height * height).clamp(min=0))
        return torch.stack([ring * torch.cos(angle), ring * torch.sin(angle), height], 1)
    edge = torch.finfo(unit.dtype).eps
    normal: Tensor = torch.special.ndtri(unit.clamp(edge, 1 - edge))
    # The centre of the cube, a point of many sequences, has no direction: it gets the first axis.
    normal[:, 0] = torch.where((normal == 0).all(1), 1.0, normal[:, 0])
    return normal / length(normal, 1)[:, None]


def _angles(dimension: int) -> int:
    return dimension - 1 if dimension <= 3 else dimension


def _check_centre(centre: Any) -> tuple[float, ...]:
    try:
        known = tuple(float(c) for c in centre)
    except (TypeError, ValueError):
        known = ()
    if len(known) < 2 or not all(map(math.isfinite, known)):
        raise ArgumentError(
            f"the centre is {centre!r}", "it has two or more finite coordinates", "centre=(0.0, 0.0)"
        )
    return known


def _unit_ball(dimension: int) -> float:
    return float(math.pi ** (dimension / 2) / math.gamma(dimension / 2 + 1))


class _Round(Domain):
    """What lies between two concentric spheres, the inner of which may have radius 0."""

    centre: Sequence[float]

    def _radii(self) -> tuple[float, float]:
        raise NotImplementedError  # pragma: no cover

    @cached_property
    def box(self) -> Box:
        """The bounding cube."""
        _, outer = self._radii()
        return Box(**{n: (c - outer, c + outer) for n, c in zip(self.names, self.centre, strict=True)})

    @cached_property
    def volume(self) -> float:
        """Area or volume, exact."""
        inner, outer = self._radii()
        d = len(self.centre)
        return _unit_ball(d) * (outer**d - inner**d)

    @property
    def cube(self) -> int:
        """Dimension of the unit cube that ``interior`` maps here: d, or d + 1 from d = 4 on."""
        return 1 + _angles(len(self.centre))

    def interior(self, unit: Tensor) -> Tensor:
        """Map points of the unit cube: the first number to the radius, the others to the direction."""
        d = len(self.centre)
        radius = _radius_map(unit[:, :1], d, *self._radii())
        return unit.new_tensor(self.centre) + radius * directions(unit[:, 1:], d)

    def _from_centre(self, points: Tensor) -> Tensor:
        check_shape(points, len(self.centre))
        return length(points - points.new_tensor(self.centre), 1)


@dataclass(frozen=True)
class Ball(_Round):
    """A ball in any dimension from 2, ``Ball(centre=(0, 0, 0), radius=1)``. Everything is exact.

    Its boundary part is ``"sphere"`` (``"circle"`` in the plane).

    Args:
        centre: its coordinates.
        radius: positive.
        names: names of the coordinates.
    """

    centre: Sequence[float] = (0.0, 0.0, 0.0)
    radius: float = 1.0
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "centre", _check_centre(self.centre))
        names = check_names(self.names or _NAMES[: len(self.centre)], len(self.centre))
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "radius", float(check_positive(self.radius, "radius")))

    def _radii(self) -> tuple[float, float]:
        return 0.0, self.radius

    def signed_distance(self, points: Tensor) -> Tensor:
        """Return the exact distance to the sphere, negative inside, shape (N,)."""
        return self._from_centre(points) - self.radius

    def distance(self, x: Points) -> Any:
        """Return (R² - r²)/(2R), a polynomial, shape (N, 1)."""
        return self.boundary.parts[0].level(check_shape(x, len(self.centre)))

    @cached_property
    def boundary(self) -> Boundary:
        """The sphere."""
        name = "circle" if len(self.centre) == 2 else "sphere"
        return Sphere(tuple(self.centre), self.radius, tuple(self.names), name)


@dataclass(frozen=True)
class Disc(Ball):
    """A disc, ``Disc(centre=(0, 0), radius=1)``. Its boundary part is ``"circle"``."""

    centre: Sequence[float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.centre) != 2:
            raise ArgumentError(
                f"a disc has 2 coordinates, its centre has {len(self.centre)}", "", f"Ball({self.centre})"
            )


@dataclass(frozen=True)
class Shell(_Round):
    """What lies between two concentric spheres: an annulus, a spherical shell. Everything is exact.

    Its boundary parts are ``"inner"`` and ``"outer"``.

    Args:
        centre: its coordinates, two or more.
        inner, outer: radii, 0 < inner < outer.
        names: names of the coordinates.
    """

    centre: Sequence[float] = (0.0, 0.0)
    inner: float = 0.5
    outer: float = 1.0
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "centre", _check_centre(self.centre))
        names = check_names(self.names or _NAMES[: len(self.centre)], len(self.centre))
        object.__setattr__(self, "names", names)
        for radius in ("inner", "outer"):
            object.__setattr__(self, radius, float(check_positive(getattr(self, radius), radius)))
        if self.inner >= self.outer:
            raise ArgumentError(
                f"the inner radius {self.inner} is not below the outer radius {self.outer}",
                "nothing lies between the spheres",
                f"Shell({self.centre}, {self.outer}, {2 * self.inner})",
            )

    def _radii(self) -> tuple[float, float]:
        return self.inner, self.outer

    def signed_distance(self, points: Tensor) -> Tensor:
        """Return the exact distance to the nearer sphere, negative inside, shape (N,)."""
        r = self._from_centre(points)
        return torch.maximum(r - self.outer, self.inner - r)

    def distance(self, x: Points) -> Any:
        """Return the R-conjunction of the distance functions of the two spheres, shape (N, 1)."""
        check_shape(x, len(self.centre))
        inner, outer = self.boundary.parts
        return conjunction(inner.level(x), outer.level(x))

    @cached_property
    def boundary(self) -> Boundary:
        """The two spheres."""
        centre, names = tuple(self.centre), tuple(self.names)
        return Joined(
            (Sphere(centre, self.inner, names, "inner", False), Sphere(centre, self.outer, names, "outer"))
        )


@dataclass(frozen=True)
class Sphere(Part):
    """A circle or sphere as a boundary part.

    Args:
        centre, radius: where.
        axes: names of the coordinates.
        name: of the part.
        outward: whether the domain lies inside of it.
    """

    centre: tuple[float, ...]
    radius: float
    axes: tuple[str, ...]
    name: str
    outward: bool = True

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return self.axes

    @property
    def cube(self) -> int:  # type: ignore[override]
        """Dimension of the unit cube that ``place`` maps to the sphere."""
        return _angles(len(self.centre))

    @cached_property
    def measure(self) -> float:
        """Length or area, exact."""
        d = len(self.centre)
        return d * _unit_ball(d) * self.radius ** (d - 1)

    def place(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Map points of the unit cube; return points and outward normals."""
        normals = directions(unit, len(self.centre))
        points = unit.new_tensor(self.centre) + self.radius * normals
        return points, normals if self.outward else -normals

    def level(self, x: Points) -> Any:
        """Return (R² - r²)/(2R), or its negative where the domain lies outside, shape (N, 1)."""
        squares: Any = 0.0
        for i, c in enumerate(self.centre):
            offset = x[:, i : i + 1] - c
            squares = squares + offset * offset
        scale = 0.5 / self.radius if self.outward else -0.5 / self.radius
        return (self.radius**2 - squares) * scale

    def trim(self, _x: Points) -> Any:
        """Return None: the function vanishes on the sphere alone."""
        return None
