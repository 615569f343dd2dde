"""Results on disk: one document, or lines that are added as they come."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ntangent.bench.cells import Cell
from ntangent.bench.sweep import Result, Settings, Sweep, about_here
from ntangent.run.files import jsonable, write_json

FORMAT = "ntangent-bench/1"


def document(
    about: dict[str, Any], settings: Settings, results: Sequence[Result], memory: Sequence[Result] = ()
) -> dict[str, Any]:
    """Return everything a benchmark found as plain data."""
    return {
        "format": FORMAT,
        "machine": about,
        "settings": asdict(settings),
        "cells": list(results),
        "memory": list(memory),
    }


def write_document(path: Path, content: dict[str, Any]) -> None:
    """Write a document atomically; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content, "benchmark")


class Lines:
    """A file of JSON lines, one per cell, that a run adds to and a later run continues.

    A line that was cut off by a kill is ignored. Lines about the machine stand before the cells that
    were measured there. Where a cell appears again, the later line counts.

    Args:
        path: the file; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.machines: list[dict[str, Any]] = []
        self._results: dict[Cell, Result] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._take(line)

    @property
    def results(self) -> list[Result]:
        """The result of each cell in the file."""
        return list(self._results.values())

    def has(self, cell: Cell, names: Sequence[str]) -> bool:
        """Return whether a cell was measured with all of these contenders, in one go."""
        found = self._results.get(cell)
        return found is not None and set(names) <= set(found["contenders"])

    def begin(self, about: dict[str, Any], settings: Settings) -> None:
        """Note the machine and the settings of the cells to come."""
        self._append({"format": FORMAT, "machine": about, "settings": asdict(settings)})

    def add(self, result: Result) -> None:
        """Add a cell."""
        self._append(result)

    def _append(self, entry: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(jsonable(entry, "line"), ensure_ascii=False, allow_nan=False)
        with self.path.open("ab") as file:
            if file.tell() and not self._ends_with_newline():
                file.write(b"\n")
            file.write(text.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(text)

    def _ends_with_newline(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if "machine" in entry:
            self.machines.append(entry)
        elif "cell" in entry:
            cell = Cell(**entry["cell"])
            self._results.pop(cell, None)
            self._results[cell] = entry


def fill(
    lines: Lines,
    sweep: Sweep,
    cells: Iterable[Cell],
    budget: float = float("inf"),
    told: Callable[[int, int, Result], object] = lambda *_: None,
) -> int:
    """Measure the cells that a file lacks and add each as it comes.

    Args:
        lines: the file.
        sweep: measures.
        cells: what the file is to hold in the end.
        budget: seconds after which no further cell is begun.
        told: called after each cell with the number of cells there are, of all, and the result.

    Returns:
        How many cells are still lacking.
    """
    cells, names = list(cells), list(sweep.contenders)
    have = sum(lines.has(cell, names) for cell in cells)
    end = time.monotonic() + budget
    if have == len(cells):
        return 0
    lines.begin(about_here(), sweep.settings)
    for result in sweep.run(cells, lambda cell: lines.has(cell, names)):
        lines.add(result)
        have += 1
        told(have, len(cells), result)
        if time.monotonic() > end:
            break
    return len(cells) - have
