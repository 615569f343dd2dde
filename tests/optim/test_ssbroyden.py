"""The self-scaled quasi-Newton stages: their update formula, their laws, and how they end."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import LeastSquares, Linear, drive, net_start, resumes, rosenbrock, same_bits, tanh_net

from ntangent._base.errors import ArgumentError, ConvergenceError, DtypeError
from ntangent._base.protocols import Stage
from ntangent.optim import LBFGS, SSBFGS, SSBroyden

BOTH = pytest.mark.parametrize("kind", [SSBFGS, SSBroyden])


def reference(method, h_matrix, s, y, g, alpha, first):
    """The update written as in the paper: formulas with all quantities from matrices."""
    n = len(s)
    ys = y @ s
    hy = h_matrix @ y
    h, b = (y @ hy) / ys, (s @ torch.linalg.solve(h_matrix, s)) / ys
    assert float(b) == pytest.approx(float(-alpha * (s @ g) / ys), rel=1e-6)
    a = b * h - 1
    if method is SSBFGS:
        phi, tau = 1.0, h if first else min(1.0, 1 / b)
    else:
        low = min(1.0, h * (1 - torch.sqrt(a / (1 + a))))
        theta = max((low - 1) / a, min(1 / low, (1 - b) / b))
        phi, sigma = (1 - theta) / (1 + a * theta), 1 + theta * a
        if first:
            tau = h / sigma
        elif theta <= 0:
            tau = min(min(1.0, 1 / b) * sigma ** (-1 / (n - 1)), sigma)
        else:
            tau = min(1.0, 1 / b) * min(sigma ** (-1 / (n - 1)), 1 / theta)
    v = torch.sqrt(y @ hy) * (s / ys - hy / (y @ hy))
    core = h_matrix - torch.outer(hy, hy) / (y @ hy) + phi * torch.outer(v, v)
    return core / tau + torch.outer(s, s) / ys


@BOTH
def test_updates_are_those_of_the_paper(kind):
    stage, objective = kind(30), LeastSquares(rosenbrock)
    state = stage.begin(objective, torch.tensor([-1.2, 1.0, 0.3, 0.7], dtype=torch.float64))
    for _ in range(20):
        old, state = state, stage.step(objective, state)
        h = old.memory["inverse"]
        first = h is None
        g = old.memory["gradient"]
        s, y = state.theta - old.theta, state.memory["gradient"] - g
        start = 2 * old.loss / (g @ g) * torch.eye(4, dtype=torch.float64)
        expected = reference(kind, start if first else h, s, y, g, state.info["step"], first)
        got = state.memory["inverse"]
        assert torch.allclose(got, expected, rtol=1e-6, atol=1e-8 * float(expected.abs().max()))
        assert torch.equal(got, got.T)
        assert torch.allclose(got @ y, s, rtol=1e-6, atol=1e-8 * float(s.abs().max()))  # secant equation
        assert float(torch.linalg.eigvalsh(got)[0]) > 0


@settings(max_examples=200, deadline=None)
@given(st.floats(-12, 12), st.floats(-12, 16), st.integers(1, 5000), st.booleans())
def test_weights_keep_the_matrix_positive_definite(log_b, log_product, size, first):
    """τ > 0 and φ above the value at which the Broyden family turns singular, 1 / (1 - b·h)."""
    b = 10.0**log_b
    h = (1 + 10.0**log_product) / b
    for stage in (SSBFGS(1), SSBroyden(1)):
        tau, phi = stage.weights(b, h, size, first)
        assert math.isfinite(tau) and tau > 0 and math.isfinite(phi)
        assert phi > 1 / (1 - b * h) * (1 + 1e-9) or b * h - 1 < 1e-9


@BOTH
@pytest.mark.parametrize("size", [1, 2, 10])
def test_rosenbrock_or_quadratic_to_round_off(kind, size):
    residual = rosenbrock if size > 1 else (lambda t: torch.cat([3 * (t - 2), (t - 2) ** 2]))
    state = drive(kind(500), LeastSquares(residual), torch.full((size,), -0.5, dtype=torch.float64))
    assert state.loss < 1e-26 and state.iteration < 150


@BOTH
def test_badly_scaled_quadratic_to_round_off(kind):
    generator = torch.Generator().manual_seed(1)
    q, _ = torch.linalg.qr(torch.randn(20, 20, generator=generator, dtype=torch.float64))
    a = torch.logspace(0, 4, 20, dtype=torch.float64)[:, None] * q
    x = torch.ones(20, dtype=torch.float64)
    state = drive(kind(2000), Linear(a, a @ x), torch.zeros(20, dtype=torch.float64))
    assert state.loss < 1e-23 and float((state.theta - x).abs().max()) < 1e-11


@BOTH
@pytest.mark.parametrize("scale", [1e-6, 1e-30, 1e20])
def test_units_of_the_loss_do_not_matter(kind, scale):
    plain, other = LeastSquares(tanh_net()), LeastSquares(tanh_net(), scale)
    stage = kind(25)
    a, b = drive(stage, plain, net_start()), drive(stage, other, net_start())
    assert float((a.theta - b.theta).abs().max()) < 1e-6
    assert b.loss == pytest.approx(a.loss * scale**2, rel=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_they_go_deeper_than_lbfgs(seed):
    """On a small network with the same number of iterations; the reason for their existence.

    The gain varies: 6 to 30 000 times over five networks of 24 and 36 parameters.
    """
    losses = {
        kind: drive(kind(1500), LeastSquares(tanh_net(width=12)), net_start(12, seed)).loss
        for kind in (LBFGS, SSBFGS, SSBroyden)
    }
    assert losses[SSBFGS] < 0.1 * losses[LBFGS] and losses[SSBroyden] < 0.1 * losses[LBFGS]


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_resumes_with_the_same_bits(kind, dtype):
    assert resumes(
        lambda: kind(50), lambda: LeastSquares(tanh_net(dtype)), net_start(dtype=dtype), [1, 2, 9, 30]
    )


@BOTH
def test_states_are_values(kind):
    stage, objective = kind(20), LeastSquares(tanh_net())
    state = drive(stage, objective, net_start(), 5)
    before = state.memory["inverse"].clone()
    a, b = stage.step(objective, state), stage.step(objective, state)
    assert torch.equal(state.memory["inverse"], before) and same_bits(asdict(a), asdict(b))


@BOTH
def test_stop_reasons(kind):
    objective = LeastSquares(rosenbrock)
    assert drive(kind(5), objective, torch.ones(3)).stop == "the loss is exactly zero"
    assert (
        drive(kind(5), LeastSquares(lambda t: 1 + t * t), torch.zeros(1)).stop
        == "the gradient is exactly zero"
    )
    assert drive(kind(3), objective, torch.zeros(3)).stop == "the budget of 3 iterations is used"
    reached = drive(kind(99, tolerance=1e-3), objective, torch.zeros(3))
    assert reached.stop == "the loss reached the tolerance 0.001"
    assert kind(99).step(objective, reached) is reached
    noisy = Linear(torch.ones(3, 1), torch.arange(3.0))
    assert "cannot decrease the loss in this precision" in drive(kind(99), noisy, torch.full((1,), 0.3)).stop
    with pytest.raises(ConvergenceError, match="fix:"):
        kind(1).begin(LeastSquares(torch.log), -torch.ones(2))


@BOTH
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"iterations": 0}, ArgumentError, "iterations"),
        ({"lr": 0.0}, ArgumentError, "lr"),
        ({"tolerance": "0"}, DtypeError, "tolerance"),
        ({"armijo": 0.95}, ArgumentError, "armijo"),
        ({"max_evaluations": 0}, ArgumentError, "max_evaluations"),
    ],
)
def test_bad_arguments(kind, arguments, error, words):
    with pytest.raises(error, match=words):
        kind(**({"iterations": 1} | arguments))


@BOTH
def test_contract(kind):
    stage = kind(3, lr=0.5)
    assert isinstance(stage, Stage) and eval(repr(stage)) == stage and stage != LBFGS(3, lr=0.5)
