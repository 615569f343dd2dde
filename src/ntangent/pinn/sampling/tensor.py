"""Samplers on tensor products, and points given as they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_finite, check_positive
from ntangent._base.errors import ArgumentError, ProblemError, ShapeError
from ntangent.pinn.domains.base import Domain
from ntangent.pinn.domains.box import Box
from ntangent.pinn.sampling.base import sampler, settle


@dataclass(frozen=True, init=False)
class _Lines:
    """Points on a tensor product of lines: the common part.

    Args:
        n: points per coordinate: one number for all, or one for each.
        counts: the same by name.
    """

    n: int | tuple[int, ...]
    counts: tuple[tuple[str, int], ...]

    least = 1

    def __init__(self, *n: int, **counts: int) -> None:
        if not counts.keys() - {"n"} and "n" in counts and not n:
            n, counts = (counts["n"],), {}
        kind = type(self).__name__
        if bool(n) == bool(counts):
            raise ArgumentError(
                f"{kind} needs a number of points", "for all coordinates, or for each", f"{kind}(30)"
            )
        for count in (*n, *counts.values()):
            if check_positive(count, "n", integer=True) < self.least:
                raise ArgumentError(
                    f"a grid needs at least {self.least} points per coordinate",
                    "it includes both ends",
                    f"{kind}({self.least})",
                )
        object.__setattr__(self, "n", n[0] if len(n) == 1 else n)
        object.__setattr__(self, "counts", tuple(counts.items()))

    def __repr__(self) -> str:
        given = [str(c) for c in (self.n if isinstance(self.n, tuple) else (self.n,))]
        return f"{type(self).__name__}(" + ", ".join([*given, *(f"{n}={c}" for n, c in self.counts)]) + ")"

    def _numbers(self, box: Box) -> tuple[int, ...]:
        if isinstance(self.n, int):
            return (self.n,) * box.dimension
        numbers = tuple(dict(self.counts).get(name, 0) for name in box.names) if self.counts else self.n
        if len(numbers) != box.dimension or 0 in numbers or len(self.counts) > box.dimension:
            kind, fix = type(self).__name__, ", ".join(f"{name}=20" for name in box.names)
            raise ProblemError(
                f"{self!r} does not fit the coordinates {', '.join(box.names)}",
                "it has one number for all of them, or one for each",
                f"{kind}({fix})",
            )
        return numbers

    def denser(self, times: int, dimension: int) -> Any:
        """Return a tensor product with about ``times`` as many points."""
        factor = times ** (1.0 / dimension)
        if self.counts:
            return type(self)(**{name: math.ceil(factor * count) for name, count in self.counts})
        given = self.n if isinstance(self.n, tuple) else (self.n,)
        return type(self)(*(math.ceil(factor * count) for count in given))

    def _line(self, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        raise NotImplementedError  # pragma: no cover

    def _lines(self, box: Box, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        return [self._line(count, dtype, device) for count in self._numbers(box)]

    def _product(self, box: Box, dtype: torch.dtype, device: torch.device) -> Tensor:
        grids = torch.meshgrid(*self._lines(box, dtype, device), indexing="ij")
        return box.interior(torch.stack([g.flatten() for g in grids], 1))


@sampler
class Grid(_Lines):
    """Equidistant points in every coordinate, ends included: ``Grid(20)``, ``Grid(x=30, t=20)``.

    On a domain that is no box, those points of the bounding box's grid that it contains.

    Args:
        n: points per coordinate, at least 2: one number for all, or one for each.
        counts: the same by name.
    """

    least = 2

    def _line(self, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.linspace(0, 1, count, dtype=dtype, device=device)

    def points(self, domain: Domain, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the grid points, shape (N, d), the last coordinate fastest.

        Raises:
            ProblemError: if none lies in the domain.
        """
        points = self._product(domain.box, dtype, device)
        if isinstance(domain, Box):
            return points
        points = points[domain.contains(points)]
        if len(points) == 0:
            raise ProblemError(
                f"no point of {self!r} lies in {domain!r}", "the grid is too coarse", "Sobol(1000)"
            )
        return points


@sampler
class Chebyshev(_Lines):
    """Zeros of the Chebyshev polynomials in every coordinate, dense at the ends; for boxes.

    ``Chebyshev(30)``, ``Chebyshev(30, 20)``, ``Chebyshev(x=30, t=20)``.

    Args:
        n: points per coordinate: one number for all, or one for each.
        counts: the same by name.
    """

    def _line(self, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        j = torch.arange(count, dtype=torch.float64, device=device)
        return ((1 - torch.cos(math.pi * (j + 0.5) / count)) / 2).to(dtype)

    def points(self, domain: Domain, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the points, shape (N, d), the last coordinate fastest.

        Raises:
            ProblemError: if the domain is no box.
        """
        if not isinstance(domain, Box):
            raise ProblemError(
                f"Chebyshev points of {domain!r}",
                "they are a tensor product and need a box",
                "Sobol(1000), which fills any domain",
            )
        return self._product(domain, dtype, device)


@sampler
@dataclass(frozen=True, eq=False)
class FixedPoints:
    """Points given as they are.

    Args:
        points_: shape (N, d), or (N,) in one dimension.
    """

    points_: Any

    def __post_init__(self) -> None:
        tensor = torch.as_tensor(self.points_, dtype=torch.float64).detach().cpu()
        tensor = tensor[:, None] if tensor.ndim == 1 else tensor
        if tensor.ndim != 2 or len(tensor) == 0:
            raise ShapeError(
                f"the points have shape {tuple(tensor.shape)}",
                "each row is a point: (N, d)",
                "torch.rand(9, 2)",
            )
        object.__setattr__(self, "points_", check_finite(tensor, "points"))

    def __repr__(self) -> str:
        return f"FixedPoints({self.points_.tolist()!r})"

    @property
    def n(self) -> int:
        """Number of points."""
        return len(self.points_)

    def points(self, domain: Domain, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the points.

        Raises:
            ProblemError: if one lies outside of the domain.
        """
        if self.points_.shape[1] != domain.dimension:
            raise ShapeError(
                f"the points have {self.points_.shape[1]} coordinates, the domain {domain.dimension}", "", ""
            )
        inside = domain.contains(self.points_)
        if not bool(inside.all()):
            row = int((~inside).nonzero()[0])
            raise ProblemError(
                f"{int((~inside).sum())} of {self.n} points lie outside {domain!r}",
                f"the first is row {row}, {self.points_[row].tolist()}",
                "points[domain.contains(points)]",
            )
        return settle(self.points_, dtype, device)
