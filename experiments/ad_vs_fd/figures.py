"""Figures of exact derivatives against finite differences, drawn from the files that run.py writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments._common.lines import Line, read
from experiments._common.paper import Options

from ntangent import diagnose
from ntangent.report.style import LIGHT, dress, legend, new_figure, png

PROBLEMS = {"poisson1d": "1D Poisson", "biharmonic1d": "1D biharmonic", "poisson2d": "2D Poisson"}


def _label(step: float | None) -> str:
    return "exact" if step is None else f"differences, h = {step:g}"


def _style(k: int) -> dict[str, Any]:
    return {"color": LIGHT.lines[k % len(LIGHT.lines)], "linewidth": 1.4, "linestyle": "-" if k else "--"}


def _chosen(lines: Sequence[Line], problem: str) -> list[Line]:
    """Lines of one problem: tanh features, 100 of them, the first seed."""
    wanted = {"problem": problem, "activation": "tanh", "features": 100, "seed": 0}
    return [line for line in lines if all(line[k] == v for k, v in wanted.items())]


def spectra(path: Path, _options: Options) -> bytes:
    """Return Figure 1: a panel per problem, a curve per step."""
    figure, lines = new_figure(11.0, 3.6, LIGHT), read(path)
    for axes, (problem, title) in zip(figure.subplots(1, 3), PROBLEMS.items(), strict=True):
        for k, line in enumerate(_chosen(lines, problem)):
            values = np.maximum(line["values"], 1e-20)
            axes.semilogy(range(1, len(values) + 1), values, label=_label(line["step"]), **_style(k))
        dress(axes, LIGHT, title=f"{title}, 100 tanh features", xlabel="index", ylabel="singular value")
    legend(axes, LIGHT, loc="lower left")
    return png(figure)


def entropies(path: Path, _options: Options) -> bytes:
    """Return Figure 2: a row per problem; cut-off, plain and normalised entropy against the threshold."""
    figure, lines = new_figure(11.0, 9.0, LIGHT), read(path)
    thresholds = np.logspace(-16, 0, 65)
    panels = {
        "cut-off n(a)": diagnose.effective_cutoff,
        "entropy H(a)": diagnose.truncated_entropy,
        "normalised entropy H(a) / ln n(a)": lambda v, a: diagnose.truncated_entropy(v, a, "normalised"),
    }
    grid = figure.subplots(3, 3)
    for row, (problem, name) in zip(grid, PROBLEMS.items(), strict=True):
        for axes, (title, function) in zip(row, panels.items(), strict=True):
            for k, line in enumerate(_chosen(lines, problem)):
                values = torch.tensor(line["values"], dtype=torch.float64)
                curve = [function(values, float(a)) for a in thresholds]
                axes.semilogx(thresholds, curve, label=_label(line["step"]), **_style(k))
            dress(axes, LIGHT, title=name, xlabel="threshold a", ylabel=title)
    legend(grid[2][0], LIGHT, loc="lower left")
    return png(figure)


def losses(path: Path, _options: Options) -> bytes:
    """Return Figure 3: a panel per precision, a curve per step."""
    figure, lines = new_figure(9.6, 3.9, LIGHT), read(path)
    for axes, dtype in zip(figure.subplots(1, 2, sharey=True), ("float32", "float64"), strict=True):
        chosen = [line for line in lines if line["dtype"] == dtype and line["seed"] == 0]
        for k, line in enumerate(chosen):
            iterations = line["every"] * np.arange(len(line["losses"]))
            axes.semilogy(iterations, line["losses"], label=_label(line["step"]), **_style(k))
        dress(axes, LIGHT, title=f"1D Poisson, {dtype}", xlabel="Adam iterations", ylabel="loss")
        legend(axes, LIGHT, loc="upper right")
    return png(figure)


def digits(path: Path, _options: Options) -> bytes:
    """Return Figure 4: 24 singular values, exact and differences, with and without rounding."""
    figure = new_figure(6.0, 4.0, LIGHT)
    axes = figure.subplots()
    for k, line in enumerate(read(path)):
        how = f"{line['digits']} digits" if line["digits"] else "float64"
        mark = "o" if line["step"] is None else "x"
        values = np.maximum(line["values"], 1e-26)
        axes.semilogy(
            range(1, 25), values, mark, color=LIGHT.lines[k], label=f"{_label(line['step'])}, {how}"
        )
    dress(axes, LIGHT, title="1D Poisson, 24 tanh features", xlabel="index", ylabel="singular value")
    legend(axes, LIGHT, loc="lower left")
    return png(figure)
