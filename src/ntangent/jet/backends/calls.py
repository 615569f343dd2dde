"""Calls of the compiled kernels on plain CPU tensors: no derivatives, no transforms."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import FLOATS
from ntangent._base.errors import ArgumentError, BackendError, DtypeError, ShapeError
from ntangent.jet.activations import Activation
from ntangent.jet.algebra import Algebra
from ntangent.jet.arithmetic import Structure
from ntangent.jet.backends.library import Library, Plan, StepPlan, is_identity, library, row_count

_plans: dict[Any, Plan] = {}
_pointers: dict[int, Any] = {}


def plan_of(
    x: Tensor,
    params: Sequence[Tensor | None],
    order: int,
    directions: Structure,
    rows: Sequence[Activation],
    collapsed: bool,
    tangents: Tensor | None = None,
) -> Plan:
    """Return the checked plan for arguments of these shapes and types, from a cache.

    ``x`` holds jets, shape (rows, points, features); or with ``tangents``, rows of order 1 that all points
    share, shape (lines, features), the points alone, shape (points, features).
    """
    lines = None if tangents is None else (tangents.shape, tangents.dtype, tangents.is_cpu)
    key = (
        order, directions, collapsed, lines or x.shape[0], x.shape[-1], x.dtype, x.is_cpu, x.ndim,
        *map(id, rows), *[p if p is None else (p.shape, p.dtype, p.is_cpu) for p in params],
    )  # fmt: skip
    plan = _plans.get(key)
    if plan is None:
        if tangents is not None:
            check_tangents(x, tangents)
            given = x.new_empty((1 + len(tangents), 0, x.shape[1]))
        plan = _check(x if tangents is None else given, params, order, directions, rows, collapsed)
        if len(_plans) >= 1024:
            _plans.clear()
        _plans[key] = plan  # it holds the rows, so their ids in the key stay theirs
    return plan


def check_tangents(x: Tensor, tangents: Tensor) -> None:
    """Raise unless points and tangents fit together."""
    if x.ndim != 2 or tangents.ndim != 2 or tangents.shape[1] != x.shape[1] or len(tangents) == 0:
        raise ShapeError(
            f"points of shape {tuple(x.shape)} and tangents of shape {tuple(tangents.shape)}",
            "expected (points, features) and (lines, features)",
        )
    if tangents.dtype != x.dtype or tangents.device != x.device:
        raise DtypeError(
            f"the points are {x.dtype} on {x.device}, their tangents {tangents.dtype} on {tangents.device}",
            "",
            "tangents.to(x)",
        )


def spread(x: Tensor, tangents: Tensor) -> Tensor:
    """Return points with tangents that all of them share as jets of degree 1."""
    return torch.cat([x[None], tangents[:, None].expand(-1, *x.shape)])


def degree_of(x: Tensor, order: int, directions: Structure, collapsed: bool) -> int:
    """Return the degree of an input with this number of rows."""
    count = x.shape[0]
    if isinstance(directions, Algebra):
        if count in directions.sizes[: order + 1] and not collapsed:
            return directions.sizes.index(count)
        raise ShapeError(
            f"the input has {count} rows",
            f"an algebra with rows of grades {directions.grades} takes all rows up to a grade <= {order}",
            f"x[:{directions.rows(order)}]",
        )
    degree, rest = divmod(count - 1, directions)
    if count == row_count(order, directions, collapsed):
        return order
    if count >= 1 and rest == 0 and degree < order:
        return degree
    raise ShapeError(
        f"the input has {count} rows",
        f"a jet of degree m along {directions} direction(s) has 1 + m*{directions} rows, m <= {order}",
        "torch.stack([x, v])  # a line: order 0 and order 1",
    )


def _check(
    x: Tensor,
    params: Sequence[Tensor | None],
    order: int,
    directions: Structure,
    rows: Sequence[Activation],
    collapsed: bool,
) -> Plan:
    if order < 0 or (not isinstance(directions, Algebra) and directions < 1):
        raise ArgumentError(
            f"order {order}, directions {directions}", "order >= 0 and directions >= 1 are needed"
        )
    if x.ndim != 3:
        raise ShapeError(f"the input has shape {tuple(x.shape)}", "expected (rows, points, features)")
    if x.dtype not in FLOATS:
        raise DtypeError(f"the input has dtype {x.dtype}", "the kernels compute in float32 or float64")
    layers = len(params) // 2
    if layers == 0 or len(rows) not in (layers - 1, layers):
        raise ArgumentError(
            f"{len(rows)} activations for {layers} layers",
            "one is needed between two layers, and one may follow the last",
        )
    widths = [x.shape[-1]]
    for layer in range(layers):
        weight, bias = params[2 * layer], params[2 * layer + 1]
        if weight is None or weight.ndim != 2 or weight.shape[1] != widths[-1] or 0 in weight.shape:
            shape = None if weight is None else tuple(weight.shape)
            raise ShapeError(f"weight {layer} has shape {shape}", f"expected (out, {widths[-1]}), out > 0")
        widths.append(weight.shape[0])
        if bias is not None and bias.shape != (widths[-1],):
            raise ShapeError(f"bias {layer} has shape {tuple(bias.shape)}", f"expected ({widths[-1]},)")
        for p in (weight, bias):
            if p is not None and p.dtype != x.dtype:
                raise DtypeError(f"the input is {x.dtype}, layer {layer} is {p.dtype}", "", f".to({x.dtype})")
            if (p is not None and not p.is_cpu) or not x.is_cpu:
                raise BackendError("the native kernels work on CPU tensors", "", "net.cpu(), x.cpu()")
    padded = [None if is_identity(row) else row for row in rows] + [None] * (layers - len(rows))
    degree = degree_of(x, order, directions, collapsed)
    return Plan(widths, padded, order, directions, degree, collapsed, x.dtype, tuple(rows))


def _pack(tensors: Sequence[Tensor | None]) -> Any:
    kind = _pointers.get(len(tensors))
    if kind is None:
        kind = _pointers[len(tensors)] = ctypes.c_void_p * len(tensors)
    return kind(*[None if t is None else t.data_ptr() for t in tensors])


def _address(tangents: Tensor | None) -> int | None:
    return None if tangents is None else tangents.data_ptr()


def _dense(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [t if t is None else t.contiguous() for t in tensors]


_lib: Library | None = None


def _library() -> Library:
    global _lib
    if _lib is None:
        _lib = library()
    return _lib


def _saved_size(plan: Plan, points: int) -> int:
    size = plan.sizes.get(points)
    if size is None:
        if len(plan.sizes) >= 64:
            plan.sizes.clear()
        size = plan.sizes[points] = int(plan.saved_size(points))
    return size


def forward(
    plan: Plan, x: Tensor, params: Sequence[Tensor | None], save: bool, tangents: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return the output jet and, with ``save``, what backward needs."""
    x, params = x.contiguous(), _dense(params)
    points = x.shape[-2]
    out = torch.empty((plan.rows, points, plan.widths[-1]), dtype=plan.dtype)
    saved = torch.empty(_saved_size(plan, points), dtype=plan.dtype) if save else None
    _library().forward(
        plan.single, plan.address, _pack(params), points, x.data_ptr(), _address(tangents), out.data_ptr(),
        None if saved is None else saved.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return out, saved


def backward(
    plan: Plan,
    x: Tensor,
    params: Sequence[Tensor | None],
    saved: Tensor | None,
    g: Tensor,
    needs: Sequence[bool],
    tangents: Tensor | None = None,
) -> list[Tensor | None]:
    """Return the gradients of x and of the parameters that are needed."""
    x, params, g = x.contiguous(), _dense(params), g.contiguous()
    gx = torch.empty_like(x) if needs[0] else None
    grads = [
        torch.empty_like(p) if n and p is not None else None for p, n in zip(params, needs[1:], strict=True)
    ]
    _library().backward(
        plan.single, plan.address, _pack(params), x.shape[-2], x.data_ptr(), _address(tangents),
        None if saved is None else saved.data_ptr(), g.data_ptr(),
        None if gx is None else gx.data_ptr(), _pack(grads), torch.get_num_threads(),
    )  # fmt: skip
    return [gx, *grads]


def jacobian(
    plan: Plan, x: Tensor, params: Sequence[Tensor | None], g: Tensor, tangents: Tensor | None = None
) -> Tensor:
    """Return the gradient of every point's <g, output> in all parameters, shape (N, P)."""
    x, params, g = x.contiguous(), _dense(params), g.contiguous()
    columns = sum(p.numel() for p in params if p is not None)
    result = torch.empty((x.shape[-2], columns), dtype=plan.dtype)
    _library().jacobian(
        plan.single, plan.address, _pack(params), x.shape[-2], x.data_ptr(), _address(tangents), g.data_ptr(),
        result.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return result


def tangent(
    plan: Plan,
    x: Tensor,
    params: Sequence[Tensor | None],
    dx: Tensor | None,
    dparams: Sequence[Tensor | None],
) -> Tensor:
    """Return the tangent of the output for tangents of the input and the parameters."""
    x, params, dparams = x.contiguous(), _dense(params), _dense(dparams)
    dx = None if dx is None else dx.contiguous()
    result = torch.empty((plan.rows, x.shape[1], plan.widths[-1]), dtype=plan.dtype)
    _library().tangent(
        plan.single, plan.address, _pack(params), x.shape[1], x.data_ptr(),
        None if dx is None else dx.data_ptr(), _pack(dparams), None, result.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return result


def step_forward(plan: StepPlan, a: Tensor) -> tuple[Tensor, Tensor]:
    """Return the jet of one activation and what backward needs of its slope."""
    a = a.contiguous()
    y = torch.empty((plan.rows, *a.shape[1:]), dtype=a.dtype)
    s = torch.empty((plan.slope_rows, *a.shape[1:]), dtype=a.dtype)
    _library().step_forward(
        int(a.dtype == torch.float32), plan.address, y[0].numel(), a.data_ptr(), y.data_ptr(), s.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return y, s


def step_backward(plan: StepPlan, y: Tensor, s: Tensor, g: Tensor) -> Tensor:
    """Return the gradient of the argument of one activation."""
    g = g.contiguous()
    h = torch.empty((plan.rows_in, *g.shape[1:]), dtype=g.dtype)
    _library().step_backward(
        int(g.dtype == torch.float32), plan.address, h[0].numel(), y.data_ptr(), s.data_ptr(), g.data_ptr(),
        h.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return h
