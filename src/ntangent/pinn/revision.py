"""What changes while a problem is being solved: the weights of its residuals and its points."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError, DtypeError, NoEffectWarning
from ntangent._base.protocols import Objective, Refreshing, Stage
from ntangent.pinn.held_out import PARTED
from ntangent.pinn.sampling import Chebyshev, Grid, Resampler, Uniform
from ntangent.pinn.weighting.base import Layout, Memory, View, Weighting


@dataclass(frozen=True)
class Refine:
    """Add collocation points when the network fits those it has and not the equation between them.

    Every ``every`` iterations the mean square residual on points that are never trained on is
    compared with that on the training points. After ``patience`` comparisons in a row in which it is
    more than ``threshold`` times larger, uniform random points are added, until there are ``growth``
    times as many. The rule looks at residuals only, so it is the same for every optimiser.

    For points on which nothing was fitted the ratio is 1 up to the sampling error; strong optimisers
    reach ratios of 1e4 and more, with a small loss and a wrong solution.

    Args:
        threshold: ratio of the two mean squares, above 1; by default that at which ``solve`` warns.
        growth: factor on the number of points, above 1.
        every: iterations between comparisons, where the optimiser can follow.
        patience: comparisons in a row.
        limit: largest number of points, as a multiple of the first.
    """

    threshold: float = PARTED
    growth: float = 2.0
    every: int = 25
    patience: int = 2
    limit: float = 16.0

    def __post_init__(self) -> None:
        for name in ("threshold", "growth", "limit"):
            if check_positive(getattr(self, name), name) <= 1:
                raise ArgumentError(
                    f"{name} must be above 1, got {getattr(self, name)!r}",
                    "at 1 every set of points would be refined at once, or none",
                    f"Refine({name}=2.0)",
                )
        check_positive(self.every, "every", integer=True)
        check_positive(self.patience, "patience", integer=True)


class Revision:
    """Revises an objective between iterations; all that it remembers fits into a checkpoint.

    Args:
        objective: the objective; ``rows``, ``set_factors``, ``set_points`` are used.
        weighting: factors on the residuals, or None.
        resample: how the collocation points move, or None.
        refine: when points are added, or None.
        held_out: points that are never trained on, shape (H, d); needed for ``refine``.
        seed: of the generator for everything random here.
    """

    def __init__(
        self,
        objective: Any,
        *,
        weighting: Weighting | None = None,
        resample: Resampler | None = None,
        refine: Refine | None = None,
        held_out: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        self.objective, self.weighting, self.resample, self.refine = objective, weighting, resample, refine
        self.held_out = held_out
        # On the CPU: the same numbers on every device.
        self.generator = torch.Generator().manual_seed(seed)
        self.layout: Layout = objective.layout()
        self.first_count = len(objective.points)
        self.parted, self.ratio = 0, 1.0
        self.pause = 1
        self._weights: Memory = {}
        self._moves: Memory = {}
        if weighting is not None:
            self._weights = weighting.start(self.layout, self.generator)
            objective.set_factors(weighting.factors(self._weights))
        if resample is not None:
            self._moves = resample.start(objective.problem.domain, objective.points)

    def __call__(self, objective: Objective, stage: Stage, theta: Tensor, step: int) -> None:
        """Revise after ``step`` iterations; a stage that trains another objective is left alone.

        Where a weighting leaves its pace open, a stage on mini-batches gets an update an epoch.
        """
        if id(objective) != id(self.objective):
            return
        settle = int(getattr(stage, "settle", 1))
        batch = getattr(stage, "batch", None)
        if batch is not None:
            # What needs all points is done once an epoch, or it would cost more than the batches.
            settle = max(settle, len(self.objective.points) // batch)
        self.pause = settle if batch is not None else 1
        if step > 0:
            if self.resample is not None and step % self.resample.every == 0:
                points, self._moves = self.resample.update(
                    self.objective.problem.domain,
                    self._moves,
                    self.objective.points,
                    self._magnitude(theta),
                    self.generator,
                )
                self._adopt(points)
            if self.refine is not None and step % max(self.refine.every, settle) == 0:
                self._compare(self.refine, theta)
        if self.weighting is not None and self.weighting.due(step, settle):
            self._weights = self.weighting.update(self._weights, self._view(theta, step, settle))
            self.objective.set_factors(self.weighting.factors(self._weights))

    def _magnitude(self, theta: Tensor) -> Any:
        return lambda points: self.objective.magnitude(theta, points)

    def _view(self, theta: Tensor, step: int, settle: int) -> View:
        objective = self.objective
        squares: dict[str, Tensor] = {}

        def row_squares(name: str) -> Tensor:
            if not squares:
                squares.update(objective.row_squares(theta))
            return squares[name]

        return View(
            step,
            self.layout,
            objective.rows(theta),
            self.generator,
            lambda name, factor: objective.term_gradient(theta, name, factor),
            row_squares,
            settle,
        )

    def _compare(self, refine: Refine, theta: Tensor) -> None:
        """Count how often the held-out residual has left the training one; add points if often enough."""
        assert self.held_out is not None
        trained = _mean_square(self.objective.magnitude(theta, self.objective.points))
        unseen = _mean_square(self.objective.magnitude(theta, self.held_out))
        # A training residual of zero with any other beside it is as far apart as can be.
        self.ratio = unseen / trained if trained > 0 else (1.0 if unseen == 0 else float("inf"))
        self.parted = self.parted + 1 if self.ratio > refine.threshold else 0
        count = len(self.objective.points)
        most = int(self.first_count * refine.limit)
        if self.parted < refine.patience or count >= most:
            return
        self.parted = 0
        wanted = min(most, round(count * refine.growth)) - count
        seed = int(torch.randint(2**31, (), generator=self.generator))
        new = Uniform(max(1, wanted), seed).points(
            self.objective.problem.domain, self.objective.dtype, self.objective.device
        )
        self._adopt(torch.cat([self.objective.points, new]))

    def _adopt(self, points: Tensor) -> None:
        """Train on other points; what the weighting knows of a point stays with it."""
        old = self.objective.points
        if points.shape == old.shape and torch.equal(points, old):
            return
        origin = _origin(points, old)
        self.objective.set_points(points)
        self.layout = self.objective.layout()
        if self.weighting is not None:
            moved = {name: origin for name in self.objective.movable()}
            self._weights = self.weighting.moved(self._weights, self.layout, moved)
            self.objective.set_factors(self.weighting.factors(self._weights))

    def measure(self, step: int, theta: Tensor) -> dict[str, float]:
        """Return numbers worth watching: terms of the loss, weights, the held-out residual."""
        numbers: dict[str, float] = {}
        if len(self.layout.terms) > 1 and step % self.pause == 0:
            # A stage may have put another objective in its place.
            terms = self.objective.latest.terms(theta)
            numbers = {f"loss {name}": value for name, value in terms.items()}
        if self.weighting is not None:
            numbers |= self.weighting.describe(self._weights)
        if self.refine is not None or self.resample is not None:
            numbers["points"] = float(len(self.objective.points))
        if self.refine is not None:
            numbers["held-out ratio"] = self.ratio
        return numbers

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run must find again."""
        return {
            "points": self.objective.points,
            "weights": self._weights,
            "moves": self._moves,
            "parted": self.parted,
            "pause": self.pause,
            "ratio": self.ratio,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        home = self.objective.points
        points = state["points"].to(home)
        if points.shape != home.shape or not torch.equal(points, home):
            self.objective.set_points(points)
            self.layout = self.objective.layout()
        self._weights, self._moves = state["weights"], state["moves"]
        self.parted, self.ratio = state["parted"], state["ratio"]
        self.pause = state["pause"]
        self.generator.set_state(state["generator"].cpu())
        if self.weighting is not None:
            self.objective.set_factors(self.weighting.factors(self._weights))


def check_revision(weighting: Any, resample: Any, refine: Any) -> Refine | None:
    """Return the rule of refinement, if all three are what ``solve`` takes.

    Raises:
        DtypeError: naming the argument that is something else.
    """
    if weighting is not None and not isinstance(weighting, Weighting):
        raise DtypeError(f"weighting is {weighting!r}", "it is a weighting or None", "weighting=RBA()")
    if resample is not None and not isinstance(resample, Resampler):
        raise DtypeError(
            f"resample is {resample!r}", "it has no `every`, `start` and `update`", "resample=RAD(every=100)"
        )
    if refine is None or isinstance(refine, Refine):
        return refine
    if refine == "auto":
        return Refine()
    raise DtypeError(f"refine is {refine!r}", 'it is "auto", a Refine or None', 'refine="auto"')


def warn_without_effect(revision: Revision, stages: Any, sampler: Any) -> None:
    """Warn of options that do nothing in this combination."""
    notes = []
    weighting, resample, refine = revision.weighting, revision.resample, revision.refine
    if weighting is not None and (reason := weighting.idle(revision.layout)) is not None:
        notes.append(reason)
    points = not revision.objective.movable()
    if resample is not None and points:
        notes.append("resample has no effect: the problem has no equation, hence no collocation points")
    if resample is not None and isinstance(sampler, Grid | Chebyshev):
        notes.append(
            f"resample gives up the structure of {sampler!r} in its first move: "
            "only the first points are that sampler's"
        )
    changing = resample is not None or refine is not None or (weighting is not None and _ever_due(weighting))
    for stage in stages if changing else ():
        if not isinstance(stage, Refreshing):
            notes.append(
                f"weights and points stay as they are during {type(stage).__name__}: "
                "it has no method `refresh`"
            )
    count = len(revision.objective.points)
    for stage in stages:
        batch = getattr(stage, "batch", None)
        if batch is not None and (batch >= count or points):
            notes.append(
                f"{type(stage).__name__}(batch={batch}) has no effect: there are "
                f"{0 if points else count} collocation points"
            )
        every = None if resample is None else resample.every
        if every is not None and every >= sum(s.iterations for s in stages):
            notes.append(f"resample every {every} iterations has no effect: there are fewer iterations")
            break
    for note in dict.fromkeys(notes):
        warnings.warn(note, NoEffectWarning, stacklevel=3)


def _ever_due(weighting: Weighting) -> bool:
    return weighting.due(0, 1)


def _mean_square(values: Tensor) -> float:
    return float(values.square().mean())


def _origin(points: Tensor, old: Tensor) -> Tensor:
    """Return the index of each point among the old ones, -1 where it is none of them, shape (M,)."""
    places: dict[tuple[float, ...], list[int]] = {}
    for i, row in reversed(list(enumerate(old.tolist()))):
        places.setdefault(tuple(row), []).append(i)
    found = [places[key].pop() if places.get(key := tuple(row)) else -1 for row in points.tolist()]
    return torch.tensor(found, dtype=torch.long)
