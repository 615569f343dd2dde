"""The peak memory of a contender on a cell, measured in a fresh process.

The process builds the network, the points and whatever the contender prepares, makes one pass on a tiny
network so that every library is loaded, notes its resident set, makes two passes of forward and backward,
and reports how far the peak of the resident set rose above what it noted. Reused heap makes the number
uncertain by about a megabyte.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import torch

from ntangent._base import machine
from ntangent._base.errors import BackendError, NtangentError
from ntangent.bench.cells import Cell
from ntangent.bench.contenders import find

PATIENCE = 600.0  # seconds


def peak_memory(cell: Cell, name: str, seed: int, threads: int) -> int:
    """Return the peak memory of one pass of a contender, in bytes, measured in a process of its own.

    Args:
        cell: the cell, on the processor.
        name: of a contender that ``find`` knows.
        seed: of network and points.
        threads: of torch.

    Raises:
        BackendError: the process failed.
    """
    request = {"cell": cell.as_dict(), "name": name, "seed": seed, "threads": threads}
    command = [sys.executable, "-m", "ntangent.bench.memory", json.dumps(request)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise BackendError(f"measuring the memory of {name} took too long") from None
    if result.returncode != 0:
        last = result.stderr.strip().splitlines()[-1:] or [f"exit code {result.returncode}"]
        raise BackendError(f"measuring the memory of {name} failed: {last[0]}")
    return int(json.loads(result.stdout)["bytes"])


def _answer(request: dict[str, Any]) -> int:
    torch.set_num_threads(request["threads"])
    cell = Cell(**request["cell"])
    (contender,) = find((request["name"],))
    for size in (replace(cell, width=3, depth=2, batch=4), cell):
        work = contender.build(size, request["seed"])
        gc.collect()
        machine.reset_peak()
        before = machine.resident() or machine.peak_resident() or 0
        for _ in range(2):
            value = work.forward()
            if work.backward is not None:
                work.backward(value)
            del value
        peak = max(0, (machine.peak_resident() or 0) - before)
    return peak


if __name__ == "__main__":
    try:
        print(json.dumps({"bytes": _answer(json.loads(sys.argv[1]))}))
    except NtangentError as refusal:
        sys.exit(refusal.what)
