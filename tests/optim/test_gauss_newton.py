"""Gauss-Newton: its solvers agree, it converges as theory says, and it resumes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse.linalg
import torch
from problems import LeastSquares, Linear, drive, fit, net_start, resumes, rosenbrock, tanh_net

from ntangent._base.errors import ArgumentError, DtypeError, UnknownNameError
from ntangent._base.protocols import Linearisation
from ntangent.optim import GaussNewton
from ntangent.optim._products import Gram, conjugate_gradients, sketch

F64 = torch.float64
# From START the chained function leads into its other minimum.
NEAR = torch.tensor([-0.2, 0.6, 1.3, 0.7], dtype=F64)
START = torch.tensor([-1.2, 1.0, 0.3, 0.7], dtype=F64)


class Free(LeastSquares):
    """A least-squares problem that also multiplies by its Jacobian."""

    def linearise(self, theta):
        r, jacobian = self.residuals_and_jacobian(theta)
        return Linearisation(r, lambda v: jacobian @ v, lambda w: jacobian.T @ w)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("solver", ["dense", "cg", "sketch"])
@pytest.mark.parametrize("shape", [(30, 6), (5, 12)])
def test_linear_least_squares_in_a_few_steps(solver, shape):
    a, b = random(*shape), random(shape[0], seed=1)
    state = drive(
        GaussNewton(12, solver=solver, accuracy=1e-12), Free(lambda t: a @ t - b), random(shape[1], seed=2)
    )
    truth = np.linalg.lstsq(a.numpy(), b.numpy(), rcond=None)[0]
    least = float(((a.numpy() @ truth - b.numpy()) ** 2).sum())
    assert state.loss <= least * (1 + 1e-10) + 1e-20


@pytest.mark.parametrize("solver", ["dense", "cg", "sketch"])
def test_rosenbrock(solver):
    state = drive(GaussNewton(100, solver=solver, tolerance=1e-25), Free(rosenbrock), NEAR)
    assert "tolerance" in state.stop
    assert torch.allclose(state.theta, torch.ones(4, dtype=F64), atol=1e-10)


def test_a_fit_with_noise_agrees_with_scipy():
    residual = fit()
    start = torch.tensor([1.0, 1.0, 1.0, 2.0], dtype=F64)
    truth = scipy.optimize.least_squares(
        lambda t: residual(torch.from_numpy(t)).numpy(), start.numpy(), xtol=1e-15, ftol=1e-15, gtol=1e-15
    )
    state = drive(GaussNewton(200), Free(residual), start)
    assert state.loss == pytest.approx(2 * truth.cost, rel=1e-10)
    # A minimum fixes its place to the root of the loss' digits only.
    assert torch.allclose(state.theta, torch.from_numpy(truth.x), rtol=1e-4)


def test_the_first_step_is_the_damped_one():
    objective, theta = Free(tanh_net()), net_start()
    stage = GaussNewton(1, damping=1e-3, solver="dense")
    r, jacobian = objective.residuals_and_jacobian(theta)
    mu = 1e-3 * float(jacobian.norm()) ** 2
    step = -torch.linalg.solve(jacobian.T @ jacobian + mu * torch.eye(len(theta), dtype=F64), jacobian.T @ r)
    begun = stage.begin(objective, theta)
    state = stage.step(objective, begun)
    assert torch.allclose(state.theta - theta, state.info["step"] * step, rtol=1e-9, atol=1e-12)


def test_conjugate_gradients_against_scipy_and_a_good_sketch_needs_one_step():
    low = random(40, 8)
    a = low @ low.T + 1e-3 * torch.eye(40, dtype=F64)
    b, mu = random(40, seed=3), 1e-2
    operator = a.matmul
    plain = conjugate_gradients(operator, b, mu, lambda v: v, accuracy=1e-10, budget=200)
    truth = np.linalg.solve(a.numpy() + mu * np.eye(40), b.numpy())
    assert np.allclose(plain.y.numpy(), truth, rtol=1e-6, atol=1e-6 * np.abs(truth).max())
    found = sketch(operator, b, 12, seed=0)
    # The eight large eigenvalues are captured, so the preconditioned matrix is nearly the identity.
    assert torch.allclose(found.values[:8], torch.linalg.eigvalsh(a).flip(0)[:8], rtol=1e-2)
    fast = conjugate_gradients(
        operator, b, mu, lambda v: found.precondition(v, mu), accuracy=1e-6, budget=200
    )
    assert fast.products <= 5 < plain.products
    assert torch.allclose(
        found.solve(found.vectors @ (found.vectors.T @ b), mu),
        torch.linalg.solve(
            found.vectors @ torch.diag(found.values) @ found.vectors.T + mu * torch.eye(40, dtype=F64),
            found.vectors @ (found.vectors.T @ b),
        ),
    )


@pytest.mark.parametrize("shape", [(9, 4), (4, 9)])
def test_the_smaller_gram_matrix_gives_the_same_step(shape):
    jacobian, r, mu = random(*shape), random(shape[0], seed=1), 0.3
    gram = Gram(Linearisation(r, lambda v: jacobian @ v, lambda w: jacobian.T @ w), shape[1])
    assert gram.size == 4
    matrix = torch.stack([gram(e) for e in torch.eye(4, dtype=F64)], 1)
    y = torch.linalg.solve(matrix + mu * torch.eye(4, dtype=F64), gram.right)
    expected = -torch.linalg.solve(
        jacobian.T @ jacobian + mu * torch.eye(shape[1], dtype=F64), jacobian.T @ r
    )
    assert torch.allclose(gram.step(y), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("solver", ["dense", "cg", "sketch"])
def test_resumes_to_the_same_bits(solver):
    stage = lambda: GaussNewton(12, solver=solver, sketch=6)  # noqa: E731
    assert resumes(stage, lambda: Free(tanh_net()), net_start(), [0, 1, 5, 6])


def test_auto_is_dense_on_small_problems_and_without_products():
    begun = GaussNewton(3).begin(Free(rosenbrock), START)
    assert begun.memory["solver"] == "dense"
    assert GaussNewton(3).begin(LeastSquares(rosenbrock), START).memory["solver"] == "dense"
    big = Linear(torch.ones(2, 2, dtype=F64), torch.ones(2, dtype=F64))
    big.residuals = lambda theta: torch.ones(40_000_001, dtype=F64)
    big.linearise = lambda theta: None
    assert GaussNewton(3).begin(big, torch.zeros(2, dtype=F64)).memory["solver"] == "cg"


@pytest.mark.parametrize("solver", ["dense", "cg", "sketch"])
def test_scaling_the_residual_leaves_the_iterates(solver):
    ends = [
        drive(GaussNewton(8, solver=solver, sketch=6), Free(tanh_net(), scale), net_start()).theta
        for scale in (1.0, 2.0**-40)
    ]
    assert torch.allclose(*ends, rtol=1e-6, atol=1e-9)


def test_refuses():
    with pytest.raises(DtypeError, match="no products"):
        GaussNewton(3, solver="cg").begin(LeastSquares(rosenbrock), START)
    with pytest.raises(UnknownNameError):
        GaussNewton(3, solver="qr")
    with pytest.raises(ArgumentError):
        GaussNewton(3, solver="sketch", sketch=0)
    with pytest.raises(ArgumentError):
        GaussNewton(3, damping=0.0)
    with pytest.raises(ArgumentError):
        GaussNewton(0)


def test_it_ends_where_nothing_is_left():
    state = drive(GaussNewton(5), LeastSquares(lambda t: t * 0 + 1), torch.ones(3, dtype=F64))
    assert state.stop == "the gradient is exactly zero"
    state = drive(GaussNewton(500, tolerance=0.0), Free(fit()), torch.tensor([1.0, 1.0, 1.0, 2.0], dtype=F64))
    assert "line search" in state.stop or "exactly zero" in state.stop or "budget" in state.stop
