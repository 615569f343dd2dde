"""The state at the end of a time window, as initial values of the next one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent.jet import Jet
from ntangent.pinn.basis import Waves, distinct, spread
from ntangent.pinn.domains.tools import Points
from ntangent.pinn.hard.along import at_end, plain
from ntangent.pinn.problem import Problem

# A Fourier series is resolved where its last third is below this part of its largest coefficient.
RESOLVED = 1e-13
NOISY = 1e-6  # relative rounding of a field above which it is not periodic but wrong
LARGEST = {1: 4096, 2: 256}  # points of it in each coordinate, by the number of these
KEPT = 8  # evaluations that are remembered


@dataclass
class EndState:
    """∂^k u/∂t^k of one component at the end of a window, as a function of points and of series.

    It is exact: the fields of the window are evaluated, with as many derivatives as are asked for. What
    was evaluated is remembered, so that fixed collocation points cost one evaluation.

    Args:
        problem: that of the window.
        net: its trained network, or one for each field.
        time: axis of the time.
        end: where the window ends.
        column: which of all outputs side by side, or of those of ``name``.
        order: k.
        name: of the field where each has its network.
    """

    problem: Problem
    net: Any
    time: int
    end: float
    column: int
    order: int
    name: str | None = None

    def __post_init__(self) -> None:
        self._known: list[tuple[Jet, Jet]] = []

    def __call__(self, points: Points) -> Any:
        """Return the values at points of any time, shape (N, 1)."""
        x = plain(points)
        found = self._remembered(x)
        if found is None:
            with torch.no_grad():
                found = at_end(self._field, x, self.time, self.end, ((self.order, 1.0),))
            self._known = [*self._known[1 - KEPT :], (x, found)]
        return found.value if isinstance(points, Tensor) else found

    def _field(self, x: Jet) -> Jet:
        net = self.net if self.name is None else self.net[self.name]
        column: Any = self.problem.outputs(net, x, self.name)[:, self.column : self.column + 1]
        return plain(column)

    def _remembered(self, x: Jet) -> Jet | None:
        for known, found in self._known:
            same = (known.order, known.structure, known.shape) == (x.order, x.structure, x.shape)
            if same and known.data.shape == x.data.shape and torch.equal(known.data, x.data):
                return found
        return None


@dataclass(frozen=True)
class Fourier:
    """A trigonometric polynomial of one or two periodic coordinates, as a function of points and series.

    Args:
        axes: of the coordinates, among all.
        ends: lower end and period of each.
        weights: of the products of 1, cos kθ, sin kθ (k = 1, 2, ...), θ = 2π(x - low)/period; shape
            (2 K + 1,) or (2 K_1 + 1, 2 K_2 + 1).
    """

    axes: tuple[int, ...]
    ends: tuple[tuple[float, float], ...]
    weights: Tensor

    def __call__(self, points: Points) -> Any:
        """Return the values at points, shape (N, 1)."""
        x, found = plain(points), None
        for axis, (low, period), count in zip(self.axes, self.ends, self.weights.shape, strict=True):
            own, places = distinct(plain(x[:, axis : axis + 1]))
            waves: Any = Waves(count // 2, low, period)(own)
            if found is None:
                weights = self.weights.reshape(count, -1).to(x.dtype)  # points may be finer than the network
                found = spread(plain(waves @ weights), places)
            else:
                found = (found * spread(waves, places)).sum(-1, keepdim=True)
        assert found is not None
        return found.value if isinstance(points, Tensor) else plain(found)


def resolved(state: EndState, axes: Sequence[int], ends: Sequence[tuple[float, float]]) -> Fourier | None:
    """Return a state as a Fourier series to its rounding, or None if the largest series does not resolve it.

    Args:
        state: periodic in the coordinates, of which it is a function.
        axes: of these coordinates.
        ends: lower end and period of each.
    """
    net = state.net if state.name is None else state.net[state.name]
    like = next(net.parameters())
    dimension, count = len(axes), 64
    while count <= LARGEST[dimension]:
        grid = torch.arange(count, dtype=torch.float64, device=like.device) / count
        lines = torch.meshgrid(*[low + period * grid for low, period in ends], indexing="ij")
        points = like.new_zeros(count**dimension, state.problem.domain.dimension)
        for axis, line in zip(axes, lines, strict=True):
            points[:, axis] = line.reshape(-1).to(like.dtype)
        values = state(points)
        weights = values.double().reshape(*[count] * dimension)
        for i in range(dimension):
            weights = _real_series(weights, i)
        late = _late(count).to(like.device)
        tail = max(float(weights.index_select(i, late).abs().max()) for i in range(dimension))
        size = float(weights.abs().max())
        least = max(RESOLVED, 8 * torch.finfo(like.dtype).eps) * size
        if tail <= max(least, min(_noise(state, points, values, axes, ends), NOISY * size)):
            for i in range(dimension):
                weights = weights.index_fill(i, late, 0.0)
            return Fourier(tuple(axes), tuple(ends), weights.to(like.dtype))
        count *= 2
    return None


def _noise(
    state: EndState, points: Tensor, values: Tensor, axes: Sequence[int], ends: Sequence[tuple[float, float]]
) -> float:
    """Return the rounding of a state: how far it is from itself a period on."""
    few, gaps = slice(None, None, max(1, len(points) // 64)), []
    for axis, (_, period) in zip(axes, ends, strict=True):
        moved = points[few].clone()
        moved[:, axis] += period
        gaps.append(float((state(moved) - values[few]).abs().max()))
    return max(gaps)


def _late(count: int) -> Tensor:
    """Return the places of the highest third of the frequencies in a series of ``count`` - 1 terms."""
    half = count // 2 - 1
    high = torch.arange(half - count // 6, half) + 1
    return torch.cat([high, high + half])


def _real_series(values: Tensor, axis: int) -> Tensor:
    """Return the weights of 1, cos kθ, sin kθ along an axis; the highest frequency is left out."""
    moved = values.movedim(axis, 0)
    count = len(moved)
    c = torch.fft.rfft(moved, dim=0)[: count // 2] / count
    weights = torch.cat([c[:1].real, 2 * c[1:].real, -2 * c[1:].imag])
    return weights.movedim(0, axis)
