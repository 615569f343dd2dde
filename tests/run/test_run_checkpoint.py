"""Damaged and foreign checkpoints are noticed; the one before them serves."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from run_toys import CONFIG, Descent, Fit, Moments, assert_same, make, start

from ntangent._base.errors import CheckpointError, DtypeError
from ntangent._base.protocols import State
from ntangent.run import Checkpoint, Outcome, RunFolder, load_checkpoint, save_checkpoint, train

STAGES = [Descent(6), Moments(7)]


def run(folder: RunFolder, resume: bool = False) -> Outcome:
    return train(STAGES, Fit(), start(), folder=folder, resume=resume, checkpoint_every=0.0)


def stored(path: Path) -> list[Path]:
    return sorted(path.glob("*.ckpt"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def some(step: int, **content: object) -> Checkpoint:
    state = State(torch.arange(3.0), 0.5, step)
    checkpoint = Checkpoint(state, 0, False, ["A"], [], [], 0, 1.5, "hash")
    return Checkpoint(**{**checkpoint.__dict__, **content})  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", [truncate, empty, flip])
def test_a_damaged_checkpoint_falls_back_and_the_bits_are_the_same(tmp_path: Path, damage, caplog) -> None:  # type: ignore[no-untyped-def]
    folder, whole = make(tmp_path / "run"), make(tmp_path / "whole")
    expected = run(whole)
    run(folder)
    older, newest = stored(folder.checkpoints)
    damage(newest)
    loaded = load_checkpoint(folder.checkpoints)
    assert loaded is not None
    assert loaded.path == older
    assert loaded.damaged == (newest,)
    assert newest.exists()
    outcome = run(folder, resume=True)
    assert outcome.warnings == loaded.warnings
    assert str(newest) in outcome.warnings[0]
    assert outcome.warnings[0] in caplog.text
    assert_same(folder, outcome, whole, expected)
    assert len(stored(folder.checkpoints)) == 2
    assert newest.with_name(newest.name + ".damaged").exists()


def test_no_good_checkpoint(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    run(folder)
    older, newest = stored(folder.checkpoints)
    flip(older)
    truncate(newest)
    with pytest.raises(CheckpointError, match="no checkpoint is good") as caught:
        run(folder, resume=True)
    assert str(older) in caught.value.what
    assert "cut off" in caught.value.what
    assert "checksum" in caught.value.what
    assert "--overwrite" in caught.value.fix


def test_any_single_bit_is_noticed(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, some(1))
    data = path.read_bytes()
    rng = random.Random(7)
    for place in [*range(100), *rng.sample(range(len(data)), 200)]:
        broken = bytearray(data)
        broken[place] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(broken))
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path)


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    for step in (1, 2, 10, 1_000_000_000_0):
        save_checkpoint(tmp_path, some(step))
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.checkpoint.step == 1_000_000_000_0
    assert len(list(tmp_path.iterdir())) == 2


def test_content_comes_back(tmp_path: Path) -> None:
    base = torch.randn(4, 6, dtype=torch.float64)
    memory = {"view": base[:, 1:4], "turned": base.T, "deep": [(1, {"x": base[0]})], 3: None, "s": {"a": 2.5}}
    generator = torch.Generator().manual_seed(4)
    extra = {"generator": generator.get_state(), "count": np.int64(7), "dtype": torch.float32, "raw": b"ab"}
    state = State(base[1], 0.1 + 0.2, 5, memory, {"norm": float("inf")}, "done")
    save_checkpoint(tmp_path, some(5, state=state, extra=extra))
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    back = loaded.checkpoint.state
    assert torch.equal(back.theta, base[1])
    assert (back.loss, back.iteration, back.info, back.stop) == (0.1 + 0.2, 5, {"norm": float("inf")}, "done")
    for name in ("view", "turned"):
        assert torch.equal(back.memory[name], memory[name])
        assert back.memory[name].stride() == memory[name].stride()
    assert torch.equal(back.memory["deep"][0][1]["x"], base[0])
    assert back.memory[3] is None
    assert back.memory["s"] == {"a": 2.5}
    torch.Generator().set_state(loaded.checkpoint.extra["generator"])
    assert loaded.checkpoint.extra["count"] == 7
    assert loaded.checkpoint.extra["dtype"] is torch.float32


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DtypeError, match=r"\['extra'\]\['x'\]\[0\] is a ndarray"):
        save_checkpoint(tmp_path, some(1, extra={"x": [np.zeros(2)]}))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_run(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    run(folder)
    with pytest.raises(CheckpointError, match="with the stages Descent, Moments"):
        train([Moments(2)], Fit(), start(), folder=folder, resume=True)
    other = RunFolder.create(tmp_path / "other", {**CONFIG, "seed": 2})
    (other.checkpoints / "checkpoint-000000001.ckpt").write_bytes(stored(folder.checkpoints)[0].read_bytes())
    with pytest.raises(CheckpointError, match="belongs to another run"):
        run(other, resume=True)


def test_metrics_shorter_than_the_checkpoint_knew(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    run(folder)
    data = folder.metrics_path.read_bytes()
    folder.metrics_path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="does not fit its checkpoint"):
        run(folder, resume=True)
