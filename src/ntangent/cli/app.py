"""The commands, put together."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

import ntangent
from ntangent.cli.bench import bench
from ntangent.cli.doctor import doctor
from ntangent.cli.errors import ReportingGroup, traceback_option
from ntangent.cli.ode import ode
from ntangent.cli.options import fields, summary
from ntangent.cli.solving import resume, solve
from ntangent.problems import CATALOGUE
from ntangent.report import diagnose_run, write_report


@click.group(cls=ReportingGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(ntangent.__version__, prog_name="ntangent")
@traceback_option
def cli() -> None:
    """Networks that solve differential equations, with exact derivatives of any order."""


@cli.command()
@traceback_option
def problems() -> None:
    """List the problems of the catalogue."""
    table = Table(title="The catalogue", title_justify="left", padding=(0, 1))
    table.add_column("name", no_wrap=True)
    table.add_column("what it is", ratio=3)
    table.add_column("options", ratio=2)
    for name, kind in CATALOGUE.items():
        options = " ".join(f"--{field.name.replace('_', '-')}" for field in fields(kind))
        table.add_row(Text(name, style="bold"), Text(summary(kind)), Text(options, style="dim"))
    Console(highlight=False).print(table)
    click.echo("ntangent solve NAME --help explains the options")


@cli.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the diagnosis as a JSON object; write nothing.")
@traceback_option
def report(run_dir: Path, as_json: bool) -> None:
    """Say what is wrong with the run in RUN_DIR, and write its figures and report.html again.

    Everything comes from the run's files.
    """
    diagnosis = diagnose_run(run_dir)
    if as_json:
        document = {"run_dir": str(run_dir), **diagnosis.document()}
        click.echo(json.dumps(document, ensure_ascii=False, allow_nan=False))
        return
    for found in diagnosis.findings:
        click.echo(f"{found.rule.title}: {found.answer.text}\n  try {found.rule.advice[0]}", err=True)
    if not diagnosis.findings:
        click.echo(f"none of the {len(diagnosis.checked)} faults that the files can show was found", err=True)
    click.echo(write_report(run_dir))


for _command in (solve, resume, bench, doctor, ode):
    cli.add_command(_command)
