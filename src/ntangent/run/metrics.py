"""metrics.jsonl: one JSON object a line, appended while the run goes on."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from ntangent._base.errors import CheckpointError, RunFolderError
from ntangent.run.callbacks import EndRecord, Record, StageRecord
from ntangent.run.files import jsonable, number

locks: Any
try:
    import fcntl as locks
except ImportError:  # no such locks on this system
    locks = None

# repr of a float reads back to the same bits; NaN is refused here and spelt out below.
_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
_KINDS = {Record: "step", StageRecord: "stage", EndRecord: "end"}


class Metrics(NamedTuple):
    """The content of a metrics file; ``end`` is None while the run goes on, or if it was killed."""

    steps: list[Record]
    stages: list[StageRecord]
    end: EndRecord | None


def encode(record: Record | StageRecord | EndRecord) -> bytes:
    """Return the line of a record, without ``theta``.

    Cost: about 5 microseconds.
    """
    line: dict[str, Any] = {"kind": _KINDS[type(record)]}
    line.update(zip(record._fields, record, strict=True))
    line.pop("theta", None)
    try:
        text = _encode(line)
    except (ValueError, TypeError):
        text = _encode(jsonable(line, "record"))
    return (text + "\n").encode()


class MetricsWriter:
    """Appends records to a file; holds a lock on it, so that one process at a time trains there.

    Lines are buffered and handed to the system about once a second: a kill loses at most those,
    and a resume drops everything after the checkpoint anyway.

    Args:
        path: the file; made when it is missing.
        size: bytes to keep; the rest is cut off.

    Raises:
        RunFolderError: another process writes to the file.
        CheckpointError: the file is shorter than ``size`` or was changed.
    """

    def __init__(self, path: Path, size: int = 0, interval: float = 1.0) -> None:
        self._interval = interval
        self._buffer: list[bytes] = []
        self._file = path.open("a+b", buffering=0)
        try:
            self._lock(path)
            self._cut(path, size)
        except BaseException:
            self._file.close()
            raise
        self.size = size
        self._flushed = time.perf_counter()

    def _lock(self, path: Path) -> None:
        if locks is None:
            return
        try:
            locks.flock(self._file, locks.LOCK_EX | locks.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(
                f"another process is training in {path.parent}",
                "two processes would mix their records and checkpoints",
                "wait for it or stop it, or choose another --run-dir",
            ) from None
        except OSError:  # a file system without locks
            pass

    def _cut(self, path: Path, size: int) -> None:
        present = self._file.seek(0, os.SEEK_END)
        if size:
            self._file.seek(size - 1)
        if present < size or (size and self._file.read(1) != b"\n"):
            raise CheckpointError(
                f"{path} does not fit its checkpoint: the checkpoint knew {size} bytes of whole lines",
                f"the file, now of {present} bytes, was changed since",
                "start again with --overwrite, or choose another --run-dir",
            )
        self._file.truncate(size)

    def write(self, record: Record | StageRecord | EndRecord) -> None:
        """Append a record.

        Cost: about 6 microseconds, and a write of the file once an interval.
        """
        line = encode(record)
        self._buffer.append(line)
        self.size += len(line)
        if time.perf_counter() - self._flushed >= self._interval:
            self.flush()

    def flush(self) -> None:
        """Hand the buffered lines to the system: they survive the death of this process."""
        if self._buffer:
            data = memoryview(b"".join(self._buffer))
            while data:
                data = data[self._file.write(data) :]
            self._buffer.clear()
        self._flushed = time.perf_counter()

    def sync(self) -> None:
        """Flush to the disk: the lines survive a loss of power. Takes milliseconds."""
        self.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush, and give up the file and the lock."""
        if not self._file.closed:
            try:
                self.flush()
            finally:
                self._file.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path, size: int | None = None) -> Metrics:
    """Read a metrics file, also while it is being written.

    A last line without its end is dropped: the process was killed while writing it. A missing
    file has no records.

    Args:
        path: the file.
        size: read only so many bytes.

    Raises:
        RunFolderError: another line than the last is damaged; the message gives its number.

    Cost: about 10 microseconds a line.
    """
    metrics = Metrics([], [], None)
    if not path.exists():
        return metrics
    with path.open("rb") as file:
        data = file.read() if size is None else file.read(size)
    for index, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            record = _decode(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RunFolderError(
                f"line {index} of {path} is not a record",
                "only the last line can be cut off by a kill; the file was edited or the disk failed",
                f"delete line {index}, or start again with --overwrite",
            ) from None
        if isinstance(record, Record):
            metrics.steps.append(record)
        elif isinstance(record, StageRecord):
            metrics.stages.append(record)
        else:
            metrics = metrics._replace(end=record)
    return metrics


def _decode(line: dict[str, Any]) -> Record | StageRecord | EndRecord:
    kind = line.pop("kind")
    line["loss"] = number(line["loss"])
    if kind == "step":
        for name in ("info", "values"):
            line[name] = {key: number(value) for key, value in line[name].items()}
        return Record(**line)
    return StageRecord(**line) if kind == "stage" else EndRecord(**line)
