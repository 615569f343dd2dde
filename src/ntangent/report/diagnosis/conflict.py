"""Gradient conflict: two terms of the loss pull against each other, and neither can fall."""

from __future__ import annotations

from typing import Any

from ntangent.report.data import RunData
from ntangent.report.diagnosis.base import (
    RULES,
    Answer,
    Rule,
    brief,
    fact,
    fine,
    flat,
    holds,
    remaining,
    why_missing,
)
from ntangent.report.diagnosis.pictures import bars
from ntangent.report.style import Palette

OPPOSED, SHARE, SMALL = -0.5, 0.01, 1e-3


def check(data: RunData) -> Answer:
    """Look for opposed gradients of terms that both matter, where the loss has stopped falling."""
    found = fact(data, "gradients")
    if found is None:
        return why_missing(data, "gradients")
    terms = (data.result or {}).get("terms", {})
    total = sum(terms.values())
    names, pairs = found["names"], []
    for i, first in enumerate(names):
        for j in range(i):
            both = min(terms.get(first, 0.0), terms.get(names[j], 0.0))
            cosine = found["cosines"][i][j]
            if cosine < OPPOSED and total > 0 and both > SHARE * total:
                pairs.append((cosine, names[j], first))
    if not pairs or remaining(data) < SMALL or not flat(data):
        return fine()
    cosine, a, b = min(pairs)
    return holds(
        f"The gradients of {a} and {b} point against each other (cosine {cosine:.2f}), the loss has stopped "
        f"falling, and {brief(remaining(data))} of the loss at the start is left: what lowers one raises "
        "the other.",
        cosine=cosine, terms=[a, b], loss_left=remaining(data),
    )  # fmt: skip


def draw(data: RunData, palette: Palette, _: Answer) -> Any:
    """Draw the cosines of all pairs."""
    found = fact(data, "gradients")
    names = found["names"]
    values = {f"{names[j]} · {names[i]}": found["cosines"][i][j] for i in range(len(names)) for j in range(i)}
    return bars(values, palette, "Cosines between the gradients of the terms", OPPOSED)


RULES.add(
    "gradient-conflict",
    Rule(
        "gradient-conflict",
        "Gradient conflict between terms",
        f"cosine below {OPPOSED} between two terms that each hold more than {SHARE:.0%} of the loss, which "
        "no longer "
        f"falls and is more than {SMALL} of that at the start",
        "Yu et al. 2020 (arXiv 2001.06782); for PINNs Wang et al. 2025 (arXiv 2502.00604)",
        (
            "check that the conditions can all hold at once: two that contradict each other never will",
            "a second-order method, which is not slowed by opposed gradients: LevenbergMarquardt, SSBroyden",
            "build one of the two into the network: Dirichlet(..., hard=True)",
        ),
        check,
        draw,
    ),
)
