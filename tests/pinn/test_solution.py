"""What a solution in several coordinates and fields returns, and the residual at held-out points."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import ntangent as nt
from ntangent import optim
from ntangent._base.errors import ArgumentError, DtypeError, NtangentError, ProblemError, ShapeError
from ntangent.pinn import Box, Chebyshev, Dirichlet, Initial, Operator, Output, Problem, Uniform, solve
from ntangent.pinn.held_out import PARTED, HeldOut, other_sampler
from ntangent.pinn.objective import PinnObjective
from ntangent.run import read_metrics

F64 = torch.float64
SQUARE = Box(x=(0, 1), y=(0, 1))


def bump(x, y):
    return torch.sin(math.pi * x) * torch.sin(math.pi * y)


def poisson(**more):
    return Problem(
        SQUARE,
        [lambda u, x, y: u.laplacian() + 2 * math.pi**2 * bump(x, y)],
        [Dirichlet(x=(0, 1), n=16), Dirichlet(y=(0, 1), n=16)],
        reference=bump,
        **more,
    )


def quiet(problem, net, iterations=3, **more):
    options = {"sampler": Chebyshev(7), "progress": False} | more
    return solve(problem, net, [optim.LevenbergMarquardt(iterations)], **options)


def mlp(inputs=2, outputs=1):
    return nt.MLP(inputs, outputs, width=8, depth=2, dtype=F64, generator=0)


def test_poisson_is_solved_and_compared(tmp_path):
    solution = quiet(poisson(), mlp(), 80, run_dir=tmp_path / "run", sampler=Chebyshev(12))
    summary = solution.summary()
    assert summary["relative_l2"] < 1e-2
    x = torch.linspace(0, 1, 11, dtype=F64)
    values = solution(x=x[:, None], y=x)
    assert values.shape == (11, 11)
    error = (values - bump(x[:, None], x)).norm() / bump(x[:, None], x).norm()
    assert float(error) < 1e-2
    with np.load(tmp_path / "run" / "evaluation.npz") as arrays:
        assert set(arrays) == {"axis_x", "axis_y", "field_u", "exact_u", "residuals"}
        grid = torch.cartesian_prod(*[torch.from_numpy(arrays[f"axis_{n}"]) for n in "xy"])
        assert np.allclose(arrays["field_u"].ravel(), solution(grid).numpy(), rtol=1e-14)
        assert np.abs(arrays["field_u"] - arrays["exact_u"]).max() == summary["errors"]["u"]["max"]
    held = [
        r.info["held_out"]
        for r in read_metrics(tmp_path / "run" / "metrics.jsonl").steps
        if "held_out" in r.info
    ]
    assert held
    pytest.importorskip("matplotlib")
    assert solution.report().is_file()
    assert (tmp_path / "run" / "figures" / "field.png").stat().st_size > 10_000


def test_derivatives_by_name_against_nested_autograd():
    solution = quiet(poisson(), mlp())
    points = Uniform(9, seed=1).points(SQUARE, F64, torch.device("cpu"))
    at = points.clone().requires_grad_()
    value = solution.net(at)[:, 0]
    (g,) = torch.autograd.grad(value.sum(), at, create_graph=True)
    (h,) = torch.autograd.grad(g[:, 0].sum(), at)
    assert torch.allclose(solution(points), value.detach(), rtol=1e-14)
    assert torch.allclose(solution.derivative("x", points), g[:, 0].detach(), rtol=1e-12)
    assert torch.allclose(solution.derivative("xy", points), h[:, 1], rtol=1e-12)
    assert torch.allclose(solution.derivative({"x": 2}, points), h[:, 0], rtol=1e-12)
    assert solution.derivative("xx", x=0.5, y=points[:, 1]).shape == (9,)
    chunked = quiet(poisson(), mlp())
    chunked.chunk = 4
    assert torch.allclose(chunked(points), solution(points), rtol=1e-14)
    assert torch.allclose(chunked.residuals(points), solution.residuals(points), rtol=1e-12)
    for wrong in ("z", "xz", {"z": 1}):
        with pytest.raises(ArgumentError):
            solution.derivative(wrong, points)
    for call in (
        lambda: solution(points[:, :1]),
        lambda: solution(x=1.0),
        lambda: solution(points, x=1.0),
        lambda: solution(x=torch.zeros(2), y=torch.zeros(3)),
        lambda: solution.derivatives(points, 2),
    ):
        with pytest.raises(NtangentError):
            call()


def test_several_fields_come_by_name():
    problem = Problem(
        Box(t=(0, 1)),
        [lambda a, w: a.t - w[..., 0], lambda a, w: w[..., 0].t + a, lambda w: w[..., 1].t],
        [Initial(1.0, field="a"), Initial(0.0, field="w")],
        fields={"a": 1, "w": 2},
        reference=lambda t: {"a": torch.cos(t), "w": torch.cat([-torch.sin(t), 0 * t], 1)},
    )
    solution = quiet(problem, mlp(1, 3), 60, sampler=Chebyshev(20))
    values = solution(t=[0.0, 0.5])
    assert {name: tuple(v.shape) for name, v in values.items()} == {"a": (2,), "w": (2, 2)}
    errors = solution.summary()["errors"]
    assert set(errors) == {"a", "w"}
    assert max(e["relative_l2"] for e in errors.values()) < 1e-4
    assert solution.derivative("t", [0.5], field="w").shape == (1, 2)
    with pytest.raises(ArgumentError, match="field"):
        solution.derivative("t", [0.5])


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        (lambda x, y: bump(x, y).T, ShapeError),
        (lambda x, y: (x, y), ProblemError),
        (lambda x, y: {"v": x}, ProblemError),
        (lambda x, z, w: x, ProblemError),
    ],
)
def test_references_are_checked_before_the_training(reference, error):
    problem = Problem(SQUARE, [lambda u: u.x], reference=reference)
    with pytest.raises(error):
        quiet(problem, mlp())


def test_networks_by_name():
    problem = Problem(
        SQUARE,
        [lambda u, k: (k * u.x).x],
        [Dirichlet(x=0, n=3, field="u"), Operator(lambda k: k - 1, x=0, n=3)],
        fields={"u": 1, "k": Output(coordinates=("x",))},
    )
    solution = quiet(problem, {"u": mlp(), "k": mlp(1)})
    assert isinstance(solution.net, nn.ModuleDict)
    assert set(solution(x=0.5, y=0.5)) == {"u", "k"}
    for nets, error in (
        ({"u": mlp()}, ProblemError),
        ({"u": mlp(), "k": torch.sin}, DtypeError),
        (mlp(2, 2), ProblemError),
    ):
        with pytest.raises(error):
            quiet(problem, nets)


def test_held_out_points_are_others_and_tell_when_a_network_fits_points_only(caplog):
    problem = Problem(Box(x=(0, 1)), [lambda u, x: u - torch.sin(40 * x)], [])
    net = nt.MLP(1, 1, width=30, depth=2, dtype=F64, generator=1)
    points = Chebyshev(4).points(problem.domain, F64, torch.device("cpu"))
    objective = PinnObjective(problem, net, points)
    others = other_sampler(Chebyshev(4), 50).points(problem.domain, F64, torch.device("cpu"))
    held_out = HeldOut(objective, others, every=2)
    theta = objective.start()
    assert held_out.measure(1, theta) == {}
    first = held_out.measure(2, theta)
    residual = net(others).detach() - torch.sin(40 * others)
    assert first["held_out"] == pytest.approx(float(residual.square().mean()), rel=1e-12)
    assert held_out.warning is None
    stage = optim.LevenbergMarquardt(200)
    state = stage.begin(objective, theta)
    while state.stop is None and state.iteration < 200:
        state = stage.step(objective, state)
    measured = held_out.measure(4, state.theta)
    assert measured["held_out"] > PARTED * held_out.last["trained"]
    assert held_out.warning is not None
    assert "held-out" in caplog.text
    assert other_sampler(Uniform(5, seed=2), 5) != Uniform(5, seed=2)
