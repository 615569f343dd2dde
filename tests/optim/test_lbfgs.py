"""L-BFGS down to round-off, in any units, and how it ends."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import LeastSquares, Linear, drive, fit, net_start, proceed, resumes, rosenbrock, tanh_net
from scipy.optimize import least_squares

from ntangent._base.errors import ArgumentError, ConvergenceError, DtypeError
from ntangent._base.protocols import Stage
from ntangent.optim import LBFGS
from ntangent.optim.lbfgs import two_loop


def badly_scaled(condition, size=20, dtype=torch.float64):
    """A quadratic whose Hessian has the given condition number, in a random basis."""
    generator = torch.Generator().manual_seed(1)
    q, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    scales = torch.logspace(0, math.log10(condition) / 2, size, dtype=torch.float64)
    a = (scales[:, None] * q).to(dtype)
    return a, torch.ones(size, dtype=dtype)


def test_badly_scaled_quadratic_to_round_off():
    a, x = badly_scaled(1e8)
    state = drive(LBFGS(2000), Linear(a, a @ x), torch.zeros(20, dtype=torch.float64))
    assert state.loss < 1e-23 and float((state.theta - x).abs().max()) < 1e-11


@pytest.mark.parametrize("size", [2, 10])
def test_rosenbrock_to_round_off(size):
    start = torch.full((size,), -0.5, dtype=torch.float64)
    state = drive(LBFGS(500), LeastSquares(rosenbrock), start)
    assert state.loss < 1e-28 and float((state.theta - 1).abs().max()) < 1e-13
    assert state.iteration < 150


def test_small_losses_do_not_stop_it_as_they_stop_torch():
    """The reason for this implementation, measured on one problem with its loss multiplied by 1e-12."""
    scale = 1e-6
    objective = LeastSquares(rosenbrock, scale)
    start = torch.full((6,), -0.5, dtype=torch.float64)
    theirs = start.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [theirs],
        max_iter=500,
        history_size=50,
        line_search_fn="strong_wolfe",
        tolerance_grad=0,
        tolerance_change=0,
    )

    def closure():
        loss, gradient = objective.value_and_gradient(theirs.detach())
        theirs.grad = gradient
        return loss

    optimizer.step(closure)
    ours = drive(LBFGS(500), objective, start)
    assert ours.loss < 1e-38
    assert float(objective.value_and_gradient(theirs.detach())[0]) > 1e-15


@pytest.mark.parametrize("scale", [1e-6, 1e-30, 1e20])
def test_units_of_the_loss_do_not_matter(scale):
    start = net_start()
    plain, other = LeastSquares(tanh_net()), LeastSquares(tanh_net(), scale)
    stage = LBFGS(30)
    a, b = stage.begin(plain, start), stage.begin(other, start)
    for _ in range(30):
        a, b = stage.step(plain, a), stage.step(other, b)
        assert float((a.theta - b.theta).abs().max()) < 1e-7
    assert b.loss == pytest.approx(a.loss * scale**2, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(-120, 120))
def test_powers_of_two_change_no_bit(power):
    """Multiplying the residual by a power of two commutes with rounding."""
    start = torch.full((4,), -0.5, dtype=torch.float64)
    plain = drive(LBFGS(40), LeastSquares(rosenbrock), start, 25)
    other = drive(LBFGS(40), LeastSquares(rosenbrock, 2.0**power), start, 25)
    assert torch.equal(plain.theta, other.theta)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_rotations_rotate_the_iterates(seed):
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))
    start = torch.full((4,), -0.5, dtype=torch.float64)
    plain = drive(LBFGS(15), LeastSquares(rosenbrock), start)
    turned = drive(LBFGS(15), LeastSquares(lambda t: rosenbrock(q @ t)), q.T @ start)
    assert float((q @ turned.theta - plain.theta).abs().max()) < 1e-6


def test_two_loop_is_the_dense_formula():
    """Against H from the product form V'HV + ρ s s', built by hand."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    a = a @ a.T + torch.eye(6, dtype=torch.float64)
    s = [torch.randn(6, generator=generator, dtype=torch.float64) for _ in range(4)]
    y = [a @ v for v in s]
    ys = [float(u @ v) for u, v in zip(s, y, strict=True)]
    eye = torch.eye(6, dtype=torch.float64)
    h = eye * ys[-1] / (y[-1] @ y[-1])
    for s_i, y_i, ys_i in zip(s, y, ys, strict=True):
        v = eye - torch.outer(y_i, s_i) / ys_i
        h = v.T @ h @ v + torch.outer(s_i, s_i) / ys_i
    g = torch.randn(6, generator=generator, dtype=torch.float64)
    assert torch.allclose(two_loop(g, s, y, ys), -h @ g, rtol=1e-11)
    assert torch.allclose(two_loop(y[-1], s, y, ys), -s[-1], rtol=1e-10)  # the secant equation


def test_minimum_that_is_not_zero():
    """With noise in the data the loss resolves its minimum to eps, θ to about its square root."""
    residual = fit()
    start = torch.tensor([1.0, 0.5, 1.0, 2.0], dtype=torch.float64)
    theirs = least_squares(
        lambda t: residual(torch.tensor(t)).numpy(), start.numpy(), xtol=1e-15, ftol=1e-15, gtol=1e-15
    )
    state = drive(LBFGS(1000), LeastSquares(residual), start)
    assert "cannot decrease the loss in this precision" in state.stop
    assert state.loss <= 2 * theirs.cost * (1 + 1e-13)
    assert np.allclose(state.theta.numpy(), theirs.x, atol=1e-5)


def test_single_precision():
    state = drive(LBFGS(500), LeastSquares(rosenbrock), torch.full((5,), -0.5))
    assert state.theta.dtype == torch.float32 and state.loss < 1e-11
    small = drive(LBFGS(500), LeastSquares(rosenbrock, 1e-6), torch.full((5,), -0.5))
    assert small.loss < 1e-23


def test_resumes_with_the_same_bits():
    assert resumes(lambda: LBFGS(60, history=5), lambda: LeastSquares(tanh_net()), net_start(), [1, 6, 7, 40])


def test_history_is_bounded_and_states_are_values():
    stage, objective = LBFGS(20, history=3), LeastSquares(tanh_net())
    state = drive(stage, objective, net_start(), 10)
    assert len(state.memory["s"]) == len(state.memory["y"]) == len(state.memory["ys"]) == 3
    before = [v.clone() for v in state.memory["s"]]
    proceed(stage, objective, state)
    assert all(map(torch.equal, before, state.memory["s"]))
    assert objective.values == int(proceed(stage, LeastSquares(tanh_net()), state).info["evaluations"])


def test_stop_reasons():
    objective = LeastSquares(rosenbrock)
    assert drive(LBFGS(5), objective, torch.ones(3)).stop == "the loss is exactly zero"
    bowl = LeastSquares(lambda t: 1 + t * t)
    assert drive(LBFGS(5), bowl, torch.zeros(1)).stop == "the gradient is exactly zero"
    assert drive(LBFGS(3), objective, torch.zeros(3)).stop == "the budget of 3 iterations is used"
    reached = drive(LBFGS(99, tolerance=1e-3), objective, torch.zeros(3))
    assert reached.stop == "the loss reached the tolerance 0.001" and reached.loss <= 1e-3
    assert LBFGS(99).step(objective, reached) is reached
    stuck = drive(LBFGS(99), LeastSquares(lambda t: 1e8 + t), torch.ones(1))
    assert "steepest descent" in stuck.stop or "zero" in stuck.stop


def test_wrong_gradient_ends_in_words():
    """An objective that lies about its gradient cannot be descended; the stage says so."""

    class Uphill(LeastSquares):
        def value_and_gradient(self, theta):
            loss, gradient = super().value_and_gradient(theta)
            return loss, -gradient

    state = drive(LBFGS(50), Uphill(rosenbrock), torch.zeros(3))
    assert "cannot decrease the loss" in state.stop and state.iteration == 0
    assert torch.equal(state.theta, torch.zeros(3))


def test_edge_of_the_domain():
    """sqrt and log are NaN on one side; the search stays on the other."""
    state = drive(
        LBFGS(200), LeastSquares(lambda t: torch.log(t) + t), torch.full((3,), 1e-3, dtype=torch.float64)
    )
    assert torch.allclose(state.theta, torch.full((3,), 0.5671432904097838, dtype=torch.float64), atol=1e-14)
    with pytest.raises(ConvergenceError, match="fix:"):
        LBFGS(1).begin(LeastSquares(torch.log), -torch.ones(2))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"iterations": 0}, ArgumentError, "iterations"),
        ({"history": 0}, ArgumentError, "history"),
        ({"history": 2.5}, DtypeError, "history"),
        ({"lr": math.inf}, ArgumentError, "lr"),
        ({"tolerance": -1e-9}, ArgumentError, "tolerance"),
        ({"armijo": 0.95}, ArgumentError, "armijo"),
        ({"armijo": 0.0}, ArgumentError, "armijo"),
        ({"curvature": 1.0}, ArgumentError, "curvature"),
        ({"curvature": "x"}, DtypeError, "curvature"),
        ({"max_evaluations": 0}, ArgumentError, "max_evaluations"),
    ],
)
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        LBFGS(**({"iterations": 1} | arguments))


def test_contract():
    stage = LBFGS(3, history=7)
    assert isinstance(stage, Stage) and eval(repr(stage)) == stage


def test_restart_forgets_the_pairs():
    """With a memory that leads uphill the step goes along the steepest descent and starts afresh."""
    stage, objective = LBFGS(40), LeastSquares(tanh_net())
    state = drive(stage, objective, net_start(), 8)
    memory = state.memory | {"ys": [-value for value in state.memory["ys"]]}
    after = stage.step(objective, replace(state, memory=memory))
    assert after.info["restarted"] == 1 and after.info["pairs"] == 1 and after.loss < state.loss
    move, gradient = after.theta - state.theta, state.memory["gradient"]
    assert float(move @ gradient / (move.norm() * gradient.norm())) == pytest.approx(-1, abs=1e-12)
