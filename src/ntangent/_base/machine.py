"""What is known of the machine: processor, cores, memory in use."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

_PROC = Path("/proc")


def processor() -> str:
    """Return the name of the processor."""
    return _entry(_PROC / "cpuinfo", "model name") or platform.processor() or platform.machine()


def cores() -> int:
    """Return the number of processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> float | None:
    """Return the number of processes that wanted to run in the last minute, on average."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def available_memory() -> int | None:
    """Return the bytes that can be had without swapping, or None where that is not known."""
    return _kilobytes(_PROC / "meminfo", "MemAvailable")


def resident() -> int | None:
    """Return the bytes of memory this process occupies now, or None where that is not known."""
    return _kilobytes(_PROC / "self" / "status", "VmRSS")


def peak_resident() -> int | None:
    """Return the most bytes this process has occupied since ``reset_peak``, or since it began."""
    # Not getrusage where it can be helped: on Linux a new process inherits the peak of its parent there.
    peak = _kilobytes(_PROC / "self" / "status", "VmHWM")
    if peak is not None or sys.platform == "win32":
        return peak
    import resource

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else 1024 * size


def reset_peak() -> bool:
    """Make ``peak_resident`` start again from what is occupied now; return whether that was possible."""
    try:
        (_PROC / "self" / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _kilobytes(path: Path, name: str) -> int | None:
    found = _entry(path, name)
    return 1024 * int(found.split()[0]) if found else None


def _entry(path: Path, name: str) -> str | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)
