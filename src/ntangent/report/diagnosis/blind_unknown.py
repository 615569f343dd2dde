"""Unknown parameter without signal: the residual does not feel it."""

from __future__ import annotations

from typing import Any

from ntangent.report.data import RunData
from ntangent.report.diagnosis.base import RULES, Answer, Rule, brief, fact, fine, holds, scale, why_missing
from ntangent.report.diagnosis.pictures import bars
from ntangent.report.style import Palette

RATIO, ABSOLUTE = 0.1, 1e-6


def check(data: RunData) -> Answer:
    """Compare what a change of an unknown by its own size does with the residual that is left."""
    found = fact(data, "unknowns")
    if found is None:
        return why_missing(data, "unknowns")
    size = scale(data) ** 0.5
    blind = {
        name: one
        for name, one in found.items()
        if one["reach"] < RATIO * one["residual"] or one["reach"] < ABSOLUTE * size
    }
    if not blind:
        return fine()
    name = min(blind, key=lambda key: blind[key]["reach"])
    one = blind[name]
    return holds(
        f"A change of {name} by its own size changes the residual by {brief(one['reach'])}; "
        f"{brief(one['residual'])} "
        f"is left of it. The data do not determine {name} (found {one['value']:.4g}, started at "
        f"{one['start']:.4g}).",
        unknown=name, **one,
    )  # fmt: skip


def draw(_: RunData, palette: Palette, answer: Answer) -> Any:
    """Draw reach and residual."""
    name = answer.evidence["unknown"]
    values = {f"change with {name}": answer.evidence["reach"], "residual left": answer.evidence["residual"]}
    return bars(values, palette, "What the residual feels of the unknown", log=True)


RULES.add(
    "unknown-without-signal",
    Rule(
        "unknown-without-signal",
        "An unknown parameter has no signal",
        f"a change by its own size moves the residual less than {RATIO} of what is left of it, or less "
        f"than {ABSOLUTE} "
        "of its scale",
        "local sensitivity, as in identifiability analysis (Walter & Pronzato 1997)",
        (
            "data where the field depends on it: more PointData, other places or times",
            "bring its term to the size of the others: problem.nondimensionalise(...)",
            "fix it, if it cannot be known from such data",
        ),
        check,
        draw,
    ),
)
