"""Early stopping and TensorBoard."""

from __future__ import annotations

import sys
import types

import pytest
from run_toys import Descent, Fit, Moments, make, start, timeless

from ntangent._base import extras
from ntangent._base.errors import ArgumentError, MissingExtraError, UnknownNameError
from ntangent.run import EarlyStopping, Record, RunFolder, TensorBoard, train


def record(step, loss, **values):
    return Record(step, 0, "Adam", step, loss, {"gradient_norm": 1.0}, values, 0.1 * step)


def reasons(callback, losses, **values):
    return [callback.on_step(record(i + 1, loss, **values)) for i, loss in enumerate(losses)]


def test_patience_counts_relative_improvements():
    stopping = EarlyStopping(3, improvement=0.1)
    found = reasons(stopping, [1.0, 0.95, 0.91, 0.89, 0.88, 0.85, 0.81])
    assert found[:-1] == [None] * 6  # 0.89 is a new best: below 0.9
    assert found[-1] == "loss has not fallen below 8.900e-01 for 3 iterations"
    tiny = EarlyStopping(3, improvement=0.1)
    assert reasons(tiny, [1e-30 * x for x in (1.0, 0.95, 0.91, 0.89, 0.88, 0.85, 0.81)])[5:][0] is None


def test_the_target():
    assert reasons(EarlyStopping(target=0.5), [1.0, 0.6, 0.5]) == [
        None,
        None,
        "loss 5.000e-01 reached the target 0.5",
    ]


def test_other_numbers_can_be_watched():
    stopping = EarlyStopping(2, watch="held-out")
    assert stopping.on_step(record(1, 1.0, **{"held-out": 2.0})) is None
    assert stopping.on_step(record(2, 0.9)) is None  # nothing recorded here
    assert "held-out has not fallen below 2" in stopping.on_step(record(3, 0.8, **{"held-out": 3.0}))
    with pytest.raises(UnknownNameError, match="held-out"):
        reasons(EarlyStopping(2, watch="held_out"), [1.0] * 100, **{"held-out": 2.0})


def test_it_ends_a_training_and_skips_the_later_stages():
    outcome = train([Descent(500), Moments(500)], Fit(), start(), callbacks=[EarlyStopping(target=1e-3)])
    assert outcome.stopped is not None and "target" in outcome.stopped
    assert outcome.loss <= 1e-3
    assert outcome.reasons == ()


class Break:
    def __init__(self, at):
        self.at = at

    def on_step(self, seen):
        if seen.step == self.at:
            raise KeyboardInterrupt

    def on_stage(self, seen):
        pass

    def on_end(self, outcome):
        pass


def test_patience_survives_a_resume(tmp_path):
    def run(name, *, resume=False, callbacks=()):
        folder = RunFolder.open(tmp_path / name) if resume else make(tmp_path / name)
        stopping = EarlyStopping(25, improvement=0.9)
        return train([Moments(200)], Fit(), start(), folder=folder, resume=resume,
                     callbacks=[*callbacks, stopping], checkpoint_every=0), folder  # fmt: skip

    whole, _ = run("whole")
    assert whole.stopped is not None
    cut = len(whole.history) - 8  # inside the patience
    with pytest.raises(KeyboardInterrupt):
        run("cut", callbacks=[Break(cut)])
    resumed, folder = run("cut", resume=True)
    assert resumed.stopped == whole.stopped
    assert resumed.theta.tolist() == whole.theta.tolist()
    assert timeless(folder)[0] == [r._replace(seconds=0.0) for r in whole.history]


@pytest.mark.parametrize(
    "arguments", [{}, {"patience": 0}, {"patience": 3, "improvement": 1.0}, {"target": -1.0}]
)
def test_what_could_never_stop_is_refused(arguments):
    with pytest.raises(ArgumentError):
        EarlyStopping(**arguments)


def test_tensorboard_names_its_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(extras.EXTRAS, "tensorboard", ("a_package_nobody_has",))
    with pytest.raises(MissingExtraError, match=r"ntangent\[tensorboard\]"):
        TensorBoard(tmp_path)


def test_tensorboard_writes_scalars(monkeypatch, tmp_path):
    written = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            written.append(("open", folder, purge_step))

        def add_scalar(self, name, value, step, seconds):
            written.append((name, value, step))

        def add_text(self, name, text, step=None):
            written.append((name, text))

        def close(self):
            written.append(("close",))

    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    monkeypatch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
    board = TensorBoard(tmp_path, every=5)
    outcome = train([Descent(12)], Fit(), start(), callbacks=[board], describe=lambda theta: {"a": theta[0]})
    assert written[0] == ("open", str(tmp_path), 1)
    losses = {step: value for name, value, step in (w for w in written if w[0] == "loss")}
    assert losses == {s: outcome.history[s - 1].loss for s in (1, 5, 10)}
    assert ("values/a", outcome.history[4].values["a"], 5) in written
    assert any(w[0] == "Descent/gradient" for w in written)
    assert written[-1] == ("close",)
    # What a monitor read is written whenever it was read, under its own name.
    reading = {"monitor/snr.snr": 0.25, "monitor/seconds": 0.1}
    again = TensorBoard(tmp_path, every=5)
    again.on_step(Record(7, 0, "Adam", 7, 1.0, reading, {}, 0.7))
    assert ("monitor/snr.snr", 0.25, 7) in written


@pytest.mark.parametrize(
    "wrong", [print, [print], [EarlyStopping], [object()]], ids=["function", "functions", "class", "object"]
)
def test_what_is_no_callback_is_refused_before_the_training(wrong):
    steps = []

    class Watched(Fit):
        def value_and_gradient(self, theta):
            steps.append(1)
            return super().value_and_gradient(theta)

    with pytest.raises(ArgumentError, match="callback"):
        train([Descent(5)], Watched(), start(), callbacks=wrong)
    assert not steps
