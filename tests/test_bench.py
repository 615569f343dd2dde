"""The benchmarks: what they time, that they notice a wrong backend, what they leave out."""

import dataclasses
import json
import mmap
import random
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

from ntangent import bench
from ntangent._base import machine
from ntangent._base.errors import BackendError, UnknownNameError
from ntangent.bench import Cell, Effort, Lines, Settings, Sweep
from ntangent.bench.contenders import contenders, nested
from ntangent.bench.forecast import Cost, Forecast
from ntangent.bench.memory import peak_memory
from ntangent.bench.show import duration_text, entry, figure, tables
from ntangent.bench.timing import Task, measure, once, spread
from ntangent.cli.app import cli
from ntangent.jet.api import BACKENDS

SMALL = Cell(2, width=4, depth=2, batch=5)
QUICK = Settings(Effort(seconds=0.001, least=2, most=3), limit=5.0)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sweep(*names: str, extra: tuple[bench.Contender, ...] = (), settings: Settings = QUICK) -> Sweep:
    return Sweep([*bench.find(names), *extra], settings)


# Timing


def test_stages_are_timed_one_by_one_and_together() -> None:
    task = Task("t", [("a", lambda _: time.sleep(0.01) or 3), ("b", lambda value: time.sleep(0.002 * value))])
    times = once(task)
    assert times["a"][0] >= 0.01
    assert times["b"][0] >= 0.006
    assert times["total"][0] == pytest.approx(times["a"][0] + times["b"][0], abs=1e-4)
    assert times["total"][1] < times["total"][0]  # sleeping takes no processor time


def test_tasks_take_turns_and_stop_when_they_have_enough() -> None:
    log: list[str] = []
    tasks = [
        Task(name, [("x", lambda _, n=name, s=s: log.append(n) or time.sleep(s))])
        for name, s in (("slow", 0.03), ("fast", 0.0))
    ]
    samples = measure(tasks, Effort(seconds=10, least=2, most=4), seed=1)
    assert samples["slow"].passes == 4
    assert 4 <= samples["fast"].passes <= 13
    after_warm_up = log[5:]
    assert "fast" in after_warm_up[: after_warm_up.index("slow") + 1] or "fast" in after_warm_up
    assert set(samples["slow"].summary()["x"]) == {"wall", "cpu"}


def test_the_device_is_waited_for_before_each_reading_of_the_clock() -> None:
    waits: list[int] = []
    once(Task("t", [("a", lambda _: None), ("b", lambda _: None)]), lambda: waits.append(1))
    assert len(waits) == 3


def test_spread() -> None:
    values = list(range(1, 102))
    random.Random(0).shuffle(values)
    assert spread(values) == {"median": 51, "q25": 26, "q75": 76, "least": 1}


# Cells and contenders


def test_the_network_is_the_same_in_both_precisions_and_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    single, double = (dataclasses.replace(SMALL, dtype=d) for d in ("float32", "float64"))
    pairs = zip(single.network(3).parameters(), double.network(3).parameters(), strict=True)
    assert all(torch.equal(a, b.float()) for a, b in pairs)
    assert torch.equal(single.points(3), double.points(3).float())
    assert torch.equal(before, torch.random.get_rng_state())
    assert sum(p.numel() for p in Cell(1).network(0).parameters()) == 1273  # as in the paper


def test_every_backend_is_a_contender() -> None:
    assert set(contenders()) == (set(BACKENDS) - {"auto"}) | {"autograd", "floor"}
    with pytest.raises(UnknownNameError, match="did you mean eager"):
        bench.find(("eagr",))


def test_the_baseline_is_right() -> None:
    net, x = SMALL.network(0), SMALL.points(0)
    found = nested(net, x, 3)
    w = [p for p in net.parameters()]
    h = 1e-5
    shifted = [nested(net, x + d, 2)[2] for d in (-h, h)]
    assert found.shape == (4, 5, 1)
    torch.testing.assert_close(found[3], (shifted[1] - shifted[0]) / (2 * h), rtol=1e-6, atol=1e-8)
    assert torch.autograd.grad(found.sum(), w)[0].shape == w[0].shape


# The check


def broken(where: str) -> bench.Contender:
    class Scale(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx, g: Tensor) -> Tensor:
            return g * (1 + 1e-9)

    def function(net: nn.Module, x: Tensor, order: int) -> Tensor:
        rows = nested(net, x, order)
        if where == "gradient":
            return Scale.apply(rows)
        factor = torch.ones_like(rows)
        factor[-1, 2] = float("nan") if where == "nan" else 1 + 1e-6
        return rows * factor

    return bench.from_function("broken", function)


@pytest.mark.parametrize("where", ["value", "gradient", "nan"])
def test_a_wrong_backend_is_noticed(where: str) -> None:
    result = sweep("eager", extra=(broken(where),)).cell(SMALL)
    check = result["contenders"]["broken"]["check"]
    assert not check["right"]
    assert check["against"] == "eager, float64"
    assert [text.partition(",")[0] for text in bench.wrong([result])] == ["broken"]
    assert "WRONG" in entry(result["contenders"], "broken", "total", "wall")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_ones_pass_and_each_is_judged_by_another(dtype: str) -> None:
    result = sweep().cell(dataclasses.replace(SMALL, order=4, dtype=dtype))
    assert not bench.wrong([result])
    timed = {name: r for name, r in result["contenders"].items() if r["status"] == "timed"}
    assert {"eager", "faa-di-bruno", "autograd", "floor"} <= set(timed)
    for name, record in timed.items():
        if name != "floor":
            assert not record["check"]["against"].startswith(name)
            assert 0 <= record["check"]["error"] <= record["check"]["allowed"]


# What is left out


def test_growth_is_extrapolated() -> None:
    forecast = Forecast({n: Cost(0.001 * 2.5**n) for n in range(5)})
    assert forecast.predict(9).seconds == pytest.approx(0.001 * 2.5**9, rel=1e-6)
    assert forecast.predict(3).seconds == 0.001 * 2.5**3
    assert Forecast().predict(1) is None


def test_costly_orders_are_refused_before_they_are_tried() -> None:
    tried: list[int] = []

    def probe(order: int) -> Cost:
        tried.append(order)
        return Cost(0.01 * 3**order)

    refused = Forecast().refuse(9, Cost(1.0, memory=1), probe)
    assert refused.seconds == pytest.approx(0.01 * 3**9, rel=1e-6)
    assert refused.excess(Cost(1.0, memory=1)) == "predicted 3.28 min"
    assert max(tried) == 4
    assert tried.count(4) == 2  # measured again before it speaks against 9
    assert Forecast().refuse(4, Cost(1.0, memory=1), probe) is None


def test_memory_is_limited_too() -> None:
    forecast = Forecast({0: Cost(0.001, memory=2**20), 1: Cost(0.004, memory=2**30)}, confirmed={1})
    refused = forecast.refuse(2, Cost(1.0, memory=2**31), lambda _: Cost(0.004, memory=2**30))
    assert refused.excess(Cost(1.0, memory=2**31)) == "predicted 6 GB"  # growth is believed up to 6-fold


def test_a_hiccup_is_no_trend() -> None:
    forecast = Forecast({0: Cost(0.9)})
    assert forecast.refuse(1, Cost(1.0, memory=1), lambda order: Cost(0.001)) is None


def test_a_skipped_cell_says_so() -> None:
    def slow(net: nn.Module, x: Tensor, order: int) -> Tensor:
        time.sleep(0.002 * 4**order)
        return nested(net, x, order)

    settings = dataclasses.replace(QUICK, limit=0.2)
    sleepy = bench.from_function("autograd", slow)
    results = list(Sweep([*bench.find(("eager",)), sleepy], settings).run([Cell(n, 3, 1, 4) for n in (1, 6)]))
    record = results[1]["contenders"]["autograd"]
    assert record["status"] == "skipped"
    assert 5 < record["predicted"]["seconds"] < 15
    assert record["reason"].startswith("predicted ")
    assert entry(results[1]["contenders"], "autograd", "total", "wall").startswith("skipped: predicted ")
    assert "≈" in entry(results[1]["contenders"], "eager", "total", "wall")


def test_one_that_cannot_run_is_reported_and_the_others_go_on() -> None:
    def absent(cell: Cell, seed: int) -> bench.Work:
        raise BackendError("there is none here", "why")

    def late(cell: Cell, seed: int) -> bench.Work:
        if cell.width > 3:
            raise RuntimeError("too wide\nmore")
        return bench.find(("eager",))[0].build(cell, seed)

    extra = (bench.Contender("absent", absent), bench.Contender("late", late))
    records = sweep("eager", extra=extra).cell(SMALL)["contenders"]
    assert [records[name]["status"] for name in ("eager", "absent", "late")] == [
        "timed",
        "unavailable",
        "failed",
    ]
    assert records["absent"]["reason"] == "there is none here"
    assert records["late"]["reason"] == "too wide"


# Files


def test_lines_are_continued(tmp_path: Path) -> None:
    path, cells = tmp_path / "a" / "lines.jsonl", [Cell(n, 3, 1, 4) for n in range(3)]
    left = bench.fill(Lines(path), sweep("eager", "autograd"), cells, budget=0.0)
    assert left == 2
    with path.open("a") as file:
        file.write('{"cell": {"order": 1, "wid')  # what a kill leaves
    told: list[int] = []
    assert bench.fill(Lines(path), sweep("eager", "autograd"), cells, told=lambda n, *_: told.append(n)) == 0
    assert told == [2, 3]
    assert len(Lines(path).machines) == 2
    assert [r["cell"]["order"] for r in Lines(path).results] == [0, 1, 2]
    assert bench.fill(Lines(path), sweep("eager"), cells) == 0
    assert len(Lines(path).machines) == 2  # nothing was to be done
    assert not Lines(path).has(cells[0], ["native"])


# Memory


@pytest.mark.skipif(machine.resident() is None, reason="the resident set is known on Linux only")
def test_the_peak_of_the_resident_set_is_seen() -> None:
    before = machine.resident()
    assert machine.peak_resident() >= before
    if machine.reset_peak():
        # Fresh pages: memory that the allocator kept would already count.
        with mmap.mmap(-1, 32 << 20) as block:
            block.write(bytes(32 << 20))
            assert machine.peak_resident() - before > 24 << 20


@pytest.mark.slow
@pytest.mark.skipif(machine.resident() is None, reason="the resident set is known on Linux only")
def test_memory_is_measured_in_a_process_of_its_own() -> None:
    cell = Cell(2, width=16, depth=2, batch=40_000)
    activations = 3 * 2 * cell.width * cell.batch * 8
    assert activations < peak_memory(cell, "eager", 0, 1) < 20 * activations
    with pytest.raises(BackendError, match="there is no backend"):
        peak_memory(SMALL, "nobody", 0, 1)


# The command


def ntangent_(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="ntangent")


TINY = ("--width", "3", "--depth", "1", "--batch", "4", "--seconds", "0.001", "--least", "2", "--no-memory")


def test_the_command_writes_everything(tmp_path: Path) -> None:
    path, plot = tmp_path / "out" / "b.json", tmp_path / "out" / "b.png"
    result = ntangent_(
        "bench", "--order", "0,2-3", "--dtype", "float64", *TINY, "--json", path, "--plot", plot
    )
    assert result.exit_code == 0, result.output
    for word in ("forward + backward: 1×3, 4 points, float64", "eager", "floor", "×"):
        assert word in result.stdout
    content = json.loads(path.read_text())
    assert content["format"] == "ntangent-bench/1"
    assert set(content) == {"format", "machine", "settings", "cells", "memory"}
    assert {"processor", "cores", "threads", "versions", "date", "native_kernels"} <= set(content["machine"])
    assert content["settings"]["seed"] == 42
    assert [cell["cell"]["order"] for cell in content["cells"]] == [0, 2, 3]
    record = content["cells"][1]["contenders"]["eager"]
    assert set(record) == {"status", "reason", "check", "times", "passes"}
    assert set(record["times"]) == {"forward", "backward", "total"}
    assert set(record["times"]["total"]["cpu"]) == {"median", "q25", "q75", "least"}
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert tables(content["cells"], "cpu")
    assert figure(content["cells"]).startswith(b"\x89PNG")


def test_memory_is_in_the_table_and_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ntangent.bench.sweep.peak_memory", lambda cell, name, *_: 1_500_000 * (cell.order + 1)
    )
    arguments = ("--order", "0,1", "--backend", "eager", *TINY[:-1], "--json", tmp_path / "b.json")
    result = ntangent_("bench", *arguments)
    assert "peak memory" in result.stdout
    assert "1.5" in result.stdout
    memory = json.loads((tmp_path / "b.json").read_text())["memory"]
    assert {(m["cell"]["order"], m["cell"]["dtype"]) for m in memory} == {
        (n, d) for n in (0, 1) for d in ("float32", "float64")
    }


def test_a_wrong_backend_makes_the_command_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntangent.cli.bench.find", lambda names: [*bench.find(("eager",)), broken("value")])
    result = ntangent_("bench", "--order", "2", *TINY)
    assert result.exit_code == 1
    assert "error: wrong results:\n  broken, order 2" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--order", "1,x"), "'x' is neither a number nor a range such as 0-9"),
        (("--order=-1",), "neither a number nor a range"),
        (("--width", "0"), "width must be"),
        (("--dtype", "float16"), "there is no precision 'float16'"),
        (("--backend", "nativ"), "did you mean native"),
    ],
)
def test_a_wrong_command_line_is_explained(arguments: tuple[str, ...], expected: str) -> None:
    result = ntangent_("bench", *arguments)
    assert result.exit_code == 2
    assert expected in result.stderr


def test_durations_are_readable() -> None:
    texts = [duration_text(s) for s in (3e-5, 0.00123, 2.0, 90.0, 7200.0)]
    assert texts == ["30 µs", "1.23 ms", "2 s", "1.5 min", "2 h"]
