"""SOAP: what it is without rotations, what rotations do to it, and that it resumes."""

from __future__ import annotations

import pytest
import torch
from problems import LeastSquares, drive, resumes, rosenbrock

from ntangent._base.errors import ArgumentError, DtypeError, ShapeError
from ntangent.optim import SOAP, Adam, Cosine

F64 = torch.float64
M, N = 4, 3


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


class Matrix(LeastSquares):
    """|A W B - C|² of one matrix and a vector, in rotated coordinates W = left' V right."""

    shapes = ((M, N), (2,))

    def __init__(self, left=None, right=None):
        a, b, c = random(5, M), random(N, 6, seed=1), random(5, 6, seed=2)
        left = torch.eye(M, dtype=F64) if left is None else left
        right = torch.eye(N, dtype=F64) if right is None else right

        def residual(theta):
            w = left.T @ theta[: M * N].view(M, N) @ right
            return torch.cat([(a @ w @ b - c).reshape(-1), theta[M * N :] - 1])

        super().__init__(residual)


def orthogonal(n, seed):
    return torch.linalg.qr(random(n, n, seed=seed))[0]


START = random(M * N + 2, seed=5)


def test_without_matrices_it_is_adam():
    problem = LeastSquares(rosenbrock)
    start = torch.tensor([-1.2, 1.0, 0.3, 0.7], dtype=F64)
    soap = drive(SOAP(50, lr=1e-2, betas=(0.9, 0.999), schedule=Cosine()), problem, start)
    adam = drive(Adam(50, lr=1e-2, betas=(0.9, 0.999), schedule=Cosine()), problem, start)
    assert torch.allclose(soap.theta, adam.theta, rtol=1e-12)
    assert soap.loss == pytest.approx(adam.loss, rel=1e-12)


def test_long_sides_are_left_alone():
    alone = drive(SOAP(20, lr=1e-2, largest=1), Matrix(), START)
    adam = drive(Adam(20, lr=1e-2, betas=(0.95, 0.95)), Matrix(), START)
    assert torch.allclose(alone.theta, adam.theta, rtol=1e-12)
    assert not torch.allclose(alone.theta, drive(SOAP(20, lr=1e-2), Matrix(), START).theta, rtol=1e-3)


def test_rotating_the_problem_rotates_the_iterates():
    left, right = orthogonal(M, 7), orthogonal(N, 8)
    plain = drive(SOAP(30, lr=1e-2, frequency=3), Matrix(), START)
    turned_start = torch.cat([(left @ START[: M * N].view(M, N) @ right.T).reshape(-1), START[M * N :]])
    turned = drive(SOAP(30, lr=1e-2, frequency=3), Matrix(left, right), turned_start)
    expected = left @ plain.theta[: M * N].view(M, N) @ right.T
    assert torch.allclose(turned.theta[: M * N].view(M, N), expected, atol=1e-7)
    adam = drive(Adam(30, lr=1e-2), Matrix(), START).theta[: M * N].view(M, N)
    adam_turned = drive(Adam(30, lr=1e-2), Matrix(left, right), turned_start).theta[: M * N].view(M, N)
    assert not torch.allclose(adam_turned, left @ adam @ right.T, atol=1e-3)


def test_the_first_step_has_the_length_of_the_rate_in_every_rotated_entry():
    stage, problem = SOAP(1, lr=1e-3), Matrix()
    begun = stage.begin(problem, START)
    state = stage.step(problem, begun)
    g = begun.memory["gradient"][: M * N].view(M, N)
    left, right = torch.linalg.eigh(g @ g.T)[1], torch.linalg.eigh(g.T @ g)[1]
    moved = left.T @ (state.theta - START)[: M * N].view(M, N) @ right
    turned = left.T @ g @ right
    # In its own eigenbasis the gradient is diagonal; every entry above rounding moves by lr.
    real = turned.abs() > 1e-6
    assert int(real.sum()) == N
    assert torch.allclose(moved[real], -1e-3 * turned[real].sign(), rtol=1e-4)


def test_the_averages_are_those_of_the_gradients_and_bases_stay_orthogonal():
    stage, problem = SOAP(7, lr=1e-2, frequency=2, shampoo_beta=0.8), Matrix()
    state = stage.begin(problem, START)
    g = state.memory["gradient"][: M * N].view(M, N)
    expected = g @ g.T
    for _ in range(7):
        g = state.memory["gradient"][: M * N].view(M, N)
        expected = 0.8 * expected + 0.2 * g @ g.T
        state = stage.step(problem, state)
        assert torch.allclose(state.memory["averages"][0][0], expected, rtol=1e-10)
        assert state.memory["averages"][1] == [None, None]
        for basis in state.memory["bases"][0]:
            assert torch.allclose(basis.T @ basis, torch.eye(len(basis), dtype=F64), atol=1e-12)


def test_it_goes_lower_than_adam_on_a_badly_scaled_matrix():
    losses = [
        drive(stage, Matrix(orthogonal(M, 7), orthogonal(N, 8)), START).loss - least()
        for stage in (SOAP(400, lr=1e-2, schedule=Cosine()), Adam(400, lr=1e-2, schedule=Cosine()))
    ]
    assert losses[0] < losses[1]


def least():
    r, jacobian = Matrix().residuals_and_jacobian(torch.zeros(M * N + 2, dtype=F64))
    solution = torch.linalg.lstsq(jacobian, -r[:, None]).solution[:, 0]
    return float((jacobian @ solution + r).square().sum())


def test_resumes_to_the_same_bits():
    assert resumes(lambda: SOAP(15, frequency=4, schedule=Cosine()), Matrix, START, [0, 3, 4, 9])


def test_it_stops_where_the_loss_is_not_finite():
    def residual(theta):
        return torch.log(theta) * 10

    state = drive(SOAP(1000, lr=1.0), LeastSquares(residual), torch.tensor([0.5], dtype=F64))
    assert state.stop is not None
    assert torch.isfinite(state.theta).all()


def test_refuses():
    with pytest.raises(ArgumentError):
        SOAP(10, betas=(0.9, 1.0))
    with pytest.raises(DtypeError):
        SOAP(10, betas=0.9)
    with pytest.raises(ArgumentError):
        SOAP(10, frequency=0)
    with pytest.raises(DtypeError):
        SOAP(10, schedule=0.5)
    wrong = Matrix()
    wrong.shapes = ((M, N),)
    with pytest.raises(ShapeError, match="do not make up"):
        SOAP(10).begin(wrong, START)
