"""Callbacks that stop a run: as a kill does, or in good order."""

from __future__ import annotations

from typing import Any


class _Quiet:
    def on_stage(self, _record: Any) -> None:
        pass

    def on_end(self, _outcome: Any) -> None:
        pass


class Interrupt(_Quiet):
    """Interrupts a run after so many steps, those of all windows counted."""

    def __init__(self, after: int) -> None:
        self.left = after

    def on_step(self, _record: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


class Enough(_Quiet):
    """Ends the training when so many steps of it are done."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_step(self, record: Any) -> str | None:
        return "enough" if record.step >= self.after else None
