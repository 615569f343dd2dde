"""What a training loop tells those who watch it: records, the outcome, the callback protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from ntangent._base.errors import ArgumentError
from ntangent._base.protocols import Objective

# Numbers of a monitor have this before their names in ``Record.info``.
MONITOR = "monitor/"


class Record(NamedTuple):
    """One iteration.

    Args:
        step: iterations done since the run began, over all stages (the first one is 1).
        stage: index of the stage, from 0.
        name: its class name.
        iteration: iterations done in this stage.
        loss: loss after the iteration.
        info: the numbers the stage reports.
        values: the caller's numbers (unknown parameters); empty where nothing was recorded.
        seconds: time used since the run began, resumed runs included.
        theta: the parameters, shape (P,), for callbacks; None in a history.
    """

    step: int
    stage: int
    name: str
    iteration: int
    loss: float
    info: dict[str, float]
    values: dict[str, float]
    seconds: float
    theta: Tensor | None = None


class StageRecord(NamedTuple):
    """The end of a stage: what it reached and why it ended."""

    step: int
    stage: int
    name: str
    iterations: int
    loss: float
    reason: str
    seconds: float


class EndRecord(NamedTuple):
    """The end of a training; ``stopped`` is None when every stage was finished."""

    step: int
    loss: float
    seconds: float
    stopped: str | None


@dataclass(frozen=True)
class Outcome:
    """What a training reached.

    Args:
        theta: parameters, shape (P,).
        loss: loss at ``theta``.
        history: the recorded iterations, those before a resume included.
        reasons: why each finished stage ended.
        seconds: time used, resumed runs included.
        stopped: why the training ended before its last stage did; None when it did not.
        warnings: what a resume had to do without (damaged checkpoints).
        objective: what the last stage minimised, to which ``theta`` belongs: a stage may change it.
    """

    theta: Tensor
    loss: float
    history: list[Record]
    reasons: tuple[str, ...]
    seconds: float
    stopped: str | None = None
    warnings: tuple[str, ...] = ()
    objective: Objective | None = None


@runtime_checkable
class Callback(Protocol):
    """Watches a training.

    A callback that changes what the objective computes must put its state into the caller's
    ``extra``; every call below happens before the checkpoint of the same iteration.
    """

    def on_step(self, record: Record) -> str | None:
        """Note an iteration; return a reason to end the training here, or None."""
        ...

    def on_stage(self, record: StageRecord) -> None:
        """Note the end of a stage."""
        ...

    def on_end(self, outcome: Outcome) -> None:
        """Note the end; called once, also when an exception ends the training."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """A callback with something to remember: the checkpoint keeps it."""

    def state_dict(self) -> dict[str, Any]:
        """Return what it remembers, as tensors and plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` returned, before the first iteration of a resumed run."""
        ...


def check_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    """Return callbacks as a tuple.

    Raises:
        ArgumentError: unless it is a sequence of callbacks.
    """
    fix = "callbacks=[run.EarlyStopping(patience=500)]"
    if not isinstance(callbacks, Sequence):
        raise ArgumentError(f"callbacks is {callbacks!r}", "it lists callbacks", fix)
    for callback in callbacks:
        if isinstance(callback, type) or not isinstance(callback, Callback):
            raise ArgumentError(
                f"{callback!r} is no callback", "it has the methods on_step, on_stage and on_end", fix
            )
    return tuple(callbacks)
