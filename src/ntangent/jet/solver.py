"""Solves the differential equation of a row, order by order, along lines or in any algebra."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from ntangent.jet.activations import Activation
from ntangent.jet.algebra import Algebra
from ntangent.jet.arithmetic import Structure, degree_of, product_rows, row_count, tabled, tail_of
from ntangent.jet.polynomial import Exponents, Polynomial


class _Solver:
    """What both solvers share: states, monomials of the flow, polynomials of the states."""

    def __init__(self, row: Activation, a: Tensor, structure: Structure, degree: int) -> None:
        self.row, self.a, self.structure, self.degree = row, a, structure, degree
        self.heads = row.initial(a[0])
        self.slopes = row.slope(a[0]) if row.slope else None
        arity = row.output.arity
        self.units = [tuple(int(i == j) for j in range(arity)) for i in range(arity)]
        self.series: dict[Exponents, Tensor] = {self.units[0]: a}
        self.rates: list[Tensor] = []

    def _new(self) -> Tensor:
        return self.a.new_zeros((row_count(self.structure, self.degree), *self.a.shape[1:]))

    def run(self) -> None:
        """Fill in the states and the polynomials of the flow up to the degree."""
        if not self.row.flow:
            return
        for unit, start in zip(self.units[1:], self.heads, strict=True):
            state = self._new()
            state[0] = start
            self.series[unit] = state
        moving = [i for i, velocity in enumerate(self.row.flow) if velocity.terms]
        online: list[tuple[Exponents, Exponents, Exponents]] = []
        for i in moving:
            for exponents, _ in self.row.flow[i].terms:
                self._plan(exponents, online)
        rates = {i: self._new() for i in moving}
        scaled = self._scaled()
        for k in range(self.degree + 1):
            for i in moving:
                if k:
                    self._advance_state(self.series[self.units[i + 1]], k)
            for target, left, right in online:
                self._advance_product(self.series[target], self.series[left], self.series[right], k)
            for i in moving:
                self._combine(rates[i], i, k)
                self._pass_on(self.series[self.units[i + 1]], scaled, rates[i], k)
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

    def _combine(self, target: Tensor, index: int, k: int) -> None:
        """Write the coefficients of order k of the polynomial flow[index]."""
        if k == 0 and self.slopes is not None:
            target[0] = self.slopes[index]
            return
        rows = slice(row_count(self.structure, k - 1) if k else 0, row_count(self.structure, k))
        for exponents, coefficient in self.row.flow[index].terms:
            if sum(exponents) == 0:
                if k == 0:
                    target[0] += float(coefficient)
            elif rows.start < self.series[exponents].shape[0]:
                target[rows].add_(self.series[exponents][rows], alpha=float(coefficient))

    def monomial(self, exponents: Exponents) -> Tensor:
        """Return the series of a monomial, computing it when the flow did not need it."""
        if exponents not in self.series:
            left, right = (self.monomial(e) for e in self._factor(exponents))
            self.series[exponents] = product_rows(left, right, self.structure, self.degree)
        return self.series[exponents]

    def polynomial(self, p: Polynomial) -> Tensor:
        """Return the series of a polynomial of the states."""
        for velocity, rate in zip(self.row.flow, self.rates, strict=True):
            if p == velocity and velocity.terms:
                return rate
        if len(p.terms) == 1 and p.terms[0][1] == 1 and any(p.terms[0][0]):
            series = self.monomial(p.terms[0][0])
            if series is not self.a and series.shape[0] == row_count(self.structure, self.degree):
                return series
        total = self._new()
        for exponents, coefficient in p.terms:
            if sum(exponents) == 0:
                total[0] += float(coefficient)
            else:
                series = self.monomial(exponents)
                total[: series.shape[0]].add_(series[: total.shape[0]], alpha=float(coefficient))
        return total

    def _scaled(self) -> Tensor:
        raise NotImplementedError

    def _advance_state(self, state: Tensor, k: int) -> None:
        raise NotImplementedError

    def _advance_product(self, target: Tensor, left: Tensor, right: Tensor, k: int) -> None:
        raise NotImplementedError

    def _pass_on(self, state: Tensor, scaled: Tensor, rate: Tensor, k: int) -> None:
        """Use the rate of order k for what comes later; nothing to do where later pulls."""


class LineSolver(_Solver):
    """Along lines: what is known is pushed at once to all higher orders, in block operations."""

    structure: int

    def _tail(self, data: Tensor) -> Tensor:
        return tail_of(data, self.structure)

    def _scaled(self) -> Tensor:
        """Return j·a_j for j >= 1, as (degree, directions, *shape)."""
        top = degree_of(self.a, self.structure)
        weights = torch.arange(1, top + 1, dtype=self.a.dtype, device=self.a.device)
        return self._tail(self.a) * weights.view(-1, *[1] * self.a.ndim)

    def _advance_state(self, state: Tensor, k: int) -> None:
        self._tail(state)[k - 1] /= k

    def _advance_product(self, target: Tensor, left: Tensor, right: Tensor, k: int) -> None:
        """Add to ``target`` every product whose later factor has order k."""
        if k == 0:
            target[0] = left[0] * right[0]
            return
        out = self._tail(target)
        pairs = [(left, right)] if left is right else [(left, right), (right, left)]
        twice = 2.0 if left is right else 1.0
        for late, early in pairs:
            late_tail, early_tail = self._tail(late), self._tail(early)
            if k > late_tail.shape[0]:
                continue
            out[k - 1].addcmul_(late_tail[k - 1], early[0], value=twice)
            count = min(k - 1, early_tail.shape[0], self.degree - k)
            if count > 0:
                out[k : k + count].addcmul_(late_tail[k - 1], early_tail[:count], value=twice)
        if 2 * k <= self.degree and k <= min(len(self._tail(left)), len(self._tail(right))):
            out[2 * k - 1].addcmul_(self._tail(left)[k - 1], self._tail(right)[k - 1])

    def _pass_on(self, state: Tensor, scaled: Tensor, rate: Tensor, k: int) -> None:
        """Add j·a_j·P_k to k+j times the coefficient of order k + j, for all j at once."""
        count = min(scaled.shape[0], self.degree - k)
        if count <= 0:
            return
        factor = rate[0] if k == 0 else self._tail(rate)[k - 1]
        self._tail(state)[k : k + count].addcmul_(scaled[:count], factor)


class AlgebraSolver(_Solver):
    """In an algebra given by a table: each grade is pulled from the lower ones.

    The polynomials of the flow are summed in place: a product that only one of them needs has no
    rows of its own.
    """

    structure: Algebra

    def run(self) -> None:
        """Fill in the states and the polynomials of the flow up to the degree."""
        flow = self.row.flow
        self._multiples: dict[tuple[Exponents, float], Tensor] = {}  # of the values of series
        moving = [i for i, velocity in enumerate(flow) if velocity.terms]
        for i, start in enumerate(self.heads):
            # A state that does not move is a series of degree 0.
            state = self._empty() if i in moving else start[None].clone()
            state[0] = start
            self.series[self.units[i + 1]] = state
        wanted = Counter(e for i in moving for e, _ in flow[i].terms)
        online: list[tuple[Exponents, Exponents, Exponents]] = []
        for exponents, times in wanted.items():
            if times > 1:  # by several polynomials: kept
                self._plan(exponents, online)
            elif sum(exponents) and exponents not in self.series:
                for factor in self._factor(exponents):
                    self._plan(factor, online)
        rates = {i: self._rate(i) for i in moving}
        for k in range(self.degree + 1):
            for i in moving if k else ():
                state = self.series[self.units[i + 1]]
                if k == 1:
                    self.structure.integrate_value(state, self.a, rates[i])
                self.structure.integrate_grade(state, self.a, rates[i], k)
            for target, left, right in online:
                self._product(self.series[target], left, right, k, 1.0, add=False)
            for i in moving:
                if rates[i] is not self._alias(i):
                    self._fill_rate(rates[i], i, k)
        self.rates = [rates.get(i, self.a[:1] * 0) for i in range(len(flow))]

    def _empty(self) -> Tensor:
        return self.a.new_empty((self.structure.rows(self.degree), *self.a.shape[1:]))

    def _alias(self, index: int) -> Tensor | None:
        """Return the state or product that this polynomial is, if it is just one."""
        terms = self.row.flow[index].terms
        if self.slopes is not None or len(terms) > 1 or terms[0][1] != 1:
            return None
        series = self.series.get(terms[0][0])
        return series if series is not self.a and series is not None else None

    def _rate(self, index: int) -> Tensor:
        alias = self._alias(index)
        return (
            alias if alias is not None and len(alias) == self.structure.rows(self.degree) else self._empty()
        )

    def _fill_rate(self, rate: Tensor, index: int, k: int) -> None:
        """Write the rows of grade k of the polynomial flow[index]."""
        rows = self.structure.grade_rows(k)
        if k == 0 and self.slopes is not None:
            rate[0] = self.slopes[index]
            return
        terms = sorted(
            self.row.flow[index].terms, key=lambda term: not sum(term[0]) or term[0] in self.series
        )
        if not terms or terms[0][0] in self.series or not sum(terms[0][0]):
            rate[rows] = 0
        for j, (exponents, coefficient) in enumerate(terms):
            series = self.series.get(exponents)
            if sum(exponents) == 0:
                if k == 0:
                    rate[0].add_(float(coefficient))
            elif series is None:
                self._product(rate, *self._factor(exponents), k, float(coefficient), add=j > 0)
            elif rows.start < len(series):
                rate[rows].add_(series[rows], alpha=float(coefficient))

    def _product(
        self, target: Tensor, left: Exponents, right: Exponents, k: int, scale: float, add: bool
    ) -> None:
        factor = self.structure.head_factor(scale, left == right, k)
        head = self._multiples.get((right, factor))
        if head is None and factor != 1.0:
            head = self._multiples[right, factor] = self.series[right][0] * factor
        a, b = self.series[left], self.series[right]
        self.structure.product_grade(target, a, b, k, scale, add, head)


def solve_rows(row: Activation, a: Tensor, structure: Structure, degree: int) -> tuple[Tensor, Tensor]:
    """Return the series of σ(a) and of σ'(a) up to a degree, outside automatic differentiation.

    They may be the same tensor, as for exp.
    """
    structure = tabled(structure, degree)
    kind = AlgebraSolver if isinstance(structure, Algebra) else LineSolver
    solver = kind(row, a, structure, degree)
    solver.run()
    y, s = solver.polynomial(row.output), solver.polynomial(row.derivative.output)
    return y, s
