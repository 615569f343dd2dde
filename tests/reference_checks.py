"""References as local polynomials through their values: derivatives that owe nothing to the package."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

from ntangent.pinn import Problem
from ntangent.pinn.equation import Block, residual_block
from ntangent.pinn.field import Parameters
from ntangent.pinn.passes import Pass
from ntangent.pinn.reference import exact_fields

DEGREE = 12
Values = Callable[[Tensor], Tensor]


def plain(problem: Problem) -> Problem:
    """Return the equations alone, on fields that are what the network returns."""
    return Problem(problem.domain, problem.equations, (), problem.unknowns, fields=problem.fields)


def soft(condition: Any) -> Any:
    """Return a condition that is evaluated, not built in."""
    other = copy.copy(condition)
    if getattr(other, "hard", False):
        other.hard = False
    return other


def values_of(problem: Problem) -> Values:
    """Return the reference as (N, d) -> (N, fields)."""

    def values(points: Tensor) -> Tensor:
        return torch.cat([v for v in exact_fields(problem, points).values()], 1)

    return values


def perturbed(problem: Problem, size: float) -> Values:
    """Return the reference with a smooth wave of relative size added to each field."""
    exact, box = values_of(problem), problem.box

    def values(points: Tensor) -> Tensor:
        u, phase = exact(points), 0.7
        for i, (_, low, high) in enumerate(box.intervals):
            phase = phase + (2.3 + i) * (2 * (points[:, i : i + 1] - low) / (high - low) - 1)
        return u + size * u.abs().max() * torch.cos(phase)

    return values


def through(problem: Problem, values: Values, points: Tensor, reach: float) -> Callable[[Any], Any]:
    """Return the function that is, near each point, the polynomial through values on a small box.

    The box has half-width ``reach`` times that of the domain, and lies inside the domain.
    """
    box = problem.box
    low = torch.tensor([a for _, a, _ in box.intervals], dtype=points.dtype)
    high = torch.tensor([b for _, _, b in box.intervals], dtype=points.dtype)
    h = reach * (high - low) / 2
    centre = torch.minimum(torch.maximum(points, low + h), high - h)
    nodes = np.cos(np.pi * (np.arange(DEGREE + 1) + 0.5) / (DEGREE + 1))
    unit = np.eye(DEGREE + 1)
    columns = [chebyshev.cheb2poly(unit[k][: k + 1]) for k in range(DEGREE + 1)]
    to_powers = np.stack([np.pad(column, (0, DEGREE + 1 - len(column))) for column in columns], 1)
    powers = torch.from_numpy(to_powers @ np.linalg.inv(chebyshev.chebvander(nodes, DEGREE)))
    d = points.shape[1]
    grid = torch.cartesian_prod(*[torch.from_numpy(nodes)] * d).reshape(-1, d)
    where = (centre[:, None] + h * grid).reshape(-1, d)
    c = values(where).reshape(len(points), *[DEGREE + 1] * d, -1)
    for axis in range(d):
        c = torch.movedim(torch.tensordot(c, powers, ([1 + axis], [1])), -1, 1 + axis)

    def net(x: Any) -> Any:
        z = (x - centre) * (1 / h)

        def horner(part: Tensor, axis: int) -> Any:
            if axis == d:
                return part
            total = horner(part[:, DEGREE], axis + 1)
            for k in range(DEGREE - 1, -1, -1):
                total = total * z[:, axis : axis + 1] + horner(part[:, k], axis + 1)
            return total

        return horner(c, 0)

    return net


def rows(problem: Problem, block: Block, values: Values, reach: float) -> Tensor:
    """Return the residuals of a block, shape (C, N')."""
    p = Parameters({name: torch.tensor(v, dtype=torch.float64) for name, v in problem.expected.items()})
    net = through(problem, values, block.points, reach)
    one = Pass(plain(problem), [[(0, block, slice(0, len(block.points)))]])
    with torch.no_grad():
        ((_, found),) = list(one.rows(net, lambda _: p))
    return found


def equation_blocks(problem: Problem, points: Tensor) -> list[Block]:
    """Return one block for each equation."""
    own = plain(problem)
    equations = [own.equation(i) for i in range(len(own.equations))]
    return [residual_block(e.name, e, points, 1.0) for e in equations]


def interior(problem: Problem, count: int) -> Tensor:
    """Return points that keep away from the boundary."""
    generator = torch.Generator().manual_seed(5)
    box = problem.box
    unit = 0.2 + 0.6 * torch.rand(count, len(box.names), generator=generator, dtype=torch.float64)
    low = torch.tensor([a for _, a, _ in box.intervals], dtype=torch.float64)
    high = torch.tensor([b for _, _, b in box.intervals], dtype=torch.float64)
    return low + (high - low) * unit


def rms(values: Tensor) -> float:
    """Return the root of the mean square."""
    return math.sqrt(float(values.square().mean()))
