"""The training loop: stages in sequence, recorded, checkpointed, resumable to the same bits."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.errors import (
    ArgumentError,
    CheckpointError,
    ConvergenceError,
    DistributedError,
    RunFolderError,
)
from ntangent._base.protocols import Objective, Preparing, Refreshing, Stage, State, version
from ntangent.run.callbacks import (
    Callback,
    EndRecord,
    Outcome,
    Record,
    StageRecord,
    Stateful,
    check_callbacks,
)
from ntangent.run.checkpoint import (
    Checkpoint,
    clean,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    set_aside,
)
from ntangent.run.folder import RunFolder
from ntangent.run.interrupts import Interrupts
from ntangent.run.metrics import MetricsWriter, read_metrics

_log = logging.getLogger("ntangent.run")


def train(
    stages: Sequence[Stage],
    objective: Objective,
    theta: Tensor,
    *,
    folder: RunFolder | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    checkpoint_every: float = 10.0,
    record_every: int = 1,
    extra: Callable[[], Mapping[str, Any]] | None = None,
    restore: Callable[[dict[str, Any]], object] | None = None,
    describe: Callable[[Tensor], Mapping[str, float]] | None = None,
    measure: Callable[[int, State], Mapping[str, float]] | None = None,
    revise: Callable[[Objective, Stage, Tensor, int], object] | None = None,
) -> Outcome:
    """Train through all stages, each until it stops by itself or has used its budget.

    With a folder the run can be killed at any instant and resumed: the final parameters, loss
    and metrics (but for their times) are those of a run that was never killed, to the bit, on
    the same machine with the same number of threads. Ctrl-C and SIGTERM end the run after the
    iteration under way, with a checkpoint; a second one ends it at once.

    Args:
        stages: the optimisers, in order.
        objective: what is minimised; a deterministic function of θ. A stage may put another one in
            its place (``Preparing``); ``Outcome.objective`` is the last.
        theta: starting point, shape (P,).
        folder: where metrics and checkpoints go; None keeps the history in memory only.
        resume: continue from the newest good checkpoint (from the start when there is none yet).
        callbacks: who watches; called in every iteration.
        checkpoint_every: seconds between checkpoints (0: every iteration; infinity: only where
            a stage ends).
        record_every: iterations between two records; the last of a stage is always recorded.
        extra: returns what the caller must find again after a resume (states of generators,
            samplers, weights), as tensors and plain values.
        restore: takes what ``extra`` returned, before the first iteration of a resumed run.
        describe: returns named numbers for the metrics (unknown parameters), given θ of whichever stage.
        measure: returns further numbers, given the step and the state of the stage (θ, the optimiser's
            memory); they stand beside those that the stage reports. It is asked at recorded iterations
            and may return none.
        revise: may change what the objective computes (weights, points) before a stage begins and
            between two of its iterations; gets the objective, the stage, θ and the iterations done
            since the run began. An objective that changes counts up its ``version``, and the stage
            takes the change up (``Refreshing``). What it remembers belongs into ``extra``. A stage
            that cannot be refreshed is left alone until it ends.

    Raises:
        ArgumentError: an argument contradicts another one.
        RunFolderError: the folder holds results and ``resume`` is False, or another process
            trains in it.
        CheckpointError: no checkpoint is good, or it belongs to another run.
        ConvergenceError: the loss became NaN or infinite; the last good checkpoint is named.
        DistributedError: another process of a distributed run was lost; the last checkpoint is named.
        KeyboardInterrupt, SystemExit: after SIGINT and SIGTERM, when the checkpoint is written.

    Cost: about 10 microseconds an iteration beside the stage itself, and a checkpoint now and then.
    """
    _check_arguments(stages, theta, folder, resume, checkpoint_every)
    check_positive(record_every, "record_every", integer=True)
    with Interrupts(active=folder is not None) as interrupts:
        training = _Training(
            stages,
            objective,
            theta,
            folder,
            check_callbacks(callbacks),
            checkpoint_every,
            record_every,
            extra,
            describe,
            measure,
            revise,
        )
        training.interrupts = interrupts
        try:
            if folder is not None:
                training.open(folder, resume, restore)
            return training.run()
        finally:
            if training.writer is not None:
                training.writer.close()


def _check_arguments(
    stages: Sequence[Stage], theta: Tensor, folder: RunFolder | None, resume: bool, checkpoint_every: float
) -> None:
    if not stages:
        raise ArgumentError("stages is empty", "nothing would be done", "stages=[optim.Adam(1_000)]")
    if theta.ndim != 1:
        raise ArgumentError(
            f"theta must be a flat vector of shape (P,), got {tuple(theta.shape)}", "", "theta.reshape(-1)"
        )
    if not checkpoint_every >= 0:
        raise ArgumentError(f"checkpoint_every must be at least 0, got {checkpoint_every!r}", "", "10.0")
    if resume and folder is None:
        raise ArgumentError("resume=True without a folder", "checkpoints are in a folder", "folder=...")


@dataclass
class _Training:
    """The moving parts of ``train``; every public step keeps them consistent for a checkpoint."""

    stages: Sequence[Stage]
    objective: Objective
    theta: Tensor
    folder: RunFolder | None
    callbacks: tuple[Callback, ...]
    checkpoint_every: float
    record_every: int
    extra: Callable[[], Mapping[str, Any]] | None
    describe: Callable[[Tensor], Mapping[str, float]] | None
    measure: Callable[[int, State], Mapping[str, float]] | None = None
    revise: Callable[[Objective, Stage, Tensor, int], object] | None = None

    index: int = 0
    state: State | None = None
    loss: float = math.nan
    iterations: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    history: list[Record] = field(default_factory=list)
    entries: list[Tensor] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    writer: MetricsWriter | None = None
    interrupts: Interrupts = field(default_factory=Interrupts)
    before: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    due: float = math.inf
    settled: bool = True  # False while callbacks may have seen an iteration only in part

    def __post_init__(self) -> None:
        self.names = [type(stage).__name__ for stage in self.stages]

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.started

    @property
    def step(self) -> int:
        return sum(self.iterations) + (self.state.iteration if self.state is not None else 0)

    def open(
        self, folder: RunFolder, resume: bool, restore: Callable[[dict[str, Any]], object] | None
    ) -> None:
        """Begin or continue the files of a run."""
        if not resume and (list_checkpoints(folder.checkpoints) or folder.metrics_path.exists()):
            raise RunFolderError(
                f"{folder.path} already holds the metrics or checkpoints of a run",
                "a new run would mix with it",
                "train(..., resume=True), or RunFolder.create(..., overwrite=True)",
            )
        folder.checkpoints.mkdir(exist_ok=True)
        loaded = load_checkpoint(folder.checkpoints) if resume else None
        size = 0 if loaded is None else self._adopt(folder, loaded.checkpoint, restore)
        self.writer = MetricsWriter(folder.metrics_path, size)
        # Only now, under the writer's lock, may files change.
        clean(folder.checkpoints)
        if loaded is not None:
            self.warnings = loaded.warnings
            for text in loaded.warnings:
                _log.warning(text)
            set_aside(loaded.damaged)
            self.history = read_metrics(folder.metrics_path, size).steps
        self.due = time.perf_counter() + self.checkpoint_every

    def _adopt(
        self, folder: RunFolder, found: Checkpoint, restore: Callable[[dict[str, Any]], object] | None
    ) -> int:
        """Take over the content of a checkpoint; return the size of the metrics it knew."""
        if found.config_hash != folder.config_hash or found.stage_names != self.names:
            raise CheckpointError(
                f"the checkpoint in {folder.checkpoints} belongs to another run, with the stages "
                + ", ".join(found.stage_names),
                "its configuration or its stages are not those of this run: " + ", ".join(self.names),
                "resume with the same configuration, or start again with --overwrite",
            )
        if found.extra and restore is None:
            raise ArgumentError(
                f"the checkpoint holds {sorted(found.extra)} of the caller and restore is None",
                "the resumed run would go another way",
                "train(..., extra=sampler.state_dict, restore=sampler.load_state_dict)",
            )
        if restore is not None:
            restore(found.extra)
        for callback, (name, memory) in zip(self._stateful(), found.callbacks, strict=False):
            if type(callback).__name__ == name:
                callback.load_state_dict(memory)
        self._replay(found)
        self.theta, self.loss = found.state.theta, found.state.loss
        self.iterations, self.reasons = list(found.iterations), list(found.reasons)
        self.index = found.stage + 1 if found.finished else found.stage
        self.state = None if found.finished else found.state
        self.before = found.seconds
        return found.metrics_bytes

    def _stateful(self) -> list[Stateful]:
        return [callback for callback in self.callbacks if isinstance(callback, Stateful)]

    def _replay(self, found: Checkpoint) -> None:
        """Change the objective as the stages that have begun did."""
        changing = [stage for stage in self.stages[: found.stage + 1] if isinstance(stage, Preparing)]
        for stage, theta in zip(changing, found.entries, strict=True):
            self._prepare(stage, theta)

    def _prepare(self, stage: Preparing, theta: Tensor) -> None:
        self.entries.append(theta)
        self.objective, self.theta = stage.prepare(self.objective, theta)

    def run(self) -> Outcome:
        """Run the stages that are left."""
        stopped: str | None = None
        try:
            while self.index < len(self.stages) and stopped is None:
                stopped = self._run_stage(self.stages[self.index])
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit | DistributedError) and self.settled:
                self._save()
            if isinstance(error, DistributedError):
                error = DistributedError(error.what, f"{error.why}; {self._last_good()}", error.fix)
            self._end(f"{type(error).__name__}: {error}".split("\n", 1)[0].removesuffix(": "))
            raise error
        return self._end(stopped)

    def _run_stage(self, stage: Stage) -> str | None:
        """Run one stage; return the reason if a callback ended the training."""
        state = self.state
        if state is None:
            if isinstance(stage, Preparing):
                self._prepare(stage, self.theta)
            if self.revise is not None:
                # A copy: at θ as a new object nothing is known, as in a resumed run.
                self.revise(self.objective, stage, self.theta.clone(), self.step)
            state = self._accept(stage.begin(self.objective, self.theta))
            self.settled = True
            # At once: a state that cannot be stored should be known now, not hours later.
            self._pause(force=True)
        # Asked once: looking a protocol up takes longer than many a step beside it.
        refreshing = self.revise is not None and isinstance(stage, Refreshing)
        while state.stop is None and state.iteration < stage.iterations:
            done = state.iteration
            state = self._accept(stage.step(self.objective, state))
            if state.iteration <= done and state.stop is not None:
                break  # a line search that found nothing lower ends its stage without an iteration
            if state.iteration <= done:
                if state.stop is not None:
                    break  # it gave up without a step; the iteration is on record already
                raise ArgumentError(
                    f"{self.names[self.index]}.step returned iteration {state.iteration} after {done}",
                    "a stage that does not count would never end",
                    "State(..., iteration=state.iteration + 1)",
                )
            last = state.stop is not None or state.iteration >= stage.iterations
            stopped = self._report(state, last)
            if not last and refreshing:
                state = self._revised(stage, state)
            self.settled = True
            self._pause(force=stopped is not None)
            if stopped is not None:
                return stopped
        self._finish_stage(stage, state)
        return None

    def _revised(self, stage: Stage, state: State) -> State:
        """Let the caller change the objective, and the stage take the change up."""
        assert self.revise is not None
        before = version(self.objective)
        self.revise(self.objective, stage, state.theta, self.step)
        if version(self.objective) == before:
            return state
        return self._accept(cast("Refreshing", stage).refresh(self.objective, state))

    def _accept(self, state: State) -> State:
        """Make ``state`` the current one if its loss is a number."""
        if not math.isfinite(state.loss):
            name = self.names[self.index]
            self._save()
            raise ConvergenceError(
                f"the loss became {state.loss} in iteration {state.iteration} of stage "
                f"{self.index + 1} ({name})",
                "the parameters left the region where the problem can be computed",
                f"{self._last_good()}; start again with smaller steps or in torch.float64",
            )
        self.settled = False
        self.state, self.theta, self.loss = state, state.theta, state.loss
        return state

    def _last_good(self) -> str:
        if self.folder is None:
            return f"there is no checkpoint, because there is no run folder (last good loss {self.loss!r})"
        paths = list_checkpoints(self.folder.checkpoints)
        return f"the last good checkpoint is {paths[0]}" if paths else "there is no good checkpoint yet"

    def _report(self, state: State, last: bool) -> str | None:
        """Record an iteration and show it to the callbacks; return their reason to stop."""
        recorded = last or state.iteration % self.record_every == 0
        if not (recorded or self.callbacks):
            return None
        values: dict[str, float] = {}
        if recorded and self.describe is not None:
            values = {name: float(value) for name, value in self.describe(state.theta).items()}
        info = state.info
        if recorded and self.measure is not None:
            info = {**info, **self.measure(self.step, state)}
        record = Record(
            self.step,
            self.index,
            self.names[self.index],
            state.iteration,
            state.loss,
            info,
            values,
            self.seconds,
        )
        if recorded:
            self.history.append(record)
            if self.writer is not None:
                self.writer.write(record)
        stopped: str | None = None
        if self.callbacks:
            shown = record._replace(theta=state.theta)
            for callback in self.callbacks:
                stopped = callback.on_step(shown) or stopped
        return stopped

    def _finish_stage(self, stage: Stage, state: State) -> None:
        reason = state.stop or f"budget of {stage.iterations} iterations used"
        name = self.names[self.index]
        record = StageRecord(self.step, self.index, name, state.iteration, state.loss, reason, self.seconds)
        self.settled = False
        if self.writer is not None:
            self.writer.write(record)
        for callback in self.callbacks:
            callback.on_stage(record)
        self.iterations.append(state.iteration)
        self.reasons.append(reason)
        # The method's memory is of no use to the next stage.
        self.state = None
        self._save(finished=State(state.theta, state.loss, state.iteration, {}, state.info, state.stop))
        self.index += 1
        self.settled = True
        self.interrupts.leave_if_pending()

    def _pause(self, force: bool = False) -> None:
        """Between two iterations: write a checkpoint if it is time, and act on signals."""
        pending = self.interrupts.pending is not None
        if force or pending or time.perf_counter() >= self.due:
            self._save()
        if pending:
            self.interrupts.leave_if_pending()

    def _save(self, finished: State | None = None) -> None:
        """Write a checkpoint; nothing to do between stages, where one was just written."""
        state = finished or self.state
        if self.folder is None or self.writer is None or state is None:
            return
        self.writer.sync()  # a checkpoint must never know lines that the disk does not have
        checkpoint = Checkpoint(
            state=state,
            stage=self.index,
            finished=finished is not None,
            stage_names=self.names,
            iterations=self.iterations,
            reasons=self.reasons,
            metrics_bytes=self.writer.size,
            seconds=self.seconds,
            config_hash=self.folder.config_hash,
            extra=dict(self.extra()) if self.extra is not None else {},
            callbacks=[(type(callback).__name__, callback.state_dict()) for callback in self._stateful()],
            entries=self.entries,
        )
        save_checkpoint(self.folder.checkpoints, checkpoint)
        self.due = time.perf_counter() + self.checkpoint_every

    def _end(self, stopped: str | None) -> Outcome:
        """Close the files and tell the callbacks."""
        outcome = Outcome(
            self.theta,
            self.loss,
            self.history,
            tuple(self.reasons),
            self.seconds,
            stopped,
            self.warnings,
            self.objective,
        )
        if self.writer is not None:
            # After the last checkpoint's size, so that a resume cuts this line off again.
            self.writer.write(EndRecord(self.step, self.loss, outcome.seconds, stopped))
            self.writer.close()
        for callback in self.callbacks:
            callback.on_end(outcome)
        return outcome
