"""The exact solution of a problem, in whichever form it is given."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ntangent._base.errors import ProblemError, ShapeError
from ntangent.pinn.arguments import at_points
from ntangent.pinn.problem import Problem


def gives_derivatives(problem: Problem) -> bool:
    """Return whether the reference is of the form (x, order) -> derivatives of order 0..order."""
    if problem.reference is None or problem.domain.dimension != 1 or problem.components != _one(problem):
        return False
    try:
        given = inspect.signature(problem.reference).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [p for p in given if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    return len(needed) == 2


def _one(problem: Problem) -> dict[str, int]:
    return dict.fromkeys(list(problem.components)[:1], 1)


def exact(problem: Problem, x: Tensor, order: int) -> Tensor:
    """Return a reference with derivatives at N points of a line, shape (order+1, N).

    Raises:
        ShapeError: if the reference returns anything else.
    """
    assert problem.reference is not None
    values = torch.as_tensor(problem.reference(x, order), dtype=x.dtype, device=x.device).detach()
    if values.shape != (order + 1, len(x)):
        raise ShapeError(
            f"the reference has shape {tuple(values.shape)} for {len(x)} points and order {order}",
            f"it returns the derivatives of order 0..order as rows: shape {(order + 1, len(x))}",
            "lambda x, order: torch.stack([torch.sin(x + k * torch.pi / 2) for k in range(order + 1)])",
        )
    return values


def exact_fields(problem: Problem, points: Tensor) -> dict[str, Tensor]:
    """Return the values of the fields that the reference knows, shape (N, c) each.

    Raises:
        ShapeError, ProblemError: if the reference returns something else.
    """
    assert problem.reference is not None
    if gives_derivatives(problem):
        return {next(iter(problem.components)): exact(problem, points[:, 0], 0)[0][:, None]}
    given = at_points(problem.reference, problem.domain.names, points, "reference")
    names = list(problem.components)
    if not isinstance(given, Mapping):
        values = given if isinstance(given, list | tuple) else [given]
        if len(values) != len(names):
            raise ProblemError(
                f"the reference returned {len(values)} array(s) for the fields {', '.join(names)}",
                "it returns one for each field, or a mapping by name",
                "{" + ", ".join(f'"{name}": ...' for name in names) + "}",
            )
        given = dict(zip(names, values, strict=True))
    result = {}
    for name, value in given.items():
        if name not in names:
            raise ProblemError(
                f"the reference knows a field {name!r}", f"the fields are {', '.join(names)}", ""
            )
        result[name] = _table(value, points, problem.components[name], name)
    return result


def _table(value: Any, points: Tensor, components: int, name: str) -> Tensor:
    tensor = torch.as_tensor(value, dtype=points.dtype, device=points.device).detach()
    if tensor.ndim == 0:
        tensor = tensor.expand(len(points))
    if tensor.ndim == 1 and components == 1:
        tensor = tensor[:, None]
    if tensor.shape != (len(points), components):
        raise ShapeError(
            f"the reference of {name!r} has shape {tuple(tensor.shape)} at {len(points)} point(s)",
            f"it has {components} value(s) for each point",
            "lambda x, y: torch.sin(x) * torch.sin(y)",
        )
    return tensor
