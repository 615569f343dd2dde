"""``ntangent bench``: the backends against each other on this machine."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from ntangent._base.errors import ArgumentError
from ntangent._base.extras import require_extra
from ntangent.bench import (
    FLOOR,
    Cell,
    Effort,
    Result,
    Settings,
    Sweep,
    about_here,
    document,
    find,
    write_document,
    wrong,
)
from ntangent.bench.cells import DTYPES
from ntangent.bench.show import figure, group, tables
from ntangent.bench.sweep import SKIPPED, TIMED, UNAVAILABLE
from ntangent.cli.errors import traceback_option
from ntangent.run.files import write_atomically

# What --quick changes: option -> value. It is meant for under a minute on two cores.
QUICK: dict[str, Any] = {"dtype": ("float64",), "seconds": 0.1, "limit": 0.7, "least": 3}


def numbers(context: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    """Return the numbers of an option such as 1,3,6-9."""
    found: list[int] = []
    for part in words(context, option, value):
        first, dash, last = part.partition("-")
        try:
            found += range(int(first), int(last) + 1) if dash else [int(first)]
        except ValueError:
            raise click.BadParameter(f"{part!r} is neither a number nor a range such as 0-9") from None
    return tuple(found)


def words(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    """Return the words of an option, which have commas between them."""
    return tuple(word.strip() for word in value.split(",") if word.strip())


@click.command("bench")
@click.option("--quick", is_flag=True, help="Under a minute: float64, few passes, long cells skipped.")
@click.option("--order", callback=numbers, default="0-9", show_default=True, help="Orders n.")
@click.option("--width", callback=numbers, default="24", show_default=True, help="Neurons in a hidden layer.")
@click.option("--depth", callback=numbers, default="3", show_default=True, help="Hidden layers.")
@click.option("--batch", callback=numbers, default="256", show_default=True, help="Points.")
@click.option("--dtype", callback=words, default="float64,float32", show_default=True, help="Precisions.")
@click.option("--backend", callback=words, default="", help="What to time; everything by default.")
@click.option("--device", default="cpu", show_default=True, help="Where networks and points live.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch.")
@click.option("--seconds", type=float, default=0.5, show_default=True, help="Timed for each entry.")
@click.option("--least", type=click.IntRange(min=1), default=5, show_default=True, help="Fewest passes.")
@click.option("--limit", type=float, default=10.0, show_default=True, help="Longest pass, in seconds.")
@click.option("--seed", type=int, default=42, show_default=True, help="Seed of networks, points, turns.")
@click.option("--clock", type=click.Choice(["wall", "cpu"]), default="wall", show_default=True,
              help="Time that tables and plot show; the file has both.")  # fmt: skip
@click.option("--memory/--no-memory", default=True, show_default=True, help="Measure peak memory too.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write everything to this file.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write a figure to this PNG file.")
@traceback_option
def bench(json_file: Path | None, plot: Path | None, **options: Any) -> None:
    """Time every backend on this machine: forward, and forward + backward.

    The work is that of the n-TangentProp paper: all derivatives up to order n of a dense tanh network,
    then the gradient of the mean square of their sum in all parameters. The number after each time is
    how many times faster it is than nested autograd. The floor is the multiply-adds of the dense layers as
    bare matrix products, and one pass over the activations.
    """
    context = click.get_current_context()
    given = click.core.ParameterSource.DEFAULT
    if options["quick"]:
        options |= {k: v for k, v in QUICK.items() if context.get_parameter_source(k) is given}
    dtypes = options["dtype"]
    if unknown := [name for name in dtypes if name not in DTYPES]:
        raise ArgumentError(f"there is no precision {unknown[0]!r} here", "", f"--dtype {','.join(DTYPES)}")
    if plot is not None:
        require_extra("report", "a plot")
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    axes = [options[name] for name in ("order", "width", "depth", "batch")]
    cells = [
        Cell(order, width, depth, batch, dtype, options["device"])
        for order, width, depth, batch in itertools.product(*axes)
        for dtype in dtypes
    ]
    settings = Settings(Effort(options["seconds"], options["least"]), options["limit"], options["seed"])
    _run(cells, Sweep(find(options["backend"]), settings), options, json_file, plot)


def _run(
    cells: Sequence[Cell], sweep: Sweep, options: dict[str, Any], json_file: Path | None, plot: Path | None
) -> None:
    console, start = Console(highlight=False), time.perf_counter()
    about = about_here()
    click.echo(
        f"{about['processor']}, {about['cores']} cores, {about['threads']} thread(s), "
        f"load {about['load_at_start']}; torch {torch.__version__}; native kernels: {about['native_kernels']}"
    )
    with console.status("") as status:
        results: list[Result] = []
        for result in sweep.run(cells):
            results.append(result)
            status.update(f"{len(results)} of {len(cells)} cells")
        memory = []
        if options["memory"] and options["device"] == "cpu":
            for cell, name in _memory_cells(results, options["quick"]):
                status.update(f"peak memory of {name}")
                memory.append(sweep.memory(cell, name))
    for table in tables(results, options["clock"]):
        console.print(table)
    _absent(results)
    if memory:
        console.print(_memory_table(memory))
    click.echo(f"{time.perf_counter() - start:.0f} s")
    if json_file is not None:
        write_document(json_file, document(about, sweep.settings, results, memory))
        click.echo(json_file)
    if plot is not None:
        plot.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(plot, figure(results, options["clock"]))
        click.echo(plot)
    if mistakes := wrong(results):
        click.echo("error: wrong results:\n  " + "\n  ".join(mistakes), err=True)
        raise click.exceptions.Exit(1)


def _absent(results: Sequence[Result]) -> None:
    reasons = {
        name: record["reason"]
        for result in results
        for name, record in result["contenders"].items()
        if record["status"] == UNAVAILABLE
    }
    for name, reason in reasons.items():
        click.echo(f"{name} is not available: {reason}")
    if any(r["status"] == SKIPPED for result in results for r in result["contenders"].values()):
        click.echo("skipped: what one pass was predicted to take from lower orders; ratios to it have a ≈")


def _memory_cells(results: Sequence[Result], quick: bool) -> list[tuple[Cell, str]]:
    """Return for each series and contender the highest order that was timed, and the lowest."""
    found: list[tuple[Cell, str]] = []
    for rows in group(results).values():
        for name in rows[0]["contenders"]:
            timed = [Cell(**row["cell"]) for row in rows if row["contenders"][name]["status"] == TIMED]
            if timed and name != FLOOR:
                found += [(cell, name) for cell in dict.fromkeys((timed[-1], timed[-1 if quick else 0]))]
    return found


def _memory_table(memory: Sequence[Result]) -> Table:
    table = Table(title="peak memory of forward + backward, above that of the loaded process")
    for heading in ("network", "backend", "n", "MB"):
        table.add_column(heading, justify="left" if heading in ("network", "backend") else "right")
    for row in memory:
        cell = Cell(**row["cell"])
        size = row["reason"] if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}"
        table.add_row(str(cell.series), row["contender"], str(cell.order), size)
    return table
