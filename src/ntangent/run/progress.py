"""Progress on standard error: one live line in a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, TextIO

from ntangent._base.protocols import Stage
from ntangent.run.callbacks import Outcome, Record, StageRecord

_LIVE_EVERY = 0.2
_PACE_EVERY = 0.25
_TERM = "loss "
_PACE_SAMPLES = 40  # the pace is that of the last ten seconds


class Progress:
    """A callback that shows stage, iteration, loss, unknown parameters and the time left.

    Terms of the loss are shown where ``train(measure=)`` returns them, as "loss" and their name. The
    time left is that of the running stage at most: how fast later stages are is not known.

    Args:
        stages: the stages of the training, for their number and budgets.
        quiet: show nothing.
        every: seconds between two lines where the stream is no terminal.
        stream: where to write; standard error when None.

    Cost: about 0.3 microseconds an iteration, and a line now and then.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        quiet: bool = False,
        every: float = 5.0,
        stream: TextIO | None = None,
    ) -> None:
        self._budgets = [stage.iterations for stage in stages]
        self._quiet = quiet
        self._stream = sys.stderr if stream is None else stream
        self._terminal = not quiet and self._stream.isatty()
        self._live: Any = None
        self._every = _LIVE_EVERY if self._terminal else every
        self._shown = time.monotonic()
        self._pace: deque[tuple[float, int]] = deque(maxlen=_PACE_SAMPLES)
        self._values: dict[str, float] = {}
        self._terms: dict[str, float] = {}

    def on_step(self, record: Record) -> str | None:
        """Show an iteration, if the last one shown is long enough ago."""
        if self._quiet:
            return None
        if self._terminal and self._live is None:  # not earlier: whoever starts it must reach on_end
            self._live = _start_live(self._stream)
            self._terminal = self._live is not None
        now = time.monotonic()
        if record.values:
            self._values = record.values
        if terms := {n[len(_TERM) :]: v for n, v in record.info.items() if n.startswith(_TERM)}:
            self._terms = terms
        if not self._pace or now - self._pace[-1][0] >= _PACE_EVERY:
            self._pace.append((now, record.iteration))
        if now - self._shown >= self._every:
            self._shown = now
            self._show(self.line(record))
        return None

    def on_stage(self, record: StageRecord) -> None:
        """Show how a stage ended."""
        self._pace.clear()
        if not self._quiet:
            self._keep(
                f"stage {record.stage + 1}/{len(self._budgets)} {record.name}: loss {record.loss:.3e} "
                f"after {record.iterations} iterations ({record.reason})"
            )

    def on_end(self, outcome: Outcome) -> None:
        """Close the live line and say how the training ended."""
        if self._quiet:
            return
        if self._live is not None:
            self._live.update("", refresh=True)
            self._live.stop()
            self._live, self._terminal = None, False
        for text in outcome.warnings:
            self._keep(f"warning: {text}")
        how = "done" if outcome.stopped is None else f"stopped: {outcome.stopped}"
        self._keep(f"{how}; loss {outcome.loss:.3e}, {_duration(outcome.seconds)} used")

    def line(self, record: Record) -> str:
        """Return the line of an iteration."""
        budget = self._budgets[record.stage]
        parts = [
            f"stage {record.stage + 1}/{len(self._budgets)} {record.name}",
            f"iteration {record.iteration}/{budget}",
            f"loss {record.loss:.3e}",
            *(f"{name} {value:.6g}" for name, value in self._values.items()),
            *(f"{name} {value:.1e}" for name, value in self._terms.items()),
        ]
        if len(self._pace) > 1:
            (start, first), (end, last) = self._pace[0], self._pace[-1]
            if end > start and last > first:
                left = (budget - record.iteration) * (end - start) / (last - first)
                parts.append(f"{_duration(left)} left in this stage")
        return "  ".join(parts)

    def _show(self, line: str) -> None:
        if self._live is None:
            self._keep(line)
        else:
            self._live.update(_text(line), refresh=True)

    def _keep(self, line: str) -> None:
        if self._live is None:
            print(line, file=self._stream, flush=True)
        else:
            self._live.console.print(_text(line))


def _start_live(stream: TextIO) -> Any:
    """Return a started live display, or None where rich is not installed."""
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        return None
    live = Live(
        console=Console(file=stream), auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    )
    live.start()
    return live


def _text(line: str) -> Any:
    from rich.text import Text

    # Text, because a name in brackets is no markup.
    return Text(line, no_wrap=True, overflow="ellipsis")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
