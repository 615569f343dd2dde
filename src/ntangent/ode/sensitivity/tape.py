"""The accepted steps of a solve, in chunks, with the stages of some of them left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from ntangent.ode.steppers.base import Step, Steps

# Numbers in the block matrices of one chunk: 64 MB in float64.
CHUNK_ENTRIES = 2**23


class Tape:
    """Keeps steps; with a checkpoint every k steps it keeps their stages for none of them.

    What is always kept of a step is its start (t, h, y). The stages, s times as much, are found
    again on the way back, chunk by chunk.

    Args:
        checkpoint: None keeps the stages; k leaves them out and recomputes k steps at a time.
    """

    def __init__(self, checkpoint: int | None = None) -> None:
        self.checkpoint = checkpoint
        self.steps: list[Step] = []

    def __call__(self, step: Step) -> None:
        """Keep one step."""
        if self.checkpoint is not None and step.stepper.recomputable:
            step.stages = step.extra = None
        self.steps.append(step)

    def chunks(self) -> list[list[Step]]:
        """Return consecutive runs of steps of one stepper, as long as memory allows."""
        runs: list[list[Step]] = []
        for step in self.steps:
            if runs and runs[-1][0].stepper is step.stepper and len(runs[-1]) < self._longest(step):
                runs[-1].append(step)
            else:
                runs.append([step])
        return runs

    def _longest(self, step: Step) -> int:
        if self.checkpoint is not None:
            return self.checkpoint
        batch, n = step.state.shape[-2:]
        s = 1 if step.stages is None else len(step.stages)
        return max(1, CHUNK_ENTRIES // (batch * (s * n) ** 2 + 64 * s * batch * n))


def restore(steps: list[Step]) -> Steps:
    """Return the steps stacked, with stages found again where they were left out."""
    with torch.no_grad():
        full = list(_restored(steps))
    return Steps.stack(full)


def _restored(steps: list[Step]) -> Iterator[Step]:
    yield from _at_once(steps) or _one_by_one(steps)


def _at_once(steps: list[Step]) -> list[Step]:
    """Return given steps with their stages solved for together, as on the way there; [] if that fails."""
    stepper, state = steps[0].stepper, steps[0].state
    if not (stepper.control.fixed and 1 < len(steps) <= stepper.longest_leap(state)):
        return []
    if any(step.stages is not None for step in steps):
        return []
    found = stepper.leap(torch.stack([s.t for s in steps]), torch.stack([s.h for s in steps]), state)
    if found is None:
        return []
    return [replace(step, stages=stages) for step, stages in zip(steps, found.stages, strict=True)]


def _one_by_one(steps: list[Step]) -> Iterator[Step]:
    previous: Step | None = None
    for step in steps:
        if step.stages is not None:
            yield step
            continue
        stepper = step.stepper
        if previous is None:
            stepper.initial(step.t, step.state[0])
        attempt = stepper.attempt(step.t, step.h, step.state)
        moved = step.h != 0
        stages = torch.where(moved[:, None], attempt.stages, step.state[0])
        extra = attempt.extra
        stepper.accept(moved, step.t, step.h, attempt)
        previous = step
        yield Step(stepper, step.t, step.h, step.state, stages, extra, step.hit)
