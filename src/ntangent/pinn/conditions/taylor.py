"""Vanishing Taylor coefficients of a residual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ntangent._base.check import check_order, check_positive
from ntangent._base.errors import ArgumentError, DtypeError, ProblemError
from ntangent.pinn.conditions.base import given_points
from ntangent.pinn.equation import Block, Fields, per_point
from ntangent.pinn.field import Parameters


@dataclass(frozen=True)
class TaylorResidual:
    """Taylor coefficients R_j = R^(j)/j! of the equation's residual vanish at chosen points.

    They say that the solution is smooth there. Coefficients, not derivatives: the raw R^(9) of a
    profile is 9! times larger, 1e11 in the loss, and no optimiser recovers from that. For problems
    in one coordinate.

    Args:
        points: where, N numbers.
        orders: the orders j, for example ``range(0, 4)``.
        weight: weight of each mean square.
        equation: index of the equation.
    """

    points: Any
    orders: Sequence[int]
    weight: float = 1.0
    equation: int = 0

    def __post_init__(self) -> None:
        check_positive(self.weight, "weight")
        if not isinstance(self.orders, Sequence):
            raise DtypeError(f"orders is {self.orders!r}", "it lists the orders", "orders=range(4)")
        if len(self.orders) == 0:
            raise ArgumentError(
                "TaylorResidual needs at least one order", "it would contribute nothing", "orders=range(4)"
            )
        for order in self.orders:
            check_order(order, "orders")

    def blocks(self, problem: Any, dtype: torch.dtype, device: torch.device) -> list[Block]:
        """Return one block with a row for each order."""
        if problem.domain.dimension != 1:
            raise ProblemError(
                f"TaylorResidual in {problem.domain.dimension} coordinates",
                "its orders count derivatives along one coordinate",
                "solve(..., sobolev=2), which takes all partial derivatives of the residual",
            )
        points, orders = given_points(self.points, problem, dtype, device), list(self.orders)
        equation = problem.equation(self.equation)
        what, count = f"the residual of {equation.name}", len(points)
        contiguous = orders == list(range(len(orders)))

        def rows(fields: Fields, p: Parameters, x: Fields) -> torch.Tensor:
            series = equation(fields, p, x).series()
            return per_point(series[: len(orders)] if contiguous else series[orders], count, what)

        demand = equation.demand([(j,) for j in range(max(orders) + 1)])
        weights = points.new_full((len(orders),), self.weight)
        return [Block(f"taylor[{self.equation}]", points, demand, rows, weights)]
