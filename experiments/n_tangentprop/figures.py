"""Figures 1 to 5 of the n-TangentProp paper, drawn from the files that run.py writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments._common.paper import Options

from ntangent.bench import Cell, Lines, Result, median
from ntangent.report.style import LIGHT, dress, legend, new_figure, png

# name in the data -> (label, colour, line style, marker); the first two are the paper's curves.
CURVES = {
    "faa-di-bruno": ("n-TangentProp (the paper's algorithm)", LIGHT.lines[0], "-", "*"),
    "autograd": ("autodifferentiation", LIGHT.lines[4], "--", "*"),
    "eager": ("ntangent, eager", LIGHT.lines[2], "-", "o"),
    "native": ("ntangent, native", LIGHT.lines[1], "-", "o"),
}
TIMES = {"total": "forward + backward", "forward": "forward", "backward": "backward"}
DRAWN_BATCHES = (32, 1024, 4096)  # as in the paper
PREFERRED = ("native", "eager", "faa-di-bruno")


def orders(time: str, path: Path, options: Options) -> bytes:
    """Return Figures 1 to 3: time against order, linear and logarithmic; a row per precision."""
    results = sorted(Lines(path).results, key=lambda result: result["cell"]["order"])
    dtypes = sorted({result["cell"]["dtype"] for result in results})
    figure = new_figure(9.6, 3.9 * len(dtypes) + 0.5, LIGHT)
    grid = figure.subplots(max(1, len(dtypes)), 2, squeeze=False)
    for row, dtype in zip(grid, dtypes, strict=True):
        chosen = [result for result in results if result["cell"]["dtype"] == dtype]
        for axes, scale in zip(row, ("linear", "log"), strict=True):
            for name, style in CURVES.items():
                _time_curve(axes, chosen, name, style, time, options.clock)
            title = f"{TIMES[time]}, {dtype}"
            label = "milliseconds" + (" (log scale)" if scale == "log" else "")
            dress(axes, LIGHT, title=title, xlabel="number of derivatives", ylabel=label)
            axes.set_yscale(scale)
            axes.set_xticks(sorted({result["cell"]["order"] for result in chosen}))
    if results:
        cell = Cell(**results[0]["cell"])
        legend(grid[0][0], LIGHT, loc="upper left")
        network = f"{cell.depth} hidden layers of {cell.width}, {cell.batch} points"
        marks = "bands: quartiles; open marks: predicted, not measured"
        _caption(figure, f"{network}; median of {options.clock} time; {marks}")
    return png(figure)


def _time_curve(axes: Any, results: Sequence[Result], name: str, style: Any, time: str, clock: str) -> None:
    label, colour, line, marker = style
    records = [(result["cell"]["order"], result["contenders"].get(name, {})) for result in results]
    points = [(n, record["times"][time][clock]) for n, record in records if median(record, time)]
    if not points:
        return
    ns = [n for n, _ in points]
    low, middle, high = ([1e3 * times[key] for _, times in points] for key in ("q25", "median", "q75"))
    size = 9 if marker == "*" else 4
    axes.plot(ns, middle, line, color=colour, marker=marker, markersize=size, linewidth=1.4, label=label)
    axes.fill_between(ns, low, high, color=colour, alpha=0.15, linewidth=0)
    guesses = [(n, _predicted(record, time)) for n, record in records if record.get("predicted")]
    if guesses:
        ys = [1e3 * seconds for _, seconds in guesses]
        axes.plot([n for n, _ in guesses], ys, marker=marker, color=colour, markersize=size, linestyle="none",
                  fillstyle="none")  # fmt: skip


def _predicted(record: dict[str, Any], time: str) -> float:
    seconds, forward = record["predicted"]["seconds"], record["predicted"]["forward"]
    return float({"total": seconds, "forward": forward, "backward": seconds - forward}[time])


def ratios(time: str, path: Path, options: Options) -> bytes:
    """Return Figures 4 and 5: how many times slower nested autograd is, against the width.

    A row of panels per depth and a column per order, as in the paper; a block of them per precision, and
    lines for our fastest backend and for the paper's algorithm.
    """
    results = Lines(path).results
    depths, ns, dtypes, batches = (_values(results, name) for name in ("depth", "order", "dtype", "batch"))
    shown = [batch for batch in batches if batch in DRAWN_BATCHES]
    lines = [(dtype, depth) for dtype in dtypes for depth in depths]
    figure = new_figure(2.75 * max(1, len(ns)) + 0.6, 2.15 * max(1, len(lines)) + 0.9, LIGHT)
    grid = figure.subplots(max(1, len(lines)), max(1, len(ns)), squeeze=False, sharex=True, sharey="col")
    fastest = next((name for name in PREFERRED if _timed(results, name)), PREFERRED[-1])
    for row, (dtype, depth) in zip(grid, lines, strict=True):
        for axes, n in zip(row, ns, strict=True):
            where = {"dtype": dtype, "depth": depth, "order": n}
            panel = [r for r in results if all(r["cell"][k] == v for k, v in where.items())]
            for index, batch in enumerate(shown):
                for name in dict.fromkeys((fastest, "faa-di-bruno")):
                    _ratio_curve(axes, panel, batch, name, LIGHT.lines[index], time, options.clock)
            axes.axhline(1, color=LIGHT.text, linewidth=1, linestyle="--")
            left, top, bottom = n == ns[0], (dtype, depth) == lines[0], (dtype, depth) == lines[-1]
            derivatives = f"{n} derivative{'s' if n > 1 else ''}"
            dress(axes, LIGHT, title=derivatives if top else "", xlabel="width" if bottom else "",
                  ylabel=f"depth {depth}, {dtype}" if left else "")  # fmt: skip
    for axes in grid[0]:  # the panels of a column share their axis
        _ratio_scale(axes)
    if results:
        _ratio_legend(figure, shown, fastest)
        marks = "; open marks: autodifferentiation predicted, not measured"
        _caption(
            figure,
            f"time of autodifferentiation / ours, {TIMES[time]}, median of {options.clock} time{marks}",
        )
    return png(figure)


def _ratio_curve(
    axes: Any, panel: Sequence[Result], batch: int, name: str, colour: str, time: str, clock: str
) -> None:
    points, guesses = [], []
    for result in panel:
        records = result["contenders"]
        ours, base = median(records.get(name, {}), time, clock), records.get("autograd", {})
        if result["cell"]["batch"] != batch or not ours:
            continue
        theirs = median(base, time, clock)
        if theirs:
            points.append((result["cell"]["width"], theirs / ours))
        elif base.get("predicted"):
            guesses.append((result["cell"]["width"], _predicted(base, time) / ours))
    paper = name == "faa-di-bruno"
    look = {"color": colour, "marker": "*" if paper else "o", "markersize": 6 if paper else 3.5}
    xs, ys = [x for x, _ in sorted(points)], [y for _, y in sorted(points)]
    axes.plot(xs, ys, linewidth=1.2 if paper else 1.6, linestyle=":" if paper else "-", **look)
    axes.plot([x for x, _ in guesses], [y for _, y in guesses], linestyle="none", fillstyle="none", **look)


def _ratio_scale(axes: Any) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    low, high = min(low, 0.8), max(high, 1.3)
    axes.set_ylim(low, high)
    ticks = [m * 10.0**e for e in range(-2, 6) for m in ((1, 2, 5) if high / low < 100 else (1,))]
    axes.yaxis.set_major_locator(FixedLocator([t for t in ticks if low <= t <= high]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.yaxis.set_minor_locator(NullLocator())


def _ratio_legend(figure: Any, batches: Sequence[int], fastest: str) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=LIGHT.lines[i], label=f"{b} points") for i, b in enumerate(batches)]
    kinds = {fastest: ("-", "o"), "faa-di-bruno": (":", "*")}
    for name, (line, marker) in kinds.items():
        label = CURVES[name][0]
        handles.append(
            Line2D([], [], color=LIGHT.muted, linestyle=line, marker=marker, markersize=5, label=label)
        )
    handles.append(Line2D([], [], color=LIGHT.text, linestyle="--", linewidth=1, label="equally fast"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=8, frameon=False,
                  labelcolor=LIGHT.text)  # fmt: skip


def _caption(figure: Any, text: str) -> None:
    figure.supxlabel(text, fontsize=8, color=LIGHT.muted)


def _values(results: Sequence[Result], name: str) -> list[Any]:
    return sorted({result["cell"][name] for result in results})


def _timed(results: Sequence[Result], name: str) -> bool:
    return any(median(result["contenders"].get(name, {}), "total") for result in results)
