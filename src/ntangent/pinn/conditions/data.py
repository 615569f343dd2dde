"""Measured values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.errors import ShapeError
from ntangent.pinn.arguments import numbers
from ntangent.pinn.conditions.base import Place, chosen, given_points, linear_block
from ntangent.pinn.equation import Block


@dataclass(frozen=True)
class PointData:
    """Measured values of a field, or of several.

    Args:
        points: where: N numbers in one coordinate; shape (N, d), or a mapping from coordinates to N
            numbers each.
        values: what was measured there: N numbers, or (N, c) for a vector field; a mapping by name
            for several fields.
        weight: weight of the mean square of each component.
        field: name of the field, if there are several.
        component: of a vector field; all by default.
    """

    points: Any
    values: Any
    weight: float = 1.0
    field: str | None = None
    component: int | None = None

    def __post_init__(self) -> None:
        check_positive(self.weight, "weight")

    def blocks(self, problem: Any, dtype: torch.dtype, device: torch.device) -> list[Block]:
        """Return one block for each field, with a row for each component."""
        points = given_points(self.points, problem, dtype, device)
        given = self.values if isinstance(self.values, Mapping) else {self.field: self.values}
        blocks = []
        for name, measured in given.items():
            field, components = chosen(problem, name, self.component)
            values = _table(numbers(measured, "values", dtype, device), len(points), len(components))
            terms = [((0,) * points.shape[1], 1.0)]
            blocks.append(linear_block("data", Place(points), field, components, terms, values, self.weight))
        return blocks


def _table(values: Tensor, count: int, components: int) -> Tensor:
    """Return values as (components, N)."""
    if components == 1:
        values = values.reshape(-1, 1) if values.ndim < 2 or values.shape[1] == 1 else values
    if values.ndim != 2 or values.shape != (count, components):
        found = len(values) if values.ndim else values.numel()
        raise ShapeError(
            f"{count} points and {found} values of shape {tuple(values.shape[1:])}"
            if values.ndim > 1 and values.shape[1] != 1
            else f"{count} points and {found} values",
            f"each point has {components} measured value(s)",
            "values[:len(points)]",
        )
    return values.T.contiguous()
