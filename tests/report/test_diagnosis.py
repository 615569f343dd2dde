"""Every rule names the fault that was planted; a healthy run gets no alarm."""

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ntangent as nt
from ntangent import optim, pinn
from ntangent._base.errors import ConvergenceError
from ntangent.diagnose import Monitor
from ntangent.report import diagnose_run, write_report
from ntangent.report.diagnosis import RULES
from ntangent.report.diagnosis.hidden_error import modes


def net(seed: int = 0, dtype: torch.dtype = torch.float64, inputs: int = 1, **options: Any) -> Any:
    return nt.MLP(inputs, 1, **{"width": 12, "depth": 2, "dtype": dtype, "generator": seed, **options})


def found(path: Path) -> dict[str, Any]:
    return {f["rule"]: f for f in diagnose_run(path).document()["findings"]}


Solve = Callable[..., Path]


@pytest.fixture
def solve(tmp_path: Path) -> Solve:
    def run(problem: pinn.Problem, network: Any, stages: list[Any], **options: Any) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pinn.solve(problem, network, stages, run_dir=tmp_path / "run", progress=False, **options)
        return tmp_path / "run"

    return run


def decay(**options: Any) -> pinn.Problem:
    given = {
        "domain": pinn.Box(x=(0, 1)),
        "equations": [lambda u, p: u.x + p.k * u],
        "conditions": [pinn.Dirichlet(x=0, value=1), pinn.Dirichlet(x=1, value=0.5)],
        "unknowns": {"k": pinn.Unknown(1.0)},
    }
    return pinn.Problem(**{**given, **options})


def wave(n: int = 1) -> pinn.Problem:
    """-u'' = (nπ)² sin nπx, u = 0 at both ends."""
    a = n * math.pi
    return pinn.Problem(
        domain=pinn.Box(x=(-1, 1)),
        equations=[lambda u, x: u.xx + a**2 * (a * x).sin()],
        conditions=[pinn.Dirichlet(x=-1, value=0), pinn.Dirichlet(x=1, value=0)],
        reference=lambda x: torch.sin(a * x),
    )


def adam(count: int, **options: Any) -> list[Any]:
    return [optim.Adam(count, **options)]


def lm(count: int) -> list[Any]:
    return [optim.LevenbergMarquardt(count)]


# --- healthy runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_healthy_runs_get_no_alarm(solve: Solve, seed: int) -> None:
    problem, stages, options = {
        0: (decay(), lm(40), {}),
        1: (wave(), lm(60), {}),
        2: (decay(), adam(400, lr=1e-2), {"monitor": Monitor(20, ["snr", "adam"])}),
    }[seed % 3]
    assert found(solve(problem, net(seed), stages, **options)) == {}


# --- planted faults --------------------------------------------------------------------------------


def test_stuck_in_diffusion(solve: Solve) -> None:
    # A zero mean of gradients with strong noise: a high mode that a smooth network cannot see.
    run = solve(
        wave(12), net(width=8), adam(400, lr=1e-4), monitor=Monitor(5, ["snr"]),
        sampler=pinn.Uniform(400, seed=0),
    )  # fmt: skip
    assert "stuck-in-diffusion" in found(run)


def test_without_a_monitor_the_phase_cannot_be_told(solve: Solve) -> None:
    answer = diagnose_run(solve(decay(), net(), lm(5)))
    assert "--monitor snr" in answer.unknown["stuck-in-diffusion"]
    assert "stuck-in-diffusion" not in answer.checked


def test_gradient_conflict(solve: Solve) -> None:
    contradiction = [pinn.Dirichlet(x=0, value=1), pinn.Dirichlet(x=0, value=-1)]
    run = solve(decay(conditions=contradiction, unknowns={}, equations=[lambda u: u.x + u]), net(), lm(30))
    assert "gradient-conflict" in found(run)
    assert found(run)["gradient-conflict"]["evidence"]["terms"] == ["dirichlet[0]", "dirichlet[1]"]


def test_term_not_trained(solve: Solve) -> None:
    conditions = [pinn.Dirichlet(x=0, value=1, weight=1e-9), pinn.Dirichlet(x=1, value=0.2)]
    run = solve(
        decay(conditions=conditions, unknowns={}, equations=[lambda u: u.xx - u]), net(), adam(600, lr=1e-2)
    )
    assert found(run)["term-not-trained"]["evidence"]["term"] == "dirichlet[0]"


def test_trivial_solution_beside_the_conditions(solve: Solve) -> None:
    conditions = [pinn.Dirichlet(x=0, value=1, weight=1e-9), pinn.Dirichlet(x=1, value=-1, weight=1e-9)]
    run = solve(decay(conditions=conditions, unknowns={}, equations=[lambda u: u.xx]), net(), lm(30))
    assert "trivial-solution" in found(run) or "term-not-trained" in found(run)


def test_trivial_solution_of_a_homogeneous_problem(solve: Solve) -> None:
    conditions = [pinn.Dirichlet(x=0, value=0), pinn.Dirichlet(x=1, value=0)]
    run = solve(decay(conditions=conditions, unknowns={}, equations=[lambda u: u.xx + 9 * u]), net(), lm(40))
    assert "trivial-solution" in found(run)


def test_trivial_solution_against_the_exact_one(solve: Solve) -> None:
    problem = pinn.Problem(
        domain=pinn.Box(x=(0, 1)), equations=[lambda u: u.x * u - u.x * u.x],
        conditions=[pinn.Dirichlet(x=0, value=1.0)], reference=lambda x: torch.exp(x),
    )  # fmt: skip
    flat = net()
    with torch.no_grad():
        for p in flat.parameters():
            p.mul_(1e-3)
    assert "trivial-solution" in found(solve(problem, flat, lm(30)))


def test_residual_small_and_solution_off_names_the_mode(solve: Solve) -> None:
    """u'' = f without enough conditions: the linear mode is free."""
    problem = pinn.Problem(
        domain=pinn.Box(x=(-1, 1)), equations=[lambda u, x: u.xx + math.pi**2 * (math.pi * x).sin()],
        conditions=[pinn.Dirichlet(x=0, value=0)],
        reference=lambda x: torch.sin(math.pi * x) + 3 * x,
    )  # fmt: skip
    finding = found(solve(problem, net(), lm(60)))["residual-small-solution-off"]
    assert next(iter(finding["evidence"]["modes"])) == "1"


def test_modes_of_an_error_are_its_cosine_coefficients() -> None:
    x = (np.arange(400) + 0.5) / 400
    one = modes(np.cos(3 * np.pi * x))
    assert one["3"] == pytest.approx(1, abs=1e-12)
    two = modes(np.cos(2 * np.pi * x)[:, None] * np.cos(5 * np.pi * x)[None, :])
    assert two["2, 5"] == pytest.approx(1, abs=1e-12)


def test_under_resolved(solve: Solve) -> None:
    run = solve(wave(4), net(width=24), lm(150), sampler=pinn.Uniform(12, seed=0))
    assert "under-resolved" in found(run)


def test_derivative_noise(solve: Solve) -> None:
    """Fourth derivatives in float32, of a network with large weights."""
    problem = pinn.Problem(
        domain=pinn.Box(x=(0, 1)),
        equations=[lambda u, x: u.xxxx - 0.5 * x],
        conditions=[pinn.Dirichlet(x=0, value=0), pinn.Dirichlet(x=1, value=0)],
    )
    for dtype, wanted in ((torch.float32, True), (torch.float64, False)):
        sharp = net(dtype=dtype)
        with torch.no_grad():
            sharp[0].weight.mul_(8)
        run = solve(problem, sharp, lm(60), overwrite=True)
        assert ("derivative-noise" in found(run)) is wanted


def test_saturated_layers(solve: Solve) -> None:
    full = net()
    with torch.no_grad():
        full[2].weight.mul_(1e3)
        full[2].bias.add_(1e2)
    finding = found(solve(decay(), full, adam(5)))["saturated-layers"]
    assert finding["evidence"]["layer"] == "2"


def test_unknown_without_signal(solve: Solve) -> None:
    equations = [lambda u, p: u.x + u + 1e-9 * p.k * u]
    conditions = [pinn.Dirichlet(x=0, value=1)]
    finding = found(solve(decay(equations=equations, conditions=conditions), net(), lm(40)))
    assert finding["unknown-without-signal"]["evidence"]["unknown"] == "k"


def test_stiff_decay(solve: Solve) -> None:
    equations = [lambda u, t: u.t + 1e4 * (u - t.cos())]
    problem = pinn.Problem(domain=pinn.Box(t=(0, 1)), equations=equations, conditions=[pinn.Initial(0.0)])
    finding = found(solve(problem, net(), adam(50), sampler=pinn.Uniform(60, seed=0)))["stiff-decay"]
    assert finding["evidence"]["rate"] == pytest.approx(1e4, rel=1e-9)


def test_the_optimiser_that_stopped_says_why(solve: Solve) -> None:
    problem = decay(equations=[lambda u, p: u.x - p.k * u.exp() * u.exp()])
    run = solve(problem, net(), adam(50, lr=1e3))
    finding = found(run)["optimiser-stopped"]
    assert "not finite" in finding["evidence"]["reason"]


def test_a_training_that_broke_off_says_why(solve: Solve, tmp_path: Path) -> None:
    class Bomb:
        def on_step(self, record: Any) -> None:
            if record.step == 3:
                raise ConvergenceError("the loss became nan", "planted", "none")

        def on_stage(self, record: Any) -> None: ...
        def on_end(self, outcome: Any) -> None: ...

    with pytest.raises(ConvergenceError):
        solve(decay(), net(), adam(10), callbacks=[Bomb()])
    assert "became nan" in found(tmp_path / "run")["optimiser-stopped"]["text"]


# --- the page --------------------------------------------------------------------------------------


def test_the_page_says_it_in_words_and_shows_it(solve: Solve) -> None:
    contradiction = [pinn.Dirichlet(x=0, value=1), pinn.Dirichlet(x=0, value=-1)]
    run = solve(decay(conditions=contradiction, unknowns={}, equations=[lambda u: u.x + u]), net(), lm(30))
    text = write_report(run).read_text(encoding="utf-8")
    rule = RULES["gradient-conflict"]
    assert rule.title in text and rule.advice[1] in text and "arXiv 2001.06782" in text
    image = (run / "figures" / "diagnosis-gradient-conflict.png").read_bytes()
    assert image.startswith(b"\x89PNG")
    document = json.loads(json.dumps(diagnose_run(run).document(), allow_nan=False))
    for finding in document["findings"]:
        assert (run / finding["figure"]).exists()
    (run / "final.json").unlink()
    assert "gradient-conflict" in diagnose_run(run).unknown
    write_report(run)
    assert not (run / "figures" / "diagnosis-gradient-conflict.png").exists(), "figures of old findings go"


def test_every_rule_has_a_threshold_a_source_and_advice() -> None:
    assert len(RULES) == 11
    for name, rule in RULES.items():
        assert name == rule.name
        assert rule.threshold and rule.source and rule.advice and rule.title
