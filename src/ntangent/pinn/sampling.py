"""Collocation points: a sampler is a frozen dataclass with one method, ``points``."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ntangent._base.check import check_order, check_positive
from ntangent._base.errors import ArgumentError
from ntangent.pinn.domain import Box


class Sampler(Protocol):
    """Draws collocation points of a domain."""

    def points(self, domain: Box, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return points, shape (N, d)."""
        ...


def denser(sampler: Any, times: int) -> Any:
    """Return a sampler with ``times`` its ``n``, for one that has such a field, else the sampler itself."""
    if is_dataclass(sampler) and "n" in (f.name for f in fields(sampler)):
        more: dict[str, Any] = {"n": times * vars(sampler)["n"]}
        return replace(sampler, **more)  # type: ignore[type-var]
    return sampler


def _scale(unit: Tensor, domain: Box) -> Tensor:
    low = unit.new_tensor([a for _, a, _ in domain.intervals])
    high = unit.new_tensor([b for _, _, b in domain.intervals])
    # Measured from the nearer end: both ends come out exact, and rounding never leaves the domain.
    return torch.where(unit < 0.5, low + (high - low) * unit, high - (high - low) * (1 - unit))


def _tensor_product(line: Tensor, dimension: int) -> Tensor:
    grids = torch.meshgrid(*[line] * dimension, indexing="ij")
    return torch.stack([g.flatten() for g in grids], 1)


@dataclass(frozen=True)
class Grid:
    """Equidistant points in every coordinate, ends included.

    Args:
        n: points per coordinate, at least 2.
    """

    n: int

    def __post_init__(self) -> None:
        if check_positive(self.n, "n", integer=True) < 2:
            raise ArgumentError(
                "a grid needs at least 2 points per coordinate", "it includes both ends", "Grid(2)"
            )

    def points(self, domain: Box, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the n^d grid points, shape (n^d, d)."""
        line = torch.linspace(0, 1, self.n, dtype=dtype, device=device)
        return _scale(_tensor_product(line, domain.dimension), domain)


@dataclass(frozen=True)
class Chebyshev:
    """Zeros of the Chebyshev polynomial of degree n in every coordinate: dense at the ends.

    Args:
        n: points per coordinate.
    """

    n: int

    def __post_init__(self) -> None:
        check_positive(self.n, "n", integer=True)

    def points(self, domain: Box, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the points, shape (n^d, d)."""
        j = torch.arange(self.n, dtype=torch.float64, device=device)
        line = ((1 - torch.cos(math.pi * (j + 0.5) / self.n)) / 2).to(dtype)
        return _scale(_tensor_product(line, domain.dimension), domain)


@dataclass(frozen=True)
class Uniform:
    """Independent uniform points.

    Args:
        n: number of points.
        seed: seed of their generator.
    """

    n: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive(self.n, "n", integer=True)
        check_order(self.seed, "seed")

    def points(self, domain: Box, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the points, shape (n, d); the same for the same seed on every device."""
        generator = torch.Generator().manual_seed(self.seed)
        unit = torch.rand(self.n, domain.dimension, generator=generator, dtype=torch.float64)
        return _scale(unit.to(device=device, dtype=dtype), domain)
