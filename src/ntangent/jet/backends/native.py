"""Jets of dense networks by the compiled kernels: one call for the whole network.

A jet is one tensor of normalised Taylor coefficients, shape (1 + m·D, N, features): row 0 is order 0,
row 1 + (k-1)·D + d is order k along direction d. With ``collapsed`` the coefficients of the highest
order are summed over the directions: 1 + D·(order-1) + 1 rows.

What forward keeps for backward, for every hidden neuron and point: the 1 + order·D coefficients of the
output, and of the slope σ' either its value (where its series is a polynomial of the output's: tanh,
sigmoid, exp, ...) or its 1 + order·D coefficients; linear in the order. ``recompute=True`` keeps the
input only. Derivatives of derivatives run through the differentiable rules of ``ntangent.jet.flow``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import Function

from ntangent._base.check import under_transform
from ntangent._base.errors import BackendError, ShapeError
from ntangent.jet.activations import Activation
from ntangent.jet.algebra import Algebra
from ntangent.jet.arithmetic import Structure
from ntangent.jet.backends import calls, differentiable, mapped, operators
from ntangent.jet.backends.calls import plan_of
from ntangent.jet.backends.library import Plan, available, library, order_limit, reason, serves
from ntangent.jet.backends.step import activation_jet, layered

__all__ = [
    "activation_jet",
    "available",
    "dense_jacobian",
    "dense_jet",
    "dense_tangent",
    "order_limit",
    "reason",
    "serves",
]

# Jets, shape (rows, points, features); or points and the tangents that all of them share, shapes
# (points, features) and (lines, features).
Argument = Tensor | tuple[Tensor, Tensor]

# Widest layer up to which one call for the whole network beats one call per layer.
FUSED_WIDTH = 512


class _Fused(Function):
    """The fused pass in plain eager mode: the fewest Python objects per call."""

    @staticmethod
    def forward(
        ctx: Any, plan: Plan, recompute: bool, tangents: Tensor | None, x: Tensor, *params: Tensor | None
    ) -> Tensor:
        out, saved = calls.forward(plan, x, params, not recompute, tangents)
        ctx.save_for_backward(tangents, x, *params)
        ctx.plan, ctx.saved = plan, saved  # nobody else has a reference to it: no need of version checks
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        tangents, x, *params = ctx.saved_tensors
        needs = ctx.needs_input_grad[3:]
        # A graph made in eager mode may be pulled back under vmap: then g has no memory of its own.
        if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            rows = x if tangents is None else calls.spread(x, tangents)
            to_x, *grads = _expand(needs, _apply(_Backward, ctx.plan, needs, g, rows, *params))
            return None, None, None, to_x if to_x is None or tangents is None else to_x[0], *grads
        return None, None, None, *calls.backward(ctx.plan, x, params, ctx.saved, g, needs, tangents)


# Without the search for tensors left over from transforms, which takes as long as a small network's kernel.
_apply_fused: Any = super(Function, _Fused).apply


def _apply(function: type[Function], *arguments: Any) -> Any:
    return function.apply(*arguments)


def _expand(needs: Sequence[bool], values: Sequence[Tensor]) -> list[Tensor | None]:
    found = iter(values)
    return [next(found) if need else None for need in needs]


class _Forward(Function):
    """The fused pass under torch.func transforms: keeps its arguments only, maps, has a tangent."""

    @staticmethod
    def forward(plan: Plan, x: Tensor, *params: Tensor | None) -> Tensor:
        return calls.forward(plan, x, params, False)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004
        ctx.plan = inputs[0]
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        needs = ctx.needs_input_grad[1:]
        return None, *_expand(needs, _apply(_Backward, ctx.plan, needs, g, *ctx.saved_tensors))

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Tensor | None) -> Tensor:
        plan = ctx.plan
        function = lambda *t: differentiable.dense(plan, *t)  # noqa: E731
        moved: Tensor = differentiable.push(function, ctx.saved_tensors, tangents)
        return moved

    @staticmethod
    def vmap(info: Any, in_dims: Any, plan: Plan, *tensors: Tensor | None) -> tuple[Tensor, int]:
        return mapped.map_forward(
            info.batch_size, in_dims[1:], tensors, lambda *t: _apply(_Forward, plan, *t)
        )


class _Backward(Function):
    """The needed gradients as a function of (g, x, parameters) that can be differentiated and mapped."""

    @staticmethod
    def forward(plan: Plan, needs: Sequence[bool], g: Tensor, x: Tensor, *params: Tensor | None) -> Any:
        return tuple(t for t in calls.backward(plan, x, params, None, g, needs) if t is not None)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004
        ctx.plan, ctx.needs = inputs[:2]
        ctx.save_for_backward(*inputs[2:])
        ctx.save_for_forward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, *gg: Tensor) -> tuple[Any, ...]:
        plan, needs = ctx.plan, ctx.needs
        first = lambda *t: differentiable.dense_backward(plan, needs, *t)  # noqa: E731
        return (
            None,
            None,
            *differentiable.pull(first, ctx.needs_input_grad[2:], tuple(gg), *ctx.saved_tensors),
        )

    @staticmethod
    def jvp(ctx: Any, _plan: Any, _needs: Any, *tangents: Tensor | None) -> Any:
        plan, needs = ctx.plan, ctx.needs
        first = lambda *t: differentiable.dense_backward(plan, needs, *t)  # noqa: E731
        return differentiable.push(first, ctx.saved_tensors, tangents)

    @staticmethod
    def vmap(info: Any, in_dims: Any, plan: Plan, needs: Sequence[bool], *tensors: Tensor | None) -> Any:
        return mapped.map_backward(
            info.batch_size, in_dims[2:], tensors, needs,
            lambda need, *t: _apply(_Backward, plan, need, *t), lambda *t: _apply(_Jacobian, plan, *t),
        )  # fmt: skip


class _Jacobian(Function):
    """Gradients of every point separately, under torch.func transforms."""

    @staticmethod
    def forward(plan: Plan, g: Tensor, x: Tensor, *params: Tensor | None) -> Tensor:
        return calls.jacobian(plan, x, params, g)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004
        ctx.plan = inputs[0]
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gg: Tensor) -> tuple[Any, ...]:
        plan = ctx.plan
        return None, *differentiable.pull(
            lambda *t: differentiable.jacobian(plan, *t), ctx.needs_input_grad[1:], gg, *ctx.saved_tensors
        )

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Tensor | None) -> Tensor:
        plan = ctx.plan
        function = lambda *t: differentiable.jacobian(plan, *t)  # noqa: E731
        moved: Tensor = differentiable.push(function, ctx.saved_tensors, tangents)
        return moved

    @staticmethod
    def vmap(info: Any, in_dims: Any, plan: Plan, *tensors: Tensor | None) -> tuple[Tensor, int]:
        g, x, *params = tensors
        assert g is not None
        assert x is not None
        size, dims = info.batch_size, in_dims[1:]
        if any(d is not None for d in dims[2:]) or size == 0:
            return mapped.loop(size, dims, tensors, lambda *t: _apply(_Jacobian, plan, *t)), 0
        columns = _apply(
            _Jacobian, plan, mapped.fold(g, dims[0], size), mapped.fold(x, dims[1], size), *params
        )
        return columns.unflatten(0, (size, columns.shape[0] // size)), 0


def obstacle(algebra: Algebra) -> str:
    """Return why the kernels cannot multiply in an algebra, or an empty string."""
    if len(algebra.grades) > (limit := library().row_limit):
        return f"the kernels take algebras of at most {limit} rows, this one has {len(algebra.grades)}"
    if torch.compiler.is_compiling():
        return "compiled graphs take series along lines only"
    return ""


def _interleave(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> list[Tensor | None]:
    if len(weights) != len(biases):
        raise ShapeError(
            f"{len(weights)} weights and {len(biases)} biases",
            "an absent bias is None",
            "biases=[None] * len(weights)",
        )
    return [p for pair in zip(weights, biases, strict=True) for p in pair]


def _parts(input: Argument, transformed: bool) -> tuple[Tensor, Tensor | None]:
    """Return the input and the tangents that all points share, if they can be passed to the kernels."""
    if isinstance(input, Tensor):
        return input, None
    x, tangents = input
    if transformed or (tangents.requires_grad and torch.is_grad_enabled()):
        calls.check_tangents(x, tangents)
        return calls.spread(x, tangents), None
    return x, tangents.detach() if tangents.is_contiguous() else tangents.detach().contiguous()


def _transformed() -> bool:
    """Return whether a transform of ``torch.func`` or forward-mode differentiation is under way."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def dense_jet(
    input: Argument,
    directions: Structure,
    order: int,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activations: Sequence[Activation],
    *,
    recompute: bool = False,
    collapsed: bool = False,
) -> Tensor:
    """Return the jet of a dense network, differentiable in its input, weights and biases.

    Args:
        input: jet of degree m <= order, shape (1 + m·D, N, d); of degree ``order`` and collapsed: the
            collapsed rows. Or a pair: points, shape (N, d), and the tangents that all of them share,
            shape (D, d); the first layer then multiplies each tangent once.
        directions: D, or the algebra of the rows.
        order: order of truncation.
        weights: shape (out, in) each.
        biases: shape (out,) each, or None.
        activations: one between every two layers; one more where an activation follows the last layer.
        recompute: keep only the input for the backward pass, and run forward again there.
        collapsed: sum the coefficients of the highest order over the directions.

    Returns:
        Shape (1 + order·D, N, out), or (1 + (order-1)·D + 1, N, out) when collapsed.

    Raises:
        BackendError: no kernels here, or they do not serve this network.
        ShapeError, DtypeError, ArgumentError: arguments that do not fit together.

    Cost:
        Per point and weight 1 + order·D multiply-adds forward, twice that backward.
    """
    params = _interleave(weights, biases)
    compiling = torch.compiler.is_compiling()
    transformed = not compiling and _transformed()
    input, tangents = _parts(input, transformed or compiling)
    if compiling:
        if isinstance(directions, Algebra):
            raise BackendError(
                "compiled graphs take series along lines only", obstacle(directions), 'use backend="eager"'
            )
        return operators.dense_jet(input, params, directions, order, activations, collapsed)
    plan = plan_of(input, params, order, directions, activations, collapsed, tangents)
    if transformed:
        return _Forward.apply(plan, input, *params)  # type: ignore[no-any-return,no-untyped-call]
    if plan.widest > FUSED_WIDTH:
        return layered(plan, input if tangents is None else calls.spread(input, tangents), params)
    if torch.is_grad_enabled() and (
        input.requires_grad or any(p is not None and p.requires_grad for p in params)
    ):
        apply = _Fused.apply if under_transform(input) else _apply_fused  # left over from a transform
        return apply(plan, recompute, tangents, input, *params)  # type: ignore[no-any-return]
    return calls.forward(plan, input, params, False, tangents)[0]


def dense_jacobian(
    input: Argument,
    directions: Structure,
    order: int,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activations: Sequence[Activation],
    cotangent: Tensor,
    *,
    collapsed: bool = False,
) -> Tensor:
    """Return, for every point, the gradient in all parameters of <cotangent, output jet> at that point.

    Args:
        input: as for :func:`dense_jet`, and so are the next five.
        directions: D, or the algebra of the rows.
        order: order of truncation.
        weights: shape (out, in) each.
        biases: shape (out,) each, or None.
        activations: one for each layer, or for each but the last.
        cotangent: shape of the output jet.
        collapsed: as for :func:`dense_jet`.

    Returns:
        Shape (N, P); columns in the order W1 (row by row), b1, W2, b2, ...; absent biases are skipped.

    Cost:
        One backward pass and the N·P numbers written.
    """
    params = _interleave(weights, biases)
    input, tangents = _parts(
        input, torch.is_grad_enabled() or torch.compiler.is_compiling() or _transformed()
    )
    plan = plan_of(input, params, order, directions, activations, collapsed, tangents)
    expected = (plan.rows, input.shape[-2], plan.widths[-1])
    if tuple(cotangent.shape) != expected or cotangent.dtype != plan.dtype:
        raise ShapeError(
            f"the cotangent has shape {tuple(cotangent.shape)}, {cotangent.dtype}",
            f"expected {expected}, {plan.dtype}",
        )
    if tangents is not None:
        return calls.jacobian(plan, input, params, cotangent, tangents)
    return _Jacobian.apply(plan, cotangent, input, *params)  # type: ignore[no-any-return,no-untyped-call]


def dense_tangent(
    input: Tensor,
    directions: Structure,
    order: int,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activations: Sequence[Activation],
    tangents: Sequence[Tensor | None],
    *,
    collapsed: bool = False,
) -> Tensor:
    """Return the tangent of the output jet for tangents of the input and the parameters (J·v).

    Args:
        input: as for :func:`dense_jet`, and so are the next five.
        directions: D, or the algebra of the rows.
        order: order of truncation.
        weights: shape (out, in) each.
        biases: shape (out,) each, or None.
        activations: one for each layer, or for each but the last.
        tangents: of the input, W1, b1, W2, b2, ...; None for zero.
        collapsed: as for :func:`dense_jet`.

    Returns:
        Shape of the output jet. Not differentiable.

    Cost:
        Two forward passes.
    """
    params = _interleave(weights, biases)
    plan = plan_of(input, params, order, directions, activations, collapsed)
    for value, move in zip((input, *params), tangents, strict=True):
        if move is not None and (value is None or move.shape != value.shape or move.dtype != value.dtype):
            raise ShapeError(f"a tangent has shape {tuple(move.shape)}", "it must be that of its argument")
    with torch.no_grad():
        return calls.tangent(plan, input, params, tangents[0], tangents[1:])
