"""A correction by waves times polynomials: closed forms, nested autograd, solutions that lie in its span."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.polynomial import chebyshev
from pinn.stopping import Interrupt
from torch import nn

import ntangent as nt
from ntangent import optim, pinn
from ntangent._base.errors import ArgumentError, NtangentError, UnknownNameError
from ntangent._base.protocols import Correctable
from ntangent.jet import Jet
from ntangent.pinn.basis import Polynomials, TensorBasis, Waves, distinct, products
from ntangent.pinn.hard.along import plain
from ntangent.pinn.objective import PinnObjective

F64, CPU = torch.float64, torch.device("cpu")
LOW, PERIOD, ENDS = -1.0, 3.0, (0.5, 2.0)


def uniform(*shape, seed=0):
    return torch.rand(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def column(x, order):
    """x + s as a series in s."""
    return Jet(torch.stack([x, torch.ones_like(x)]) if order else x[None], order)


def test_waves_and_their_derivatives_are_those_of_sines():
    x, k = LOW + PERIOD * uniform(7, 1), torch.arange(1, 6, dtype=F64) * (2 * math.pi / PERIOD)
    found = Waves(5, LOW, PERIOD)(column(x, 4))
    for order in range(5):
        shift = order * math.pi / 2
        waves = [f(k * (x - LOW) + shift) * k**order for f in (torch.cos, torch.sin)]
        expected = torch.cat([torch.full_like(x, float(order == 0)), *waves], 1)
        bound = 1e-14 * float(k[-1]) ** order * 10
        torch.testing.assert_close(found.derivative(order), expected, rtol=0, atol=bound)


@pytest.mark.parametrize("degree", [0, 1, 2, 25])
def test_polynomials_and_their_derivatives_are_those_of_chebyshev(degree):
    low, high = ENDS
    x = low + (high - low) * torch.cat([uniform(7, 1), torch.tensor([[0.0], [1.0]], dtype=F64)])
    z = ((x - (low + high) / 2) * 2 / (high - low)).numpy()[:, 0]
    family = Polynomials(degree, low, high)
    found = family(column(x, 3))
    assert found.shape == (len(x), family.count)
    for order in range(4):
        basis = np.eye(degree + 1)
        derived = [chebyshev.chebval(z, chebyshev.chebder(row, order)) if order else chebyshev.chebval(z, row)
                   for row in basis]  # fmt: skip
        expected = torch.from_numpy(np.stack(derived, 1)) * (2 / (high - low)) ** order
        size = max(1.0, float(degree)) ** (2 * order)  # of the derivative at the ends
        bound = 1e-13 * size * max(1, degree)
        torch.testing.assert_close(found.derivative(order), expected, rtol=0, atol=bound)


def basis(outputs=2):
    families = (Waves(2, LOW, PERIOD), Polynomials(3, *ENDS), Polynomials(1, 0.0, 1.0))
    net = TensorBasis(families, outputs, torch.zeros((), dtype=F64))
    nn.init.normal_(net.last.weight, generator=torch.Generator().manual_seed(1))
    return net


def by_hand(net, x):
    """The same sum of products, written out: T_k = cos(k arccos z)."""
    angle = 2 * math.pi * (x[:, 0] - LOW) / PERIOD
    first = [torch.ones_like(angle), *[f(k * angle) for f in (torch.cos, torch.sin) for k in (1, 2)]]
    z = torch.arccos((x[:, 1] - sum(ENDS) / 2) * 2 / (ENDS[1] - ENDS[0]))
    second, third = [torch.cos(k * z) for k in range(4)], [torch.ones_like(angle), 2 * x[:, 2] - 1]
    features = torch.stack([a * b * c for a in first for b in second for c in third], 1)
    return features @ net.last.weight.detach().T


@pytest.mark.parametrize("grid", [False, True])
def test_values_and_mixed_derivatives_against_nested_autograd(grid):
    net = basis()
    x = uniform(24, 3) * 0.9 + 0.05
    if grid:  # few different values in each coordinate
        x = torch.cartesian_prod(x[:4, 0], x[:3, 1], x[:2, 2])
    x = x * torch.tensor([3.0, 1.5, 1.0]) + torch.tensor([-1.0, 0.5, 0.0])
    torch.testing.assert_close(net(x).detach(), by_hand(net, x), rtol=0, atol=1e-13)
    direction = torch.tensor([0.5, -0.3, 0.8], dtype=F64)
    found = nt.jet(net, x, 3, direction).derivative(3)
    s = torch.zeros(len(x), 1, dtype=F64, requires_grad=True)
    for output in range(2):
        u = by_hand(net, x + s * direction)[:, output]
        for _ in range(3):
            (grad,) = torch.autograd.grad(u.sum(), s, create_graph=True)
            u = grad[:, 0]
        torch.testing.assert_close(found[:, output].detach(), u.detach(), rtol=1e-10, atol=1e-8)


def test_nested_automatic_differentiation_passes_through():
    net, x = basis(1), uniform(8, 3) * 0.9 + 0.05 + torch.tensor([0.0, 0.5, 0.0])
    other = x.clone().requires_grad_()
    x.requires_grad_()
    (found,) = torch.autograd.grad(net(x).sum(), x)
    (expected,) = torch.autograd.grad(by_hand(net, other).sum(), other)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_distinct_entries_are_found_again():
    x = column(uniform(5, 1)[torch.tensor([0, 3, 3, 1, 0, 3, 3, 0, 1, 1, 1, 1])], 2)
    few, places = distinct(x)
    assert few.shape == (3, 1)
    assert torch.equal(few.data[:, places], x.data)
    assert distinct(column(uniform(5, 1), 1))[1] is None


def test_products_are_all_products():
    a, b = column(uniform(4, 1), 2), column(uniform(4, 1, seed=1), 2)
    a, b = Waves(2, LOW, PERIOD)(a), Polynomials(2, *ENDS)(b)
    found = products([a, b])
    for i in range(5):
        for j in range(3):
            expected = (a[:, i] * b[:, j]).data
            torch.testing.assert_close(found.data[:, :, 3 * i + j], expected, rtol=1e-14, atol=1e-14)


# --- as a correction --------------------------------------------------------------------------------------


def travelling(**changes):
    """u_t + u u_x + u_xxx / 10 = f, periodic, for u = cos 2x + t³ sin x - t² cos 3x."""

    def exact(x, t):
        return torch.cos(2 * x) + t**3 * torch.sin(x) - t**2 * torch.cos(3 * x)

    def force(x, t):
        u_t = 3 * t**2 * torch.sin(x) - 2 * t * torch.cos(3 * x)
        u_x = -2 * torch.sin(2 * x) + t**3 * torch.cos(x) + 3 * t**2 * torch.sin(3 * x)
        u_xxx = 8 * torch.sin(2 * x) - t**3 * torch.cos(x) - 27 * t**2 * torch.sin(3 * x)
        return u_t + exact(x, t) * u_x + u_xxx / 10

    return pinn.Problem(
        **{
            "domain": pinn.Box(x=(0.0, 2 * math.pi), t=(0.0, 1.0)),
            "equations": [lambda u, x, t: u.t + u * u.x + u.xxx / 10 - force(x, t)],
            "conditions": [
                pinn.Initial(lambda x: torch.cos(2 * x), hard=True),
                pinn.Periodic("x", hard=True),
            ],
            "reference": exact,
        }
        | changes
    )


def zero(problem):
    periods = [2 * math.pi, None]
    embedding = nt.nn.PeriodicEmbedding(periods)
    net = nt.MLP(embedding.features, 1, width=4, depth=1, dtype=F64, generator=0)
    nn.init.zeros_(net[-1].weight)
    nn.init.zeros_(net[-1].bias)
    return nn.Sequential(embedding, *net)


def objective(problem, sampler):
    return PinnObjective(problem, zero(problem), sampler.points(problem.domain, F64, CPU))


@pytest.mark.parametrize("sampler", [pinn.Spectral(x=9, t=5, periodic="x"), pinn.Sobol(64)], ids=repr)
def test_the_jacobian_against_autograd(sampler):
    first = objective(travelling(), sampler)
    second, start = optim.Polish(modes=(3, 3), density=1).prepare(first, first.start())
    assert isinstance(first, Correctable)
    assert len(start) == 7 * 4
    assert torch.equal(second.residuals(start), first.residuals(first.start()))
    theta = torch.randn(28, dtype=F64, generator=torch.Generator().manual_seed(2))
    assert second.structured(theta)
    r, jacobian = second.residuals_and_jacobian(theta)
    expected_r, expected = second._general(theta)
    torch.testing.assert_close(r, expected_r, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(jacobian, expected, rtol=1e-11, atol=1e-12 * float(expected.abs().max()))
    torch.testing.assert_close(second.residuals(theta), r, rtol=1e-12, atol=1e-12)


def test_a_solution_in_the_span_is_found_to_round_off():
    problem = travelling()
    stages = [optim.Polish(8, modes=(3, 2), density=1)]
    sampler = pinn.Spectral(x=20, t=7, periodic="x")
    solution = pinn.solve(problem, zero(problem), stages, sampler=sampler, progress=False)
    assert solution.summary()["relative_l2"] < 1e-13
    # One degree less does not hold t³ = t · t².
    less = [optim.Polish(8, modes=(3, 1), density=1)]
    solution = pinn.solve(problem, zero(problem), less, sampler=sampler, progress=False)
    assert solution.summary()["relative_l2"] > 1e-4


def test_one_number_is_for_all_coordinates_and_other_corrections_may_follow():
    problem = travelling()
    stages = [optim.Polish(3, modes=2, density=1), optim.Polish(6, modes=3, density=1)]
    sampler = pinn.Spectral(20, 8, periodic="x")
    solution = pinn.solve(problem, zero(problem), stages, sampler=sampler, progress=False)
    assert solution.summary()["relative_l2"] < 1e-12


def test_each_network_has_the_basis_of_its_own_coordinates_and_unknowns_are_found():
    """u_t = q u + k(x), k_x = cos x, k(0) = 0, u given at points: k = sin x, u = t sin x, q = 0."""
    places = torch.cartesian_prod(torch.linspace(-1, 1, 5, dtype=F64), torch.linspace(0, 1, 4, dtype=F64))
    problem = pinn.Problem(
        domain=pinn.Box(x=(-1.0, 1.0), t=(0.0, 1.0)),
        fields={"u": 1, "k": pinn.Output(1, coordinates=("x",))},
        equations=[lambda u, k, p: u.t - p.q * u - k, lambda k, x: k.x - torch.cos(x)],
        conditions=[
            pinn.Initial(0.0, field="u", hard=True),
            pinn.Dirichlet(x=0.0, value=0.0, field="k"),
            pinn.PointData(places, places[:, 1] * torch.sin(places[:, 0]), field="u"),
        ],
        unknowns={"q": pinn.Unknown(0.3)},
    )
    nets = {
        name: nt.MLP(inputs, 1, width=4, depth=1, dtype=F64, generator=0)
        for name, inputs in (("u", 2), ("k", 1))
    }
    for net in nets.values():
        for parameter in net[-1].parameters():
            nn.init.zeros_(parameter)
    stages = [optim.Polish(12, modes=(17, 2), density=1)]
    solution = pinn.solve(problem, nets, stages, sampler=pinn.Chebyshev(x=24, t=6), progress=False)
    assert [f.modes for f in solution.net["u"].correction.families] == [17, 2]
    assert solution.net["k"].correction.families == (Polynomials(17, -1.0, 1.0),)
    assert abs(solution.unknowns["q"]) < 1e-11
    x, t = 2 * uniform(9) - 1, uniform(9, seed=1)
    torch.testing.assert_close(solution(x=x, t=t)["u"], t * torch.sin(x), rtol=0, atol=1e-11)


def test_interrupted_windows_resume_to_the_same_bits(tmp_path):
    problem = travelling()

    def go(name, **more):
        return pinn.march(
            problem, zero(problem), [optim.Polish(6, modes=(4, 3), density=1)], windows=2,
            sampler=pinn.Spectral(x=14, t=6, periodic="x"), progress=False, run_dir=tmp_path / name, **more,
        )  # fmt: skip

    whole = go("whole")
    with pytest.raises(KeyboardInterrupt):
        go("cut", callbacks=[Interrupt(8)])  # in the second window
    resumed = go("cut", resume=True)
    assert whole.loss == resumed.loss
    x = uniform(30, 2)
    assert torch.equal(whole(x), resumed(x))
    assert whole.summary()["relative_l2"] < 1e-9


def test_wrong_modes_are_refused():
    first = objective(travelling(), pinn.Spectral(x=9, t=5, periodic="x"))
    for modes in (-1, 2.5, (3, -1), (3, "a")):
        with pytest.raises(NtangentError, match="modes"):
            optim.Polish(modes=modes)
    for modes in ((3,), (3, 3, 3)):
        with pytest.raises(ArgumentError, match=f"modes has {len(modes)} entries"):
            optim.Polish(modes=modes).prepare(first, first.start())
    with pytest.raises(ArgumentError, match="65 weights for 45 rows") as caught:
        optim.Polish(modes=(6, 4), density=1).prepare(first, first.start())
    assert "Polish(density=3)" in str(caught.value)
    assert optim.Polish(modes=(6, 4)) == eval(repr(optim.Polish(modes=(6, 4))), {"Polish": optim.Polish})


def test_points_on_which_the_functions_are_orthogonal():
    sampler = pinn.Spectral(x=9, t=5, periodic="x")
    points = sampler.points(pinn.Box(x=(-1.0, 2.0), t=ENDS), F64, CPU)
    factors = [Waves(4, -1.0, 3.0), Polynomials(4, *ENDS)]
    families = [f(column(points[:, i : i + 1], 0)) for i, f in enumerate(factors)]
    values = products(families).value
    gram = values.T @ values / len(points)
    torch.testing.assert_close(gram, torch.diag(gram.diagonal()), rtol=0, atol=1e-14)
    assert float(gram.diagonal().min()) > 0.2
    assert eval(repr(sampler), {"Spectral": pinn.Spectral}) == sampler != pinn.Spectral(x=9, t=5)
    more = sampler.denser(4, 2)
    assert more == pinn.Spectral(x=18, t=10, periodic="x")
    with pytest.raises(UnknownNameError, match="coordinate"):
        pinn.Spectral(9, 5, periodic="y").points(pinn.Box(x=(0.0, 1.0), t=(0.0, 1.0)), F64, CPU)
    with pytest.raises(ArgumentError, match="names coordinates"):
        pinn.Spectral(9, periodic=(3,))


@pytest.mark.parametrize(
    ("conditions", "without"),
    [
        ([pinn.Neumann(x=0.0, hard=True), pinn.Dirichlet(x=1.0, hard=True)], (0, 1)),
        ([pinn.Neumann(x=(0.0, 1.0), hard=True)], (1, 2)),
        ([pinn.Symmetry("even", x=0.0)], (1,)),
        ([pinn.Dirichlet(x=(0.0, 1.0), hard=True)], ()),
    ],
)
def test_polynomials_that_the_conditions_cancel_are_left_out(conditions, without):
    """What is left is independent and spans what all polynomials do."""
    problem = pinn.Problem(
        domain=pinn.Interval(x=(0.0, 1.0)),
        equations=[lambda u: u],
        conditions=conditions,
    )
    net = nt.MLP(1, 1, width=4, depth=1, dtype=torch.float64, generator=0)
    torch.nn.init.zeros_(net[-1].weight)
    torch.nn.init.zeros_(net[-1].bias)
    objective = PinnObjective(problem, net, pinn.Chebyshev(40).points(problem.domain, torch.float64, "cpu"))
    corrected, start = objective.with_basis(objective.start(), modes=16, density=1)
    families = corrected.net.correction.families
    assert families[0].without == without
    assert len(start) == 17 - len(without)
    jacobian = corrected.residuals_and_jacobian(start)[1]
    lengths = jacobian.norm(dim=0)
    assert float(lengths.min() / lengths.max()) > 1e-8  # none is rounding
    everything = np.linalg.matrix_rank(_images(problem, objective.points, 16), tol=1e-9)
    assert np.linalg.matrix_rank((jacobian / lengths).numpy(), tol=1e-9) == everything == len(start)


def _images(problem, points, degree):
    """The fields that all polynomials give, by the ansatz of the problem, as columns."""
    columns = []
    for k in range(degree + 1):
        polynomial = np.polynomial.Chebyshev.basis(k, domain=[0, 1]).convert(kind=np.polynomial.Polynomial)

        def net(x, c=polynomial.coef):
            total = 0.0 * x
            for a in reversed(c):
                total = total * x + float(a)
            return total

        columns.append(problem.outputs(net, plain(points), None).value[:, 0].detach().numpy())
    return np.stack(columns, 1)
