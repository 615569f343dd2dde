"""Checkpoints: written whole or not at all, checked when read, the newest two kept."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntangent._base.errors import CheckpointError, DtypeError
from ntangent._base.protocols import State
from ntangent.run.files import is_temporary, write_atomically

_MAGIC = b"ntangent-checkpoint/1"
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """All that a resume needs, as tensors and plain values.

    Args:
        state: state of the running stage, or the last state of a finished one (without memory).
        stage: index of that stage.
        finished: whether the stage is finished.
        stage_names: class names of all stages.
        iterations: iterations of each finished stage.
        reasons: why each finished stage ended.
        metrics_bytes: size of the metrics file when the checkpoint was written.
        seconds: time used so far.
        config_hash: hash of the run's configuration.
        extra: what the caller adds (unknowns, states of generators and samplers, ...).
        callbacks: class name and memory of each callback that has one.
        entries: θ at the beginning of each stage that has changed the objective so far.
    """

    state: State
    stage: int
    finished: bool
    stage_names: list[str]
    iterations: list[int]
    reasons: list[str]
    metrics_bytes: int
    seconds: float
    config_hash: str
    extra: dict[str, Any] = field(default_factory=dict)
    callbacks: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    entries: list[Tensor] = field(default_factory=list)

    @property
    def step(self) -> int:
        """Iterations done since the run began."""
        return sum(self.iterations) + (0 if self.finished else self.state.iteration)


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that was read, and what was wrong with the newer ones."""

    checkpoint: Checkpoint
    path: Path
    warnings: tuple[str, ...] = ()
    damaged: tuple[Path, ...] = ()


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint, then delete all but the newest two; return its path.

    A kill at any instant leaves the previous checkpoint or the new one, never a part of one.

    Raises:
        DtypeError: the state or the extra holds something else than tensors and plain values.

    Cost: twice the size of the tensors in memory, a SHA-256, two fsync.
    """
    content: dict[str, Any] = {item.name: getattr(checkpoint, item.name) for item in fields(checkpoint)}
    content["state"] = {item.name: getattr(checkpoint.state, item.name) for item in fields(State)}
    buffer = io.BytesIO()
    torch.save(_plain(content, "checkpoint"), buffer)
    payload = buffer.getbuffer()
    header = b"%s %s %d\n" % (_MAGIC, hashlib.sha256(payload).hexdigest().encode(), len(payload))
    path = directory / f"checkpoint-{checkpoint.step:09d}.ckpt"
    write_atomically(path, header + payload)
    for old in list_checkpoints(directory)[KEEP:]:
        old.unlink(missing_ok=True)
    return path


def list_checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints of a run, newest first."""
    return sorted(directory.glob("checkpoint-*.ckpt"), key=_step_of, reverse=True)


def load_checkpoint(directory: Path, map_location: str | None = None) -> Loaded | None:
    """Read the newest good checkpoint, or return None when none was ever written.

    Args:
        directory: where the checkpoints are.
        map_location: device of the tensors; None is where they were when they were saved.

    Raises:
        CheckpointError: there are checkpoints and none is good.
    """
    problems: list[str] = []
    damaged: list[Path] = []
    for path in list_checkpoints(directory):
        try:
            problem, payload = _check(path.read_bytes())
        except FileNotFoundError:  # the run goes on and has deleted it
            continue
        if problem is None:
            warnings = tuple(f"{text}; the checkpoint before it is used" for text in problems)
            return Loaded(_unpack(path, payload, map_location), path, warnings, tuple(damaged))
        problems.append(f"{path} is {problem}")
        damaged.append(path)
    if not damaged:
        return None
    raise CheckpointError(
        "no checkpoint is good: " + "; ".join(problems),
        "their content does not have the length and the checksum written with it",
        "start again with --overwrite, or choose another --run-dir",
    )


def set_aside(damaged: tuple[Path, ...]) -> None:
    """Rename damaged checkpoints, so that they do not count among the newest two."""
    for path in damaged:
        path.replace(path.with_name(path.name + ".damaged"))


def clean(directory: Path) -> None:
    """Delete what a killed write left behind."""
    for entry in list(directory.iterdir()):
        if is_temporary(entry):
            entry.unlink(missing_ok=True)


def _step_of(path: Path) -> tuple[int, str]:
    digits = path.stem.removeprefix("checkpoint-")
    return (int(digits) if digits.isdecimal() else -1, path.name)


def _check(data: bytes) -> tuple[str | None, memoryview]:
    """Return what is wrong with the bytes of a file (None when nothing is), and its payload."""
    end = data.find(b"\n")
    payload = memoryview(data)[end + 1 :]
    words = data[: max(end, 0)].split(b" ")
    if len(words) != 3 or words[0] != _MAGIC or not words[2].isdigit():
        return "not a checkpoint of this version, or damaged at its start", payload
    if len(payload) != int(words[2]):
        return f"cut off: {len(payload)} bytes of {int(words[2])}", payload
    if hashlib.sha256(payload).hexdigest().encode() != words[1]:
        return "damaged: its checksum differs", payload
    return None, payload


def _unpack(path: Path, payload: memoryview, map_location: str | None) -> Checkpoint:
    try:
        content = torch.load(io.BytesIO(payload), map_location=map_location, weights_only=True)
        return Checkpoint(**{**content, "state": State(**content["state"])})
    except Exception as error:  # the bytes are good, so this is the machine or another version
        raise CheckpointError(
            f"{path} is whole but cannot be loaded here: {error}",
            "it was written on a machine with other devices, or by another version",
            "resume where it was written, or start again with --overwrite",
        ) from error


def _plain(value: Any, where: str) -> Any:
    """Return ``value`` as what ``torch.load(weights_only=True)`` gives back, or raise.

    Tensors keep their strides and their storage: another memory layout may round differently.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {_plain(key, where): _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item, f"{where}[{index}]") for index, item in enumerate(value))
    raise DtypeError(
        f"{where} is a {type(value).__name__}",
        "a checkpoint holds tensors, numbers, strings, and dicts, lists and tuples of them",
        "store a list, or torch.from_numpy(array)",
    )
