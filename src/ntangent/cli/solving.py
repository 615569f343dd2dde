"""``ntangent solve`` and ``ntangent resume``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table

from ntangent import problems
from ntangent._base.errors import CheckpointError, RunFolderError
from ntangent._base.extras import missing
from ntangent._base.registry import nearest_names
from ntangent.cli.errors import traceback_option
from ntangent.cli.options import build_options, stored_options, summary
from ntangent.cli.recipes import Entry, find
from ntangent.diagnose import Monitor, measures
from ntangent.pinn import Solution
from ntangent.problems import CATALOGUE
from ntangent.problems.catalogue import Restarting
from ntangent.report import write_report
from ntangent.run import RunFolder
from ntangent.run.distribution import leads
from ntangent.run.files import jsonable

EPILOG = (
    "NAME may also be the path of a Python file that defines 'problem' (a pinn.Problem) and, if it likes, "
    "'net', 'stages' and 'sampler'; or 'recipe', with the methods of a problem of the catalogue."
)
FROM_PYTHON = "python"  # what pinn.solve writes as the problem's name when it was called from Python


@dataclass(frozen=True)
class Wishes:
    """The common options.

    Args:
        run_dir: the run folder.
        resume: continue the run in it.
        overwrite: replace the run in it.
        json: print one JSON object instead of a summary.
        quiet: no progress.
        report: write the report at the end.
        checkpoint_every: seconds between checkpoints.
        monitor: measures to read during the training.
        monitor_every: iterations between readings.
    """

    run_dir: Path
    resume: bool
    overwrite: bool
    json: bool
    quiet: bool
    report: bool
    checkpoint_every: float
    monitor: tuple[str, ...] = ()
    monitor_every: int = 100

    def watcher(self) -> Monitor | None:
        """Return the monitor that is wished for."""
        return Monitor(self.monitor_every, self.monitor) if self.monitor else None


def _flags() -> dict[str, click.Option]:
    """Return the options that both commands have."""
    return {
        "json": click.Option(
            ["--json", "as_json"], is_flag=True, help="Make the last line of standard output a JSON object."
        ),
        "quiet": click.Option(["--quiet"], is_flag=True, help="Show no progress on standard error."),
        "checkpoint_every": click.Option(
            ["--checkpoint-every"], type=click.FloatRange(min=0), default=10.0, show_default=True,
            help="Seconds between checkpoints.",
        ),
        "no_report": click.Option(["--no-report"], is_flag=True, help="Write no figures and no report.html."),
    }  # fmt: skip


def _common(label: str) -> list[click.Option]:
    """Return the options that every problem has."""
    return [
        click.Option(
            ["--run-dir"], type=click.Path(path_type=Path), default=Path("runs") / label, show_default=True,
            help="Folder for configuration, metrics, checkpoints and report.",
        ),
        click.Option(
            ["--resume"], is_flag=True,
            help="Continue the run in the folder, with the options stored there.",
        ),
        click.Option(["--overwrite"], is_flag=True, help="Replace the run in the folder."),
        *_flags().values(),
        click.Option(
            ["--monitor"], type=MeasureNames(), metavar="NAMES",
            help=f"Diagnostics to read during the training, with commas: {', '.join(measures)}.",
        ),
        click.Option(
            ["--monitor-every"], type=click.IntRange(min=1), default=100, show_default=True,
            help="Iterations between two readings.",
        ),
        click.Option(
            ["--threads"], type=click.IntRange(min=1),
            help="Threads of torch.  [default: torch's own number]",
        ),
    ]  # fmt: skip


class MeasureNames(click.ParamType):  # type: ignore[type-arg] # generic in new versions of click only
    """Names of measures with commas between them."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the names, if there are such measures."""
        names = tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else tuple(value)
        for name in names:
            if name not in measures:
                self.fail(f"there is no measure {name!r}; {nearest_names(name, list(measures))}", param, ctx)
        return names


def _watched(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the monitor of a stored configuration as wishes."""
    stored = config.get("monitor")
    return {"monitor": tuple(stored["measures"]), "monitor_every": stored["every"]} if stored else {}


class SolveGroup(click.Group):
    """One sub-command per problem of the catalogue, and one for any Python file."""

    def list_commands(self, _: click.Context) -> list[str]:
        """Return the names of the catalogue."""
        return list(CATALOGUE)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        """Return the command of a problem."""
        return None if name.startswith("-") else _command(find(name))


def _command(entry: Entry) -> click.Command:
    def callback(**values: Any) -> None:
        context = click.get_current_context()
        given = {
            name
            for name in values
            if context.get_parameter_source(name)
            not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
        }
        wishes = Wishes(
            run_dir=values.pop("run_dir"),
            resume=values.pop("resume"),
            overwrite=values.pop("overwrite"),
            json=values.pop("as_json"),
            quiet=values.pop("quiet"),
            report=not values.pop("no_report"),
            checkpoint_every=values.pop("checkpoint_every"),
            monitor=values.pop("monitor") or (),
            monitor_every=values.pop("monitor_every"),
        )
        threads = values.pop("threads")
        if wishes.resume and not wishes.overwrite:
            config = RunFolder.open(wishes.run_dir).config
            if config.get("problem") != entry.name:
                raise CheckpointError(
                    f"the run in {wishes.run_dir} solves {config.get('problem')}, not {entry.name}",
                    "a run is resumed with the problem it was started with",
                    f"ntangent resume {shlex.quote(str(wishes.run_dir))}",
                )
            if "monitor" not in given and "monitor_every" not in given:
                wishes = replace(wishes, **_watched(config))
            values = {**_stored(entry, config), **{n: v for n, v in values.items() if n in given}}
            threads = threads or config.get("threads")
        elif "run_dir" not in given and not wishes.quiet and leads():
            click.echo(f"run folder: {wishes.run_dir} (--run-dir chooses another)", err=True)
        execute(entry, values, threads, wishes)

    options = build_options(entry.kind, entry.defaults, entry.hidden)
    command = click.Command(
        entry.name, callback=callback, params=[*options, *_common(entry.label)], help=summary(entry.kind)
    )
    traceback_option(command)
    return command


def _stored(entry: Entry, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options in a stored configuration, less those that the entry settles itself."""
    stored = stored_options(entry.kind, config.get("options", {}))
    return {name: value for name, value in stored.items() if name not in entry.hidden}


def execute(entry: Entry, options: Mapping[str, Any], threads: int | None, wishes: Wishes) -> None:
    """Solve a problem, write its report and print its numbers.

    Args:
        entry: the problem.
        options: values of its options.
        threads: number of threads; torch's own where None.
        wishes: the common options.
    """
    recipe = entry.build(**options)
    if threads is not None:
        torch.set_num_threads(int(threads))
    lacking = missing("report") if wishes.report and leads() else []
    if lacking:
        click.echo(
            f"no report will be written: {' and '.join(lacking)} missing; pip install 'ntangent[report]'",
            err=True,
        )
    try:
        solution = problems.run(
            entry.name, recipe, run_dir=wishes.run_dir, resume=wishes.resume, overwrite=wishes.overwrite,
            progress=not wishes.quiet, checkpoint_every=wishes.checkpoint_every, monitor=wishes.watcher(),
        )  # fmt: skip
    except (KeyboardInterrupt, SystemExit) as stop:
        if leads():
            click.echo(f"interrupted; ntangent resume {shlex.quote(str(wishes.run_dir))} continues", err=True)
        code = 130 if isinstance(stop, KeyboardInterrupt) else stop.code
        raise click.exceptions.Exit(code if isinstance(code, int) else 1) from stop
    if not leads():
        return  # rank 0 writes and prints
    report = write_report(wishes.run_dir) if wishes.report and not lacking else None
    _print(numbers(recipe, solution, wishes.run_dir, report), wishes)
    cost = solution.notes.get("monitor")
    if cost and not wishes.quiet:
        click.echo(f"monitor: {cost['readings']} readings, {100 * cost['share']:.1f} % of the time", err=True)


def numbers(recipe: Any, solution: Solution, run_dir: Path, report: Path | None) -> dict[str, Any]:
    """Return what is printed: the recipe's headline and the facts of the run."""
    stored = RunFolder.open(run_dir).read_result()
    history = solution.outcome.history
    document = {
        **recipe.headline(stored if stored is not None else solution.summary()),
        "run_dir": str(run_dir),
        "report": None if report is None else str(report),
        "loss": solution.loss,
        "iterations": history[-1].step if history else 0,
        "reasons": list(solution.outcome.reasons),
    }
    if isinstance(recipe, Restarting):
        document["objection"] = recipe.objection(solution)
    plain: dict[str, Any] = jsonable(document, "headline")
    return plain


def _print(document: dict[str, Any], wishes: Wishes) -> None:
    if wishes.json:
        click.echo(json.dumps(document, ensure_ascii=False, allow_nan=False))
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in document.items():
        if value is None:
            continue
        lines = value if isinstance(value, list) else [value]
        for index, line in enumerate(lines):
            label = "stopped because" if name == "reasons" else name.replace("_", " ")
            table.add_row("" if index else label, f"{line:.10g}" if isinstance(line, float) else str(line))
    Console(markup=False, highlight=False).print(table)


@click.group("solve", cls=SolveGroup, epilog=EPILOG, subcommand_metavar="NAME [OPTIONS]...")
@traceback_option
def solve() -> None:
    """Solve a problem of the catalogue, or a user's own Python file.

    The run is a folder, runs/NAME unless --run-dir says otherwise: configuration, metrics,
    checkpoints, figures and report.html.
    """


def _resume(run_dir: Path, as_json: bool, quiet: bool, no_report: bool, checkpoint_every: float) -> None:
    config = RunFolder.open(run_dir).config
    name = str(config.get("problem"))
    if name == FROM_PYTHON:
        raise RunFolderError(
            f"the run in {run_dir} was started from Python",
            "its problem is code that the folder does not hold",
            f"pinn.solve(..., run_dir={str(run_dir)!r}, resume=True) in the same program",
        )
    entry = find(name)
    wishes = Wishes(run_dir, True, False, as_json, quiet, not no_report, checkpoint_every, **_watched(config))
    execute(entry, _stored(entry, config), config.get("threads"), wishes)


resume = click.Command(
    "resume",
    callback=_resume,
    params=[click.Argument(["run_dir"], type=click.Path(path_type=Path)), *_flags().values()],
    help="Continue the run in RUN_DIR from its newest checkpoint, to the bits of a run never interrupted.",
)
traceback_option(resume)
