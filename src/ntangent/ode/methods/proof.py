"""Proofs that coefficients have the order they claim."""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ntangent._base.errors import ArgumentError
from ntangent.ode.algebraic import Number, approximate
from ntangent.ode.trees import (
    Tree,
    Weights,
    density,
    first_failure,
    order_of,
    rosenbrock_weights,
    runge_kutta_weights,
    timed_trees,
    trees,
    written,
)

# Digits for methods of published decimals: their residuals are near 1e-16 and larger.
_DIGITS = 60


class Arithmetic:
    """The numbers of a proof: exact ones, or 60 digits where the coefficients are decimals.

    Args:
        rounding: bound on residuals; 0 asks for exact arithmetic.
    """

    def __init__(self, rounding: Fraction) -> None:
        self.exact = not rounding
        self.tolerance: Any = self(rounding)
        self.one: Any = self(Fraction(1))

    def __call__(self, x: Number) -> Any:
        """Return ``x`` as a number of this arithmetic."""
        if self.exact:
            return x
        value = approximate(x, _DIGITS)
        return Decimal(value.numerator) / Decimal(value.denominator)

    def vector(self, entries: Sequence[Number]) -> list[Any]:
        """Return a vector of these numbers."""
        return [self(x) for x in entries]

    def matrix(self, rows: Sequence[Sequence[Number]]) -> list[list[Any]]:
        """Return a matrix of these numbers."""
        return [self.vector(row) for row in rows]


def refuse(name: str, what: str, residual: Any, claim: str) -> ArgumentError:
    """Return the error for a tableau that fails a condition."""
    return ArgumentError(
        f"the tableau of {name!r} fails {what} by {float(residual):.3g}",
        claim,
        "compare every coefficient with the source, or claim a lower order",
    )


def demand(
    name: str,
    weights: Weights,
    b: Callable[[Tree], Sequence[Any]],
    order: int,
    tolerance: Any,
    **options: Any,
) -> None:
    """Raise for the first tree up to ``order`` whose condition fails."""
    with decimal.localcontext(prec=_DIGITS):
        failure = first_failure(weights, b, order, tolerance, **options)
    if failure is not None:
        tree, residual = failure
        raise refuse(
            name,
            f"the condition Σ b Φ(t) = 1/{density(tree)} of the tree t = {written(tree)}",
            residual,
            f"order {order} needs the conditions of all trees with up to {order} nodes",
        )


def prove_weights(name: str, weights: Weights, b: Sequence[Any], order: int, numbers: Arithmetic) -> None:
    """Check one vector of weights b."""
    demand(name, weights, lambda _: b, order, numbers.tolerance)


def prove_runge_kutta(method: Any) -> None:
    """Check row sums, order (autonomous and not), the embedded and the dense solution."""
    numbers = Arithmetic(method.rounding)
    with decimal.localcontext(prec=_DIGITS):
        a, b, c = numbers.matrix(method.A), numbers.vector(method.b), numbers.vector(method.c)
        weights = runge_kutta_weights([a], numbers.one)
        prove_weights(method.name, weights, b, method.order, numbers)
        gaps = [abs(sum(row, 0 * node) - node) for row, node in zip(a, c, strict=True)]
        if max(gaps) > numbers.tolerance:
            timed = runge_kutta_weights([a, a], numbers.one, nodes=c)
            demand(method.name, timed, lambda _: b, method.order, numbers.tolerance, family=timed_trees)
        if method.b_error is not None:
            start = numbers(method.b_error_initial)
            wide = [*numbers.vector(method.b_error), start]
            padded = [[*row, 0 * numbers.one] for row in a] + [[0 * numbers.one] * (len(b) + 1)]
            embedded = runge_kutta_weights([padded], numbers.one)
            prove_weights(f"{method.name}, embedded", embedded, wide, method.embedded_order, numbers)
        if method.dense is not None:
            _prove_dense(method, weights, numbers)


def _prove_dense(
    method: Any, weights: Weights, numbers: Arithmetic, family: Callable[[int], Sequence[Tree]] = trees
) -> None:
    """Check Σ b_i(θ) Φ_i(t) = θ^|t| / γ(t) power by power, and b_i(1) = b_i."""
    dense = numbers.matrix(method.dense)
    for row, weight in zip(dense, numbers.vector(method.b), strict=True):
        if abs(sum(row, 0 * weight) - weight) > numbers.tolerance:
            raise refuse(method.name, "b_i(1) = b_i", abs(sum(row, 0 * weight) - weight), "dense output")
    for size in range(1, method.dense_order + 1):
        for tree in family(size):
            phi = weights(tree)
            for power in range(1, max(len(dense[0]), size) + 1):
                column = [row[power - 1] if power <= len(row) else 0 * numbers.one for row in dense]
                total = sum((a * x for a, x in zip(column, phi, strict=True)), 0 * phi[0])
                target = numbers(Fraction(1, density(tree))) if power == order_of(tree) else 0
                if abs(total - target) > numbers.tolerance:
                    raise refuse(
                        method.name,
                        f"θ^{power} in the dense condition of the tree t = {written(tree)}",
                        abs(total - target),
                        f"dense output of order {method.dense_order}",
                    )


def prove_rosenbrock(method: Any) -> None:
    """Check the shape, the order with the exact Jacobian, and the embedded solution."""
    size = method.stages
    if any(method.alpha[i][j] for i in range(size) for j in range(i, size)):
        raise refuse(method.name, "α_ij = 0 for j ≥ i", 1, "stages are computed one after the other")
    upper = [method.gamma[i][j] for i in range(size) for j in range(i + 1, size)]
    if any(upper) or any(method.gamma[i][i] != method.diagonal for i in range(size)):
        raise refuse(method.name, "γ_ii = γ, γ_ij = 0 for j > i", 1, "all stages share one matrix")
    numbers = Arithmetic(method.rounding)
    with decimal.localcontext(prec=_DIGITS):
        alpha, beta = numbers.matrix(method.alpha), numbers.matrix(method.beta)
        weights = rosenbrock_weights(alpha, beta, numbers.one)
        prove_weights(method.name, weights, numbers.vector(method.b), method.order, numbers)
        if method.b_error is not None:
            error = numbers.vector(method.b_error)
            prove_weights(f"{method.name}, embedded", weights, error, method.embedded_order, numbers)


def prove_additive(method: Any) -> None:
    """Check both tableaux, and the coupling conditions over trees of two colours."""
    first, second = method.explicit_part, method.implicit_part
    numbers = Arithmetic(method.rounding)
    with decimal.localcontext(prec=_DIGITS):
        parts = [numbers.matrix(part.A) for part in (first, second)]
        weights = runge_kutta_weights(parts, numbers.one)
        b = [numbers.vector(part.b) for part in (first, second)]

        def family(size: int) -> Sequence[Tree]:
            return trees(size, 2)

        demand(method.name, weights, lambda t: b[t[0]], method.order, numbers.tolerance, family=family)
        if method.embedded_order is not None:
            e = [numbers.vector(part.b_error) for part in (first, second)]
            name = f"{method.name}, embedded"
            demand(name, weights, lambda t: e[t[0]], method.embedded_order, numbers.tolerance, family=family)
        if first.dense is not None and first.dense == second.dense:
            _prove_dense(first, weights, numbers, family)
    first.prove()
    second.prove()


def stage_order(
    a: Sequence[Sequence[Number]], b: Sequence[Number], c: Sequence[Number], rounding: Fraction
) -> int:
    """Return the largest q with B(q) and C(q): Σ a_ij c_j^(k-1) = c_i^k / k for all i and k ≤ q."""
    return min(simplifying(a, b, c, rounding)[:2])


def simplifying(
    a: Sequence[Sequence[Number]], b: Sequence[Number], c: Sequence[Number], rounding: Fraction
) -> tuple[int, int, int]:
    """Return the largest (p, η, ζ) of Butcher's assumptions B(p), C(η), D(ζ)."""
    numbers = Arithmetic(rounding)
    size = len(b)
    with decimal.localcontext(prec=_DIGITS):
        aa, bb, cc = numbers.matrix(a), numbers.vector(b), numbers.vector(c)

        def dot(u: Sequence[Any], v: Sequence[Any]) -> Any:
            return sum((x * y for x, y in zip(u, v, strict=True)), 0 * numbers.one)

        def count(holds: Callable[[int, list[Any]], bool]) -> int:
            k, powers = 1, [numbers.one] * size
            while k <= 2 * size + 1 and holds(k, powers):
                k, powers = k + 1, [x * y for x, y in zip(powers, cc, strict=True)]
            return k - 1

        def near(x: Any) -> bool:
            return bool(abs(x) <= numbers.tolerance)

        columns = list(zip(*aa, strict=True))
        return (
            count(lambda k, v: near(dot(bb, v) * k - 1)),
            count(lambda k, v: all(near(dot(r, v) * k - x * y) for r, x, y in zip(aa, v, cc, strict=True))),
            count(
                lambda k, v: all(
                    near(dot([x * y for x, y in zip(bb, v, strict=True)], column) * k - w * (1 - x * y))
                    for column, w, x, y in zip(columns, bb, v, cc, strict=True)
                )
            ),
        )


def prove_exponential(method: Any) -> None:
    """Check classical and stiff order.

    φ_0, φ_1, ... are linearly independent over the rationals, so a condition on Σ_i b_i(Z) c_i^m is one
    on coefficients. Stiff order q (Hochbruck & Ostermann, Acta Numerica 2010): Σ b_i c_i^m = m! φ_{m+1}
    for m < q and Σ a_ij = c_i φ_1(c_i Z), up to order 2 for a given linear part; a Jacobian removes
    m = 1 because N'(y) = 0, up to order 3. Classical order q: the tableau at Z = 0, with
    b_i(0) = Σ coefficient / k!, is of order q, and the linear terms match: for order 1 that is all.
    """
    at_zero = [sum((x / math.factorial(k) for k, x in terms), Fraction(0)) for terms in method.b]
    if sum(at_zero, Fraction(0)) != 1:
        raise refuse(method.name, "Σ b_i(0) = 1", sum(at_zero, Fraction(0)) - 1, "order 1")
    if method.order > max(1, method.stiff_order):
        raise refuse(method.name, "the stiff order conditions", 1, "order above 1 is proved as stiff order")
    limit = 3 if method.rosenbrock else 2
    claims = [(method.name, method.b, method.stiff_order)]
    if method.b_error is not None:
        claims.append((f"{method.name}, embedded", method.b_error, method.embedded_order))
    for name, b, order in claims:
        if order > limit:
            raise refuse(name, f"stiff order {order}", 1, f"conditions are known here up to order {limit}")
        for m in range(order):
            if method.rosenbrock and m == 1:
                continue
            total: dict[int, Fraction] = {m + 1: -Fraction(math.factorial(m))}
            for node, terms in zip(method.c, b, strict=True):
                for k, x in terms:
                    total[k] = total.get(k, Fraction(0)) + x * node**m
            if any(total.values()):
                what = f"Σ b_i(Z) c_i^{m} = {math.factorial(m)} φ_{m + 1}(Z)"
                raise refuse(name, what, max(map(abs, total.values())), f"stiff order {order}")
        for node, row in zip(method.c, method.a, strict=True):
            terms = [(k, x) for entry in row for k, x in entry]
            if order > 1 and node and (sum(x for _, x in terms) != node or any(k != 1 for k, _ in terms)):
                raise refuse(name, "Σ a_ij(Z) = c_i φ_1(c_i Z)", 1, f"stiff order {order}")
