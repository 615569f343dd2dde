"""Polynomials with exact coefficients: roots counted and isolated by Sturm's theorem."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction

from ntangent.ode.algebraic import Number, Operand, approximate, sign

Polynomial = tuple[Number, ...]
"""Coefficients, constant first; the last one is not zero; () is the zero polynomial."""

ZERO, ONE = Fraction(0), Fraction(1)


def trim(p: Sequence[Number]) -> Polynomial:
    """Drop leading zeros."""
    end = len(p)
    while end and not p[end - 1]:
        end -= 1
    return tuple(p[:end])


def degree(p: Polynomial) -> int:
    """Return the degree; -1 for zero."""
    return len(p) - 1


def add(p: Polynomial, q: Polynomial) -> Polynomial:
    """Return p + q."""
    size = max(len(p), len(q))
    padded = zip([*p, *[ZERO] * (size - len(p))], [*q, *[ZERO] * (size - len(q))], strict=True)
    return trim([a + b for a, b in padded])


def scale(p: Polynomial, factor: Operand) -> Polynomial:
    """Return factor · p."""
    return trim([a * factor for a in p])


def multiply(p: Polynomial, q: Polynomial) -> Polynomial:
    """Return p · q."""
    if not p or not q:
        return ()
    product: list[Number] = [ZERO] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        if a:
            for j, b in enumerate(q):
                product[i + j] = product[i + j] + a * b
    return trim(product)


def power(p: Polynomial, exponent: int) -> Polynomial:
    """Return p^exponent."""
    result: Polynomial = (ONE,)
    for _ in range(exponent):
        result = multiply(result, p)
    return result


def differentiate(p: Polynomial) -> Polynomial:
    """Return p'."""
    return trim([a * k for k, a in enumerate(p)][1:])


def evaluate(p: Polynomial, x: Number) -> Number:
    """Return p(x) by Horner's rule."""
    total: Number = ZERO
    for coefficient in reversed(p):
        total = total * x + coefficient
    return total


def divide(p: Polynomial, q: Polynomial) -> tuple[Polynomial, Polynomial]:
    """Return quotient and remainder of p by q."""
    rest = list(p)
    quotient: list[Number] = [ZERO] * max(0, len(p) - len(q) + 1)
    inverse = ONE / q[-1]
    while len(rest) >= len(q):
        factor, shift = rest[-1] * inverse, len(rest) - len(q)
        quotient[shift] = factor
        for i, b in enumerate(q[:-1]):
            rest[shift + i] = rest[shift + i] - factor * b
        rest = list(trim(rest[:-1]))
    return trim(quotient), trim(rest)


def monic(p: Polynomial) -> Polynomial:
    """Return p with leading coefficient 1."""
    return scale(p, ONE / p[-1]) if p else p


def common_divisor(p: Polynomial, q: Polynomial) -> Polynomial:
    """Return the monic greatest common divisor."""
    while q:
        p, q = q, monic(divide(p, q)[1])
    return monic(p)


def squarefree(p: Polynomial) -> Polynomial:
    """Return the polynomial with the roots of p, each once."""
    return divide(p, common_divisor(p, differentiate(p)))[0] if degree(p) > 0 else p


def sturm_chain(p: Polynomial) -> list[Polynomial]:
    """Return the Sturm chain of a squarefree polynomial, scaled by positive factors."""
    chain: list[Polynomial] = [p, differentiate(p)]
    while chain[-1]:
        rest = divide(chain[-2], chain[-1])[1]
        lead = rest[-1] * sign(rest[-1]) if rest else ONE
        chain.append(scale(rest, -ONE / lead))
    return chain[:-1]


def _variations(chain: list[Polynomial], x: Fraction) -> int:
    signs = [s for s in (sign(evaluate(q, x)) for q in chain) if s]
    return sum(a != b for a, b in itertools.pairwise(signs))


def root_bound(p: Polynomial) -> Fraction:
    """Return a power of two larger than the modulus of every root (Cauchy)."""
    largest = max((abs(approximate(a / p[-1], 12)) for a in p[:-1]), default=ZERO)
    bound = Fraction(2)
    while bound <= largest + 2:
        bound *= 2
    return bound


def isolate(p: Polynomial, low: Fraction, high: Fraction) -> list[tuple[Fraction, Fraction]]:
    """Return disjoint intervals, in order, with one root of p in each: all in the open (low, high).

    An interval of length zero is a rational root. ``p`` need not be squarefree.
    """
    p = squarefree(p)
    if degree(p) < 1:
        return []
    for end in (low, high):
        if not evaluate(p, end):
            p = divide(p, (-end, ONE))[0]
    chain = sturm_chain(p)
    found: list[tuple[Fraction, Fraction]] = []
    stack = [(low, high, _variations(chain, low), _variations(chain, high))]
    while stack:
        a, b, at_a, at_b = stack.pop()
        if at_a == at_b:
            continue
        middle = (a + b) / 2
        alone = at_a - at_b == 1 and sign(evaluate(p, a)) * sign(evaluate(p, b)) < 0
        if alone and a != low and b != high:  # the ends of the range may be roots of the given p
            found.append((a, b))
            continue
        if not evaluate(p, middle):
            found.append((middle, middle))
            rest = divide(p, (-middle, ONE))[0]
            found += [i for ends in ((a, middle), (middle, b)) for i in isolate(rest, *ends)]
            continue
        at_middle = _variations(chain, middle)
        stack += [(a, middle, at_a, at_middle), (middle, b, at_middle, at_b)]
    return sorted(found)


def refine(p: Polynomial, interval: tuple[Fraction, Fraction], bits: int = 64) -> Fraction:
    """Return the root in an isolating interval to a relative error of about 2^-bits."""
    p, (low, high) = squarefree(p), interval
    at_low = sign(evaluate(p, low))
    if not at_low and low != high:  # a root that the interval leaves out
        p = divide(p, (-low, ONE))[0]
        at_low = sign(evaluate(p, low))
    while high - low > max(abs(low), abs(high)) / 2**bits:
        middle = (low + high) / 2
        at_middle = sign(evaluate(p, middle))
        if not at_middle:
            return middle
        low, high = (middle, high) if at_middle == at_low else (low, middle)
    return (low + high) / 2


def sign_pieces(
    p: Polynomial, low: Fraction, high: Fraction
) -> list[tuple[tuple[Fraction, Fraction], tuple[Fraction, Fraction], int]]:
    """Cut (low, high) at the roots of p and return (left end, right end, sign of p between) for each.

    Ends are isolating intervals, as :func:`isolate` gives them.
    """
    cuts = [(low, low), *isolate(p, low, high), (high, high)]
    pieces = []
    for left, right in itertools.pairwise(cuts):
        point = (left[1] + right[0]) / 2  # a shared end of two intervals is no root: isolate saw to it
        pieces.append((left, right, sign(evaluate(p, point))))
    return pieces


def nonnegative_on_positive_axis(p: Polynomial) -> bool:
    """Return whether p(x) ≥ 0 for every x ≥ 0; a proof."""
    if not p:
        return True
    if sign(p[-1]) < 0:
        return False
    return all(s >= 0 for _, _, s in sign_pieces(p, ZERO, root_bound(p)))


def is_hurwitz(p: Polynomial) -> bool:
    """Return whether all roots have negative real part (Routh's scheme, exact)."""
    if degree(p) < 1:
        return True
    if sign(p[-1]) < 0:
        p = scale(p, -1)
    if any(sign(a) <= 0 for a in p):
        return False
    upper, lower = list(p[::-1][0::2]), list(p[::-1][1::2])
    while lower:
        if sign(lower[0]) <= 0:
            return False
        factor = upper[0] / lower[0]
        padded = [*lower, *[ZERO] * (len(upper) - len(lower))]
        rest = [u - factor * v for u, v in zip(upper, padded, strict=True)][1:]
        upper, lower = lower, rest
    return True
