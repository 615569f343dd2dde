"""A profile whose run is killed in a stage that changes the network ends in the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ntangent.run import RunFolder, read_metrics

CHILD = str(Path(__file__).with_name("kill_child.py"))
CLOCKS = {"seconds"}


def child(*arguments: object) -> str:
    command = [sys.executable, CHILD, *map(str, arguments)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def without_clocks(path: Path) -> dict[str, object]:
    return {k: v for k, v in json.loads((path / "result.json").read_text()).items() if k not in CLOCKS}


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
@pytest.mark.parametrize("kind", ["polish", "multistage"])
def test_sigkill_in_the_last_stage(tmp_path: Path, kind: str) -> None:
    child(tmp_path / "whole", kind)
    assert int(child(tmp_path / "killed", kind, 1, 3)) >= 2
    whole, killed = RunFolder.open(tmp_path / "whole"), RunFolder.open(tmp_path / "killed")
    expected, found = whole.read_evaluation(), killed.read_evaluation()
    assert expected is not None
    assert found is not None
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    assert without_clocks(killed.path) == without_clocks(whole.path)
    lines = [
        [(r.step, r.name, r.loss, r.info, r.values) for r in read_metrics(folder.metrics_path).steps]
        for folder in (whole, killed)
    ]
    assert lines[0] == lines[1]
    assert lines[0][-1][1] == {"polish": "Polish", "multistage": "MultiStage"}[kind]
