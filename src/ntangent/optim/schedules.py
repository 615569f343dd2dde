"""Learning-rate schedules: values that say by what factor the rate is multiplied at an iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError, DtypeError


@runtime_checkable
class Schedule(Protocol):
    """A factor on the learning rate that depends on the iteration only, so that a run can resume."""

    def factor(self, iteration: int, iterations: int) -> float:
        """Return the factor of iteration ``iteration`` (from 0) of ``iterations``."""
        ...


@dataclass(frozen=True)
class ExponentialDecay:
    """Multiply the rate by ``rate`` every ``every`` iterations.

    Args:
        rate: factor of one period, in (0, 1].
        every: length of a period, in iterations.
        smooth: decay a little at every iteration, ``rate ** (iteration / every)``, instead of in
            stairs, ``rate ** (iteration // every)``.
    """

    rate: float = 0.9
    every: int = 5000
    smooth: bool = False

    def __post_init__(self) -> None:
        check_positive(self.rate, "rate")
        if self.rate > 1:
            raise ArgumentError(
                f"rate must be at most 1, got {self.rate!r}",
                "a learning rate that grows without bound diverges",
                f"rate={1 / self.rate:g}",
            )
        check_positive(self.every, "every", integer=True)
        if not isinstance(self.smooth, bool):
            raise DtypeError(f"smooth must be True or False, got {self.smooth!r}", "", "smooth=False")

    def factor(self, iteration: int, iterations: int) -> float:  # noqa: ARG002
        """Return ``rate`` to the number of periods that have passed."""
        periods = iteration / self.every if self.smooth else iteration // self.every
        return float(self.rate**periods)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 at the first iteration down to ``floor`` after the last.

    Source: Loshchilov & Hutter 2017 (SGDR), one period.

    Args:
        floor: the factor at the end, in [0, 1].
    """

    floor: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.floor, bool) or not isinstance(self.floor, int | float):
            raise DtypeError(f"floor must be a number, got {self.floor!r}", "", "floor=0.0")
        if not 0 <= self.floor <= 1:
            raise ArgumentError(
                f"floor must lie between 0 and 1, got {self.floor!r}",
                "it is the fraction of the learning rate that is left at the end",
                "floor=0.01",
            )

    def factor(self, iteration: int, iterations: int) -> float:
        """Return floor + (1 - floor) (1 + cos(π iteration / iterations)) / 2."""
        swing = 0.5 * (1 + math.cos(math.pi * iteration / iterations))
        return self.floor + (1 - self.floor) * swing
