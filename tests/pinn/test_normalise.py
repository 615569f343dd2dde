"""Normalised networks: the right function, exact derivatives, the fast kernels, and it helps."""

from __future__ import annotations

import pytest
import torch

import ntangent as nt
from ntangent import optim, pinn
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError
from ntangent.jet.dense import as_dense
from ntangent.pinn import Box, Normalise

F64 = torch.float64


def net(inputs=1, outputs=1, **more):
    return nt.MLP(inputs, outputs, width=6, depth=2, dtype=F64, generator=2, **more)


def test_the_function():
    inner = net(2, 2)
    wrapped = Normalise(inner, Box(x=(10.0, 30.0), t=(0.0, 0.5)), scale=(3.0, 5.0), shift=(-1.0, 2.0))
    x = torch.tensor([[10.0, 0.0], [30.0, 0.5], [15.0, 0.25]], dtype=F64)
    unit = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-0.5, 0.0]], dtype=F64)
    expected = inner(unit) * torch.tensor([3.0, 5.0], dtype=F64) + torch.tensor([-1.0, 2.0], dtype=F64)
    torch.testing.assert_close(wrapped(x), expected, rtol=1e-13, atol=1e-13)
    assert {n for n, _ in wrapped.named_parameters()} == {f"net.{n}" for n, _ in inner.named_parameters()}


@pytest.mark.parametrize("scale", [1.0, 7.0])
def test_jets_see_through_it(scale):
    wrapped = Normalise(net(), Box(x=(0.0, 40.0)), scale=scale)
    x = torch.linspace(0, 40, 5, dtype=F64)[:, None]
    found = nt.derivatives(wrapped, x, 3)
    nested = nt.jet(wrapped, x, order=3, backend="autograd")
    for k in range(4):
        torch.testing.assert_close(found[k], nested.derivative(k), rtol=1e-11, atol=1e-15)
    dense = as_dense(wrapped)
    assert dense is not None
    assert len(dense.weights) == len(as_dense(wrapped.net).weights) + (1 if scale == 1 else 2)


def test_it_solves_where_the_bare_network_does_not():
    def loss(wrap):
        inner = net()
        problem = pinn.Problem(
            Box(t=(0.0, 500.0)), [lambda u, p: 100 * u.t + u], [pinn.Initial(20.0)],
            reference=lambda t, n: torch.stack([20 * (-0.01) ** j * (-t / 100).exp() for j in range(n + 1)]),
        )  # fmt: skip
        network = Normalise(inner, problem.domain, scale=20.0) if wrap else inner
        solution = pinn.solve(
            problem, network, [optim.Adam(300, lr=1e-2)], sampler=pinn.Grid(40), progress=False
        )
        return solution.summary()["relative_l2"]

    assert loss(True) < 0.05 < 0.2 < loss(False)


def test_its_jacobian_is_structured():
    problem = pinn.Problem(Box(t=(0.0, 50.0)), [lambda u, p: u.t + u], [pinn.Initial(1.0)])
    from ntangent.pinn.objective import PinnObjective

    points = torch.linspace(0, 50, 7, dtype=F64)[:, None]
    target = PinnObjective(problem, Normalise(net(), problem.domain, scale=2.0), points)
    theta = target.start()
    r, jacobian = target.residuals_and_jacobian(theta)
    torch.testing.assert_close(
        2 * jacobian.T @ r, target.value_and_gradient(theta)[1], rtol=1e-10, atol=1e-12
    )
    assert target._structured


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Normalise(torch.tanh, Box(x=(0, 1))), DtypeError),
        (lambda: Normalise(torch.nn.Tanh(), Box(x=(0, 1))), DtypeError),
        (lambda: Normalise(net(2), Box(x=(0, 1))), ShapeError),
        (lambda: Normalise(net(), Box(x=(0, 1)), scale=(1.0, 2.0)), ShapeError),
        (lambda: Normalise(net(), Box(x=(0, 1)), scale=0.0), ArgumentError),
        (lambda: Normalise(net(), Box(x=(0, 1)), shift="a"), DtypeError),
        (lambda: Normalise(net(), Box(x=(0, 1)), shift=float("nan")), ArgumentError),
    ],
)
def test_what_does_not_fit_is_refused(make, error):
    with pytest.raises(error):
        make()
