"""Trains in a folder, resuming what is there: the victim of the kill tests.

``run_child.py FOLDER`` trains once. ``run_child.py FOLDER SEED KILLS`` forks a child that trains,
kills it by SIGKILL at a random instant, as often as asked, and then lets one come to its end.
Forking spares the import of torch at every attempt.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from run_toys import CONFIG, Descent, Fit, Moments, start

from ntangent.run import RunFolder, train

PAUSE = 0.004
STAGES = [Descent(30), Moments(40), Descent(20, rate=0.01)]


def work(path: Path) -> None:
    fresh = not (path / "config.json").exists()
    folder = RunFolder.create(path, CONFIG) if fresh else RunFolder.resume(path, CONFIG)
    outcome = train(
        STAGES,
        Fit(pause=PAUSE),
        start(),
        folder=folder,
        resume=not fresh,
        checkpoint_every=0.02,
        describe=lambda theta: {"a": float(theta[0])},
    )
    folder.write_evaluation({"theta": outcome.theta.numpy()})
    folder.write_result({"loss": outcome.loss, "reasons": outcome.reasons})


def kill_and_resume(path: Path, seed: int, kills: int) -> None:
    rng = random.Random(seed)
    killed = 0
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            work(path)
            os._exit(0)
        time.sleep(rng.uniform(0.0, 0.25))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    work(path)
    print(killed)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) == 2:
        print("started", flush=True)
        work(Path(sys.argv[1]))
    else:
        kill_and_resume(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
