"""Files of measurements: one JSON object in a line for each cell of a grid."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments._common.paper import Options

Line = dict[str, Any]


def read(path: Path) -> list[Line]:
    """Return the lines of a file, none where there is no file yet."""
    if not path.exists():
        return []
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def measure(
    cells: Callable[[Options], Iterator[Line]], line: Callable[[Mapping[str, Any]], Line]
) -> Callable[[Path, Options], bool]:
    """Return a function that writes the lines a file lacks, within the budget."""

    def write(path: Path, options: Options) -> bool:
        wanted, start = list(cells(options)), time.perf_counter()
        known = [{k: found.get(k) for k in wanted[0]} for found in read(path)]
        for cell in wanted:
            if cell in known:
                continue
            if time.perf_counter() - start > options.budget:
                return False
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line(cell)) + "\n")
        return True

    return write
