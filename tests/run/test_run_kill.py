"""A run that is killed, at any instant, ends in the same bits as one that is not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import run_child
import torch
from run_toys import CONFIG, Descent, Fit, Moments, Noise, Watch, assert_same, make, start, timeless

from ntangent._base.errors import ArgumentError, RunFolderError
from ntangent.run import MetricsWriter, Outcome, RunFolder, load_checkpoint, read_metrics, train

STAGES = [Descent(6), Moments(7), Descent(0), Moments(5)]
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


class Killed(BaseException):
    """Stands for a kill: nothing in the package handles it."""


def run(folder: RunFolder, resume: bool = False, **options: object) -> Outcome:
    return train(STAGES, Fit(), start(), folder=folder, resume=resume, checkpoint_every=0.0, **options)  # type: ignore[arg-type]


def noisy(folder: RunFolder, resume: bool = False, *watch: Watch) -> Outcome:
    noise = Noise(Fit())
    return train(
        STAGES,
        noise,
        start(),
        folder=folder,
        resume=resume,
        checkpoint_every=0.0,
        callbacks=[noise, *watch],
        extra=noise.extra,
        restore=noise.restore,
    )


@contextmanager
def spawn(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, run_child.__file__, *map(str, arguments)]
    path = os.pathsep.join([*filter(None, sys.path)])
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as child:
        yield child


def finish(*arguments: object) -> str:
    """Let a child run to its end; return what it printed."""
    with spawn(*arguments) as child:
        output, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    return output


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    path = tmp_path_factory.mktemp("whole") / "run"
    finish(path)
    return RunFolder.open(path)


def assert_files_equal(folder: RunFolder, whole: RunFolder) -> None:
    theta, expected = folder.read_evaluation(), whole.read_evaluation()
    assert theta is not None
    assert expected is not None
    assert theta["theta"].tobytes() == expected["theta"].tobytes()
    assert folder.read_result() == whole.read_result()
    assert timeless(folder) == timeless(whole)


@posix
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sigkill_at_random_instants(tmp_path: Path, uninterrupted: RunFolder, seed: int) -> None:
    assert int(finish(tmp_path / "run", seed, 6)) >= 3
    assert_files_equal(RunFolder.open(tmp_path / "run"), uninterrupted)


@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_signal_writes_a_checkpoint(
    tmp_path: Path, uninterrupted: RunFolder, number: signal.Signals, status: int
) -> None:
    path = tmp_path / "run"
    with spawn(path) as child:
        assert child.stdout is not None
        child.stdout.readline()
        while not path.exists() or not list(path.glob("checkpoints/*.ckpt")):
            time.sleep(0.01)
        time.sleep(0.1)
        child.send_signal(number)
        child.communicate(timeout=60)
    assert child.returncode == status
    loaded = load_checkpoint(path / "checkpoints")
    metrics = read_metrics(path / "metrics.jsonl")
    assert loaded is not None
    assert metrics.end is not None
    assert metrics.end.step == len(metrics.steps) == loaded.checkpoint.step > 0
    assert metrics.end.stopped == {143: "SystemExit: 143"}.get(status, "KeyboardInterrupt")
    finish(path)
    assert_files_equal(RunFolder.open(path), uninterrupted)


def test_resume_from_a_copy_taken_at_every_step(tmp_path: Path) -> None:
    class Copy(Watch):
        def on_step(self, record: object) -> None:
            self.steps.append(record)  # type: ignore[arg-type]
            shutil.copytree(tmp_path / "whole", tmp_path / f"copy{len(self.steps)}")

    whole = make(tmp_path / "whole")
    copy = Copy()
    expected = noisy(whole, False, copy)
    assert len(copy.steps) == 18
    for number in range(1, 19):
        folder = RunFolder.resume(tmp_path / f"copy{number}", CONFIG)
        assert_same(folder, noisy(folder, resume=True), whole, expected)


def test_kill_inside_every_file_operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make(tmp_path / "whole")
    expected = noisy(whole)
    calls = 0
    fatal = -1

    def deadly(function):  # type: ignore[no-untyped-def]
        def call(*arguments, **options):  # type: ignore[no-untyped-def]
            nonlocal calls
            calls += 1
            if calls == fatal:
                raise Killed
            return function(*arguments, **options)

        return call

    for owner, name in [(os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir")]:
        monkeypatch.setattr(owner, name, deadly(getattr(owner, name)))
    for fatal in range(1, 130, 3):
        calls = 0
        path = tmp_path / f"run{fatal}"
        with pytest.raises(Killed):
            noisy(make(path))
        started = (path / "config.json").exists()
        folder = RunFolder.resume(path, CONFIG) if started else make(path)
        assert_same(folder, noisy(folder, resume=True), whole, expected)


@pytest.mark.parametrize("at", [1, 6, 9, 18])
def test_error_in_a_callback_then_resume(tmp_path: Path, at: int) -> None:
    whole, folder = make(tmp_path / "whole"), make(tmp_path / "run")
    expected = noisy(whole)
    for error in (KeyboardInterrupt(), ZeroDivisionError("x")):
        watch = Watch(at, error)
        with pytest.raises(type(error)):
            noisy(folder, bool(list(folder.checkpoints.iterdir())), watch)
        assert len(watch.outcomes) == 1
        assert str(watch.outcomes[0].stopped).startswith(type(error).__name__)
    assert_same(folder, noisy(folder, resume=True), whole, expected)


def test_interrupt_inside_a_step_keeps_the_iterations_before(tmp_path: Path) -> None:
    class Interrupted(Fit):
        def value_and_gradient(self, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            if theta is not first and len(watch.steps) == 4:
                raise KeyboardInterrupt
            return super().value_and_gradient(theta)

    first, watch = start(), Watch()
    folder, whole = make(tmp_path / "run"), make(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(STAGES, Interrupted(), first, folder=folder, callbacks=[watch], checkpoint_every=1e9)
    loaded = load_checkpoint(folder.checkpoints)
    assert loaded is not None
    assert loaded.checkpoint.step == 4
    assert_same(folder, run(folder, resume=True), whole, run(whole))


def test_seconds_accumulate_and_a_finished_run_resumes_to_itself(tmp_path: Path) -> None:
    folder, whole = make(tmp_path / "run"), make(tmp_path / "whole")
    expected = run(whole)
    with pytest.raises(ZeroDivisionError):
        run(folder, callbacks=[Watch(9, ZeroDivisionError())])
    before = load_checkpoint(folder.checkpoints)
    assert before is not None
    outcome = run(folder, resume=True)
    assert outcome.seconds > before.checkpoint.seconds > 0
    times = [record.seconds for record in outcome.history]
    assert times == sorted(times)
    watch = Watch()
    again = run(folder, resume=True, callbacks=[watch])
    assert not watch.steps
    assert len(watch.outcomes) == 1
    assert_same(folder, again, whole, expected)


def test_a_callback_can_stop_and_the_run_goes_on_later(tmp_path: Path) -> None:
    folder, whole = make(tmp_path / "run"), make(tmp_path / "whole")
    outcome = run(folder, callbacks=[Watch(6, reason="enough")])
    assert outcome.stopped == "enough"
    assert outcome.reasons == ()
    end = read_metrics(folder.metrics_path).end
    assert end is not None
    assert end.stopped == "enough"
    assert_same(folder, run(folder, resume=True), whole, run(whole))


def test_resume_needs_restore_when_there_is_an_extra(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    noisy(folder)
    with pytest.raises(ArgumentError, match=r"\['generator', 'shift'\] of the caller and restore is None"):
        run(folder, resume=True)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    run(folder)
    size = folder.metrics_path.stat().st_size
    with MetricsWriter(folder.metrics_path, size), pytest.raises(RunFolderError, match="another process"):
        run(folder, resume=True)
    run(folder, resume=True)
