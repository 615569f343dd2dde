"""``solve`` from end to end: it learns, resumes to the same bits, and refuses what cannot work."""

from __future__ import annotations

import json
import math

import pytest
import torch
from pinn.stopping import Enough
from torch import nn

import ntangent as nt
from ntangent import optim
from ntangent._base.errors import (
    ArgumentError,
    CheckpointError,
    DtypeError,
    NtangentError,
    ProblemError,
    RunFolderError,
    ShapeError,
)
from ntangent.pinn import (
    Box,
    Chebyshev,
    Dirichlet,
    Grid,
    Initial,
    PointData,
    Problem,
    Uniform,
    Unknown,
    solve,
)

F64 = torch.float64
K = 1.3
DATA = torch.linspace(0.1, 2.0, 8, dtype=F64)


def decay(**more):
    return Problem(
        Box(t=(0.0, 2.0)),
        [lambda u, p: u.t + p.k * u],
        [Initial(1.0), PointData(DATA, torch.exp(-K * DATA))],
        unknowns={"k": Unknown(0.5, bounds=(0.1, 5.0))},
        reference=lambda t, order: torch.stack([(-K) ** j * torch.exp(-K * t) for j in range(order + 1)]),
        expected={"k": K},
        **more,
    )


def net(dtype=F64, seed=0, width=8):
    return nt.MLP(1, 1, width=width, depth=2, dtype=dtype, generator=seed)


def quiet(problem, network, stages, **more):
    return solve(problem, network, stages, progress=False, **{"sampler": Chebyshev(20)} | more)


def test_levenberg_marquardt_recovers_a_rate():
    network = net()
    solution = quiet(decay(), network, [optim.LevenbergMarquardt(100)])
    assert abs(solution.unknowns["k"] - K) <= 1e-6
    summary = solution.summary()
    assert summary["unknown_errors"]["k"] == abs(solution.unknowns["k"] - K)
    assert summary["max_errors"][0] <= 1e-6
    assert summary["max_residual"] <= 1e-4
    assert list(summary["terms"]) == ["equation[0]", "initial", "data"]
    x = torch.linspace(0, 2, 5, dtype=F64)
    assert solution(x).shape == (5,)
    assert torch.allclose(network(x[:, None])[:, 0], solution(x))
    assert torch.allclose(solution.derivatives(x, 2)[2], K**2 * torch.exp(-K * x), atol=1e-3)
    residual = solution.derivatives(x, 1)[1] + solution.unknowns["k"] * solution(x)
    assert torch.allclose(solution.residuals(x)[0], residual, atol=1e-15)
    assert solution.net is network


def test_adam_then_lbfgs_recover_a_rate():
    solution = quiet(decay(), net(), [optim.Adam(200, lr=1e-2), optim.LBFGS(200)])
    assert abs(solution.unknowns["k"] - K) <= 1e-3
    assert [r.stage for r in solution.outcome.history] == sorted(r.stage for r in solution.outcome.history)
    losses = {r.stage: r.loss for r in solution.outcome.history}
    assert losses[1] < losses[0]
    assert len(solution.outcome.reasons) == 2


def test_sobolev_terms_change_the_loss_and_still_solve():
    plain = quiet(decay(), net(), [optim.LevenbergMarquardt(1)], sobolev=0).outcome.history[0].loss
    raised = quiet(decay(), net(), [optim.LevenbergMarquardt(1)], sobolev=2).outcome.history[0].loss
    same = quiet(decay(), net(), [optim.LevenbergMarquardt(1)], sobolev=(1.0, 1.0)).outcome.history[0].loss
    assert raised != plain
    assert raised == same
    assert abs(quiet(decay(), net(), [optim.LevenbergMarquardt(80)], sobolev=1).unknowns["k"] - K) <= 1e-5


def test_float32():
    solution = quiet(decay(), net(torch.float32), [optim.LevenbergMarquardt(40)])
    assert solution(torch.tensor([0.5])).dtype == torch.float32
    assert abs(solution.unknowns["k"] - K) <= 1e-2


def test_a_fit_of_data_needs_no_equation():
    data = PointData(DATA, torch.sin(3 * DATA))
    solution = quiet(Problem(Box(t=(0.0, 2.0)), [], [data]), net(), [optim.LevenbergMarquardt(60)])
    assert solution.loss < 1e-8
    assert solution.residuals(DATA).shape == (0, 8)
    assert "max_residual" not in solution.summary()


STAGES = [optim.Adam(30, lr=1e-2), optim.LBFGS(15), optim.LevenbergMarquardt(15)]


@pytest.mark.parametrize("cut", [7, 38, 52])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, cut):
    whole = quiet(decay(), net(), STAGES, run_dir=tmp_path / "whole")
    quiet(decay(), net(), STAGES, run_dir=tmp_path / "cut", callbacks=[Enough(cut)])
    # Other weights: the checkpoint must bring all that matters.
    resumed = quiet(decay(), net(seed=5), STAGES, run_dir=tmp_path / "cut", resume=True)
    assert torch.equal(whole.outcome.theta, resumed.outcome.theta)
    assert whole.loss == resumed.loss
    assert whole.unknowns == resumed.unknowns
    assert [r.loss for r in whole.outcome.history] == [r.loss for r in resumed.outcome.history]
    a, b = (json.loads((tmp_path / f / "result.json").read_text()) for f in ("whole", "cut"))
    assert a.pop("seconds") != b.pop("seconds")
    assert a == b


def test_the_folder_is_protected(tmp_path):
    stages = [optim.LevenbergMarquardt(2)]
    with pytest.raises(RunFolderError, match="no run"):
        quiet(decay(), net(), stages, run_dir=tmp_path / "run", resume=True)
    quiet(decay(), net(), stages, run_dir=tmp_path / "run")
    with pytest.raises(RunFolderError, match="overwrite"):
        quiet(decay(), net(), stages, run_dir=tmp_path / "run")
    quiet(decay(), net(), stages, run_dir=tmp_path / "run", overwrite=True)
    with pytest.raises(RunFolderError, match="run_dir"):
        quiet(decay(), net(), stages).report()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"network": net(width=9)}, "network"),
        ({"stages": [optim.LevenbergMarquardt(3)]}, "stages"),
        ({"sampler": Chebyshev(21)}, "sampler.n"),
        ({"sobolev": 1}, "sobolev"),
        ({"seed": 1}, "seed"),
        ({"problem": decay(ansatz=lambda net, t: net(t) * 2)}, "statement.ansatz"),
        ({"network": net(torch.float32)}, "dtype"),
    ],
)
def test_another_configuration_is_named_on_resume(tmp_path, change, named):
    given = {"problem": decay(), "network": net(), "stages": [optim.LevenbergMarquardt(2)]}

    def run(arguments, **more):
        options = dict(arguments)
        return quiet(
            options.pop("problem"), options.pop("network"), options.pop("stages"), run_dir=tmp_path / "run",
            **options, **more,
        )  # fmt: skip

    run(given)
    with pytest.raises(CheckpointError, match=named.replace(".", r"\.")):
        run(given | change, resume=True)
    assert run(given, resume=True).loss > 0


class _Points:
    """A sampler that returns what it was given."""

    def __init__(self, points) -> None:
        self.given = points

    def points(self, domain, dtype, device):
        return self.given


def double(*values):
    return torch.tensor(values, dtype=F64).reshape(-1, 1)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"stages": []}, ArgumentError, "no stages"),
        ({"stages": optim.Adam(3)}, ArgumentError, "lists optimisers"),
        ({"stages": ["adam"]}, ArgumentError, "lists optimisers"),
        ({"network": torch.sin}, DtypeError, "Module"),
        ({"network": nn.Tanh()}, DtypeError, "no parameter"),
        ({"network": net().half()}, DtypeError, "float16"),
        ({"network": nn.Sequential(net(), net(torch.float32))}, DtypeError, "2 kinds"),
        ({"network": nn.ParameterList([nn.Parameter(torch.zeros(1).int(), False)])}, DtypeError, "int32"),
        ({"network": nt.MLP(1, 2, dtype=F64)}, ProblemError, r"\(20, 2\)"),
        ({"sampler": 20}, ArgumentError, "points"),
        ({"sampler": _Points(double(3.0))}, ProblemError, "outside"),
        ({"sampler": _Points(double(math.nan))}, NtangentError, "non-finite"),
        ({"sampler": _Points(double())}, ShapeError, r"\(0, 1\)"),
        ({"sampler": _Points(torch.zeros(3, 2, dtype=F64))}, ShapeError, r"\(3, 2\)"),
        ({"sampler": _Points(torch.zeros(3, 1))}, DtypeError, "float32"),
        ({"sobolev": -1}, ArgumentError, "sobolev"),
        ({"sobolev": 1.5}, DtypeError, "sobolev"),
        ({"sobolev": [1.0, -1.0]}, ArgumentError, "sobolev"),
        ({"sobolev": [math.nan]}, ArgumentError, "sobolev"),
        ({"resume": True}, ArgumentError, "run folder"),
        ({"resume": True, "overwrite": True, "run_dir": "runs/none"}, ArgumentError, "exclude"),
        ({"reference": lambda t, order: torch.exp(-t)}, ShapeError, "reference has shape"),
        ({"equations": [lambda u: torch.cat([u, u], 1)]}, ShapeError, r"equation\[0\]"),
        ({"equations": [lambda u: u - torch.ones(20, dtype=F64)]}, ShapeError, r"\(20, 20\)"),
        ({"conditions": [Dirichlet(t=0.0, value=[1.0, 2.0])]}, ShapeError, "value"),
    ],
)
def test_what_cannot_work_is_refused_before_a_folder_is_made(tmp_path, options, error, words):
    given = {"equations": [lambda u: u.t + u], "network": net(), "stages": [optim.LevenbergMarquardt(2)]}
    given |= options
    statement = {key: given.pop(key) for key in ("equations", "conditions", "reference") if key in given}
    if "run_dir" not in given and "resume" not in given:
        given["run_dir"] = tmp_path / "run"
    with pytest.raises(error, match=words):
        quiet(Problem(Box(t=(0.0, 2.0)), **statement), given.pop("network"), given.pop("stages"), **given)
    assert not (tmp_path / "run").exists()


def test_one_output_of_several_can_be_the_field():
    network = nt.MLP(1, 2, width=6, depth=1, dtype=F64, generator=0)
    problem = Problem(
        Box(t=(0.0, 1.0)), [lambda u: u.t + u], [Initial(1.0)], ansatz=lambda net, t: net(t)[:, :1]
    )
    assert quiet(problem, network, [optim.LevenbergMarquardt(40)]).loss < 1e-8


@pytest.mark.parametrize("sampler", [Grid(20), Uniform(20, seed=1)])
def test_every_sampler_serves(sampler):
    assert quiet(decay(), net(), [optim.LevenbergMarquardt(60)], sampler=sampler).loss < 1e-6


@pytest.mark.gpu
def test_on_a_gpu_as_on_the_cpu():
    solution = quiet(decay(), net().cuda(), [optim.LevenbergMarquardt(60)])
    assert solution(DATA).device.type == "cuda"
    assert abs(solution.unknowns["k"] - K) <= 1e-6
    assert "exact" in solution.evaluate()
