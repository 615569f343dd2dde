"""Diagnostics during training: chosen measures at chosen iterations, with their own cost on record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ntangent._base.check import check_order, check_positive
from ntangent._base.errors import ArgumentError, DtypeError
from ntangent.diagnose.information import record_activations
from ntangent.diagnose.snapshot import (
    Block,
    Extent,
    IndependentPoints,
    Measure,
    ModuleObjective,
    Snapshot,
    layers_of,
    measures,
)
from ntangent.diagnose.snr import adam_moments, batch_gradients, gradients_of_batches

Schedule = Callable[[int], bool]


class StepRecord(Protocol):
    """What a training loop tells of an iteration, as far as a monitor reads it."""

    @property
    def step(self) -> int:
        """Iterations done since the run began."""
        ...

    @property
    def theta(self) -> Tensor | None:
        """The parameters."""
        ...


@dataclass(frozen=True)
class Reading:
    """What the measures gave at one iteration.

    Args:
        iteration: of the training.
        values: "MEASURE.VALUE" -> number or tensor.
        seconds: what the reading cost, the snapshot included.
    """

    iteration: int
    values: dict[str, float | Tensor]
    seconds: float

    @property
    def numbers(self) -> dict[str, float]:
        """The values that are numbers, for a line in the metrics."""
        return {name: v for name, v in self.values.items() if isinstance(v, float)}


@dataclass(frozen=True)
class EarlyAndEvery:
    """The paper's schedule: densely at first, then every so often.

    Args:
        every: iterations between readings.
        early: iterations between readings up to ``until``.
        until: last iteration of the dense part.
    """

    every: int = 100
    early: int = 10
    until: int = 300

    def __post_init__(self) -> None:
        for name in ("every", "early"):
            check_positive(getattr(self, name), name, integer=True)
        check_order(self.until, "until")

    def __call__(self, iteration: int) -> bool:
        """Return whether an iteration is read."""
        return iteration % (self.early if iteration <= self.until else self.every) == 0


class Monitor:
    """Records measures during a training.

    As a callback of the run loop it needs to be told once how an iteration becomes a snapshot
    (:meth:`attach`); in a plain torch loop call :meth:`record`, which builds the snapshot itself.
    An iteration that is not due costs one comparison; no monitor costs nothing.

    Args:
        every: iterations between readings, or a function of the iteration that says whether it is due.
        measures: names of ``diagnose.measures``, or measures of your own.
        sink: called with every reading (a metrics file, TensorBoard).

    Example:
        >>> monitor = Monitor(every=100, measures=["snr"])
        >>> monitor.due(200), monitor.due(201)
        (True, False)
    """

    def __init__(
        self,
        every: int | Schedule = 100,
        measures: Sequence[str | Measure] = ("snr",),
        sink: Callable[[Reading], None] | None = None,
    ) -> None:
        if not callable(every):
            check_positive(every, "every", integer=True)
        self._every = every
        self.measures = _chosen(measures)
        self.readings: list[Reading] = []
        self._sink = sink
        self._source: Callable[[Any], Snapshot] | None = None
        self._started = time.perf_counter()
        self._ended: float | None = None

    def __repr__(self) -> str:
        return f"Monitor(every={self._every!r}, measures={[m.name for m in self.measures]!r})"

    @property
    def settings(self) -> dict[str, Any]:
        """What decides its readings: ``every`` and the names of the measures."""
        return {"every": self._every, "measures": [measure.name for measure in self.measures]}

    @property
    def cost(self) -> dict[str, str]:
        """What each measure costs, in words."""
        return {measure.name: measure.cost for measure in self.measures}

    @property
    def seconds(self) -> float:
        """Time spent on readings."""
        return sum(reading.seconds for reading in self.readings)

    @property
    def share(self) -> float:
        """Share of the time since the training began (or the monitor was made) spent on readings."""
        until = time.perf_counter() if self._ended is None else self._ended
        return self.seconds / max(until - self._started, 1e-9)

    @property
    def iterations(self) -> list[int]:
        """Iterations that were read."""
        return [reading.iteration for reading in self.readings]

    def series(self, name: str) -> tuple[list[int], list[float | Tensor]]:
        """Return the iterations and the values of one quantity, ``series("snr.order")``."""
        found = [(r.iteration, r.values[name]) for r in self.readings if name in r.values]
        if not found:
            known = ", ".join(self.readings[-1].values) if self.readings else "nothing was read yet"
            raise ArgumentError(f"there is no series {name!r}", "", known)
        return [iteration for iteration, _ in found], [value for _, value in found]

    def due(self, iteration: int) -> bool:
        """Return whether an iteration is to be read."""
        return bool(self._every(iteration)) if callable(self._every) else iteration % self._every == 0

    def read(self, snapshot: Snapshot, spent: float = 0.0, partial: bool = False) -> Reading:
        """Apply the measures to a snapshot and keep the reading.

        Args:
            snapshot: the training at one moment.
            spent: seconds that the snapshot cost.
            partial: leave out measures for which the snapshot lacks something, such as the moments of
                Adam during another method.
        """
        start = time.perf_counter()
        values: dict[str, float | Tensor] = {}
        for measure in self.measures:
            if partial and measure.lacking(snapshot):
                continue
            values |= {f"{measure.name}.{key}": value for key, value in measure(snapshot).items()}
        reading = Reading(snapshot.iteration, values, spent + time.perf_counter() - start)
        self.readings.append(reading)
        if self._sink is not None:
            self._sink(reading)
        return reading

    # --- in a plain torch loop ---------------------------------------------------------------

    def record(
        self,
        iteration: int,
        net: nn.Module,
        residual: Callable[[], Tensor | Mapping[str, Tensor]] | None = None,
        *,
        points: Tensor | Mapping[str, Tensor] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        batch_loss: tuple[Callable[[int], Tensor], int] | None = None,
        **options: Any,
    ) -> Reading | None:
        """Read an iteration of a loop of your own, if it is due.

        Args:
            iteration: iterations done.
            net: the network; its gradients (``.grad``) are not touched.
            residual: returns the residual of the loss |r|² at the network's own parameters, shape (N,) or
                (C, N), or several by name.
            points: where the residual is, shape (N, d), by name where the residual has names.
            optimizer: a ``torch.optim.Adam``, for its moments.
            batch_loss: for losses that are no sums of squares: a function of the batch's number, and
                how many batches there are.
            options: ``extent`` of the domain, ``weights`` of the points by name, ``shared`` names of
                residuals that are not split into batches, and ``independent=True``, the promise that
                column i of the residual depends on point i alone (one backward pass per component).

        Returns:
            The reading, or None when the iteration is not due.
        """
        if not self.due(iteration):
            return None
        start = time.perf_counter()
        snapshot = snapshot_of(
            iteration, net, residual, points=points, optimizer=optimizer, batch_loss=batch_loss, **options
        )
        return self.read(snapshot, time.perf_counter() - start)

    # --- as a callback of the run loop ---------------------------------------------------------

    def attach(self, source: Callable[[Any], Snapshot]) -> Monitor:
        """Say how a record of the loop becomes a snapshot; return the monitor."""
        self._source = source
        self._started = time.perf_counter()
        return self

    def on_step(self, record: StepRecord) -> str | None:
        """Read an iteration that is due."""
        if not self.due(record.step):
            return None
        if self._source is None:
            raise ArgumentError(
                "the monitor does not know how to look at this training",
                "a record has θ, and not what θ means",
                "pinn.solve(..., monitor=monitor), or monitor.attach(lambda record: Snapshot(...))",
            )
        start = time.perf_counter()
        snapshot = self._source(record)
        self.read(snapshot, time.perf_counter() - start)
        return None

    def on_stage(self, record: Any) -> None:
        """Nothing ends for a monitor when a stage ends."""

    def on_end(self, outcome: Any) -> None:  # noqa: ARG002  the loop's protocol
        """Stop the clock by which :attr:`share` is reckoned."""
        self._ended = time.perf_counter()


def snapshot_of(
    iteration: int,
    net: nn.Module,
    residual: Callable[[], Tensor | Mapping[str, Tensor]] | None = None,
    *,
    points: Tensor | Mapping[str, Tensor] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    batch_loss: tuple[Callable[[int], Tensor], int] | None = None,
    **options: Any,
) -> Snapshot:
    """Return the snapshot of a plain torch loop; arguments as for :meth:`Monitor.record`."""
    extent: Extent | None = options.pop("extent", None)
    weights: Mapping[str, Tensor] = options.pop("weights", None) or {}
    shared: Sequence[str] = options.pop("shared", ())
    independent = bool(options.pop("independent", False))
    if options:
        raise ArgumentError(
            f"unknown option {next(iter(options))!r}", "", "extent=, weights=, shared=, independent="
        )
    places = {"residual": points} if isinstance(points, Tensor) else dict(points or {})
    objective: ModuleObjective | None = None
    blocks: tuple[Block, ...] = ()
    if residual is not None:
        objective = (IndependentPoints if independent else ModuleObjective)(net, residual)
        blocks = objective.blocks(places, shared, weights)
    parameters = [p for p in net.parameters() if p.requires_grad]
    theta = torch.cat([p.detach().reshape(-1) for p in parameters]) if parameters else torch.zeros(0)
    sample = next(iter(places.values()), None)
    return Snapshot(
        iteration,
        theta,
        layers_of(net),
        objective,
        blocks,
        extent,
        None if sample is None else lambda: record_activations(net, sample),
        None if optimizer is None else adam_moments(optimizer),
        _batch_gradients(objective, blocks, parameters, batch_loss),
    )


def _batch_gradients(
    objective: ModuleObjective | None,
    blocks: tuple[Block, ...],
    parameters: Sequence[Tensor],
    batch_loss: tuple[Callable[[int], Tensor], int] | None,
) -> Callable[[int], Tensor] | None:
    """Return the cheapest way to the gradients of batches, None for the one by the Jacobian."""
    if batch_loss is not None:
        return lambda _: gradients_of_batches(batch_loss[0], parameters, batch_loss[1])
    if not isinstance(objective, IndependentPoints):
        return None

    def found(batches: int) -> Tensor:
        gradients = objective.batch_gradients(batches, blocks)
        if gradients is None:
            gradients = batch_gradients(*objective.residuals_and_jacobian(objective.theta()), batches, blocks)
        return gradients

    return found


def _chosen(names: Sequence[str | Measure]) -> tuple[Measure, ...]:
    if isinstance(names, str | Measure):
        names = [names]
    found = tuple(measures[name] if isinstance(name, str) else name for name in names)
    for measure in found:
        if not isinstance(measure, Measure):
            raise DtypeError(f"{measure!r} is no measure", "", f"one of {', '.join(measures)}")
    if len({measure.name for measure in found}) != len(found):
        raise ArgumentError(
            "two measures have one name", "their values would mix", "snr_measure(50, name=...)"
        )
    return found
