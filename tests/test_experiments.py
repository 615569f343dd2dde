"""The experiments start from the root of the repository, in a process of their own."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def experiments(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.slow
def test_a_smoke_run_measures_draws_and_checks_the_claims(tmp_path: Path) -> None:
    arguments = ("run", "n_tangentprop", "--figure", "1", "--smoke", "--threads", "1", "--results", tmp_path)
    result = experiments(*arguments)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "n_tangentprop" / "smoke"
    assert (folder / "figure-1.png").read_bytes().startswith(b"\x89PNG")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["figures"] == [1]
    assert manifest["machine"]["threads"] == 1
    claims = {claim["id"]: claim for claim in json.loads((folder / "claims.json").read_text())["claims"]}
    assert claims["fig1-n1"]["ours"] > 0
    assert claims["fig6-profile1"]["ours"] is None
    # The next figure is drawn from the same data: nothing is measured again.
    size = (folder / "orders.jsonl").stat().st_size
    result = experiments(*arguments[:3], "2..3", *arguments[4:])
    assert result.returncode == 0, result.stderr
    assert (folder / "orders.jsonl").stat().st_size == size
    assert (folder / "figure-3.png").exists()


@pytest.mark.slow
def test_training_is_measured_against_autodifferentiation(tmp_path: Path) -> None:
    result = experiments(
        "run", "n_tangentprop", "--figure", "6,7", "--smoke", "--threads", "1", "--results", tmp_path
    )
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "n_tangentprop" / "smoke"
    assert (folder / "figure-7.png").read_bytes().startswith(b"\x89PNG")
    claims = {claim["id"]: claim for claim in json.loads((folder / "claims.json").read_text())["claims"]}
    assert claims["fig6-native2"]["ours"] > claims["fig6-profile2"]["ours"] > 0
    assert claims["best-lambda3"]["ours"] <= 1e-13
    lines = {(x["kind"], x["profile"]): x for x in json.loads((folder / "training-summary.json").read_text())}
    # All backends follow the same path: the loss is the same after forty iterations of Adam.
    assert lines["cost", 2]["losses_apart"] <= 1e-9
    assert lines["schedule", 4]["stages"][1]["evaluations"] >= 60


@pytest.mark.slow
def test_spectra_of_differences_are_measured_and_judged(tmp_path: Path) -> None:
    result = experiments(
        "run", "ad_vs_fd", "--figure", "1,2,4", "--smoke", "--threads", "1", "--results", tmp_path
    )
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "ad_vs_fd" / "smoke"
    claims = {claim["id"]: claim for claim in json.loads((folder / "claims.json").read_text())["claims"]}
    assert claims["small-larger"]["holds"] and claims["entropy-normal"]["holds"]
    assert not claims["small-analytic"]["holds"] and not claims["entropy-plain"]["holds"]
    assert "holds" not in claims["train-float32"], "nothing was trained"
    assert (folder / "figure-2.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_phases_of_training_are_measured_and_judged(tmp_path: Path) -> None:
    result = experiments("run", "total_diffusion", "--smoke", "--threads", "1", "--results", tmp_path)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "total_diffusion" / "smoke"
    lines = [json.loads(text) for text in (folder / "training.jsonl").read_text().splitlines()]
    assert [(line["case"], line["rule"]) for line in lines][:2] == [
        ("allen-cahn", "rba"),
        ("allen-cahn", "vanilla"),
    ]
    assert len(lines) == 7
    for line in lines:
        assert line["phases"][0]["name"] in ("fitting", "diffusion")
        assert any(name.startswith("snr.snr/") for name in line["curves"])
    assert len(list(folder.glob("figure-*.png"))) == 5


@pytest.mark.slow
def test_gradients_of_stiff_equations_are_measured_and_judged(tmp_path: Path) -> None:
    result = experiments(
        "run", "stiff_gradients", "--figure", "1..6", "--smoke", "--threads", "1", "--results", tmp_path
    )
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "stiff_gradients" / "smoke"
    claims = {claim["id"]: claim for claim in json.loads((folder / "claims.json").read_text())["claims"]}
    for name in ("every-scheme", "typical-order", "bound", "slowest-function", "scan", "steps-linear"):
        assert claims[name]["holds"], claims[name]
    assert claims["steps-newton"]["holds"] and claims["singular-seen"]["holds"]
    # No one-step scheme is as slow as the bound, and past the transient schemes exceed the equation.
    assert not claims["slowest-scheme"]["holds"] and not claims["numerical"]["holds"]
    assert "holds" not in claims["rate-found"], "nothing was fitted"
    signs = [json.loads(text) for text in (folder / "signs.jsonl").read_text().splitlines()]
    (radau,) = [line["scan"] for line in signs if line["method"] == "radau_iia3"]
    # The zeros of z⁴ + 16z³ - 48z² - 240z + 1200, the numerator of R'.
    for z in radau[0]:
        assert abs(z**4 + 16 * z**3 - 48 * z**2 - 240 * z + 1200) <= 1e-8
    assert (folder / "figure-6.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_fast_rate_is_recovered_or_not(tmp_path: Path) -> None:
    result = experiments(
        "run", "stiff_gradients", "--figure", "7", "--smoke", "--threads", "1", "--results", tmp_path
    )
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "stiff_gradients" / "smoke"
    claims = {claim["id"]: claim for claim in json.loads((folder / "claims.json").read_text())["claims"]}
    assert claims["rate-lost"]["holds"] and claims["rate-found"]["holds"] and claims["rate-lobatto"]["holds"]
    assert (folder / "figure-7.png").exists()


def test_papers_are_listed_and_mistakes_explained() -> None:
    listed = experiments("list")
    assert "n_tangentprop" in listed.stdout and "ad_vs_fd" in listed.stdout
    assert "figure 5" in listed.stdout
    wrong = experiments("run", "n_tangentprop", "--figure", "11", "--smoke")
    assert wrong.returncode == 1
    assert "has no figure 11 here yet" in wrong.stderr


@pytest.mark.parametrize("path", sorted(ROOT.glob("experiments/*/paper.toml")), ids=lambda p: p.parent.name)
def test_claims_say_where_they_come_from(path: Path) -> None:
    facts = tomllib.loads(path.read_text(encoding="utf-8"))
    assert {"title", "link", "claim"} <= set(facts)
    for claim in facts["claim"]:
        assert {"id", "statement", "where", "paper", "cost"} <= set(claim), claim
        if "data" in claim:
            assert {"cell", "time", "ours"} <= set(claim), claim
        if "profile" in claim:
            assert {"from", "quantity", "like"} <= set(claim), claim
    assert len({claim["id"] for claim in facts["claim"]}) == len(facts["claim"])
    assert (path.parent / "NOTES.md").exists()
