"""Boxes of named coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_choice
from ntangent._base.errors import ArgumentError, ProblemError
from ntangent.pinn.domains.base import Boundary, Domain, Joined, Part
from ntangent.pinn.domains.distance import conjunction, length
from ntangent.pinn.domains.tools import Points, check_name, check_shape, columns


@dataclass(frozen=True, init=False)
class Box(Domain):
    """A box of named coordinates, ``Box(x=(-1, 1), t=(0, 1))``.

    Its boundary parts are the faces, ``"x=-1"`` and so on. Distances and volume are exact.

    Args:
        intervals: lower and upper end of each coordinate, finite and in this order.
    """

    intervals: tuple[tuple[str, float, float], ...]

    def __init__(self, **intervals: tuple[float, float]) -> None:
        if not intervals:
            raise ProblemError("a box needs at least one coordinate", "", "Box(x=(-1, 1))")
        rows = [(check_name(name), *_ends(name, ends)) for name, ends in intervals.items()]
        object.__setattr__(self, "intervals", tuple(rows))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(" + ", ".join(f"{n}=({a!r}, {b!r})" for n, a, b in self.intervals) + ")"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates, in order."""
        return tuple(name for name, _, _ in self.intervals)

    @property
    def box(self) -> Box:
        """The box itself."""
        return self

    def interval(self, name: str) -> tuple[float, float]:
        """Return the ends of one coordinate.

        Raises:
            UnknownNameError: if the box has no such coordinate.
        """
        check_choice(name, self.names, "coordinate")
        return next((low, high) for known, low, high in self.intervals if known == name)

    def holds(self, name: str, x: float) -> bool:
        """Return whether a number lies in the interval of a coordinate, within rounding to float32."""
        low, high = self.interval(name)
        slack = 1e-6 * (high - low)
        return low - slack <= x <= high + slack

    def between(self, name: str, low: float, high: float) -> Box:
        """Return the box with other ends of one coordinate.

        Raises:
            UnknownNameError: if the box has no such coordinate.
            ProblemError: if the ends do not lie in it.
        """
        if not (self.interval(name)[0] <= low < high <= self.interval(name)[1]):
            raise ProblemError(
                f"{name} from {low} to {high} is no part of {self}", "", f"{name}={self.interval(name)}"
            )
        return Box(**{n: (low, high) if n == name else (a, b) for n, a, b in self.intervals})

    @cached_property
    def volume(self) -> float:
        """Length, area or volume."""
        return math.prod(high - low for _, low, high in self.intervals)

    @property
    def cube(self) -> int:
        """Dimension of the unit cube that ``interior`` maps to the box."""
        return self.dimension

    def interior(self, unit: Tensor) -> Tensor:
        """Scale points of the unit cube, shape (N, d), in their own dtype and device."""
        low = unit.new_tensor([a for _, a, _ in self.intervals])
        high = unit.new_tensor([b for _, _, b in self.intervals])
        # Measured from the nearer end: both ends come out exact, and rounding never leaves the box.
        return torch.where(unit < 0.5, low + (high - low) * unit, high - (high - low) * (1 - unit))

    def signed_distance(self, points: Tensor) -> Tensor:
        """Return the exact distance to the boundary, negative inside, shape (N,)."""
        check_shape(points, self.dimension)
        low = points.new_tensor([a for _, a, _ in self.intervals])
        high = points.new_tensor([b for _, _, b in self.intervals])
        excess = torch.maximum(low - points, points - high)
        return length(excess.clamp(min=0), 1) + excess.amax(1).clamp(max=0)

    def distance(self, x: Points) -> Any:
        """Return the R-conjunction of the slabs (x - a)(b - x)/(b - a), shape (N, 1)."""
        check_shape(x, self.dimension)
        slabs = [
            (c - low) * (high - c) * (1 / (high - low))
            for c, (_, low, high) in zip(columns(x), self.intervals, strict=True)
        ]
        return reduce(conjunction, slabs)

    @cached_property
    def boundary(self) -> Boundary:
        """The faces, lower before upper in each coordinate."""
        return Joined(
            tuple(Face(self, axis, upper) for axis in range(self.dimension) for upper in (False, True))
        )


class Interval(Box):
    """An interval of one named coordinate, ``Interval(x=(-1, 1))``: a box of dimension 1."""

    def __init__(self, **intervals: tuple[float, float]) -> None:
        if len(intervals) != 1:
            raise ProblemError(
                f"an interval has one coordinate, not {len(intervals)}", "", "Interval(x=(-1, 1)) or Box(...)"
            )
        super().__init__(**intervals)


@dataclass(frozen=True)
class Face(Part):
    """One face of a box.

    Args:
        owner: the box.
        axis: index of the coordinate that is constant on it.
        upper: whether it is the upper end of that coordinate.
    """

    owner: Box
    axis: int
    upper: bool

    @property
    def position(self) -> float:
        """The value of the constant coordinate."""
        _, low, high = self.owner.intervals[self.axis]
        return high if self.upper else low

    @property
    def name(self) -> str:  # type: ignore[override]
        """Coordinate and value, as in ``x=-1``."""
        return f"{self.owner.names[self.axis]}={self.position:g}"

    @property
    def end(self) -> tuple[str, float, bool]:  # type: ignore[override]
        """Coordinate, value, and whether it is the upper one."""
        return self.owner.names[self.axis], self.position, self.upper

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return self.owner.names

    @property
    def rest(self) -> Box | None:
        """The box of the other coordinates."""
        others = {n: (a, b) for i, (n, a, b) in enumerate(self.owner.intervals) if i != self.axis}
        return Box(**others) if others else None

    @property
    def complete(self) -> bool:  # type: ignore[override]
        """A box is a product in every coordinate."""
        return True

    @property
    def cube(self) -> int:  # type: ignore[override]
        """Number of the other coordinates."""
        return self.owner.dimension - 1

    @cached_property
    def measure(self) -> float:
        """Length or area; 1 for a point."""
        return self.rest.volume if self.rest else 1.0

    def place(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Scale points of the unit cube of the other coordinates; return points and normals."""
        points = self.rest.interior(unit) if self.rest else unit
        column = points.new_full((len(points), 1), self.position)
        normals = points.new_zeros(len(points), self.owner.dimension)
        normals[:, self.axis] = 1.0 if self.upper else -1.0
        return torch.cat([points[:, : self.axis], column, points[:, self.axis :]], 1), normals

    def level(self, x: Points) -> Any:
        """Return the distance to the face's plane, positive on the side of the box."""
        column = x[:, self.axis : self.axis + 1]
        return self.position - column if self.upper else column - self.position

    def trim(self, x: Points) -> Any:
        """Return the distance function of the box of the other coordinates."""
        rest = self.rest
        if rest is None:
            return None
        others = [c for i, c in enumerate(columns(x)) if i != self.axis]
        return rest.distance(torch.cat(others, 1))


def _ends(name: str, ends: Any) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in ends)
    except (TypeError, ValueError):
        raise ArgumentError(
            f"the interval of {name} is {ends!r}", "it has a lower and an upper end", f"Box({name}=(-1, 1))"
        ) from None
    if math.isfinite(low) and math.isfinite(high) and low < high:
        return low, high
    fix = (high, low) if high < low and math.isfinite(high - low) else (-1.0, 1.0)
    raise ArgumentError(
        f"the interval of {name} is ({low}, {high})",
        "it must be finite with its lower end first",
        f"Box({name}={fix})",
    )
