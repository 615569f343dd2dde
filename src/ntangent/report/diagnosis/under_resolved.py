"""Under-resolved: the equation holds at the training points and not between them."""

from __future__ import annotations

from typing import Any

from ntangent.pinn.held_out import PARTED
from ntangent.report.data import RunData
from ntangent.report.diagnosis.base import RULES, Answer, Rule, brief, fine, holds, scale, unknown
from ntangent.report.diagnosis.pictures import bars
from ntangent.report.style import Palette

MATTERS = 1e-6


def check(data: RunData) -> Answer:
    """Compare the mean square residual at points never trained on with that at the trained ones."""
    result = data.result or {}
    if "held_out" not in result or "trained" not in result:
        return unknown("no held-out residual was measured")
    held, trained = float(result["held_out"]), float(result["trained"])
    ratio = held / trained if trained > 0 else float("inf")
    if ratio <= PARTED or held <= MATTERS * scale(data):
        return fine(ratio=ratio)
    return holds(
        f"The mean square residual is {brief(held)} at points that were not trained on, {brief(ratio)} "
        "times that at "
        "the training points: the network fits the points, not the equation.",
        ratio=ratio, held_out=held, trained=trained,
    )  # fmt: skip


def draw(_: RunData, palette: Palette, answer: Answer) -> Any:
    """Draw both mean squares."""
    values = {"training points": answer.evidence["trained"], "other points": answer.evidence["held_out"]}
    return bars(values, palette, "Mean square of the residual", PARTED * answer.evidence["trained"], log=True)


RULES.add(
    "under-resolved",
    Rule(
        "under-resolved",
        "Under-resolved: large residual between the points",
        f"held-out mean square above {PARTED:g} times the trained one, and above {MATTERS} of the loss at "
        "the start",
        "held-out residual of ntangent.pinn; sampling noise alone stays well below the factor",
        (
            'refine="auto", which adds points when this happens, or more points from the start',
            "a smaller network, or other points in every few iterations: resample=Resample(every=100)",
        ),
        check,
        draw,
    ),
)
