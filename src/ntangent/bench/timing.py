"""Time several things in one process so that the numbers can be compared.

They take turns in a random order, after a warm-up; what is reported is the median with its quartiles,
of wall time and of processor time. Knows nothing of networks.
"""

from __future__ import annotations

import contextlib
import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Stage = tuple[str, Callable[[Any], Any]]
TOTAL = "total"
FAST = 0.02  # seconds: a shorter task has more than one pass in a turn, and one before it that is not timed
TURN = 0.002  # seconds of timed passes in such a turn
MOST_IN_TURN = 10
CLOCKS = ("wall", "cpu")


@dataclass(frozen=True)
class Task:
    """Something to time: stages that run one after the other.

    Args:
        name: what it is called in the result.
        stages: pairs (label, function); each function gets what the one before returned, the first
            None. Every stage is timed, and with several of them their total.
    """

    name: str
    stages: Sequence[Stage]


@dataclass(frozen=True)
class Effort:
    """How long to measure each task.

    Args:
        seconds: a task ends once its timed passes have taken this long...
        least: ...and there are at least this many of them,
        most: or this many.
    """

    seconds: float = 0.5
    least: int = 5
    most: int = 200


@dataclass
class Samples:
    """The timed passes of a task: label -> clock -> seconds of each pass."""

    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, times: Mapping[str, tuple[float, float]]) -> None:
        """Note one pass."""
        for label, pair in times.items():
            clocks = self.seconds.setdefault(label, {clock: [] for clock in CLOCKS})
            for clock, value in zip(CLOCKS, pair, strict=True):
                clocks[clock].append(value)

    @property
    def passes(self) -> int:
        """Number of timed passes."""
        return max((len(clocks["wall"]) for clocks in self.seconds.values()), default=0)

    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return label -> clock -> median, quartiles and minimum, in seconds."""
        return {
            label: {clock: spread(values) for clock, values in clocks.items()}
            for label, clocks in self.seconds.items()
        }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the quartiles and the minimum of a sample."""
    low, middle, high = np.quantile(np.asarray(values, dtype=float), (0.25, 0.5, 0.75))
    return {"median": float(middle), "q25": float(low), "q75": float(high), "least": float(min(values))}


def nothing() -> None:
    """Wait for nothing: processors do their work before a call returns."""


def once(task: Task, wait: Callable[[], Any] = nothing) -> dict[str, tuple[float, float]]:
    """Run a task once and return label -> (wall, processor) seconds.

    Args:
        task: what to run.
        wait: called before each reading of the clocks; a device with a queue of its own is waited
            for here.
    """
    wait()
    marks = [(time.perf_counter(), time.process_time())]
    value: Any = None
    for _, stage in task.stages:
        value = stage(value)
        wait()
        marks.append((time.perf_counter(), time.process_time()))
    times = {
        label: (after[0] - before[0], after[1] - before[1])
        for (label, _), before, after in zip(task.stages, marks, marks[1:], strict=False)
    }
    if len(task.stages) > 1:
        times[TOTAL] = (marks[-1][0] - marks[0][0], marks[-1][1] - marks[0][1])
    return times


def duration(times: Mapping[str, tuple[float, float]]) -> float:
    """Return the wall time of one pass, all stages together."""
    return times[TOTAL][0] if TOTAL in times else sum(wall for wall, _ in times.values())


def measure(
    tasks: Sequence[Task],
    effort: Effort,
    seed: int = 0,
    wait: Callable[[], Any] = nothing,
) -> dict[str, Samples]:
    """Time tasks by turns, in a new random order each round.

    A turn of a short task begins with a pass that is not timed: the caches are full of the task
    before, which would never be so in use. A task that has had enough passes leaves; the others go on.

    Args:
        tasks: what to time; names must differ.
        effort: how long.
        seed: of the order of the turns.
        wait: as for :func:`once`.

    Returns:
        Task name -> samples.
    """
    generator = random.Random(seed)
    samples = {task.name: Samples() for task in tasks}
    with quiet_collector() as tidy:
        estimates = {task.name: _warm(task, wait) for task in tasks}
        used = dict.fromkeys(estimates, 0.0)
        active = list(tasks)
        while active:
            generator.shuffle(active)
            for task in active:
                estimate = estimates[task.name]
                if estimate < FAST:
                    once(task, wait)
                for _ in range(_passes(estimate)):
                    times = once(task, wait)
                    samples[task.name].add(times)
                    used[task.name] += duration(times)
                tidy()
            active = [task for task in active if not _enough(samples[task.name], used[task.name], effort)]
    return samples


def _warm(task: Task, wait: Callable[[], Any]) -> float:
    times = [duration(once(task, wait))]
    while len(times) < 4 and times[-1] < FAST:
        times.append(duration(once(task, wait)))
    return min(times)


def _passes(estimate: float) -> int:
    return min(MOST_IN_TURN, max(1, int(TURN / max(estimate, 1e-9))))


def _enough(samples: Samples, used: float, effort: Effort) -> bool:
    return samples.passes >= effort.most or (samples.passes >= effort.least and used >= effort.seconds)


@contextlib.contextmanager
def quiet_collector() -> Iterator[Callable[[], None]]:
    """Keep Python's garbage collector out of the timed passes; yields what collects between turns."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()  # what exists now is not looked at again, so that a collection is short
    gc.disable()
    try:
        yield lambda: None if gc.get_count()[0] < 2000 else _collect()
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def _collect() -> None:
    gc.collect()
