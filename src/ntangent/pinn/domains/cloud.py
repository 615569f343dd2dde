"""Domains that are known by points alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_finite, check_positive
from ntangent._base.errors import ProblemError, ShapeError
from ntangent.pinn.domains.base import Boundary, Domain, Part
from ntangent.pinn.domains.box import Box
from ntangent.pinn.domains.tools import Draw, Points, check_names


def _table(values: Any, name: str) -> Tensor:
    tensor = torch.as_tensor(values, dtype=torch.float64, device="cpu").detach()
    if tensor.ndim != 2 or len(tensor) == 0:
        raise ShapeError(
            f"{name} has shape {tuple(tensor.shape)}",
            "each row is a point: shape (N, d)",
            "torch.rand(100, 2)",
        )
    return check_finite(tensor, name)


def _pick(count: int, available: int, draw: Draw, what: str) -> Tensor:
    if count > available:
        raise ProblemError(
            f"{count} points are asked of a cloud of {available} {what}", "it has no others", f"n={available}"
        )
    return torch.argsort(draw(available, 1)[:, 0])[:count].sort().values


@dataclass(frozen=True, eq=False)
class PointCloud(Domain):
    """A domain given by points: of a mesh, a measurement, another program.

    ``contains`` tells whether a point is in the bounding box: more is not known. Samplers choose
    among the points, each at most once.

    Args:
        points: of the interior, shape (N, d).
        names: names of the coordinates.
        boundary_points: of the boundary, shape (M, d), its part ``"points"``.
        normals: outward normals there, shape (M, d); they are scaled to length 1.
        measure: area or volume, if known.
    """

    points: Any
    names: tuple[str, ...] = ("x", "y")
    boundary_points: Any = None
    normals: Any = None
    measure: float | None = None

    def __post_init__(self) -> None:
        points = _table(self.points, "points")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "names", check_names(self.names, points.shape[1]))
        if self.measure is not None:
            check_positive(self.measure, "measure")
        for name in ("boundary_points", "normals"):
            value = getattr(self, name)
            if value is None:
                continue
            table = _table(value, name)
            if table.shape[1] != points.shape[1]:
                raise ShapeError(
                    f"{name} has {table.shape[1]} columns, the points {points.shape[1]}", "", f"{name}[:, :2]"
                )
            object.__setattr__(self, name, table)
        if self.normals is not None:
            if self.boundary_points is None or len(self.boundary_points) != len(self.normals):
                raise ShapeError("normals do not fit the boundary points", "there is one for each", "")
            length = self.normals.norm(dim=1, keepdim=True)
            if bool((length == 0).any()):
                raise ProblemError("a normal has length 0", "it has no direction", "normals of length 1")
            unit = (length - 1).abs() < 1e-12  # left as they are, so that a printed cloud is the same
            object.__setattr__(self, "normals", torch.where(unit, self.normals, self.normals / length))

    def __repr__(self) -> str:
        rows = [("points", self.points), ("boundary_points", self.boundary_points), ("normals", self.normals)]
        given = [f"{name}={value.tolist()!r}" for name, value in rows if value is not None]
        given.append(f"names={tuple(self.names)!r}")
        if self.measure is not None:
            given.append(f"measure={self.measure!r}")
        return f"PointCloud({', '.join(given)})"

    @cached_property
    def box(self) -> Box:
        """The bounding box of all points."""
        known = [p for p in (self.points, self.boundary_points) if p is not None]
        low, high = torch.cat(known).aminmax(dim=0)
        ends = zip(self.names, low.tolist(), high.tolist(), strict=True)
        return Box(**{n: (a, b if b > a else a + 1e-12 * max(1.0, abs(a))) for n, a, b in ends})

    @cached_property
    def volume(self) -> float:
        """The ``measure`` given."""
        if self.measure is None:
            raise ProblemError(
                "the volume of the point cloud is not known",
                "points have none",
                "PointCloud(..., measure=1.0)",
            )
        return float(self.measure)

    def signed_distance(self, points: Tensor) -> Tensor:
        """Return the signed distance of the bounding box: a lower bound outside of it, no more."""
        return self.box.signed_distance(points)

    def distance(self, _x: Points) -> Any:
        """Refuse: a cloud has no surface."""
        raise ProblemError(
            "a point cloud has no distance function",
            "its boundary is known at points only",
            "a soft condition: Dirichlet(on=domain.boundary, value=...) without hard=True",
        )

    def sample(self, count: int, draw: Draw) -> Tensor:
        """Return ``count`` of the points, each at most once, in their order."""
        rows: Tensor = self.points
        return rows[_pick(count, len(rows), draw, "points")]

    @cached_property
    def boundary(self) -> Boundary:
        """The boundary points, as one part."""
        if self.boundary_points is None:
            raise ProblemError(
                "the point cloud has no boundary points", "", "PointCloud(points, boundary_points=...)"
            )
        return CloudPart(self)


@dataclass(frozen=True, eq=False)
class CloudPart(Part):
    """The boundary points of a cloud.

    Args:
        owner: the cloud.
    """

    owner: PointCloud

    name = "points"
    whole = False

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return tuple(self.owner.names)

    @cached_property
    def measure(self) -> float:
        """Number of the points."""
        return float(len(self.owner.boundary_points))

    def draw(self, count: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return ``count`` of the points; their normals, or NaN where none were given."""
        points = self.owner.boundary_points
        chosen = _pick(count, len(points), draw, "boundary points")
        normals = torch.full_like(points, torch.nan) if self.owner.normals is None else self.owner.normals
        return points[chosen], normals[chosen]

    def level(self, x: Points) -> Any:
        """Refuse: see ``PointCloud.distance``."""
        return self.owner.distance(x)

    def trim(self, x: Points) -> Any:
        """Refuse: see ``PointCloud.distance``."""
        return self.owner.distance(x)
