"""Where an equation holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ntangent._base.check import check_choice
from ntangent._base.errors import ArgumentError, ProblemError


@dataclass(frozen=True, init=False)
class Box:
    """A box of named coordinates, ``Box(x=(-1, 1))``.

    Args:
        intervals: lower and upper end of each coordinate, finite and in this order.
    """

    intervals: tuple[tuple[str, float, float], ...]

    def __init__(self, **intervals: tuple[float, float]) -> None:
        if not intervals:
            raise ProblemError("a box needs at least one coordinate", "", "Box(x=(-1, 1))")
        rows = []
        for name, ends in intervals.items():
            if name in RESERVED:
                raise ArgumentError(
                    f"{name!r} cannot name a coordinate", "fields use it", f"Box({name}_={ends})"
                )
            low, high = (float(end) for end in ends)
            if not (low < high and abs(low) != float("inf") and abs(high) != float("inf")):
                raise ArgumentError(
                    f"the interval of {name} is ({low}, {high})",
                    "it must be finite with its lower end first",
                    f"Box({name}=({min(low, high)}, {max(low, high) or 1.0}))",
                )
            rows.append((name, low, high))
        object.__setattr__(self, "intervals", tuple(rows))

    def __repr__(self) -> str:
        return "Box(" + ", ".join(f"{n}=({a!r}, {b!r})" for n, a, b in self.intervals) + ")"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates, in order."""
        return tuple(name for name, _, _ in self.intervals)

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return len(self.intervals)

    def interval(self, name: str) -> tuple[float, float]:
        """Return the ends of one coordinate.

        Raises:
            UnknownNameError: if the box has no such coordinate.
        """
        check_choice(name, self.names, "coordinate")
        return next((low, high) for known, low, high in self.intervals if known == name)


# Attributes of a field: a coordinate of the same name could not be told from them.
RESERVED: frozenset[Any] = frozenset(
    {"d", "t_", "value", "shape", "data", "order", "dtype", "device", "degree"}
)
