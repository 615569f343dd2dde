"""Phases of training after arXiv 2403.18494: signal-to-noise, order parameters, layers, compression."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments._common.paper import SMOKE, Figure, Options, Paper
from experiments.total_diffusion import cases, figures
from torch import Tensor, nn

import ntangent as nt
from ntangent import diagnose, optim, pinn

Line = dict[str, Any]
PROBLEMS = {"allen-cahn": cases.allen_cahn, "helmholtz": cases.helmholtz, "cavity": cases.cavity}
REFERENCES = {"allen-cahn": cases.allen_cahn_reference, "helmholtz": cases.helmholtz_reference}
RULES = {"allen-cahn": cases.ALLEN_CAHN, "helmholtz": cases.HELMHOLTZ, "cavity": pinn.RBA()}


def cells(options: Options) -> Iterator[Line]:
    """What is trained, the cheapest last."""
    smoke, full = options.size == SMOKE, options.size == "full"
    width, depth = (16, 2) if smoke else (64, 4)
    points = {"allen-cahn": 10_000, "helmholtz": 2000, "cavity": 500, "regression": 2000}
    budget = {"allen-cahn": 45_000, "helmholtz": 5000, "cavity": 1500, "regression": 6000}
    every = {"allen-cahn": 100}
    for case in ("allen-cahn", "helmholtz", "regression", "cavity"):
        for rule in ("rba", "vanilla") if case != "regression" else ("vanilla",):
            yield {
                "case": case,
                "rule": rule,
                "width": width,
                "depth": depth,
                "points": points[case] if full else 200,
                "iterations": budget[case] if full else 200,
                "every": every.get(case, 50) if full else 5,
                "seed": 0,
            }


def error_measure(net: nn.Module, case: str) -> diagnose.Measure | None:
    """Return the relative L2 error against the reference as a measure."""
    if case not in REFERENCES:
        return None
    points, u = REFERENCES[case]()
    points, u = points.float(), u.float()

    def compute(_: diagnose.Snapshot) -> dict[str, float | Tensor]:
        with torch.no_grad():
            return {"relative_l2": float((net(points)[:, 0] - u).norm() / u.norm())}

    return diagnose.Measure("error", "a forward pass", (), compute)


def monitor_of(cell: Line, extra: Sequence[diagnose.Measure | None] = ()) -> diagnose.Monitor:
    """Return the paper's schedule and its measures, with as many batches of 20 points as there are."""
    every = cell["every"]
    schedule = diagnose.EarlyAndEvery(every, max(1, every // 5), 6 * every)
    snr = diagnose.snr_measure(min(100, cell["points"] // 20))
    own = [measure for measure in extra if measure is not None]
    return diagnose.Monitor(schedule, ["homogeneity", snr, "adam", "information", *own])


def train(cell: Line, folder: Path) -> Line:
    """Train one case; a run that was cut off goes on where its last checkpoint is."""
    case = cell["case"]
    net = nt.MLP(
        2, 2 if case == "cavity" else 1, width=cell["width"], depth=cell["depth"],
        dtype=torch.float32, generator=cell["seed"],
    )  # fmt: skip
    monitor = monitor_of(cell, [error_measure(net, case)])
    rule = RULES[case]
    started = (folder / "config.json").exists()
    solution = pinn.solve(
        PROBLEMS[case](), net,
        [optim.Adam(cell["iterations"], schedule=optim.ExponentialDecay(0.9, 5000))],
        sampler=pinn.LatinHypercube(cell["points"], seed=cell["seed"]),
        weighting=rule if cell["rule"] == "rba" else cases.Passive(rule, cell["every"]),
        monitor=monitor, run_dir=folder, resume=started, progress=False, seed=cell["seed"],
    )  # fmt: skip
    by_step = {record.step: record for record in solution.outcome.history}
    passive = [
        next((v for k, v in by_step[i].info.items() if k.startswith("passive ")), math.nan)
        for i in monitor.iterations
    ]
    losses = [by_step[i].loss for i in monitor.iterations]
    return line_of(cell, monitor, losses, passive, solution.notes["monitor"]["share"])


def regress(cell: Line) -> Line:
    """Fit sin 3πx sin 3πy by a plain torch loop: a quadratic loss outside of differential equations."""
    net = nt.MLP(2, 1, width=cell["width"], depth=cell["depth"], dtype=torch.float32, generator=cell["seed"])
    generator = torch.Generator().manual_seed(cell["seed"])
    x = 2 * torch.rand(cell["points"], 2, generator=generator) - 1
    f = torch.sin(3 * math.pi * x).prod(1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    decay = torch.optim.lr_scheduler.StepLR(optimizer, 5000, 0.9)
    monitor, losses = monitor_of(cell), []

    def residual() -> Tensor:
        return (net(x)[:, 0] - f) / math.sqrt(len(x))

    for iteration in range(1, cell["iterations"] + 1):
        optimizer.zero_grad()
        loss = residual().square().sum()
        loss.backward()
        optimizer.step()
        decay.step()
        read = monitor.record(
            iteration, net, residual, points=x, optimizer=optimizer, independent=True,
            extent=((-1.0, 1.0), (-1.0, 1.0)),
        )  # fmt: skip
        if read is not None:
            losses.append(float(loss.detach()))
    return line_of(cell, monitor, losses, [], monitor.share)


def line_of(
    cell: Line, monitor: diagnose.Monitor, losses: list[float], passive: list[float], share: float
) -> Line:
    """Return the curves of a training, and its phases by the rule."""
    values = [reading.numbers for reading in monitor.readings]
    curves = {name: [v.get(name, math.nan) for v in values] for name in values[-1]}
    if cell["rule"] == "vanilla" and passive:
        curves["homogeneity.order/passive"] = passive
    smooth = diagnose.smoothed_snr(curves["snr.mean"], curves["snr.noise"], figures.WINDOW)
    found = diagnose.phases(monitor.iterations, smooth)
    return {
        **cell,
        "iterations_read": monitor.iterations,
        "curves": curves,
        "losses": losses,
        "phases": [
            {"name": p.name, "start": p.start, "stop": p.stop, "level": p.level,
             "interval": [p.boundary.low, p.boundary.high] if p.boundary else None}
            for p in found.phases
        ],
        "reason": found.reason,
        "share": share,
    }  # fmt: skip


def measure(path: Path, options: Options) -> bool:
    """Write the lines that a file lacks; each training is a run of its own beside it."""
    start = time.perf_counter()
    wanted = list(cells(options))
    known = [{k: found.get(k) for k in wanted[0]} for found in figures.read(path)]
    for cell in wanted:
        if cell in known:
            continue
        if time.perf_counter() - start > options.budget:
            return False
        folder = path.parent / "runs" / f"{cell['case']}-{cell['rule']}"
        line = regress(cell) if cell["case"] == "regression" else train(cell, folder)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return True


# --- claims ------------------------------------------------------------------------------------------


def check(claims: Sequence[Line], files: Mapping[str, Path], _options: Options) -> list[float | None]:
    """Return our value of each claim: a number of one line, or a ratio of two of them."""
    lines = figures.read(files["training"])
    return [_value(claim, lines) for claim in claims]


def _value(claim: Line, lines: Sequence[Line]) -> float | None:
    values = []
    for where in (claim["line"], claim.get("over")):
        if where is not None:
            chosen = [line for line in lines if all(line[k] == v for k, v in where.items())]
            number = QUANTITIES[claim["quantity"]](chosen[0]) if chosen else None
            if number is None:
                return None
            values.append(number)
    return values[0] if len(values) == 1 else values[0] / values[1]


def _start(line: Line) -> float:
    """Return where total diffusion begins; infinity where it does not within the budget."""
    return next((p["start"] for p in line["phases"] if p["name"] == "total diffusion"), math.inf)


def _inside(line: Line, name: str, phase: str) -> float | None:
    """Return the median of a curve in a phase."""
    where = next((p for p in line["phases"] if p["name"] == phase), None)
    if where is None or name not in line["curves"]:
        return None
    pairs = zip(line["iterations_read"], line["curves"][name], strict=True)
    return float(np.median([v for i, v in pairs if where["start"] <= i <= where["stop"]]))


def _rise(line: Line) -> float | None:
    """Return the saturation of the middle layers at the end over that at the transition."""
    start = _start(line)
    if not math.isfinite(start):
        return None
    layers = [name for name in line["curves"] if name.startswith("information.saturation/")]
    at = next(k for k, i in enumerate(line["iterations_read"]) if i >= start)
    ratios = [line["curves"][name][-1] / max(line["curves"][name][at], 1e-9) for name in layers[1:-1]]
    return float(np.mean(ratios)) if ratios else None


QUANTITIES = {
    "start": _start,
    "fitting_end": lambda line: next((p["start"] for p in line["phases"] if p["name"] == "diffusion"), None),
    "third_phase": lambda line: float(math.isfinite(_start(line))),
    "diffusion_snr": lambda line: _inside(line, "snr.snr", "diffusion"),
    "total_snr": lambda line: _inside(line, "snr.snr", "total diffusion"),
    "total_order": lambda line: _inside(line, "snr.order", "total diffusion"),
    "error": lambda line: line["curves"]["error.relative_l2"][-1],
    "saturation_rise": _rise,
}
FIGURES = (
    Figure(1, "signal-to-noise ratios of gradient and Adam, with the phases", "training", figures.ratios),
    Figure(2, "order parameters and the test error", "training", figures.orders),
    Figure(3, "signal-to-noise ratio by layer", "training", figures.layers),
    Figure(4, "information and saturation by layer", "training", figures.compression),
    Figure(5, "cavity, and a regression without differential equation", "training", figures.others),
)
PAPER = Paper("total_diffusion", {figure.number: figure for figure in FIGURES}, {"training": measure}, check)
