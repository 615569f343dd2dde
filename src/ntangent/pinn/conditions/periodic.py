"""Periodicity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ntangent._base.check import check_choice, check_order, check_positive
from ntangent._base.errors import ArgumentError, ProblemError
from ntangent.pinn.conditions.base import Located, chosen, unit
from ntangent.pinn.equation import Block, Demand, Fields
from ntangent.pinn.field import Parameters


class Periodic:
    """The field and its derivatives agree at both ends of a coordinate: ``Periodic("x")``.

    Args:
        coordinate: its name.
        derivatives: which derivatives along it agree; the value and the slope by default.
        weight: weight of each mean square.
        n: pairs of points; 64 by default.
        sampler: draws them in the other coordinates, instead of ``n``.
        seed: of the points.
        field: name of the field, if there are several.
        component: of a vector field; all by default.
        hard: build the condition into the field instead.
    """

    def __init__(
        self, coordinate: str, derivatives: Sequence[int] = (0, 1), weight: float = 1.0, *,
        n: int | None = None, sampler: Any = None, seed: int = 0, field: str | None = None,
        component: int | None = None, hard: bool = False,
    ) -> None:  # fmt: skip
        if not derivatives:
            raise ArgumentError("Periodic compares no derivative", "", 'Periodic("x", (0, 1))')
        self.coordinate, self.derivatives = (
            coordinate,
            tuple(check_order(k, "derivatives") for k in derivatives),
        )
        self.weight = float(check_positive(weight, "weight"))
        self.n, self.sampler, self.seed, self.hard = n, sampler, seed, bool(hard)
        self.field, self.component = field, component

    def __repr__(self) -> str:
        extra = {"n": self.n, "sampler": self.sampler, "field": self.field, "component": self.component}
        listed = [f"{name}={v!r}" for name, v in extra.items() if v is not None]
        listed += [f"seed={self.seed}"] if self.seed else []
        listed += ["hard=True"] if self.hard else []
        given = [repr(self.coordinate), repr(self.derivatives), f"weight={self.weight!r}", *listed]
        return f"Periodic({', '.join(given)})"

    def blocks(self, problem: Any, dtype: torch.dtype, device: torch.device) -> list[Block]:
        """Return one block with a row for each derivative and component; its points come in pairs."""
        if self.hard:
            return []
        names = problem.domain.names
        check_choice(self.coordinate, names, "coordinate")
        field, components = chosen(problem, self.field, self.component)
        low, high = problem.interval(self.coordinate)
        if not hasattr(problem.domain, "intervals"):
            raise ProblemError(
                f"Periodic({self.coordinate!r}) on {problem.domain}",
                "only a box has opposite ends point by point",
                f"Box({self.coordinate}=({low}, {high}))",
            )
        n = self.n if len(names) > 1 else None
        left = Located(None, n, self.sampler, self.seed, {self.coordinate: low}).place(problem, dtype, device)
        right = left.points.clone()
        right[:, names.index(self.coordinate)] = high
        points, count = torch.cat([left.points, right]), len(right)
        orders = [unit(problem, self.coordinate, k) for k in self.derivatives]

        def rows(fields: Fields, _p: Parameters, _x: Fields) -> torch.Tensor:
            parts = [fields[field].partial(b).data[0][:, components] for b in orders]
            values = torch.cat(parts, 1).T
            return values[:, :count] - values[:, count:]

        zero = (0,) * len(names)
        demand = Demand({field: frozenset([zero, *orders])}, frozenset([zero]))
        weights = points.new_full((len(orders) * len(components),), self.weight)
        return [Block("periodic", points, demand, rows, weights, fold=2)]
