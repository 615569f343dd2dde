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
from ntangent.jet.arithmetic import correlate, degree_of, fold_batch, product, product_rows, tail_of
from ntangent.jet.polynomial import Exponents, Polynomial


def output_degree(row: Activation, degree: int, order: int) -> int:
    """Return the degree of σ(a) for a of the given degree: finite where σ is a polynomial."""
    if degree == 0:
        return 0
    if any(velocity.terms for velocity in row.flow):
        return order
    powers = [e[0] for p in (row.output, row.derivative.output) for e, _ in p.terms]
    return min(order, degree * max(powers, default=0))


class _Solver:
    """Evaluates one row on one argument, order by order."""

    def __init__(self, row: Activation, a: Tensor, directions: int, degree: int) -> None:
        self.row, self.a, self.directions, self.degree = row, a, directions, degree
        self.heads = row.initial(a[0])
        self.slopes = row.slope(a[0]) if row.slope else None
        arity = row.output.arity
        units = [tuple(int(i == j) for j in range(arity)) for i in range(arity)]
        self.series: dict[Exponents, Tensor] = {units[0]: a}
        self.units = units
        self.rates: list[Tensor] = []

    def _new(self) -> Tensor:
        return self.a.new_zeros((1 + self.degree * self.directions, *self.a.shape[1:]))

    def run(self) -> None:
        """Fill in the states and the polynomials of the flow up to the degree."""
        if not self.row.flow:
            return
        for unit, head in zip(self.units[1:], self.heads, strict=True):
            state = self._new()
            state[0] = head
            self.series[unit] = state
        moving = [i for i, velocity in enumerate(self.row.flow) if velocity.terms]
        online: list[tuple[Exponents, Exponents, Exponents]] = []
        for i in moving:
            for exponents, _ in self.row.flow[i].terms:
                self._plan(exponents, online)
        rates = {i: self._new() for i in moving}
        weights = torch.arange(
            1, degree_of(self.a, self.directions) + 1, dtype=self.a.dtype, device=self.a.device
        )
        scaled = tail_of(self.a, self.directions) * weights.view(-1, *[1] * self.a.ndim)
        for k in range(self.degree + 1):
            for i in moving:
                if k:
                    tail_of(self.series[self.units[i + 1]], self.directions)[k - 1] /= k
            for target, left, right in online:
                self._push_product(self.series[target], self.series[left], self.series[right], k)
            for i in moving:
                self._combine(rates[i], i, k)
                self._push_flow(self.series[self.units[i + 1]], scaled, rates[i], k)
        self.rates = [rates.get(i, self.a[:1] * 0) for i in range(len(self.row.flow))]

    def _factor(self, exponents: Exponents) -> tuple[Exponents, Exponents]:
        """Split a monomial into two known ones: squares as squares, else one variable off."""
        if all(e % 2 == 0 for e in exponents):
            half = tuple(e // 2 for e in exponents)
            return half, half
        last = max(i for i, e in enumerate(exponents) if e)
        return tuple(e - (i == last) for i, e in enumerate(exponents)), self.units[last]

    def _plan(self, exponents: Exponents, online: list[tuple[Exponents, Exponents, Exponents]]) -> None:
        if sum(exponents) == 0 or exponents in self.series:
            return
        left, right = self._factor(exponents)
        self._plan(left, online)
        self._plan(right, online)
        self.series[exponents] = self._new()
        online.append((exponents, left, right))

    def _push_product(self, target: Tensor, left: Tensor, right: Tensor, k: int) -> None:
        """Add to ``target`` every product whose later factor has order k."""
        if k == 0:
            torch.mul(left[0], right[0], out=target[0])
            return
        out = tail_of(target, self.directions)
        pairs = [(left, right)] if left is right else [(left, right), (right, left)]
        twice = 2.0 if left is right else 1.0
        for late, early in pairs:
            late_tail, early_tail = tail_of(late, self.directions), tail_of(early, self.directions)
            if k > late_tail.shape[0]:
                continue
            out[k - 1].addcmul_(late_tail[k - 1], early[0], value=twice)
            count = min(k - 1, early_tail.shape[0], self.degree - k)
            if count > 0:
                out[k : k + count].addcmul_(late_tail[k - 1], early_tail[:count], value=twice)
        if 2 * k <= self.degree and k <= min(
            degree_of(left, self.directions), degree_of(right, self.directions)
        ):
            out[2 * k - 1].addcmul_(
                tail_of(left, self.directions)[k - 1], tail_of(right, self.directions)[k - 1]
            )

    def _combine(self, target: Tensor, index: int, k: int) -> None:
        """Write the coefficient of order k of the polynomial flow[index]."""
        rows = slice(0, 1) if k == 0 else slice(1 + (k - 1) * self.directions, 1 + k * self.directions)
        if k == 0 and self.slopes is not None:
            target[0] = self.slopes[index]
            return
        for exponents, coefficient in self.row.flow[index].terms:
            if sum(exponents) == 0:
                if k == 0:
                    target[0] += float(coefficient)
            elif rows.start < self.series[exponents].shape[0]:
                target[rows].add_(self.series[exponents][rows], alpha=float(coefficient))

    def _push_flow(self, state: Tensor, scaled: Tensor, rate: Tensor, k: int) -> None:
        """Add j·a_j·P_k to k+j times the coefficient of order k + j, for all j at once."""
        count = min(scaled.shape[0], self.degree - k)
        if count <= 0:
            return
        factor = rate[0] if k == 0 else tail_of(rate, self.directions)[k - 1]
        tail_of(state, self.directions)[k : k + count].addcmul_(scaled[:count], factor)

    def monomial(self, exponents: Exponents) -> Tensor:
        """Return the series of a monomial, computing it when the flow did not need it."""
        if exponents not in self.series:
            left, right = (self.monomial(e) for e in self._factor(exponents))
            self.series[exponents] = product_rows(left, right, self.directions, self.degree)
        return self.series[exponents]

    def polynomial(self, p: Polynomial) -> Tensor:
        """Return the series of a polynomial of the states."""
        for velocity, rate in zip(self.row.flow, self.rates, strict=True):
            if p == velocity and velocity.terms:
                return rate
        if len(p.terms) == 1 and p.terms[0][1] == 1 and sum(p.terms[0][0]):
            series = self.monomial(p.terms[0][0])
            if series is not self.a and series.shape[0] == 1 + self.degree * self.directions:
                return series
        total = self._new()
        for exponents, coefficient in p.terms:
            if sum(exponents) == 0:
                total[0] += float(coefficient)
            else:
                series = self.monomial(exponents)
                total[: series.shape[0]].add_(series[: total.shape[0]], alpha=float(coefficient))
        return total


def solve_rows(row: Activation, a: Tensor, directions: int, order: int) -> tuple[Tensor, Tensor]:
    """Return the series of σ(a) and of σ'(a), outside automatic differentiation."""
    solver = _Solver(row, a, directions, output_degree(row, degree_of(a, directions), order))
    solver.run()
    y, s = solver.polynomial(row.output), solver.polynomial(row.derivative.output)
    return y, s.clone() if s is y else s


class _Flow(Function):
    @staticmethod
    def forward(a: Tensor, row: Activation, directions: int, order: int) -> tuple[Tensor, Tensor]:
        return solve_rows(row, a, directions, order)

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
        info: Any, in_dims: Any, a: Tensor, row: Activation, directions: int, order: int
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        (folded,) = fold_batch(info, in_dims[:1], a)
        return _Flow.apply(folded, row, directions, order), (1, 1)  # type: ignore[no-untyped-call]


def flow(a: Tensor, row: Activation, directions: int, order: int) -> Tensor:
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
