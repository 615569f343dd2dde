# ruff: noqa: ARG001 (rules of operators have the signature of their operator)
"""The fused pass as ``torch.library`` operators, for torch.compile and exported graphs.

Rows are passed by name: the kernels know the rows of the activation table and no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ntangent._base.errors import BackendError
from ntangent.jet.activations import ACTIVATIONS, Activation
from ntangent.jet.backends import calls, mapped
from ntangent.jet.backends.library import Plan


def _plan(x: Tensor, params: Sequence[Tensor | None], shape: Sequence[int], names: Sequence[str]) -> Plan:
    directions, order, collapsed = shape
    return calls.plan_of(x, params, order, directions, [ACTIVATIONS[name] for name in names], bool(collapsed))


# Schemas are written out: annotations are strings here, and type checkers in tests wrap the functions.
_NETWORK = "Tensor x, Tensor?[] params"
_SHAPE = "int[] shape, str[] names"


@torch.library.custom_op(
    "ntangent::dense_jet", mutates_args=(), schema=f"({_NETWORK}, {_SHAPE}, bool save) -> (Tensor, Tensor)"
)
def _forward(
    x: Tensor, params: Sequence[Tensor | None], shape: Sequence[int], names: Sequence[str], save: bool
) -> tuple[Tensor, Tensor]:
    out, saved = calls.forward(_plan(x, params, shape, names), x, params, save)
    return out, x.new_empty(0) if saved is None else saved


@torch.library.custom_op(
    "ntangent::dense_jet_backward",
    mutates_args=(),
    schema=f"(Tensor g, {_NETWORK}, Tensor saved, {_SHAPE}, bool[] needs) -> Tensor[]",
)
def _backward(
    g: Tensor, x: Tensor, params: Sequence[Tensor | None], saved: Tensor, shape: Sequence[int],
    names: Sequence[str], needs: Sequence[bool],
) -> list[Tensor]:  # fmt: skip
    plan = _plan(x, params, shape, names)
    grads = calls.backward(plan, x, params, saved if saved.numel() else None, g, needs)
    return [t for t in grads if t is not None]


@torch.library.custom_op(
    "ntangent::dense_jacobian", mutates_args=(), schema=f"(Tensor g, {_NETWORK}, {_SHAPE}) -> Tensor"
)
def _jacobian(
    g: Tensor, x: Tensor, params: Sequence[Tensor | None], shape: Sequence[int], names: Sequence[str]
) -> Tensor:
    return calls.jacobian(_plan(x, params, shape, names), x, params, g)


@_forward.register_fake
def _(x: Tensor, params: Any, shape: Any, names: Any, save: bool) -> tuple[Tensor, Tensor]:
    plan, points = _plan(x, params, shape, names), x.shape[1]
    size = plan.saved_size(points) if save else 0
    return x.new_empty((plan.rows, points, plan.widths[-1])), x.new_empty(size)


@_backward.register_fake
def _(g: Any, x: Tensor, params: Any, saved: Any, shape: Any, names: Any, needs: Any) -> list[Tensor]:
    return [
        torch.empty_like(t, memory_format=torch.contiguous_format)
        for t, need in zip((x, *params), needs, strict=True)
        if need and t is not None
    ]


@_jacobian.register_fake
def _(g: Any, x: Tensor, params: Any, shape: Any, names: Any) -> Tensor:
    return x.new_empty((x.shape[1], sum(p.numel() for p in params if p is not None)))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, params, ctx.shape, ctx.names, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, output[1], *params)


def _autograd(ctx: Any, g: Tensor | None, _: Any) -> tuple[Any, ...]:
    x, saved, *params = ctx.saved_tensors
    if g is None:
        return None, [None] * len(params), None, None, None
    needs = [ctx.needs_input_grad[0], *(p is not None and p.requires_grad for p in params)]
    found = iter(_backward(g, x, params, saved, ctx.shape, ctx.names, needs))
    grads = [next(found) if need else None for need in needs]
    return grads[0], grads[1:], None, None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)


@_forward.register_vmap
def _(info: Any, in_dims: Any, x: Tensor, params: Any, shape: Any, names: Any, save: bool) -> Any:
    dims = (in_dims[0], *(in_dims[1] or [None] * len(params)))
    out, dim = mapped.map_forward(
        info.batch_size, dims, (x, *params), lambda x, *p: _forward(x, list(p), shape, names, False)[0]
    )
    return (out, x.new_empty(0)), (dim, None)  # the mapped backward pass runs forward again


@_backward.register_vmap
def _(info: Any, in_dims: Any, *arguments: Any) -> Any:
    g, x, params, _saved, shape, names, needs = arguments
    dims = (*in_dims[:2], *(in_dims[2] or [None] * len(params)))
    results, places = mapped.map_backward(
        info.batch_size, dims, (g, x, *params), needs,
        lambda need, g, x, *p: tuple(_backward(g, x, list(p), x.new_empty(0), shape, names, need)),
        lambda g, x, *p: _jacobian(g, x, list(p), shape, names),
    )  # fmt: skip
    return list(results), list(places)


def dense_jet(
    x: Tensor,
    params: Sequence[Tensor | None],
    directions: int,
    order: int,
    rows: Sequence[Activation],
    collapsed: bool,
) -> Tensor:
    """Return the jet through the operator; see ``native.dense_jet``."""
    names = [row.name for row in rows]
    for name in names:
        if name not in ACTIVATIONS:
            raise BackendError(
                f"the native kernels do not know the activation {name!r}", "", 'use backend="eager"'
            )
    shape = [directions, order, int(collapsed)]
    return _forward(x, list(params), shape, names, torch.is_grad_enabled())[0]  # type: ignore[no-any-return]
