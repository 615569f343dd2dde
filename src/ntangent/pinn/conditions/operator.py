"""Any equation on a part of the boundary or of the domain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ntangent._base.check import check_positive
from ntangent.pinn.conditions.base import Located, Place, check_inside, check_space
from ntangent.pinn.equation import Block, make_equation, residual_block


class Operator(Located):
    """An equation that holds on a part only: ``Operator(lambda u: u.x + u.y, x=0)``.

    Args:
        equation: the residual, as in a problem.
        weight: weight of the mean square.
        on: a part of a boundary, a sub-domain (with ``n`` or ``sampler``), or points (N, d).
        n: points on each face or part; 64 by default.
        sampler: draws the points of a face or of the sub-domain, instead of ``n``.
        seed: of the points.
        coordinates: where, by coordinate: a number or several. Those not named are sampled.
    """

    def __init__(
        self, equation: Callable[..., Any], weight: float = 1.0, *, on: Any = None, n: int | None = None,
        sampler: Any = None, seed: int = 0, **coordinates: Any,
    ) -> None:  # fmt: skip
        super().__init__(on, n, sampler, seed, coordinates)
        self.equation = equation
        self.weight = float(check_positive(weight, "weight"))

    def __repr__(self) -> str:
        name = getattr(self.equation, "__qualname__", None) or repr(self.equation)
        return f"Operator({name}, {self.where()}, weight={self.weight!r})"

    def place(self, problem: Any, dtype: torch.dtype, device: torch.device) -> Place:
        """Return the points; those of a sub-domain come from the sampler."""
        if self.sampler is not None and hasattr(self.on, "names"):
            check_space(self.on, problem)
            points = self.sampler.points(self.on, dtype, device)
            check_inside(points, problem)
            return Place(points)
        return super().place(problem, dtype, device)

    def blocks(self, problem: Any, dtype: torch.dtype, device: torch.device) -> list[Block]:
        """Return one block of one row."""
        place = self.place(problem, dtype, device)
        equation = make_equation(self.equation, problem, "operator")
        return [residual_block("operator", equation, place.points, self.weight)]
