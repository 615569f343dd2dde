"""What a rule of the diagnosis is, what it answers, and what several rules need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ntangent._base.registry import Registry
from ntangent.report.data import RunData
from ntangent.report.style import Palette
from ntangent.run.callbacks import MONITOR

HOLDS, FINE, UNKNOWN = "holds", "does not hold", "cannot be told"


@dataclass(frozen=True)
class Answer:
    """What a rule says of a run.

    Args:
        state: "holds", "does not hold" or "cannot be told".
        text: what was found, or why nothing can be told.
        evidence: the numbers behind it.
    """

    state: str
    text: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)


def holds(text: str, **evidence: Any) -> Answer:
    """Return the answer that the fault is there."""
    return Answer(HOLDS, text, evidence)


def fine(**evidence: Any) -> Answer:
    """Return the answer that the fault is not there."""
    return Answer(FINE, "", evidence)


def unknown(why: str) -> Answer:
    """Return the answer that the files do not say."""
    return Answer(UNKNOWN, why)


Draw = Callable[[RunData, Palette, Answer], Any]


@dataclass(frozen=True)
class Rule:
    """A fault that the files of a run can show.

    Args:
        name: for programs.
        title: the fault in words.
        threshold: when it is said to hold.
        source: where the criterion comes from.
        advice: what to try, the most promising first.
        check: from the files of a run to an answer.
        draw: the figure that shows it, given the answer.
    """

    name: str
    title: str
    threshold: str
    source: str
    advice: tuple[str, ...]
    check: Callable[[RunData], Answer]
    draw: Draw


RULES: Registry[Rule] = Registry("rule")


def fact(data: RunData, name: str) -> Any:
    """Return what was measured at the end under a name; None where it was not."""
    return (data.final or {}).get(name)


def why_missing(data: RunData, name: str) -> Answer:
    """Return the answer of a rule that lacks a measurement of the end."""
    if data.final is None:
        return unknown("the run has no final.json: it did not end, or was made by an older version")
    return unknown(data.final.get("missing", {}).get(name, f"{name} was not measured"))


def readings(data: RunData, name: str) -> tuple[Any, Any]:
    """Return iterations and values of a number of the monitor."""
    found = [(r.step, r.info[MONITOR + name]) for r in data.metrics.steps if MONITOR + name in r.info]
    return np.array([i for i, _ in found]), np.array([v for _, v in found], dtype=float)


def losses(data: RunData) -> Any:
    """Return the recorded losses."""
    return np.array([record.loss for record in data.metrics.steps], dtype=float)


def scale(data: RunData) -> float:
    """Return the loss of a field that knows nothing: the first recorded one, or that of zero if larger."""
    recorded = losses(data)
    zero = [term.get("of_zero") or 0.0 for term in (fact(data, "terms") or {}).values()]
    return max(float(np.nanmax(recorded[:1])) if len(recorded) else 0.0, sum(zero), 1e-300)


def remaining(data: RunData) -> float:
    """Return the final loss as a share of :func:`scale`."""
    return (data.loss if data.loss is not None else float("nan")) / scale(data)


def flat(data: RunData, share: float = 0.5, factor: float = 2.0) -> bool:
    """Return whether the median loss fell by less than a factor over the last part of the training."""
    recorded = losses(data)
    count = max(1, len(recorded) // 10)
    start = int(len(recorded) * (1 - share))
    if len(recorded) < 10:
        return False
    return bool(np.median(recorded[start : start + count]) < factor * np.median(recorded[-count:]))


def fields(data: RunData) -> dict[str, tuple[Any, Any]]:
    """Return every field on the evaluation grid with the exact one, None where it is not known."""
    arrays = data.arrays or {}
    if "derivatives" in arrays:
        exact = arrays["exact"][0] if "exact" in arrays else None
        return {data.field: (arrays["derivatives"][0], exact)}
    inside = arrays.get("inside")
    found = {}
    for name, values in arrays.items():
        if name.startswith("field_"):
            pair = values, arrays.get("exact_" + name.removeprefix("field_"))
            kept = [v if v is None or inside is None else np.where(_like(inside, v), v, np.nan) for v in pair]
            found[name.removeprefix("field_")] = (kept[0], kept[1])
    return found


def _like(inside: Any, values: Any) -> Any:
    return inside if inside.ndim == values.ndim else inside[..., None]


def brief(value: float) -> str:
    """Return a number in two digits."""
    return f"{value:.2g}"
