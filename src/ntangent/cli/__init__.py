"""The command line, ``ntangent``."""

from __future__ import annotations

import sys

from ntangent._base.errors import MissingExtraError
from ntangent._base.extras import require_extra
from ntangent.run.distribution import joined


def main() -> None:
    """Run the command of ``sys.argv``; under ``torchrun``, on all of its processes together.

    Raises:
        SystemExit: always; 0 when all went well, 1 when a run failed, 2 for a wrong command line.
    """
    try:
        require_extra("cli", "the command line")
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    from ntangent.cli.app import cli

    with joined():
        cli(prog_name="ntangent")
