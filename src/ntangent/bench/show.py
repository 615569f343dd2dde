"""Results as tables for a terminal and as a figure. Reads plain results, measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ntangent.bench.cells import Cell, Series
from ntangent.bench.contenders import BASELINE, FLOOR, FORWARD
from ntangent.bench.forecast import duration_text
from ntangent.bench.sweep import SKIPPED, TIMED, Result, median
from ntangent.bench.timing import TOTAL
from ntangent.report.style import LIGHT, Palette, dress, legend, new_figure, png

LABELS = {FORWARD: "forward", TOTAL: "forward + backward"}
MOST_ROWS = 12  # series in one figure
COLOURS = {"native": 0, "eager": 2, "faa-di-bruno": 3, BASELINE: 1}


def group(results: Sequence[Result]) -> dict[Series, list[Result]]:
    """Return the results by series, lower orders first."""
    found: dict[Series, list[Result]] = {}
    for result in sorted(results, key=lambda result: int(result["cell"]["order"])):
        found.setdefault(Cell(**result["cell"]).series, []).append(result)
    return found


def names_in(results: Sequence[Result]) -> list[str]:
    """Return the names of the contenders that were timed somewhere, in their order."""
    names: dict[str, bool] = {}
    for result in results:
        for name, record in result["contenders"].items():
            names[name] = names.get(name, False) or record["status"] in (TIMED, SKIPPED)
    return [name for name, present in names.items() if present]


def predicted(record: dict[str, Any], label: str) -> float | None:
    """Return the seconds that a skipped pass was predicted to take, or None."""
    found = record.get("predicted")
    if not found:
        return None
    return float(found["seconds" if label == TOTAL else "forward"])


def ratio_text(ratio: float) -> str:
    """Return how many times faster than the baseline something is."""
    return f"{ratio:.0f}×" if ratio >= 99.5 else f"{ratio:.3g}×"


def entry(contenders: dict[str, Any], name: str, label: str, clock: str) -> str:
    """Return what a table says of a contender: its time, and the ratio of the baseline's to it."""
    record = contenders.get(name)
    if record is None:
        return ""
    if record["status"] != TIMED:
        return f"{record['status']}: {record['reason']}"
    time = median(record, label, clock)
    if time is None:
        return ""
    check = record.get("check")
    mark = " WRONG" if check and not check["right"] else " ?" if name != FLOOR and not check else ""
    base = contenders.get(BASELINE, {})
    reference = median(base, label, clock)
    about = ""
    if reference is None:
        reference, about = predicted(base, label), "≈"
    if reference is None or name in (BASELINE, FLOOR):
        return duration_text(time) + mark
    return f"{duration_text(time)}  {about}{ratio_text(reference / time)}{mark}"


def tables(results: Sequence[Result], clock: str = "wall") -> list[Any]:
    """Return rich tables, for each series one of forward and one of forward + backward."""
    from rich.table import Table
    from rich.text import Text

    found = []
    for series, rows in group(results).items():
        for label, title in LABELS.items():
            table = Table(title=f"{title}: {series} ({clock} time)", title_justify="left", padding=(0, 1))
            table.add_column("n", justify="right")
            names = names_in(rows)
            for name in names:
                table.add_column(name, justify="right")
            for row in rows:
                texts = [entry(row["contenders"], name, label, clock) for name in names]
                table.add_row(str(row["cell"]["order"]), *[Text(text, style=_style(text)) for text in texts])
            found.append(table)
    return found


def _style(text: str) -> str:
    if "WRONG" in text:
        return "bold red"
    return "dim" if text.startswith(SKIPPED) else ""


def colour(name: str, index: int, palette: Palette) -> str:
    """Return the colour of a contender, the same in every figure."""
    if name == FLOOR:
        return palette.muted
    return palette.lines[COLOURS.get(name, index) % len(palette.lines)]


def figure(results: Sequence[Result], clock: str = "wall", palette: Palette = LIGHT) -> bytes:
    """Return a figure of time against order as a PNG file: a row per series, with the quartiles."""
    groups = list(group(results).items())[:MOST_ROWS]
    drawn = new_figure(9.2, 3.3 * len(groups) + 0.2, palette)
    grid = drawn.subplots(len(groups), 2, squeeze=False, sharex="row", sharey="row")
    for line, (series, rows) in zip(grid, groups, strict=True):
        for axes, (label, title) in zip(line, LABELS.items(), strict=True):
            _curves(axes, rows, label, clock, palette)
            dress(axes, palette, title=f"{title}: {series}", xlabel="order n", ylabel="milliseconds")
            axes.set_yscale("log")
        legend(line[0], palette, loc="upper left")
    return png(drawn)


def _curves(axes: Any, rows: Sequence[Result], label: str, clock: str, palette: Palette) -> None:
    from matplotlib.ticker import MaxNLocator

    for index, name in enumerate(names_in(rows)):
        shade = colour(name, index, palette)
        points = [(row["cell"]["order"], row["contenders"].get(name, {})) for row in rows]
        timed = [(n, record["times"][label][clock]) for n, record in points if median(record, label)]
        if timed:
            orders = [n for n, _ in timed]
            style = {"linestyle": "--"} if name == FLOOR else {"marker": "o", "markersize": 3.5}
            middle = [1e3 * times["median"] for _, times in timed]
            axes.plot(orders, middle, color=shade, linewidth=1.4, label=name, **style)
            low, high = ([1e3 * times[q] for _, times in timed] for q in ("q25", "q75"))
            axes.fill_between(orders, low, high, color=shade, alpha=0.18, linewidth=0)
        missed = [(n, guess) for n, record in points if (guess := predicted(record, label))]
        if missed:
            xs, ys = [n for n, _ in missed], [1e3 * guess for _, guess in missed]
            axes.plot(xs, ys, color=shade, linestyle="none", marker="o", markersize=4.5, fillstyle="none",
                      label=f"{name}, predicted")  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
