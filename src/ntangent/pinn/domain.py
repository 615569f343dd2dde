"""Where an equation holds."""

from __future__ import annotations

import keyword
import math
from dataclasses import dataclass
from typing import Any

from ntangent._base.check import check_choice
from ntangent._base.errors import ArgumentError, ProblemError
from ntangent.pinn.field import Field


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
        rows = [(_name(name), *_ends(name, ends)) for name, ends in intervals.items()]
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

    def holds(self, name: str, x: float) -> bool:
        """Return whether a number lies in the interval of a coordinate, within rounding to float32."""
        low, high = self.interval(name)
        slack = 1e-6 * (high - low)
        return low - slack <= x <= high + slack


# Attributes of a field and arguments of a condition: a coordinate of that name would hide behind them.
OPTIONS = frozenset({"on", "n", "sampler", "seed", "field", "component", "hard"})
RESERVED = frozenset({*dir(Field), *OPTIONS, "value", "weight", "self"})


def _name(name: str) -> str:
    if name in RESERVED or name.startswith("_") or keyword.iskeyword(name) or not name.isidentifier():
        raise ArgumentError(
            f"{name!r} cannot name a coordinate",
            "fields or conditions already use this name" if name in RESERVED else "u.NAME must be readable",
            "Box(x=(-1, 1))",
        )
    return name


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
