"""The optional dependencies: which extra brings which distribution, and the error when one is missing."""

from __future__ import annotations

import importlib
import importlib.metadata

from ntangent._base.errors import MissingExtraError

# Extra -> its distributions, which are imported under the same names; as in pyproject.toml.
EXTRAS: dict[str, tuple[str, ...]] = {
    "cli": ("click", "rich"),
    "report": ("matplotlib", "jinja2"),
    "qmc": ("scipy",),
    "tensorboard": ("tensorboard",),
    "diagnose": ("scipy", "mpmath"),
}


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def missing(extra: str) -> list[str]:
    """Return the distributions of an extra that cannot be imported."""
    absent = []
    for name in EXTRAS[extra]:
        try:
            importlib.import_module(name)
        except ImportError:
            absent.append(name)
    return absent


def require_extra(extra: str, purpose: str) -> None:
    """Return if the distributions of an extra can be imported.

    Args:
        extra: name of the extra.
        purpose: what needs it, as the beginning of the message.

    Raises:
        MissingExtraError: naming what is missing and the command that installs it.
    """
    absent = missing(extra)
    if absent:
        raise MissingExtraError(
            f"{purpose} needs {' and '.join(absent)}",
            f"the extra '{extra}' of ntangent is not installed",
            f"pip install 'ntangent[{extra}]'",
        )
