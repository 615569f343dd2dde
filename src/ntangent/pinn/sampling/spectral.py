"""Points for a basis of waves and polynomials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_choice
from ntangent._base.errors import ArgumentError
from ntangent.pinn.domains.base import Domain
from ntangent.pinn.domains.box import Box
from ntangent.pinn.sampling.base import sampler
from ntangent.pinn.sampling.tensor import Chebyshev


@sampler
@dataclass(frozen=True, init=False)
class Spectral(Chebyshev):
    """Equidistant points in periodic coordinates, zeros of a Chebyshev polynomial in the others; for boxes.

    ``Spectral(x=200, t=14, periodic="x")``. In a periodic coordinate they are the midpoints of equal
    parts of the period: its two ends are one point. On these points, Fourier waves and Chebyshev
    polynomials of the highest degree that is below the number of points are orthogonal.

    Args:
        n: points per coordinate: one number for all, or one for each.
        counts: the same by name.
        periodic: names of the periodic coordinates.
    """

    periodic: tuple[str, ...]

    def __init__(self, *n: int, periodic: str | tuple[str, ...] = (), **counts: int) -> None:
        super().__init__(*n, **counts)
        names = (periodic,) if isinstance(periodic, str) else tuple(periodic)
        if not all(isinstance(name, str) for name in names):
            raise ArgumentError(
                f"periodic is {periodic!r}", "it names coordinates", 'Spectral(200, 14, periodic="x")'
            )
        object.__setattr__(self, "periodic", names)

    def __repr__(self) -> str:
        return super().__repr__()[:-1] + f", periodic={self.periodic!r})"

    def denser(self, times: int, dimension: int) -> Any:
        """Return a tensor product with about ``times`` as many points."""
        more = super().denser(times, dimension)
        object.__setattr__(more, "periodic", self.periodic)
        return more

    def points(self, domain: Domain, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the points, shape (N, d), the last coordinate fastest.

        Raises:
            UnknownNameError: if a periodic coordinate is not the domain's.
            ProblemError: if the domain is no box.
        """
        for name in self.periodic:
            check_choice(name, domain.names, "coordinate")
        return super().points(domain, dtype, device)

    def _lines(self, box: Box, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        lines = super()._lines(box, dtype, device)
        return [
            _midpoints(len(line)).to(line) if name in self.periodic else line
            for name, line in zip(box.names, lines, strict=True)
        ]


def _midpoints(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count
