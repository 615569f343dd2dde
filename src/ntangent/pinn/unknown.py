"""Unknown scalar parameters of a problem."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError


@dataclass(frozen=True)
class Unknown:
    """A scalar to be found together with the solution.

    Inside bounds it is carried by a raw number q: low + (high - low)·sigmoid(q). Measured on the
    self-similar profiles this converges in every run where clipping fails for the higher ones.

    Args:
        start: value at the start, strictly inside the bounds.
        bounds: lower and upper end, or None for any real number.
    """

    start: float
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.start):
            raise ArgumentError(f"an unknown cannot start at {self.start}", "", "Unknown(1.0)")
        if self.bounds is not None:
            low, high = self.bounds
            if not low < self.start < high:
                raise ArgumentError(
                    f"the unknown starts at {self.start}, outside ({low}, {high})",
                    "a start on a bound could never leave it",
                    f"Unknown({(low + high) / 2}, bounds=({low}, {high}))",
                )

    @property
    def raw_start(self) -> float:
        """The raw number that gives the start value."""
        if self.bounds is None:
            return self.start
        low, high = self.bounds
        fraction = (self.start - low) / (high - low)
        return math.log(fraction / (1 - fraction))

    def value(self, raw: Tensor) -> Tensor:
        """Return the parameter for a raw number, elementwise and differentiable."""
        if self.bounds is None:
            return raw
        low, high = self.bounds
        return low + (high - low) * torch.sigmoid(raw)
