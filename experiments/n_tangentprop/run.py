"""The n-TangentProp paper: what is measured for its figures, and what becomes of its claims."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.paper_grid import BATCHES, DEPTHS, DTYPES, ORDERS, WIDTHS, grid, line
from experiments._common.paper import SMOKE, Figure, Options, Paper
from experiments.n_tangentprop import figures, training, training_figures

from ntangent.bench import Cell, Effort, Lines, Settings, Sweep, fill, find, median

SEED = 42


def measure_orders(path: Path, options: Options) -> bool:
    """Measure the network of Figures 1 to 3 at all orders."""
    smoke = options.size == SMOKE
    dtypes = ("float32",) if smoke else DTYPES
    cells = [Cell(n, dtype=dtype) for n in range(7 if smoke else 10) for dtype in dtypes]
    effort = Effort(seconds=0.05, least=3) if smoke else Effort(seconds=2.0, least=20, most=400)
    return _measure(path, cells, Settings(effort, limit=0.5 if smoke else 60.0, seed=SEED), options)


def measure_grid(path: Path, options: Options) -> bool:
    """Measure the grid of Figures 4 and 5, or a corner of it."""
    if options.size == SMOKE:
        cells = grid((1, 3), (24, 32), (3, 5), (32,), ("float32",))
        return _measure(path, cells, Settings(Effort(seconds=0.03, least=3), 0.3, SEED), options)
    cells = grid(ORDERS, WIDTHS, DEPTHS, BATCHES, DTYPES)
    return _measure(path, cells, Settings(Effort(seconds=0.5, least=5), 20.0, SEED), options)


def _measure(path: Path, cells: Sequence[Cell], settings: Settings, options: Options) -> bool:
    def told(*cell: Any) -> None:
        print(line(*cell), flush=True)

    return fill(Lines(path), Sweep(find(), settings), cells, options.budget, told) == 0


def check(
    claims: Sequence[dict[str, Any]], files: Mapping[str, Path], options: Options
) -> list[float | None]:
    """Return our value of each claim: how many times faster ``ours`` is than nested autograd, mostly."""
    lines = {name: Lines(path) for name, path in files.items() if name != "training"}
    trained = training.read(files["training"])
    found = {
        name: {Cell(**result["cell"]): result["contenders"] for result in file.results}
        for name, file in lines.items()
    }
    return [
        training.value(claim, trained)
        if claim.get("from") == "training"
        else _ratio(claim, found.get(claim.get("data", ""), {}), options.clock)
        for claim in claims
    ]


def _ratio(claim: dict[str, Any], cells: dict[Cell, Any], clock: str) -> float | None:
    if not cells:
        return None
    records = cells.get(Cell(**claim["cell"]), {})
    times = [median(records.get(name, {}), claim["time"], clock) for name in ("autograd", claim["ours"])]
    return times[0] / times[1] if times[0] and times[1] else None


FIGURES = (
    Figure(1, "time of forward + backward against the order", "orders", partial(figures.orders, "total")),
    Figure(2, "time of the forward pass against the order", "orders", partial(figures.orders, "forward")),
    Figure(3, "time of the backward pass against the order", "orders", partial(figures.orders, "backward")),
    Figure(4, "ratio of forward + backward against the width", "grid", partial(figures.ratios, "total")),
    Figure(5, "ratio of the forward pass against the width", "grid", partial(figures.ratios, "forward")),
    Figure(6, "training of profiles 1 and 2: loss, λ, ratio of times", "training", training_figures.costs),
    *(
        Figure(6 + number, f"profile {number} with its derivatives, loss and λ", "training", draw)
        for number, draw in training_figures.PROFILES.items()
    ),
)
PAPER = Paper(
    "n_tangentprop",
    {figure.number: figure for figure in FIGURES},
    {"orders": measure_orders, "grid": measure_grid, "training": training.measure},
    check,
)
