"""How errors reach the user: what, why and fix on standard error, and an exit code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ntangent._base.errors import (
    ArgumentError,
    CheckpointError,
    DistributedError,
    DtypeError,
    MissingExtraError,
    NtangentError,
    RunFolderError,
)
from ntangent.run.distribution import leads

USAGE, RUN = 2, 1
_TRACEBACK = "ntangent.traceback"


def exit_code(error: Exception) -> int:
    """Return 2 where the command line is to be changed, 1 where the run failed."""
    usage = isinstance(error, ArgumentError | DtypeError | MissingExtraError | RunFolderError)
    return USAGE if usage and not isinstance(error, CheckpointError) else RUN


def _remember(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.meta[_TRACEBACK] = True


def traceback_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--traceback``, which may stand anywhere on the command line."""
    return click.option(
        "--traceback", is_flag=True, expose_value=False, is_eager=True, callback=_remember,
        help="Show where an error was raised.",
    )(function)  # fmt: skip


class ReportingGroup(click.Group):
    """A group that shows the package's errors as sentences."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command; turn an error into its message and exit code."""
        try:
            return super().invoke(context)
        except (NtangentError, OSError) as error:
            if context.meta.get(_TRACEBACK):
                raise
            # Rank 0 speaks for all, unless it is the one that was lost.
            if leads() or isinstance(error, DistributedError):
                click.echo(click.style("error: ", fg="red", bold=True) + str(error), err=True)
            raise click.exceptions.Exit(exit_code(error)) from error
