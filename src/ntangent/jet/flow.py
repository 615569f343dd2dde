"""The series of an activation, from its row: one recurrence for the whole table.

With a(t) the argument, the states obey z'(t) = P(z, a) a'(t), hence
    k z_k = sum_{j=1..k} j a_j P_{k-j},
and the coefficients of the polynomial P follow from those of z by truncated products, one order
at a time (Griewank & Walther, section 13.2). Everything is written in push form: as soon as a
coefficient is known, all of its contributions to higher orders are added in one block operation,
so a row costs O(order) tensor operations and O(order²) multiply-adds per element.

The derivative needs no rule of its own: δy(t) = σ'(a(t)) δa(t), a truncated product whose adjoint
is a correlation, and σ' is itself a row with the same states.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function

from ntangent.jet.activations import Activation
from ntangent.jet.arithmetic import Structure, correlate, degree_of, fold_batch, product
from ntangent.jet.solver import solve_rows


class _Flow(Function):
    @staticmethod
    def forward(a: Tensor, row: Activation, directions: Structure, order: int) -> tuple[Tensor, Tensor]:
        y, s = solve_rows(row, a, directions, order)
        return y, s.clone() if s is y else s

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        a, ctx.row, ctx.directions, ctx.order = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(a, output[1])
        ctx.save_for_forward(a, output[1])

    @staticmethod
    def _slope(ctx: Any) -> Tensor:
        a, s = ctx.saved_tensors
        # Only a derivative of the derivative needs σ'(a) as a function of a.
        return flow(a, ctx.row.derivative, ctx.directions, ctx.order) if torch.is_grad_enabled() else s

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, _: Any) -> tuple[Tensor | None, None, None, None]:
        if g is None:
            return None, None, None, None
        degree = degree_of(ctx.saved_tensors[0], ctx.directions)
        return correlate(_Flow._slope(ctx), g.contiguous(), ctx.directions, degree), None, None, None

    @staticmethod
    def jvp(ctx: Any, ta: Tensor, *_: Any) -> tuple[Tensor, None]:
        s = _Flow._slope(ctx)
        return product(s, ta.contiguous(), ctx.directions, degree_of(s, ctx.directions)), None

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, a: Tensor, row: Activation, directions: Structure, order: int
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        (folded,) = fold_batch(info, in_dims[:1], a)
        return _Flow.apply(folded, row, directions, order), (1, 1)  # type: ignore[no-untyped-call]


def flow(a: Tensor, row: Activation, directions: Structure, order: int) -> Tensor:
    """Return the series of σ(a) for a row of the activation table.

    Args:
        a: rows of the argument, shape (1 + m·D, *shape) with m <= order.
        row: the activation.
        directions: D.
        order: order at which the series is truncated.

    Cost: for tanh 3/4·order² multiply-adds per element and direction forward, order²/2 backward;
    the backward pass keeps a and σ'(a): memory linear in the order.
    """
    return _Flow.apply(a, row, directions, order)[0]  # type: ignore[no-any-return,no-untyped-call]
