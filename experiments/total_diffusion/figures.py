"""Figures of the phases of training, drawn from the file that run.py writes."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from experiments._common.paper import Options

from ntangent import diagnose
from ntangent.report.style import LIGHT, dress, legend, new_figure, png

Line = dict[str, Any]
WINDOW = 11  # readings; of the paper's 3000 readings it averages 60
NAMES = {"allen-cahn": "Allen-Cahn", "helmholtz": "Helmholtz (6, 6)", "cavity": "cavity, Re = 100"}


def read(path: Path) -> list[Line]:
    """Return the lines of a file, none where there is no file yet."""
    if not path.exists():
        return []
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def title_of(line: Line) -> str:
    """Return what was trained."""
    name = NAMES.get(line["case"], "regression")
    return name if name == "regression" else f"{name}, {'RBA' if line['rule'] == 'rba' else 'vanilla'}"


def smoothed(line: Line) -> Any:
    """Return the smoothed signal-to-noise ratio."""
    curves = line["curves"]
    return diagnose.smoothed_snr(curves["snr.mean"], curves["snr.noise"], WINDOW).numpy()


def average(values: Sequence[float]) -> Any:
    """Return a centred moving average."""
    return diagnose.moving_average(np.array(values, dtype=float), WINDOW).numpy()


def mark(axes: Any, line: Line) -> None:
    """Draw the boundaries of the phases with their intervals."""
    for phase in line["phases"][1:]:
        axes.axvline(phase["start"], color=LIGHT.muted, linewidth=0.9)
        axes.axvspan(*phase["interval"], color=LIGHT.grid, alpha=0.7, linewidth=0)
    for phase in line["phases"]:
        axes.text(phase["start"], 1.0, " " + phase["name"], transform=axes.get_xaxis_transform(),
                  fontsize=6.5, color=LIGHT.muted, va="top")  # fmt: skip


Draw = Callable[[Any, Line], None]


def panels(path: Path, cases: Sequence[str], draw: Draw, ylabel: str) -> bytes:
    """Return a figure with a panel for each training of some cases."""
    lines = [line for line in read(path) if line["case"] in cases]
    columns = min(2, max(1, len(lines)))
    rows = math.ceil(max(1, len(lines)) / columns)
    figure = new_figure(9.6, 3.0 * rows, LIGHT)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, line in zip(grid.flat, lines, strict=False):
        dress(axes, LIGHT, title=title_of(line), xlabel="iteration", ylabel=ylabel)
        axes.set_xscale("log")
        draw(axes, line)
        mark(axes, line)
        legend(axes, LIGHT, loc="best")
    for axes in list(grid.flat)[len(lines) :]:
        axes.set_visible(False)
    return png(figure)


def _ratios(axes: Any, line: Line) -> None:
    axes.set_yscale("log")
    t, curves = line["iterations_read"], line["curves"]
    axes.plot(t, curves["snr.snr"], color=LIGHT.lines[0], linewidth=0.5, alpha=0.4)
    axes.plot(t, smoothed(line), color=LIGHT.lines[0], linewidth=1.5, label="gradient")
    axes.plot(t, average(curves["adam.snr"]), color=LIGHT.lines[1], linewidth=1.2, label="Adam")


def ratios(path: Path, _options: Options) -> bytes:
    """Return Figure 1."""
    return panels(path, ("allen-cahn", "helmholtz"), _ratios, "signal-to-noise")


def _orders(axes: Any, line: Line) -> None:
    t, curves = line["iterations_read"], line["curves"]
    rows = {"gradient order": curves["snr.order"]}
    name = next((n for n in curves if n.startswith("homogeneity.order/")), None)
    if name is not None:
        rows["order of the weights"] = curves[name]
    if "error.relative_l2" in curves:
        rows["error / (2 x its first)"] = np.array(curves["error.relative_l2"]) / (
            2 * curves["error.relative_l2"][0]
        )
    for colour, (label, values) in zip(LIGHT.lines, rows.items(), strict=False):
        axes.plot(t, average(values), color=colour, linewidth=1.3, label=label)


def orders(path: Path, _options: Options) -> bytes:
    """Return Figure 2."""
    return panels(path, ("allen-cahn", "helmholtz"), _orders, "")


def _layers(axes: Any, line: Line) -> None:
    axes.set_yscale("log")
    names = [n for n in line["curves"] if n.startswith("snr.snr/") and n.endswith("weight")]
    for k, name in enumerate(names):
        label = f"layer {k + 1}"
        axes.plot(line["iterations_read"], average(line["curves"][name]), linewidth=1.1, label=label,
                  color=LIGHT.lines[k % len(LIGHT.lines)])  # fmt: skip


def layers(path: Path, _options: Options) -> bytes:
    """Return Figure 3."""
    return panels(path, ("allen-cahn", "helmholtz"), _layers, "signal-to-noise")


def _compression(axes: Any, line: Line) -> None:
    curves, t = line["curves"], line["iterations_read"]
    names = [n for n in curves if n.startswith("information.information/")]
    for k, name in enumerate(names):
        colour = LIGHT.lines[k % len(LIGHT.lines)]
        axes.plot(t, np.array(curves[name]) / curves["information.bound"][0], color=colour, linewidth=1.2,
                  label=f"layer {k + 1}")  # fmt: skip
        share = np.array(curves[name.replace("information.information", "information.saturation")])
        axes.plot(t, share, color=colour, linewidth=1.0, linestyle=":")


def compression(path: Path, _options: Options) -> bytes:
    """Return Figure 4: information over its upper bound (solid), saturation (dotted)."""
    return panels(path, ("allen-cahn", "helmholtz"), _compression, "share")


def others(path: Path, _options: Options) -> bytes:
    """Return Figure 5."""
    return panels(path, ("cavity", "regression"), _ratios, "signal-to-noise")
