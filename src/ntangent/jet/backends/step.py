"""One activation by the compiled kernels, and dense networks with the matrix products left to torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function

from ntangent._base.check import FLOATS
from ntangent._base.errors import BackendError, DtypeError
from ntangent.jet.activations import Activation
from ntangent.jet.arithmetic import Structure
from ntangent.jet.backends import calls, differentiable
from ntangent.jet.backends.library import Plan, StepPlan


class _Step(Function):
    """Keeps the argument (for derivatives of derivatives), the output, and what is needed of the slope."""

    @staticmethod
    def forward(plan: StepPlan, a: Tensor) -> tuple[Tensor, Tensor]:
        return calls.step_forward(plan, a)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.plan, a = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(a, *output)
        ctx.save_for_forward(a)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, _: Any) -> tuple[None, Tensor | None]:
        if g is None:
            return None, None
        a, y, s = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, differentiable.step_backward(ctx.plan, g, a)
        return None, calls.step_backward(ctx.plan, y, s, g)

    @staticmethod
    def jvp(ctx: Any, _: Any, tangent: Tensor) -> tuple[Tensor, None]:
        plan = ctx.plan
        return differentiable.push(
            lambda t: differentiable.step(plan, t), ctx.saved_tensors[:1], (tangent,)
        ), None

    @staticmethod
    def vmap(_info: Any, in_dims: Any, plan: StepPlan, a: Tensor) -> Any:
        return _Step.apply(plan, a.movedim(in_dims[1], 1)), (1, 1)  # type: ignore[no-untyped-call]


@lru_cache(maxsize=256)
def _plan(row: Activation, order: int, directions: Structure, degree: int, collapsed: bool) -> StepPlan:
    return StepPlan(row, order, directions, degree, collapsed)


def activation_jet(
    a: Tensor, order: int, directions: Structure, row: Activation, *, collapsed: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the jet of σ(a), and what the backward pass needs of σ'(a).

    Args:
        a: jet of degree m <= order, shape (1 + m·D, *shape).
        order: order of truncation.
        directions: D, or the algebra of the rows.
        row: the activation.
        collapsed: the coefficients of the highest order are summed over the directions.

    Returns:
        The jet, differentiable in ``a``, and the slope: all of its rows, or the first alone where the
        others follow from the jet (tanh, sigmoid, exp, ...) or vanish (ReLU).
    """
    if not a.is_cpu:
        raise BackendError("the native kernels work on CPU tensors", "", "a.cpu()")
    if a.dtype not in FLOATS:
        raise DtypeError(f"the argument has dtype {a.dtype}", "the kernels compute in float32 or float64")
    degree = calls.degree_of(a, order, directions, collapsed)
    return _Step.apply(_plan(row, order, directions, degree, collapsed), a)  # type: ignore[no-any-return,no-untyped-call]


def layered(plan: Plan, x: Tensor, params: Sequence[Tensor | None]) -> Tensor:
    """Return the jet of a dense network: matrix products by torch, activations by the kernels."""
    y = x
    for layer in range(plan.layers):
        weight, bias, row = params[2 * layer], params[2 * layer + 1], plan.active[layer]
        assert weight is not None
        y = torch.matmul(y.flatten(0, 1), weight.mT).unflatten(0, y.shape[:2])
        if bias is not None:
            y[0].add_(bias)
        if row is not None:
            y = activation_jet(y, plan.order, plan.directions, row, collapsed=plan.collapsed)[0]
    return differentiable.fill_rows(y, plan.rows)
