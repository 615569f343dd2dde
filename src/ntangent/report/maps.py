"""Figures of fields on a grid: lines in one coordinate, colour maps in two, slices in more."""

from __future__ import annotations

from typing import Any

import numpy as np

from ntangent.report.data import RunData, symbol
from ntangent.report.style import Palette, dress, legend, new_figure, power_of_ten, visible

WIDE = 8.6  # inches
Array = np.ndarray[Any, Any]
Panel = tuple[str, Array, bool]  # title, values on the grid, whether sizes are shown on a logarithmic scale


def axes_of(arrays: dict[str, Array]) -> dict[str, Array]:
    """Return the coordinates of the grid by name."""
    return {name.removeprefix("axis_"): a for name, a in arrays.items() if name.startswith("axis_")}


def components(arrays: dict[str, Array], kind: str) -> dict[str, Array]:
    """Return the arrays of a kind ("field", "exact") by name, each component by itself."""
    dimension, found = len(axes_of(arrays)), {}
    for name, array in arrays.items():
        if not name.startswith(f"{kind}_"):
            continue
        short = symbol(name.removeprefix(f"{kind}_"))
        if array.ndim == dimension:
            found[short] = array
        else:
            found |= {f"{short}[{i}]": array[..., i] for i in range(array.shape[-1])}
    return found


def field_map(data: RunData, palette: Palette) -> Any:
    """Return each field beside the exact one and the error, where known."""
    assert data.arrays is not None
    exact = components(data.arrays, "exact")
    rows = []
    for name, values in components(data.arrays, "field").items():
        row: list[Panel] = [(name, values, False)]
        if name in exact:
            error = np.abs(values - exact[name])
            biggest = float(np.nanmax(np.where(_inside(data.arrays), error, np.nan)))
            row += [(f"{name}, exact", exact[name], False)]
            row += [(f"|{name} − exact|    max {power_of_ten(biggest)}", error, True)]
        rows.append(row)
    return _lines(data, palette, rows) if len(axes_of(data.arrays)) == 1 else _maps(data, palette, rows)


def residual_map(data: RunData, palette: Palette) -> Any:
    """Return the size of every equation's residual."""
    assert data.arrays is not None
    sizes = np.abs(data.arrays["residuals"])
    names = [f"|R{i + 1}|" for i in range(len(sizes))] if len(sizes) > 1 else ["|R|"]
    row: list[Panel] = []
    for name, size in zip(names, sizes, strict=True):
        biggest = float(np.nanmax(np.where(_inside(data.arrays), size, np.nan)))
        row.append((f"{name}    max {power_of_ten(biggest)}", size, True))
    rows = [row[i : i + 3] for i in range(0, len(row), 3)]
    if len(axes_of(data.arrays)) == 1:
        return _lines(data, palette, [[panel] for panel in row])
    return _maps(data, palette, rows)


def _inside(arrays: dict[str, Array]) -> Array:
    return arrays["inside"] if "inside" in arrays else np.array(True)


def _lines(data: RunData, palette: Palette, rows: list[list[Panel]]) -> Any:
    """Return a panel for each row: what was found over what is exact, or a size."""
    assert data.arrays is not None
    ((name, x),) = axes_of(data.arrays).items()
    figure = new_figure(WIDE, 2.2 * len(rows) + 0.4, palette)
    for axes, row in zip(figure.subplots(len(rows), 1, sharex=True, squeeze=False).flat, rows, strict=True):
        title, values, sizes = row[0]
        if len(row) == 3:
            title = f"{title}    {row[2][0]}"
            axes.plot(x, row[1][1], color=palette.exact, linewidth=4.5, label="exact")
        axes.plot(
            x, visible(values) if sizes else values, color=palette.lines[0], linewidth=1.4, label="network"
        )
        dress(axes, palette, title=title, xlabel=symbol(name) if row is rows[-1] else "")
        axes.set_xlim(x[0], x[-1])
        if sizes and np.isfinite(visible(values)).any():
            axes.set_yscale("log")
        if len(row) == 3:
            legend(axes, palette, loc="best")
    return figure


def _maps(data: RunData, palette: Palette, rows: list[list[Panel]]) -> Any:
    """Return colour maps over the first two coordinates, at the middle of the others."""
    assert data.arrays is not None
    (first, x), (second, y), *others = axes_of(data.arrays).items()
    middle = tuple(len(a) // 2 for _, a in others)
    note = "".join(f", {symbol(n)} = {a[i]:.3g}" for (n, a), i in zip(others, middle, strict=True))
    inside = np.broadcast_to(_inside(data.arrays), tuple(len(a) for a in axes_of(data.arrays).values()))
    columns = max(len(row) for row in rows)
    figure = new_figure(WIDE if columns > 1 else 0.6 * WIDE, 2.7 * len(rows) + 0.3, palette)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(grid, rows, strict=True):
        for axes, panel in zip(line, [*row, *[None] * (columns - len(row))], strict=True):
            if panel is None:
                axes.set_visible(False)
                continue
            title, values, sizes = panel
            index: Any = (slice(None), slice(None), *middle)
            shown = np.where(inside, values, np.nan)[index]
            _map(axes, x, y, shown, sizes, palette)
            dress(axes, palette, title=title + note, xlabel=symbol(first), ylabel=symbol(second))
            axes.grid(False)
    return figure


def _map(axes: Any, x: Array, y: Array, values: Array, sizes: bool, palette: Palette) -> None:
    from matplotlib.colors import LogNorm

    options: dict[str, Any] = {"cmap": "viridis"}
    positive = values[np.isfinite(values) & (values > 0)]
    if sizes and positive.size:
        # Narrow lines where a residual changes its sign would take the whole scale.
        low, high = float(np.quantile(positive, 0.02)), float(positive.max())
        options |= {"norm": LogNorm(min(low, 0.99 * high), high), "cmap": "magma"}
    mesh = axes.pcolormesh(x, y, values.T, shading="auto", rasterized=True, **options)
    bar = axes.figure.colorbar(mesh, ax=axes)
    bar.ax.tick_params(colors=palette.muted, labelsize=7)
    bar.outline.set_visible(False)
