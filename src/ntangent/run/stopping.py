"""End a training early: when it is good enough, or no longer gets better."""

from __future__ import annotations

import math
from typing import Any

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError, UnknownNameError
from ntangent._base.registry import nearest_names
from ntangent.run.callbacks import Outcome, Record, StageRecord


class EarlyStopping:
    """A callback that ends the training at a target, or after iterations without improvement.

    All stages that are left are skipped. What it has counted is part of the checkpoint, so a resumed
    run stops where one that was never killed does; a run resumed after such a stop is given the
    whole patience once more.

    Args:
        patience: iterations without improvement after which the training ends; None waits for ever.
        improvement: relative decrease that counts: a new best is below best · (1 - improvement).
        target: the training ends when the watched number is not above it; None has no target.
        watch: "loss", or any number of the metrics, such as a held-out residual. One that is
            recorded in some iterations only is looked at there.

    Raises:
        ArgumentError: if it could never stop, or a number is out of range.
        UnknownNameError: after 100 iterations in which nothing of that name was recorded.
    """

    def __init__(
        self,
        patience: int | None = None,
        *,
        improvement: float = 1e-3,
        target: float | None = None,
        watch: str = "loss",
    ) -> None:
        if patience is None and target is None:
            raise ArgumentError(
                "EarlyStopping has neither patience nor target", "it could never stop", "patience=500"
            )
        if patience is not None:
            check_positive(patience, "patience", integer=True)
        if target is not None:
            check_positive(target, "target")
        if isinstance(improvement, bool) or not 0 <= improvement < 1:
            raise ArgumentError(
                f"improvement must lie in [0, 1), got {improvement!r}", "it is relative", "improvement=1e-3"
            )
        self.patience, self.improvement, self.target, self.watch = patience, improvement, target, watch
        self._best, self._since = math.inf, 0

    def __repr__(self) -> str:
        return (
            f"EarlyStopping({self.patience!r}, improvement={self.improvement!r}, "
            f"target={self.target!r}, watch={self.watch!r})"
        )

    def on_step(self, record: Record) -> str | None:
        """Look at an iteration; return the reason to stop, or None."""
        value = self._value(record)
        if value is None:
            self._since += 1
            return None
        if self.target is not None and value <= self.target:
            return f"{self.watch} {value:.3e} reached the target {self.target:g}"
        if value < self._best * (1 - self.improvement) or self._best == math.inf:
            self._best, self._since = value, 0
            return None
        self._since += 1
        if self.patience is None or self._since < self.patience:
            return None
        waited, self._since = self._since, 0
        return f"{self.watch} has not fallen below {self._best:.3e} for {waited} iterations"

    def _value(self, record: Record) -> float | None:
        if self.watch == "loss":
            return record.loss
        known = {**record.info, **record.values}
        if self.watch in known:
            return known[self.watch]
        if (record.info or record.values) and self._best == math.inf and self._since >= 99:
            raise UnknownNameError(
                f"nothing called {self.watch!r} is recorded",
                "only what is in the metrics can be watched",
                nearest_names(self.watch, ["loss", *known]),
            )
        return None

    def on_stage(self, record: StageRecord) -> None:
        """Do nothing: a new stage goes on from the old best."""

    def on_end(self, outcome: Outcome) -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return what it has counted."""
        return {"best": self._best, "since": self._since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self._best, self._since = float(state["best"]), int(state["since"])
