"""The optimiser stopped before it was done, and why."""

from __future__ import annotations

from typing import Any

from ntangent.report.data import RunData
from ntangent.report.diagnosis.base import RULES, Answer, Rule, fact, fine, holds, remaining, unknown
from ntangent.report.diagnosis.pictures import loss_curves
from ntangent.report.style import Palette

SMALL, STATIONARY = 1e-6, 1e-4
# Endings that a user has asked for.
WANTED = ("budget", "tolerance", "exactly zero")


def stationary(data: RunData) -> bool:
    """Return whether the gradients of the terms cancel: no method would go on from there."""
    found = fact(data, "gradients")
    return bool(found) and found["sum"] <= STATIONARY * sum(found["norms"])


def check(data: RunData) -> Answer:
    """Read why the stages ended."""
    end = data.metrics.end
    if end is None and not data.metrics.stages:
        return unknown("no stage has ended")
    if (
        end is not None
        and end.stopped
        and "EarlyStopping" not in end.stopped
        and "Interrupt" not in end.stopped
    ):
        return holds(f"The training broke off: {end.stopped}.", reason=end.stopped, iteration=end.step)
    for stage in data.metrics.stages:
        if any(words in stage.reason for words in WANTED):
            continue
        if "not finite" in stage.reason or not (remaining(data) < SMALL or stationary(data)):
            return holds(
                f"{stage.name} stopped in iteration {stage.iterations} of its stage: {stage.reason}.",
                reason=stage.reason, stage=stage.stage + 1, iteration=stage.step,
            )  # fmt: skip
    return fine()


def draw(data: RunData, palette: Palette, _: Answer) -> Any:
    """Draw the loss with its terms."""
    return loss_curves(data, palette, "Loss and its terms")


RULES.add(
    "optimiser-stopped",
    Rule(
        "optimiser-stopped",
        "The optimiser stopped early",
        f"a stage ended neither by its budget nor by its tolerance, with more than {SMALL} of the loss "
        "left and a "
        f"gradient above {STATIONARY} of those of its terms; or at a number that is not finite",
        "the stages' own stop tests",
        (
            "torch.float64: a line search fails first where rounding hides the decrease",
            "a smaller learning rate or a warm-up by Adam where the loss became infinite",
            "another method for the rest: stages=[Adam(2000), LevenbergMarquardt(300)]",
        ),
        check,
        draw,
    ),
)
