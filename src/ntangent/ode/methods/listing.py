"""The table of the catalogue: one row per method, everything in it proved."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ntangent.ode.methods.base import Method
from ntangent.ode.methods.catalogue import METHODS, get
from ntangent.ode.stability import Interval


@dataclass(frozen=True)
class Row:
    """What the table says about a method; see :class:`ntangent.ode.methods.Method`.

    ``decay_order`` and ``decay_constant`` are p and C of R'(z) ~ C z^-p for z → -∞.
    """

    name: str
    family: str
    order: int
    embedded_order: int | None
    stages: int
    stage_order: int
    implicit: bool
    a_stable: bool
    l_stable: bool
    at_infinity: float
    decay_order: float
    decay_constant: float
    wrong_sign: tuple[Interval, ...]
    aliases: tuple[str, ...]
    source: str

    def cells(self) -> tuple[str, ...]:
        """Return the row in words, as :data:`HEADINGS` has them."""
        return (
            self.name,
            self.family,
            str(self.order),
            "" if self.embedded_order is None else str(self.embedded_order),
            str(self.stages),
            str(self.stage_order),
            "yes" if self.a_stable else "no",
            "yes" if self.l_stable else "no",
            _number(self.at_infinity),
            _number(self.decay_order) if self.decay_order > 0 else "grows" if self.decay_order < 0 else "0",
            "" if math.isinf(self.decay_order) else _number(self.decay_constant),
            " ".join(f"({_number(low)}, {_number(high)})" for low, high in self.wrong_sign) or "none",
        )


HEADINGS = (
    "name", "family", "order", "embedded", "stages", "stage order", "A-stable", "L-stable", "R(∞)", "p", "C",
    "R' < 0",
)  # fmt: skip


def _number(x: float) -> str:
    if math.isinf(x):
        return "∞" if x > 0 else "-∞"
    return f"{x:.4g}"


def row(method: Method) -> Row:
    """Return the row of one method."""
    return Row(
        name=method.name,
        family=method.family,
        order=method.order_proved,
        embedded_order=method.embedded_order,
        stages=method.stages,
        stage_order=method.stage_order,
        implicit=method.implicit,
        a_stable=method.is_a_stable,
        l_stable=method.is_l_stable,
        at_infinity=method.at_infinity,
        decay_order=method.decay_order,
        decay_constant=method.decay_constant,
        wrong_sign=method.wrong_sign_intervals,
        aliases=method.aliases,
        source=method.source,
    )


def table(names: Iterable[str] | None = None) -> list[Row]:
    """Return the rows of the given methods, of all by default, in the order of the catalogue.

    Takes about half a second for all: every tableau is proved and every R analysed.

    Raises:
        UnknownNameError: for a name that is not in the catalogue.
        ArgumentError: if a tableau fails its proof.
    """
    return [row(get(name)) for name in (METHODS if names is None else names)]


def markdown(rows: Iterable[Row]) -> str:
    """Return rows as a Markdown table."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    lines += ["| " + " | ".join(r.cells()) + " |" for r in rows]
    return "\n".join(lines) + "\n"


__all__ = ["HEADINGS", "Row", "markdown", "row", "table"]
