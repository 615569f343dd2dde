"""Collocation points that move during training.

A resampler is a frozen configuration; its state is a plain dict for the checkpoint. All randomness
comes from the generator that is passed in: the same state and generator state give the same points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ntangent._base.check import check_finite, check_positive
from ntangent._base.errors import ArgumentError, NonFiniteError, ShapeError
from ntangent.pinn.domains.base import Domain
from ntangent.pinn.sampling.base import resampler, uniform_draw

# The absolute residual at points of shape (N, d): shape (N,).
Magnitude = Callable[[Tensor], Tensor]


@runtime_checkable
class Resampler(Protocol):
    """Chooses new collocation points every so many iterations."""

    @property
    def every(self) -> int:
        """Iterations between two choices."""
        ...

    def start(self, domain: Domain, points: Tensor) -> dict[str, Any]:
        """Return the state before the first choice: plain values and tensors."""
        ...

    def update(
        self,
        domain: Domain,
        state: dict[str, Any],
        points: Tensor,
        magnitude: Magnitude,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return the new points, in the dtype and on the device of the old ones, and the new state."""
        ...


def _fresh(domain: Domain, count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Return uniform points, of a stream that the generator starts.

    Its own stream would repeat the points of ``Uniform`` when both have the same seed.
    """
    seed = int(torch.randint(1 << 62, (), generator=generator))
    return domain.sample(count, uniform_draw(torch.Generator().manual_seed(seed))).to(like)


def _sizes(magnitude: Magnitude, points: Tensor) -> Tensor:
    """Return the magnitudes at points, shape (N,), float64 on the CPU."""
    with torch.no_grad():
        sizes = magnitude(points)
    if sizes.numel() != len(points):
        raise ShapeError(
            f"the magnitude has shape {tuple(sizes.shape)} at {len(points)} points", "one number for each", ""
        )
    sizes = sizes.detach().reshape(-1).abs().to("cpu", torch.float64)
    try:
        return check_finite(sizes, "the residual")
    except NonFiniteError:
        raise NonFiniteError(
            "the residual is not finite at some candidate points",
            "points cannot be chosen by it",
            "a smaller learning rate, or Resample(...)",
        ) from None


def density(sizes: Tensor, k: float, c: float) -> Tensor:
    """Return ε^k / mean(ε^k) + c, the unnormalised density of Wu et al. (2023), equation 2."""
    largest = sizes.max()
    powers = (sizes / largest) ** k if largest > 0 else torch.ones_like(sizes)
    return powers / powers.mean() + c


def _choose(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Choose distinct rows in proportion to weights."""
    positive = int((weights > 0).sum())
    if positive < count:  # some rows have no weight at all: take every one that has, then the others
        weights = weights + weights.max() * 1e-12 + 1e-300
    return torch.multinomial(weights, count, replacement=False, generator=generator)


@dataclass(frozen=True)
class _Periodic:
    """What all have in common.

    Args:
        every: iterations between two choices.
    """

    every: int = 1000

    def __post_init__(self) -> None:
        check_positive(self.every, "every", integer=True)

    def start(self, domain: Domain, points: Tensor) -> dict[str, Any]:  # noqa: ARG002
        """Return the state before the first choice: how often points were chosen, and how many moved."""
        return {"round": 0, "moved": 0}

    def _next(self, state: dict[str, Any], moved: int) -> dict[str, Any]:
        return {"round": state["round"] + 1, "moved": moved}


@resampler
@dataclass(frozen=True)
class Resample(_Periodic):
    """All points are drawn anew, uniformly.

    Args:
        every: iterations between two choices.
    """

    def update(
        self,
        domain: Domain,
        state: dict[str, Any],
        points: Tensor,
        magnitude: Magnitude,  # noqa: ARG002
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return as many new points."""
        return _fresh(domain, len(points), points, generator), self._next(state, len(points))


def _check_density(k: float, c: float, candidates: int, kind: str) -> None:
    check_positive(candidates, "candidates", integer=True)
    for name, value in (("k", k), ("c", c)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ArgumentError(
                f"{name} is {value!r}", "the density is ε^k / mean(ε^k) + c", f"{kind}(k=1.0, c=1.0)"
            )


@resampler
@dataclass(frozen=True)
class RAD(_Periodic):
    """All points are drawn anew with the density ε^k / mean(ε^k) + c, ε the absolute residual.

    Residual-based adaptive distribution, Wu, Zhu, Tan, Kartha & Lu (2023), Comput. Methods Appl.
    Mech. Eng. 403, 115671, algorithm 2: the points are chosen from uniform candidates without
    repetition, so the density is met when there are many more candidates than points.

    Args:
        every: iterations between two choices.
        k: power of the residual; large k concentrates the points.
        c: uniform share; 0 follows the residual alone.
        candidates: how many candidates there are for each point.
    """

    k: float = 1.0
    c: float = 1.0
    candidates: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_density(self.k, self.c, self.candidates, "RAD")

    def update(
        self,
        domain: Domain,
        state: dict[str, Any],
        points: Tensor,
        magnitude: Magnitude,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return as many new points."""
        pool = _fresh(domain, self.candidates * len(points), points, generator)
        weights = density(_sizes(magnitude, pool), self.k, self.c)
        chosen = _choose(weights, len(points), generator)
        return pool[chosen.to(pool.device)], self._next(state, len(points))


@resampler
@dataclass(frozen=True)
class RAR(_Periodic):
    """Points are added where the residual is large; those there are stay.

    With ``greedy`` those of the largest residual (RAR, also called RAR-G: Lu et al. 2021, SIAM Rev.
    63, 208), else with the density of :class:`RAD` (RAR-D: Wu et al. 2023, algorithm 3; its values
    k = 2, c = 0 are the defaults).

    Args:
        every: iterations between two choices.
        add: how many points each time.
        k, c: of the density; without effect when greedy.
        greedy: whether to take the largest residuals.
        candidates: how many candidates there are for each point added.
        maximum: no points are added beyond this number; None for no bound.
    """

    add: int = 10
    k: float = 2.0
    c: float = 0.0
    greedy: bool = False
    candidates: int = 100
    maximum: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.add, "add", integer=True)
        if self.maximum is not None:
            check_positive(self.maximum, "maximum", integer=True)
        _check_density(self.k, self.c, self.candidates, "RAR")

    def update(
        self,
        domain: Domain,
        state: dict[str, Any],
        points: Tensor,
        magnitude: Magnitude,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return the points with the new ones behind them."""
        count = self.add if self.maximum is None else min(self.add, max(0, self.maximum - len(points)))
        if count == 0:
            return points, self._next(state, 0)
        pool = _fresh(domain, self.candidates * count, points, generator)
        sizes = _sizes(magnitude, pool)
        if self.greedy:
            chosen = sizes.topk(count).indices
        else:
            chosen = _choose(density(sizes, self.k, self.c), count, generator)
        return torch.cat([points, pool[chosen.to(pool.device)]]), self._next(state, count)


@resampler
@dataclass(frozen=True)
class R3(_Periodic):
    """Points whose residual exceeds the mean are retained, the others released and drawn anew.

    Retain-resample-release, Daw, Bu, Wang, Perdikaris & Karpatne (2023), ICML, algorithm 1. A point
    stays as long as it is above the mean, so points gather where the residual stays large.

    Args:
        every: iterations between two choices.
    """

    every: int = 100

    def update(
        self,
        domain: Domain,
        state: dict[str, Any],
        points: Tensor,
        magnitude: Magnitude,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return as many points, the retained ones first."""
        sizes = _sizes(magnitude, points)
        retained = points[(sizes > sizes.mean()).to(points.device)]
        count = len(points) - len(retained)
        fresh = _fresh(domain, count, points, generator)
        return torch.cat([retained, fresh]), self._next(state, count)
