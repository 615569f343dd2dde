"""Tables with one row per thing: look-up by name, with the nearest names when it fails."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Generic, TypeVar

from ntangent._base.errors import ArgumentError, UnknownNameError

T = TypeVar("T")


def nearest_names(name: str, known: list[str]) -> str:
    """Return a hint that names the closest entries, or all of them when none is close."""
    close = difflib.get_close_matches(name, known, n=3)
    return "did you mean " + " or ".join(close) + "?" if close else "known names: " + ", ".join(sorted(known))


class Registry(Generic[T]):
    """A table of named rows that refuses duplicates.

    Args:
        kind: what a row is, in words; it appears in error messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._rows: dict[str, T] = {}

    def add(self, name: str, row: T) -> T:
        """Add ``row`` under ``name`` and return it."""
        if name in self._rows:
            raise ArgumentError(
                f"the {self.kind} {name!r} is already registered",
                "two rows under one name would make the result depend on import order",
                f"choose another name than {name!r}",
            )
        self._rows[name] = row
        return row

    def __getitem__(self, name: str) -> T:
        if name not in self._rows:
            raise UnknownNameError(
                f"unknown {self.kind} {name!r}",
                f"it is not in the table of {len(self._rows)} entries",
                nearest_names(name, list(self._rows)),
            )
        return self._rows[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def items(self) -> list[tuple[str, T]]:
        """Return all (name, row) pairs in the order of registration."""
        return list(self._rows.items())
