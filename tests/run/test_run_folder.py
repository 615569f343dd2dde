"""What a run folder holds, what it refuses to replace, and the metrics file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from run_toys import CONFIG, Descent, make

from ntangent._base.errors import CheckpointError, DtypeError, RunFolderError
from ntangent.run import EndRecord, MetricsWriter, Record, RunFolder, StageRecord, read_metrics, run_config


def names(path: Path) -> set[str]:
    return {str(entry.relative_to(path)) for entry in path.rglob("*")}


def record(step: int, loss: float = 1.0, **info: float) -> Record:
    return Record(step, 0, "Adam", step, loss, info, {}, 0.5)


def test_config_round_trip(tmp_path: Path) -> None:
    folder = make(tmp_path / "deep" / "run")
    opened = RunFolder.open(folder.path)
    assert opened == folder == RunFolder.resume(folder.path, CONFIG)
    assert opened.config["options"]["bounds"] == [0.0, "inf"]
    assert folder.config_hash == RunFolder(folder.path, dict(reversed(folder.config.items()))).config_hash
    assert names(folder.path) == {"config.json", "checkpoints", "figures"}


def test_run_config_names_what_decides_the_bits() -> None:
    config = run_config(
        problem="toy", options={"k": 2}, stages=[Descent(3)], seed=4, dtype=torch.float64, width=24
    )
    assert set(config) == {
        "version", "torch", "problem", "options", "stages", "seed", "dtype", "threads", "width",
    }  # fmt: skip
    assert config["stages"] == [repr(Descent(3))]
    assert (config["dtype"], config["threads"]) == ("float64", torch.get_num_threads())
    with pytest.raises(DtypeError, match=r"config\['options'\]\['f'\] is a function"):
        run_config(problem="", options={"f": names}, stages=[], seed=0, dtype=torch.float32)


def test_an_existing_run_is_not_replaced(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    with pytest.raises(RunFolderError, match="already holds a run") as caught:
        make(folder.path)
    assert all(option in caught.value.fix for option in ("--resume", "--overwrite", "--run-dir"))


def test_overwrite_deletes_what_a_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    folder.write_result({"loss": 1.0})
    folder.write_evaluation({"u": np.zeros(3)})
    for name in ("metrics.jsonl", "report.html", "checkpoints/checkpoint-000000001.ckpt", "figures/loss.png"):
        (folder.path / name).write_text("old")
    mine = ("notes.txt", "figures/drawing.xcf", "checkpoints/best.pt")
    for name in mine:
        (folder.path / name).write_text("mine")
    new = RunFolder.create(folder.path, {**CONFIG, "seed": 9}, overwrite=True)
    assert names(folder.path) == {"config.json", "checkpoints", "figures", *mine}
    assert RunFolder.open(folder.path) == new
    assert new.config["seed"] == 9


def test_overwrite_does_not_follow_links(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "photo.png").write_text("mine")
    folder = make(tmp_path / "run")
    folder.figures.rmdir()
    folder.figures.symlink_to(elsewhere)
    RunFolder.create(folder.path, CONFIG, overwrite=True)
    assert (elsewhere / "photo.png").exists()


@pytest.mark.parametrize(
    "content", [{"thesis.tex": ""}, {"config.json": '{"model": "x"}', "metrics.jsonl": ""}]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_directory_is_refused(tmp_path: Path, content: dict[str, str], overwrite: bool) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(RunFolderError, match="holds no run"):
        RunFolder.create(tmp_path, CONFIG, overwrite=overwrite)
    assert names(tmp_path) == set(content)
    with pytest.raises(RunFolderError, match="there is no run in"):
        RunFolder.resume(tmp_path, CONFIG)


def test_a_file_is_refused_and_an_empty_directory_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="is a file"):
        make(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty")


def test_a_foreign_config_names_exactly_the_keys_that_differ(tmp_path: Path) -> None:
    config = {**CONFIG, "options": {"k": 3, "bounds": [0.0, 1.0]}, "seed": 1.0, "new": "x"}
    make(tmp_path / "run")
    with pytest.raises(CheckpointError) as caught:
        RunFolder.resume(tmp_path / "run", config)
    assert caught.value.what.split("configuration: ")[1].split("; ") == [
        "options.k is 2 there and 3 here",
        'options.bounds[1] is "inf" there and 1.0 here',
        "seed is 1 there and 1.0 here",
        'new is absent there and "x" here',
    ]


def test_result_and_evaluation_round_trip(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    assert folder.read_result() is None
    assert folder.read_evaluation() is None
    folder.write_result({"loss": np.float64(0.1), "error": math.nan, "n": torch.tensor(3)})
    assert folder.read_result() == {"loss": 0.1, "error": "nan", "n": 3}
    x = np.random.default_rng(0).normal(size=(5, 2))
    folder.write_evaluation({"x": x, "file": x[0]})
    back = folder.read_evaluation()
    assert back is not None
    assert back["x"].tobytes() == x.tobytes()
    assert back["file"].tobytes() == x[0].tobytes()
    (folder.path / "result.json").write_text("[1")
    with pytest.raises(RunFolderError, match="not a JSON object"):
        folder.read_result()


def test_metrics_read_back_to_the_same_bits(tmp_path: Path) -> None:
    bits = np.random.default_rng(1).integers(0, 2**63, 500, dtype=np.int64).view(np.float64)
    special = [0.0, -0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan, 0.1]
    losses = [*bits.tolist(), *special]
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        for step, loss in enumerate(losses):
            writer.write(record(step, loss, norm=-loss, count=3))
        writer.write(StageRecord(1, 0, "nan", 1, math.nan, "why", 2.0))
        writer.write(EndRecord(1, math.inf, 2.0, None))
        assert writer.size > 0
    metrics = read_metrics(path)
    assert (
        np.array([item.loss for item in metrics.steps]).tobytes()
        == np.array([abs(math.nan) if math.isnan(loss) else loss for loss in losses]).tobytes()
    )
    assert repr([item.info["norm"] for item in metrics.steps]) == repr([-loss for loss in losses])
    assert metrics.stages[0].name == "nan"
    assert math.isnan(metrics.stages[0].loss)
    assert metrics.end == EndRecord(1, math.inf, 2.0, None)
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_every_cut_of_the_last_line_is_tolerated(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        writer.write(record(1))
        kept = writer.size
        writer.write(record(2))
    data = path.read_bytes()
    for size in range(kept, len(data)):
        path.write_bytes(data[:size])
        assert [item.step for item in read_metrics(path).steps] == [1]
    with MetricsWriter(path, kept) as writer:
        writer.write(record(3))
    assert [item.step for item in read_metrics(path).steps] == [1, 3]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path).steps == []
    with MetricsWriter(path) as writer:
        for step in (1, 2, 3):
            writer.write(record(step))
    lines = path.read_bytes().split(b"\n")
    for bad in (lines[1][:20], b"[]", b"{}", b'{"kind":"step","loss":1}'):
        path.write_bytes(b"\n".join([lines[0], bad, lines[2], b""]))
        with pytest.raises(RunFolderError, match="line 2 of"):
            read_metrics(path)


def test_lines_are_on_disk_without_closing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path, interval=0.0) as writer:
        writer.write(record(1))
        assert len(read_metrics(path).steps) == 1
    with MetricsWriter(path, path.stat().st_size, interval=1e9) as writer:
        writer.write(record(2))
        assert len(read_metrics(path).steps) == 1
        writer.sync()
        assert len(read_metrics(path).steps) == 2
