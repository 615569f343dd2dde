"""Derivative noise: what is left of the residual is the rounding of its own evaluation."""

from __future__ import annotations

from typing import Any

from ntangent.report.data import RunData
from ntangent.report.diagnosis.base import RULES, Answer, Rule, brief, fact, fine, holds, scale, why_missing
from ntangent.report.diagnosis.pictures import bars
from ntangent.report.style import Palette

# One rounding of θ moves the residual less than all roundings of its evaluation do: optimisers come to
# rest at 20 to 50 times that (Levenberg-Marquardt, SSBroyden in float32, derivatives of order 4 and 6).
SHARE, FLOOR = 0.02, 1e-5


def check(data: RunData) -> Answer:
    """Compare each residual with its change under a rounding of the parameters."""
    found = fact(data, "noise")
    if found is None:
        return why_missing(data, "noise")
    size = scale(data) ** 0.5
    noisy = {
        name: one["noise"] / one["residual"]
        for name, one in found.items()
        if one["residual"] > FLOOR * size and one["noise"] > SHARE * one["residual"]
    }
    if not noisy:
        return fine()
    worst = max(noisy, key=lambda name: noisy[name])
    kind = data.config.get("dtype", "")
    return holds(
        f"Rounding the parameters in {kind} changes the residual of {worst} by "
        f"{brief(found[worst]['noise'])}, and "
        f"{brief(found[worst]['residual'])} of it is left: the optimiser is fitting round-off.",
        term=worst, noise=found[worst]["noise"], residual=found[worst]["residual"], dtype=kind,
    )  # fmt: skip


def draw(data: RunData, palette: Palette, _: Answer) -> Any:
    """Draw noise and residual of every term."""
    values: dict[str, float] = {}
    for name, one in fact(data, "noise").items():
        values |= {f"{name}, residual": one["residual"], f"{name}, noise": one["noise"]}
    return bars(values, palette, "Residual and its change under rounding", log=True)


RULES.add(
    "derivative-noise",
    Rule(
        "derivative-noise",
        "Derivative noise: at the round-off floor",
        f"a rounding of the parameters changes a residual by more than {SHARE} of itself, {FLOOR} of its "
        "scale or more",
        "backward error: the residual at rounded parameters; floors of differences: arXiv 2405.14099",
        (
            "dtype=torch.float64",
            "exact derivatives (jets) in place of finite differences, or a larger step",
            "lower the order: a system of first-order equations for the same problem",
        ),
        check,
        draw,
    ),
)
