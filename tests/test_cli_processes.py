"""The command line as a process of its own: streams, signals, and kills at random instants."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ntangent.run import read_metrics

SOLVE = (
    "solve",
    "burgers-profile",
    "--k",
    "1",
    "--iterations",
    "60",
    "--threads",
    "1",
    "--checkpoint-every",
    "0.02",
)
PATIENCE = 120  # seconds; a process that hangs must not hang the suite


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "ntangent", *map(str, arguments)]


def finish(*arguments: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def checkpoints(run: Path) -> set[str]:
    return {path.name for path in (run / "checkpoints").glob("*.ckpt")}


def wait_for_checkpoint(process: subprocess.Popen[str], run: Path, old: set[str]) -> None:
    """Wait until a process has written a checkpoint that is not one of the old ones."""
    deadline = time.monotonic() + PATIENCE
    while not checkpoints(run) - old:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def numbers(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return json.loads(done.stdout.splitlines()[-1])


def arrays(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / "evaluation.npz") as stored:
        return {name: stored[name] for name in stored.files}


def steps(run: Path) -> list[Any]:
    return [record._replace(seconds=0.0) for record in read_metrics(run / "metrics.jsonl").steps]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run that was never interrupted, and the object it printed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    done = finish(*SOLVE, "--run-dir", run, "--json")
    assert len(done.stdout.splitlines()) == 1
    assert "done; loss" in done.stderr
    return run, numbers(done)


def test_the_report_of_a_process_is_there(whole: tuple[Path, dict[str, Any]]) -> None:
    run, printed = whole
    assert printed["report"] == str(run / "report.html")
    assert (run / "report.html").read_text(encoding="utf-8").count("data:image/png") == 10


@pytest.mark.parametrize(("seed", "kills", "by"), [(0, 1, "solve"), (1, 2, "resume")])
def test_a_run_killed_at_random_instants_ends_with_the_same_bits(
    seed: int, kills: int, by: str, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    rng = random.Random(seed)
    expected_run, expected = whole
    run = tmp_path / "run"
    again = (
        (*SOLVE, "--resume", "--run-dir", run)
        if by == "solve"
        else ("resume", run, "--checkpoint-every", "0.02")
    )
    for attempt in range(kills):
        old = checkpoints(run)
        process = start(*again) if attempt else start(*SOLVE, "--run-dir", run)
        wait_for_checkpoint(process, run, old)
        time.sleep(rng.uniform(0, 0.8 * expected["seconds"]))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        if attempt == 0 and not (run / "result.json").exists():
            page = Path(finish("report", run).stdout.strip())
            assert "unfinished" in page.read_text(encoding="utf-8")
    printed = numbers(finish(*again, "--json", "--no-report"))
    assert printed["lambda"] == expected["lambda"]
    assert printed["loss"] == expected["loss"]
    assert steps(run) == steps(expected_run)
    found, truth = arrays(run), arrays(expected_run)
    assert set(found) == set(truth)
    assert all(np.array_equal(found[name], truth[name]) for name in truth)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_with_a_checkpoint_and_a_hint(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    run = tmp_path / "a run"
    process = start(
        "solve",
        "burgers-profile",
        "--iterations",
        "100000",
        "--width",
        "8",
        "--threads",
        "1",
        "--run-dir",
        run,
    )
    wait_for_checkpoint(process, run, set())
    process.send_signal(number)
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert f"ntangent resume '{run}' continues" in errors
    assert "Traceback" not in errors
    assert output == ""
