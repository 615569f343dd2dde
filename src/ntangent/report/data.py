"""What a report knows: the files of a run, read once, and the facts that follow from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ntangent.run import Metrics, RunFolder, read_metrics
from ntangent.run.files import number

_GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eps": "ε", "kappa": "κ",
    "lam": "λ", "lambda_": "λ", "lmbda": "λ", "mu": "μ", "nu": "ν", "omega": "ω", "rho": "ρ", "sigma": "σ",
    "tau": "τ", "theta": "θ",
}  # fmt: skip


def symbol(name: str) -> str:
    """Return the Greek letter that a name spells, or the name."""
    return _GREEK.get(name, name)


@dataclass(frozen=True)
class StageRow:
    """A stage as planned and, if it was reached, as it went.

    Args:
        name: class name of the optimiser.
        settings: its repr.
        start, end: iterations done before and after it, over the whole run; ``end`` is the last
            recorded one for the stage under way. Both are None for a stage not reached.
        loss: loss at its end, or the last recorded one.
        reason: why it stopped.
        seconds: time it used; None where it was not reached.
    """

    name: str
    settings: str
    start: int | None
    end: int | None
    loss: float | None
    reason: str
    seconds: float | None


@dataclass(frozen=True)
class RunData:
    """The files of a run.

    Args:
        path: the folder.
        config: configuration.
        metrics: records of the training.
        result: final numbers; None while the run is unfinished.
        arrays: the solution on a grid; None while the run is unfinished.
        final: what was measured at the end for a diagnosis; None where it was not.
    """

    path: Path
    config: dict[str, Any]
    metrics: Metrics
    result: dict[str, Any] | None
    arrays: dict[str, np.ndarray[Any, Any]] | None
    final: dict[str, Any] | None = None

    @classmethod
    def read(cls, path: str | Path) -> RunData:
        """Read a run folder.

        Raises:
            RunFolderError: there is no run in it, or one of its files is damaged.
        """
        folder = RunFolder.open(path)
        return cls(
            folder.path,
            folder.config,
            read_metrics(folder.metrics_path),
            _numbers(folder.read_result()),
            folder.read_evaluation(),
            _numbers(folder.read_final()),
        )

    @property
    def name(self) -> str:
        """What was solved."""
        return str(self.config.get("problem", "run"))

    @property
    def title(self) -> str:
        """What was solved, without the directories of a user's file."""
        return Path(self.name).name

    @property
    def options(self) -> dict[str, Any]:
        """Options of the problem; those without a value are left out."""
        options = self.config.get("options", {})
        return {name: value for name, value in options.items() if name != "type" and value is not None}

    @property
    def expected(self) -> dict[str, float]:
        """True values of the unknowns, where known."""
        found = (self.result or {}).get("expected") or self._statement("expected", {})
        return {name: float(number(value)) for name, value in found.items()}

    @property
    def unknowns(self) -> dict[str, float]:
        """Final or last recorded values of the unknowns."""
        if self.result is not None:
            return dict(self.result.get("unknowns", {}))
        return dict(self.metrics.steps[-1].values) if self.metrics.steps else {}

    @property
    def coordinate(self) -> str:
        """Name of the coordinate."""
        intervals = (self._statement("domain", {}) or {}).get("intervals") or [["x"]]
        return str((self.result or {}).get("coordinate") or intervals[0][0])

    @property
    def field(self) -> str:
        """Name of the field: a capital one over a capital (similarity) coordinate."""
        return "U" if self.coordinate.isupper() else "u"

    @property
    def iterations(self) -> int:
        """Iterations recorded."""
        return self.metrics.steps[-1].step if self.metrics.steps else 0

    @property
    def loss(self) -> float | None:
        """The final or last recorded loss."""
        if self.result is not None and "loss" in self.result:
            return float(self.result["loss"])
        return self.metrics.steps[-1].loss if self.metrics.steps else None

    @property
    def seconds(self) -> float:
        """Time used, as far as it is known."""
        if self.result is not None and "seconds" in self.result:
            return float(self.result["seconds"])
        records: Iterable[Any] = [*self.metrics.steps[-1:], *([self.metrics.end] if self.metrics.end else [])]
        return max((float(record.seconds) for record in records), default=0.0)

    @property
    def trouble(self) -> str | None:
        """Why the run is unfinished or incomplete; None for one that ended in the ordinary way."""
        end = self.metrics.end
        if end is not None and end.stopped:
            return f"training stopped before its end: {end.stopped}"
        if self.result is not None:
            return None
        if end is not None:
            return "training ended, but its final evaluation is missing"
        return "the run was killed, or is still going on"

    def stages(self) -> list[StageRow]:
        """Return all stages, those not reached included."""
        settings = [str(text) for text in self.config.get("stages", [])]
        rows = []
        start, before = 0, 0.0
        for index, text in enumerate(settings):
            name = text.partition("(")[0]
            done = next((s for s in self.metrics.stages if s.stage == index), None)
            last = next((s for s in reversed(self.metrics.steps) if s.stage == index), None)
            if done is not None:
                took = done.seconds - before
                rows.append(StageRow(name, text, start, done.step, done.loss, done.reason, took))
                start, before = done.step, done.seconds
            elif last is not None:
                took = last.seconds - before
                rows.append(StageRow(name, text, start, last.step, last.loss, "not finished", took))
            else:
                rows.append(StageRow(name, text, None, None, None, "not reached", None))
        return rows

    def _statement(self, key: str, default: Any) -> Any:
        statement = self.config.get("statement")
        return statement.get(key, default) if isinstance(statement, dict) else default


def _numbers(value: Any) -> Any:
    """Undo the spelling of non-finite numbers in a JSON document."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return number(value)
