"""Collapse to a trivial solution: the field is a constant."""

from __future__ import annotations

from typing import Any

import numpy as np

from ntangent.report.data import RunData
from ntangent.report.diagnosis.base import RULES, Answer, Rule, brief, fact, fields, fine, holds, unknown
from ntangent.report.diagnosis.pictures import bars
from ntangent.report.style import Palette

OF_EXACT, OF_CONDITIONS, ZERO = 0.05, 0.1, 1e-2


def check(data: RunData) -> Answer:
    """Compare the variation of the field with that of the exact one, or with what the conditions want."""
    found = fields(data)
    if not found:
        return unknown("the run has no evaluation")
    spread = {name: float(np.nanstd(u)) for name, (u, _) in found.items()}
    for name, (_, exact) in found.items():
        truth = 0.0 if exact is None else float(np.nanstd(exact))
        if spread[name] < OF_EXACT * truth:
            return holds(
                f"{name} is nearly constant: it varies by {brief(spread[name])}, the exact solution by "
                f"{brief(truth)}.",
                field=name, variation=spread[name], exact=truth,
            )  # fmt: skip
    terms = fact(data, "terms") or {}
    largest = max(spread.values())
    missed = {n: t["mean_square"] ** 0.5 for n, t in terms.items() if not n.startswith("equation")}
    solved = all(t["mean_square"] ** 0.5 <= largest for n, t in terms.items() if n.startswith("equation"))
    worst = max(missed, key=lambda name: missed[name]) if missed else ""
    if solved and missed and largest < OF_CONDITIONS * missed[worst]:
        return holds(
            f"The field is nearly constant (it varies by {brief(largest)}) and the condition {worst} is "
            "missed by "
            f"{brief(missed[worst])}: the equation is satisfied by a constant, the conditions are not.",
            variation=largest, condition=worst, missed=missed[worst],
        )  # fmt: skip
    homogeneous = bool(terms) and all(
        t["of_zero"] is not None and t["of_zero"] < 1e-20 for t in terms.values()
    )
    size = max(float(np.nanmax(np.abs(u))) for u, _ in found.values())
    if homogeneous and size < ZERO and all(exact is None for _, exact in found.values()):
        return holds(
            f"The field vanishes (at most {brief(size)}), and zero satisfies the equation and all "
            "conditions.",
            size=size,
        )  # fmt: skip
    return fine(variation=spread)


def draw(_: RunData, palette: Palette, answer: Answer) -> Any:
    """Draw the variation of the field beside what it should be."""
    values = {name: v for name, v in answer.evidence.items() if isinstance(v, float)}
    return bars(values, palette, "Size of the field's variation beside what it is measured against", log=True)


RULES.add(
    "trivial-solution",
    Rule(
        "trivial-solution",
        "Collapse to a trivial solution",
        f"the field varies by less than {OF_EXACT} of the exact one, or by less than {OF_CONDITIONS} of "
        "what a condition "
        f"is missed by; or it is below {ZERO} where zero solves the whole problem",
        "Wong et al. 2022 (arXiv 2109.09338); Rohrhofer et al. 2022 (arXiv 2203.13648)",
        (
            "a condition that excludes it: a norm (Integral), a value at a point (Dirichlet), an ansatz",
            "larger weights on the conditions, or hard=True",
            "weighting=Causal() for evolution equations: it keeps late times from collapsing first",
        ),
        check,
        draw,
    ),
)
