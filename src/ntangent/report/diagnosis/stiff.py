"""Stiff decay: the solution forgets its start before the first few points."""

from __future__ import annotations

from typing import Any

from ntangent.report.data import RunData
from ntangent.report.diagnosis.base import RULES, Answer, Rule, brief, fact, fine, holds, why_missing
from ntangent.report.diagnosis.pictures import bars
from ntangent.report.style import Palette

FAST, FEW = 100.0, 5


def check(data: RunData) -> Answer:
    """Compare the decay rate of each equation with the length of the domain and with its points."""
    found = fact(data, "rates")
    if found is None:
        return why_missing(data, "rates")
    stiff = {
        name: one for name, one in found.items() if one["rate"] * one["length"] > FAST and one["points"] < FEW
    }
    if not stiff:
        return fine()
    name = max(stiff, key=lambda key: stiff[key]["rate"])
    one = stiff[name]
    return holds(
        f"In {name} the field decays at the rate {brief(one['rate'])}, "
        f"{brief(one['rate'] * one['length'])} times over "
        f"the domain, and {one['points']} training point(s) see the decay: loss and gradient hardly know "
        "of it.",
        where=name, **one,
    )  # fmt: skip


def draw(_: RunData, palette: Palette, answer: Answer) -> Any:
    """Draw the length of the decay beside that of the domain."""
    one = answer.evidence
    return bars(
        {"length of the decay": 1 / one["rate"], "domain": one["length"]}, palette, "Lengths", log=True
    )


RULES.add(
    "stiff-decay",
    Rule(
        "stiff-decay",
        "Stiff decay that the points do not see",
        f"decay rate times length of the domain above {FAST:g}, and fewer than {FEW} points within three "
        "decay lengths",
        "gradients of stiff components vanish: Fronk & Petzold 2025 (arXiv 2508.01519)",
        (
            "points where the decay is: Clustered(...) near the start, or resample=RAD(every=100)",
            "the logarithm of the time as coordinate",
            "a stiff integrator (ntangent.ode) in place of a network",
        ),
        check,
        draw,
    ),
)
