"""Measures cell after cell, and says what it left out and why."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from ntangent._base import machine
from ntangent._base.errors import BackendError
from ntangent.bench.cells import Cell, Series
from ntangent.bench.check import Judge, judge_of
from ntangent.bench.contenders import BACKWARD, FORWARD, Contender, Work
from ntangent.bench.forecast import Cost, Forecast, cost_of, memory_of
from ntangent.bench.memory import peak_memory
from ntangent.bench.timing import TOTAL, Effort, measure, nothing
from ntangent.jet.backends import library

TIMED, SKIPPED, UNAVAILABLE, FAILED = "timed", "skipped", "unavailable", "failed"
MEMORY_SHARE = 0.5  # of what is available, that one pass may be predicted to take

Result = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Args:
        effort: how long to measure each contender on a cell.
        limit: the longest pass worth waiting for, in seconds.
        seed: of networks, points, and the order of the turns.
    """

    effort: Effort = field(default_factory=Effort)
    limit: float = 10.0
    seed: int = 42


def about_here() -> dict[str, Any]:
    """Return what must be known to read the numbers: machine, versions, threads, date."""
    versions = {name: _version(name) for name in ("ntangent", "torch", "numpy")}
    kernels = library.library().isa_name if library.available() else f"none: {library.reason()}"
    return {
        "processor": machine.processor(),
        "cores": machine.cores(),
        "available_memory": machine.available_memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "native_kernels": kernels,
        "threads": torch.get_num_threads(),
        "load_at_start": machine.load(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


class Sweep:
    """Measures contenders on cells; keeps what it learned about the cost of each.

    Args:
        contenders: what is timed against each other.
        settings: how.
    """

    def __init__(self, contenders: Sequence[Contender], settings: Settings) -> None:
        self.contenders = {contender.name: contender for contender in contenders}
        self.settings = settings
        self.forecasts: dict[tuple[Series, str], Forecast] = {}
        self._reasons: dict[tuple[str, str], str] = {}

    def run(self, cells: Iterable[Cell], done: Callable[[Cell], bool] = lambda _: False) -> Iterator[Result]:
        """Yield the result of each cell, lower orders first, except of those already ``done``."""
        for cell in sorted(cells, key=lambda cell: (cell.series, cell.order)):
            if not done(cell):
                yield self.cell(cell)

    def cell(self, cell: Cell) -> Result:
        """Return the result of one cell: for each contender its times, or why there are none."""
        start = time.perf_counter()
        records: dict[str, dict[str, Any]] = {}
        works: dict[str, Work] = {}
        judge = Judge(cell, self.settings.seed, lambda name: self._judge_is_affordable(cell, name))
        for name, contender in self.contenders.items():
            try:
                records[name] = self._prepare(cell, contender, works, judge)
            except (BackendError, RuntimeError, MemoryError) as error:
                records[name] = _record(FAILED, str(error).partition("\n")[0])
                works.pop(name, None)
        for name in judge.outcomes.keys() & works.keys():
            verdict = judge.verdict(name)
            records[name]["check"] = None if verdict is None else verdict.as_dict()
        self._time(cell, works, records)
        return {
            "cell": cell.as_dict(),
            "seconds": round(time.perf_counter() - start, 3),
            "load": machine.load(),
            "contenders": records,
        }

    def _prepare(
        self, cell: Cell, contender: Contender, works: dict[str, Work], judge: Judge
    ) -> dict[str, Any]:
        name = contender.name
        reason = self._reason(contender, cell.device)
        if reason:
            return _record(UNAVAILABLE, reason)
        too_much = self._refuse(cell, contender)
        if too_much is not None:
            record = _record(SKIPPED, too_much.excess(self._limit()))
            return {**record, "predicted": asdict(too_much)}
        works[name] = contender.build(cell, self.settings.seed)
        outcome = works[name].outcome
        if outcome is not None:
            judge.outcomes[name], memory = memory_of(outcome)
            self._forecast(cell, name).memory[cell.order] = memory
        return _record(TIMED)

    def _time(self, cell: Cell, works: dict[str, Work], records: dict[str, dict[str, Any]]) -> None:
        wait = waiting(cell.device)
        owners = {task.name: name for name, work in works.items() for task in work.tasks(name)}
        tasks = [task for name, work in works.items() for task in work.tasks(name)]
        for task_name, samples in measure(tasks, self.settings.effort, self.settings.seed, wait).items():
            record = records[owners[task_name]]
            record["times"] = {**record.get("times", {}), **samples.summary()}
            record["passes"] = max(samples.passes, record.get("passes", 0))
        for name in works:
            times = records[name]["times"]
            # The shortest pass: a forecast from what a busy machine did now and then would refuse too much.
            least = {label: clocks["wall"]["least"] for label, clocks in times.items()}
            forecast = self._forecast(cell, name)
            total, seen = least.get(TOTAL, least.get(FORWARD, 0.0)), forecast.memory.get(cell.order, 0)
            forecast.known[cell.order] = Cost(total, least.get(FORWARD, total), seen)

    def memory(self, cell: Cell, name: str) -> dict[str, Any]:
        """Return the peak memory of a contender on a cell, or why there is none."""
        entry: dict[str, Any] = {"cell": cell.as_dict(), "contender": name, "bytes": None, "reason": ""}
        try:
            found = peak_memory(cell, name, self.settings.seed, torch.get_num_threads())
        except BackendError as error:
            return {**entry, "reason": error.what}
        return {**entry, "bytes": found}

    # --- what is affordable ------------------------------------------------------------------------

    def _forecast(self, cell: Cell, name: str) -> Forecast:
        return self.forecasts.setdefault((cell.series, name), Forecast())

    def _limit(self) -> Cost:
        available = machine.available_memory()
        memory = int(MEMORY_SHARE * available) if available else 2**62
        return Cost(self.settings.limit, memory=memory)

    def _refuse(self, cell: Cell, contender: Contender) -> Cost | None:
        def probe(order: int) -> Cost:
            work = contender.build(replace(cell, order=order), self.settings.seed)
            return cost_of(work, waiting(cell.device))

        return self._forecast(cell, contender.name).refuse(cell.order, self._limit(), probe)

    def _judge_is_affordable(self, cell: Cell, name: str) -> bool:
        """Whether one pass of a judge is within the limit; one that takes no part is assumed to be."""
        forecast = self.forecasts.get((cell.series, name))
        found = forecast.predict(cell.order) if forecast is not None else None
        return found is None or found.within(self._limit())

    def _reason(self, contender: Contender, device: str) -> str:
        key = (contender.name, device)
        if key not in self._reasons:
            self._reasons[key] = contender.reason_against(device)
        return self._reasons[key]


def waiting(device: str) -> Callable[[], Any]:
    """Return what waits until a device has done all it was told to do."""
    if device == "cpu":
        return nothing
    accelerator = getattr(torch, device.partition(":")[0])
    found: Callable[[], Any] = accelerator.synchronize
    return found


def _record(status: str, reason: str = "") -> dict[str, Any]:
    return {"status": status, "reason": reason}


def wrong(results: Iterable[Result]) -> list[str]:
    """Return where a check failed: cell, contender, error."""
    found = []
    for result in results:
        cell = Cell(**result["cell"])
        for name, record in result["contenders"].items():
            check = record.get("check")
            if check and not check["right"]:
                distance = f"{check['error']:.1e} from {check['against']} (allowed {check['allowed']:.1e})"
                found.append(f"{name}, order {cell.order}, {cell.series}: {distance}")
    return found


def median(record: dict[str, Any], label: str, clock: str = "wall") -> float | None:
    """Return the median time of a record in seconds; None where it was not timed."""
    found = record.get("times", {}).get(label)
    return None if found is None else float(found[clock]["median"])


__all__ = ["BACKWARD", "FORWARD", "TOTAL", "Settings", "Sweep", "about_here", "judge_of", "median", "wrong"]
