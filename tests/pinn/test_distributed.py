"""Several ranks go the way of one process; a lost rank ends the run, and a resume continues it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pinn.distributed_child import EXACT, LONG, ROUNDED, facts

from ntangent.run import RunFolder, load_checkpoint

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="gloo"
)
# Imported, not run as a script: a problem is described by the module that it is in, too.
CALL = "import sys; from pinn.distributed_child import main; main(*sys.argv[1:])"
TESTS = Path(__file__).resolve().parents[1]


def environment() -> dict[str, str]:
    # The package that this process tests, with the same kernels.
    path = os.pathsep.join([*filter(None, sys.path), str(TESTS)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def launch(task: str, folder: Path, size: int = 2) -> list[tuple[int, str]]:
    """Run a task on several ranks; return the exit code and the messages of each."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", CALL, task, str(folder), str(rank), str(size)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for rank in range(size)
    ]
    messages = [rank.communicate(timeout=120)[1] for rank in ranks]
    return [(rank.returncode, message) for rank, message in zip(ranks, messages, strict=True)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    for code, message in launch("cases", folder):
        assert code == 0, message
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.mark.parametrize("name", EXACT)
def test_the_same_bits_as_in_one_process(name: str, ranks: list[dict[str, Any]]) -> None:
    alone, two = facts(EXACT[name].solve()), ranks[0][name]
    assert len(alone["losses"]) > 4
    assert two["losses"] == alone["losses"]
    assert two["unknowns"] == alone["unknowns"]
    assert two["held out"] == alone["held out"]
    assert torch.equal(two["theta"], alone["theta"])
    assert two["terms"] == pytest.approx(alone["terms"], rel=1e-12)


@pytest.mark.parametrize("name", ROUNDED)
def test_the_same_as_in_one_process_to_rounding(name: str, ranks: list[dict[str, Any]]) -> None:
    alone, two = facts(ROUNDED[name].solve()), ranks[0][name]
    assert two["losses"] == pytest.approx(alone["losses"], rel=1e-10)
    assert torch.allclose(two["theta"], alone["theta"], rtol=0, atol=1e-10)


def test_every_rank_returns_the_solution(ranks: list[dict[str, Any]]) -> None:
    for name, leader in ranks[0].items():
        other = ranks[1][name]
        assert other["losses"] == leader["losses"]
        assert torch.equal(other["theta"], leader["theta"])
        assert other["terms"] == pytest.approx(leader["terms"], rel=1e-12)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, str]]]:
    """Two trainings that are refused, and one of which rank 1 is killed after 20 iterations."""
    folder = tmp_path_factory.mktemp("failed")
    (folder / "taken").mkdir()
    (folder / "taken" / "mine").touch()
    return folder, launch("failures", folder)


def test_all_ranks_hear_why_the_leader_failed(failed: tuple[Path, Any]) -> None:
    for rank in (0, 1):
        refused, strange = torch.load(failed[0] / f"{rank}.pt", weights_only=False)
        assert "holds no run" in refused
        assert "rank 1 has another problem or network than rank 0" in strange


def test_a_killed_rank_ends_the_run_and_one_process_continues_it(failed: tuple[Path, Any]) -> None:
    folder, ((leader, message), (other, _)) = failed
    assert other == -signal.SIGKILL
    assert leader == 1
    assert "a process of this run was lost" in message
    assert "the last good checkpoint is" in message
    loaded = load_checkpoint(folder / "run" / "checkpoints")
    assert loaded is not None
    assert not loaded.damaged
    assert loaded.checkpoint.step == 20
    assert RunFolder.open(folder / "run").read_result() is None
    # Not in this process, where shape checks surround the functions that the configuration describes.
    ((code, message),) = launch("resume", folder, size=1)
    assert code == 0, message
    resumed, whole = torch.load(folder / "0.pt", weights_only=False), facts(LONG.solve())
    assert resumed["losses"] == whole["losses"]
    assert torch.equal(resumed["theta"], whole["theta"])


def test_the_command_line_under_torchrun(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from ntangent import optim, pinn\n"
        "problem = pinn.Problem(domain=pinn.Box(x=(0, 1)), equations=[lambda u: u.x + u],\n"
        "                       conditions=[pinn.Dirichlet(x=0, value=1)])\n"
        "stages = [optim.LevenbergMarquardt(8)]\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "ntangent", "solve", "mine.py", "--run-dir", "run", "--json"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.strip().splitlines()
    assert json.loads(line)["iterations"] == 8
    assert sum("LevenbergMarquardt: loss" in text for text in done.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.py", "run"]
    folder = RunFolder.open(tmp_path / "run")
    assert folder.report_path.exists()
    assert folder.read_result() is not None
