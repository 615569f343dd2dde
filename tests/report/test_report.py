import json
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ntangent._base import extras
from ntangent._base.errors import MissingExtraError, RunFolderError
from ntangent.report import write_report
from ntangent.report.data import RunData
from ntangent.report.figures import FIGURES, derivative_name, unknowns_figure
from ntangent.report.page import TEMPLATE
from ntangent.report.style import LIGHT, power_of_ten, visible

NEEDED = ("config.json", "metrics.jsonl", "result.json", "evaluation.npz")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the four files that a report may use, and nothing else."""
    path = tmp_path / "copy"
    path.mkdir()
    for name in NEEDED:
        shutil.copy(finished / name, path)
    return path


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])


def pixels(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    return imread(path)


def test_the_page_needs_the_four_files_only_and_refers_to_nothing_outside(run: Path) -> None:
    page = write_report(run)
    assert page == run / "report.html"
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|<link|<script|@import|url\(", re.sub(r"base64,[\w+/=]+", "", text))
    assert text.count("data:image/png;base64,") == 2 * len(FIGURES)
    assert "prefers-color-scheme: dark" in text
    assert text.rstrip().endswith("</html>")


def test_the_page_holds_the_numbers(run: Path) -> None:
    text = write_report(run).read_text(encoding="utf-8")
    result = json.loads((run / "result.json").read_text())
    assert f"{result['unknowns']['lam']:.12g}" in text
    assert "0.5" in text
    for error in [*result["max_errors"], result["max_residual"], *result["terms"].values(), result["loss"]]:
        assert power_of_ten(error) in text
    for name in (
        *result["terms"],
        "the budget of 12 iterations is used",
        "LevenbergMarquardt",
        "burgers-profile",
    ):
        assert name in text
    assert ">finished<" in text
    assert "unfinished" not in text


def test_the_figures_are_images_that_show_something(run: Path) -> None:
    write_report(run)
    assert {path.stem for path in (run / "figures").glob("*.png")} == set(FIGURES)
    for path in (run / "figures").glob("*.png"):
        width, height = size_of(path.read_bytes())
        assert width > 1000
        assert height > 300
        image = pixels(path)[..., :3]
        ink = (np.abs(image - image[0, 0]).max(-1) > 0.1).mean()
        assert 0.005 < ink < 0.5, path.name
        red, green, blue = np.moveaxis(image, -1, 0)
        assert ((blue > 0.6) & (red < 0.3) & (green < 0.6)).sum() > 500, "the line of the network"


def test_the_same_files_give_the_same_page(run: Path) -> None:
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_no_global_state_of_matplotlib_is_touched(run: Path) -> None:
    script = (
        "import sys, matplotlib\n"
        # Reading the backend would import pyplot.
        "read = lambda: {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'}\n"
        "before, backend = read(), matplotlib.get_backend(auto_select=False)\n"
        f"from ntangent.report import write_report; write_report({str(run)!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules and read() == before\n"
        "assert matplotlib.get_backend(auto_select=False) == backend"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_killed_run_gets_a_page_that_says_so(run: Path) -> None:
    (run / "result.json").unlink()
    (run / "evaluation.npz").unlink()
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join(lines[:7]) + lines[7][:20])
    (run / "figures").mkdir()
    (run / "figures" / "field.png").write_bytes(b"of an earlier report")
    text = write_report(run).read_text(encoding="utf-8")
    assert "unfinished" in text
    assert "the run was killed, or is still going on" in text
    assert "not finished" in text
    assert {path.stem for path in (run / "figures").glob("*.png")} == {"loss", "unknowns"}
    assert f"{json.loads(lines[6])['values']['lam']:.12g}" in text


def test_a_run_killed_before_its_first_iteration_gets_a_page(run: Path) -> None:
    for name in NEEDED[1:]:
        (run / name).unlink()
    text = write_report(run).read_text(encoding="utf-8")
    assert "nothing that could be drawn" in text
    assert "not reached" in text


def test_an_error_that_ended_the_training_is_named(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    end = json.loads(lines[-1]) | {"stopped": "ConvergenceError: the loss became nan", "loss": "nan"}
    (run / "metrics.jsonl").write_text("\n".join([*lines[:5], json.dumps(end)]) + "\n")
    (run / "result.json").unlink()
    assert "ConvergenceError: the loss became nan" in write_report(run).read_text(encoding="utf-8")


def test_several_stages_and_unknowns_without_truth_are_drawn(run: Path) -> None:
    edit(
        run / "config.json",
        lambda c: (c["stages"].insert(0, "Adam(iterations=4)"), c["stages"].append("LBFGS()")),
    )
    edit(run / "result.json", lambda r: (r.pop("expected"), r.pop("unknown_errors"), r.pop("max_errors")))
    edit(run / "config.json", lambda c: c["statement"]["expected"].clear())
    lines = []
    for text in (run / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        if line["kind"] == "step":
            late = line["step"] > 4
            line |= {"stage": int(late), "name": "LevenbergMarquardt" if late else "Adam"}
            line["values"] |= {"beta": 1.0 / line["step"], "gap": "nan"}
            lines.append(line)
            if line["step"] == 4:
                ended = {
                    "kind": "stage",
                    "step": 4,
                    "stage": 0,
                    "name": "Adam",
                    "iterations": 4,
                    "seconds": 0.1,
                }
                lines.append({**ended, "loss": line["loss"], "reason": "<done & dusted>"})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = write_report(run).read_text(encoding="utf-8")
    assert "&lt;done &amp; dusted&gt;" in text
    assert "not reached" in text
    data = RunData.read(run)
    assert [(stage.start, stage.end) for stage in data.stages()] == [(0, 4), (4, 12), (None, None)]
    labels = [text.get_text() for text in unknowns_figure(data, LIGHT).axes[0].get_legend().get_texts()]
    assert labels == ["λ", "β", "gap"] or labels == ["λ", "beta", "gap"]


def test_exact_zeros_and_non_finite_numbers_can_be_drawn(run: Path) -> None:
    with np.load(run / "evaluation.npz") as stored:
        arrays = dict(stored)
    arrays["residuals"] = np.zeros_like(arrays["residuals"])
    arrays["derivatives"][0] = arrays["exact"][0]
    arrays["derivatives"][1, 5] = np.nan
    np.savez(run / "evaluation.npz", **arrays)
    assert write_report(run).exists()


def test_a_problem_without_reference_or_unknowns(run: Path) -> None:
    with np.load(run / "evaluation.npz") as stored:
        arrays = {name: stored[name] for name in ("x", "derivatives", "residuals")}
    np.savez(run / "evaluation.npz", **arrays)
    edit(
        run / "result.json",
        lambda r: [r.pop(n) for n in ("expected", "unknown_errors", "max_errors", "relative_l2")],
    )
    edit(run / "result.json", lambda r: r["unknowns"].clear())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps({**x, "values": {}} if "values" in x else x) + "\n" for x in lines)
    )
    text = write_report(run).read_text(encoding="utf-8")
    assert {path.stem for path in (run / "figures").glob("*.png")} == {"field", "loss", "residual"}
    assert "Unknowns" not in text


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="there is no run"):
        write_report(tmp_path)


def test_a_missing_extra_is_named_with_its_command(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras.EXTRAS, "report", ("matplotlib", "a_package_nobody_has"))
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'ntangent[report]'")):
        write_report(run)


def test_the_template_lies_in_the_package() -> None:
    assert TEMPLATE.is_file()


@pytest.mark.parametrize(("order", "name"), [(0, "U"), (1, "U′"), (3, "U‴"), (4, "U⁽⁴⁾"), (12, "U⁽¹²⁾")])
def test_names_of_derivatives(order: int, name: str) -> None:
    assert derivative_name("U", order) == name


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.0, "1"), (1.5e-9, "1.5·10⁻⁹"), (2e7, "2.0·10⁷"), (0.25, "0.25"), (float("inf"), "inf")],
)
def test_numbers_are_written_for_readers(value: float, text: str) -> None:
    assert power_of_ten(value) == text


def test_zeros_are_gaps_on_a_logarithmic_axis() -> None:
    assert np.array_equal(visible(np.array([-2.0, 0.0, np.inf])), [2.0, np.nan, np.nan], equal_nan=True)
