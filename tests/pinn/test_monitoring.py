"""A monitor on solve: right numbers, the same bits as without it, over kill and resume."""

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ntangent as nt
from ntangent import diagnose, optim, pinn
from ntangent._base.errors import DtypeError, NoEffectWarning
from ntangent.pinn.monitoring import batch_gradients, blocks_of
from ntangent.pinn.objective import PinnObjective
from ntangent.run import RunFolder, read_metrics


def problem() -> pinn.Problem:
    return pinn.Problem(
        domain=pinn.Box(x=(-1, 1), t=(0, 1)),
        equations=[lambda u, p: u.t - p.nu * u.xx + u**3, lambda u: u.x + u.t],
        conditions=[pinn.Initial(lambda x: x.cos(), n=10), pinn.Periodic("x", n=7)],
        unknowns={"nu": pinn.Unknown(0.3)},
    )


def decay() -> pinn.Problem:
    return pinn.Problem(
        domain=pinn.Box(x=(0, 1)), equations=[lambda u: u.x + u], conditions=[pinn.Dirichlet(x=0, value=1)]
    )


def net(inputs: int = 1, **options: Any) -> nn.Module:
    return nt.MLP(inputs, 1, **{"width": 8, "depth": 2, "dtype": torch.float64, "generator": 0, **options})


class Scaled(nn.Module):
    """A parameter outside of linear layers: the per-point structure does not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.scale = net(2), nn.Parameter(torch.tensor(1.3, dtype=torch.float64))

    def forward(self, x: Any) -> Any:
        return self.inner(x) * self.scale


@pytest.mark.parametrize("chunk", [None, 11])
@pytest.mark.parametrize("network", [lambda: net(2), Scaled], ids=["structured", "general"])
def test_gradients_of_batches_are_those_of_the_batch_losses(network: Any, chunk: int | None) -> None:
    """Against the loss of each batch written out and differentiated by itself."""
    own = network()
    points = pinn.Uniform(40, seed=1).points(problem().domain, torch.float64, torch.device("cpu"))
    objective = PinnObjective(problem(), own, points, chunk=chunk)
    factor = torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    objective.set_factors({"equation[0]": factor})
    theta = objective.start()
    found = batch_gradients(objective, theta, 6)
    weights = {b.name: f for b, f in zip(objective.blocks, objective._scales, strict=True)}
    names = [b.name for b in objective.blocks]
    assert objective.movable() == ["equation[0]", "equation[1]"]
    r, jacobian = objective._general(theta)
    start, rows = 0, {}
    for block in objective.blocks:
        rows[block.name] = slice(start, start + len(block.weights) * block.count)
        start = rows[block.name].stop
    assert set(weights) == set(names)
    for k, chosen in enumerate(torch.arange(40).tensor_split(6)):
        expected = torch.zeros_like(theta)
        for name in names:
            part = torch.arange(rows[name].start, rows[name].stop)
            scale = 1.0
            if name in objective.movable():
                part, scale = part[chosen], 40 / len(chosen)
            expected += 2 * scale * r[part] @ jacobian[part]
        torch.testing.assert_close(found[k], expected, rtol=1e-10, atol=1e-12)


def test_the_mean_over_equal_batches_is_the_gradient() -> None:
    points = pinn.Uniform(40, seed=1).points(problem().domain, torch.float64, torch.device("cpu"))
    objective = PinnObjective(problem(), net(2), points)
    theta = objective.start()
    mean = batch_gradients(objective, theta, 8).mean(0)
    torch.testing.assert_close(mean, objective.value_and_gradient(theta)[1], rtol=1e-11, atol=1e-13)


def test_weights_of_points_are_the_roots_of_their_factors() -> None:
    points = pinn.Uniform(9, seed=1).points(problem().domain, torch.float64, torch.device("cpu"))
    objective = PinnObjective(problem(), net(2), points)
    objective.set_factors({"equation[0]": torch.full((9,), 4.0), "initial": 2.0})
    weights = {block.name: block.weights for block in blocks_of(objective)}
    assert weights["equation[0]"].tolist() == [2.0] * 9
    assert weights["equation[1]"] is None and weights["initial"] is None


def test_a_monitor_changes_no_bit_and_its_readings_are_in_the_metrics(tmp_path: Path) -> None:
    stages = [optim.Adam(20, betas=(0.8, 0.99)), optim.LevenbergMarquardt(4)]
    bare = pinn.solve(decay(), net(), stages, progress=False)
    monitor = diagnose.Monitor(6, ["snr", "adam", "homogeneity", "information", "spectrum"])
    seen = pinn.solve(decay(), net(), stages, progress=False, monitor=monitor, run_dir=tmp_path / "run")
    assert torch.equal(bare.outcome.theta, seen.outcome.theta)
    assert not any(name.startswith("monitor/") for record in bare.outcome.history for name in record.info)
    records = read_metrics(tmp_path / "run" / "metrics.jsonl").steps
    read = {r.step: r.info for r in records if "monitor/seconds" in r.info}
    assert list(read) == monitor.iterations == [6, 12, 18, 24]
    assert "monitor/adam.snr" in read[18] and "monitor/adam.snr" not in read[24], "LM has no moments"
    assert read[12]["monitor/snr.snr"] == monitor.readings[1].values["snr.snr"]
    noted = RunFolder.open(tmp_path / "run").read_result()["monitor"]
    assert noted["readings"] == 4
    assert noted["seconds"] == pytest.approx(sum(i["monitor/seconds"] for i in read.values()))
    assert 0 < noted["share"] < 1
    assert RunFolder.open(tmp_path / "run").config["monitor"]["every"] == 6


def test_adam_is_read_with_its_own_moments_and_settings() -> None:
    kept: dict[str, Any] = {}

    def look(snapshot: diagnose.Snapshot) -> dict[str, float | torch.Tensor]:
        kept.update(snapshot.memory or {})
        return {"seen": 1.0}

    spy = diagnose.Measure("spy", "nothing", ("memory",), look)
    monitor = diagnose.Monitor(7, ["adam", spy])
    pinn.solve(decay(), net(), [optim.Adam(7, betas=(0.5, 0.75), eps=1e-5)], progress=False, monitor=monitor)
    first = kept["first"] / (1 - 0.5**7)
    root = (kept["second"] / (1 - 0.75**7)).sqrt() + 1e-5
    found = monitor.readings[0].values
    assert found["adam.snr"] == pytest.approx(float(first.norm() / root.norm()), rel=1e-12)
    assert found["adam.effective_step"] == pytest.approx(float((first.abs() / root).mean()), rel=1e-12)


class Stop:
    """Breaks a run off like a kill, once."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step(self, record: Any) -> None:
        if record.step == self.at:
            raise KeyboardInterrupt

    def on_stage(self, record: Any) -> None: ...
    def on_end(self, outcome: Any) -> None: ...


def test_readings_survive_a_kill_and_a_resume(tmp_path: Path) -> None:
    def run(folder: str, monitor: diagnose.Monitor, **options: Any) -> pinn.Solution:
        return pinn.solve(
            decay(), net(), [optim.Adam(20)], weighting=pinn.RBA(), monitor=monitor,
            run_dir=tmp_path / folder, checkpoint_every=0, progress=False, **options,
        )  # fmt: skip

    whole = diagnose.Monitor(4, ["snr", "homogeneity"])
    run("whole", whole)
    with pytest.raises(KeyboardInterrupt):
        run("cut", diagnose.Monitor(4, ["snr", "homogeneity"]), callbacks=[Stop(10)])
    again = diagnose.Monitor(4, ["snr", "homogeneity"])
    run("cut", again, resume=True)
    assert again.iterations == whole.iterations == [4, 8, 12, 16, 20]
    for one, other in zip(again.readings, whole.readings, strict=True):
        assert one.numbers == other.numbers
    kept = [
        [{k: v for k, v in r.info.items() if k != "monitor/seconds"} for r in read_metrics(path).steps]
        for path in (tmp_path / "whole" / "metrics.jsonl", tmp_path / "cut" / "metrics.jsonl")
    ]
    assert kept[0] == kept[1]


def test_a_measure_that_never_applies_is_told() -> None:
    monitor = diagnose.Monitor(1, ["adam"])
    with pytest.warns(NoEffectWarning, match="'adam' read nothing"):
        pinn.solve(decay(), net(), [optim.LevenbergMarquardt(3)], progress=False, monitor=monitor)


def test_what_is_no_monitor_is_refused() -> None:
    with pytest.raises(DtypeError, match="Monitor"):
        pinn.solve(decay(), net(), [optim.Adam(3)], progress=False, monitor=["snr"])  # type: ignore[arg-type]


# --- the end of a training -------------------------------------------------------------------------


def final(problem: pinn.Problem, network: nn.Module, tmp_path: Path, **options: Any) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        s = pinn.solve(
            problem,
            network,
            [optim.Adam(2)],
            run_dir=tmp_path / "f",
            progress=False,
            overwrite=True,
            **options,
        )
    facts = RunFolder.open(tmp_path / "f").read_final()
    assert facts is not None
    return {**facts, "solution": s}


def test_facts_of_the_end_against_closed_forms(tmp_path: Path) -> None:
    facts = final(problem(), net(2), tmp_path, sampler=pinn.Uniform(30, seed=0))
    s = facts["solution"]
    objective, theta = s.objective, s.outcome.theta
    assert facts["missing"] == {}
    # Fields that vanish miss the initial condition by cos x, and satisfy all else.
    x = next(b for b in objective.blocks if b.name == "initial").points[:, 0]
    assert facts["terms"]["initial"]["of_zero"] == pytest.approx(float(x.cos().square().mean()), rel=1e-12)
    assert facts["terms"]["equation[0]"]["of_zero"] == 0
    r, jacobian = objective._general(theta)
    values = torch.linalg.svdvals(jacobian)
    torch.testing.assert_close(torch.tensor(facts["spectrum"]["values"], dtype=torch.float64), values)
    assert sum(facts["spectrum"]["modes"]) + facts["spectrum"]["rest"] == pytest.approx(float(r @ r))
    # The residual is linear in nu: a change by its own size (its start) moves it by |u_xx| times that.
    assert facts["unknowns"]["nu"]["reach"] == pytest.approx(
        float(jacobian[:, -1].norm()) * max(0.3, s.unknowns["nu"]), rel=1e-6
    )
    gradients = facts["gradients"]
    full = objective.value_and_gradient(theta)[1]
    assert gradients["sum"] == pytest.approx(float(full.norm()), rel=1e-10)
    norms, cosines = torch.tensor(gradients["norms"]), torch.tensor(gradients["cosines"])
    assert float(norms @ cosines @ norms) == pytest.approx(float(full.norm()) ** 2, rel=1e-5)
    # R = u_t - nu u_xx + u³: rate 3u²; R = u_x + u_t: no decay.
    u = net(2)(objective.points)
    assert facts["rates"]["equation[1] in u"]["rate"] == 0
    objective.load(theta)
    u = objective.net(objective.points)[:, 0].detach()
    assert facts["rates"]["equation[0] in u"]["rate"] == pytest.approx(float((3 * u**2).median()), rel=1e-9)


def test_saturated_units_are_counted(tmp_path: Path) -> None:
    flat = net()
    with torch.no_grad():
        flat[2].weight[:3] = 0
        flat[2].bias[:3] = 20.0  # tanh' = 4 e^-40
    assert final(decay(), flat, tmp_path)["layers"] == {"0": 0.0, "2": pytest.approx(3 / 8)}


def test_what_cannot_be_measured_says_why(tmp_path: Path) -> None:
    wide = net(2, width=64, depth=3)
    facts = final(problem(), wide, tmp_path, sampler=pinn.Uniform(800, seed=0))
    assert "too large" in facts["missing"]["spectrum"] and "spectrum" not in facts
    assert math.isfinite(facts["snr"]["snr"])
