"""Adam against torch.optim.Adam, schedules, and how it ends."""

from __future__ import annotations

import math

import pytest
import torch
from problems import LeastSquares, drive, net_start, resumes, rosenbrock, tanh_net

from ntangent._base.errors import ArgumentError, ConvergenceError, DtypeError, ShapeError
from ntangent._base.protocols import Objective, Stage
from ntangent.optim import Adam, Cosine, ExponentialDecay


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("schedule", [None, ExponentialDecay(0.5, 20), Cosine(0.1)])
def test_equal_to_torch_step_for_step(dtype, schedule):
    objective = LeastSquares(tanh_net(dtype))
    stage = Adam(100, lr=0.02, betas=(0.8, 0.99), schedule=schedule)
    state = stage.begin(objective, net_start(dtype=dtype))
    theirs = net_start(dtype=dtype).requires_grad_(True)
    optimizer = torch.optim.Adam([theirs], lr=0.02, betas=(0.8, 0.99), foreach=False)
    for iteration in range(100):
        factor = 1.0 if schedule is None else schedule.factor(iteration, 100)
        optimizer.param_groups[0]["lr"] = 0.02 * factor
        theirs.grad = objective.value_and_gradient(theirs.detach())[1]
        optimizer.step()
        state = stage.step(objective, state)
        assert torch.equal(state.theta, theirs.detach()), iteration
    assert state.stop == "the budget of 100 iterations is used"


def schedule_of_torch(make, steps):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ExponentialDecay(0.9, 7), lambda o: torch.optim.lr_scheduler.StepLR(o, 7, 0.9)),
        (ExponentialDecay(0.9, 1, smooth=True), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)),
        (Cosine(0.25), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40, 0.25)),
    ],
)
def test_schedules_equal_those_of_torch(ours, theirs):
    assert [ours.factor(i, 40) for i in range(40)] == pytest.approx(schedule_of_torch(theirs, 40), rel=1e-12)
    assert eval(repr(ours)) == ours


def test_one_gradient_per_iteration():
    objective = LeastSquares(rosenbrock)
    state = drive(Adam(30), objective, torch.zeros(3))
    assert objective.values == 31 == state.info["evaluations"] and state.iteration == 30
    assert (objective.residual_calls, objective.jacobians) == (0, 0)


def test_resumes_with_the_same_bits():
    assert resumes(
        lambda: Adam(60, lr=0.01, schedule=Cosine()),
        lambda: LeastSquares(tanh_net()),
        net_start(),
        [7, 8, 31],
    )


def test_stop_reasons():
    objective = LeastSquares(rosenbrock)
    assert drive(Adam(5), objective, torch.ones(3)).stop == "the loss is exactly zero"
    assert (
        drive(Adam(5), LeastSquares(lambda t: 1 + t * t), torch.zeros(1)).stop
        == "the gradient is exactly zero"
    )
    reached = drive(Adam(9999, lr=0.05, tolerance=1e-3), objective, torch.zeros(3))
    assert reached.stop == "the loss reached the tolerance 0.001" and reached.loss <= 1e-3
    stage = Adam(5)
    assert stage.step(objective, reached) is reached


def test_stops_at_the_last_finite_point():
    state = drive(Adam(100, lr=0.3), LeastSquares(torch.sqrt), torch.ones(2))
    assert "not finite" in state.stop and "learning rate 0.3" in state.stop
    assert state.iteration == 3 and math.isfinite(state.loss) and bool((state.theta > 0).all())
    with pytest.raises(ConvergenceError, match="initial parameters"):
        Adam(1).begin(LeastSquares(torch.sqrt), -torch.ones(2))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"iterations": 0}, ArgumentError, "iterations"),
        ({"iterations": 1.5}, DtypeError, "iterations"),
        ({"lr": -1.0}, ArgumentError, "lr"),
        ({"lr": "fast"}, DtypeError, "lr"),
        ({"eps": 0.0}, ArgumentError, "eps"),
        ({"betas": (0.9, 1.0)}, ArgumentError, "betas"),
        ({"betas": 0.9}, DtypeError, "betas"),
        ({"tolerance": -1.0}, ArgumentError, "tolerance"),
        ({"tolerance": math.nan}, ArgumentError, "tolerance"),
        ({"schedule": 0.9}, DtypeError, "schedule"),
    ],
)
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        Adam(**({"iterations": 1} | arguments))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ExponentialDecay(1.1),
        lambda: ExponentialDecay(0.9, 0),
        lambda: ExponentialDecay(0.9, 1, "yes"),
        lambda: Cosine(2.0),
        lambda: Cosine("x"),
    ],
)
def test_bad_schedules(make):
    with pytest.raises((ArgumentError, DtypeError), match="fix:"):
        make()


def test_bad_parameters():
    objective = LeastSquares(rosenbrock)
    for theta, error in [
        ([1.0], DtypeError),
        (torch.zeros(2, dtype=torch.int64), DtypeError),
        (torch.zeros(2, 2), ShapeError),
        (torch.zeros(0), ShapeError),
        (torch.tensor([math.nan]), ArgumentError),
    ]:
        with pytest.raises(error):
            Adam(1).begin(objective, theta)


def test_contract():
    stage = Adam(3, betas=[0.9, 0.99], schedule=ExponentialDecay(0.5, 2))
    assert isinstance(stage, Stage) and isinstance(LeastSquares(rosenbrock), Objective)
    assert eval(repr(stage)) == stage and hash(stage) == hash(eval(repr(stage)))
    theta = torch.zeros(3)
    state = drive(stage, LeastSquares(rosenbrock), theta)
    assert torch.equal(theta, torch.zeros(3)) and not state.theta.requires_grad
