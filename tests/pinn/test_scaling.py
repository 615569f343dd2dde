"""Nondimensional problems: the same solution, terms of size one, the way back."""

from __future__ import annotations

import math

import pytest
import torch

import ntangent as nt
from ntangent import optim, pinn
from ntangent._base.errors import ArgumentError, ProblemError, UnknownNameError
from ntangent.pinn import Box, Dirichlet, Initial, Neumann, Problem, Uniform, Unknown
from ntangent.pinn.objective import PinnObjective

F64 = torch.float64
CPU = torch.device("cpu")
L, T, U = 200.0, 5e-3, 1e4
KAPPA = 3e5


def heat(**more):
    """u_t = κ u_xx with u = 1e4 sin(π x / 200) exp(-κ (π/200)² t), in awkward units."""
    rate = KAPPA * (math.pi / L) ** 2
    return Problem(
        Box(x=(0.0, L), t=(0.0, T)),
        [lambda u, p: u.t - KAPPA * u.xx],
        [Initial(lambda x: U * torch.sin(math.pi * x / L)), Dirichlet(x=(0.0, L), value=0.0)],
        reference=lambda x, t: U * torch.sin(math.pi * x / L) * torch.exp(-rate * t),
        **more,
    )


class Exact(torch.nn.Module):
    """v(ξ, τ) of the heat problem, as a network with one idle parameter."""

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones((), dtype=F64))

    def forward(self, x):
        rate = KAPPA * (math.pi / L) ** 2 * T
        return self.one * torch.sin(math.pi * x[:, :1]) * torch.exp(-rate * x[:, 1:])


def objective(problem, net, n=40, **more):
    return PinnObjective(problem, net, Uniform(n, 3).points(problem.domain, F64, CPU), **more)


def test_the_scaled_solution_solves_the_scaled_problem():
    scaled = heat().nondimensionalise(length=L, time=T, field=U)
    assert scaled.problem.domain == Box(x=(0.0, 1.0), t=(0.0, 1.0))
    target = objective(scaled.problem, Exact())
    for name, rows in target.rows(target.start()).items():
        assert float(rows.abs().max()) < 1e-13, name
    wrong = Exact()
    with torch.no_grad():
        wrong.one.mul_(1.1)
    rows = objective(scaled.problem, wrong).rows(torch.tensor([1.1], dtype=F64))
    assert float(rows["initial"].abs().max()) > 0.05


def test_scaled_rows_are_the_users_rows_over_one_number():
    # A network in scaled coordinates, and the same function in the user's.
    inner = nt.MLP(2, 1, width=6, depth=2, dtype=F64, generator=1)

    class Same(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return U * self.inner(x / torch.tensor([L, T], dtype=F64))

    scaled = heat().nondimensionalise(length=L, time=T, field=U)
    unit = objective(scaled.problem, inner)
    user = objective(heat(), Same())
    ours, theirs = unit.rows(unit.start()), user.rows(user.start())
    for name in ours:
        ratio = theirs[name] / ours[name]
        torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-8, atol=0)
    # The sine of size one: each row has the size of its root mean square.
    assert 0.05 < float(ours["equation[0]"].square().mean().sqrt()) < 20
    ratio = float((theirs["dirichlet"] / ours["dirichlet"])[0, 0])
    assert ratio / math.sqrt(0.5) == pytest.approx(1e4, rel=1e-4)


def test_sobolev_rows_are_derivatives_in_the_scaled_coordinates():
    scaled = heat().nondimensionalise(length=L, time=T, field=U)
    net = nt.MLP(2, 1, width=6, depth=2, dtype=F64, generator=1)
    target = objective(scaled.problem, net, sobolev=(1.0,))
    rows = target.rows(target.start())["equation[0]"]

    def residual(x):
        plain = PinnObjective(scaled.problem, net, x)
        return plain.rows(plain.start())["equation[0]"][0]

    h = 1e-4
    for row, step in ((1, (h, 0.0)), (2, (0.0, h))):
        shift = torch.tensor(step, dtype=F64)
        difference = (residual(target.points + shift) - residual(target.points - shift)) / (2 * h)
        torch.testing.assert_close(rows[row], difference, rtol=1e-5, atol=1e-6)


def test_training_and_the_way_back():
    scaled = heat().nondimensionalise(length=L, time=T, field=U)
    net = nt.MLP(2, 1, width=10, depth=2, dtype=F64, generator=0)
    solution = pinn.solve(
        scaled.problem, net, [optim.LevenbergMarquardt(60)], sampler=Uniform(150, 1), progress=False
    )
    assert solution.summary()["relative_l2"] < 1e-3
    back = scaled.restore(solution)
    x = torch.tensor([[50.0, 1e-3], [120.0, 4e-3]], dtype=F64)
    expected = heat().reference(x[:, 0], x[:, 1])
    torch.testing.assert_close(back(x), expected, rtol=2e-3, atol=2e-3 * U)
    torch.testing.assert_close(back(x=x[:, 0], t=x[:, 1]), back(x), rtol=1e-12, atol=0)
    rate = KAPPA * (math.pi / L) ** 2
    torch.testing.assert_close(back.derivative("t", x), -rate * expected, rtol=2e-2, atol=1e-2 * rate * U)
    square = (math.pi / L) ** 2
    torch.testing.assert_close(
        back.derivative("xx", x), -square * expected, rtol=2e-2, atol=2e-2 * U * square
    )


def test_unknowns_keep_their_units():
    rate = 250.0
    times = torch.linspace(1e-3, 2e-2, 8, dtype=F64)
    problem = Problem(
        Box(t=(0.0, 2e-2)),
        [lambda u, p: u.t + p.k * u],
        [Initial(40.0), pinn.PointData(times, 40 * torch.exp(-rate * times))],
        unknowns={"k": Unknown(100.0, bounds=(1.0, 1000.0))},
        reference=lambda t, n: torch.stack([40 * (-rate) ** j * torch.exp(-rate * t) for j in range(n + 1)]),
    )
    scaled = problem.nondimensionalise(time=2e-2, field=40.0)
    net = nt.MLP(1, 1, width=8, depth=2, dtype=F64, generator=0)
    solution = pinn.solve(scaled.problem, net, [optim.LevenbergMarquardt(60)], progress=False)
    assert scaled.restore(solution).unknowns["k"] == pytest.approx(rate, rel=1e-4)
    assert solution.summary()["max_errors"][0] < 1e-4


def test_an_ansatz_and_outward_derivatives_are_scaled():
    problem = Problem(
        Box(x=(0.0, 10.0)), [lambda u, p, x: u.xx - 6.0 * x], [Neumann(x=10.0, value=300.0)],
        ansatz=lambda net, x: x * net(x),
    )  # fmt: skip
    scaled = problem.nondimensionalise(length=10.0, field=1000.0)

    class Square(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = torch.nn.Parameter(torch.ones((), dtype=F64))

        # u = x³ = x · N(x) with N = x² = 100 ξ² = 1000 · (ξ² / 10).
        def forward(self, x):
            return self.one * x * x * 0.1

    target = objective(scaled.problem, Square(), n=9)
    for name, rows in target.rows(target.start()).items():
        assert float(rows.abs().max()) < 1e-12, name


def test_several_fields_have_their_own_size():
    problem = Problem(
        Box(x=(0.0, 1.0)), [lambda u, v: u.x - v, lambda u, v: v.x + u * 1e6],
        [Initial(1.0, field="u")], fields=("u", "v"),
    )  # fmt: skip
    scaled = problem.nondimensionalise(length=1e-3, field={"v": 1e3})
    net = nt.MLP(1, 2, width=4, depth=1, dtype=F64, generator=0)
    rows = objective(scaled.problem, net).rows(objective(scaled.problem, net).start())
    unscaled = objective(problem, net).rows(objective(problem, net).start())
    assert float(unscaled["equation[1]"].abs().max()) > 1e4
    assert all(float(r.square().mean().sqrt()) < 10 for r in rows.values())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"length": 0.0}, ArgumentError),
        ({"time": -1.0}, ArgumentError),
        ({"length": {"y": 1.0}}, UnknownNameError),
        ({"field": {"w": 1.0}}, UnknownNameError),
    ],
)
def test_bad_scales_are_refused(options, error):
    with pytest.raises(error):
        heat().nondimensionalise(**options)


def test_a_solution_of_another_problem_is_refused():
    a, b = (heat().nondimensionalise(length=L, time=T, field=U) for _ in range(2))
    net = nt.MLP(2, 1, width=3, depth=1, dtype=F64, generator=0)
    solution = pinn.solve(a.problem, net, [optim.Adam(1)], sampler=Uniform(5), progress=False)
    with pytest.raises(ProblemError, match="another problem"):
        b.restore(solution)
