"""Unknown scalar parameters of a problem."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError, DtypeError


@dataclass(frozen=True)
class Unknown:
    """A scalar to be found together with the solution.

    Inside bounds it is carried by a raw number q: low + (high - low)·sigmoid(q). Measured on the
    self-similar profiles this converges in every run where clipping fails for the higher ones.
    With one bound it is low + softplus(q) or high - softplus(q).

    Args:
        start: value at the start, strictly inside the bounds.
        bounds: lower and upper end, either of them None where there is no bound; or None for any
            real number.
    """

    start: float
    bounds: tuple[float | None, float | None] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.start, bool) or not isinstance(self.start, int | float):
            raise DtypeError(f"an unknown starts at a number, not at {self.start!r}", "", "Unknown(1.0)")
        if not math.isfinite(self.start):
            raise ArgumentError(f"an unknown cannot start at {self.start}", "", "Unknown(1.0)")
        low, high = self._interval()
        if not low < high:
            raise ArgumentError(
                f"the bounds of the unknown are ({low}, {high})",
                "the lower one comes first",
                f"Unknown({self.start}, bounds=({self.start - 1.0}, {self.start + 1.0}))",
            )
        if not low < self.start < high:
            inside = low + 1.0 if high == math.inf else high - 1.0 if low == -math.inf else (low + high) / 2
            raise ArgumentError(
                f"the unknown starts at {self.start}, not inside ({low}, {high})",
                "a start on a bound could never leave it",
                f"Unknown({inside}, bounds={self.bounds})",
            )

    def _interval(self) -> tuple[float, float]:
        """Return both ends, infinite where there is no bound."""
        try:
            low, high = (None, None) if self.bounds is None else self.bounds
            return -math.inf if low is None else float(low), math.inf if high is None else float(high)
        except (TypeError, ValueError):
            raise DtypeError(
                f"the bounds of an unknown are {self.bounds!r}",
                "they are a lower and an upper end, None where there is none",
                "Unknown(1.0, bounds=(0.0, None))",
            ) from None

    @property
    def raw_start(self) -> float:
        """The raw number that gives the start value."""
        low, high = self._interval()
        if math.isinf(low) and math.isinf(high):
            return self.start
        if math.isinf(low) or math.isinf(high):
            distance = self.start - low if math.isinf(high) else high - self.start
            return distance + math.log(-math.expm1(-distance))
        return math.log((self.start - low) / (high - self.start))

    def value(self, raw: Tensor) -> Tensor:
        """Return the parameter for a raw number, elementwise and differentiable."""
        low, high = self._interval()
        if math.isinf(low) and math.isinf(high):
            return raw
        if math.isinf(high):
            return low + torch.nn.functional.softplus(raw)
        if math.isinf(low):
            return high - torch.nn.functional.softplus(raw)
        return low + (high - low) * torch.sigmoid(raw)
