"""Weights and points that change during a training: right numbers, every stage, exact resume."""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass

import pytest
import torch

import ntangent as nt
from ntangent import optim
from ntangent._base.errors import ArgumentError, DtypeError, NoEffectWarning, ShapeError, UnknownNameError
from ntangent.pinn import (
    NTK,
    R3,
    RAD,
    RBA,
    Box,
    Causal,
    Dirichlet,
    Fixed,
    GradNorm,
    Initial,
    Problem,
    Refine,
    ReLoBRaLo,
    SelfAdaptive,
    SoftAdapt,
    Uniform,
    solve,
)
from ntangent.pinn.objective import PinnObjective
from ntangent.pinn.revision import Revision

F64 = torch.float64


def decay():
    return Problem(Box(t=(0.0, 2.0)), [lambda u, p: u.t + 1.3 * u], [Initial(1.0, weight=4.0)])


def net(seed=0, width=5):
    return nt.MLP(1, 1, width=width, depth=2, dtype=F64, generator=seed)


def objective(n=12, problem=None):
    network = net()
    problem = problem or decay()
    return PinnObjective(problem, network, Uniform(n, 1).points(problem.domain, F64, torch.device("cpu")))


def run(stages, tmp=None, **more):
    options = {"sampler": Uniform(12, 1), "progress": False, "seed": 3, **more}
    return solve(decay(), options.pop("network", None) or net(), stages, run_dir=tmp, **options)


def test_factors_scale_the_squares():
    plain, weighted = objective(), objective()
    theta = plain.start()
    factor = torch.rand(12, dtype=F64) + 0.1
    weighted.set_factors({"equation[0]": factor, "initial": torch.tensor(3.0, dtype=F64)})
    rows = plain.rows(theta)
    expected = (factor * rows["equation[0]"][0] ** 2).mean() + 3 * 4 * rows["initial"].square().sum()
    loss, gradient = weighted.value_and_gradient(theta)
    torch.testing.assert_close(loss, expected, rtol=1e-14, atol=0)
    r, jacobian = weighted.residuals_and_jacobian(theta)
    torch.testing.assert_close(r @ r, loss, rtol=1e-14, atol=0)
    torch.testing.assert_close(2 * jacobian.T @ r, gradient, rtol=1e-10, atol=1e-13)
    assert sum(weighted.terms(theta).values()) == pytest.approx(float(loss), rel=1e-14)
    assert not gradient.requires_grad
    assert plain.version == 0 and weighted.version == 1


def test_what_a_weighting_sees_is_what_autograd_says():
    target = objective()
    theta = target.start()
    factor = torch.rand(12, dtype=F64)

    def mean(theta):
        flat = theta.detach().requires_grad_()
        names = [n for n, _ in target.net.named_parameters()]
        parts = flat.split([p.numel() for p in target.net.parameters()])
        shaped = [q.view_as(p) for q, p in zip(parts, target.net.parameters(), strict=True)]
        values = dict(zip(names, shaped, strict=True))
        x = target.points.clone().requires_grad_()
        u = torch.func.functional_call(target.net, values, (x,))
        (ux,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        return flat, (ux + 1.3 * u)[:, 0]

    flat, r = mean(theta)
    (expected,) = torch.autograd.grad((factor * r**2).mean(), flat, retain_graph=True)
    found = target.term_gradient(theta, "equation[0]", factor)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    squares = torch.stack(
        [torch.autograd.grad(value, flat, retain_graph=True)[0].square().sum() for value in r]
    )
    torch.testing.assert_close(target.row_squares(theta)["equation[0]"][0], squares, rtol=1e-9, atol=1e-12)
    other = torch.linspace(0, 2, 7, dtype=F64)[:, None]
    moved = objective()
    moved.set_points(other)
    torch.testing.assert_close(
        target.magnitude(theta, other), moved.rows(theta)["equation[0]"][0].abs(), rtol=1e-12, atol=0
    )


def test_bad_factors_are_refused():
    target = objective()
    for factors, error in (
        ({"equation": torch.ones(12)}, UnknownNameError),
        ({"equation[0]": torch.ones(11)}, ShapeError),
        ({"equation[0]": -torch.ones(12)}, ArgumentError),
        ({"equation[0]": torch.full((12,), torch.nan)}, ArgumentError),
    ):
        with pytest.raises(error):
            target.set_factors(factors)
    assert target.version == 0


def test_batches_go_through_the_points_once_an_epoch():
    target = objective(12)
    target.seed = 5
    target.set_factors({"equation[0]": torch.arange(1.0, 13.0, dtype=F64)})
    theta = target.start()
    r = target.rows(theta)["equation[0]"][0]
    seen = []
    for index in (3, 4, 5):  # the second epoch of three batches of four
        part = target.batch(4, index)
        places = [int((target.points == x).all(dim=1).nonzero()[0, 0]) for x in part.points]
        seen += places
        weights = torch.tensor([p + 1.0 for p in places], dtype=F64)
        expected = (weights * r[places] ** 2).mean() + 4 * target.rows(theta)["initial"].square().sum()
        torch.testing.assert_close(part.value_and_gradient(theta)[0], expected, rtol=1e-13, atol=0)
    assert sorted(seen) == list(range(12))
    again = objective(12)
    again.seed = 5
    assert torch.equal(again.batch(4, 4).points, target.batch(4, 4).points)
    again.seed = 6
    assert not torch.equal(again.batch(4, 4).points, target.batch(4, 4).points)
    assert target.batch(12, 0) is target


@pytest.mark.parametrize("stage", [optim.Adam, optim.SOAP])
def test_first_order_stages_learn_on_batches(stage):
    full = run([optim.Adam(300, lr=1e-2)])
    part = run([stage(300, lr=1e-2, batch=4)])
    assert part.objective.residuals(part.outcome.theta).square().sum() < 1e-2
    assert full.loss != part.loss


@dataclass(frozen=True)
class Shift:
    """A resampler that moves half of the points, at random."""

    every: int = 10

    def start(self, domain, points):
        return {"moves": 0}

    def update(self, domain, state, points, magnitude, generator):
        assert magnitude(points).shape == (len(points),)
        new = points.clone()
        half = len(points) // 2
        new[:half] = 2 * torch.rand(half, 1, generator=generator, dtype=F64)
        return new, {"moves": state["moves"] + 1}


STAGES = {
    "adam": [optim.Adam(40, lr=1e-2)],
    "batches": [optim.Adam(40, lr=1e-2, batch=5)],
    "soap on batches": [optim.SOAP(40, lr=1e-2, frequency=3, batch=5)],
    "lbfgs": [optim.Adam(10, lr=1e-2), optim.LBFGS(30)],
    "ssbroyden": [optim.SSBroyden(30)],
    "lm": [optim.Adam(10, lr=1e-2), optim.LevenbergMarquardt(22)],
}
MOVING = {
    "rba": {"weighting": RBA(eta=0.1, gamma=0.9, every=3)},
    "self-adaptive and points": {"weighting": SelfAdaptive(lr=0.05, every=5), "resample": Shift(12)},
    "balances": {"weighting": GradNorm(every=7) * ReLoBRaLo(rho=0.5, every=3) * NTK(every=9)},
    "rad": {"weighting": RBA(eta=0.1, gamma=0.9, every=2), "resample": RAD(every=8)},
    "r3": {"resample": R3(every=9)},
    "causal and refinement": {
        "weighting": Causal(chunks=4, every=4) * SoftAdapt(),
        "refine": Refine(threshold=1.0001, every=5, patience=1, growth=1.5, limit=3.0),
    },
}


class Cut:
    def __init__(self, at):
        self.at = at

    def on_step(self, record):
        if record.step == self.at:
            raise KeyboardInterrupt

    def on_stage(self, record):
        pass

    def on_end(self, outcome):
        pass


@pytest.mark.parametrize("stages", STAGES)
@pytest.mark.parametrize("moving", MOVING)
def test_killed_and_resumed_ends_with_the_same_bits(tmp_path, stages, moving):
    whole = run(STAGES[stages], tmp_path / "whole", **MOVING[moving])
    length = whole.outcome.history[-1].step
    cuts = sorted(random.Random(f"{stages}{moving}").sample(range(1, length), 2))
    with pytest.raises(KeyboardInterrupt):
        run(STAGES[stages], tmp_path / "cut", callbacks=[Cut(cuts[0])], checkpoint_every=0, **MOVING[moving])
    with pytest.raises(KeyboardInterrupt):
        run(STAGES[stages], tmp_path / "cut", callbacks=[Cut(cuts[1])], checkpoint_every=0, resume=True,
            network=net(7), **MOVING[moving])  # fmt: skip
    resumed = run(STAGES[stages], tmp_path / "cut", resume=True, network=net(8), **MOVING[moving])
    assert torch.equal(whole.outcome.theta, resumed.outcome.theta)
    assert [r._replace(seconds=0) for r in whole.outcome.history] == [
        r._replace(seconds=0) for r in resumed.outcome.history
    ]
    assert torch.equal(whole.objective.points, resumed.objective.points)
    for name, factor in whole.objective._factors.items():
        assert torch.equal(factor, resumed.objective._factors[name])


@pytest.mark.parametrize("stages", STAGES)
def test_every_stage_solves_under_moving_weights_and_points(stages):
    solution = run(STAGES[stages], weighting=RBA(eta=0.1, gamma=0.9, every=4), resample=Shift(15))
    theta = solution.outcome.theta
    assert solution.objective.version > 0
    plain = objective()
    start = float(plain.value_and_gradient(plain.start())[0])
    assert float(plain.value_and_gradient(theta)[0]) < start / 2
    # The loss that is reported belongs to the weights the stage ended with.
    if stages in ("lm", "ssbroyden"):
        assert float(solution.objective.value_and_gradient(theta)[0]) == pytest.approx(
            solution.loss, rel=1e-9
        )


def test_levenberg_marquardt_does_not_feel_the_units_of_a_new_weight():
    # All factors times 2^-20 in the middle: residual and damping scale alike, so the path is the same.
    class Scale:
        def __init__(self, target):
            self.target = target

        def __call__(self, target, stage, theta, step):
            if step == 5:
                small = torch.tensor(2.0**-20, dtype=F64)
                target.set_factors({"equation[0]": small, "initial": small})

    from ntangent.run import train

    stages = [optim.LevenbergMarquardt(12)]
    plain, scaled = objective(), objective()
    a = train(stages, plain, plain.start())
    b = train(stages, scaled, scaled.start(), revise=Scale(scaled))
    torch.testing.assert_close(b.theta, a.theta, rtol=1e-9, atol=1e-11)
    assert b.loss == pytest.approx(a.loss * 2.0**-20, rel=1e-8)


def test_adam_takes_one_step_along_the_old_gradient():
    from ntangent.run import train

    target = objective()

    def revise(changing, stage, theta, step):
        if step == 1:
            changing.set_factors({"equation[0]": torch.tensor(100.0, dtype=F64)})

    plain = objective()
    expected = train([optim.Adam(2)], plain, plain.start())
    found = train([optim.Adam(2)], target, target.start(), revise=revise)
    assert torch.equal(found.theta, expected.theta)
    assert found.history[0].loss == expected.history[0].loss
    assert found.history[1].loss == pytest.approx(float(target.value_and_gradient(found.theta)[0]), rel=1e-14)
    assert found.history[1].loss > expected.history[1].loss


def test_points_are_added_when_the_network_fits_only_those_it_has():
    problem = Problem(
        Box(x=(0.0, 1.0)), [lambda u, p, x: u.xx + 20 * (6 * x).sin()], [Dirichlet(x=(0.0, 1.0))]
    )
    target = PinnObjective(
        problem, net(width=10), Uniform(4, 0).points(problem.domain, F64, torch.device("cpu"))
    )
    refine = Refine(every=5, patience=2, limit=4.0)
    held = Uniform(300, 9).points(problem.domain, F64, torch.device("cpu"))
    revision = Revision(target, refine=refine, held_out=held)
    from ntangent.run import train

    train([optim.LevenbergMarquardt(60)], target, target.start(), revise=revision)
    assert 4 < len(target.points) <= 16
    assert bool(((target.points >= 0) & (target.points <= 1)).all())
    easy = objective(64)
    quiet = Revision(
        easy, refine=refine, held_out=Uniform(300, 9).points(easy.problem.domain, F64, torch.device("cpu"))
    )
    train([optim.Adam(60)], easy, easy.start(), revise=quiet)
    assert len(easy.points) == 64
    assert 0.5 < quiet.ratio < 2


def test_metrics_hold_the_weights(tmp_path):
    solution = run([optim.Adam(3)], weighting=Fixed({"initial": 7.0}), refine="auto")
    assert solution.outcome.history[-1].info["weight initial"] == 7.0
    assert solution.outcome.history[-1].info["points"] == 12.0
    last = solution.outcome.history[-1]
    terms = [last.info[f"loss {name}"] for name in ("equation[0]", "initial")]
    assert sum(terms) == pytest.approx(last.loss, rel=1e-12)


@dataclass(frozen=True)
class Foreign:
    """A stage that knows nothing of refresh."""

    iterations: int = 4

    def begin(self, target, theta):
        from ntangent._base.protocols import State

        return State(theta, float(target.value_and_gradient(theta)[0]))

    def step(self, target, state):
        from dataclasses import replace

        return replace(state, iteration=state.iteration + 1)


def started():
    return Problem(Box(t=(0.0, 2.0)), [lambda u: u.t], [Initial(1.0, hard=True)])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resample": Shift(1000)}, "fewer iterations"),
        ({"stages": [optim.Adam(4, batch=12)]}, r"Adam\(batch=12\) has no effect: there are 12"),
        ({"weighting": Causal(chunks=1)}, "one chunk"),
        ({"weighting": RBA(), "stages": [Foreign()]}, "during Foreign"),
        ({"problem": started(), "weighting": NTK()}, "has one"),
        ({"resample": Shift(2), "sampler": nt.pinn.Grid(9)}, "structure of Grid"),
    ],
)
def test_options_without_effect_are_said(options, words):
    given = {"problem": decay(), "stages": [optim.Adam(4)], "sampler": Uniform(12, 1)} | options
    with pytest.warns(NoEffectWarning, match=words):
        solve(given.pop("problem"), net(), given.pop("stages"), progress=False, **given)


def test_no_warning_without_reason():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(
            [optim.Adam(4, batch=5), optim.LevenbergMarquardt(2)], weighting=RBA() * GradNorm(), refine="auto"
        )


@pytest.mark.parametrize("options", [{"weighting": "rba"}, {"resample": 3}, {"refine": "yes"}])
def test_other_things_are_refused(options):
    with pytest.raises(DtypeError):
        run([optim.Adam(1)], **options)
