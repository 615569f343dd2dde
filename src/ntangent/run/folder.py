"""A run is a folder. This file knows its layout, and what may be overwritten."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ntangent._base.errors import CheckpointError, RunFolderError
from ntangent.run.files import is_temporary, jsonable, write_atomically, write_json

FORMAT = "ntangent-run/1"
_FILES = ("metrics.jsonl", "result.json", "final.json", "evaluation.npz", "report.html")
_PATTERNS = {
    "checkpoints": ("checkpoint-*.ckpt", "checkpoint-*.ckpt.damaged"),
    "figures": ("*.png", "*.svg", "*.pdf"),
}
_FRESH = "resume it with --resume, replace it with --overwrite, or choose another --run-dir"


def run_config(
    *,
    problem: str,
    options: Mapping[str, Any],
    stages: Sequence[object],
    seed: int,
    dtype: torch.dtype,
    **more: Any,
) -> dict[str, Any]:
    """Return the configuration document of a run: all that rebuilds it and decides its bits.

    Args:
        problem: the problem's name in the catalogue, or the path of a user's file.
        options: the problem's options.
        stages: the optimisers; their repr rebuilds them.
        seed: seed of every generator.
        dtype: precision of the parameters.
        more: further entries of the caller (network, weighting, sampler, ...).

    Raises:
        DtypeError: an entry is not plain data.
    """
    try:
        version = importlib.metadata.version("ntangent")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    document = {
        "version": version,
        "torch": torch.__version__,
        "problem": problem,
        "options": options,
        "stages": [repr(stage) for stage in stages],
        "seed": seed,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }
    plain: dict[str, Any] = jsonable({**document, **more}, "config")
    return plain


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    Use ``create``, ``resume`` or ``open``, not the constructor.

    Args:
        path: the folder.
        config: what ``config.json`` holds, less its format mark.
    """

    path: Path
    config: dict[str, Any]

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any], overwrite: bool = False) -> RunFolder:
        """Make a new run folder; an empty directory counts as new.

        Overwriting deletes what a run writes, by name, and leaves every other file alone.

        Raises:
            RunFolderError: the folder holds a run and ``overwrite`` is False, or holds something
                that is not a run, or is not a directory.
            DtypeError: ``config`` is not plain data.
        """
        path = Path(path)
        document: dict[str, Any] = jsonable(config, "config")
        if path.exists():
            _clear(path, overwrite)
        path.mkdir(parents=True, exist_ok=True)
        for name in _PATTERNS:
            (path / name).mkdir(exist_ok=True)
        # Written last and replaced in one step: a folder with a config is always a run's folder.
        write_json(path / "config.json", {"format": FORMAT, **document}, "config")
        return cls(path, document)

    @classmethod
    def resume(cls, path: str | Path, config: Mapping[str, Any]) -> RunFolder:
        """Open a run folder to continue the run.

        Raises:
            RunFolderError: there is no run in the folder.
            CheckpointError: the stored configuration differs; the message names each key.
        """
        folder = cls.open(path)
        differences = _differences(folder.config, jsonable(config, "config"))
        if differences:
            raise CheckpointError(
                f"the run in {folder.path} has another configuration: " + "; ".join(differences),
                "a resumed run must go on to the result of a run that was never interrupted",
                "resume with the stored values, start again with --overwrite, or choose another --run-dir",
            )
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open a run folder to read it.

        Raises:
            RunFolderError: there is no run in the folder.
        """
        path = Path(path)
        stored = _read_config(path)
        if stored is None:
            raise RunFolderError(
                f"there is no run in {path}",
                "its config.json is missing or was not written by a run",
                "name the folder of a run, or start one: ntangent solve burgers-profile --run-dir runs/first",
            )
        return cls(path, {key: value for key, value in stored.items() if key != "format"})

    @property
    def config_hash(self) -> str:
        """SHA-256 of the configuration, independent of the order of its keys."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()

    @property
    def metrics_path(self) -> Path:
        """The metrics: one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The directory of checkpoints."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """The directory of figures."""
        return self.path / "figures"

    @property
    def report_path(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json``, whole or not at all.

        Raises:
            DtypeError: ``result`` is not plain data.
        """
        write_json(self.path / "result.json", result, "result")

    def read_result(self) -> dict[str, Any] | None:
        """Return ``result.json``, or None while there is none.

        Raises:
            RunFolderError: the file is not a JSON object.
        """
        path = self.path / "result.json"
        if not path.exists():
            return None
        document = _read_json(path)
        if document is None:
            raise RunFolderError(f"{path} is not a JSON object", "it was edited", f"delete {path}")
        return document

    def write_final(self, facts: Mapping[str, Any]) -> None:
        """Write ``final.json``, what was measured at the end for a diagnosis, whole or not at all."""
        write_json(self.path / "final.json", facts, "final")

    def read_final(self) -> dict[str, Any] | None:
        """Return ``final.json``, or None where there is none."""
        path = self.path / "final.json"
        return _read_json(path) if path.exists() else None

    def write_evaluation(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Write ``evaluation.npz``, whole or not at all.

        Raises:
            ValueError: an array holds Python objects.
        """
        buffer = io.BytesIO()
        # Not np.savez: it takes names as keywords, so "file" could not be one.
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
        write_atomically(self.path / "evaluation.npz", buffer.getvalue())

    def read_evaluation(self) -> dict[str, np.ndarray[Any, Any]] | None:
        """Return the arrays of ``evaluation.npz``, or None while there is none."""
        path = self.path / "evaluation.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _read_config(path: Path) -> dict[str, Any] | None:
    """Return the config of a run; None for anything else, such as another program's config.json."""
    document = _read_json(path / "config.json")
    return document if document is not None and document.get("format") == FORMAT else None


def _clear(path: Path, overwrite: bool) -> None:
    """Make an existing path fit for a new run, or raise."""
    if not path.is_dir():
        raise RunFolderError(f"{path} is a file", "a run is a folder", "choose another --run-dir")
    if _read_config(path) is None:
        if all(_is_scaffold(entry) for entry in path.iterdir()):
            return
        raise RunFolderError(
            f"{path} is not empty and holds no run",
            "its files were not written by a run, so they are not replaced",
            "choose another --run-dir",
        )
    if not overwrite:
        raise RunFolderError(f"{path} already holds a run", "its results would be lost", _FRESH)
    for name in _FILES:
        (path / name).unlink(missing_ok=True)
    for name, patterns in _PATTERNS.items():
        directory = path / name
        if not directory.is_dir() or directory.is_symlink():
            continue  # a link leads to files that may belong to someone else
        for entry in list(directory.iterdir()):
            if is_temporary(entry) or any(entry.match(pattern) for pattern in patterns):
                entry.unlink()


def _is_scaffold(entry: Path) -> bool:
    """Return whether ``create`` left this behind when it was killed before the config was written."""
    if entry.name in _PATTERNS and entry.is_dir():
        return not any(entry.iterdir())
    return entry.name == ".config.json.tmp"


def _flatten(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, dict) and value:
        items = [(f"{name}.{key}" if name else key, item) for key, item in value.items()]
    elif isinstance(value, list) and value:
        items = [(f"{name}[{index}]", item) for index, item in enumerate(value)]
    else:
        return {name: value}
    return {key: leaf for child, item in items for key, leaf in _flatten(item, child).items()}


def _differences(stored: dict[str, Any], given: dict[str, Any]) -> list[str]:
    left, right = _flatten(stored, ""), _flatten(given, "")
    keys = [key for key in {**left, **right} if _text(left, key) != _text(right, key)]
    return [f"{key} is {_text(left, key)} there and {_text(right, key)} here" for key in keys]


def _text(leaves: dict[str, Any], key: str) -> str:
    # As text, because 1 == 1.0 == True in Python but not in a configuration.
    return json.dumps(leaves[key], ensure_ascii=False) if key in leaves else "absent"
