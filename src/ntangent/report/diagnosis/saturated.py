"""Saturated layers: most units of a layer pass no gradient."""

from __future__ import annotations

from typing import Any

from ntangent.report.data import RunData
from ntangent.report.diagnosis.base import RULES, Answer, Rule, fact, fine, holds, why_missing
from ntangent.report.diagnosis.pictures import bars
from ntangent.report.style import Palette

MOST = 0.5


def check(data: RunData) -> Answer:
    """Look for a layer of which half the units are flat at nearly all points."""
    found = fact(data, "layers")
    if found is None:
        return why_missing(data, "layers")
    worst = max(found, key=lambda name: found[name])
    if found[worst] < MOST:
        return fine(layers=found)
    return holds(
        f"{found[worst]:.0%} of the units of layer {worst} are saturated: their activation has a slope "
        "below 0.01 at "
        "95 % of the points, so that nothing before them learns.",
        layer=worst, layers=found,
    )  # fmt: skip


def draw(_: RunData, palette: Palette, answer: Answer) -> Any:
    """Draw the share of saturated units by layer."""
    return bars(answer.evidence["layers"], palette, "Share of saturated units by layer", MOST)


RULES.add(
    "saturated-layers",
    Rule(
        "saturated-layers",
        "Saturated layers",
        f"{MOST:.0%} or more of a layer's units have an activation slope below 0.01 at 95 % of the points",
        "Glorot & Bengio 2010; saturation at the phase transition: arXiv 2403.18494",
        (
            "Normalise(net, domain), which maps the coordinates to [-1, 1]",
            "a smaller learning rate, or Glorot weights at the start",
            'activation="sin", which does not saturate',
        ),
        check,
        draw,
    ),
)
