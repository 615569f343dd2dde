"""Integrals of the fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntangent._base.check import check_choice, check_positive
from ntangent._base.errors import ArgumentError, ProblemError
from ntangent.pinn.arguments import per_component
from ntangent.pinn.conditions.base import Draws
from ntangent.pinn.domains import Box
from ntangent.pinn.equation import Block, Fields, make_equation, per_point
from ntangent.pinn.field import Parameters

# Quadrature points: in each coordinate of a box, and in all of another domain.
NODES, SAMPLED = 32, 4096


class Integral:
    """An integral takes a value: ``Integral(lambda u: u**2, value=1.0)``.

    On boxes by Gauss-Legendre quadrature; on other domains by the mean over low-discrepancy points.

    Args:
        integrand: a function of fields, parameters and coordinates, as an equation.
        value: of the integral: a number, or a function of the coordinates that are left.
        over: names of the coordinates integrated over; all by default.
        n: quadrature points in each of them, 32 by default; where the domain is no box, in all, 4096 by
            default: the relative error of the mean is then below 1e-3 (32 points err by a tenth).
        at: points in the coordinates that are left, where the integral is taken.
        weight: weight of the mean square.
    """

    def __init__(
        self, integrand: Callable[..., Any], value: Any = 0.0, *, over: Sequence[str] | None = None,
        n: int | None = None, at: int = 16, weight: float = 1.0,
    ) -> None:  # fmt: skip
        self.integrand, self.value = integrand, value
        self.over = None if over is None else (over,) if isinstance(over, str) else tuple(over)
        self.n = n if n is None else check_positive(n, "n", integer=True)
        self.at = check_positive(at, "at", integer=True)
        self.weight = float(check_positive(weight, "weight"))

    def __repr__(self) -> str:
        name = getattr(self.integrand, "__qualname__", None) or repr(self.integrand)
        return (
            f"Integral({name}, {self.value!r}, over={self.over!r}, n={self.n}, at={self.at}, "
            f"weight={self.weight!r})"
        )

    def _rule(self, problem: Any) -> tuple[Tensor, Tensor]:
        """Return points in the integrated coordinates, (M, k), and weights (M,), float64."""
        names = problem.domain.names
        over = names if self.over is None else self.over
        for name in over:
            check_choice(name, names, "coordinate")
        if len(set(over)) != len(over) or not over:
            raise ArgumentError(f"over is {over!r}", "each coordinate is integrated once", f"over={names!r}")
        if not hasattr(problem.domain, "intervals"):
            if set(over) != set(names):
                raise ProblemError(
                    f"an integral over {', '.join(over)} of {problem.domain}",
                    "only a box can be integrated in some of its coordinates",
                    "Integral(..., over=None)",
                )
            points = problem.domain.sample(self.n or SAMPLED, Draws())
            return points, torch.full(
                (len(points),), problem.domain.volume / len(points), dtype=torch.float64
            )
        nodes, scale = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(self.n or NODES))
        grids, weights = [], torch.ones((), dtype=torch.float64)
        for name in over:
            low, high = problem.interval(name)
            grids.append(low + (high - low) * (nodes + 1) / 2)
            weights = weights[..., None] * scale * ((high - low) / 2)
        points = torch.stack([g.flatten() for g in torch.meshgrid(*grids, indexing="ij")], 1)
        return points, weights.flatten()

    def blocks(self, problem: Any, dtype: torch.dtype, device: torch.device) -> list[Block]:
        """Return one block of one row; a residual depends on all points of its integral."""
        names: tuple[str, ...] = problem.domain.names
        over = names if self.over is None else self.over
        rule, scale = self._rule(problem)
        left = tuple(name for name in names if name not in over)
        sites = torch.zeros(1, 0, dtype=torch.float64)
        if left:
            box = Box(**{name: problem.interval(name) for name in left})
            ends = torch.tensor([box.interval(name) for name in left], dtype=torch.float64)
            sites = ends[:, 0] + (ends[:, 1] - ends[:, 0]) * Draws()(self.at, len(left))
        count, size = len(sites), len(rule)
        columns = {name: rule[:, i].repeat_interleave(count) for i, name in enumerate(over)}
        columns |= {name: sites[:, i].repeat(size) for i, name in enumerate(left)}
        points = torch.stack([columns[name] for name in names], 1).to(dtype=dtype, device=device)
        factors = scale.to(dtype=dtype, device=device)
        value = self.value
        if left or callable(value):
            target = per_component(value, left or names, sites.to(points) if left else points[:1], 1)[0]
        else:
            target = per_component(value, names, points[:1], 1)[0]
        equation = make_equation(self.integrand, problem, "integral")

        def rows(fields: Fields, p: Parameters, x: Fields) -> Tensor:
            values = per_point(equation(fields, p, x).data[:1], len(points), "the integrand")
            return (factors @ values.view(size, count) - target)[None]

        demand = equation.demand([(0,) * len(names)])
        weights = points.new_full((1,), self.weight)
        return [Block("integral", points, demand, rows, weights, fold=size)]
