"""Levenberg-Marquardt against scipy and numpy, its laws, its factorisations and its ends."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import weakref
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    LeastSquares,
    Linear,
    drive,
    fit,
    net_start,
    proceed,
    resumes,
    rosenbrock,
    same_bits,
    tanh_net,
    through_file,
)
from scipy.optimize import least_squares

from ntangent._base.errors import ArgumentError, ConvergenceError, DtypeError, UnknownNameError
from ntangent._base.protocols import Stage
from ntangent.optim import LevenbergMarquardt, _damped

SHAPES = [(40, 12), (12, 40), (12, 12)]


def random(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def with_condition(rows, columns, condition, seed=0):
    """Return (A, x, A x) with min(rows, columns) singular values from 1 down to 1/condition."""
    k = min(rows, columns)
    u, _ = torch.linalg.qr(random(seed, rows, k))
    v, _ = torch.linalg.qr(random(seed + 1, columns, k))
    a = u @ torch.diag(torch.logspace(0, -math.log10(condition), k, dtype=torch.float64)) @ v.T
    x = v @ torch.ones(k, dtype=torch.float64)
    return a, x, a @ x


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(SHAPES), st.integers(0, 10**6), st.sampled_from(["gram", "svd", "auto"]), st.booleans()
)
def test_one_undamped_step_solves_a_linear_problem(shape, seed, factorisation, geodesic):
    a, b = random(seed, *shape), random(seed + 1, shape[0])
    a = a + 3 * torch.eye(*shape, dtype=torch.float64)
    stage = LevenbergMarquardt(1, damping=1e-30, factorisation=factorisation, geodesic=geodesic)
    state = drive(stage, Linear(a, b), torch.zeros(shape[1], dtype=torch.float64))
    theirs = np.linalg.lstsq(a.numpy(), b.numpy(), rcond=None)[0]
    # The smallest-norm solution: the damped step from zero has no component in the null space.
    assert np.allclose(state.theta.numpy(), theirs, rtol=1e-6, atol=1e-8 * np.linalg.norm(theirs))
    assert state.info["accepted"] == 1 and state.info["rank"] == min(shape)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(SHAPES),
    st.integers(0, 10**6),
    st.floats(-6, 3),
    st.sampled_from(["gram", "cholesky", "qr", "svd"]),
)
def test_damped_step_is_the_augmented_least_squares_solution(shape, seed, power, kind):
    """min |A d + b|² + μ|d|² through numpy on the stacked system, and its reduction by subtraction."""
    a, b, mu = random(seed, *shape), random(seed + 1, shape[0]), 10.0**power
    factor = _damped.factorise(a, kind)
    c = factor.coefficients(b)
    d = factor.solve(c, mu)
    stacked = np.vstack([a.numpy(), math.sqrt(mu) * np.eye(shape[1])])
    theirs = np.linalg.lstsq(stacked, -np.concatenate([b.numpy(), np.zeros(shape[1])]), rcond=None)[0]
    assert np.allclose(d.numpy(), theirs, rtol=1e-6, atol=1e-8 * np.linalg.norm(theirs))
    direct = float(b @ b - (b + a @ d) @ (b + a @ d))
    assert factor.reduction(c, mu) == pytest.approx(direct, rel=1e-6, abs=1e-11 * float(b @ b))


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
@pytest.mark.parametrize("geodesic", [True, False])
def test_normal_equations_lose_digits_and_auto_does_not(shape, geodesic):
    """Condition number 1e9: its square is beyond double precision."""
    a, _, b = with_condition(*shape, 1e9)
    oracle = torch.from_numpy(np.linalg.lstsq(a.numpy(), b.numpy(), rcond=1e-15)[0])
    errors, losses = {}, {}
    for kind in ("gram", "qr", "svd", "auto"):
        stage = LevenbergMarquardt(60, factorisation=kind, geodesic=geodesic)
        state = drive(stage, Linear(a, b), torch.zeros(shape[1], dtype=torch.float64))
        errors[kind], losses[kind] = float((state.theta - oracle).abs().max()), state.loss
    assert errors["gram"] > 1e-2 and losses["gram"] > 1e-20
    for kind in ("qr", "svd", "auto"):
        assert errors[kind] < 1e-6 and losses[kind] < 1e-28


def test_auto_changes_from_gram_to_svd():
    a, _, b = with_condition(40, 12, 1e9)
    stage, objective = LevenbergMarquardt(60), Linear(a, b)
    state = stage.begin(objective, torch.zeros(12, dtype=torch.float64))
    kinds = []
    while state.stop is None:
        state = stage.step(objective, state)
        kinds.append(state.info["orthogonal"])
    assert kinds[0] == 0 and kinds[-1] == 1
    assert state.info["rank"] == 12
    size = float(torch.linalg.vector_norm(a))
    eps = torch.finfo(torch.float64).eps
    assert _damped.choose(101 * eps * size**2, size, eps) == "gram"
    assert _damped.choose(99 * eps * size**2, size, eps) == "svd"
    assert _damped.choose(101 * eps * size**2, size, eps, _damped.LARGE) == "cholesky"
    assert _damped.choose(99 * eps * size**2, size, eps, _damped.LARGE) == "qr"


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_a_damping_below_rounding_does_not_stop_cholesky(shape):
    """J of rank 3: rounding makes J'J indefinite, and so small a damping does not mend it."""
    a = random(0, shape[0], 3) @ random(1, 3, shape[1])
    b, mu = random(2, shape[0]), 1e-25
    for jacobian in (a, 1e3 * a, a / 7):
        for kind in ("cholesky", "qr"):
            factor = _damped.factorise(jacobian, kind)
            step = factor.solve(factor.coefficients(b), mu)
            assert bool(torch.isfinite(step).all())


def test_auto_takes_cholesky_for_large_problems_and_goes_the_same_way():
    a, b = random(3, 400, 300), random(4, 400)
    ends = {}
    for kind in ("gram", "auto"):
        stage = LevenbergMarquardt(5, factorisation=kind, damping=1e-3)
        state = drive(stage, Linear(a, b), torch.zeros(300, dtype=torch.float64))
        assert ("rank" in state.info) == (kind == "gram")
        ends[kind] = state.theta
    assert torch.allclose(ends["gram"], ends["auto"], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("geodesic", [True, False])
def test_fit_agrees_with_scipy(geodesic):
    residual, start = fit(), torch.tensor([1.0, 0.5, 1.0, 2.0], dtype=torch.float64)
    theirs = least_squares(
        lambda t: residual(torch.tensor(t)).numpy(), start.numpy(), xtol=1e-15, ftol=1e-15, gtol=1e-15
    )
    state = drive(LevenbergMarquardt(200, geodesic=geodesic), LeastSquares(residual), start)
    assert state.loss == pytest.approx(2 * theirs.cost, rel=1e-12)
    assert np.allclose(state.theta.numpy(), theirs.x, atol=1e-6)
    assert "cannot lower the loss" in state.stop or "in a row" in state.stop


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-28), (torch.float32, 1e-11)])
def test_rosenbrock_to_round_off(dtype, bound):
    state = drive(LevenbergMarquardt(200), LeastSquares(rosenbrock), torch.full((10,), -0.5, dtype=dtype))
    assert state.loss < bound and state.theta.dtype == dtype


def test_geodesic_acceleration_follows_a_curved_valley():
    """Along Rosenbrock's valley the acceleration saves most of the trials."""
    start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    residual = LeastSquares(lambda t: torch.stack([1000 * (t[1] - t[0] ** 2), 1 - t[0]]))
    trials = [
        drive(LevenbergMarquardt(2000, geodesic=geodesic, tolerance=1e-20), residual, start).iteration
        for geodesic in (True, False)
    ]
    assert trials[0] < 0.5 * trials[1]


def test_acceleration_is_exact_for_a_quadratic_residual():
    """One step against the formula written out with the exact second directional derivative."""
    q, j, r0 = random(0, 9, 4, 4) * 0.05, random(1, 9, 4), random(2, 9)
    objective = LeastSquares(lambda t: r0 + j @ t + 0.5 * torch.einsum("mij,i,j->m", q, t, t))
    zero = torch.zeros(4, dtype=torch.float64)
    state = drive(LevenbergMarquardt(1, damping=1e-2, acceleration_ratio=10.0), objective, zero)
    mu = 1e-2 * float((j * j).sum(0).max())
    inverse = torch.linalg.inv(j.T @ j + mu * torch.eye(4, dtype=torch.float64))
    d = -inverse @ j.T @ r0
    a = -0.5 * inverse @ j.T @ torch.einsum("mij,i,j->m", q, d, d)
    assert torch.allclose(state.theta, d + a, rtol=1e-10)
    assert state.info["acceleration_ratio"] == pytest.approx(2 * float(a.norm() / d.norm()), rel=1e-9)
    plain = drive(LevenbergMarquardt(1, damping=1e-2, acceleration_ratio=1e-9), objective, zero)
    assert torch.allclose(plain.theta, d, rtol=1e-10)


def test_nielsen_rule():
    """The recorded dampings follow the rule from the recorded gains."""
    stage, objective = LevenbergMarquardt(60), LeastSquares(tanh_net())
    state, growth = stage.begin(objective, net_start()), 2.0
    seen = set()
    for _ in range(60):
        old, state = state, stage.step(objective, state)
        ratio = state.memory["damping"] / old.memory["damping"]
        if state.info["accepted"]:
            gain = state.info["gain_ratio"]
            assert ratio == pytest.approx(max(0.1, 1 - (2 * min(gain, 2) - 1) ** 3), rel=1e-12)
            assert state.loss < old.loss and state.memory["growth"] == 2
            growth = 2.0
        else:
            assert ratio == growth and torch.equal(state.theta, old.theta) and state.loss == old.loss
            growth *= 2
        seen.add(state.info["accepted"])
    assert seen == {0.0, 1.0}


@settings(max_examples=15, deadline=None)
@given(st.integers(-150, 150), st.sampled_from(["gram", "svd", "auto"]))
def test_units_of_the_residual_do_not_matter(power, factorisation):
    start = net_start()
    plain, other = LeastSquares(tanh_net()), LeastSquares(tanh_net(), 2.0**power)
    stage = LevenbergMarquardt(15, factorisation=factorisation)
    a, b = drive(stage, plain, start), drive(stage, other, start)
    assert float((a.theta - b.theta).abs().max()) < 1e-8
    assert a.memory["accepted"] == b.memory["accepted"]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_rotations_of_parameters_and_residuals(seed):
    """Identity damping knows no preferred basis, in either space."""
    q, _ = torch.linalg.qr(random(seed, 4, 4))
    w, _ = torch.linalg.qr(random(seed + 1, 6, 6))
    start = torch.full((4,), -0.5, dtype=torch.float64)
    stage = LevenbergMarquardt(12)
    plain = drive(stage, LeastSquares(rosenbrock), start)
    turned = drive(stage, LeastSquares(lambda t: w @ rosenbrock(q @ t)), q.T @ start)
    assert float((q @ turned.theta - plain.theta).abs().max()) < 1e-6


@pytest.mark.parametrize("factorisation", ["gram", "svd", "auto"])
@pytest.mark.parametrize("width", [4, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_resumes_with_the_same_bits(factorisation, width, dtype):
    """Cut at every kind of moment: after acceptances, and between rejections at one point."""
    assert resumes(
        lambda: LevenbergMarquardt(60, factorisation=factorisation),
        lambda: LeastSquares(tanh_net(dtype, width)),
        net_start(width, dtype=dtype),
        [*range(1, 25), 40],
    )


def test_one_jacobian_per_accepted_point():
    objective = LeastSquares(tanh_net())
    state = drive(LevenbergMarquardt(60), objective, net_start())
    accepted = state.memory["accepted"]
    assert 0 < accepted < 60
    assert objective.jacobians == 1 + accepted == state.info["jacobians"]
    # Once in begin, then the acceleration and the trial itself.
    assert objective.residual_calls == 1 + 2 * 60
    assert state.info["evaluations"] == objective.jacobians + objective.residual_calls


def test_one_factorisation_per_accepted_point(monkeypatch):
    calls = []
    original = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda a: calls.append(1) or original(a))
    state = drive(LevenbergMarquardt(60, factorisation="gram"), LeastSquares(tanh_net()), net_start())
    assert state.memory["accepted"] < 60 and len(calls) <= 1 + state.memory["accepted"]


def test_cache_is_no_part_of_stage_or_state():
    stage, objective = LevenbergMarquardt(50), LeastSquares(tanh_net())
    state = drive(stage, objective, net_start(), 5)
    assert stage == LevenbergMarquardt(50) and eval(repr(stage)) == stage
    assert "cache" not in repr(stage) and set(asdict(stage)) == {f.name for f in fields(stage)}
    assert replace(stage, iterations=7) == LevenbergMarquardt(7)
    small = len(pickle.dumps(LevenbergMarquardt(50)))
    for other in (pickle.loads(pickle.dumps(stage)), copy.copy(stage), copy.deepcopy(stage)):
        assert other == stage
        assert same_bits(
            asdict(proceed(other, objective, state, 3)),
            asdict(proceed(LevenbergMarquardt(50), objective, state, 3)),
        )
    assert len(pickle.dumps(stage)) == small
    # One stage, two objectives and two points in turn: never a stale Jacobian.
    other = LeastSquares(tanh_net(), 2.0)
    a, b = stage.begin(objective, net_start()), stage.begin(other, net_start(seed=1))
    for _ in range(4):
        a, b = stage.step(objective, a), stage.step(other, b)
    assert same_bits(asdict(a), asdict(drive(LevenbergMarquardt(50), objective, net_start(), 4)))
    assert same_bits(asdict(b), asdict(drive(LevenbergMarquardt(50), other, net_start(seed=1), 4)))


def test_cache_does_not_keep_an_objective_alive():
    stage, objective = LevenbergMarquardt(50), LeastSquares(rosenbrock)
    drive(stage, objective, torch.zeros(3), 2)
    gone = weakref.ref(objective)
    del objective
    gc.collect()
    assert gone() is None


def test_objective_with_slots():
    class Slots:
        __slots__ = ("inner",)

        def __getattr__(self, name):
            return getattr(self.inner, name)

    slots = Slots()
    slots.inner = LeastSquares(rosenbrock)
    state = drive(LevenbergMarquardt(50), slots, torch.zeros(3, dtype=torch.float64))
    assert state.loss < 1e-28 and slots.inner.jacobians == state.info["jacobians"]


def test_stop_reasons():
    objective = LeastSquares(rosenbrock)
    assert drive(LevenbergMarquardt(5), objective, torch.ones(3)).stop == "the loss is exactly zero"
    bowl = LeastSquares(lambda t: 1 + t * t)
    assert drive(LevenbergMarquardt(5), bowl, torch.zeros(2)).stop == "the gradient is exactly zero"
    assert "3 iterations" in drive(LevenbergMarquardt(3), objective, torch.zeros(3)).stop
    reached = drive(LevenbergMarquardt(99, tolerance=1e-3), objective, torch.zeros(3))
    assert reached.stop == "the loss reached the tolerance 0.001"
    assert LevenbergMarquardt(99).step(objective, reached) is reached

    class Backwards(LeastSquares):
        """A wrong Jacobian: no damping can help."""

        def residuals_and_jacobian(self, theta):
            r, jacobian = super().residuals_and_jacobian(theta)
            return r, -jacobian

    stuck = drive(LevenbergMarquardt(99, max_rejections=4), Backwards(rosenbrock), torch.zeros(3))
    assert stuck.stop == "4 trials in a row with growing damping did not lower the loss"
    assert stuck.iteration == 4 and torch.equal(stuck.theta, torch.zeros(3))
    still = drive(LevenbergMarquardt(99), Backwards(rosenbrock), torch.ones(3) / 2)
    assert "no longer changes the parameters" in still.stop and still.iteration < 25


def test_trials_that_are_not_finite_are_rejected():
    """log is NaN for negative θ, where the first steps lead."""
    objective = LeastSquares(lambda t: torch.log(t) + t)
    start = torch.full((3,), 20.0, dtype=torch.float64)
    stage = LevenbergMarquardt(100, damping=1e-12)
    first = stage.step(objective, stage.begin(objective, start))
    state = drive(stage, objective, start)
    assert torch.allclose(state.theta, torch.full((3,), 0.5671432904097838, dtype=torch.float64), atol=1e-14)
    hard = LeastSquares(lambda t: torch.log(t) + 5)
    rejected = stage.step(hard, stage.begin(hard, start))
    assert rejected.info["accepted"] == 0 and rejected.memory["damping"] > rejected.info["damping"]
    assert first.iteration == rejected.iteration == 1
    assert drive(stage, hard, start).loss < 1e-28


def test_a_jacobian_that_is_not_finite_is_rejected():
    class Edge(LeastSquares):
        """The residual exists everywhere, its Jacobian only for θ > 0.5."""

        def residuals_and_jacobian(self, theta):
            r, jacobian = super().residuals_and_jacobian(theta)
            return r, jacobian if bool((theta > 0.5).all()) else jacobian * math.nan

    stage = LevenbergMarquardt(100, damping=1e-9)
    state = drive(stage, Edge(lambda t: t), torch.ones(2, dtype=torch.float64))
    assert bool((state.theta > 0.5).all()) and math.isfinite(state.info["gradient_norm"])
    with pytest.raises(ConvergenceError, match="initial parameters"):
        stage.begin(Edge(lambda t: t), torch.zeros(2))
    with pytest.raises(ConvergenceError, match="fix:"):
        stage.begin(LeastSquares(torch.log), -torch.ones(2))


def test_failed_factorisations(monkeypatch):
    def fail(*_args, **_kwargs):
        raise torch.linalg.LinAlgError("did not converge")

    start = torch.full((4,), -0.5, dtype=torch.float64)
    monkeypatch.setattr(torch.linalg, "eigh", fail)
    state = drive(LevenbergMarquardt(100, factorisation="gram"), LeastSquares(rosenbrock), start)
    assert state.loss < 1e-28
    monkeypatch.setattr(torch.linalg, "svd", fail)
    with pytest.raises(ConvergenceError, match=r"(?s)did not converge.*fix:"):
        drive(LevenbergMarquardt(100, factorisation="gram"), LeastSquares(rosenbrock), start)


def test_rank_deficient_problem():
    """Two equal columns: the solution is not unique, the fit is."""
    a = random(0, 20, 5)
    a[:, 1] = a[:, 0]
    b = random(1, 20)
    state = drive(LevenbergMarquardt(80), Linear(a, b), torch.zeros(5, dtype=torch.float64))
    _, _, rank, _ = np.linalg.lstsq(a.numpy(), b.numpy(), rcond=1e-12)
    best = b.numpy() - a.numpy() @ np.linalg.lstsq(a.numpy(), b.numpy(), rcond=1e-12)[0]
    assert state.loss == pytest.approx(best @ best, rel=1e-13)
    assert rank == 4 == state.info["rank"] and float(state.theta.abs().max()) < 100


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"iterations": 0}, ArgumentError, "iterations"),
        ({"damping": 0.0}, ArgumentError, "damping"),
        ({"geodesic": 1}, DtypeError, "geodesic"),
        ({"acceleration_ratio": -1.0}, ArgumentError, "acceleration_ratio"),
        ({"geodesic_step": math.inf}, ArgumentError, "geodesic_step"),
        ({"tolerance": -1.0}, ArgumentError, "tolerance"),
        ({"factorisation": "lu"}, UnknownNameError, "factorisation"),
        ({"max_rejections": 0}, ArgumentError, "max_rejections"),
    ],
)
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        LevenbergMarquardt(**({"iterations": 1} | arguments))


def test_contract():
    stage = LevenbergMarquardt(3)
    assert isinstance(stage, Stage)
    state = drive(stage, LeastSquares(rosenbrock), torch.zeros(3))
    assert same_bits(asdict(through_file(state)), asdict(state))
    for name in ("gradient_norm", "step_length", "damping", "rank", "evaluations", "accepted"):
        assert isinstance(state.info[name], float)


def test_an_older_state_can_be_taken_up_again():
    """The cache goes by the value of θ: stepping back gives what it gave before."""
    stage, objective = LevenbergMarquardt(50), LeastSquares(tanh_net())
    states = [stage.begin(objective, net_start())]
    for _ in range(6):
        states.append(stage.step(objective, states[-1]))
    for old, new in zip(states[-2::-1], states[:0:-1], strict=True):
        assert same_bits(asdict(stage.step(objective, old)), asdict(new))
    moved = states[3].theta.clone()
    stage.step(objective, states[3])
    states[3].theta.add_(1.0)  # even after a forbidden change in place
    fresh = LevenbergMarquardt(50).step(objective, states[3])
    assert same_bits(asdict(stage.step(objective, states[3])), asdict(fresh))
    assert not torch.equal(moved, states[3].theta)
