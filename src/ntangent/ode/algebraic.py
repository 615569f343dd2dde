"""Real algebraic numbers: exact arithmetic in Q(α), with α a root of an irreducible polynomial.

Coefficients of implicit methods are irrational (√6 for Radau IIA, a cubic root for Alexander's
method). Order conditions and stability are proved on them as they are, not on their decimals.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

_PRECISION = Fraction(1, 10**40)


@dataclass(frozen=True)
class Field:
    """The real number field Q(α).

    Args:
        name: how α is written.
        modulus: coefficients of the irreducible polynomial of α, constant first, leading one 1.
        low: rational lower end of an interval that holds α and no other root.
        high: its upper end.
    """

    name: str
    modulus: tuple[Fraction, ...]
    low: Fraction
    high: Fraction

    @property
    def degree(self) -> int:
        """Degree of the field over the rationals."""
        return len(self.modulus) - 1

    @property
    def generator(self) -> Algebraic:
        """The number α itself."""
        return Algebraic(self, (Fraction(0), Fraction(1), *(Fraction(0),) * (self.degree - 2)))

    def enclosure(self, width: Fraction) -> tuple[Fraction, Fraction]:
        """Return rationals around α that are at most ``width`` apart."""
        return _enclosure(self, max(0, math.ceil(-math.log2(width))))


@functools.cache
def _enclosure(field: Field, bits: int) -> tuple[Fraction, Fraction]:
    low, high = field.low, field.high
    rising = _horner(field.modulus, high) > 0
    while high - low > Fraction(1, 2**bits):
        middle = (low + high) / 2
        if (_horner(field.modulus, middle) > 0) == rising:
            high = middle
        else:
            low = middle
    return low, high


def _horner(coefficients: Sequence[Fraction], x: Fraction) -> Fraction:
    total = Fraction(0)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


@dataclass(frozen=True, eq=False)
class Algebraic:
    """An element of a real number field: a polynomial in α with rational coefficients.

    It mixes with ints and Fractions; ``==`` is exact and comparisons are decided by refining α.
    """

    field: Field
    coefficients: tuple[Fraction, ...]

    def _lift(self, other: object) -> Algebraic | None:
        if isinstance(other, Algebraic):
            return other if other.field == self.field else None
        if isinstance(other, int | Fraction):
            return Algebraic(self.field, (Fraction(other), *(Fraction(0),) * (self.field.degree - 1)))
        return None

    def __add__(self, other: Operand) -> Algebraic:
        lifted = self._lift(other)
        if lifted is None:
            return NotImplemented
        pairs = zip(self.coefficients, lifted.coefficients, strict=True)
        return Algebraic(self.field, tuple(a + b for a, b in pairs))

    __radd__ = __add__

    def __neg__(self) -> Algebraic:
        return Algebraic(self.field, tuple(-a for a in self.coefficients))

    def __sub__(self, other: Operand) -> Algebraic:
        return self + (-other)

    def __rsub__(self, other: Operand) -> Algebraic:
        return -self + other

    def __mul__(self, other: Operand) -> Algebraic:
        if isinstance(other, int | Fraction):
            return Algebraic(self.field, tuple(a * other for a in self.coefficients))
        lifted = self._lift(other)
        if lifted is None:
            return NotImplemented
        degree = self.field.degree
        product = [Fraction(0)] * (2 * degree - 1)
        for i, a in enumerate(self.coefficients):
            for j, b in enumerate(lifted.coefficients):
                product[i + j] += a * b
        for top in range(2 * degree - 2, degree - 1, -1):
            for j in range(degree):
                product[top - degree + j] -= product[top] * self.field.modulus[j]
        return Algebraic(self.field, tuple(product[:degree]))

    __rmul__ = __mul__

    def inverse(self) -> Algebraic:
        """Return 1 / self, by solving self · x = 1 in the basis 1, α, α², ...

        Raises:
            ZeroDivisionError: for zero.
        """
        degree = self.field.degree
        columns = [self]
        for _ in range(degree - 1):
            columns.append(columns[-1] * self.field.generator)
        rows = [[c.coefficients[i] for c in columns] + [Fraction(int(i == 0))] for i in range(degree)]
        for i in range(degree):
            pivot = next((k for k in range(i, degree) if rows[k][i]), None)
            if pivot is None:
                raise ZeroDivisionError("the inverse of zero")
            rows[i], rows[pivot] = rows[pivot], rows[i]
            rows[i] = [value / rows[i][i] for value in rows[i]]
            for k in range(degree):
                if k != i and rows[k][i]:
                    rows[k] = [a - rows[k][i] * b for a, b in zip(rows[k], rows[i], strict=True)]
        return Algebraic(self.field, tuple(row[-1] for row in rows))

    def __truediv__(self, other: Operand) -> Algebraic:
        if isinstance(other, int | Fraction):
            return self * (1 / Fraction(other))
        return self * other.inverse()

    def __rtruediv__(self, other: Operand) -> Algebraic:
        return self.inverse() * other

    def __pow__(self, exponent: int) -> Algebraic:
        result = self * 0 + 1
        for _ in range(exponent):
            result = result * self
        return result

    def __bool__(self) -> bool:
        return any(self.coefficients)

    def __eq__(self, other: object) -> bool:
        lifted = self._lift(other)
        return lifted is not None and self.coefficients == lifted.coefficients

    def __hash__(self) -> int:
        rational = not any(self.coefficients[1:])
        return hash(self.coefficients[0] if rational else (self.field.name, self.coefficients))

    def enclosure(self, width: Fraction) -> tuple[Fraction, Fraction]:
        """Return rationals around this number, from an interval of at most ``width`` around α."""
        low, high = self.field.enclosure(width)
        bounds = (Fraction(0), Fraction(0))
        for a in reversed(self.coefficients):
            ends = [x * y for x in bounds for y in (low, high)]
            bounds = (min(ends) + a, max(ends) + a)
        return bounds

    def sign(self) -> int:
        """Return -1, 0 or 1, decided exactly."""
        if not self:
            return 0
        width = Fraction(1, 2**64)
        while True:
            low, high = self.enclosure(width)
            if low > 0 or high < 0:
                return 1 if low > 0 else -1
            width = width * width

    def __lt__(self, other: Operand) -> bool:
        return (self - other).sign() < 0

    def __gt__(self, other: Operand) -> bool:
        return (self - other).sign() > 0

    def __le__(self, other: Operand) -> bool:
        return (self - other).sign() <= 0

    def __ge__(self, other: Operand) -> bool:
        return (self - other).sign() >= 0

    def __abs__(self) -> Algebraic:
        return -self if self.sign() < 0 else self

    def __float__(self) -> float:
        if not self:
            return 0.0
        width = _PRECISION
        while True:
            low, high = self.enclosure(width)
            if float(low) == float(high):
                return float(low)
            if high - low < Fraction(1, 2**200) * max(abs(low), abs(high)):
                return float((low + high) / 2)
            width = width * width

    def __str__(self) -> str:
        powers = ("", self.field.name, *(f"{self.field.name}^{k}" for k in range(2, self.field.degree)))
        terms = [(a, p) for a, p in zip(self.coefficients, powers, strict=True) if a]
        return " + ".join(f"{a}·{p}" if p else str(a) for a, p in terms) or "0"


Number = Fraction | Algebraic
"""What coefficients of methods are made of; no ints, because int / int is a float."""

Operand = int | Fraction | Algebraic


@functools.cache
def square_root(n: int) -> Algebraic:
    """Return √n for an integer n that is not a square."""
    root = math.isqrt(n)
    field = Field(f"√{n}", (Fraction(-n), Fraction(0), Fraction(1)), Fraction(root), Fraction(root + 1))
    return field.generator


def sign(x: Operand) -> int:
    """Return -1, 0 or 1."""
    return x.sign() if isinstance(x, Algebraic) else (x > 0) - (x < 0)


def approximate(x: Operand, digits: int = 60) -> Fraction:
    """Return a rational within a few units of 10^-digits of ``x`` (``x`` itself if it is rational)."""
    if not isinstance(x, Algebraic):
        return Fraction(x)
    low, high = x.enclosure(Fraction(1, 10**digits))
    return (low + high) / 2
