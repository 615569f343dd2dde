"""The figures of a run, each a function of its files and a palette."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ntangent.report.data import RunData, StageRow, symbol
from ntangent.report.maps import field_map, residual_map
from ntangent.report.style import (
    SUPERSCRIPT,
    Palette,
    dress,
    legend,
    log_axis,
    new_figure,
    plain_ticks,
    power_of_ten,
    visible,
)

PANELS_IN_A_ROW = 3
WIDE = 8.6  # inches
LOW = 3.1


def derivative_name(field: str, order: int) -> str:
    """Return U, U′, U″, U‴, U⁽⁴⁾, ..."""
    if order <= 3:
        return field + ("", "′", "″", "‴")[order]
    return f"{field}⁽{str(order).translate(SUPERSCRIPT)}⁾"


def field_figure(data: RunData, palette: Palette) -> Any:
    """Return the field and its derivatives, a panel per order, over the exact ones where present."""
    if data.arrays is None:
        return None
    if "derivatives" not in data.arrays:
        return field_map(data, palette)
    x, rows = data.arrays["x"], data.arrays["derivatives"]
    exact = data.arrays.get("exact")
    columns = min(PANELS_IN_A_ROW, len(rows))
    lines = math.ceil(len(rows) / columns)
    figure = new_figure(WIDE, 2.45 * lines + 0.35, palette)
    grid = figure.subplots(lines, columns, sharex=True, squeeze=False)
    for order, axes in enumerate(grid.flat):
        if order >= len(rows):
            axes.set_visible(False)
            continue
        title = derivative_name(data.field, order)
        truth = None if exact is None else exact[order]
        if truth is not None:
            title += f"    max error {power_of_ten(float(np.abs(rows[order] - truth).max()))}"
            axes.plot(x, truth, color=palette.exact, linewidth=4.5, solid_capstyle="round", label="exact")
        axes.plot(x, rows[order], color=palette.lines[0], linewidth=1.4, label="network")
        axes.set_xlim(x[0], x[-1])
        axes.set_ylim(*_limits(rows[order] if truth is None else truth))
        below = order + columns >= len(rows)
        dress(axes, palette, title=title, xlabel=data.coordinate if below else "")
        axes.tick_params(labelbottom=below)
        plain_ticks(axes)
    if exact is not None:
        legend(grid.flat[0], palette, loc="best")
    return figure


def _limits(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Return y-limits around the finite values; a constant gets room on both sides."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 1.0)
    margin = 0.08 * (high - low) or 0.1 * max(abs(low), 1.0)
    return low - margin, high + margin


def loss_figure(data: RunData, palette: Palette) -> Any:
    """Return the loss against iterations, beside the residual at held-out points; stages are bands."""
    steps = data.metrics.steps
    if not steps:
        return None
    loss = visible(np.array([record.loss for record in steps]))
    figure = new_figure(WIDE, LOW, palette)
    axes = figure.subplots()
    axes.plot(*_trace(steps, loss), color=palette.lines[0], linewidth=1.3, label="loss")
    dress(axes, palette, title="Loss", xlabel="iteration")
    held = [record for record in steps if "held_out" in record.info]
    sizes = visible(np.array([record.info["held_out"] for record in held]))
    if held:
        label = "mean square residual at held-out points"
        options = {"linestyle": "none", "marker": "o", "markersize": 3}
        axes.plot(*_trace(held, sizes), color=palette.lines[1], label=label, **options)
        legend(axes, palette, loc="lower left")
    log_axis(axes, np.concatenate([loss, sizes]))
    _stage_bands(axes, data.stages(), palette)
    return figure


def unknowns_figure(data: RunData, palette: Palette) -> Any:
    """Return the error of each unknown against iterations, or its value where no truth is known."""
    steps = [record for record in data.metrics.steps if record.values]
    if not steps:
        return None
    expected = data.expected
    names = list(steps[-1].values)
    known = [name for name in names if name in expected]
    groups = [group for group in (known, [name for name in names if name not in expected]) if group]
    figure = new_figure(WIDE, LOW * len(groups), palette)
    for axes, group in zip(figure.subplots(len(groups), 1, squeeze=False).flat, groups, strict=True):
        shown = []
        for name, colour in zip(group, _colours(palette, len(group)), strict=True):
            values = np.array([record.values.get(name, math.nan) for record in steps])
            label = symbol(name)
            if group is known:
                values = visible(values - expected[name])
                label = f"|{label} − {expected[name]:.6g}|"
            shown.append(values)
            axes.plot(*_trace(steps, values), color=colour, linewidth=1.3, label=label)
        title = "Error of the unknown" if group is known else "Unknown"
        plural = "s" if len(group) > 1 else ""
        dress(axes, palette, title=title + plural, xlabel="iteration", ylabel="" if plural else label)
        if group is known:
            log_axis(axes, np.concatenate(shown))
        _stage_bands(axes, data.stages(), palette)
        if plural:
            legend(axes, palette, loc="best")
    return figure


def residual_figure(data: RunData, palette: Palette) -> Any:
    """Return the size of every equation's residual on the domain."""
    if data.arrays is None or not data.arrays["residuals"].size:
        return None
    if "derivatives" not in data.arrays:
        return residual_map(data, palette)
    rows = list(data.arrays["residuals"])
    labels = [f"|R{i + 1}|" for i in range(len(rows))] if len(rows) > 1 else ["|R|"]
    title = f"Residual of the equation    max {power_of_ten(float(np.abs(rows).max()))}"
    return _sizes(data, palette, rows, labels, title)


def error_figure(data: RunData, palette: Palette) -> Any:
    """Return the pointwise error of the field."""
    if data.arrays is None or "exact" not in data.arrays:
        return None
    error = data.arrays["derivatives"][0] - data.arrays["exact"][0]
    title = f"Error of {data.field}    max {power_of_ten(float(np.abs(error).max()))}"
    return _sizes(data, palette, [error], [f"|{data.field} − exact|"], title)


def _sizes(
    data: RunData,
    palette: Palette,
    rows: Sequence[np.ndarray[Any, Any]],
    labels: Sequence[str],
    title: str,
) -> Any:
    """Return a figure of absolute values on the domain, on a logarithmic axis."""
    assert data.arrays is not None
    x = data.arrays["x"]
    sizes = [visible(row) for row in rows]
    figure = new_figure(WIDE, LOW, palette)
    axes = figure.subplots()
    for size, label, colour in zip(sizes, labels, _colours(palette, len(rows)), strict=True):
        axes.plot(x, size, color=colour, linewidth=1.2, label=label)
    axes.set_xlim(x[0], x[-1])
    several = len(rows) > 1
    dress(axes, palette, title=title, xlabel=data.coordinate, ylabel="" if several else labels[0])
    _log_above_zero_crossings(axes, np.concatenate(sizes))
    if several:
        legend(axes, palette, loc="best")
    return figure


def _log_above_zero_crossings(axes: Any, sizes: np.ndarray[Any, Any]) -> None:
    """Logarithmic axis whose lower end ignores the narrow dips where a residual changes its sign."""
    finite = sizes[np.isfinite(sizes)]
    if finite.size:
        log_axis(axes, np.array([np.quantile(finite, 0.01), finite.max()]))


def _trace(steps: Sequence[Any], values: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    return np.array([record.step for record in steps]), values


def _colours(palette: Palette, count: int) -> list[str]:
    return [palette.lines[i % len(palette.lines)] for i in range(count)]


def _stage_bands(axes: Any, stages: Sequence[StageRow], palette: Palette) -> None:
    """Shade every other stage and write the names of the stages along the top."""
    reached = [stage for stage in stages if stage.start is not None and stage.end is not None]
    if not reached:
        return
    last = max(stage.end or 0 for stage in reached)
    axes.set_xlim(0, max(last, 1))
    for index, stage in enumerate(reached):
        start, end = stage.start or 0, stage.end or 0
        if index % 2:
            axes.axvspan(start, end, color=palette.band, zorder=0)
        if index:
            axes.axvline(start, color=palette.muted, linewidth=0.7, linestyle=(0, (4, 3)))
        if end - start > 0.08 * last:
            axes.text(
                (start + end) / 2, 0.97, stage.name, transform=axes.get_xaxis_transform(),
                ha="center", va="top", fontsize=8, color=palette.muted, clip_on=True,
            )  # fmt: skip


# File name -> (caption, figure); this is the order on the page.
FIGURES: dict[str, tuple[str, Callable[[RunData, Palette], Any]]] = {
    "field": ("The solution and its derivatives", field_figure),
    "loss": ("Loss against iterations", loss_figure),
    "unknowns": ("Unknown parameters against iterations", unknowns_figure),
    "residual": ("Residual on the domain", residual_figure),
    "error": ("Pointwise error", error_figure),
}
