"""Time windows: closed forms as oracles, hand-overs to rounding, resumed runs to the same bits."""

import math
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pinn.stopping import Interrupt
from torch import nn

import ntangent as nt
from ntangent import optim, pinn
from ntangent._base.errors import ArgumentError, CheckpointError, ProblemError, RunFolderError
from ntangent.pinn.basis import Waves
from ntangent.pinn.handover import Coordinate, Series, resolved
from ntangent.pinn.windows import Windows, window

F64 = torch.float64


def zero(inputs, period=None):
    net = nt.MLP(inputs + (period is not None), 1, width=4, depth=1, dtype=F64, generator=0)
    nn.init.zeros_(net[-1].weight)
    nn.init.zeros_(net[-1].bias)
    return net if period is None else nn.Sequential(nt.nn.PeriodicEmbedding([period, None]), *net)


def heat(**changes):
    """u_t = u_xx on (0, π), ends held at 0: e^-t sin x + e^-4t sin 2x / 2."""
    return pinn.Problem(
        **{
            "domain": pinn.Box(x=(0.0, math.pi), t=(0.0, 1.0)),
            "equations": [lambda u: u.t - u.xx],
            "conditions": [
                pinn.Initial(lambda x: torch.sin(x) + torch.sin(2 * x) / 2, hard=True),
                pinn.Dirichlet(x=(0.0, math.pi), hard=True),
            ],
            "reference": lambda x, t: torch.exp(-t) * torch.sin(x) + torch.exp(-4 * t) * torch.sin(2 * x) / 2,
        }
        | changes
    )


def advection():
    """u_t + u_x = 0, periodic on (0, 2π): e^sin(x - t)."""
    return pinn.Problem(
        domain=pinn.Box(x=(0.0, 2 * math.pi), t=(0.0, 2.0)),
        equations=[lambda u: u.t + u.x],
        conditions=[
            pinn.Initial(lambda x: torch.exp(torch.sin(x)), hard=True),
            pinn.Periodic("x", hard=True),
        ],
        reference=lambda x, t: torch.exp(torch.sin(x - t)),
    )


POLISH = [optim.Polish(2, features=150, slope=5.0, density=1, activation="sin")]
QUIET = {"sampler": pinn.Sobol(600), "progress": False}


def test_hard_conditions_at_the_ends_are_handed_over():
    solution = pinn.march(heat(), zero(2), POLISH, windows=3, **QUIET)
    assert solution.summary()["relative_l2"] < 1e-9
    # Continuous where windows meet, in u and in the derivatives across: the later one starts there.
    x, meet = torch.linspace(0.1, 3.0, 20, dtype=F64), 1 / 3
    later = torch.tensor(math.nextafter(meet, 1), dtype=F64)
    for by in ("", "x", "xx"):
        values = [
            solution(x=x, t=t) if not by else solution.derivative(by, x=x, t=t)
            for t in (torch.tensor(meet, dtype=F64), later)
        ]
        torch.testing.assert_close(*values, rtol=0, atol=1e-9)


def test_periodic_states_become_fourier_series():
    slopes = (12 * math.pi, 3.0)
    stages = [optim.Polish(2, features=400, slope=slopes, density=2, activation="sin")]
    solution = pinn.march(advection(), zero(2, 2 * math.pi), stages, windows=4, **QUIET)
    assert solution.summary()["relative_l2"] < 1e-7
    started = [p.conditions[0].values(p)[0] for p in solution.net.problems[1:]]
    assert all(isinstance(value, Series) and isinstance(value.families[0], Waves) for value in started)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-1, 1), min_size=3, max_size=9).filter(lambda c: len(c) % 2 == 1 and any(c)),
    st.floats(-3, 3),
    st.floats(0.5, 7),
)
def test_fourier_series_of_a_trigonometric_polynomial_is_itself(coefficients, low, period):
    half = len(coefficients) // 2

    def exact(x):
        angle = 2 * math.pi * (x - low) / period
        waves = [
            torch.ones_like(x),
            *[f(k * angle) for f in (torch.cos, torch.sin) for k in range(1, half + 1)],
        ]
        return sum(c * w for c, w in zip(coefficients, waves, strict=True))

    class State:
        name, problem = None, advection()
        net = zero(2)

        def __call__(self, points):
            return exact(points[:, :1])

    series = resolved(State(), [Coordinate(0, low, period, periodic=True)])
    x = low + period * torch.rand(40, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(series(x), exact(x[:, :1]), rtol=0, atol=1e-12 * sum(map(abs, coefficients)))
    # Its derivatives are those of the polynomial: nested autograd beside the series.
    third = nt.jet(series, x, 3, 0)
    y = x.clone().requires_grad_()
    found = exact(y[:, :1])
    for _ in range(3):
        (gradient,) = torch.autograd.grad(found.sum(), y, create_graph=True)
        found = gradient[:, :1]
    scale = (2 * math.pi * half / period) ** 3 * sum(map(abs, coefficients))
    torch.testing.assert_close(third.derivative(3), found.detach(), rtol=0, atol=1e-11 * scale)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=9).filter(any), st.floats(-3, 3), st.floats(0.5, 7))
def test_series_of_a_polynomial_is_itself(coefficients, low, length):
    """Beside numpy's Chebyshev series."""
    polynomial = np.polynomial.Chebyshev(coefficients, domain=[low, low + length])

    class State:
        name, problem, net = None, advection(), zero(2)

        def __call__(self, points):
            return torch.from_numpy(polynomial(points[:, :1].numpy()))

    series = resolved(State(), [Coordinate(0, low, length, periodic=False)])
    x = low + length * torch.rand(40, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    size = sum(map(abs, coefficients))
    expected = torch.from_numpy(polynomial(x[:, :1].numpy()))
    torch.testing.assert_close(series(x), expected, rtol=0, atol=1e-12 * size)
    third = torch.from_numpy(polynomial.deriv(3)(x[:, :1].numpy()))
    found = nt.jet(series, x, 3, 0).derivative(3)
    # The highest third of 64 degrees is left out; what is rounding below it is multiplied by k^6 at most.
    torch.testing.assert_close(found, third, rtol=0, atol=1e-15 * size * 44**6 * (2 / length) ** 3)


def test_a_series_of_a_wave_and_a_polynomial():
    class State:
        name, problem, net = None, advection(), zero(3)

        def __call__(self, points):
            x, y = points[:, :1], points[:, 1:2]
            return torch.sin(x) * torch.exp(y) + torch.cos(3 * x)

    State.problem = pinn.Problem(
        domain=pinn.Box(x=(0, 2 * math.pi), y=(-1, 1), t=(0, 1)), equations=[lambda u: u.t]
    )
    where = [Coordinate(0, 0.0, 2 * math.pi, periodic=True), Coordinate(1, -1.0, 2.0, periodic=False)]
    series = resolved(State(), where)
    x = torch.rand(50, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(series(x), State()(x), rtol=0, atol=1e-12)


def test_a_jump_is_not_resolved_by_polynomials():
    class Jump:
        name, problem, net = None, advection(), zero(2)

        def __call__(self, points):
            return torch.sign(points[:, :1] - 0.3)

    assert resolved(Jump(), [Coordinate(0, 0.0, 1.0, periodic=False)]) is None


def test_an_unresolved_state_is_refused():
    class Saw:
        name, problem, net = None, advection(), zero(2)

        def __call__(self, points):
            return points[:, :1]

    assert resolved(Saw(), [Coordinate(0, 0.0, 1.0, periodic=True)]) is None


def test_soft_conditions_and_training():
    problem = heat(
        conditions=[pinn.Initial(lambda x: torch.sin(x), n=32), pinn.Dirichlet(x=(0.0, math.pi), n=16)]
    )
    net = nt.MLP(2, 1, width=10, depth=2, dtype=F64, generator=0)
    stages = [optim.LevenbergMarquardt(60)]
    solution = pinn.march(problem, net, stages, windows=2, sampler=pinn.Sobol(200), progress=False)
    x = torch.linspace(0, math.pi, 30, dtype=F64)
    for t in (0.25, 0.75, 1.0):
        expected = math.exp(-t) * torch.sin(x)
        assert (solution(x=x, t=torch.tensor(t)) - expected).abs().max() < 2e-3
    assert len(solution.outcome.history) > 60
    assert solution.outcome.reasons[-1].startswith("window 2: ")


def test_second_order_in_time_hands_over_two_states():
    """u_tt = -u: cos t, across windows that meet at given times."""
    problem = pinn.Problem(
        domain=pinn.Interval(t=(0.0, 6.0)),
        equations=[lambda u: u.tt + u],
        conditions=[pinn.Initial(1.0, 0.0, hard=True)],
        reference=lambda t: torch.cos(t),
    )
    stages = [optim.Polish(2, features=30, slope=3.0)]
    solution = pinn.march(
        problem, zero(1), stages, windows=[1.0, 2.5, 4.0], sampler=pinn.Chebyshev(60), progress=False
    )
    assert solution.summary()["relative_l2"] < 1e-9
    assert solution.net.meet == [1.0, 2.5, 4.0]


def test_several_fields_with_networks_of_their_own():
    """u' = v, v' = -u, a network each, made for each window's domain."""
    problem = pinn.Problem(
        domain=pinn.Interval(t=(0.0, 3.0)),
        fields=("u", "v"),
        equations=[lambda u, v: u.t - v, lambda u, v: v.t + u],
        conditions=[pinn.Initial(0.0, field="u", hard=True), pinn.Initial(1.0, field="v", hard=True)],
        reference=lambda t: {"u": torch.sin(t), "v": torch.cos(t)},
    )
    seen = []

    def networks(domain):
        seen.append(domain.interval("t"))
        return {"u": zero(1), "v": zero(1)}

    stages = [optim.Polish(2, features=30, slope=3.0)]
    solution = pinn.march(problem, networks, stages, windows=2, sampler=pinn.Chebyshev(60), progress=False)
    assert solution.summary()["relative_l2"] < 1e-9
    assert {(0.0, 1.5), (1.5, 3.0)} <= set(seen)


def test_data_are_shared_out():
    points, values = torch.tensor([[0.5, 0.1], [0.5, 0.5], [0.5, 0.9]]), torch.tensor([1.0, 2.0, 3.0])
    problem = heat(conditions=[pinn.Initial(lambda x: torch.sin(x)), pinn.PointData(points, values)])
    first, second = (window(problem, "t", a, a + 0.5, None).conditions[-1] for a in (0.0, 0.5))
    assert (first.values.tolist(), second.values.tolist()) == ([1.0, 2.0], [2.0, 3.0])
    assert len(window(problem, "t", 0.2, 0.4, None).conditions) == 1


def test_warm_start_takes_the_trained_network_over():
    problem = heat(
        conditions=[pinn.Initial(lambda x: torch.sin(x), n=32), pinn.Dirichlet(x=(0.0, math.pi), n=16)]
    )
    net = nt.MLP(2, 1, width=6, depth=1, dtype=F64, generator=0)
    stages = [optim.LevenbergMarquardt(5)]
    both = [
        pinn.march(problem, net, stages, windows=2, warm=warm, sampler=pinn.Sobol(50), progress=False)
        for warm in (False, True)
    ]
    first, second = (s.outcome.history[5].loss for s in both)
    assert both[0].outcome.history[4].loss == both[1].outcome.history[4].loss
    assert first != second
    with pytest.raises(ArgumentError, match="stages changed what is trained"):
        pinn.march(heat(), zero(2), POLISH, windows=2, warm=True, **QUIET)


def test_a_field_at_points_of_all_windows_in_any_order():
    solution = pinn.march(heat(), zero(2), POLISH, windows=3, **QUIET)
    assert isinstance(solution.net, Windows)
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(50, 2, dtype=F64, generator=generator) * torch.tensor([math.pi, 1.0])
    one_by_one = torch.cat([solution(p[None]) for p in points])
    torch.testing.assert_close(solution(points), one_by_one, rtol=1e-13, atol=1e-13)
    assert solution(points[:0]).shape == (0,)
    single = solution.derivative("xt", points)
    y = points.clone().requires_grad_()
    u = heat().reference(y[:, 0], y[:, 1])
    (g,) = torch.autograd.grad(u.sum(), y, create_graph=True)
    (gg,) = torch.autograd.grad(g[:, 0].sum(), y)
    torch.testing.assert_close(single, gg[:, 1], rtol=0, atol=1e-6)


def test_interrupted_in_a_later_window_resumes_to_the_same_bits(tmp_path):
    problem = heat(
        conditions=[pinn.Initial(lambda x: torch.sin(x), n=32), pinn.Dirichlet(x=(0.0, math.pi), n=16)]
    )

    def go(name, **more):
        net = nt.MLP(2, 1, width=6, depth=1, dtype=F64, generator=0)
        return pinn.march(
            problem, net, [optim.LevenbergMarquardt(12)], windows=3, sampler=pinn.Sobol(50),
            progress=False, run_dir=tmp_path / name, **more,
        )  # fmt: skip

    whole = go("whole")
    with pytest.raises(KeyboardInterrupt):
        go("cut", callbacks=[Interrupt(17)])
    assert not (tmp_path / "cut" / "result.json").exists()
    resumed = go("cut", resume=True)
    assert torch.equal(whole.outcome.theta, resumed.outcome.theta)
    assert whole.loss == resumed.loss
    with pytest.raises(RunFolderError, match="already holds a run"):
        go("cut")
    with pytest.raises(CheckpointError, match="windows"):
        pinn.march(
            problem, nt.MLP(2, 1, width=6, depth=1, dtype=F64, generator=0), [optim.LevenbergMarquardt(12)],
            windows=4, sampler=pinn.Sobol(50), progress=False, run_dir=tmp_path / "cut", resume=True,
        )  # fmt: skip
    folders = sorted(p.name for p in (tmp_path / "cut" / "windows").iterdir())
    assert folders == ["001", "002", "003"]
    stored = np.load(tmp_path / "cut" / "evaluation.npz")
    assert stored["field_u"].shape == (200, 200)
    shutil.rmtree(tmp_path / "cut")


@pytest.mark.parametrize(
    ("changes", "options", "error", "words"),
    [
        ({"conditions": [pinn.Dirichlet(x=0.0)]}, {}, ProblemError, "no initial condition"),
        ({"unknowns": {"k": pinn.Unknown(1.0)}}, {}, ProblemError, "unknown"),
        ({}, {"time": "z"}, ProblemError, "no coordinate"),
        ({}, {"windows": 0}, ArgumentError, "windows"),
        ({}, {"windows": "three"}, ArgumentError, "windows"),
        ({}, {"windows": [0.7, 0.3]}, ArgumentError, "increasing order"),
        ({}, {"windows": [1.5]}, ArgumentError, "between 0.0 and 1.0"),
        (
            {"conditions": [pinn.Initial(lambda x: torch.sin(x)), pinn.Dirichlet(t=0.0)]},
            {},
            ProblemError,
            "bound to a place in the whole time",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused(changes, options, error, words):
    with pytest.raises(error, match=words):
        pinn.march(heat(**changes), zero(2), POLISH, **{"windows": 2, **QUIET, **options})


def test_a_domain_is_cut_in_its_factor():
    disc = pinn.Disc() * pinn.Box(t=(0.0, 2.0))
    assert disc.between("t", 0.5, 1.0) == pinn.Disc() * pinn.Box(t=(0.5, 1.0))
    with pytest.raises(ProblemError, match="cannot be cut across"):
        disc.between("x", 0.0, 0.5)
    with pytest.raises(ProblemError, match="is no part of"):
        pinn.Box(t=(0.0, 1.0)).between("t", 0.5, 1.5)


def test_a_copy_of_the_network_sees_the_whole_time():
    net = nt.MLP(2, 1, width=5, depth=2, dtype=F64, generator=1)
    solution = pinn.march(
        heat(), net, [optim.LevenbergMarquardt(1)], windows=[0.25], sampler=pinn.Sobol(20), progress=False
    )
    second = solution.net.nets[1]
    x = torch.tensor([[0.3, 0.25], [0.3, 1.0]], dtype=F64)
    torch.testing.assert_close(second(x), second.net(torch.tensor([[0.3, 0.0], [0.3, 1.0]], dtype=F64)))
    assert nt.jet(second, x, 2, 0, backend="eager").order == 2


def test_windows_of_a_float32_network():
    net = nn.Sequential(nt.nn.PeriodicEmbedding([2 * math.pi, None]), nt.MLP(3, 1, width=8, depth=1))
    problem = advection()
    marched = pinn.march(
        problem, net.float(), [optim.Adam(3)], windows=2, sampler=pinn.Sobol(40), progress=False
    )
    x = torch.linspace(0.0, 6.0, 5)
    before, after = marched(x=x, t=0.999999), marched(x=x, t=1.000001)
    assert before.dtype == torch.float32 and torch.allclose(before, after, atol=1e-4)
