"""Gradients of stiff equations: what schemes make of fast modes, and what can be learnt of them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from experiments._common.lines import Line, measure, read
from experiments._common.paper import Figure, Options, Paper
from experiments.stiff_gradients import figures, gradients, recovery, schemes


def check(claims: Sequence[Line], files: Mapping[str, Path], _options: Options) -> list[float | None]:
    """Return our value of each claim."""
    lines = {name: read(path) for name, path in files.items()}
    values: dict[str, float | None] = {}
    if lines["decay"]:
        values |= of_schemes(lines["decay"])
    if lines["signs"]:
        wrong = [line for line in lines["signs"] if line["exact"]]
        values["wrong-sign"] = float(sum(line["a_stable"] for line in wrong))
        values["scan"] = max(line["gap"] for line in lines["signs"])
    for equation, name in (("linear", "steps-linear"), ("sine", "steps-newton")):
        errors = [e for line in lines["steps"] if line["equation"] == equation for e in line["errors"]]
        if errors:
            values[name] = max(math.inf if e is None else e for e in errors)
    values |= of_singular_values(lines["singular"])
    for name, way in (
        ("rate-lost", "adam-rate"),
        ("rate-found", "lm-graded"),
        ("rate-lobatto", "lm-lobatto"),
    ):
        found = [x["error"] for x in lines["recovery"] if x["way"] == way and x["k"] == 1e5]
        values[name] = max(found) if found else None
    return [values.get(claim["id"]) for claim in claims]


def of_schemes(lines: Sequence[Line]) -> dict[str, float | None]:
    """Return the values that R' alone decides."""
    stable = [line for line in lines if line["a_stable"]]
    rational = [line for line in stable if math.isfinite(line["order"])]
    one_step = [line for line in rational if not line["multistep"]]
    far = schemes.SIZES[-1]
    return {
        "every-scheme": max(line["rays"]["0"][-1] * far for line in stable),
        "typical-order": -float(np.median([line["slopes"]["0"] for line in rational])),
        "bound": max(value for line in stable if not line["multistep"] for value in line["sector"].values()),
        "bound-bdf2": next(max(line["sector"].values()) for line in lines if line["method"] == "bdf2"),
        "slowest-scheme": min(-line["slopes"]["0"] for line in one_step),
        "slowest-function": schemes.envelope(),
        "fastest-scheme": max(-line["slopes"]["0"] for line in one_step),
        "numerical": min(line["at_30"] for line in rational),
    }


def of_singular_values(lines: Sequence[Line]) -> dict[str, float | None]:
    """Return the values that trajectories' Jacobians decide."""
    two = {
        (line["method"], line["outputs"], line["fast"]): line["values"]
        for line in lines
        if line["problem"] == "two_scale"
    }
    radau = "radau_iia3"
    rates = np.array(sorted(fast for name, outputs, fast in two if name == radau and outputs == "even"))
    rates = rates[rates >= 1e3]
    if len(rates) < 2:
        return {}
    smallest = np.array([two[radau, "even", rate][-1] for rate in rates])
    seen = two[radau, "geometric", 1e5]
    return {
        "singular-slope": -float(np.polyfit(np.log(rates), np.log(smallest), 1)[0]),
        "singular-exact": two[radau, "even", 1e3][-1] / two["exact", "even", 1e3][-1],
        "singular-seen": seen[-1] / seen[0],
    }


FIGURES = (
    Figure(1, "|R'(z)| and |z R'(z)| on the negative axis", "decay", figures.axis),
    Figure(2, "|z R'(z)| along rays, with the bound", "decay", figures.rays),
    Figure(3, "orders of decay, fitted and proved", "decay", figures.orders),
    Figure(4, "where the gradient has the wrong sign", "signs", figures.signs),
    Figure(5, "gradients through five steps", "steps", figures.steps),
    Figure(6, "singular values of the trajectory's Jacobian", "singular", figures.singular),
    Figure(7, "a fast rate recovered from slow data", "recovery", figures.recovered),
)
PAPER = Paper(
    "stiff_gradients",
    {figure.number: figure for figure in FIGURES},
    {
        "decay": measure(schemes.every_method, schemes.decay_line),
        "signs": measure(schemes.every_method, schemes.sign_line),
        "steps": measure(gradients.steps_cells, gradients.steps_line),
        "singular": measure(gradients.singular_cells, gradients.singular_line),
        "recovery": measure(recovery.recovery_cells, recovery.recovery_line),
    },
    check,
)
