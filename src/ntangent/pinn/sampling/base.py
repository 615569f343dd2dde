"""What a sampler is, and the sources of unit-cube points."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from ntangent._base.check import check_order, check_positive
from ntangent._base.registry import Registry
from ntangent.pinn.domains.base import Boundary, Domain
from ntangent.pinn.domains.tools import Draw


@runtime_checkable
class Sampler(Protocol):
    """Draws collocation points of a domain."""

    def points(self, domain: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return points, shape (N, d)."""
        ...


T = TypeVar("T")
# Every sampler and every resampler by the name of its class.
SAMPLERS: Registry[type] = Registry("sampler")
RESAMPLERS: Registry[type] = Registry("resampler")


def sampler(kind: type[T]) -> type[T]:
    """Add a sampler to the table."""
    SAMPLERS.add(kind.__name__, kind)
    return kind


def resampler(kind: type[T]) -> type[T]:
    """Add a resampler to the table."""
    RESAMPLERS.add(kind.__name__, kind)
    return kind


def denser(sampler: Any, times: int, dimension: int) -> Any:
    """Return a sampler with about ``times`` as many points, the same one if it does not say how many it has.

    Args:
        sampler: with a method ``denser`` of its own, or a dataclass with a number ``n`` of points.
        times: factor.
        dimension: of the domain.
    """
    if hasattr(sampler, "denser"):
        return sampler.denser(times, dimension)
    if is_dataclass(sampler) and "n" in (f.name for f in fields(sampler)):
        more: dict[str, Any] = {"n": times * vars(sampler)["n"]}
        return replace(sampler, **more)  # type: ignore[type-var]
    return sampler


def settle(points: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return points in the dtype and on the device asked for."""
    return points.to(device=device, dtype=dtype)


def uniform_draw(generator: torch.Generator) -> Draw:
    """Return the source of independent uniform points of a generator (on the CPU)."""

    def draw(count: int, dimension: int) -> Tensor:
        return torch.rand(count, dimension, generator=generator, dtype=torch.float64)

    return draw


@dataclass(frozen=True)
class Sequence:
    """A sampler that reads points of the unit cube from a sequence: the common part.

    Args:
        n: number of points.
        seed: of the sequence.
    """

    n: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive(self.n, "n", integer=True)
        check_order(self.seed, "seed")

    def draw(self) -> Draw:
        """Return the source of unit-cube points, from its beginning."""
        raise NotImplementedError  # pragma: no cover

    def points(self, domain: Domain, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the points, shape (n, d); the same for the same seed on every device."""
        return settle(domain.sample(self.n, self.draw()), dtype, device)

    def boundary(self, boundary: Boundary, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return points of a boundary and their outward unit normals, shape (n, d) each.

        Parts get points in proportion to their measure; a part that is a point gets that one.
        """
        points, normals = boundary.sample(self.n, self.draw())
        return settle(points, dtype, device), settle(normals, dtype, device)
