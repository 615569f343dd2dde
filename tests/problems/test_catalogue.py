"""Every problem of the catalogue; a new file is tested without touching this one."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from click.testing import CliRunner
from reference_checks import equation_blocks, interior, perturbed, plain, rms, rows, soft, values_of

from ntangent import pinn, problems
from ntangent._base.errors import NtangentError
from ntangent.cli.app import cli
from ntangent.pinn.objective import PinnObjective
from ntangent.problems import CATALOGUE
from ntangent.problems.catalogue import Published, Standard

F64, CPU = torch.float64, torch.device("cpu")
NAMES = list(CATALOGUE)
REACHES = (0.002, 0.01, 0.04, 0.15)


def small(name, **more):
    """Return the recipe with an early end, where it has one: its reference takes less time."""
    kind = CATALOGUE[name]
    fields = {f.name: f for f in dataclasses.fields(kind)}
    early = {"end": 0.1 * fields["end"].default} if "end" in fields else {}
    return kind(**{k: v for k, v in (early | more).items() if k in fields})


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_satisfies_the_equations_and_a_perturbed_one_does_not(name):
    problem = small(name).problem()
    for block in equation_blocks(problem, interior(problem, 6)):
        exact = min(rms(rows(problem, block, values_of(problem), reach)) for reach in REACHES)
        moved = rms(rows(problem, block, perturbed(problem, 1e-3), 0.15))
        assert exact < 1e-2 * moved, (block.name, exact, moved)


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_satisfies_the_conditions(name):
    problem = small(name).problem()
    values = values_of(problem)
    size = rms(values(interior(problem, 50)))
    for condition in problem.conditions:
        for block in soft(condition).blocks(plain(problem), F64, CPU):
            # Small derivatives against their own size: that of a wave across the domain.
            order = max(sum(b) for members in block.demand.fields.values() for b in members)
            scale = size * max(2 * math.pi / (high - low) for _, low, high in problem.box.intervals) ** order
            # The median: a start with a kink has no slope there at t = 0.
            exact = min(float(rows(problem, block, values, reach).abs().median()) for reach in (0.002, 0.15))
            assert exact < 1e-5 * (size + scale), (condition, exact, size, scale)


@pytest.mark.parametrize("name", NAMES)
def test_a_few_iterations_lower_the_loss(name):
    recipe = small(name, width=8, depth=2, points=60, iterations=8, features=0, restarts=0, windows=1)
    problem, net = recipe.problem(), recipe.network()
    objective = PinnObjective(problem, net, recipe.sampler().points(problem.domain, F64, CPU))
    before = float(objective.residuals(objective.start()).square().sum())
    solution = problems.run(name, recipe, progress=False)
    assert solution.loss < 0.99 * before
    result = solution.summary(solution.evaluate(points=16))
    numbers = recipe.headline(result)
    assert numbers["seconds"] == result["seconds"]
    assert all(math.isfinite(v) for v in numbers.values() if isinstance(v, float))
    if isinstance(recipe, Standard):
        assert numbers["relative_l2"] >= 0
        if len(problem.components) > 1:
            assert {f"relative_l2_{field}" for field in problem.components} <= set(numbers)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_it_is(name):
    recipe = CATALOGUE[name]()
    spaces = vars(__import__(type(recipe).__module__, fromlist=["*"]))
    assert eval(repr(recipe), dict(spaces)) == recipe
    stages = recipe.stages()
    assert stages
    assert all(type(s).__name__ in repr(s) for s in stages)
    result = CliRunner().invoke(cli, ["solve", name, "--help"])
    assert result.exit_code == 0
    for field in dataclasses.fields(recipe):
        assert f"--{field.name.replace('_', '-')}" in result.output
    for published in getattr(recipe, "published", ()):
        assert isinstance(published, Published)
        assert 0 < published.error < 1
        assert published.source


@pytest.mark.parametrize("options", [{"points": 0}, {"iterations": -1}, {"features": -1}, {"seed": -1}])
def test_wrong_options_are_refused(options):
    with pytest.raises(NtangentError):
        CATALOGUE["poisson1d"](**options)


@pytest.mark.parametrize("options", [{"waves": 0}, {"degree": 0}, {"waves": 2.5}, {"windows": 0}])
def test_wrong_waves_are_refused(options):
    with pytest.raises(NtangentError):
        CATALOGUE["kdv"](**options)


@pytest.mark.parametrize(("name", "waves"), [("kdv", 12), ("kuramoto-sivashinsky", 32)])
def test_waves_in_windows_follow_the_reference(name, waves):
    """Until their start begins to steepen, with what the reference has above the highest wave as the goal."""
    recipe = CATALOGUE[name](end=0.02, windows=2, waves=waves)
    solution = problems.run(name, recipe, progress=False)
    x = torch.linspace(*recipe.problem().interval("x"), 101, dtype=F64)
    end = torch.full_like(x, 0.02)
    exact = recipe.problem().reference(x, end)
    assert float((solution(x=x, t=end) - exact).norm() / exact.norm()) < 1e-11
    assert solution.summary()["relative_l2"] < 1e-11
    # With iterations a network is trained, as everywhere.
    trained = CATALOGUE[name](iterations=5, points=50)
    assert [type(stage).__name__ for stage in trained.stages()] == ["LevenbergMarquardt"]
    assert trained.sampler().n == 50


@pytest.mark.parametrize(
    ("name", "goal"), [("poisson1d", 1e-14), ("beam", 1e-13), ("biharmonic1d", 1e-13), ("poisson2d", 1e-13)]
)
def test_smooth_linear_problems_reach_round_off(name, goal, tmp_path):
    """A margin of ten and more over what is measured; the condition of the problem bounds it from below."""
    for seed in ("0", "1"):
        arguments = [
            "solve",
            name,
            "--seed",
            seed,
            "--run-dir",
            str(tmp_path / seed),
            "--no-report",
            "--json",
        ]
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout.splitlines()[-1])["relative_l2"] < goal


def test_unknown_parameters_are_found_to_rounding():
    """From exact observations: Newton's method on polynomials, begun from a network."""
    recipe = CATALOGUE["pendulum"]()
    result = problems.run("pendulum", recipe, progress=False).summary()
    assert max(result["unknown_errors"].values()) < 1e-11  # 5e-14 is measured
    assert result["relative_l2"] < 1e-11
    alone = CATALOGUE["pendulum"](degree=0, points=150)
    assert [type(stage).__name__ for stage in alone.stages()] == ["LevenbergMarquardt"]
    assert len(alone.sampler().points(alone.problem().domain, F64, CPU)) == 150
    with pytest.raises(NtangentError):
        CATALOGUE["pendulum"](degree=-1)


def test_solitons_in_windows_follow_the_closed_form():
    recipe = CATALOGUE["schroedinger"](waves=48)
    whole = recipe.problem()
    end = whole.interval("t")[1] / 20
    early = dataclasses.replace(
        whole, domain=whole.domain.between("t", 0.0, end), extent=whole.extent.between("t", 0.0, end)
    )
    solution = pinn.march(
        early, recipe.network(), recipe.stages(), windows=2, sampler=recipe.sampler(), progress=False
    )
    x = torch.linspace(-5, 5, 101, dtype=F64)  # on both sides of the symmetry
    t = torch.full_like(x, end)
    found, exact = solution(x=x, t=t), whole.reference(x, t)
    for name in ("u", "v"):
        assert float((found[name] - exact[name]).abs().max()) < 1e-10


def test_burgers_is_odd_and_known_on_both_sides():
    recipe = CATALOGUE["burgers"](iterations=60, points=600)
    solution = problems.run("burgers", recipe, progress=False)
    x = torch.linspace(0, 1, 11, dtype=F64)
    t = torch.full_like(x, 0.3)
    right, left = solution(x=x, t=t), solution(x=-x, t=t)
    assert torch.equal(left[1:], -right[1:])
    assert float(right.abs().max()) > 0.5
    assert solution.evaluate(points=5)["axis_x"].tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
