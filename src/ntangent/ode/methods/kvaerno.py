"""Kværnø's ESDIRK methods: the solution and its embedded companion are the last two stages."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from ntangent.ode.algebraic import Algebraic, Field
from ntangent.ode.methods.base import Entry, RungeKutta, matrix
from ntangent.ode.methods.catalogue import add
from ntangent.ode.methods.explicit import hermite
from ntangent.ode.methods.sdirk import GAMMA3

SOURCE = "Kværnø, BIT 44 (2004) 489"

# The root near 0.57282 of x⁴ - 4x³ + 3x² - 2x/3 + 1/24: R(∞) = 0 at order 4.
GAMMA4 = Field(
    "γ",
    (Fraction(1, 24), Fraction(-2, 3), Fraction(3), Fraction(-4), Fraction(1)),
    Fraction(1, 2),
    Fraction(3, 5),
).generator


def _kvaerno(order: int, rows: Sequence[Sequence[Entry]], rounding: Fraction = Fraction(0)) -> RungeKutta:
    a = matrix(rows)
    return RungeKutta(
        name=f"kvaerno{order}",
        family="ESDIRK",
        source=SOURCE,
        order=order,
        embedded_order=order - 1,
        rounding=rounding,
        A=a,
        b=a[-1],
        b_error=a[-2],
        dense=hermite(a[-1]),
        dense_order=3,
    )


def _rows3(g: Algebraic) -> list[list[Entry]]:
    return [
        [0],
        [g, g],
        [(-4 * g**2 + 6 * g - 1) / (4 * g), (1 - 2 * g) / (4 * g), g],
        [(6 * g - 1) / (12 * g), -1 / ((24 * g - 12) * g), (-6 * g**2 + 6 * g - 1) / (6 * g - 3), g],
    ]


def _rows4(g: Algebraic) -> list[list[Entry]]:
    def p(*coefficients: int) -> Algebraic:
        total = g * 0
        for coefficient in coefficients:
            total = total * g + coefficient
        return total

    u, v, w = p(12, -6, 1), p(12, -9, 2), p(3, -1)
    return [
        [0],
        [g, g],
        [p(144, -180, 81, -15, 1) * g / u**2, p(-36, 39, -15, 2) * g / u**2, g],
        [
            p(-144, 396, -330, 117, -18, 1) / (12 * g**2 * v),
            p(72, -126, 69, -15, 1) / (12 * g**2 * w),
            p(-6, 6, -1) * u**2 / (12 * g**2 * v * w),
            g,
        ],
        [
            p(288, -312, 120, -18, 1) / (48 * g**2 * v),
            p(24, -12, 1) / (48 * g**2 * w),
            -(u**3) / (48 * g**2 * w * v * p(6, -6, 1)),
            p(-24, 36, -12, 1) / p(24, -24, 4),
            g,
        ],
    ]


_ROWS5: list[list[Entry]] = [
    [0],
    ["0.26", "0.26"],
    ["0.13", "0.84033320996790809", "0.26"],
    ["0.22371961478320505", "0.47675532319799699", "-0.06470895363112615", "0.26"],
    ["0.16648564323248321", "0.10450018841591720", "0.03631482272098715", "-0.13090704451073998", "0.26"],
    ["0.13855640231268224", 0, "-0.04245337201752043", "0.02446657898003141", "0.61943039072480676", "0.26"],
    ["0.13659751177640291", 0, "-0.05496908796538376", "-0.04118626728321046", "0.62993304899016403",
     "0.06962479448202728", "0.26"],
]  # fmt: skip

KVAERNO3 = add(_kvaerno(3, _rows3(GAMMA3)))
KVAERNO4 = add(_kvaerno(4, _rows4(GAMMA4)))
KVAERNO5 = add(_kvaerno(5, _ROWS5, Fraction(1, 10**15)))
