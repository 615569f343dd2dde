"""The profiles to round-off, from any start; wrong results are noticed and named."""

from __future__ import annotations

import json
import logging
import math

import pytest
import torch
from torch import nn

from ntangent._base.errors import ArgumentError, UnknownNameError
from ntangent.pinn.objective import PinnObjective
from ntangent.pinn.solution import Solution
from ntangent.problems import BurgersProfile, run
from ntangent.problems.burgers_profile import exact_profile, origin_coefficients
from ntangent.run import Outcome

F64 = torch.float64


@pytest.mark.parametrize("k", [1, 2])
def test_to_round_off(k):
    solution = run("burgers-profile", BurgersProfile(k), progress=False)
    assert abs(solution.unknowns["lam"] - 1 / (2 * k)) <= 1e-13
    assert solution.summary()["max_errors"][0] <= 1e-13
    assert BurgersProfile(k).objection(solution) is None


def test_the_funnel_ends_at_the_same_place():
    solution = run("burgers-profile", BurgersProfile(2, method="funnel", start=0.3), progress=False)
    assert abs(solution.unknowns["lam"] - 0.25) <= 1e-12


def test_a_start_near_the_end_is_noticed_and_started_again(tmp_path, caplog):
    recipe = BurgersProfile(1, start=0.05, iterations=80, restarts=0)
    with caplog.at_level(logging.WARNING, "ntangent.problems"):
        wrong = run("burgers-profile", recipe, progress=False)
    assert abs(wrong.unknowns["lam"] - 0.5) > 1e-2
    assert wrong.loss < 1e-6  # the loss alone does not tell
    assert "spurious minimum" in recipe.objection(wrong)
    assert "no attempt is left" in caplog.text
    recipe = BurgersProfile(1, start=0.05, iterations=80)
    right = run("burgers-profile", recipe, progress=False, run_dir=tmp_path / "run")
    assert abs(right.unknowns["lam"] - 0.5) <= 1e-12
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["options"]["attempt"] == 1
    # The result has the seconds of both attempts, also after a resume, which recomputes nothing.
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    (first,) = result["earlier_attempts"]
    assert "spurious minimum" in first["objection"]
    assert 0 < first["seconds"] < result["seconds"] == right.outcome.seconds
    resumed = BurgersProfile(**{k: v for k, v in config["options"].items() if k != "type"})
    again = run("burgers-profile", resumed, progress=False, run_dir=tmp_path / "run", resume=True)
    assert again.outcome.seconds >= right.outcome.seconds
    assert again.summary() | {"seconds": 0} == right.summary() | {"seconds": 0}


def solution_of(k, network, lam):
    recipe = BurgersProfile(k, lam=lam)
    problem = recipe.problem()
    points = recipe.sampler().points(problem.domain, F64, torch.device("cpu"))
    objective = PinnObjective(problem, network, points)
    return Solution(objective, Outcome(objective.start(), 0.0, [], (), 0.0), None)


@pytest.mark.parametrize(("slope", "name"), [(0.0, "U = 0"), (-1.0, "U = -X")])
def test_trivial_solutions_are_named(slope, name):
    layer = nn.Linear(1, 1, dtype=F64)
    with torch.no_grad():
        layer.weight.fill_(slope)
        layer.bias.zero_()
    assert name in BurgersProfile(1).objection(solution_of(1, nn.Sequential(layer), 0.4))


@pytest.mark.parametrize("k", [1, 3])
def test_coefficients_at_the_origin_vanish_at_the_right_exponent_only(k):
    rows = exact_profile(torch.zeros(1, dtype=F64), 2 * k + 2, k)[:, 0]
    right = origin_coefficients(rows, 1 / (2 * k))
    assert float(right.abs().max()) <= 1e-13
    wrong = origin_coefficients(rows, 1 / (2 * k) + 1e-3)
    # R_(2k+1) = (2k λ - 1) U_(2k+1) where the lower ones vanish, with U_(2k+1) = 1.
    assert float(wrong[2 * k + 1]) == pytest.approx(2 * k * 1e-3, rel=1e-9)
    assert float(wrong[: 2 * k + 1].abs().max()) <= 1e-13


def test_starts():
    assert BurgersProfile(1, start=0.25).first_lambda == pytest.approx(1 / 3 + 0.25 * 2 / 3)
    assert BurgersProfile(1, lam=0.7).first_lambda == 0.7
    again = BurgersProfile(1, lam=0.7).again()
    assert again.attempt == 1
    assert again.first_lambda == pytest.approx(2 / 3)
    assert BurgersProfile(1, restarts=1, attempt=1).again() is None
    first, second = (r.network().state_dict()["0.weight"] for r in (BurgersProfile(1), again))
    assert not torch.equal(first, second)
    with pytest.raises(ArgumentError, match="outside"):
        BurgersProfile(1, lam=0.2)
    with pytest.raises(UnknownNameError):
        BurgersProfile(1, method="secant")
    assert math.isclose(BurgersProfile(2).bracket[1], 1 / 3)
