import importlib.metadata
import importlib.util
import os

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # several workers on few cores: more threads only wait for each other


def pytest_report_header() -> str:
    """Say which ntangent is under test: an installed one, or one that PYTHONPATH put in front of it."""
    spec = importlib.util.find_spec("ntangent")
    origin = spec.origin if spec is not None else "not installed"
    return f"ntangent {importlib.metadata.version('ntangent')} from {origin}; torch {torch.__version__}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked gpu where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(skip)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the skipped gpu tests where nobody can overlook it."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "gpu" in report.keywords]
    if skipped:
        terminalreporter.write_sep("=", f"{len(skipped)} gpu tests SKIPPED: no CUDA device", yellow=True)
