"""Corrections of a trained field: a second function beside a frozen network.

The correction is added to the network, not to the field, so that the ansatz of the problem acts on
the sum: where it is linear in the network (odd and even parts, hard boundary values), a correction
has the symmetry and the boundary values of the field.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ntangent._base.errors import ArgumentError
from ntangent.jet import Jet
from ntangent.jet.execute import run
from ntangent.pinn.basis import Family, Polynomials, TensorBasis, Waves
from ntangent.pinn.features import Frame, Periods, random_features, second_network

if TYPE_CHECKING:
    from ntangent.pinn.objective import PinnObjective
    from ntangent.pinn.problem import Problem

# From a network, its number, the axes it is a function of and their periods to its correction.
Make = Callable[[nn.Module, int, "list[int]", Periods], nn.Module]
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

    @property
    def linear(self) -> bool:
        """Whether only the weights of a last layer are trained."""
        return sum(p.requires_grad for p in self.correction.parameters()) == 1

    def extra_repr(self) -> str:
        """Return the amplitude, which no parameter holds."""
        return f"amplitude={self.amplitude!r}"


def _apply(net: nn.Module, x: Any) -> Any:
    # Each part by its own fastest backend: their sum is no dense network.
    return run(net, x) if isinstance(x, Jet) else net(x)


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
        self._check_entries(slope, "slope", "slope=12.0")

        def make(part: nn.Module, i: int, axes: list[int], periods: Periods) -> nn.Module:
            own = points[:, axes]
            steep = tuple(slope[a] for a in axes) if isinstance(slope, tuple) else slope
            return random_features(
                own, _outputs(part, own), count, steep, seed + i,
                activation=activation, periods=periods,
            )  # fmt: skip

        return self._from_zero(self._corrected(base, make), points, theta)

    def with_basis(
        self, theta: Tensor, *, modes: int | tuple[int, ...], density: int
    ) -> tuple[PinnObjective, Tensor]:
        """Return the objective over the output weights of a tensor basis and the unknowns, and its start.

        Args:
            theta: parameters that are frozen, shape (P,).
            modes: highest mode in each coordinate, or one number for all; see :class:`TensorBasis`.
            density: how many times more points the equations are asked to hold at.
        """
        base, points, names = self._frozen(theta), self._more_points(density), self.problem.domain.names
        self._check_entries(modes, "modes", "modes=12")
        highest = modes if isinstance(modes, tuple) else (modes,) * len(names)

        def make(part: nn.Module, i: int, axes: list[int], periods: Periods) -> nn.Module:
            outputs = _outputs(part, points[:, axes])
            built = self.problem.built_in(list(base)[i] if isinstance(base, nn.ModuleDict) else None)

            def family(axis: int, period: tuple[float, float] | None) -> Family:
                if period is not None:
                    return Waves(highest[axis], *period)
                cancelled = () if built is None else built.cancelled(axis, outputs)
                return Polynomials(highest[axis], *self.problem.interval(names[axis]), cancelled)

            families = [family(a, period) for a, period in zip(axes, periods, strict=True)]
            return TensorBasis(families, outputs, points)

        found, start = self._from_zero(self._corrected(base, make), points, theta)
        rows = sum(len(block.weights) * block.count for block in found.blocks)
        if len(start) > rows:
            raise ArgumentError(
                f"modes={modes} makes {len(start)} weights for {rows} rows of the residual",
                "the weights would not be determined: twice as many rows are a good number",
                f"Polish(density={math.ceil(2 * len(start) * density / rows)}), or fewer modes",
            )
        return found, start

    def _from_zero(self, net: nn.Module, points: Tensor, theta: Tensor) -> tuple[PinnObjective, Tensor]:
        """Return the objective of a corrected network, and its start with no correction."""
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

    def _check_entries(self, value: object, name: str, fix: str) -> None:
        dimension = self.problem.domain.dimension
        if isinstance(value, tuple) and len(value) != dimension:
            raise ArgumentError(
                f"{name} has {len(value)} entries",
                f"there is one for each of the {dimension} coordinate(s), or one number for all",
                fix,
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
