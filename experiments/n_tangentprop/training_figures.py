"""Figures 6 to 10 of the n-TangentProp paper, drawn from the file that training.py writes."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments._common.paper import Options
from experiments.n_tangentprop import training

from ntangent.problems import BurgersProfile
from ntangent.report.style import (
    LIGHT,
    dress,
    legend,
    log_axis,
    new_figure,
    plain_ticks,
    png,
    power_of_ten,
    visible,
)

OURS = {
    "faa-di-bruno": "n-TangentProp (the paper's algorithm)",
    "eager": "ntangent, eager",
    "native": "ntangent, native",
}
PAPER = {1: 2.64, 2: 7.13}  # published ratio of total times, where the baseline learned U = 0


def costs(path: Path, _options: Options) -> bytes:
    """Return Figure 6: loss, error of λ and ratio of cumulative times for profiles 1 and 2."""
    lines = training.read(path)
    figure = new_figure(11.5, 6.6, LIGHT)
    grid = figure.subplots(2, 3, squeeze=False)
    for row, profile in zip(grid, training.TIMED, strict=True):
        schedule = training.find(lines, "schedule", profile)
        if schedule is None:
            continue
        trace = np.array(schedule["trace"])
        _curve(row[0], trace, 4, schedule, f"profile {profile}: loss", "")
        _curve(row[1], trace, 5, schedule, "error of λ", "")
        _ratio(row[2], trace, lines, schedule, profile)
    return png(figure)


def _curve(axes: Any, trace: Any, column: int, schedule: Any, title: str, label: str) -> None:
    values = visible(trace[:, column])
    axes.plot(trace[:, 0], values, color=LIGHT.lines[1], linewidth=1.2, label=label or None)
    axes.axvline(schedule["stages"][0]["iterations"], color=LIGHT.exact, linewidth=1)
    dress(axes, LIGHT, title=title, xlabel="iteration (line: L-BFGS begins)")
    log_axis(axes, values)


def _ratio(axes: Any, trace: Any, lines: Any, schedule: Any, profile: int) -> None:
    """Draw cumulative time of automatic differentiation over that of each backend."""
    cost = training.find(lines, "cost", profile)
    if cost is None:
        return
    first = schedule["stages"][0]["evaluations"]
    adam, rest = np.minimum(trace[:, 3], first), np.maximum(trace[:, 3] - first, 0)
    total = {name: adam * s["adam"] + rest * s["lbfgs"] for name, s in cost["seconds"].items()}
    for (name, label), colour in zip(
        OURS.items(), (LIGHT.lines[0], LIGHT.lines[2], LIGHT.lines[1]), strict=True
    ):
        axes.plot(trace[:, 0], total["autograd"] / total[name], color=colour, linewidth=1.5, label=label)
    axes.axhline(1, color=LIGHT.text, linewidth=1, linestyle="--")
    axes.axhline(PAPER[profile], color=LIGHT.muted, linewidth=1, linestyle=":", label="published total")
    highest = max(float((total["autograd"] / total[name]).max()) for name in OURS)
    axes.set_ylim(0, 1.5 * max(highest, PAPER[profile]))  # with room for the legend
    dress(axes, LIGHT, title="time of autodifferentiation / ours, cumulative", xlabel="iteration")
    legend(axes, LIGHT, loc="upper right")


def profile(number: int, path: Path, _options: Options) -> bytes:
    """Return one of Figures 7 to 10: a profile with its derivatives, loss and error of λ."""
    lines = training.read(path)
    schedule, best = (training.find(lines, kind, number) for kind in ("schedule", "best"))
    order = 2 * number + 1
    columns = 4 if order > 3 else 3
    height = -(-(order + 3) // columns)
    figure = new_figure(3.1 * columns, 2.5 * height + 0.5, LIGHT)
    axes = list(figure.subplots(height, columns, squeeze=False).flat)
    x = torch.linspace(-2, 2, training.SHOWN, dtype=torch.float64)
    exact = BurgersProfile(number).problem().reference(x, order).numpy()  # type: ignore[misc]
    for k in range(order + 1):
        axes[k].plot(x, exact[k], color=LIGHT.exact, linewidth=4, label="exact")
        for line, colour, style, label in (
            (schedule, LIGHT.lines[1], "-", "the paper's schedule"),
            (best, LIGHT.lines[0], "--", "burgers-profile"),
        ):
            if line is not None:
                axes[k].plot(x, line["rows"][k], color=colour, linewidth=1.2, linestyle=style, label=label)
        errors = [f"{power_of_ten(line['max_errors'][k])}" for line in (schedule, best) if line is not None]
        name = "U" + ("" if k == 0 else "'" * k if k < 4 else f"⁽{str(k).translate(RAISED)}⁾")
        dress(axes[k], LIGHT, title=f"{name}   error {' / '.join(errors)}")
        plain_ticks(axes[k])
    if schedule is not None:
        trace = np.array(schedule["trace"])
        _curve(axes[order + 1], trace, 4, schedule, "loss", "")
        _curve(axes[order + 2], trace, 5, schedule, "error of λ", "the paper's schedule")
        if best is not None:
            floor = max(best["lambda_error"], 1e-17)
            text = f"burgers-profile, {best['cpu']:.1f} CPU s"
            axes[order + 2].axhline(floor, color=LIGHT.lines[0], linestyle="--", linewidth=1.2, label=text)
            log_axis(axes[order + 2], np.append(visible(trace[:, 5]), floor))
        legend(axes[order + 2], LIGHT, loc="best")
    for empty in axes[order + 3 :]:
        empty.set_axis_off()
    legend(axes[0], LIGHT, loc="upper right")
    axes[0].set_ylim(None, 2.2)
    return png(figure)


RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
PROFILES = {number: partial(profile, number) for number in training.PROFILES}
