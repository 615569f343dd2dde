"""The loop itself: order, records, reasons, what is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from run_toys import Descent, Fit, Moments, Watch, make, start

from ntangent._base.errors import ArgumentError, ConvergenceError, DtypeError, RunFolderError
from ntangent._base.protocols import Objective, State
from ntangent.run import Callback, Record, StageRecord, load_checkpoint, read_metrics, train


def test_stages_in_sequence_equal_a_plain_loop() -> None:
    theta = start()
    losses = []
    for stage in (Descent(5), Moments(4)):
        state = stage.begin(Fit(), theta)
        for _ in range(stage.iterations):
            state = stage.step(Fit(), state)
            losses.append(state.loss)
        theta = state.theta
    outcome = train([Descent(5), Moments(4)], Fit(), start())
    assert torch.equal(outcome.theta, theta)
    assert outcome.loss == losses[-1]
    assert [record.loss for record in outcome.history] == losses
    assert [record.step for record in outcome.history] == list(range(1, 10))
    assert [record.iteration for record in outcome.history] == [*range(1, 6), *range(1, 5)]
    assert [record.name for record in outcome.history] == ["Descent"] * 5 + ["Moments"] * 4
    assert outcome.stopped is None


def test_reasons() -> None:
    outcome = train([Descent(500, tolerance=0.02), Moments(3), Descent(0)], Fit(), start())
    assert outcome.reasons == (
        "loss below 0.02",
        "budget of 3 iterations used",
        "budget of 0 iterations used",
    )
    assert outcome.history[-4].loss < 0.02


def test_files_say_what_the_outcome_says(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    outcome = train(
        [Descent(5), Moments(4)],
        Fit(),
        start(),
        folder=folder,
        describe=lambda theta: {"a": theta[0], "b": float(theta[1])},  # type: ignore[dict-item]
    )
    metrics = read_metrics(folder.metrics_path)
    assert metrics.steps == outcome.history
    assert tuple(stage.reason for stage in metrics.stages) == outcome.reasons
    assert metrics.end is not None
    assert (metrics.end.step, metrics.end.loss, metrics.end.stopped) == (9, outcome.loss, None)
    assert outcome.history[-1].values == {"a": float(outcome.theta[0]), "b": float(outcome.theta[1])}
    loaded = load_checkpoint(folder.checkpoints)
    assert loaded is not None
    assert loaded.checkpoint.finished
    assert torch.equal(loaded.checkpoint.state.theta, outcome.theta)


def test_record_every_keeps_the_last_and_callbacks_see_all(tmp_path: Path) -> None:
    folder, watch = make(tmp_path / "run"), Watch()
    outcome = train(
        [Descent(5), Moments(7)],
        Fit(),
        start(),
        folder=folder,
        record_every=3,
        callbacks=[watch],
        describe=lambda theta: {"a": float(theta[0])},
    )
    assert [(record.stage, record.iteration) for record in outcome.history] == [
        (0, 3), (0, 5), (1, 3), (1, 6), (1, 7),
    ]  # fmt: skip
    assert [record.step for record in watch.steps] == list(range(1, 13))
    assert [record.step for record in watch.steps if record.values] == [3, 5, 8, 11, 12]
    assert read_metrics(folder.metrics_path).steps == outcome.history


def test_callbacks_get_theta_and_the_history_does_not() -> None:
    watch = Watch()
    assert isinstance(watch, Callback)
    outcome = train([Descent(3)], Fit(), start(), callbacks=[watch])
    assert watch.steps[-1].theta is not None
    assert torch.equal(watch.steps[-1].theta, outcome.theta)
    assert all(record.theta is None for record in outcome.history)
    assert [type(record) for record in watch.stages] == [StageRecord]
    assert watch.outcomes == [outcome]


def test_nan_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    folder, watch = make(tmp_path / "run"), Watch()
    with pytest.raises(ConvergenceError) as caught:
        train([Descent(500)], Fit(bad_below=0.05), start(), folder=folder, callbacks=[watch])
    loaded = load_checkpoint(folder.checkpoints)
    assert loaded is not None
    assert str(loaded.path) in caught.value.fix
    assert loaded.checkpoint.step == len(watch.steps) > 0
    assert loaded.checkpoint.state.loss == watch.steps[-1].loss > 0.05
    assert "became nan in iteration" in caught.value.what
    assert str(watch.outcomes[0].stopped).startswith("ConvergenceError: the loss became nan")
    end = read_metrics(folder.metrics_path).end
    assert end is not None
    assert end.stopped == watch.outcomes[0].stopped


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_loss_without_a_folder(bad: float) -> None:
    @dataclass(frozen=True)
    class Bad(Descent):
        def step(self, objective: Objective, state: State) -> State:
            return replace(super().step(objective, state), loss=bad)

    with pytest.raises(ConvergenceError, match="no run folder"):
        train([Bad(5)], Fit(), start())
    with pytest.raises(ConvergenceError, match="in iteration 0"):
        train([Descent(5)], Fit(bad_below=math.inf), start())


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="stages is empty"):
        train([], Fit(), start())
    with pytest.raises(ArgumentError, match="flat vector"):
        train([Descent()], Fit(), start()[None])
    with pytest.raises(ArgumentError, match="without a folder"):
        train([Descent()], Fit(), start(), resume=True)
    with pytest.raises(ArgumentError, match="checkpoint_every"):
        train([Descent()], Fit(), start(), checkpoint_every=math.nan)
    with pytest.raises(ArgumentError, match="record_every"):
        train([Descent()], Fit(), start(), record_every=0)
    folder = make(tmp_path / "run")
    train([Descent(2)], Fit(), start(), folder=folder)
    with pytest.raises(RunFolderError, match="already holds the metrics"):
        train([Descent(2)], Fit(), start(), folder=folder)


def test_a_stage_that_does_not_count_is_refused() -> None:
    @dataclass(frozen=True)
    class Stuck(Descent):
        def step(self, objective: Objective, state: State) -> State:
            return replace(super().step(objective, state), iteration=0)

    with pytest.raises(ArgumentError, match="returned iteration 0 after 0"):
        train([Stuck(5)], Fit(), start())


def test_a_stage_may_end_without_a_further_iteration(tmp_path: Path) -> None:
    """As when a line search finds nothing lower."""

    @dataclass(frozen=True)
    class Halting(Descent):
        def step(self, objective: Objective, state: State) -> State:
            return (
                super().step(objective, state)
                if state.iteration < 3
                else replace(state, stop="nothing lower")
            )

    folder = make(tmp_path / "run")
    outcome = train([Halting(9), Descent(2)], Fit(), start(), folder=folder)
    assert outcome.reasons[0] == "nothing lower"
    assert [record.step for record in outcome.history] == [1, 2, 3, 4, 5]
    assert train([Halting(9), Descent(2)], Fit(), start(), folder=folder, resume=True).loss == outcome.loss


def test_a_memory_that_cannot_be_stored_is_known_at_once(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Opaque(Descent):
        def begin(self, objective: Objective, theta: torch.Tensor) -> State:
            return replace(super().begin(objective, theta), memory={"pairs": [object()]})

    watch = Watch()
    with pytest.raises(DtypeError, match=r"\['memory'\]\['pairs'\]\[0\] is a object"):
        train([Opaque(5)], Fit(), start(), folder=make(tmp_path / "run"), callbacks=[watch])
    assert watch.steps == []


def test_infinite_interval_writes_only_where_stages_begin_and_end(tmp_path: Path) -> None:
    class Count(Watch):
        def on_step(self, record: Record) -> None:
            loaded = load_checkpoint(folder.checkpoints)
            assert loaded is not None
            seen.append(loaded.checkpoint.step)

    folder, seen = make(tmp_path / "run"), []
    train(
        [Descent(3), Moments(2)],
        Fit(),
        start(),
        folder=folder,
        checkpoint_every=math.inf,
        callbacks=[Count()],
    )
    assert seen == [0, 0, 0, 3, 3]


def test_a_stage_that_gives_up_without_a_step_ends_with_its_reason():
    """Adam stops at the last finite parameters when a step leads to a loss that is not finite."""

    class GivesUp:
        iterations = 9

        def begin(self, objective, theta):
            return State(theta, 4.0)

        def step(self, objective, state):
            if state.iteration == 2:
                return State(state.theta, state.loss, 2, stop="the next step leads nowhere")
            return State(state.theta, state.loss / 2, state.iteration + 1)

    outcome = train([GivesUp()], Fit(), start())
    assert outcome.reasons == ("the next step leads nowhere",)
    assert [r.step for r in outcome.history] == [1, 2]
    assert outcome.loss == 1.0
