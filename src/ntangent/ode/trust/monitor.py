"""Watching a training: the gradient is checked every so many iterations."""

from __future__ import annotations

import logging
from collections.abc import Callable

from torch import Tensor

from ntangent._base.check import check_positive
from ntangent.ode.trust.check import TrustReport
from ntangent.run import Outcome, Record, StageRecord

_log = logging.getLogger("ntangent.ode")


class TrustMonitor:
    """A callback for ``run.train`` and ``ode.fit`` that checks the gradient as the parameters move.

    Args:
        check: returns the report for a parameter vector θ, e.g. a fit objective's ``trust``.
        every: iterations between two checks.
        stop: whether an alarm ends the training; else it is logged.
    """

    def __init__(
        self, check: Callable[[Tensor], TrustReport], *, every: int = 50, stop: bool = False
    ) -> None:
        self.check, self.every, self.stop = check, check_positive(every, "every", integer=True), stop
        self.reports: list[tuple[int, TrustReport]] = []

    def on_step(self, record: Record) -> str | None:
        """Check every so many iterations; return the alarms as the reason to end, if asked for."""
        if record.step % self.every != 0 or record.theta is None:
            return None
        report = self.check(record.theta)
        self.reports.append((record.step, report))
        if report.ok:
            return None
        text = "; ".join(str(alarm) for alarm in report.alarms)
        _log.warning("step %d: the gradient is not to be trusted: %s", record.step, text)
        return f"the gradient is not to be trusted: {text}" if self.stop else None

    def on_stage(self, record: StageRecord) -> None:
        """Do nothing."""

    def on_end(self, outcome: Outcome) -> None:
        """Do nothing."""
