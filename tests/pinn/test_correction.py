"""Corrections of a trained field: what they are, that a run with them resumes, that they help."""

from __future__ import annotations

import math

import pytest
import torch
from pinn.stopping import Enough
from torch import nn

import ntangent as nt
from ntangent import jet, optim
from ntangent._base.errors import ArgumentError, NtangentError
from ntangent._base.protocols import Correctable, MatrixFree, Shaped
from ntangent.pinn import Box, Chebyshev, Dirichlet, Initial, Periodic, Problem, Unknown, odd, solve
from ntangent.pinn.correction import Corrected
from ntangent.pinn.objective import PinnObjective

F64 = torch.float64
RATE = 1.3


def oscillator(**more):
    """u'' = -w u with u(0) = 0, u(1) = sin(1.3): w = 1.69 where u'(0) = 1.3."""
    return Problem(
        Box(x=(0.0, 1.0)),
        [lambda u, p: u.xx + p.w * u],
        [Initial((0.0, RATE)), Dirichlet(x=1.0, value=math.sin(RATE))],
        unknowns={"w": Unknown(1.2, bounds=(0.5, 3.0))},
        reference=lambda x, order: torch.stack(
            [RATE**j * torch.sin(RATE * x + j * math.pi / 2) for j in range(order + 1)]
        ),
        expected={"w": RATE**2},
        **more,
    )


def net(seed=0, width=8):
    return nt.MLP(1, 1, width=width, depth=2, dtype=F64, generator=seed)


def objective(problem, network, points=20):
    x = Chebyshev(points).points(problem.domain, F64, torch.device("cpu"))
    return PinnObjective(problem, network, x)


def noise(like, seed=3):
    return torch.randn(len(like), generator=torch.Generator().manual_seed(seed), dtype=F64)


FEATURES = {"count": 15, "slope": 4.0, "density": 1, "seed": 2}
NETWORK = {"width": 6, "depth": 2, "frequency": 3.0, "density": 1, "seed": 2}


@pytest.mark.parametrize("how", ["with_features", "with_network"])
def test_a_correction_begins_at_the_field_it_corrects(how):
    problem = oscillator()
    first = objective(problem, net())
    theta = first.start() + 0.1 * noise(first.start())
    second, start = getattr(first, how)(theta, **(FEATURES if how == "with_features" else NETWORK))
    assert isinstance(first, Correctable)
    assert torch.allclose(second.residuals(start), first.residuals(theta), rtol=1e-13, atol=1e-15)
    assert second.unknowns(start) == first.unknowns(theta)
    assert first.unknowns(start) == first.unknowns(theta)
    # The first network stays trainable, its copy is frozen.
    assert all(p.requires_grad for p in first.net.parameters())
    again, same = getattr(first, how)(theta, **(FEATURES if how == "with_features" else NETWORK))
    assert torch.equal(start, same)
    moved = start + 0.1 * noise(start)
    assert torch.equal(second.residuals(moved), again.residuals(moved))


@pytest.mark.parametrize("how", ["with_features", "with_network"])
def test_the_jacobian_of_a_correction_against_autograd(how):
    first = objective(oscillator(ansatz=odd), net())
    second, start = getattr(first, how)(first.start(), **(FEATURES if how == "with_features" else NETWORK))
    theta = start + 0.1 * noise(start)
    r, jacobian = second.residuals_and_jacobian(theta)
    expected_r, expected = second._general(theta)
    assert torch.allclose(r, expected_r, rtol=1e-12, atol=1e-14)
    assert torch.allclose(jacobian, expected, rtol=1e-9, atol=1e-11 * float(expected.abs().max()))


def test_the_ansatz_acts_on_the_correction():
    first = objective(oscillator(ansatz=odd), net())
    second, start = first.with_features(first.start(), **FEATURES)
    second.load(start + noise(start))
    x = torch.linspace(-1, 1, 7, dtype=F64)[:, None]
    with torch.no_grad():
        u = odd(second.net, x)
        shown = jet(lambda y: odd(second.net, y), x, 2)
    assert torch.allclose(u, -u.flip(0), atol=1e-14)
    assert float(u.abs().max()) > 1e-3
    assert torch.allclose(shown.value, u, atol=1e-15)


def test_features_lie_where_the_points_are():
    first = objective(Problem(Box(x=(100.0, 108.0)), [lambda u: u.x], [Dirichlet(x=100.0)]), net())
    second, _ = first.with_features(first.start(), **(FEATURES | {"count": 400}))
    inner = second.net.correction[0]
    centres = -(inner.bias / inner.weight[:, 0])
    low, high = float(first.points.min()), float(first.points.max())
    assert low - 1 < float(centres.min()) < low + 0.2
    assert high - 0.2 < float(centres.max()) < high + 1
    # Slope 4 where half the domain is 1.
    assert float(inner.weight.abs().max()) == pytest.approx(4 / ((high - low) / 2), rel=0.02)


@pytest.mark.parametrize(
    "network",
    [
        net(),
        nn.Sequential(nn.Linear(1, 5, dtype=F64), nn.LayerNorm(5, dtype=F64), nn.Linear(5, 1, dtype=F64)),
    ],
)
def test_products_against_the_matrix(network):
    first = objective(oscillator(ansatz=odd), network)
    assert isinstance(first, MatrixFree)
    assert isinstance(first, Shaped)
    theta = first.start() + 0.1 * noise(first.start())
    r, jacobian = first._general(theta)
    v, w = noise(theta, 5), noise(r, 6)
    linear = first.linearise(theta)
    assert torch.allclose(linear.residual, r, rtol=1e-13, atol=1e-14)
    assert torch.allclose(linear.jvp(v), jacobian @ v, rtol=1e-10, atol=1e-12 * float(jacobian.norm()))
    assert torch.allclose(linear.vjp(w), jacobian.T @ w, rtol=1e-10, atol=1e-12 * float(jacobian.norm()))
    assert sum(math.prod(s) for s in first.shapes) == len(theta)


def test_polish_reaches_round_off_and_the_solution_holds_the_correction():
    network = net()
    stages = [optim.LevenbergMarquardt(30), optim.Polish(features=60, slope=4.0)]
    solution = solve(oscillator(), network, stages, sampler=Chebyshev(30), progress=False)
    assert abs(solution.unknowns["w"] - RATE**2) <= 1e-12
    assert solution.summary()["max_errors"][0] <= 1e-13
    assert isinstance(solution.net, Corrected)
    x = torch.tensor([[0.3]], dtype=F64)
    assert abs(solution.net(x).item() - math.sin(RATE * 0.3)) <= 1e-13
    # The given network is what the first stage left.
    assert 1e-13 < abs(network(x).item() - math.sin(RATE * 0.3)) < 1e-1


def test_a_second_network_lowers_the_loss():
    stages = [optim.LevenbergMarquardt(30), optim.MultiStage(optim.LevenbergMarquardt(60))]
    solution = solve(oscillator(), net(), stages, sampler=Chebyshev(30), progress=False)
    losses = {r.stage: r.loss for r in solution.outcome.history}
    assert losses[1] < 1e-2 * losses[0]
    assert 0 < solution.net.amplitude < 1e-1
    assert math.frexp(solution.net.amplitude)[0] == 0.5


@pytest.mark.parametrize("after", [3, 8, 14])
def test_a_run_with_corrections_resumes_to_the_same_bits(tmp_path, after):
    stages = [
        optim.LevenbergMarquardt(5),
        optim.MultiStage(optim.LevenbergMarquardt(4)),
        optim.LBFGS(3),
        optim.Polish(4, features=30, slope=4.0, density=2),
    ]

    def go(**more):
        return solve(oscillator(), net(), stages, sampler=Chebyshev(15), progress=False, **more)

    whole = go()
    go(run_dir=tmp_path / "run", callbacks=[Enough(after)], checkpoint_every=0)
    resumed = go(run_dir=tmp_path / "run", resume=True)
    assert torch.equal(whole.outcome.theta, resumed.outcome.theta)
    assert whole.unknowns == resumed.unknowns
    assert [r.loss for r in whole.outcome.history] == [r.loss for r in resumed.outcome.history]
    x = torch.linspace(0, 1, 5, dtype=F64)
    assert torch.equal(whole(x), resumed(x))
    finished = go(run_dir=tmp_path / "run", resume=True)
    assert torch.equal(whole(x), finished(x))


def periodic_problem():
    return Problem(
        Box(x=(-1.0, 2.0), t=(0.0, 1.0)),
        [lambda u: u.t + u.x],
        [Initial(lambda x: torch.sin(2 * torch.pi * x / 3), hard=True), Periodic("x", hard=True)],
        reference=lambda x, t: torch.sin(2 * torch.pi * (x - t) / 3),
    )


@pytest.mark.parametrize("how", ["tanh", "sin", "network"])
def test_corrections_keep_an_exact_period(how):
    problem = periodic_problem()
    embedding = nt.nn.PeriodicEmbedding([3.0, None])
    base = nn.Sequential(embedding, *nt.MLP(embedding.features, 1, width=6, depth=1, dtype=F64, generator=0))
    points = torch.rand(80, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    points = points * torch.tensor([3.0, 1.0], dtype=F64) - torch.tensor([1.0, 0.0], dtype=F64)
    first = PinnObjective(problem, base, points)
    if how == "network":
        second, start = first.with_network(first.start(), **NETWORK)
    else:
        second, start = first.with_features(first.start(), **FEATURES, activation=how)
    second.load(start + noise(start))
    problem.check_network(second.net, F64, torch.device("cpu"))
    left, right = points.clone(), points.clone()
    left[:, 0], right[:, 0] = -1.0, 2.0
    a, b = (problem.field(second.net, ends, 2)["u"].series() for ends in (left, right))
    assert bool(((a - b).abs() < 1e-10 * (1 + a.abs().max())).all())
    # It is the correction that is tested: it is not 0.
    assert bool((second.net(points) - base(points)).abs().max() > 1e-2)


def test_polish_with_sines_reaches_round_off_in_two_coordinates_and_beats_tanh():
    def error(activation):
        problem = periodic_problem()
        embedding = nt.nn.PeriodicEmbedding([3.0, None])
        base = nn.Sequential(
            embedding, *nt.MLP(embedding.features, 1, width=6, depth=1, dtype=F64, generator=0)
        )
        for parameter in base[-1].parameters():
            nn.init.zeros_(parameter)
        stage = optim.Polish(3, features=120, slope=(4.0, 6.0), density=1, activation=activation)
        solution = solve(problem, base, [stage], sampler=Chebyshev(22), progress=False)
        return solution.summary(solution.evaluate(points=40))["relative_l2"]

    sines = error("sin")
    assert sines < 1e-11
    assert error("tanh") > 10 * sines


def test_slopes_of_the_wrong_number_and_unknown_features_are_refused():
    first = objective(oscillator(), net())
    with pytest.raises(ArgumentError, match="2 entries"):
        optim.Polish(slope=(3.0, 4.0)).prepare(first, first.start())
    with pytest.raises(NtangentError, match="activation"):
        optim.Polish(activation="cosine")
