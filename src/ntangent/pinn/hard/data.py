"""Prescribed values as functions of jets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ntangent._base.errors import ArgumentError, ShapeError
from ntangent.jet import Jet
from ntangent.jet.series import lift
from ntangent.pinn.domains.tools import by_name


@dataclass(frozen=True)
class Data:
    """A number or a function of the coordinates.

    Args:
        value: number, or function as for :func:`ntangent.pinn.domains.base.by_name`; it must be
            written in operations that have Taylor rules.
        names: of the coordinates.
    """

    value: Any
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        value = self.value
        if isinstance(value, Tensor) and value.numel() == 1:
            object.__setattr__(self, "value", float(value))
        elif not callable(value):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise ArgumentError(
                    f"a hard condition has the value {value!r}",
                    "it is continued into the domain: a finite number, or a function of the coordinates",
                    "value=lambda x: torch.sin(x), or leave out hard=True",
                )

    @property
    def zero(self) -> bool:
        """Whether it is the number 0."""
        return not callable(self.value) and float(self.value) == 0.0

    def __call__(self, x: Jet) -> Jet:
        """Return the values at points, shape (N, 1)."""
        count = x.shape[0]
        if not callable(self.value):
            return lift(x.data.new_full((count, 1), float(self.value)), x)
        result = by_name(self.value, self.names, x)
        if not isinstance(result, Jet):
            result = lift(result, x)
        if result.shape not in ((count, 1), (count,), (), (1,), (1, 1)):
            raise ShapeError(
                f"a prescribed value has shape {tuple(result.shape)} at {count} points",
                "one number for each",
                "lambda x, y: torch.sin(x) * y",
            )
        column = result.map_rows(lambda rows: rows.reshape(len(rows), -1, 1).expand(-1, count, 1))
        return Jet(column.data, column.order, column.directions)
