"""``ntangent ode``: the catalogue of methods for differential equations in time."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ntangent.cli.errors import traceback_option
from ntangent.ode.methods import HEADINGS, markdown, table

WORDS = ("name", "family", "R' < 0")


@click.group("ode")
def ode() -> None:
    """Ordinary differential equations: methods and what their gradients are worth."""


@ode.command("methods")
@click.argument("names", nargs=-1)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print a Markdown table.")
@traceback_option
def methods(names: tuple[str, ...], as_markdown: bool) -> None:
    """Prove and list the methods NAMES; all of them by default.

    R is the stability function. R'(z) ~ C z^-p for z → -∞: so fast do the gradients of stiff modes
    vanish. The last column has the intervals of z on which R' has the wrong sign.
    """
    rows = table(names or None)
    if as_markdown:
        click.echo(markdown(rows), nl=False)
        return
    shown = Table(title="Methods, every entry proved", title_justify="left", padding=(0, 1))
    for heading in HEADINGS:
        words = heading in WORDS
        shown.add_column(heading, justify="left" if words else "right", no_wrap=heading == "name")
    for row in rows:
        first, *rest = row.cells()
        shown.add_row(Text(first, style="bold"), *map(Text, rest))
    Console(highlight=False).print(shown)
