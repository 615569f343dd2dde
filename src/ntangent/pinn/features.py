"""What corrects a field: random features, and a second network of high frequencies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntangent.jet.mlp import _Pointwise
from ntangent.nn import PeriodicEmbedding

# Lower end and length of the period of each coordinate, None where it has none.
Periods = tuple[tuple[float, float] | None, ...]
# Centres of features lie in the box of the points, wider by this part of it on each side: features
# centred outside are the slowly varying ones.
MARGIN = 0.05


@dataclass(frozen=True)
class Frame:
    """The box of some points: where a correction lives, by centre and half-width of each coordinate."""

    centre: Tensor
    half: Tensor

    @classmethod
    def of(cls, points: Tensor) -> Frame:
        """Return the frame of points, shape (N, d)."""
        low, high = points.min(0).values, points.max(0).values
        half = (high - low) / 2
        return cls((low + high) / 2, torch.where(half > 0, half, torch.ones_like(half)))

    def layer(self, weight: Tensor, shift: Tensor) -> nn.Linear:
        """Return the affine map z -> weight·z + shift of the coordinates z in [-1, 1], as one of x."""
        scaled = weight / self.half
        layer = nn.Linear(scaled.shape[1], scaled.shape[0], dtype=scaled.dtype, device=scaled.device)
        with torch.no_grad():
            layer.weight.copy_(scaled)
            layer.bias.copy_(shift - scaled @ self.centre)
        return layer


def random_features(
    points: Tensor,
    outputs: int,
    count: int,
    slope: float | tuple[float, ...],
    seed: int,
    *,
    activation: str = "tanh",
    periods: Periods = (),
) -> nn.Sequential:
    """Return x -> C f(W x + b) with random frozen W, b and with C = 0, which is trained.

    In the coordinates z in which the box of the points is [-1, 1]^d, the slopes a are uniform in
    [-slope, slope]^d. Feature j is tanh(a·(z - c)) with c uniform in the box, a little widened, or
    sin(a·z + b) with b uniform in [-π, π]. In a periodic coordinate features are periodic: sines with a
    whole number of waves, a rounded, and tanh of (cos, sin) in the place of the coordinate.

    Args:
        points: shape (N, d).
        outputs: how many fields.
        count: how many features.
        slope: largest slope, or one for each coordinate.
        seed: seed of the features.
        activation: f, "tanh" or "sin".
        periods: lower end and length of the period of each coordinate, None where it has none.
    """
    largest = torch.as_tensor(slope, dtype=torch.float64).expand(points.shape[1])
    waves = activation == "sin"
    first = [] if waves else _embedding(periods)
    if first:
        cyclic = [p is not None for p in periods]
        rows = [largest[i] for i, c in enumerate(cyclic) if c for _ in range(2)]
        largest = torch.stack([*rows, *(largest[i] for i, c in enumerate(cyclic) if not c)])
        points = first[0](points)
    frame, shape = Frame.of(points), (count, points.shape[1])
    # Drawn in float64 on the CPU: the same features on every device.
    if waves:
        engine = torch.quasirandom.SobolEngine(shape[1] + 1, scramble=True, seed=seed)
        draw = 2 * engine.draw(count, dtype=torch.float64) - 1
        slopes, shift = draw[:, :-1] * largest, draw[:, -1] * math.pi
        for i, period in enumerate(periods):
            if period is not None:
                slopes[:, i] = torch.round(slopes[:, i] / math.pi) * math.pi
                frame.half[i] = period[1] / 2
    else:
        generator = torch.Generator().manual_seed(seed)
        slopes = (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * largest
        centres = (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * (1 + 2 * MARGIN)
        shift = -(slopes * centres).sum(1)
    inner = frame.layer(slopes.to(points), shift.to(points))
    inner.requires_grad_(False)
    outer = nn.Linear(count, outputs, bias=False, dtype=points.dtype, device=points.device)
    nn.init.zeros_(outer.weight)
    return nn.Sequential(*first, inner, _Pointwise("sin") if waves else nn.Tanh(), outer)


def _embedding(periods: Periods) -> list[PeriodicEmbedding]:
    """Return the first layer of a function with these periods; none where there is no period."""
    lengths = [None if p is None else p[1] for p in periods]
    return [PeriodicEmbedding(lengths)] if any(p is not None for p in periods) else []


def second_network(
    points: Tensor,
    outputs: int,
    sizes: tuple[int, int],
    half_waves: float,
    seed: int,
    periods: Periods = (),
) -> nn.Sequential:
    """Return a network whose first layer is sines with about so many half-waves across the points' box.

    Source: Wang & Lai, J. Comput. Phys. 504 (2024) 112865: sines in the first layer, tanh in the others.

    Args:
        points: shape (N, d).
        outputs: how many fields.
        sizes: width and number of the hidden layers.
        half_waves: half-waves of the fastest neuron of the first layer, in each coordinate.
        seed: seed of its weights.
        periods: as for :func:`random_features`; (cos, sin) take the place of a periodic coordinate.
    """
    width, depth = sizes
    embedding = _embedding(periods)
    if embedding:
        points = embedding[0](points)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1).to(points)

    first = Frame.of(points).layer(
        draw(width, points.shape[1]) * (math.pi / 2 * half_waves), draw(width) * math.pi
    )
    layers: list[nn.Module] = [*embedding, first, _Pointwise("sin")]
    for i in range(depth):
        last = i == depth - 1
        layer = nn.Linear(width, outputs if last else width, dtype=points.dtype, device=points.device)
        with torch.no_grad():
            layer.weight.copy_(draw(*layer.weight.shape) * math.sqrt(6 / sum(layer.weight.shape)))
            layer.bias.zero_()
        layers += [layer] if last else [layer, nn.Tanh()]
    return nn.Sequential(*layers)
