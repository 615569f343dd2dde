"""The command line in this process; tests/test_cli_processes.py starts real ones."""

import dataclasses
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import ntangent
import ntangent.cli
from ntangent._base import extras
from ntangent._base.errors import ArgumentError, ConvergenceError, DtypeError
from ntangent.cli import doctor, options, recipes
from ntangent.cli.app import cli
from ntangent.jet.backends import library, native
from ntangent.problems import CATALOGUE
from ntangent.run import load_checkpoint, read_metrics

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "--width",
    "8",
    "--points",
    "40",
    "--iterations",
    "5",
    "--features",
    "0",
    "--restarts",
    "0",
    "--no-report",
)
DECAY = """
import torch, ntangent as nt
from ntangent import optim, pinn

problem = pinn.Problem(
    domain=pinn.Box(x=(0, 1)),
    equations=[lambda u, p: u.x + p.k * u],
    conditions=[pinn.Dirichlet(x=0, value=1), pinn.Dirichlet(x=1, value=0.5)],
    unknowns={"k": pinn.Unknown(1.0)},
)
"""


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def ntangent_(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="ntangent")


def ok(*arguments: str | Path) -> Result:
    result = ntangent_(*arguments)
    assert result.exit_code == 0, result.output
    return result


def last_object(result: Result) -> dict[str, Any]:
    return json.loads(result.stdout.splitlines()[-1])


def test_json_is_the_last_line_and_progress_goes_to_standard_error() -> None:
    result = ok("solve", "burgers-profile", *SMALL, "--json")
    numbers = last_object(result)
    assert {"k", "lambda", "lambda_error", "max_error_U", "max_residual", "seconds"} <= set(numbers)
    assert {"run_dir", "report", "loss", "iterations", "reasons"} <= set(numbers)
    assert numbers["run_dir"] == "runs/burgers-profile"
    assert numbers["report"] is None
    assert numbers["iterations"] == 5
    assert len(result.stdout.splitlines()) == 1
    assert "LevenbergMarquardt" in result.stderr
    assert "run folder: runs/burgers-profile" in result.stderr
    stored = json.loads(Path("runs/burgers-profile/result.json").read_text())
    assert numbers["lambda"] == stored["unknowns"]["lam"]


def test_without_json_a_summary_is_printed() -> None:
    result = ok("solve", "burgers-profile", *SMALL, "--quiet", "--run-dir", "here")
    assert re.search(r"^lambda +0\.\d+", result.stdout, flags=re.MULTILINE)
    assert "stopped because  the budget of 5 iterations is used" in result.stdout
    assert result.stderr == ""


def test_the_report_is_written_by_default_and_again_on_demand() -> None:
    numbers = last_object(ok("solve", "burgers-profile", *SMALL[:-1], "--run-dir", "r", "--json"))
    page = Path(numbers["report"])
    first = page.read_bytes()
    page.unlink()
    assert ok("report", "r").stdout.strip() == str(page)
    assert page.read_bytes() == first


def test_options_come_from_the_fields_and_their_documentation() -> None:
    text = " ".join(ok("solve", "burgers-profile", "--help").stdout.split())
    for field in dataclasses.fields(CATALOGUE["burgers-profile"]):
        assert f"--{field.name} " in text
    assert "Where λ starts, as a fraction of its bracket (1/(2k+1), 1/(2k-1)). [default: 0.5]" in text


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_every_problem_of_the_catalogue_explains_each_of_its_options(name: str) -> None:
    kind = CATALOGUE[name]
    assert {f.name for f in options.fields(kind)} <= set(options.argument_texts(kind))
    assert ok("solve", name, "--help").stdout.count("--") > 5


def test_options_reach_the_configuration() -> None:
    ok("solve", "burgers-profile", "--k", "2", "--start", "0.25", "--seed", "7", *SMALL, "--run-dir", "r")
    config = json.loads(Path("r/config.json").read_text())
    assert config["problem"] == "burgers-profile"
    assert [config["options"][name] for name in ("k", "start", "seed", "width")] == [2, 0.25, 7, 8]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("solve", "burgers-profil"), "did you mean burgers-profile or burgers?"),
        (("solve", "burgers-profile", "--iteration", "5"), "Did you mean '--iterations'?"),
        (("solve", "burgers-profile", "--iterations", "many"), "not a valid integer"),
        (("solve", "burgers-profile", "--k", "0"), "k must be at least 1"),
        (("solve", "burgers-profile", "--start", "nan"), "start is nan"),
        (("solve", "burgers-profile", "--threads", "0"), "x>=1"),
        (("solve", "burgers-profile", "--resume"), "there is no run in runs/burgers-profile"),
        (("solve", "burgers-profile", "--resume", "--overwrite"), "exclude each other"),
        (("solve", "nothing.py"), "nothing.py cannot be read"),
        (("solv",), "Did you mean 'solve'?"),
        (("report", "nowhere"), "there is no run in nowhere"),
        (("resume", "nowhere"), "there is no run in nowhere"),
    ],
)
def test_a_wrong_command_line_is_explained(arguments: tuple[str, ...], expected: str) -> None:
    result = ntangent_(*arguments)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not Path("runs").exists()


def test_an_existing_run_is_kept_unless_it_is_to_be_replaced() -> None:
    ok("solve", "burgers-profile", *SMALL)
    before = Path("runs/burgers-profile/result.json").read_bytes()
    result = ntangent_("solve", "burgers-profile", *SMALL)
    assert result.exit_code == 2
    for word in ("already holds a run", "why: ", "fix: ", "--resume", "--overwrite", "--run-dir"):
        assert word in result.stderr
    assert Path("runs/burgers-profile/result.json").read_bytes() == before
    ok("solve", "burgers-profile", *SMALL, "--overwrite", "--seed", "1")
    assert Path("runs/burgers-profile/result.json").read_bytes() != before


def test_traceback_shows_where_an_error_came_from() -> None:
    assert isinstance(
        ntangent_("report", "nowhere", "--traceback").exception, ntangent._base.errors.RunFolderError
    )
    assert isinstance(ntangent_("--traceback", "report", "nowhere").exception, RuntimeError)
    assert isinstance(ntangent_("report", "nowhere").exception, SystemExit)


def test_a_failed_run_has_another_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConvergenceError("the loss became nan", "why not", "smaller steps")

    monkeypatch.setattr("ntangent.problems.run", fail)
    result = ntangent_("solve", "burgers-profile", *SMALL)
    assert result.exit_code == 1
    assert result.stderr.endswith("error: the loss became nan\n  why: why not\n  fix: smaller steps\n")


# Resuming


def metrics_of(run: Path) -> list[Any]:
    return [record._replace(seconds=0.0) for record in read_metrics(run / "metrics.jsonl").steps]


def theta_of(run: Path) -> torch.Tensor:
    return load_checkpoint(run / "checkpoints").checkpoint.state.theta


@pytest.mark.parametrize("command", [("solve", "burgers-profile", "--resume", "--run-dir"), ("resume",)])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = Path("whole"), Path("cut")
    arguments = ("solve", "burgers-profile", "--k", "2", *SMALL, "--iterations", "12", "--run-dir")
    ok(*arguments, whole)

    def stop(_: Any, record: Any) -> None:
        if record.step == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ntangent.run.progress.Progress.on_step", stop)
        result = ntangent_(*arguments, cut, "--checkpoint-every", "0")
    assert result.exit_code == 130
    assert "ntangent resume cut continues" in result.stderr
    assert not (cut / "result.json").exists()
    numbers = last_object(ok(*command, cut, "--json", "--no-report"))
    assert numbers["iterations"] == 12
    assert metrics_of(cut) == metrics_of(whole)
    assert torch.equal(theta_of(cut), theta_of(whole))
    with np.load(cut / "evaluation.npz") as a, np.load(whole / "evaluation.npz") as b:
        assert set(a.files) == set(b.files)
        assert all(np.array_equal(a[name], b[name]) for name in a.files)


def test_a_finished_run_can_be_resumed_and_stays_as_it_is() -> None:
    first = last_object(ok("solve", "burgers-profile", *SMALL, "--json"))
    again = last_object(ok("resume", "runs/burgers-profile", "--json", "--no-report"))
    assert {**again, "seconds": 0} == {**first, "seconds": 0}


def test_a_resume_with_other_options_names_the_difference() -> None:
    ok("solve", "burgers-profile", *SMALL)
    result = ntangent_("solve", "burgers-profile", "--resume", "--seed", "3")
    assert result.exit_code == 1
    assert "options.seed is 0 there and 3 here" in result.stderr


def test_a_resume_uses_the_stored_number_of_threads() -> None:
    ok("solve", "burgers-profile", *SMALL, "--threads", "1")
    torch.set_num_threads(2)
    ok("resume", "runs/burgers-profile", "--no-report")
    assert torch.get_num_threads() == 1


def test_the_run_of_another_problem_is_not_resumed() -> None:
    Path("decay.py").write_text(DECAY)
    ok("solve", "decay.py", "--iterations", "3", "--no-report", "--run-dir", "r")
    result = ntangent_("solve", "burgers-profile", "--resume", "--run-dir", "r")
    assert "decay.py, not burgers-profile" in result.stderr
    assert "ntangent resume r" in result.stderr


def test_a_run_started_from_python_is_resumed_there() -> None:
    ok("solve", "burgers-profile", *SMALL, "--run-dir", "r")
    config = json.loads(Path("r/config.json").read_text())
    Path("r/config.json").write_text(json.dumps({**config, "problem": "python"}))
    assert "pinn.solve(..., run_dir='r', resume=True)" in ntangent_("resume", "r").stderr


# A user's own file


def test_a_file_with_a_problem_is_solved_with_sensible_defaults() -> None:
    Path("decay.py").write_text(DECAY)
    numbers = last_object(ok("solve", "./decay.py", "--json", "--no-report", "--iterations", "40"))
    assert abs(numbers["k"] - np.log(2)) < 1e-6
    assert numbers["max_residual"] < 1e-4
    assert numbers["run_dir"] == "runs/decay"
    config = json.loads(Path("runs/decay/config.json").read_text())
    assert config["problem"] == str(Path("decay.py").resolve())
    assert config["stages"][0].startswith("LevenbergMarquardt(iterations=40")
    assert "out_features=32" in str(config["network"])
    assert config["dtype"] == "float64"


def test_a_file_may_bring_network_stages_and_sampler() -> None:
    Path("neighbour.py").write_text("WIDTH = 5\n")
    Path("own.py").write_text(
        DECAY + "from neighbour import WIDTH\n"
        "net = nt.MLP(1, 1, width=WIDTH, depth=1, dtype=torch.float64)\n"
        "stages = [optim.Adam(3, lr=1e-2), optim.LBFGS(4)]\n"
        "sampler = pinn.Grid(9)\n"
    )
    first = last_object(ok("solve", "own.py", "--json", "--no-report"))
    assert first["iterations"] == 7
    config = json.loads(Path("runs/own/config.json").read_text())
    assert config["sampler"]["n"] == 9
    assert config["options"]["iterations"] is None  # it has no effect
    again = last_object(ok("resume", "runs/own", "--json", "--no-report"))
    assert again["loss"] == first["loss"]
    other = last_object(ok("solve", "own.py", "--json", "--no-report", "--run-dir", "other"))
    assert other["loss"] == first["loss"]  # the network is made under seed 0
    result = ntangent_("solve", "own.py", "--seed", "1", "--overwrite")
    assert "No such option '--seed'" in result.stderr  # it would have no effect


RECIPE = (
    DECAY
    + """
from dataclasses import dataclass

@dataclass(frozen=True)
class Decay:
    '''Exponential decay.

    Args:
        seed: seed of the network.
        sizes: widths, several.
    '''
    seed: int = 0
    sizes: tuple[int, ...] = (4, 4)

    def problem(self): return problem
    def network(self):
        return nt.MLP(1, 1, width=self.sizes[0], depth=1, dtype=torch.float64, generator=self.seed)
    def sampler(self): return pinn.Grid(7)
    def stages(self): return [optim.LevenbergMarquardt(3)]
    def headline(self, result): return {"rate": result["unknowns"]["k"], "sizes": self.sizes}

"""
)


@pytest.mark.parametrize(
    ("last", "default"), [("recipe = Decay", [4, 4]), ("recipe = Decay(sizes=(6,))", [6])]
)
def test_a_file_with_a_recipe_has_its_fields_as_options(last: str, default: list[int]) -> None:
    Path("mine.py").write_text(RECIPE + last)
    assert "--sizes INTEGER,..." in ok("solve", "mine.py", "--help").stdout
    assert last_object(ok("solve", "mine.py", "--json", "--no-report"))["sizes"] == default
    given = last_object(ok("solve", "mine.py", "--json", "--no-report", "--sizes", "3,2", "--run-dir", "r"))
    assert given["sizes"] == [3, 2]
    assert last_object(ok("resume", "r", "--json", "--no-report")) | {"seconds": 0} == given | {"seconds": 0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\n", "defines neither 'problem' nor 'recipe'"),
        ("problem = 3\n", "'problem' in"),
        ("import nothing_like_this\n", "line 1: import nothing_like_this"),
        ("x = [\n", "SyntaxError"),
        ("def f():\n    return 1 / 0\nf()\n", "line 2: return 1 / 0"),
        (DECAY + "net = 3\n", "it must be a torch.nn.Module"),
        (DECAY + "stages = optim.Adam(3)\n", "it must be a list of stages"),
        (DECAY + "stages = []\n", "it must be a list of stages"),
        (DECAY + "sampler = 9\n", "it must be a sampler"),
        ("recipe = 3\n", "has no method problem, network, sampler, stages, headline"),
        ("from ntangent.pinn import *\nproblem = Problem(Box(x=(0, 1)), [])\n", "nothing to solve"),
    ],
)
def test_a_file_that_cannot_be_solved_is_explained(text: str, expected: str) -> None:
    Path("bad.py").write_text(text)
    result = ntangent_("solve", "bad.py")
    assert result.exit_code == 2
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


# Options of any dataclass


def test_every_kind_of_field_becomes_an_option() -> None:
    @dataclasses.dataclass
    class Fields:
        """Fields.

        Args:
            a, b: two at once.
            mode: one
                of two.
        """

        a: int
        b: float | None = None
        flag: bool = True
        mode: Literal["x", "y"] = "x"
        list_of: tuple[float, ...] = (1.0, 2.5)
        derived: int = dataclasses.field(init=False, default=3)

    found = options.build_options(Fields, {"mode": "y"}, frozenset())
    received: dict[str, Any] = {}
    command = click.Command("c", params=found, callback=lambda **values: received.update(values))
    assert CliRunner().invoke(command, ["--a", "3", "--no-flag"]).exit_code == 0
    assert received == {"a": 3, "b": None, "flag": False, "mode": "y", "list_of": (1.0, 2.5)}
    assert CliRunner().invoke(command, ["--a", "3", "--list-of", "4,5", "--b", "1"]).exit_code == 0
    assert received["list_of"] == (4.0, 5.0)
    assert CliRunner().invoke(command, []).exit_code == 2
    assert CliRunner().invoke(command, ["--a", "3", "--mode", "z"]).exit_code == 2
    assert options.argument_texts(Fields) == {"a": "two at once.", "b": "two at once.", "mode": "one of two."}
    stored = {"type": "Fields", "a": 3, "b": "inf", "list_of": [1.0], "gone": 2}
    assert options.stored_options(Fields, stored) == {"a": 3, "b": float("inf"), "list_of": (1.0,)}


def test_fields_that_cannot_be_options_are_errors() -> None:
    @dataclasses.dataclass
    class Wrong:
        table: dict[str, int]

    @dataclasses.dataclass
    class Taken:
        threads: int = 1

    with pytest.raises(DtypeError, match=re.escape("Wrong.table is annotated as dict[str, int]")):
        options.build_options(Wrong, {}, frozenset())
    with pytest.raises(ArgumentError, match="every problem has a common option --threads"):
        options.build_options(Taken, {}, frozenset())


def test_a_monitor_is_asked_for_by_name_and_goes_on_after_a_resume() -> None:
    result = ok("solve", "burgers-profile", *SMALL, "--monitor", "snr, spectrum", "--monitor-every", "2")
    assert re.search(r"monitor: 2 readings, \d+\.\d % of the time", result.stderr)
    read = [r.info for r in read_metrics(Path("runs/burgers-profile/metrics.jsonl")).steps]
    assert [step for step, info in enumerate(read, 1) if "monitor/snr.snr" in info] == [2, 4]
    assert all("monitor/spectrum.cutoff" in info for info in read if "monitor/seconds" in info)
    again = ok("resume", "runs/burgers-profile", "--no-report")
    assert "monitor: 2 readings" in again.stderr
    wrong = ntangent_("solve", "burgers-profile", *SMALL, "--monitor", "snt")
    assert wrong.exit_code == 2
    assert "there is no measure 'snt'" in wrong.stderr


def test_the_diagnosis_as_json() -> None:
    ok("solve", "burgers-profile", *SMALL)
    document = last_object(ok("report", "runs/burgers-profile", "--json"))
    assert set(document) == {"run_dir", "findings", "checked", "unknown"}
    assert "gradient-conflict" in document["checked"]
    assert "--monitor snr" in document["unknown"]["stuck-in-diffusion"]
    assert not Path("runs/burgers-profile/report.html").exists()


def test_the_names_of_the_common_options_are_reserved() -> None:
    command = recipes.find("burgers-profile")
    own = {f.name for f in options.fields(command.kind)}
    help_text = ok("solve", "burgers-profile", "--help").stdout
    assert {
        name for name in re.findall(r"^ .*?--([\w-]+)", help_text, flags=re.MULTILINE)
    } - own == options.RESERVED


# The other commands


def test_problems_lists_the_catalogue() -> None:
    text = ok("problems").stdout
    for name in CATALOGUE:
        assert name in text
    assert "--iterations" in text


def test_version() -> None:
    assert ok("--version").stdout == f"ntangent, version {ntangent.__version__}\n"


def test_doctor_finds_every_backend_right() -> None:
    text = ok("doctor").stdout
    for word in (
        ntangent.__version__,
        torch.__version__,
        "eager",
        "faa-di-bruno",
        "autograd",
        "extra report",
    ):
        assert word in text
    assert "WRONG" not in text
    assert all(found.error is None or found.error < 1e-13 for found in doctor.check_backends())


@pytest.mark.parametrize("factor", [1 + 1e-9, float("nan")])
def test_doctor_sees_a_wrong_backend(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    def spoilt(*arguments: Any, backend: str) -> Any:
        return ntangent.jet(*arguments, backend=backend) * (factor if backend == "eager" else 1.0)

    monkeypatch.setattr(doctor, "jet", spoilt)
    result = ntangent_("doctor")
    assert result.exit_code == 1
    assert "WRONG" in result.stdout
    assert "wrong: eager" in result.stderr


def test_doctor_says_what_became_of_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    if native.available():
        assert doctor.native_status() == f"built, {library.library().isa_name}"
        assert library.library().isa_name
    monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setattr(native, "reason", lambda: "no library")
    assert doctor.native_status() == "not available: no library; the eager path serves"


def test_missing_extras_are_named_with_their_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(extras.EXTRAS, "report", ("a_package_nobody_has",))
    result = ok("solve", "burgers-profile", *SMALL[:-1], "--json")
    assert "pip install 'ntangent[report]'" in result.stderr
    assert last_object(result)["report"] is None
    assert ntangent_("report", "runs/burgers-profile").exit_code == 2
    assert "pip install 'ntangent[report]'" in ok("doctor").stdout
    monkeypatch.setitem(extras.EXTRAS, "cli", ("a_package_nobody_has",))
    with pytest.raises(SystemExit) as stop:
        ntangent.cli.main()
    assert stop.value.code == 2
    assert "pip install 'ntangent[cli]'" in capsys.readouterr().err


def test_the_table_of_extras_is_that_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name: declared[name] for name in extras.EXTRAS} == {n: list(p) for n, p in extras.EXTRAS.items()}
    assert declared["all"] == [f"ntangent[{','.join(extras.EXTRAS)}]"]
