"""Metrics for TensorBoard, which comes with the extra of that name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ntangent._base.check import check_positive
from ntangent._base.extras import require_extra
from ntangent.run.callbacks import MONITOR, Outcome, Record, StageRecord


class TensorBoard:
    """A callback that writes loss, the stage's numbers and the recorded values as scalars.

    A resumed run may write into the same folder: what a killed run wrote beyond its last checkpoint
    is then hidden.

    Args:
        folder: where the event files go; ``tensorboard --logdir`` takes it.
        every: iterations between two points; the readings of a monitor are all written.

    Raises:
        MissingExtraError: if the package tensorboard is not installed.

    Cost: about 0.1 ms for each point.
    """

    def __init__(self, folder: str | Path, every: int = 10) -> None:
        check_positive(every, "every", integer=True)
        require_extra("tensorboard", "the callback TensorBoard")
        self.folder, self.every = Path(folder), every
        self._writer: Any = None

    def on_step(self, record: Record) -> None:
        """Write an iteration, if it is its turn."""
        read = any(name.startswith(MONITOR) for name in record.info)
        if record.step % self.every and record.iteration != 1 and not read:
            return
        writer = self._open(record.step)
        writer.add_scalar("loss", record.loss, record.step, record.seconds)
        for group, numbers in ((record.name, record.info), ("values", record.values)):
            for name, value in numbers.items():
                tag = name if name.startswith(MONITOR) else f"{group}/{name}"
                writer.add_scalar(tag, value, record.step, record.seconds)

    def _open(self, step: int) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=step)
        return self._writer

    def on_stage(self, record: StageRecord) -> None:
        """Write why a stage ended."""
        self._open(record.step).add_text(
            f"stage {record.stage + 1} {record.name}", record.reason, record.step
        )

    def on_end(self, outcome: Outcome) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.add_text("end", outcome.stopped or "done")
            self._writer.close()
            self._writer = None
