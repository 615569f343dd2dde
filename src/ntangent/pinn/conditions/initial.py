"""Initial values."""

from __future__ import annotations

from typing import Any

import torch

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError, ProblemError, ShapeError
from ntangent._base.registry import nearest_names
from ntangent.pinn.arguments import numbers
from ntangent.pinn.conditions.base import Located, chosen, described, target_of, unit
from ntangent.pinn.equation import Block, Demand, Fields
from ntangent.pinn.field import Parameters


class Initial:
    """Value and time derivatives of a field at the lower end of time.

    ``Initial(lambda x: torch.sin(x), 0.0)`` prescribes u and u_t. In one coordinate the numbers may
    come as one sequence: ``Initial((1.0, 0.0))``.

    Args:
        values: u, ∂u/∂t, ∂²u/∂t², ...: numbers or functions of the coordinates.
        weight: weight of each mean square.
        time: name of the time; the only coordinate, or ``t``, by default.
        n: points of the initial surface; 64 by default.
        sampler: draws these points in the other coordinates, instead of ``n``.
        seed: of the points.
        field: name of the field, if there are several.
        component: of a vector field; all by default.
        hard: build the condition into the field instead.
    """

    def __init__(
        self, *values: Any, weight: float = 1.0, time: str | None = None, n: int | None = None,
        sampler: Any = None, seed: int = 0, field: str | None = None, component: int | None = None,
        hard: bool = False,
    ) -> None:  # fmt: skip
        self.given, self.time, self.field, self.component = values, time, field, component
        self.n, self.sampler, self.seed, self.hard = n, sampler, seed, bool(hard)
        self.weight = float(check_positive(weight, "weight"))

    def __repr__(self) -> str:
        listed = [described(value) for value in self.given]
        extra = {"time": self.time, "n": self.n, "sampler": self.sampler, "field": self.field}
        extra["component"] = self.component
        listed += [f"{name}={v!r}" for name, v in extra.items() if v is not None]
        listed += [f"seed={self.seed}"] if self.seed else []
        return (
            f"Initial({', '.join([*listed, f'weight={self.weight!r}'])}{', hard=True' if self.hard else ''})"
        )

    def values(self, problem: Any) -> list[Any]:
        """Return u, ∂u/∂t, ... as given.

        Raises:
            ShapeError: if there are none.
        """
        values = list(self.given)
        if len(values) == 1 and not callable(values[0]):
            if problem.domain.dimension == 1:
                flat = numbers(values[0], "values", torch.float64, torch.device("cpu")).reshape(-1)
                values = flat.tolist()
            elif isinstance(values[0], list | tuple):
                values = list(values[0])
        if not values:
            raise ShapeError("Initial has no values", "it would contribute nothing", "Initial(1.0, 0.0)")
        return values

    def axis(self, problem: Any) -> str:
        """Return the name of the time.

        Raises:
            ProblemError: if it is not clear, or no coordinate.
        """
        names = problem.domain.names
        if self.time is None:
            if len(names) == 1 or "t" in names:
                return str(names[0]) if len(names) == 1 else "t"
            raise ProblemError(
                f"which of the coordinates {', '.join(names)} is the time of Initial?",
                "none is called t",
                f'Initial(..., time="{names[-1]}")',
            )
        if self.time not in names:
            raise ProblemError(
                f"the time of Initial is {self.time!r}",
                nearest_names(self.time, list(names)),
                f'time="{names[-1]}"',
            )
        return self.time

    def blocks(self, problem: Any, dtype: torch.dtype, device: torch.device) -> list[Block]:
        """Return one block with a row for each derivative and component."""
        if self.hard:
            return []
        name, values = self.axis(problem), self.values(problem)
        field, components = chosen(problem, self.field, self.component)
        low, _ = problem.interval(name)
        if problem.domain.dimension == 1 and (self.n is not None or self.sampler is not None):
            raise ArgumentError(
                "Initial has one point in one coordinate",
                "n and sampler would have no effect",
                "Initial(1.0)",
            )
        place = Located(None, self.n, self.sampler, self.seed, {name: low}).place(problem, dtype, device)
        count = len(place.points)
        target = torch.cat([target_of(value, problem, place, components) for value in values])
        orders = [unit(problem, name, k) for k in range(len(values))]

        def rows(fields: Fields, _p: Parameters, _x: Fields) -> torch.Tensor:
            parts = [fields[field].partial(b).data[0][:, components] for b in orders]
            return torch.cat(parts, 1).T.reshape(-1, count) - target

        demand = Demand({field: frozenset(orders)}, frozenset([orders[0]]))
        weights = place.points.new_full((len(target),), self.weight)
        return [Block("initial", place.points, demand, rows, weights)]
