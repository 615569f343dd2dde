"""The state at the end of a time window, as initial values of the next one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent.jet import Jet
from ntangent.pinn.basis import Family, Polynomials, Waves, distinct, spread
from ntangent.pinn.domains.tools import Points
from ntangent.pinn.hard.along import at_end, plain
from ntangent.pinn.problem import Problem

# A series is resolved where its last third is below this part of its largest coefficient.
RESOLVED = 1e-13
NOISY = 1e-6  # relative rounding of a field above which it is not periodic but wrong
# The same where the coordinate has ends: hard conditions there are compared with the series.
NOISY_ENDS = 1e-10
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
class Series:
    """A sum of products of waves or polynomials of one or two coordinates, a function of points and series.

    Args:
        axes: of the coordinates, among all.
        families: the functions of each.
        weights: of their products, shape (count,) or (count_1, count_2).
    """

    axes: tuple[int, ...]
    families: tuple[Family, ...]
    weights: Tensor

    def __call__(self, points: Points) -> Any:
        """Return the values at points, shape (N, 1)."""
        x, found = plain(points), None
        for axis, family in zip(self.axes, self.families, strict=True):
            own, places = distinct(plain(x[:, axis : axis + 1]))
            functions: Any = family(own)
            if found is None:
                weights = self.weights.reshape(family.count, -1).to(x.dtype)  # points may be finer
                found = spread(plain(functions @ weights), places)
            else:
                found = (found * spread(functions, places)).sum(-1, keepdim=True)
        assert found is not None
        return found.value if isinstance(points, Tensor) else plain(found)


@dataclass(frozen=True)
class Coordinate:
    """A coordinate of a state, and how functions of it are written.

    Args:
        axis: among all coordinates.
        low: its lower end.
        length: from there to the upper end, or the period.
        periodic: by waves; by Chebyshev polynomials otherwise.
    """

    axis: int
    low: float
    length: float
    periodic: bool

    def grid(self, count: int) -> Tensor:
        """Return the points from which a series is found, shape (count,), float64."""
        k = torch.arange(count, dtype=torch.float64)
        if self.periodic:
            return self.low + self.length * k / count
        return self.low + self.length / 2 * (1 - torch.cos(math.pi * (k + 0.5) / count))

    def family(self, count: int) -> Family:
        """Return the functions of a series found from ``count`` points."""
        if self.periodic:
            return Waves(count // 2 - 1, self.low, self.length)
        return Polynomials(count - 1, self.low, self.low + self.length)

    def weights(self, values: Tensor, axis: int) -> Tensor:
        """Return the weights of the functions along an axis of values on the grid."""
        moved = values.movedim(axis, 0)
        count = len(moved)
        if self.periodic:  # the highest frequency is left out
            c = torch.fft.rfft(moved, dim=0)[: count // 2] / count
            return torch.cat([c[:1].real, 2 * c[1:].real, -2 * c[1:].imag]).movedim(0, axis)
        # The discrete cosine transform, of the even continuation; the points run from the lower end.
        c = torch.fft.rfft(torch.cat([moved.flip(0), moved]), dim=0)[:count] / count
        k = torch.arange(count, dtype=torch.float64, device=values.device)
        turned = (c.movedim(0, -1) * torch.exp(-0.5j * math.pi * k / count)).real
        return torch.cat([turned[..., :1] / 2, turned[..., 1:]], -1).movedim(-1, axis)

    def late(self, count: int) -> Tensor:
        """Return the places of the highest third of the functions."""
        if not self.periodic:
            return torch.arange(count - count // 3, count)
        half = count // 2 - 1
        high = torch.arange(half - count // 6, half) + 1
        return torch.cat([high, high + half])

    def moved(self, points: Tensor) -> Tensor:
        """Return points where a state has the same values to rounding: a period on, or next to these."""
        other = points.clone()
        if self.periodic:
            other[:, self.axis] += self.length
        else:
            step = 4 * torch.finfo(points.dtype).eps * max(self.length, abs(self.low))
            middle = self.low + self.length / 2
            other[:, self.axis] += torch.where(points[:, self.axis] < middle, step, -step)
        return other


def resolved(state: EndState, coordinates: Sequence[Coordinate]) -> Series | None:
    """Return a state as a series to its rounding, or None if the largest series does not resolve it.

    Args:
        state: a function of these coordinates.
        coordinates: of which it is a function.
    """
    net = state.net if state.name is None else state.net[state.name]
    like = next(net.parameters())
    dimension, count = len(coordinates), 64
    noisy = NOISY if all(c.periodic for c in coordinates) else NOISY_ENDS
    while count <= LARGEST[dimension]:
        lines = torch.meshgrid(*[c.grid(count) for c in coordinates], indexing="ij")
        points = like.new_zeros(count**dimension, state.problem.domain.dimension)
        for own, line in zip(coordinates, lines, strict=True):
            points[:, own.axis] = line.reshape(-1).to(like)
        values = state(points)
        weights = values.double().reshape(*[count] * dimension)
        for i, own in enumerate(coordinates):
            weights = own.weights(weights, i)
        late = [own.late(count).to(like.device) for own in coordinates]
        tail = max(float(weights.index_select(i, places).abs().max()) for i, places in enumerate(late))
        size = float(weights.abs().max())
        least = max(RESOLVED, 8 * torch.finfo(like.dtype).eps) * size
        if tail <= max(least, min(_noise(state, points, values, coordinates), noisy * size)):
            for i, places in enumerate(late):
                weights = weights.index_fill(i, places, 0.0)
            families = tuple(own.family(count) for own in coordinates)
            return Series(tuple(own.axis for own in coordinates), families, weights.to(like.dtype))
        count *= 2
    return None


def _noise(state: EndState, points: Tensor, values: Tensor, coordinates: Sequence[Coordinate]) -> float:
    """Return the rounding of a state: how far it is from itself where it should be the same."""
    few = slice(None, None, max(1, len(points) // 64))
    return max(float((state(own.moved(points[few])) - values[few]).abs().max()) for own in coordinates)
