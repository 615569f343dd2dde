"""Singly diagonally implicit methods, and the one-step form of TR-BDF2."""

from __future__ import annotations

from fractions import Fraction

from ntangent.ode.algebraic import Field, Number, square_root
from ntangent.ode.methods.base import RungeKutta, matrix, vector
from ntangent.ode.methods.catalogue import add
from ntangent.ode.methods.explicit import hermite

HW = "Hairer & Wanner, Solving ODEs II, IV.6"
R2, R3 = square_root(2), square_root(3)
HALF, ONE = Fraction(1, 2), Fraction(1)

# The root near 0.43587 of x³ - 3x² + 3x/2 - 1/6: R(∞) = 0 at order 3.
GAMMA3 = Field(
    "γ", (Fraction(-1, 6), Fraction(3, 2), Fraction(-3), ONE), Fraction(2, 5), Fraction(1, 2)
).generator


def _sdirk2() -> RungeKutta:
    g = 1 - R2 / 2
    return RungeKutta(
        name="sdirk2",
        family="SDIRK",
        source="Alexander, SIAM J. Numer. Anal. 14 (1977) 1006; embedded: the first stage alone",
        order=2,
        embedded_order=1,
        A=matrix([[g], [1 - g, g]]),
        b=(1 - g, g),
        b_error=vector([1, 0]),
    )


def _crouzeix3() -> RungeKutta:
    g = HALF + R3 / 6
    return RungeKutta(
        name="sdirk3_crouzeix",
        family="SDIRK",
        source="Crouzeix 1975; Nørsett 1974",
        order=3,
        aliases=("crouzeix3",),
        A=matrix([[g], [1 - 2 * g, g]]),
        b=vector(["1/2", "1/2"]),
    )


def _alexander3() -> RungeKutta:
    g = GAMMA3
    b1: Number = -(6 * g * g - 16 * g + 1) / 4
    b2: Number = (6 * g * g - 20 * g + 5) / 4
    lower = (HALF - g) / ((1 - g) / 2)
    return RungeKutta(
        name="sdirk3",
        family="SDIRK",
        source="Alexander, SIAM J. Numer. Anal. 14 (1977) 1006; embedded: order 2 by the first two stages",
        order=3,
        embedded_order=2,
        aliases=("alexander3",),
        A=matrix([[g], [(1 - g) / 2, g], [b1, b2, g]]),
        b=(b1, b2, g),
        b_error=(1 - lower, lower, Fraction(0)),
    )


def _sdirk4() -> RungeKutta:
    last = ["25/24", "-49/48", "125/16", "-85/12", "1/4"]
    rows = [
        ["1/4"],
        ["1/2", "1/4"],
        ["17/50", "-1/25", "1/4"],
        ["371/1360", "-137/2720", "15/544", "1/4"],
        last,
    ]
    return RungeKutta(
        name="sdirk4",
        family="SDIRK",
        source=f"{HW}, (6.16)",
        order=4,
        embedded_order=3,
        A=matrix(rows),
        b=vector(last),
        b_error=vector(["59/48", "-17/96", "225/32", "-85/12", 0]),
    )


def _trbdf2() -> RungeKutta:
    g, w = 1 - R2 / 2, R2 / 4
    b = (w, w, g)
    return RungeKutta(
        name="trbdf2",
        family="ESDIRK",
        source="Bank et al., IEEE Trans. CAD 4 (1985) 436; Hosea & Shampine, Appl. Numer. Math. 20 (1996) 21",
        order=2,
        embedded_order=3,
        A=matrix([[0], [g, g], [w, w, g]]),
        b=b,
        b_error=((1 - w) / 3, (3 * w + 1) / 3, g / 3),
        dense=hermite(b),
        dense_order=2,
    )


SDIRK2, CROUZEIX3, SDIRK3, SDIRK4, TRBDF2 = map(
    add, (_sdirk2(), _crouzeix3(), _alexander3(), _sdirk4(), _trbdf2())
)
