"""Progress goes to standard error, as a live line in a terminal and as plain lines elsewhere."""

from __future__ import annotations

import io
import sys

import pytest
from run_toys import Descent, Fit, Moments, Watch, start

from ntangent.run import Progress, train

STAGES = [Descent(4), Moments(3)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(progress: Progress, *others: Watch) -> None:
    train(
        STAGES, Fit(), start(), callbacks=[progress, *others], describe=lambda theta: {"[a]": float(theta[0])}
    )


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    run(Progress(STAGES, every=0.0))
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 7 + 2 + 1
    assert lines[0].startswith("stage 1/2 Descent  iteration 1/4  loss ")
    assert "[a] 1." in lines[0]
    assert lines[4].startswith("stage 1/2 Descent: loss ")
    assert lines[4].endswith("after 4 iterations (budget of 4 iterations used)")
    assert lines[-1].startswith("done; loss ")


def test_few_plain_lines_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    run(Progress(STAGES, every=1e9))
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    run(Progress(STAGES, quiet=True, every=0.0))
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_terminal() -> None:
    pytest.importorskip("rich")
    stream = Terminal()
    run(Progress(STAGES, stream=stream))
    text = stream.getvalue()
    assert "stage 2/2 Moments: loss" in text
    assert "done; loss" in text


def test_terminal_is_given_back_after_an_error() -> None:
    pytest.importorskip("rich")
    stream = Terminal()
    with pytest.raises(ZeroDivisionError):
        run(Progress(STAGES, stream=stream), Watch(3, ZeroDivisionError("oh")))
    assert "stopped: ZeroDivisionError: oh" in stream.getvalue()
    assert stream.getvalue().rfind("\x1b[?25h") >= stream.getvalue().rfind("\x1b[?25l")


def test_terminal_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.live", None)
    stream = Terminal()
    run(Progress(STAGES, stream=stream))
    assert "done; loss" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_time_left_is_from_the_recent_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    stages = [Descent(3_000)]
    progress = Progress(stages, stream=io.StringIO(), every=1e9)
    watch = Watch()
    train([Descent(1)], Fit(), start(), callbacks=[watch])
    for iteration in range(1, 201):
        clock[0] += 60.0 if iteration < 100 else 1.0
        record = watch.steps[0]._replace(iteration=iteration)
        progress.on_step(record)
    assert progress.line(record).endswith("46:40 left in this stage")
