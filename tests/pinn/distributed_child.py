"""Trainings that a test runs in one process, and as the ranks of a process group."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

import ntangent as nt
from ntangent import optim, pinn
from ntangent._base.errors import ArgumentError, RunFolderError
from ntangent.run.callbacks import Record


def poisson() -> pinn.Problem:
    return pinn.Problem(
        domain=pinn.Box(x=(0, 1)),
        equations=[lambda u, x: u.xx + math.pi**2 * (math.pi * x).sin()],
        conditions=[pinn.Dirichlet(x=(0, 1), value=0)],
    )


def burgers(*more: Any) -> pinn.Problem:
    return pinn.Problem(
        domain=pinn.Box(x=(-1, 1), t=(0, 1)),
        equations=[lambda u, p: u.t + u * u.x - p.nu * u.xx],
        conditions=[
            pinn.Initial(lambda x: -torch.sin(torch.pi * x), n=20),
            pinn.Dirichlet(x=(-1, 1), value=0, n=20),
            *more,
        ],
        unknowns={"nu": pinn.Unknown(0.02, bounds=(1e-4, 1))},
    )


def mass() -> pinn.Problem:
    """A condition whose residuals depend on many points."""
    return burgers(pinn.Integral(lambda u: u, value=0.0, over="x", at=4))


@dataclasses.dataclass(frozen=True)
class Case:
    """A training: its problem, stages and options."""

    problem: Any
    stages: list[Any]
    options: dict[str, Any]

    def solve(self, **more: Any) -> pinn.Solution:
        problem = self.problem()
        generator = torch.Generator().manual_seed(0)
        net = nt.MLP(problem.domain.dimension, 1, width=12, depth=2, dtype=torch.float64, generator=generator)
        options = {"sampler": pinn.Sobol(96), "progress": False, **self.options, **more}
        return pinn.solve(problem, net, self.stages, **options)


LBFGS, LM = [optim.LBFGS(200)], [optim.LevenbergMarquardt(50)]
# The same bits as in one process: sums are those of the chunks, or no sums are taken.
EXACT = {
    "lbfgs, 1D": Case(poisson, LBFGS, {"chunk": 24}),
    "lbfgs, 2D": Case(burgers, LBFGS, {"chunk": 24}),
    "lm, 1D": Case(poisson, LM, {}),
    "lm, 2D": Case(burgers, LM, {}),
    "lm, 2D, chunks": Case(burgers, LM, {"chunk": 24}),
    "cg": Case(burgers, [optim.GaussNewton(5, solver="cg", products=30)], {"chunk": 24}),
    "many stages": Case(
        poisson, [optim.LBFGS(20), optim.MultiStage(optim.LBFGS(20)), optim.Polish(3)], {"chunk": 24}
    ),
    "batches": Case(burgers, [optim.Adam(30, batch=32)], {"chunk": 16, "resample": pinn.RAD(every=10)}),
    "refined": Case(
        poisson, [optim.LBFGS(60)], {"chunk": 24, "refine": pinn.Refine(1.0001, every=10, patience=1)}
    ),
    "rba": Case(burgers, [optim.Adam(20)], {"chunk": 24, "weighting": pinn.RBA()}),
}
# To rounding: few iterations, so that the method does not magnify it.
ROUNDED = {
    "lbfgs": Case(burgers, [optim.LBFGS(15)], {}),
    "integral": Case(mass, [optim.LBFGS(15)], {}),
    "integral, cg": Case(mass, [optim.GaussNewton(2, solver="cg", products=5)], {}),
    "integral, lm": Case(mass, [optim.LevenbergMarquardt(5)], {}),
    "gradients": Case(burgers, [optim.Adam(20)], {"weighting": pinn.RBA() * pinn.GradNorm(every=5)}),
    "ntk": Case(burgers, [optim.Adam(20)], {"weighting": pinn.NTK(every=5)}),
}
LONG = Case(burgers, [optim.LBFGS(40)], {"chunk": 24, "checkpoint_every": 0.0, "weighting": pinn.RBA()})


class Dying:
    """A callback; the leader lets the process of another rank end in the midst of the training."""

    def __init__(self, other: int) -> None:
        self.other = other

    def on_step(self, record: Record) -> None:
        if record.step == 20:
            os.kill(self.other, signal.SIGKILL)

    def on_stage(self, record: Any) -> None:
        pass

    def on_end(self, outcome: Any) -> None:
        pass


def facts(solution: pinn.Solution) -> dict[str, Any]:
    """Return what two runs are compared by."""
    return {
        "losses": [record.loss for record in solution.outcome.history],
        "held out": [record.info.get("held_out") for record in solution.outcome.history],
        "theta": solution.outcome.theta,
        "unknowns": solution.unknowns,
        "terms": solution.summary()["terms"],
    }


def refusal(folder: str, rank: str) -> str:
    """Return what a rank hears when the leader's folder is taken."""
    try:
        LONG.solve(run_dir=f"{folder}/taken")
    except RunFolderError as error:
        return str(error)
    return f"rank {rank} went on"


def stranger(rank: str) -> str:
    """Return what a rank hears when the problems differ."""
    try:
        dataclasses.replace(LONG, problem=poisson if rank == "0" else burgers).solve()
    except ArgumentError as error:
        return str(error)
    return f"rank {rank} went on"


def main(task: str, folder: str, rank: str, size: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/{task}", rank=int(rank), world_size=int(size),
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    if task == "cases":
        found = {name: facts(case.solve()) for name, case in {**EXACT, **ROUNDED}.items()}
        torch.save(found, f"{folder}/{rank}.pt")
    elif task == "failures":
        torch.save([refusal(folder, rank), stranger(rank)], f"{folder}/{rank}.pt")
        others: list[Any] = [None] * int(size)
        dist.all_gather_object(others, os.getpid())
        LONG.solve(run_dir=f"{folder}/run", callbacks=[Dying(others[1])])
    elif task == "resume":
        torch.save(facts(LONG.solve(run_dir=f"{folder}/run", resume=True)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()
