"""The same maps as the kernels, as torch operations that can be differentiated any number of times.

They serve derivatives of derivatives and forward-mode transforms, where no kernel is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ntangent.jet.activations import Activation
from ntangent.jet.algebra import Algebra
from ntangent.jet.arithmetic import Structure
from ntangent.jet.backends.library import Plan, StepPlan
from ntangent.jet.flow import flow


def spread_top(a: Tensor, order: int, directions: int) -> Tensor:
    """Book a collapsed top coefficient on the first direction: it enters linearly."""
    zeros = a.new_zeros((directions - 1, *a.shape[1:]))
    return torch.cat([a, zeros]) if order and directions > 1 else a


def sum_top(y: Tensor, order: int, directions: int) -> Tensor:
    """Sum the coefficients of the highest order over the directions."""
    if order == 0 or directions == 1:
        return y
    cut = 1 + (order - 1) * directions
    return torch.cat([y[:cut], y[cut:].sum(0, keepdim=True)])


def fill_rows(y: Tensor, rows: int) -> Tensor:
    """Append the rows of zero coefficients that a polynomial of low degree leaves out."""
    missing = rows - y.shape[0]
    return torch.cat([y, y.new_zeros((missing, *y.shape[1:]))]) if missing else y


def activation(a: Tensor, row: Activation, order: int, directions: Structure, collapsed: bool) -> Tensor:
    """Return σ(a) with all of its rows."""
    if isinstance(directions, Algebra):
        return fill_rows(flow(a, row, directions, order), directions.rows(order))
    full = 1 + order * directions
    if collapsed and a.shape[0] == 2 + directions * (order - 1):
        a = spread_top(a, order, directions)
    y = fill_rows(flow(a, row, directions, order), full)
    return sum_top(y, order, directions) if collapsed else y


def dense(plan: Plan, x: Tensor, *params: Tensor | None) -> Tensor:
    """Return the output jet of a dense network."""
    y = x
    for layer in range(plan.layers):
        weight, bias = params[2 * layer], params[2 * layer + 1]
        assert weight is not None
        y = y @ weight.mT
        if bias is not None:
            y = torch.cat([y[:1] + bias, y[1:]])
        row = plan.active[layer]
        if row is not None:
            y = activation(y, row, plan.order, plan.directions, plan.collapsed)
    return fill_rows(y, plan.rows)


def dense_backward(
    plan: Plan, needs: Sequence[bool], g: Tensor, *tensors: Tensor | None
) -> tuple[Tensor, ...]:
    """Return the needed gradients of <g, dense(tensors)>."""
    return _pull(lambda *t: dense(plan, *t), needs, g, *tensors)


def step(plan: StepPlan, a: Tensor) -> Tensor:
    """Return the jet of one activation."""
    return activation(a, plan.row, plan.order, plan.directions, plan.collapsed)


def step_backward(plan: StepPlan, g: Tensor, a: Tensor) -> Tensor:
    """Return the gradient of <g, step(a)>."""
    return _pull(lambda t: step(plan, t), (True,), g, a)[0]


def _pull(function: Any, needs: Sequence[bool], g: Any, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    """Return the needed cotangents of ``tensors``, composable with every torch transform."""
    chosen = [i for i, need in enumerate(needs) if need]

    def restricted(*moving: Tensor) -> Any:
        full = list(tensors)
        for i, value in zip(chosen, moving, strict=True):
            full[i] = value
        return function(*full)

    pull = torch.func.vjp(restricted, *[tensors[i] for i in chosen])[1]
    return tuple(pull(g))


def pull(function: Any, needs: Sequence[bool], g: Any, *tensors: Tensor | None) -> list[Tensor | None]:
    """Like the kernels' backward: one entry for each tensor, None where it is not needed."""
    values = iter(_pull(function, needs, g, *tensors))
    return [next(values) if need else None for need in needs]


def push(function: Any, tensors: Sequence[Tensor | None], tangents: Sequence[Tensor | None]) -> Any:
    """Return the tangent of ``function``, composable with every torch transform."""
    chosen = [i for i, t in enumerate(tangents) if t is not None]

    def restricted(*moving: Tensor) -> Any:
        full = list(tensors)
        for i, value in zip(chosen, moving, strict=True):
            full[i] = value
        return function(*full)

    return torch.func.jvp(restricted, tuple(tensors[i] for i in chosen), tuple(tangents[i] for i in chosen))[
        1
    ]


def jacobian(plan: Plan, g: Tensor, x: Tensor, *params: Tensor | None) -> Tensor:
    """Return the gradient of every point's <g, dense(x)> in all parameters."""
    needs = [False, *(p is not None for p in params)]

    def of_point(gi: Tensor, xi: Tensor) -> Tensor:
        grads = _pull(lambda *t: dense(plan, *t), needs, gi[:, None], xi[:, None], *params)
        return torch.cat([t.reshape(-1) for t in grads])

    return torch.func.vmap(of_point, in_dims=1)(g, x)
