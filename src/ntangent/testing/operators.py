"""Conformance of differential operators: exact polynomials, nested autograd, one call for both."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from ntangent._base.precision import tolerance
from ntangent.jet.api import jet
from ntangent.jet.mlp import MLP
from ntangent.operators.apply import apply
from ntangent.operators.directions import polarise
from ntangent.operators.operator import Operator
from ntangent.operators.symbol import degree, factorial
from ntangent.testing.suites import check_close

Index = tuple[int, ...]
Rational = dict[Index, Fraction]


def random_polynomial(dimension: int, order: int, seed: int, terms: int = 8) -> Rational:
    """Return a polynomial with rational coefficients of total order up to ``order``."""
    source = random.Random(seed)
    result: Rational = {}
    for _ in range(terms):
        left, index = source.randint(0, order), [0] * dimension
        for _ in range(left):
            index[source.randrange(dimension)] += 1
        result[tuple(index)] = Fraction(source.randint(-9, 9), source.randint(1, 7))
    return result


def polynomial_derivative(p: Mapping[Index, Fraction], index: Index) -> Rational:
    """Return ∂^index p, exactly."""
    result: Rational = {}
    for powers, c in p.items():
        if all(a >= n for a, n in zip(powers, index, strict=True)):
            lowered = tuple(a - n for a, n in zip(powers, index, strict=True))
            scale = math.prod(math.perm(a, n) for a, n in zip(powers, index, strict=True))
            result[lowered] = result.get(lowered, Fraction(0)) + c * scale
    return result


def polynomial_value(p: Mapping[Index, Fraction], point: Sequence[Fraction]) -> Fraction:
    """Return p at a rational point, exactly."""
    return sum(
        (c * math.prod((x**a for x, a in zip(point, powers, strict=True)), start=Fraction(1)))
        for powers, c in p.items()
    ) + Fraction(0)


def polynomial_function(p: Mapping[Index, Fraction]) -> Callable[[Any], Any]:
    """Return p as a function of points, shape (N, d) to (N, 1), made of powers and products."""

    def f(x: Any) -> Any:
        total = x[:, :1] * 0.0
        for powers, c in p.items():
            term: Any = float(c)
            for i, a in enumerate(powers):
                if a:
                    term = x[:, i : i + 1] ** a * term
            total = total + term
        return total

    return f


def nested_partial(f: Callable[[Any], Any], x: Tensor, index: Index) -> Tensor:
    """Return ∂^index f by nested reverse mode, shape (N, out); points must be independent."""
    with torch.enable_grad():
        points = x.detach().requires_grad_()
        columns = []
        for column in f(points).unbind(1):
            for i, times in enumerate(index):
                for _ in range(times):
                    gradient = None
                    if column.requires_grad:
                        (gradient,) = torch.autograd.grad(
                            column.sum(), points, create_graph=True, allow_unused=True
                        )
                    column = torch.zeros_like(column) if gradient is None else gradient[:, i]
            columns.append(column)
    return torch.stack(columns, 1).detach()


def nested_value(operator: Operator, f: Callable[[Any], Any], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the operator applied by nested autograd, and the sum of the sizes of its terms."""
    value, size = torch.zeros_like(f(x)), torch.zeros_like(f(x))
    for term in operator.terms:
        factor = torch.ones(len(x), 1, dtype=x.dtype)
        if term.factor is not None:
            factor = torch.as_tensor(term.factor(x), dtype=x.dtype).reshape(-1, 1)
        for m, c in term.symbol:
            powers = dict(m)
            part = nested_partial(f, x, tuple(powers.get(i, 0) for i in range(operator.dimension)))
            value, size = value + factor * part * float(c), size + (factor * part * float(c)).abs()
    return value, size


def directional_size(operator: Operator, p: Mapping[Index, Fraction], x: Tensor) -> Tensor:
    """Return the size of the terms when p is differentiated along lines, shape (N, 1)."""
    f = polynomial_function({powers: abs(c) for powers, c in p.items()})
    size = torch.zeros(len(x), 1, dtype=x.dtype)
    for term in operator.terms:
        for m, c in term.symbol:
            n = degree(m)
            lines = polarise(m) if n else {(): Fraction(1)}
            for line, w in lines.items():
                v = x.new_zeros(operator.dimension)
                for i, entry in line:
                    v[i] = abs(float(entry))
                along = jet(f, x.abs(), n, direction=v).coefficient(n)
                size = size + abs(float(c * w)) * factorial(((0, n),)) * along
    return size


def check_polynomial(operator: Operator, p: Mapping[Index, Fraction], seed: int = 0, points: int = 3) -> None:
    """Compare an operator with constant coefficients on a polynomial with the exact rational result."""
    source = random.Random(seed)
    d = operator.dimension
    rational = [[Fraction(source.randint(-8, 8), 8) for _ in range(d)] for _ in range(points)]
    x = torch.tensor([[float(c) for c in point] for point in rational], dtype=torch.float64)
    exact: Rational = {}
    bound: Rational = {}
    for term in operator.terms:
        for m, c in term.symbol:
            powers = dict(m)
            index = tuple(powers.get(i, 0) for i in range(operator.dimension))
            for key, value in polynomial_derivative(p, index).items():
                exact[key] = exact.get(key, Fraction(0)) + c * value
                bound[key] = bound.get(key, Fraction(0)) + abs(c * value)
    expected = torch.tensor([[float(polynomial_value(exact, q))] for q in rational], dtype=torch.float64)
    sizes = [[float(polynomial_value(bound, [abs(c) for c in q]))] for q in rational]
    eps = tolerance(torch.float64, operator.order, len(p))
    allowed = {"algebra": torch.tensor(sizes).double(), "directions": directional_size(operator, p, x)}
    for method, size in allowed.items():
        got = apply(operator, polynomial_function(p), x, method=method)
        check_close(got, expected, eps * size, f"{operator} by {method}")


def check_operator(
    operator: Operator, f: Callable[[Any], Any] | None = None, x: Tensor | None = None, *, seed: int = 0
) -> None:
    """Raise AssertionError unless an operator is applied correctly, by every method.

    Against exact rational derivatives of random polynomials (constant coefficients only), and
    against nested autograd on a function of independent points.

    Args:
        operator: the operator; nested autograd limits its order to six or so.
        f: maps (N, d) to (N, out); a small tanh network by default.
        x: points, shape (N, d), float64; five random ones by default.
        seed: of the random polynomials, network and points.
    """
    d = operator.dimension
    source = torch.Generator().manual_seed(seed)
    if x is None:
        x = torch.rand(5, d, dtype=torch.float64, generator=source) * 2 - 1
    if f is None:
        f = MLP(d, 2, width=8, depth=2, dtype=torch.float64, generator=source)
    expected, size = nested_value(operator, f, x)
    # The rows carried are as large as the largest partial derivative of the operator's order.
    scale = max(float(size.abs().max()) if size.numel() else 0.0, 1.0) * 4.0**operator.order
    for method in ("algebra", "directions"):
        got = apply(operator, f, x, method=method)
        check_close(got, expected, tolerance(x.dtype, operator.order, 8) * scale, f"{operator} by {method}")
        again = apply(operator, f, x, method=method)
        if not torch.equal(got, again):
            raise AssertionError(f"{operator} by {method}: a second call gives other bits")
    if all(term.factor is None for term in operator.terms):
        for k, order in enumerate(range(max(0, operator.order - 1), operator.order + 3)):
            check_polynomial(operator, random_polynomial(d, order, seed + k), seed + k)


def multi_indices(dimension: int, order: int) -> list[Index]:
    """Return all multi-indices of total order ``order``."""
    return [index for index in itertools.product(range(order + 1), repeat=dimension) if sum(index) == order]
