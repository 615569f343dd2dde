"""Figures of the gradients of stiff equations, drawn from the files that run.py writes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from experiments._common.lines import Line, read
from experiments._common.paper import Options
from experiments.stiff_gradients import schemes
from experiments.stiff_gradients.gradients import SCHEMES
from experiments.stiff_gradients.recovery import WAYS

from ntangent.report.style import LIGHT, dress, legend, new_figure, png

GROUPS = (  # of implicit methods and exponential ones, by order of decay
    (1.1, 1.99, "BDF 2 to 6: 1 + 1/k"),
    (2.0, 2.5, "order 2"),
    (3.0, 3.5, "order 3 (Lobatto IIIC, Padé)"),
    (4.0, 9.0, "order 4 (Padé 0/3)"),
    (math.inf, math.inf, "exponential: e^z"),
)


def _groups(lines: Sequence[Line]) -> list[tuple[str, str, list[Line]]]:
    """Return title, colour and lines of each group."""
    found = []
    for (low, high, title), colour in zip(GROUPS, LIGHT.lines, strict=True):
        chosen = [line for line in lines if line["order"] > 0 and low <= line["order"] <= high]
        found.append((title, colour, chosen))
    return found


def _curves(axes: Any, lines: Sequence[Line], angle: str, power: int) -> None:
    """Draw |z^power R'| of all groups, one label for each."""
    for title, colour, chosen in _groups(lines):
        for k, line in enumerate(chosen):
            values = np.array(line["rays"][angle]) * schemes.SIZES**power
            values[values < 1e-14] = np.nan
            axes.loglog(schemes.SIZES, values, color=colour, linewidth=0.9, alpha=0.75,
                        label=None if k else title)  # fmt: skip


def axis(path: Path, _options: Options) -> bytes:
    """Return Figure 1: the real axis; the bound, and the function that meets its order."""
    figure, lines = new_figure(11.0, 4.4, LIGHT), read(path)
    extremal = schemes.slowest_possible(schemes.SIZES)
    for power, axes in enumerate(figure.subplots(1, 2)):
        _curves(axes, lines, "0", power)
        factor = schemes.SIZES**power
        axes.loglog(schemes.SIZES, factor / (2 * schemes.SIZES), "--", color=LIGHT.text, linewidth=1.4,
                    label="bound 1/(2|z|)")  # fmt: skip
        axes.loglog(schemes.SIZES, extremal * factor, ":", color=LIGHT.muted, linewidth=1.4,
                    label="cos(log(1-z))/cosh(π/2): no scheme")  # fmt: skip
        name = "|z R'(z)|" if power else "|R'(z)|"
        axes.set_ylim((1e-10, 20) if power else (1e-14, 1e3))
        dress(
            axes, LIGHT, title=f"{name}, z < 0, implicit and exponential schemes", xlabel="|z|", ylabel=name
        )
        if not power:
            legend(axes, LIGHT, loc="lower left")
    return png(figure)


def rays(path: Path, _options: Options) -> bytes:
    """Return Figure 2: a panel per ray."""
    figure, lines = new_figure(11.0, 4.0, LIGHT), read(path)
    for angle, axes in zip(schemes.RAYS, figure.subplots(1, 3, sharey=True), strict=True):
        _curves(axes, lines, str(angle), 1)
        bound = 1 / (2 * math.cos(math.radians(angle)))
        axes.axhline(bound, linestyle="--", color=LIGHT.text, linewidth=1.4, label="bound 1/(2 cos a)")
        axes.set_ylim(1e-10, 100)
        dress(axes, LIGHT, title=f"arg z = π - a, a = {angle}°", xlabel="|z|", ylabel="|z R'(z)|")
        if angle == 0:
            legend(axes, LIGHT, loc="lower left")
    return png(figure)


def orders(path: Path, _options: Options) -> bytes:
    """Return Figure 3: fitted orders on three rays, and the catalogue's."""
    lines = [x for x in read(path) if math.isfinite(x["order"]) and x["order"] > 0]
    lines.sort(key=lambda line: line["order"])
    figure = new_figure(11.0, 4.2, LIGHT)
    axes, place = figure.subplots(), np.arange(len(lines))
    axes.plot(place, [x["order"] for x in lines], "s", color=LIGHT.exact, markersize=9, label="proved")
    for k, angle in enumerate(schemes.RAYS):
        fitted = [-x["slopes"][str(angle)] for x in lines]
        axes.plot(place, fitted, "ox+"[k], color=LIGHT.lines[k], markersize=5, label=f"fitted, a = {angle}°")
    axes.axhline(1, linestyle="--", color=LIGHT.text, linewidth=1, label="slowest possible by the bound")
    axes.set_xticks(place, [x["method"] for x in lines], rotation=75, ha="right", rotation_mode="anchor")
    dress(axes, LIGHT, title="order p of |R'| ~ |z|^-p, |z| from 1e4 to 1e6", ylabel="p")
    axes.tick_params(axis="x", labelsize=7)
    legend(axes, LIGHT, loc="upper left")
    return png(figure)


def signs(path: Path, _options: Options) -> bytes:
    """Return Figure 4: a bar for each interval with R' < 0, the scan's ends as marks."""
    lines = [x for x in read(path) if x["exact"] and x["implicit"]]
    lines.sort(key=lambda line: line["exact"][-1][1])
    figure = new_figure(8.4, 0.21 * len(lines) + 1.2, LIGHT)
    axes, end = figure.subplots(), 100.0
    for row, line in enumerate(lines):
        colour = LIGHT.lines[0] if line["a_stable"] else LIGHT.lines[1]
        for low, high in line["exact"]:
            left = -high
            axes.barh(row, min(-low, end) - left, left=left, height=0.62, color=colour)
        ends = [-x for interval in line["scan"] for x in interval if -x < end]
        axes.plot(ends, [row] * len(ends), "|", color=LIGHT.text, markersize=9)
    axes.set_xscale("log")
    axes.set_xlim(1, end)
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    axes.set_yticks(range(len(lines)), [line["method"] for line in lines])
    title = "R'(z) < 0 where the equation has e^z > 0 (bars to the edge go on to -∞; ticks: the scan)"
    dress(axes, LIGHT, title=title, xlabel="|z|")
    axes.tick_params(axis="y", labelsize=7)
    return png(figure)


def steps(path: Path, _options: Options) -> bytes:
    """Return Figure 5: sizes of the gradients, and their errors against closed forms."""
    figure, lines = new_figure(11.0, 4.2, LIGHT), read(path)
    left, right = figure.subplots(1, 2)
    linear = {line["method"]: line for line in lines if line["equation"] == "linear"}
    for colour, name in zip(LIGHT.lines, SCHEMES, strict=True):
        line = linear[name]
        left.loglog(np.abs(line["z"]), np.abs(line["ours"]), "o", color=colour, markersize=5, label=name)
        left.loglog(np.abs(line["z"]), np.abs(line["wanted"]), color=colour, linewidth=0.9)
    exact = np.array(linear[SCHEMES[0]]["exact"])
    exact[exact < 1e-40] = np.nan
    left.loglog(
        np.abs(linear[SCHEMES[0]]["z"]), exact, "s--", color=LIGHT.muted, markersize=4, label="equation"
    )
    left.set_ylim(1e-28, 10)
    dress(left, LIGHT, title="|dy/dλ| after 5 steps: adjoint (dots), N h R^(N-1) R' (lines)", xlabel="|z|")
    legend(left, LIGHT, loc="lower left")
    for k, (equation, title) in enumerate((("linear", "y' = λy"), ("sine", "y' = λ(y + sin(y)/4), Newton"))):
        points = [
            (abs(z), max(error, 1e-17))
            for line in lines if line["equation"] == equation
            for z, error in zip(line["z"], line["errors"], strict=True) if error is not None
        ]  # fmt: skip
        x, y = np.array(points).T
        right.loglog(
            x * (1 + 0.3 * k), y, "ox"[k], color=LIGHT.lines[k], markersize=4, alpha=0.6, label=title
        )
    dress(right, LIGHT, title="relative error of the adjoint, all schemes", xlabel="|z|")
    legend(right, LIGHT, loc="upper left")
    return png(figure)


def singular(path: Path, _options: Options) -> bytes:
    """Return Figure 6: the fast mode's singular value against its rate; Robertson's three."""
    figure, lines = new_figure(11.0, 7.4, LIGHT), read(path)
    grid = figure.subplots(2, 2)
    words = {"even": "even times, one step each", "geometric": "geometric times from 1e-6 of the span"}
    for column, (outputs, title) in enumerate(words.items()):
        chosen = [line for line in lines if line["outputs"] == outputs]
        for k, name in enumerate(("exact", *SCHEMES)):
            colour = LIGHT.muted if k == 0 else LIGHT.lines[k - 1]
            two = [x for x in chosen if x["problem"] == "two_scale" and x["method"] == name]
            values = np.array([x["values"][-1] for x in two])
            values[values < 1e-12] = np.nan
            grid[0][column].loglog([x["fast"] for x in two], values, "s--" if k == 0 else "o-", color=colour,
                                   markersize=4, linewidth=1.1, label=name)  # fmt: skip
            other = "adaptive" if k == 0 else name
            found = [x for x in chosen if x["problem"] == "robertson" and x["method"] == other]
            for line in found:
                place, label = np.arange(1, 4) + 0.08 * (k - 2.5), name if k else "adaptive radau5"
                grid[1][column].semilogy(place, line["values"], "s" if k == 0 else "o", color=colour,
                                         markersize=5, label=label)  # fmt: skip
        dress(grid[0][column], LIGHT, title=f"two scales, smallest of 2: {title}", xlabel="fast rate",
              ylabel="singular value")  # fmt: skip
        if outputs == "even":
            grid[0][column].set_ylim(1e-9, 10)
        else:
            grid[0][column].set_yscale("linear")
        start = " from the slow manifold" if outputs == "even" else ""
        dress(grid[1][column], LIGHT, title=f"Robertson{start}: {title}", xlabel="index")
        grid[1][column].set_xticks([1, 2, 3])
    legend(grid[0][0], LIGHT, loc="lower left")
    legend(grid[1][0], LIGHT, loc="lower left")
    return png(figure)


def recovered(path: Path, _options: Options) -> bytes:
    """Return Figure 7: relative errors of the rate against the rate, a panel per start."""
    lines = read(path)
    factors = sorted({line["factor"] for line in lines}, reverse=True)
    figure = new_figure(5.0 * len(factors) + 2.4, 4.8, LIGHT)
    panels = np.atleast_1d(figure.subplots(1, len(factors), sharey=True))
    for axes, factor in zip(panels, factors, strict=True):
        for k, (name, way) in enumerate(WAYS.items()):
            chosen = [x for x in lines if x["way"] == name and x["factor"] == factor]
            error = np.clip([x["error"] for x in chosen], 1e-10, 1e4)
            axes.loglog([x["k"] for x in chosen], error, ("o-", "s--")[k // 5], color=LIGHT.lines[k % 5],
                        markersize=4, linewidth=1.1, label=way.title)  # fmt: skip
        axes.axhline(0.01, linestyle=":", color=LIGHT.text, linewidth=1)
        start = f"{factor:g} k" if factor > 1 else f"k / {1 / factor:g}"
        dress(axes, LIGHT, title=f"started from {start} (errors cut at 1e-10 and 1e4)", xlabel="true rate k",
              ylabel="relative error of k")  # fmt: skip
    box = figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    box.get_frame().set(edgecolor="none")
    return png(figure)
