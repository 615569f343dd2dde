"""Stuck in diffusion: the batches disagree on the gradient, and the loss stays where it is."""

from __future__ import annotations

from typing import Any

from ntangent._base.errors import NtangentError
from ntangent.diagnose import phases, smoothed_snr
from ntangent.report.data import RunData
from ntangent.report.diagnosis.base import (
    RULES,
    Answer,
    Rule,
    fine,
    flat,
    holds,
    readings,
    remaining,
    unknown,
)
from ntangent.report.diagnosis.pictures import curves
from ntangent.report.style import Palette

THRESHOLD, SMALL = 0.5, 1e-3


def window(count: int) -> int:
    """Return the readings that are averaged: a fiftieth of them, three at least."""
    return max(3, count // 50)


def check(data: RunData) -> Answer:
    """Look at the phases of the signal-to-noise ratio."""
    iterations, mean = readings(data, "snr.mean")
    _, noise = readings(data, "snr.noise")
    if not len(iterations):
        return unknown("no signal-to-noise ratio was recorded; solve with --monitor snr")
    try:
        found = phases(iterations, smoothed_snr(mean, noise, window(len(iterations))), threshold=THRESHOLD)
    except NtangentError as error:
        return unknown(str(error).splitlines()[0])
    if found.current != "diffusion" or not flat(data) or remaining(data) < SMALL:
        return fine(phase=found.current)
    last = found.phases[-1]
    return holds(
        f"Since iteration {last.start:.0f} the gradients of different points disagree (signal-to-noise ratio "
        f"about {last.level:.2g}) and the loss has hardly moved. The transition to total diffusion, at which "
        "residuals become homogeneous and the error falls, has not come.",
        phase=found.current, since=last.start, level=last.level, loss_left=remaining(data),
    )  # fmt: skip


def draw(data: RunData, palette: Palette, _: Answer) -> Any:
    """Draw the ratio against iterations."""
    iterations, mean = readings(data, "snr.mean")
    _, noise = readings(data, "snr.noise")
    smooth = smoothed_snr(mean, noise, window(len(iterations))).tolist()
    rows = {"as read": (iterations, mean / noise), "smoothed": (iterations, smooth)}
    return curves(rows, palette, "Signal-to-noise ratio of the gradient", THRESHOLD, log_x=True)


RULES.add(
    "stuck-in-diffusion",
    Rule(
        "stuck-in-diffusion",
        "Stuck in diffusion: no transition yet",
        f"the last phase of the signal-to-noise ratio is diffusion (below {THRESHOLD}), the loss fell by "
        "less than "
        f"2 over the last half, and more than {SMALL} of the loss at the start is left",
        "Anagnostopoulos et al., arXiv 2403.18494; phases by the change-point rule of ntangent.diagnose",
        (
            "weighting=RBA() (residual-based attention brings the transition forward)",
            "more iterations, or LevenbergMarquardt / SSBroyden stages after Adam",
            "weighting=Causal() for evolution equations",
        ),
        check,
        draw,
    ),
)
