"""First layers that change what a network finds easy: frequencies, and exact periodicity."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError
from ntangent.nn._build import Making, check_sizes


class FourierFeatures(nn.Module):
    """Random Fourier features: x ↦ (cos 2πBx, sin 2πBx), with B normal of standard deviation ``scale``.

    Source: Tancik et al. (2020), arXiv 2006.10739, section 5, γ(v) with a Gaussian B. A derivative of
    order n multiplies the feature of frequency b by (2πb)^n, so a scale that suits the values may be
    too large for a high-order equation.

    Args:
        inputs: dimension of the points.
        count: number of frequencies m; the features are 2m.
        scale: standard deviation of the frequencies, in cycles per unit length.
        trainable: whether B is a parameter; it is a buffer otherwise.
        dtype, device, generator: see :mod:`ntangent.nn`.

    Shape: (N, inputs) → (N, 2·count).

    Cost: one matrix product and a sine and cosine of N·count numbers.
    """

    frequencies: Tensor

    def __init__(
        self,
        inputs: int,
        count: int,
        *,
        scale: float = 1.0,
        trainable: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(inputs=inputs, count=count)
        check_positive(scale, "scale")
        frequencies = Making(dtype, device, generator).normal(count, inputs, scale=scale)
        if trainable:
            self.frequencies = nn.Parameter(frequencies)
        else:
            self.register_buffer("frequencies", frequencies)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        angle = nn.functional.linear(x, 2 * math.pi * self.frequencies)
        return torch.cat([torch.cos(angle), torch.sin(angle)], -1)

    def extra_repr(self) -> str:
        """Return sizes, for printing."""
        count, inputs = self.frequencies.shape
        return f"inputs={inputs}, count={count}, trainable={isinstance(self.frequencies, nn.Parameter)}"


class PeriodicEmbedding(nn.Module):
    """Makes any network behind it exactly periodic: x_i ↦ (cos 2πk x_i/L_i, sin 2πk x_i/L_i), k = 1..K.

    The argument is first reduced modulo the period, which is exact in floating point, so the features
    and all of their derivatives are bit for bit the same at x and at x + L, for x >= 0 and x + L
    without rounding; elsewhere they agree to the rounding of x + L. With K = 1 every smooth periodic
    function of the coordinates is within reach of the network; more harmonics help it with high
    frequencies.

    Source: Dong & Ni (2021), J. Comput. Phys. 435, 110242, section 2 (C^∞ periodic conditions).

    Args:
        periods: for each coordinate its period, or None where it is passed on as it is.
        harmonics: K.

    Shape: (N, len(periods)) → (N, 2·K·(periodic coordinates) + (others)), periodic ones first.

    Cost: a sine and cosine of N·K numbers for each periodic coordinate.
    """

    def __init__(self, periods: Sequence[float | None], harmonics: int = 1) -> None:
        super().__init__()
        check_sizes(harmonics=harmonics)
        self.periods = tuple(None if p is None else float(check_positive(p, "period")) for p in periods)
        if not any(p is not None for p in self.periods):
            raise ArgumentError(
                "no coordinate has a period", "nothing would be periodic", "periods=[1.0, None]"
            )
        self.harmonics = harmonics

    @property
    def features(self) -> int:
        """Number of features that come out."""
        periodic = sum(p is not None for p in self.periods)
        return len(self.periods) - periodic + 2 * self.harmonics * periodic

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        parts: list[Tensor] = []
        for i, period in enumerate(self.periods):
            if period is None:
                continue
            angle = torch.remainder(x[..., i : i + 1], period) * (2 * math.pi / period)
            for k in range(1, self.harmonics + 1):
                parts += [torch.cos(k * angle), torch.sin(k * angle)]
        rest = [x[..., i : i + 1] for i, period in enumerate(self.periods) if period is None]
        return torch.cat([*parts, *rest], -1)

    def extra_repr(self) -> str:
        """Return periods, for printing."""
        return f"periods={self.periods}, harmonics={self.harmonics}"
