"""Solves a small profile in a folder, resuming what is there: the victim of the kill test.

``kill_child.py FOLDER KIND`` solves once. With SEED and KILLS it forks a child that solves, kills it by
SIGKILL at random instants of the last stage, as often as asked, and then lets one come to its end.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from ntangent import optim
from ntangent.pinn import solve
from ntangent.problems import BurgersProfile

RECIPE = BurgersProfile(1, points=40, width=10)
LAST = {
    "polish": lambda: optim.Polish(8, features=60, seed=1),
    "multistage": lambda: optim.MultiStage(optim.LevenbergMarquardt(25)),
}


class Slow:
    """Makes each iteration long enough to be hit, and says when the last stage is under way."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def on_step(self, record: object) -> None:
        if record.stage == 1:  # type: ignore[attr-defined]
            self.mark.touch()
            time.sleep(0.02)

    def on_stage(self, record: object) -> None:
        pass

    def on_end(self, outcome: object) -> None:
        pass


def work(path: Path, kind: str) -> None:
    """Solve, or resume if there is a run."""
    resume = (path / "config.json").exists()
    solve(
        RECIPE.problem(), RECIPE.network(), [optim.LevenbergMarquardt(25), LAST[kind]()],
        sampler=RECIPE.sampler(), run_dir=path, resume=resume, checkpoint_every=0.0, progress=False,
        callbacks=[Slow(path.with_suffix(".mark"))],
    )  # fmt: skip


def kill_and_resume(path: Path, kind: str, seed: int, kills: int) -> None:
    """Kill children in the last stage, then finish."""
    rng, mark, killed = random.Random(seed), path.with_suffix(".mark"), 0
    for _ in range(kills):
        mark.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            work(path, kind)
            os._exit(0)
        while not mark.exists() and os.waitpid(child, os.WNOHANG)[0] == 0:
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.05))
        try:
            os.kill(child, signal.SIGKILL)
            killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        except (ProcessLookupError, ChildProcessError):
            continue
    work(path, kind)
    print(killed)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) == 3:
        work(Path(sys.argv[1]), sys.argv[2])
    else:
        kill_and_resume(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
