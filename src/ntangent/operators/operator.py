"""Linear differential operators as data, with an algebra: ``laplacian @ laplacian + 2 * partial``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_order, check_positive
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError
from ntangent.operators.symbol import Monomial, Symbol, degree, monomial, times

Coefficient = int | float | Fraction | Callable[[Tensor], Tensor]
Index = tuple[int, ...]


@dataclass(frozen=True)
class Term:
    """A coefficient function times an operator with constant coefficients.

    Args:
        symbol: the constant part, a polynomial in ξ with exact coefficients.
        factor: maps points (N, d) to the coefficient, shape (N,) or (N, 1); None stands for 1.
    """

    symbol: tuple[tuple[Monomial, Fraction], ...]
    factor: Callable[[Tensor], Tensor] | None = None

    @property
    def polynomial(self) -> Symbol:
        """The symbol as a dictionary."""
        return dict(self.symbol)


def _exact(value: Any) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
        raise DtypeError(
            f"an operator's coefficient must be a number or a function of the points, got {value!r}",
            "",
            "lambda x: x[:, 0] ** 2",
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ArgumentError(f"an operator has the coefficient {value}", "it must be finite", "1.0")
    return Fraction(value)


class Operator:
    """A linear differential operator: {multi-index: coefficient}.

    ``Operator({(2, 0): 1, (0, 2): lambda x: x[:, 0]})`` is u_xx + x u_yy. Numbers are kept exactly;
    a callable maps the points to its values. Operators can be added, subtracted, multiplied by
    numbers and coefficient functions, and composed with ``@`` while their coefficients are constant.

    Args:
        terms: coefficients by multi-index; all indices have the length of the space's dimension.
        dimension: of the space; read off the indices when None.
    """

    def __init__(
        self, terms: Mapping[Index, Coefficient] | None = None, dimension: int | None = None
    ) -> None:
        constant: Symbol = {}
        variable: dict[Any, Symbol] = {}
        for index, coefficient in (terms or {}).items():
            dimension = len(index) if dimension is None else dimension
            if len(index) != dimension:
                raise ShapeError(
                    f"the multi-index {index} has {len(index)} entries in {dimension} dimensions",
                    "each coordinate has one order",
                    "(2, 0)",
                )
            for order in index:
                check_order(order, "order in a multi-index")
            if callable(coefficient):
                variable.setdefault(coefficient, {})[monomial(index)] = Fraction(1)
            else:
                constant[monomial(index)] = _exact(coefficient)
        if dimension is None:
            raise ArgumentError(
                "an operator without terms needs its dimension", "", "Operator({}, dimension=2)"
            )
        parts = [_term(constant)] if any(constant.values()) else []
        self._set(
            check_positive(dimension, "dimension", integer=True),
            [*parts, *(_term(s, f) for f, s in variable.items())],
        )

    def _set(self, dimension: int, terms: list[Term]) -> None:
        self.dimension = dimension
        self.terms = tuple(terms)

    @classmethod
    def _of(cls, dimension: int, terms: list[Term]) -> Operator:
        operator = cls({}, dimension=dimension)
        merged: dict[Any, Symbol] = {}
        for term in terms:
            total = merged.setdefault(term.factor, {})
            for m, c in term.symbol:
                total[m] = total.get(m, Fraction(0)) + c
        operator._set(dimension, [_term(s, f) for f, s in merged.items() if any(s.values())])
        return operator

    @classmethod
    def partial(cls, *index: int) -> Operator:
        """Return ∂^index, ``Operator.partial(2, 1)`` for u_xxy."""
        return cls({tuple(index): 1})

    @classmethod
    def laplacian(cls, dimension: int, weights: Any = None) -> Operator:
        """Return Σ_i w_i ∂²/∂x_i², with weights 1 by default."""
        if weights is None:
            return _laplacian(check_positive(dimension, "dimension", integer=True))
        weights = weights.tolist() if hasattr(weights, "tolist") else list(weights)
        if len(weights) != dimension:
            raise ShapeError(
                f"{len(weights)} weights in {dimension} dimensions", "", f"weights=[1] * {dimension}"
            )
        symbol: Symbol = {((i, 2),): _exact(w) for i, w in enumerate(weights)}
        return cls._of(dimension, [_term(symbol)])

    @classmethod
    def polyharmonic(cls, dimension: int, power: int) -> Operator:
        """Return the Laplacian to a power; 2 is the biharmonic operator."""
        return _polyharmonic(
            check_positive(dimension, "dimension", integer=True),
            check_positive(power, "power", integer=True),
        )

    @classmethod
    def biharmonic(cls, dimension: int) -> Operator:
        """Return the square of the Laplacian."""
        return cls.polyharmonic(dimension, 2)

    @property
    def order(self) -> int:
        """The highest total order."""
        return max((degree(m) for term in self.terms for m, _ in term.symbol), default=0)

    @property
    def symbols(self) -> list[Symbol]:
        """The symbols of the terms."""
        return [term.polynomial for term in self.terms]

    def _combine(self, other: Any, sign: int) -> Operator:
        if not isinstance(other, Operator):
            raise DtypeError(
                f"an operator was added to {other!r}",
                "a number is a multiple of the identity",
                "Operator({(0, 0): 2})",
            )
        if other.dimension != self.dimension:
            raise ShapeError(
                f"operators in {self.dimension} and {other.dimension} dimensions are added",
                "",
                "use one dimension",
            )
        return self._of(self.dimension, [*self.terms, *(other * sign).terms])

    def __add__(self, other: Any) -> Operator:
        return self._combine(other, 1)

    def __sub__(self, other: Any) -> Operator:
        return self._combine(other, -1)

    def __neg__(self) -> Operator:
        return self * -1

    def __mul__(self, factor: Any) -> Operator:
        if callable(factor) and not isinstance(factor, Operator):
            return self._of(
                self.dimension, [_term(t.polynomial, _times(factor, t.factor)) for t in self.terms]
            )
        if isinstance(factor, Operator):
            raise DtypeError("two operators were multiplied with *", "composition is written with @", "a @ b")
        scale = _exact(factor)
        scaled = [_term({m: c * scale for m, c in t.symbol}, t.factor) for t in self.terms]
        return self._of(self.dimension, scaled)

    __rmul__ = __mul__

    def __matmul__(self, other: Any) -> Operator:
        if not isinstance(other, Operator):
            raise DtypeError(
                f"an operator was composed with {other!r}", "", "operators.apply(operator, f, x)"
            )
        if other.dimension != self.dimension:
            raise ShapeError(
                f"operators in {self.dimension} and {other.dimension} dimensions are composed",
                "",
                "use one dimension",
            )
        if any(t.factor is not None for t in other.terms):
            raise ArgumentError(
                "the inner operator of a composition has variable coefficients",
                "its product rule would need their derivatives",
                "expand the composition by hand and give its terms to Operator({...})",
            )
        products = []
        for a in self.terms:
            for b in other.terms:
                symbol: Symbol = {}
                for m, c in a.symbol:
                    for n, e in b.symbol:
                        key = times(m, n)
                        symbol[key] = symbol.get(key, Fraction(0)) + c * e
                products.append(_term(symbol, a.factor))
        return self._of(self.dimension, products)

    def __pow__(self, power: int) -> Operator:
        result = self
        for _ in range(check_positive(power, "power", integer=True) - 1):
            result = result @ self
        return result

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Operator)
            and self.dimension == other.dimension
            and {t.factor: t.symbol for t in self.terms} == {t.factor: t.symbol for t in other.terms}
        )

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.dimension, frozenset(self.terms)))

    def __repr__(self) -> str:
        words = []
        for term in self.terms:
            factor = "" if term.factor is None else getattr(term.factor, "__name__", "c") + "(x)·"
            words += [f"{factor}{c}·∂{_dense(m, self.dimension)}" for m, c in term.symbol[:8]]
            words += ["..."] if len(term.symbol) > 8 else []
        return f"Operator({' + '.join(words) or '0'})"


@lru_cache(maxsize=256)
def _laplacian(dimension: int) -> Operator:
    return Operator.laplacian(dimension, [1] * dimension)


@lru_cache(maxsize=256)
def _polyharmonic(dimension: int, power: int) -> Operator:
    return _laplacian(dimension) ** power


def _term(symbol: Symbol, factor: Callable[[Tensor], Tensor] | None = None) -> Term:
    return Term(tuple(sorted((m, c) for m, c in symbol.items() if c)), factor)


def _times(f: Callable[[Tensor], Tensor], g: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor]:
    if g is None:
        return f

    def product(x: Tensor) -> Tensor:
        return torch.as_tensor(f(x)).reshape(-1) * torch.as_tensor(g(x)).reshape(-1)

    return product


def _dense(m: Monomial, dimension: int) -> str:
    if dimension > 8:
        return "".join(f"_{i}^{p}" for i, p in m) or "^0"
    powers = dict(m)
    return str(tuple(powers.get(i, 0) for i in range(dimension)))
