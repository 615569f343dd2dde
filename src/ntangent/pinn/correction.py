"""Corrections of a trained field: a second function beside a frozen network.

The correction is added to the network, not to the field, so that the ansatz of the problem acts on
the sum: where it is linear in the network (odd and even parts, hard boundary values), a correction
has the symmetry and the boundary values of the field.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ntangent._base.errors import ArgumentError
from ntangent.jet import Jet
from ntangent.jet.execute import run
from ntangent.jet.mlp import _Pointwise
from ntangent.nn import PeriodicEmbedding

if TYPE_CHECKING:
    from ntangent.pinn.objective import PinnObjective
    from ntangent.pinn.problem import Problem

# Lower end and length of the period of each coordinate, None where it has none.
Periods = tuple[tuple[float, float] | None, ...]
# From a network, its number, the axes it is a function of and their periods to its correction.
Make = Callable[[nn.Module, int, "list[int]", Periods], nn.Module]
# Centres of features lie in the box of the points, wider by this part of it on each side: features
# centred outside are the slowly varying ones.
MARGIN = 0.05
SAMPLES = 1025  # points on each line on which the residual's sign changes are counted
LINES = 9


class Corrected(nn.Module):
    """The sum of a frozen network and a correction: x -> base(x) + amplitude·correction(x).

    Args:
        base: its parameters do not require gradients.
        correction: maps (N, d) to the same shape as ``base``.
        amplitude: size of the correction.
    """

    def __init__(self, base: nn.Module, correction: nn.Module, amplitude: float = 1.0) -> None:
        super().__init__()
        self.base, self.correction, self.amplitude = base, correction, amplitude

    def forward(self, x: Any) -> Any:
        """Return the corrected value."""
        return _apply(self.base, x) + self.amplitude * _apply(self.correction, x)

    def extra_repr(self) -> str:
        """Return the amplitude, which no parameter holds."""
        return f"amplitude={self.amplitude!r}"


def _apply(net: nn.Module, x: Any) -> Any:
    # Each part by its own fastest backend: their sum is no dense network.
    return run(net, x) if isinstance(x, Jet) else net(x)


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


def frozen(net: nn.Module) -> nn.Module:
    """Return a copy of a network that is not trained; the original keeps its own parameters."""
    return copy.deepcopy(net).requires_grad_(False)


def outputs_of(net: nn.Module, points: Tensor) -> int:
    """Return how many values a network has at a point."""
    with torch.no_grad():
        return int(net(points[:1]).shape[-1])


class Corrections:
    """The part of an objective that corrects its field; see ``_base.protocols.Correctable``."""

    problem: Problem
    net: nn.Module
    points: Tensor
    settings: tuple[Any, ...]
    _factors: dict[str, Tensor]
    # Returns about n times as many points as the objective has; set by whoever knows how they were
    # chosen. Without it the points stay as they are.
    denser: Callable[[int], Tensor] | None = None
    # What a stage has put in its place.
    successor: PinnObjective | None = None

    @property
    def latest(self) -> PinnObjective:
        """The objective that the last stage has put in the place of this one, or this one."""
        found: Any = self
        while found.successor is not None:
            found = found.successor
        result: PinnObjective = found
        return result

    def with_features(
        self,
        theta: Tensor,
        *,
        count: int,
        slope: float | tuple[float, ...],
        density: int,
        seed: int,
        activation: str = "tanh",
    ) -> tuple[PinnObjective, Tensor]:
        """Return the objective over the output weights of random features and the unknowns, and its start.

        Args:
            theta: parameters that are frozen, shape (P,).
            count: how many features.
            slope: their largest slope, or one for each coordinate, where the points' box has width 2.
            density: how many times more points the equations are asked to hold at.
            seed: seed of the features.
            activation: "tanh" or "sin".
        """
        base, points = self._frozen(theta), self._more_points(density)
        self._check_slopes(slope)

        def make(part: nn.Module, i: int, axes: list[int], periods: Periods) -> nn.Module:
            own = points[:, axes]
            steep = tuple(slope[a] for a in axes) if isinstance(slope, tuple) else slope
            return random_features(
                own, _outputs(part, own), count, steep, seed + i,
                activation=activation, periods=periods,
            )  # fmt: skip

        net = self._corrected(base, make)
        self.successor = corrected = self.rebuilt(net, points)
        start = corrected.start()
        start[:] = 0.0
        start[len(start) - len(self.problem.unknowns) :] = self._unknowns(theta)
        return corrected, start

    def with_network(
        self, theta: Tensor, *, width: int, depth: int, frequency: float | None, density: int, seed: int
    ) -> tuple[PinnObjective, Tensor]:
        """Return the objective over a second network and the unknowns, and its start.

        Args:
            theta: parameters that are frozen, shape (P,).
            width: neurons in each hidden layer of the second network.
            depth: hidden layers.
            frequency: half-waves of its fastest first neuron across the points' box; three times the
                number of sign changes of the residual when None.
            density: how many times more points the equations are asked to hold at.
            seed: seed of the second network.
        """
        base, points = self._frozen(theta), self._more_points(density)
        if frequency is None:
            frequency = 3.0 * self._sign_changes(theta)
        half_waves = frequency

        def make(part: nn.Module, i: int, axes: list[int], periods: Periods) -> nn.Module:
            own = points[:, axes]
            return second_network(own, _outputs(part, own), (width, depth), half_waves, seed + i, periods)

        net = self._corrected(base, make)
        self.successor = corrected = self.rebuilt(net, points)
        start, unknowns = corrected.start(), self._unknowns(theta)
        start[len(start) - len(unknowns) :] = unknowns
        _set_amplitude(corrected, start)
        with torch.no_grad():  # the correction begins at zero, the frozen field untouched
            for part in _corrections(net):
                last = list(part.correction.modules())[-1]
                assert isinstance(last, nn.Linear)
                last.weight.zero_()
        zeroed = corrected.start()
        zeroed[len(start) - len(unknowns) :] = unknowns
        return corrected, zeroed

    @property
    def sizes(self) -> Tensor:
        """The natural size of each entry of θ, shape (P,).

        It is 1, but for the unknowns beside a correction of amplitude ε, which move by about ε.
        """
        ones = torch.ones_like(self.start())
        ones[len(ones) - len(self.problem.unknowns) :] = min(
            (part.amplitude for part in _corrections(self.net)), default=1.0
        )
        return ones

    def rebuilt(self, net: nn.Module, points: Tensor) -> PinnObjective:
        """Return the objective of the same problem for another network and points.

        Factors of whole rows stay; those of single points become their mean, for the points change.
        """
        other = self._made(net, points)
        other.denser = self.denser
        kept = {
            name: factor.mean(-1, keepdim=True) if factor.ndim and factor.shape[-1] > 1 else factor
            for name, factor in self._factors.items()
        }
        if kept:
            other.set_factors(kept)
            other.version = 0
        return other

    def _made(self, net: nn.Module, points: Tensor) -> PinnObjective:
        made: Any = type(self)
        other: PinnObjective = made(self.problem, net, points, *self.settings)
        return other

    def _frozen(self, theta: Tensor) -> nn.Module:
        """Return a copy of the network at θ that is not trained; the original stays trainable."""
        self.load(theta)
        return copy.deepcopy(self.net).requires_grad_(False)

    def _corrected(self, base: nn.Module, make: Make) -> nn.Module:
        """Return a network with its correction; several networks, by field, are corrected one by one."""

        def corrected(part: nn.Module, i: int, name: str | None) -> nn.Module:
            domain = self.problem.domain.names
            own = list(domain) if name is None else list(self.problem.inputs(name))
            built = self.problem.built_in(name)
            cycles = () if built is None else built.cycles
            ends = [self.problem.interval(n) if n in cycles else None for n in own]
            periods = tuple(None if e is None else (e[0], e[1] - e[0]) for e in ends)
            return Corrected(part, make(part, i, [domain.index(n) for n in own], periods))

        if not isinstance(base, nn.ModuleDict):
            return corrected(base, 0, None)
        return nn.ModuleDict({name: corrected(part, i, name) for i, (name, part) in enumerate(base.items())})

    def _check_slopes(self, slope: float | tuple[float, ...]) -> None:
        dimension = self.problem.domain.dimension
        if isinstance(slope, tuple) and len(slope) != dimension:
            raise ArgumentError(
                f"slope has {len(slope)} entries",
                f"there is one for each of the {dimension} coordinate(s), or one number for all",
                "slope=12.0",
            )

    def _unknowns(self, theta: Tensor) -> Tensor:
        return theta[len(theta) - len(self.problem.unknowns) :]

    def _more_points(self, density: int) -> Tensor:
        return self.points if self.denser is None or density == 1 else self.denser(density)

    def _sign_changes(self, theta: Tensor) -> float:
        """Return the largest number of sign changes of an equation's residual along a coordinate, at least 1.

        It is counted on lines through the points' box; a change counts where the residual is above a
        hundredth of its largest size on the line, so that rounding noise does not.
        """
        frame, dimension, most = Frame.of(self.points), self.points.shape[1], 1
        generator = torch.Generator().manual_seed(0)
        for axis in range(dimension):
            for _ in range(1 if dimension == 1 else LINES):
                place = 2 * torch.rand(1, dimension, generator=generator, dtype=torch.float64) - 1
                z = place.to(frame.half).repeat(SAMPLES, 1)
                z[:, axis] = torch.linspace(-1, 1, SAMPLES, dtype=z.dtype, device=z.device)
                for row in self._equation_rows(theta, frame.centre + frame.half * z):
                    loud = row[row.abs() > 1e-2 * row.abs().max()]
                    most = max(most, int((loud[1:] * loud[:-1] < 0).sum()))
        return float(most)

    def _equation_rows(self, theta: Tensor, points: Tensor) -> list[Tensor]:
        """Return the residual of each equation at points, shape (N,) each, up to a factor."""
        blocks = self.rebuilt(self.net, points).rows(theta)
        return [rows[0] for rows in list(blocks.values())[: len(self.problem.equations)]]

    if TYPE_CHECKING:
        load: Callable[[Tensor], Tensor]
        start: Callable[[], Tensor]


def _outputs(net: nn.Module, points: Tensor) -> int:
    with torch.no_grad():
        return int(net(points[:1]).shape[-1])


def _corrections(net: nn.Module) -> list[Corrected]:
    """Return the outermost corrections of a network, not those inside what they correct."""
    found = net.values() if isinstance(net, nn.ModuleDict) else [net]
    return [part for part in found if isinstance(part, Corrected)]


def _set_amplitude(objective: PinnObjective, theta: Tensor) -> None:
    """Set the ε at which ε·correction changes the residual by its own size, a power of two.

    The change is linear in small ε, so one difference tells its rate. It is Wang & Lai's
    ε = rms(R) / (β (2π f)^m), with the operator's size β, frequency f and order m found by trying.
    """
    step = torch.finfo(objective.dtype).eps ** 0.5
    parts, values = _corrections(objective.net), []
    for amplitude in (0.0, step):
        for part in parts:
            part.amplitude = amplitude
        values.append(objective.residuals(theta))
    rate, size = float((values[1] - values[0]).norm()) / step, float(values[0].norm())
    for part in parts:
        # A power of two scales without rounding.
        part.amplitude = 2.0 ** round(math.log2(size / rate)) if size > 0 and rate > 0 else 1.0
