"""One term not trained: the loss is small because it hardly counts one of its terms."""

from __future__ import annotations

from typing import Any

from ntangent.report.data import RunData
from ntangent.report.diagnosis.base import RULES, Answer, Rule, brief, fact, fine, holds, scale, why_missing
from ntangent.report.diagnosis.pictures import bars
from ntangent.report.style import Palette

LEFT, DONE, COUNTS = 0.3, 1e-2, 1e-4


def shares(data: RunData) -> dict[str, float]:
    """Return what is left of each term: of its mean square for a vanishing field, or of its largest loss."""
    found, result = {}, (data.result or {}).get("terms", {})
    for name, term in (fact(data, "terms") or {}).items():
        if term.get("of_zero"):
            found[name] = term["mean_square"] / term["of_zero"]
            continue
        history = [r.info[f"loss {name}"] for r in data.metrics.steps if f"loss {name}" in r.info]
        largest = max(history, default=0.0)
        matters = term["mean_square"] > COUNTS * scale(data)
        found[name] = result.get(name, 0.0) / largest if largest > 0 and matters else 0.0
    return found


def check(data: RunData) -> Answer:
    """Look for a term that is nearly whole while another one is nearly gone."""
    if fact(data, "terms") is None:
        return why_missing(data, "terms")
    left = shares(data)
    if len(left) < 2:
        return fine()
    idle = {name: value for name, value in left.items() if value > LEFT}
    if not idle or min(left.values()) > DONE:
        return fine(left=left)
    name = max(idle, key=lambda key: idle[key])
    norms = fact(data, "gradients") or {"names": [], "norms": []}
    sizes = dict(zip(norms["names"], norms["norms"], strict=True))
    note = ""
    if sizes.get(name) is not None and sizes[name] < 1e-2 * max(sizes.values()):
        note = f" Its gradient is {brief(sizes[name] / max(sizes.values()))} of the largest one."
    return holds(
        f"The term {name} is still at {brief(left[name])} of its size at the start, while others have "
        "fallen below "
        f"{brief(DONE)}.{note}",
        term=name, left=left, gradient_norms=sizes,
    )  # fmt: skip


def draw(data: RunData, palette: Palette, _: Answer) -> Any:
    """Draw what is left of each term."""
    return bars(shares(data), palette, "What is left of each term, without its weight", LEFT, log=True)


RULES.add(
    "term-not-trained",
    Rule(
        "term-not-trained",
        "One term of the loss is not trained",
        f"more than {LEFT} of a term is left (of its mean square for a field that vanishes, or of its "
        "largest loss), "
        f"and less than {DONE} of another",
        "unbalanced gradients: Wang, Teng & Perdikaris 2021 (arXiv 2001.04536)",
        (
            "a larger weight on the term: Dirichlet(..., weight=100)",
            "weighting=GradNorm(), or NTK(), which balance the terms",
            "hard=True, which takes the condition out of the loss",
        ),
        check,
        draw,
    ),
)
