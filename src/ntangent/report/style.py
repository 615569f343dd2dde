"""How figures look: two palettes, and the few helpers that every figure shares."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Palette:
    """Colours of a figure.

    Args:
        name: "light" or "dark".
        surface: background.
        text: titles and labels.
        muted: ticks and notes.
        grid: grid lines and frames.
        exact: the exact solution, drawn behind.
        lines: what the network found, in order.
        band: every other stage.
    """

    name: str
    surface: str
    text: str
    muted: str
    grid: str
    exact: str
    lines: tuple[str, ...]
    band: str


LIGHT = Palette(
    "light", "#ffffff", "#1c2430", "#5b6675", "#e3e7ec", "#c3cad4",
    ("#1f5fbf", "#c4501b", "#16807a", "#7a4fb5", "#a8325e"), "#f4f6f9",
)  # fmt: skip
DARK = Palette(
    "dark", "#171b21", "#e8ecf1", "#9aa5b3", "#2c333d", "#566170",
    ("#6ea8ff", "#ff9457", "#4fc9bf", "#b794f6", "#f07fa8"), "#1d222a",
)  # fmt: skip
DPI = 144


def new_figure(width: float, height: float, palette: Palette) -> Any:
    """Return an empty matplotlib figure; no global state of matplotlib is used."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor=palette.surface)


def dress(axes: Any, palette: Palette, *, title: str = "", xlabel: str = "", ylabel: str = "") -> None:
    """Give axes their labels and the colours of a palette."""
    axes.set_facecolor(palette.surface)
    axes.set_title(title, color=palette.text, fontsize=9.5, loc="left", pad=7)
    axes.set_xlabel(xlabel, color=palette.muted, fontsize=9)
    axes.set_ylabel(ylabel, color=palette.muted, fontsize=9)
    axes.tick_params(which="both", colors=palette.muted, labelsize=8, length=3, width=0.6)
    axes.tick_params(which="minor", length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(palette.grid)
    axes.grid(True, which="major", color=palette.grid, linewidth=0.7)
    axes.set_axisbelow(True)


def legend(axes: Any, palette: Palette, **options: Any) -> None:
    """Add a legend without a box of its own colour."""
    box = axes.legend(fontsize=8, labelcolor=palette.text, framealpha=0.85, **options)
    box.get_frame().set(facecolor=palette.surface, edgecolor="none")


def log_axis(axes: Any, values: np.ndarray[Any, Any]) -> None:
    """Make the y-axis logarithmic, with whole powers of ten at a readable distance as ticks."""
    from matplotlib.ticker import LogLocator, NullLocator

    positive = values[np.isfinite(values) & (values > 0)]
    if not positive.size:
        return
    axes.set_yscale("log")
    low, high = np.log10(positive.min()), np.log10(positive.max())
    margin = max(0.06 * (high - low), 0.15)
    axes.set_ylim(10 ** (low - margin), 10 ** (high + margin))
    axes.yaxis.set_major_locator(LogLocator(base=10, numticks=8))
    axes.yaxis.set_minor_locator(NullLocator())


def visible(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return absolute values fit for a logarithmic axis: zeros and non-finite ones become gaps."""
    size = np.abs(np.asarray(values, dtype=float))
    return np.where(np.isfinite(size) & (size > 0), size, np.nan)


def png(figure: Any) -> bytes:
    """Return a figure as the bytes of a PNG file, the same for the same figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def plain_ticks(axes: Any) -> None:
    """Write the numbers of the y-axis in full: 1.5·10⁵ at each tick, and no factor above the frame."""
    from matplotlib.ticker import FuncFormatter

    def text(value: float, _: int) -> str:
        if value == 0 or 1e-3 <= abs(value) < 1e4:
            return f"{value:.6g}".replace("-", "−")
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}·10{str(int(exponent)).translate(SUPERSCRIPT)}".replace("-", "−")

    axes.yaxis.set_major_formatter(FuncFormatter(text))


def power_of_ten(value: float) -> str:
    """Return a number in two digits, as 1.5·10⁻⁹ where it is far from 1."""
    if not np.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}·10{str(int(exponent)).translate(SUPERSCRIPT)}"


SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
