"""The reference solvers: against each other, closed forms and their own equations."""

import numpy as np
import pytest
from scipy import integrate

from ntangent._base.errors import ArgumentError, ConvergenceError, ShapeError
from ntangent.problems.reference import cavity, cole_hopf, solve_periodic, trajectory

RNG = np.random.default_rng(0)


def test_cole_hopf_agrees_with_adaptive_quadrature():
    nu = 0.05
    for x, t in ((0.3, 0.4), (-0.7, 1.0), (0.05, 0.02)):
        width = 2 * np.sqrt(nu * t)

        def weight(s, x=x, width=width):
            y = x - width * s
            return np.exp((1 - np.cos(np.pi * y)) / (2 * np.pi * nu) - 1 / (np.pi * nu) - s**2), y

        top = integrate.quad(
            lambda s, w=weight: np.sin(np.pi * w(s)[1]) * w(s)[0], -8, 8, epsabs=0, epsrel=1e-12, limit=500
        )[0]
        bottom = integrate.quad(lambda s, w=weight: w(s)[0], -8, 8, epsabs=0, epsrel=1e-12, limit=500)[0]
        assert cole_hopf(np.array([x]), np.array([t]), nu)[0] == pytest.approx(-top / bottom, abs=1e-11)


def test_cole_hopf_starts_at_the_initial_state_and_does_not_depend_on_its_nodes():
    x = np.linspace(-1, 1, 101)
    np.testing.assert_allclose(cole_hopf(x, 0 * x, 0.01), -np.sin(np.pi * x), atol=1e-15)
    for t in (1e-4, 0.3, 1.0):
        coarse = cole_hopf(x, np.full_like(x, t), 0.01 / np.pi)
        np.testing.assert_allclose(coarse, cole_hopf(x, np.full_like(x, t), 0.01 / np.pi, 2000), atol=1e-14)


def test_the_periodic_solver_agrees_with_cole_hopf():
    nu = 0.05
    solution = solve_periodic(
        lambda x: -np.sin(np.pi * x),
        lambda k: -nu * k**2,
        lambda u: u**2 / 2,
        (-1.0, 1.0, 1.0),
        points=256,
        steps=2000,
        frames=100,
        flux=True,
    )
    x, t = RNG.uniform(-1, 1, 300), RNG.uniform(0.05, 1, 300)
    np.testing.assert_allclose(solution(x, t), cole_hopf(x, t, nu), atol=1e-10)
    h = 1e-4
    slope = (cole_hopf(x + h, t, nu) - cole_hopf(x - h, t, nu)) / (2 * h)
    np.testing.assert_allclose(solution(x, t, derivative=1), slope, atol=1e-5)


def test_the_periodic_solver_is_of_order_four_in_time():
    x, t = np.linspace(-1, 1, 50), np.full(50, 0.5)

    def kdv(steps):
        return solve_periodic(
            lambda x: np.cos(np.pi * x),
            lambda k: 0.0025j * k**3,
            lambda u: u**2 / 2,
            (-1.0, 1.0, 0.5),
            points=128,
            steps=steps,
            frames=10,
            flux=True,
        )(x, t)

    errors = [np.abs(kdv(n) - kdv(6400)).max() for n in (200, 400, 800)]
    assert 10 < errors[0] / errors[1] < 24
    assert 10 < errors[1] / errors[2] < 24


def test_a_linear_equation_is_solved_exactly():
    # u_t = u_xxx - u with a kinked start: every mode turns and decays by itself.
    solution = solve_periodic(
        np.abs,
        lambda k: (1j * k) ** 3 - 1,
        np.zeros_like,
        (-np.pi, np.pi, 1.0),
        points=64,
        steps=10,
        frames=10,
    )
    n = np.arange(1, 32, 2)
    x = RNG.uniform(-np.pi, np.pi, 20)
    expected = np.exp(-1) * (np.pi / 2 - (4 / np.pi / n**2 * np.cos(n * x[:, None] - n**3)).sum(1))
    np.testing.assert_allclose(solution(x, np.ones(20)), expected, atol=1e-10)


def test_the_periodic_solver_says_what_is_wrong():
    def solve(initial=np.sin, steps=20, frames=10):
        return solve_periodic(
            initial,
            lambda k: -(k**2),
            lambda u: u**3,
            (0.0, 2 * np.pi, 1.0),
            points=32,
            steps=steps,
            frames=frames,
        )

    with pytest.raises(ArgumentError, match="multiple of frames"):
        solve(steps=25)
    with np.errstate(all="ignore"), pytest.raises(ConvergenceError, match="non-finite"):
        solve(lambda x: 100 * np.sin(x))
    solution = solve()
    with pytest.raises(ArgumentError, match=r"times reach"):
        solution(np.zeros(2), np.array([0.5, 1.5]))
    with pytest.raises(ShapeError, match="points have shape"):
        solution(np.zeros((2, 2)), np.zeros((2, 2)))


def test_the_cavity_satisfies_its_equation_and_its_walls():
    x, y = RNG.uniform(0.2, 0.8, (2, 100))

    def d(i, j):
        return cavity(x, y, 0.02, (i, j), count=24)

    residual = d(0, 1) * (d(3, 0) + d(1, 2)) - d(1, 0) * (d(2, 1) + d(0, 3))
    residual -= 0.02 * (d(4, 0) + 2 * d(2, 2) + d(0, 4))
    assert np.abs(residual).max() < 1e-4 * np.abs(d(2, 2)).max()
    np.testing.assert_allclose(d(0, 0), cavity(x, y, 0.02, count=30), atol=1e-8)
    s = np.linspace(0, 1, 21)
    for wall in ((s, 0 * s), (0 * s, s), (0 * s + 1, s), (s, 0 * s + 1)):
        assert np.abs(cavity(*wall, 0.02, count=24)).max() < 1e-14
    np.testing.assert_allclose(cavity(s, 0 * s + 1, 0.02, (0, 1), 24), 16 * s**2 * (1 - s) ** 2, atol=1e-12)
    for wall, order in (((s, 0 * s), (0, 1)), ((0 * s, s), (1, 0)), ((0 * s + 1, s), (1, 0))):
        assert np.abs(cavity(*wall, 0.02, order, 24)).max() < 1e-12


def test_the_cavity_without_inertia_is_the_stokes_flow():
    # For ν → ∞ the flow is symmetric about x = 1/2.
    x, y = RNG.uniform(0, 1, (2, 50))
    np.testing.assert_allclose(cavity(x, y, 1e6, count=20), cavity(1 - x, y, 1e6, count=20), atol=1e-9)


def test_a_trajectory_comes_back_in_the_order_of_its_times():
    t = np.array([0.7, 0.0, 0.3, 0.3])
    y = trajectory(lambda _, y: np.array([y[1], -y[0]]), np.array([0.0, 1.0]), t)
    np.testing.assert_allclose(y, np.stack([np.sin(t), np.cos(t)], 1), atol=1e-12)
    with pytest.raises(ConvergenceError):
        trajectory(lambda _, y: y**2, np.array([1.0]), np.array([2.0]))
