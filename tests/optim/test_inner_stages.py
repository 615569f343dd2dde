"""Stages that run another stage inside: the change of variables, the funnel, the second network."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from problems import LeastSquares, drive, net_start, resumes, rosenbrock, tanh_net

from ntangent._base.errors import ArgumentError, DtypeError
from ntangent.optim import LBFGS, Adam, Funnel, LevenbergMarquardt, MultiStage, Polish
from ntangent.optim._view import View
from ntangent.optim.polish import _norm_by_powers, _solved, truncated_step

F64 = torch.float64


def eigenvalue(theta):
    """Residuals of (A - q) v = 0 on a fixed matrix with |v| = 1, plus a row that vanishes only at its q.

    The last row is the mismatch of the first equation; without a solution it has the sign of q - q*.
    """
    x = torch.linspace(-1, 1, 9, dtype=F64)
    a, q = theta[:-1], theta[-1]
    slope = a[0] + 2 * a[1] * x
    value = 1 + a[0] * (x + 1) + a[1] * (x * x - 1)
    return torch.cat([slope - 0.7 * value, (0.1 * (torch.tanh(q) - 0.3) * (1 + a[0] ** 2))[None]])


def test_a_view_is_the_objective_in_other_variables():
    objective = LeastSquares(rosenbrock)
    sizes = torch.tensor([1.0, 0.5, 0.0, 4.0], dtype=F64)
    shift = torch.tensor([0.0, 0.0, 0.7, 0.0], dtype=F64)
    view, p = View(objective, sizes, shift, 8.0), torch.tensor([0.2, -0.4, 9.0, 0.1], dtype=F64)
    leaf = p.clone().requires_grad_()
    loss = 64 * (rosenbrock(shift + sizes * leaf) ** 2).sum()
    loss.backward()
    value, gradient = view.value_and_gradient(p)
    assert float(value) == pytest.approx(float(loss.detach()), rel=1e-14)
    assert torch.allclose(gradient, leaf.grad, rtol=1e-13)
    r, jacobian = view.residuals_and_jacobian(p)
    assert torch.allclose(2 * jacobian.T @ r, gradient, rtol=1e-13)
    assert torch.equal(view.residuals(p), r)
    assert torch.equal(view.outer(view.inner(view.outer(p))), view.outer(p))


@pytest.mark.parametrize("inner", [LevenbergMarquardt(20), LBFGS(60)])
def test_the_funnel_finds_the_unknown(inner):
    state = drive(Funnel(inner, signal=-1, rounds=10), LeastSquares(eigenvalue), torch.zeros(3, dtype=F64))
    assert float(torch.tanh(state.theta[-1])) == pytest.approx(0.3, abs=1e-6)
    assert "would move by" in state.stop
    tried, read = state.memory["tried"], state.memory["read"]
    assert tried[0] == 0.0
    assert tried[1] == 0.3
    # The third value is the zero of the line through the first two.
    expected = tried[1] - read[1] * (tried[1] - tried[0]) / (read[1] - read[0])
    assert tried[2] == pytest.approx(expected, rel=1e-12)


def test_the_funnel_holds_the_unknown_within_a_round_and_says_when_it_gives_up():
    stage, objective = Funnel(LevenbergMarquardt(4), signal=-1, rounds=3), LeastSquares(eigenvalue)
    state = stage.begin(objective, torch.tensor([0.1, 0.2, -1.5], dtype=F64))
    held = []
    while state.stop is None:
        state = stage.step(objective, state)
        held.append(float(state.theta[-1]))
    assert len(set(held)) == 3
    assert state.stop.startswith("3 values of the unknown were tried")
    assert state.loss == pytest.approx(float(objective.residuals(state.theta).square().sum()), rel=1e-12)
    assert state.iteration <= stage.iterations == 12


def test_the_funnel_resumes_to_the_same_bits():
    stage = lambda: Funnel(LevenbergMarquardt(5), signal=-1, rounds=4)  # noqa: E731
    start = torch.tensor([0.1, 0.2, 0.0], dtype=F64)
    assert resumes(stage, lambda: LeastSquares(eigenvalue), start, [0, 2, 5, 6, 11])


class Sized(LeastSquares):
    """The net fit with parameters of sizes 1 and 2^-10."""

    sizes = torch.tensor([1.0] * 14 + [2.0**-10], dtype=F64)


def test_the_second_network_is_trained_in_its_own_units():
    seen = []

    class Spy(Adam):
        def step(self, objective, state):
            seen.append((state.loss, float(state.theta[-1])))
            return super().step(objective, state)

    theta = net_start()
    objective = Sized(tanh_net(), scale=2.0**-30)
    state = drive(MultiStage(Spy(3)), objective, theta)
    assert all(0.2 < loss < 10 for loss, _ in seen)
    assert seen[0][1] == float(theta[-1]) * 2**10
    assert state.loss == pytest.approx(float(objective.residuals(state.theta).square().sum()), rel=1e-12)
    assert state.loss < 1e-15


def test_multistage_resumes_to_the_same_bits():
    stage = lambda: MultiStage(LevenbergMarquardt(9))  # noqa: E731
    assert resumes(stage, lambda: Sized(tanh_net(), scale=1e-9), net_start(), [0, 1, 4, 5])


def test_reprs_rebuild_and_copies_are_equal():
    for stage in (
        Polish(4, features=20),
        MultiStage(LevenbergMarquardt(5), frequency=3.0),
        Funnel(Adam(5), signal=-2),
    ):
        assert eval(repr(stage)) == stage
        assert copy.deepcopy(stage) == stage


def test_polish_solves_a_linear_problem_at_once_and_stops():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(30, 12, generator=generator, dtype=F64) * 10.0 ** torch.linspace(-9, 9, 12, dtype=F64)
    truth = torch.randn(12, generator=generator, dtype=F64) / 10.0 ** torch.linspace(-9, 9, 12, dtype=F64)
    b = a @ truth
    state = drive(Polish(8), LeastSquares(lambda t: a @ t - b), torch.zeros(12, dtype=F64))
    assert state.iteration <= 5
    # Columns of sizes 1e-9 to 1e9: every coefficient is right to its own digits.
    assert torch.allclose(state.theta, truth, rtol=1e-9, atol=0)
    assert "lowers the loss" in state.stop or "exactly zero" in state.stop


def test_the_truncated_step_is_the_pseudoinverse_of_the_scaled_matrix():
    generator = torch.Generator().manual_seed(1)
    for shape in ((9, 5), (4, 7)):
        jacobian, r = torch.randn(*shape, generator=generator, dtype=F64), torch.ones(shape[0], dtype=F64)
        jacobian[:, 1] = jacobian[:, 0] * 3
        scale = 1 / jacobian.norm(dim=0)
        step, rank = truncated_step(jacobian, r, 1e-12)
        assert torch.allclose(step, -scale * (torch.linalg.pinv(jacobian * scale, rtol=1e-12) @ r), rtol=1e-9)
        assert rank == min(4, shape[0])
        gone = torch.cat([jacobian, torch.zeros(shape[0], 1, dtype=F64)], 1)
        wider, same = truncated_step(gone, r, 1e-12)
        assert torch.equal(wider[:-1], step) and float(wider[-1]) == 0.0 and same == rank


@pytest.mark.parametrize("condition", [1e3, 1e12])
def test_norms_by_powers_are_those_of_the_singular_values(condition):
    generator = torch.Generator().manual_seed(2)
    q, _ = torch.linalg.qr(torch.randn(60, 60, generator=generator, dtype=F64))
    sizes = torch.logspace(0, -math.log10(condition), 60, dtype=F64)
    triangle = torch.linalg.qr(sizes[:, None] * q)[1]
    largest = _norm_by_powers(lambda v: triangle.T @ (triangle @ v), triangle)
    assert 0.9 < largest <= 1 + 1e-12
    b = torch.ones(60, dtype=F64)
    assert _solved(triangle, b, 1.0 / condition) is None
    torch.testing.assert_close(
        triangle @ _solved(triangle, b, 0.1 / condition), b, rtol=0, atol=1e-15 * condition
    )


def test_polish_halves_a_step_that_is_too_long_and_ends_when_none_helps():
    def bent(t):
        return torch.atan(t)

    state = drive(Polish(12), LeastSquares(bent), torch.tensor([3.0], dtype=F64))
    assert state.loss < 1e-25
    stuck = drive(
        Polish(5, halvings=0), LeastSquares(lambda t: torch.cat([t, t * 0 + 1])), torch.zeros(1, dtype=F64)
    )
    assert stuck.iteration == 1
    assert "lowers the loss" in stuck.stop


def test_polish_resumes_to_the_same_bits():
    assert resumes(lambda: Polish(6), lambda: LeastSquares(tanh_net()), net_start(), [0, 1, 3])


def test_refuses():
    with pytest.raises(DtypeError, match="LeastSquares cannot be corrected"):
        Polish().prepare(LeastSquares(rosenbrock), torch.zeros(3))
    with pytest.raises(DtypeError, match="cannot be corrected by a second"):
        MultiStage(Adam(3)).prepare(LeastSquares(rosenbrock), torch.zeros(3))
    with pytest.raises(DtypeError, match="sizes"):
        MultiStage(Adam(3)).begin(LeastSquares(rosenbrock), torch.zeros(3, dtype=F64))
    with pytest.raises(DtypeError):
        MultiStage("adam")
    with pytest.raises(DtypeError):
        Funnel("adam", -1)
    with pytest.raises(ArgumentError):
        Funnel(Adam(3), signal=-1, rounds=2)
    with pytest.raises(ArgumentError, match="outside"):
        Funnel(Adam(3), signal=99).begin(LeastSquares(rosenbrock), torch.zeros(4, dtype=F64))
    with pytest.raises(ArgumentError):
        Polish(rcond=2.0)
    with pytest.raises(ArgumentError):
        Polish(features=0)
