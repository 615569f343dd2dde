"""The two kinds of figures with which rules show what they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ntangent.report.data import RunData
from ntangent.report.style import Palette, dress, legend, log_axis, new_figure, visible

WIDE, LOW = 8.6, 2.8


def bars(
    values: Mapping[str, float], palette: Palette, title: str, limit: float | None = None, log: bool = False
) -> Any:
    """Return horizontal bars, with a line where the threshold is."""
    names, sizes = list(values), np.array(list(values.values()), dtype=float)
    figure = new_figure(WIDE, 1.0 + 0.33 * len(names), palette)
    axes = figure.subplots()
    places = np.arange(len(names))[::-1]
    if log:
        axes.set_xscale("log")
        sizes = np.maximum(sizes, 1e-300)
    axes.barh(places, sizes, color=palette.lines[0], height=0.6)
    if limit is not None:
        axes.axvline(limit, color=palette.lines[1], linewidth=1.4)
    dress(axes, palette, title=title)
    axes.set_yticks(places, names)
    return figure


def curves(
    rows: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    palette: Palette,
    title: str,
    limit: float | None = None,
    log_x: bool = False,
) -> Any:
    """Return curves of absolute values on a logarithmic axis, against iterations by default."""
    figure = new_figure(WIDE, LOW, palette)
    axes = figure.subplots()
    for k, (label, (x, y)) in enumerate(rows.items()):
        axes.plot(
            x, visible(np.array(y)), color=palette.lines[k % len(palette.lines)], linewidth=1.3, label=label
        )
    if limit is not None:
        axes.axhline(limit, color=palette.muted, linewidth=1.0, linestyle="--")
    dress(axes, palette, title=title, xlabel="iteration")
    if log_x:
        axes.set_xscale("log")
    log_axis(axes, np.concatenate([visible(np.array(y)) for _, y in rows.values()]))
    if len(rows) > 1:
        legend(axes, palette, loc="best")
    return figure


def loss_curves(data: RunData, palette: Palette, title: str) -> Any:
    """Return the loss with its terms against iterations."""
    steps = data.metrics.steps
    rows: dict[str, tuple[list[float], list[float]]] = {
        "loss": ([float(r.step) for r in steps], [r.loss for r in steps])
    }
    for name in [n for n in (steps[-1].info if steps else {}) if n.startswith("loss ")]:
        found = [(float(r.step), r.info[name]) for r in steps if name in r.info]
        rows[name.removeprefix("loss ")] = ([i for i, _ in found], [v for _, v in found])
    return curves(rows, palette, title)
