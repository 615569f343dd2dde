"""The line search against the Wolfe conditions and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import line_search as scipy_line_search

from ntangent._base.errors import ArgumentError
from ntangent.optim import LineSearchResult, strong_wolfe


def conditions(f, df, result, armijo=1e-4, curvature=0.9):
    t = result.step
    return f(t) <= f(0) + armijo * t * df(0) and abs(df(t)) <= curvature * abs(df(0))


def wave(a, b, c):
    """A smooth function with many minima, bounded below, of negative slope at 0."""

    def f(t):
        return (t - a) ** 2 + b * math.cos(c * t) - b

    def df(t):
        return 2 * (t - a) - b * c * math.sin(c * t)

    return f, df


@settings(max_examples=200, deadline=None)
@given(
    st.floats(1e-3, 1e3),
    st.floats(0, 2),
    st.floats(0.1, 10),
    st.floats(1e-6, 1e6),
    st.sampled_from([0.1, 0.5, 0.9]),
)
def test_both_conditions_hold(a, b, c, step, curvature):
    f, df = wave(a, b, c)
    result = strong_wolfe(
        lambda t: (f(t), df(t), t), f(0), df(0), step, curvature=curvature, max_evaluations=80
    )
    assert result.outcome == "wolfe", result
    assert conditions(f, df, result, curvature=curvature)
    assert result.payload == result.step and result.value == f(result.step) < f(0)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(1e-2, 1e2), st.floats(0, 2), st.floats(0.1, 5), st.integers(-300, 300), st.integers(-200, 200)
)
def test_units_of_value_and_step_do_not_matter(a, b, c, power, stretch):
    """Scaling both axes by powers of two gives the same search, bit for bit."""
    f, df = wave(a, b, c)
    scale, unit = 2.0**power, 2.0**stretch
    plain = strong_wolfe(lambda t: (f(t), df(t), None), f(0), df(0), 1.0)
    other = strong_wolfe(
        lambda t: (scale * f(t / unit), scale / unit * df(t / unit), None),
        scale * f(0),
        scale / unit * df(0),
        unit,
    )
    assert (other.step / unit, other.evaluations, other.outcome) == (
        plain.step,
        plain.evaluations,
        plain.outcome,
    )


@pytest.mark.parametrize("start", [(-1.2, 1.0), (0.0, 3.0), (0.5, -1.0)])
def test_agrees_with_scipy(start):
    """Where scipy finds a strong-Wolfe step of Rosenbrock's function, so do we, of like quality."""

    def f(x):
        return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2

    def g(x):
        return np.array([-400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0]), 200 * (x[1] - x[0] ** 2)])

    x = np.array(start)
    d = -g(x) / np.linalg.norm(g(x))
    tight = 0.01
    theirs = scipy_line_search(f, g, x, d, c2=tight, maxiter=50)[0]
    ours = strong_wolfe(
        lambda t: (f(x + t * d), g(x + t * d) @ d, None),
        f(x),
        g(x) @ d,
        1.0,
        curvature=tight,
        max_evaluations=50,
    )
    assert theirs is not None and ours.outcome == "wolfe"
    assert conditions(lambda t: f(x + t * d), lambda t: g(x + t * d) @ d, ours, curvature=tight)
    # With so tight a slope both are at a minimum along the line; there may be two.
    assert ours.value <= f(x + theirs * d) * 1.01 or ours.step == pytest.approx(theirs, rel=0.05)


@pytest.mark.parametrize("step", [1e-8, 0.5, 1.0, 30.0, 1e8])
def test_quadratic_needs_few_evaluations(step):
    result = strong_wolfe(
        lambda t: ((t - 1) ** 2, 2 * (t - 1), None), 1.0, -2.0, step, curvature=0.1, max_evaluations=40
    )
    assert result.outcome == "wolfe" and abs(result.step - 1) <= 0.1
    assert result.evaluations <= 14


def test_domain_with_an_edge():
    """NaN and infinity count as too long a step."""
    for bad in (math.nan, math.inf):

        def phi(t, bad=bad):
            return (bad, bad, None) if t > 1e-3 else ((t - 5e-4) ** 2, 2 * (t - 5e-4), None)

        result = strong_wolfe(phi, 25e-8, -1e-3, 1.0)
        assert result.outcome == "wolfe" and 0 < result.step < 1e-3


def test_ends_are_told_apart():
    increasing = strong_wolfe(lambda t: (1 + t, 1.0, None), 1.0, -1.0)
    assert increasing.outcome == "failure" and increasing.payload is None and increasing.step == 0
    assert "no step lowers" in increasing.reason
    falling = strong_wolfe(lambda t: (-t, -1.0, "p"), 0.0, -1.0, max_evaluations=5)
    assert falling.outcome == "decrease" and falling.evaluations == 5 and falling.payload == "p"
    assert "did not bracket" in falling.reason
    constant = strong_wolfe(lambda t: (1.0, 0.0, None), 1.0, -1e-30)
    assert constant.outcome == "failure"  # a decrease that rounds to nothing is not a decrease
    kink = strong_wolfe(
        lambda t: (abs(t - 1), math.copysign(1, t - 1), None), 1.0, -1.0, 0.3, max_evaluations=99
    )
    assert kink.outcome == "decrease" and kink.value < 1e-3
    assert isinstance(kink, LineSearchResult)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"slope": 1.0}, "negative slope"),
        ({"slope": 0.0}, "negative slope"),
        ({"value": math.nan}, "finite value"),
        ({"step": 0.0}, "step"),
        ({"armijo": 0.9, "curvature": 0.1}, "together"),
        ({"max_evaluations": 0}, "max_evaluations"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        strong_wolfe(**({"phi": lambda t: (t, 1.0, None), "value": 1.0, "slope": -1.0} | arguments))


def test_lopsided_kink_is_bisected():
    """Where interpolation creeps along one end, bisection keeps the bracket shrinking."""

    def phi(t):
        return (1 - t, -1.0, None) if t < 1 else (1e6 * (t - 1), 1e6, None)

    result = strong_wolfe(phi, 1.0, -1.0, 0.3, curvature=0.5, max_evaluations=30)
    assert result.outcome == "decrease" and abs(result.step - 1) < 1e-7
