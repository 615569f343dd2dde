"""Exact derivatives against finite differences: spectra of random feature models, training of networks."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments._common.lines import Line, measure, read
from experiments._common.paper import SMOKE, Figure, Options, Paper
from experiments.ad_vs_fd import figures
from torch import Tensor

import ntangent as nt
from ntangent import diagnose
from ntangent.diagnose import RandomFeatures, Rows

STEPS = (None, 1e-1, 1e-2, 1e-3, 1e-4)  # None: exact
THRESHOLD = 1e-10


# --- random feature models -------------------------------------------------------------------------


def solution(x: Tensor) -> Tensor:
    """Return u, a product of sines, at points."""
    return torch.sin(math.pi * x).prod(1)


def rows_of(problem: str, count: int, seed: int) -> tuple[list[Rows], Tensor]:
    """Return the rows of a problem with about ``count`` interior points, and the right-hand side."""
    dimension = 2 if problem == "poisson2d" else 1
    ends = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    if dimension == 1:
        x = torch.linspace(-1, 1, count + 2, dtype=torch.float64)[1:-1, None]
        boundary = ends
    else:
        g = np.random.default_rng(10_000 + seed)
        x = torch.from_numpy(g.uniform(-1, 1, (count, 2)))
        t = torch.linspace(-1, 1, max(4, count // 10), dtype=torch.float64)
        one = torch.ones_like(t)
        sides = [torch.stack(pair, 1) for s in (-1, 1) for pair in ((t, s * one), (s * one, t))]
        boundary = torch.cat(sides)
    u, zero = solution(x), torch.zeros(len(boundary), dtype=torch.float64)
    identity = {(0,) * dimension: 1.0}
    if problem == "biharmonic1d":
        slope = torch.full((2,), -math.pi, dtype=torch.float64)  # of sin(πx) at both ends
        rows = [Rows(x, {(4,): 1.0}), Rows(ends, identity, exact=True), Rows(ends, {(1,): 1.0}, exact=True)]
        return rows, torch.cat([math.pi**4 * u, zero, slope])
    laplacian = {(2,): -1.0} if dimension == 1 else {(2, 0): -1.0, (0, 2): -1.0}
    return [Rows(x, laplacian), Rows(boundary, identity, exact=True)], torch.cat(
        [dimension * math.pi**2 * u, zero]
    )


def features_of(problem: str, count: int, activation: str, radius: float, seed: int) -> RandomFeatures:
    """Return features with weights, then biases, uniform in (-radius, radius)."""
    g, dimension = np.random.default_rng(seed), 2 if problem == "poisson2d" else 1
    w, b = g.uniform(-radius, radius, (count, dimension)), g.uniform(-radius, radius, count)
    return RandomFeatures(torch.from_numpy(w), torch.from_numpy(b), activation)


def spectrum_line(cell: Mapping[str, Any]) -> Line:
    """Return the spectrum of one system matrix, and what its least-squares solution is worth."""
    problem, count, step = cell["problem"], cell["features"], cell["step"]
    features = features_of(problem, count, cell["activation"], cell["radius"], cell["seed"])
    rows, f = rows_of(problem, count, cell["seed"])
    a = diagnose.system_matrix(features, rows, "jet" if step is None else "fd", step=step)
    found = diagnose.spectrum(a, THRESHOLD)
    outer = torch.linalg.lstsq(a, f[:, None], rcond=1e-15, driver="gelsd").solution[:, 0]
    g = torch.Generator().manual_seed(1)
    x = 2 * torch.rand(2000, features.weights.shape[1], dtype=torch.float64, generator=g) - 1
    u = solution(x)
    residual, error = a @ outer - f, features(x) @ outer - u
    steps = torch.tensor([1e3, 1e5])
    predicted = diagnose.gradient_flow_loss(a, f).loss(steps, 1 / float(found.values[0]) ** 2) / len(f)
    return {
        **cell,
        **found.numbers(),
        "values": found.values.tolist(),
        "residual": float(residual.norm()) / math.sqrt(count),
        "error": float(error.norm() / u.norm()),
        "predicted": predicted.tolist(),
    }


def spectrum_cells(options: Options) -> Iterator[Line]:
    """The grid of matrices; the first five are the table of NOTES.md."""
    smoke = options.size == SMOKE
    sizes, seeds = ((100,), 1) if smoke else ((100, 50, 200, 400), 10)
    for activation in ("tanh",) if smoke else ("tanh", "sin", "sigmoid", "relu5"):
        for problem, radius in (("poisson1d", 1.0), ("biharmonic1d", 5.0), ("poisson2d", 1.0)):
            for count in sizes:
                for seed in range(seeds):
                    for step in STEPS:
                        yield {"problem": problem, "activation": activation, "features": count,
                               "radius": radius, "seed": seed, "step": step}  # fmt: skip


def digits_line(cell: Mapping[str, Any]) -> Line:
    """Return the spectrum of a 24x24 matrix in 60 digits, or in float64."""
    features = features_of("poisson1d", 24, "tanh", 1.0, 0)
    rows = rows_of("poisson1d", 24, 0)[0][:1]
    method = "jet" if cell["step"] is None else "fd"
    if cell["digits"]:
        matrix = diagnose.precise_system_matrix(
            features, rows, method, digits=cell["digits"], step=cell["step"]
        )
        values = diagnose.singular_values(matrix, cell["digits"])
    else:
        values = diagnose.singular_values(diagnose.system_matrix(features, rows, method, step=cell["step"]))
    return {**cell, "values": values.tolist()}


# --- networks ---------------------------------------------------------------------------------------


def training_line(cell: Mapping[str, Any]) -> Line:
    """Train a network with one hidden layer on -u'' = f by Adam; return losses and the error."""
    dtype, step = getattr(torch, cell["dtype"]), cell["step"]
    net = nt.MLP(1, 1, width=cell["width"], depth=1, dtype=dtype, generator=cell["seed"])
    x = torch.linspace(-1, 1, 102, dtype=dtype)[1:-1, None]
    ends = torch.tensor([[-1.0], [1.0]], dtype=dtype)
    f = math.pi**2 * torch.sin(math.pi * x)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []

    def residual() -> Tensor:
        return (nt.laplacian(net, x) if step is None else nt.fd.laplacian(net, x, step=step)) + f

    for _ in range(cell["iterations"]):
        optimizer.zero_grad()
        loss = residual().square().mean() + 10 * net(ends).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        fine = torch.linspace(-1, 1, 1001, dtype=dtype)[:, None]
        u = torch.sin(math.pi * fine)
        error = float((net(fine) - u).norm() / u.norm())
    every = max(1, cell["iterations"] // 200)
    return {
        **cell,
        "losses": losses[::every],
        "every": every,
        "loss": float(np.median(losses[-100:])),
        "error": error,
    }


def training_cells(options: Options) -> Iterator[Line]:
    """Both precisions, exact and three steps."""
    width, iterations, seeds = (100, 600, 1) if options.size == SMOKE else (100, 3000, 5)
    for seed in range(seeds):
        for dtype in ("float32", "float64"):
            for step in (None, 1e-1, 1e-2, 1e-3):
                yield {"dtype": dtype, "step": step, "width": width, "iterations": iterations, "seed": seed}


# --- files -------------------------------------------------------------------------------------------


def digits_cells(_options: Options) -> Iterator[Line]:
    """Exact and differences, in 60 digits and in float64."""
    for digits in (60, 0):
        for step in (None, 1e-3):
            yield {"digits": digits, "step": step}


def check(claims: Sequence[Line], files: Mapping[str, Path], _options: Options) -> list[float | None]:
    """Return our value of each claim: a number of one line, or a ratio of two of them."""
    lines = {name: read(path) for name, path in files.items()}
    return [_value(claim, lines.get(claim["from"], [])) for claim in claims]


def _value(claim: Line, lines: Sequence[Line]) -> float | None:
    values = []
    for where in (claim["line"], claim.get("over")):
        if where is None:
            continue
        wanted = {**where, "step": where.get("step")}
        chosen = [found for found in lines if all(found.get(k) == v for k, v in wanted.items())]
        if not chosen:
            return None
        numbers = [_number(found, claim["quantity"]) for found in chosen]
        values.append(float(np.median(numbers)))
    return values[0] if len(values) == 1 else values[0] / values[1]


def _number(line: Line, quantity: str) -> float:
    name, _, index = quantity.partition("/")
    return float(line[name][int(index)] if index else line[name])


FIGURES = (
    Figure(1, "singular values of exact and difference matrices", "spectra", figures.spectra),
    Figure(2, "cut-off and entropies against the threshold", "spectra", figures.entropies),
    Figure(3, "loss against iterations, exact and differences", "training", figures.losses),
    Figure(4, "the same matrix in 60 digits and in float64", "digits", figures.digits),
)
PAPER = Paper(
    "ad_vs_fd",
    {figure.number: figure for figure in FIGURES},
    {
        "spectra": measure(spectrum_cells, spectrum_line),
        "training": measure(training_cells, training_line),
        "digits": measure(digits_cells, digits_line),
    },
    check,
)
