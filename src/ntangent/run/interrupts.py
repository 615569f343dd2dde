"""Ctrl-C and SIGTERM end a training between two iterations, where its state is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """While entered, notes the first SIGINT or SIGTERM; ``leave_if_pending`` acts on it.

    A second signal acts at once. Elsewhere than in the main thread Python allows no handlers:
    there, and where the signals are ignored, nothing changes.
    """

    def __init__(self, active: bool = True) -> None:
        self.pending: int | None = None
        self._active = active
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if self._active and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                previous = signal.getsignal(number)
                if previous not in (None, signal.SIG_IGN):
                    self._previous[number] = previous
                    signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        if kind is None:
            self.leave_if_pending()  # it came after the last iteration

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.pending is not None:
            self._leave(number, frame)
        self.pending = number

    def leave_if_pending(self) -> None:
        """Raise KeyboardInterrupt or SystemExit if a signal came.

        Raises:
            KeyboardInterrupt: after SIGINT.
            SystemExit: after SIGTERM, with the status 143 that shells expect.
        """
        if self.pending is not None:
            self._leave(self.pending, None)

    def _leave(self, number: int, frame: FrameType | None) -> None:
        previous = self._previous[number]
        if callable(previous):
            previous(number, frame)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)
