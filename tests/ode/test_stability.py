"""Stability functions against determinants, derivatives and scans in mpmath."""

import cmath
import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntangent._base.errors import DtypeError
from ntangent.ode.algebraic import Algebraic, approximate, square_root
from ntangent.ode.methods import METHODS, AdditiveRungeKutta, Multistep, Rosenbrock, RungeKutta, Taylor, get
from ntangent.ode.methods.sdirk import GAMMA3
from ntangent.ode.polynomial import (
    evaluate,
    is_hurwitz,
    isolate,
    multiply,
    nonnegative_on_positive_axis,
    refine,
    sign_pieces,
)
from ntangent.ode.stability import RationalStability, pade

ROWS = dict(METHODS.items())
TABLEAUX = [n for n, m in ROWS.items() if isinstance(m, RungeKutta | Rosenbrock | AdditiveRungeKutta)]
RATIONAL = [n for n, m in ROWS.items() if isinstance(m.analysis, RationalStability)]
IMPLICIT = [n for n in RATIONAL if ROWS[n].implicit]


def mp(x: Any) -> mpmath.mpf:
    value = approximate(x, 60)
    return mpmath.mpf(value.numerator) / value.denominator


def by_determinants(name: str, z: complex) -> mpmath.mpc:
    """Return det(I - zA + z 1 bᵀ) / det(I - zA)."""
    method = ROWS[name]
    if isinstance(method, Rosenbrock):
        a, b = method.beta, method.b
    else:
        part = method.implicit_part if isinstance(method, AdditiveRungeKutta) else method
        a, b = part.A, part.b
    size, z = len(b), mpmath.mpc(z)
    full = mpmath.eye(size) - z * mpmath.matrix([[mp(x) for x in row] for row in a])
    return mpmath.det(full + z * mpmath.matrix([[mp(x) for x in b]] * size)) / mpmath.det(full)


@pytest.mark.parametrize("name", TABLEAUX)
def test_r_is_the_quotient_of_determinants(name: str) -> None:
    method = ROWS[name]
    with mpmath.workdps(50):
        for z in (-0.3, -10.0, -400.0, 0.5 + 2j, -3 + 40j):
            exact = by_determinants(name, z)
            # Where R vanishes at infinity the published decimals leave R(∞) = 1e-12 at most.
            assert abs(method.stability(complex(z)) - exact) < 1e-13 * abs(exact) + 1e3 * float(
                method.rounding
            )
            slope = mpmath.diff(lambda x: by_determinants(name, x), z)
            assert abs(method.stability_derivative(complex(z)) - slope) < 1e-12 * abs(slope) + 1e3 * float(
                method.rounding
            ) + (1e-11 * float(abs(exact / z)))


@pytest.mark.parametrize("name", [n for n, m in ROWS.items() if isinstance(m, Taylor)])
def test_taylor_methods_are_pade_approximants(name: str) -> None:
    method = ROWS[name]
    with mpmath.workdps(40):
        terms = mpmath.taylor(mpmath.exp, 0, method.order)
        p, q = mpmath.pade(terms, method.numerator, method.denominator)
        for z in (-0.7, -30.0):
            exact = mpmath.polyval(p[::-1], z) / mpmath.polyval(q[::-1], z)
            assert abs(method.stability(z) - exact) < 1e-13 * abs(exact)


# Hairer & Wanner II, IV.3 and IV.5; constants computed by hand from R = r_inf + r_1/z + r_2/z² + ...:
# name: (R(∞), p, C, ends of the intervals with R' < 0).
R2 = math.sqrt(2)
PUBLISHED = {
    "backward_euler": (0, 2, 1, []),
    "trapezoid": (-1, 2, 4, []),
    "implicit_midpoint": (-1, 2, 4, []),
    "lobatto_iiib2": (-1, 2, 4, []),
    "radau_ia2": (0, 2, -2, [(-math.inf, -3 - 3 * math.sqrt(3))]),
    "radau_iia2": (0, 2, -2, [(-math.inf, -3 - 3 * math.sqrt(3))]),
    "radau_ia3": (0, 2, 3, [(-17.729, -4.808)]),
    "radau_iia3": (0, 2, 3, [(-17.729, -4.808)]),
    "gauss2": (1, 2, -12, [(-math.inf, -math.sqrt(12))]),
    "lobatto_iiia3": (1, 2, -12, [(-math.inf, -math.sqrt(12))]),
    "lobatto_iiib3": (1, 2, -12, [(-math.inf, -math.sqrt(12))]),
    "gauss3": (-1, 2, 24, []),
    "lobatto_iiia4": (-1, 2, 24, []),
    "lobatto_iiib4": (-1, 2, 24, []),
    "lobatto_iiic2": (0, 3, -4, []),
    "lobatto_iiic3": (0, 3, 12, [(-math.inf, -7.235)]),
    "lobatto_iiic4": (0, 3, -24, [(-12.279, -6.276)]),
    "sdirk2": (0, 2, -2 - 2 * R2, [(-math.inf, -8.243)]),
    "trbdf2": (0, 2, -2 - 2 * R2, [(-math.inf, -8.243)]),
    "ros2": (0, 2, -2 - 2 * R2, [(-math.inf, -8.243)]),
    "ros2_plus": (0, 2, -2 + 2 * R2, []),
    "sdirk3_crouzeix": (1 - math.sqrt(3), 2, 2.785, []),
    "sdirk3": (0, 2, -2.870, [(-math.inf, -8.335)]),
    "kvaerno3": (0, 2, -2.870, [(-math.inf, -8.335)]),
    "kencarp3": (0, 2, -2.870, [(-math.inf, -8.335)]),
    "sdirk4": (0, 2, 28 / 3, [(-19.057, -3.940)]),
    "kencarp4": (0, 2, 28 / 3, [(-19.057, -3.940)]),
    "kvaerno4": (0, 2, -2.210, [(-math.inf, -8.450)]),
    "kvaerno5": (0, 2, 6.504, [(-18.958, -4.252)]),
    "rodas4": (0, 2, 8.842, [(-19.015, -3.984)]),
    "rodas5p": (0, 2, -12.52, [(-math.inf, -35.738)]),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_decay_and_signs_are_the_published_ones(name: str) -> None:
    method, (limit, p, constant, intervals) = get(name), PUBLISHED[name]
    assert math.isclose(method.at_infinity, limit, abs_tol=1e-15, rel_tol=1e-15)
    assert method.decay_order == p
    assert math.isclose(method.decay_constant, constant, rel_tol=5e-4)
    assert (
        np.allclose(method.wrong_sign_intervals, intervals, atol=6e-4)
        if intervals
        else not method.wrong_sign_intervals
    )


@pytest.mark.parametrize("name", RATIONAL)
def test_decay_by_the_values_far_out(name: str) -> None:
    method = ROWS[name]
    for z in (-1e7, -1e9):
        asymptote = method.decay_constant * z**-method.decay_order
        assert math.isclose(method.stability_derivative(z), asymptote, rel_tol=4e3 / abs(z))


@pytest.mark.parametrize("name", RATIONAL)
def test_wrong_sign_intervals_by_a_scan(name: str) -> None:
    method = ROWS[name]
    z = -torch.logspace(-3, 5, 40001, dtype=torch.float64)
    inside = torch.zeros_like(z, dtype=torch.bool)
    away = torch.ones_like(inside)  # beside an end rounding decides the sign
    for low, high in method.wrong_sign_intervals:
        inside |= (z > low) & (z < high)
        for end in (low, high):
            away &= ((z - end).abs() > 1e-9 * abs(end)) if math.isfinite(end) else away
    assert torch.equal((method.stability_derivative(z) < 0)[away], inside[away])


@pytest.mark.parametrize("name", RATIONAL)
def test_a_stability_by_a_scan_of_the_imaginary_axis_and_the_poles(name: str) -> None:
    method = ROWS[name]
    y = torch.logspace(-3, 6, 20001, dtype=torch.float64)
    bounded = bool((method.stability(1j * y).abs() <= 1 + 1e-12).all())
    poles = np.roots([float(x) for x in method.analysis.denominator[::-1]])
    assert method.is_a_stable == (bounded and bool((poles.real > 0).all()))


@pytest.mark.parametrize("name", [n for n in RATIONAL if ROWS[n].is_a_stable])
def test_schwarz_and_pick(name: str) -> None:
    # |R'(z)| ≤ (1 - |R(z)|²) / (2 |Re z|) for every A-stable method.
    z = -torch.logspace(-2, 4, 1001, dtype=torch.float64)
    for ray in (0.0, 45.0, 80.0):
        at = torch.polar(-z, torch.full_like(z, math.radians(180 - ray)))
        bound = (1 - ROWS[name].stability(at).abs() ** 2) / (2 * at.real.abs())
        assert bool((ROWS[name].stability_derivative(at).abs() <= bound * (1 + 1e-9) + 1e-13).all())


def test_ehles_conjecture() -> None:
    # (k, l) is A-stable exactly for l - 2 ≤ k ≤ l.
    for k in range(6):
        for m in range(6):
            if k + m:
                assert pade(k, m).a_stable == (m - 2 <= k <= m), (k, m)


def test_equal_stability_functions_are_equal_exactly() -> None:
    groups = (
        ("gauss2", "lobatto_iiia3", "lobatto_iiib3", "pade2_2"),
        ("radau_ia3", "radau_iia3", "pade2_3"),
        ("sdirk2", "trbdf2", "ros2"),
        ("sdirk3", "kvaerno3"),
        ("sdirk4", "kencarp4"),
        ("lobatto_iiic4", "pade2_4"),
    )
    for first, *others in groups:
        for other in others:
            a, b = ROWS[first].analysis, ROWS[other].analysis
            assert (a.numerator, a.denominator) == (b.numerator, b.denominator), (first, other)


# Backward differentiation.


def test_bdf_roots_by_mpmath() -> None:
    for k in range(1, 7):
        method = get(f"bdf{k}")
        assert isinstance(method, Multistep)
        for z in (-0.05, -3.0, -1e4, -2 + 5j):
            alpha = [mp(a) for a in method.alpha]
            with mpmath.workdps(30):
                roots = mpmath.polyroots([alpha[0] - z, *alpha[1:]], maxsteps=500, extraprec=200)
            largest = max(abs(root) for root in roots)
            value = complex(method.stability(complex(z)))
            assert math.isclose(abs(value), largest, rel_tol=1e-12)
            assert min(abs(value - root) for root in roots) < 1e-12 * largest
            step = 1e-6 * abs(z)
            difference = (method.stability(z + step + 0j) - method.stability(z - step + 0j)) / (2 * step)
            assert cmath.isclose(method.stability_derivative(complex(z)), difference, rel_tol=1e-6)


def test_bdf_stability() -> None:
    # Hairer & Wanner II, V.2: angles of A(α)-stability.
    angles = [90, 90, 86.03, 73.35, 51.84, 17.84]
    assert np.allclose([get(f"bdf{k}").sector for k in range(1, 7)], angles, atol=6e-3)
    assert [get(f"bdf{k}").is_a_stable for k in range(1, 7)] == [True, True, False, False, False, False]
    for k in range(1, 7):
        method, z = get(f"bdf{k}"), -1e12
        assert math.isclose(
            abs(method.stability_derivative(z)) / abs(z) ** -method.decay_order,
            method.decay_constant,
            rel_tol=0.02,
        )


def test_bdf1_is_backward_euler() -> None:
    z = -torch.logspace(-3, 3, 50, dtype=torch.float64)
    assert torch.allclose(get("bdf1").stability(z), get("backward_euler").stability(z), rtol=1e-14)
    assert torch.allclose(
        get("bdf1").stability_derivative(z), get("backward_euler").stability_derivative(z), rtol=1e-13
    )


def test_exponential_methods_are_exact_on_linear_problems() -> None:
    for name in ("etd1", "integrating_factor_euler", "exponential_rosenbrock_euler", "exprb32"):
        method = get(name)
        assert method.stability(-2.0) == method.stability_derivative(-2.0) == math.exp(-2)
        assert method.decay_order == math.inf and method.is_l_stable


# What comes in comes out.


def test_kinds_of_arguments() -> None:
    method = get("radau5")
    assert isinstance(method.stability(-1.0), float) and isinstance(method.stability(-1 + 1j), complex)
    array = np.array([[-1.0, -2.0]])
    assert method.stability(array).shape == (1, 2) and isinstance(
        method.stability(np.float64(-1)), np.float64
    )
    tensor = torch.tensor([-1.0, -2e30])
    assert method.stability(tensor).dtype == torch.float32 and bool(
        torch.isfinite(method.stability(tensor)).all()
    )
    assert method.stability_derivative(-1e200) == 0.0 or abs(method.stability_derivative(-1e200)) < 1e-300
    with pytest.raises(DtypeError):
        method.stability("z")
    with pytest.raises(DtypeError):
        method.stability(np.array(["z"]))


# The exact arithmetic beneath.

fractions = st.fractions(min_value=-9, max_value=9, max_denominator=20)


@settings(max_examples=60, deadline=None)
@given(st.lists(fractions, min_size=3, max_size=3), st.lists(fractions, min_size=3, max_size=3))
def test_number_field_is_a_field(first: list[Fraction], second: list[Fraction]) -> None:
    g = GAMMA3
    x, y = (Algebraic(g.field, tuple(c)) for c in (first, second))
    with mpmath.workdps(50):
        for exact, other in (
            (x + y, mp(x) + mp(y)),
            (x * y, mp(x) * mp(y)),
            (x - 3, mp(x) - 3),
            (x**3, mp(x) ** 3),
        ):
            assert abs(mp(exact) - other) < mpmath.mpf(10) ** -40 * (1 + abs(other))
    assert (x > y) == (float(x - y) > 0)
    if y:
        assert x / y * y == x and (1 / y) * y == 1
        assert hash(y - y + 2) == hash(Fraction(2))


def test_a_nearly_zero_number_has_the_right_sign() -> None:
    root = square_root(2)
    close = Fraction(math.isqrt(2 * 10**120), 10**60)  # below √2 by less than 1e-60
    assert root > close and not root < close and root - close != 0
    assert (root * root - 2).sign() == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(fractions, min_size=1, max_size=5))
def test_roots_are_found_and_isolated(roots: list[Fraction]) -> None:
    p: Any = (Fraction(1),)
    for root in roots:
        p = multiply(p, (-root, Fraction(1)))
    low, high = Fraction(-10), Fraction(10)
    found = [refine(p, interval) for interval in isolate(p, low, high)]
    assert np.allclose([float(x) for x in found], sorted({float(r) for r in roots}), atol=1e-12)
    for left, right, sign in sign_pieces(p, low, high):
        middle = (refine(p, left) + refine(p, right)) / 2 if left != right else left[0]
        if left[0] not in (low,) and right[1] not in (high,):
            value = evaluate(p, middle)
            assert (value > 0) - (value < 0) == sign
    assert nonnegative_on_positive_axis(multiply(p, p))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-5, 5).filter(lambda x: abs(x) > 0.05), min_size=1, max_size=3), fractions)
def test_routh_finds_the_half_plane(real: list[float], imaginary: Fraction) -> None:
    p: Any = (Fraction(1),)
    for x in real:
        p = multiply(p, (-Fraction(x), Fraction(1)))
    a = Fraction(real[0])
    p = multiply(p, (a * a + imaginary * imaginary, -2 * a, Fraction(1)))
    assert is_hurwitz(p) == all(x < 0 for x in real)
