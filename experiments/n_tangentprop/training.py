"""Figures 6 to 10 of the n-TangentProp paper: the Burgers profiles by its network, loss and schedule."""

import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from experiments._common.paper import SMOKE, Options
from torch import nn

import ntangent as nt
from ntangent import optim
from ntangent.pinn import Box, Dirichlet, Grid, Problem, Solution, TaylorResidual, Unknown, solve
from ntangent.problems import BurgersProfile, run

SEED = 42
ADAM, LBFGS = 15_000, 30_000
PROFILES = (1, 2, 3, 4)
TIMED = (1, 2)  # profiles whose cost is compared with automatic differentiation
BACKENDS = ("native", "eager", "faa-di-bruno", "autograd")
SIDE = 5  # neurons of the side network of λ
SAMPLES = 300  # of a curve against the iteration
SHOWN = 161  # points at which profiles are drawn
Line = dict[str, Any]


class Network(nn.Module):
    """The paper's network, 1.15 times a tanh network with PyTorch's initialisation, by one backend.

    Args:
        backend: how its series is computed: nested reverse mode, the paper's algorithm, or this library's.
    """

    def __init__(self, backend: str) -> None:
        super().__init__()
        torch.manual_seed(SEED)
        sizes = [1, 24, 24, 24, 1]
        layers: list[nn.Module] = []
        for i in range(4):
            layers += [nn.Linear(sizes[i], sizes[i + 1], dtype=torch.float64), nn.Tanh()]
        self.net = nn.Sequential(*layers[:-1])
        self.backend = backend

    def forward(self, x: Any) -> Any:
        """Return the field, of points or of their series."""
        if isinstance(x, nt.Jet):
            return nt.jet(self.net, x.value, x.order, backend=self.backend) * 1.15
        return self.net(x) * 1.15


def bracket(profile: int) -> tuple[float, float]:
    """Return the interval of λ."""
    return 1 / (2 * profile + 1), 1 / (2 * profile - 1)


def exponent(values: Any, profile: int) -> Any:
    """Return λ from the weights of its side network, which sees the input 0 only.

    lo + (hi - lo)·(r + 1)/2 with r = tanh(w·tanh(b) + c): the first layer's weights never matter.
    """
    low, high = bracket(profile)
    b, w = (torch.stack([values[f"{name}{i}"] for i in range(SIDE)]) for name in "bw")
    r = torch.tanh((w * torch.tanh(b)).sum(0) + values["c"])
    return low + (high - low) * (r + 1) / 2


def problem(profile: int, order: int | None = None) -> Problem:
    """Return the paper's problem; the smoothness term is of order 2·profile + 1, as its text has it.

    The published runs have order 3 for every profile.
    """
    order = order or 2 * profile + 1
    names = [f"{name}{i}" for name in "bw" for i in range(SIDE)] + ["c"]
    generator = torch.Generator().manual_seed(SEED)
    unknowns = {}
    for name in names:  # PyTorch's initialisation of Linear(1, 5) and Linear(5, 1)
        reach = 1.0 if name.startswith("b") else SIDE**-0.5
        unknowns[name] = Unknown(reach * (2 * float(torch.rand(1, generator=generator)) - 1))

    def equation(U: Any, p: Any, X: Any) -> Any:
        lam = exponent({name: getattr(p, name) for name in names}, profile)
        return -lam * U + ((1 + lam) * X + U) * U.X

    near = torch.linspace(-0.075, 0.075, 31, dtype=torch.float64)
    return Problem(
        domain=Box(X=(-2.0, 2.0)),
        equations=[equation],
        conditions=[
            Dirichlet(X=-2.0, value=1.0),
            Dirichlet(X=2.0, value=-1.0),
            # Of derivatives, not of Taylor coefficients: (n!)² makes the one the other.
            TaylorResidual(near, [order], 0.2 * math.factorial(order) ** 2),
        ],
        unknowns=unknowns,
        reference=BurgersProfile(profile).problem().reference,
    )


class Trace:
    """Notes loss, λ and cost of chosen iterations.

    Args:
        profile: which profile.
        every: iterations between two notes, besides 1, 2, 4, 8, ...; the last of a stage is noted.
        budgets: iterations of the stages.
    """

    def __init__(self, profile: int, every: int, budgets: Sequence[int]) -> None:
        self.profile, self.every = profile, every
        self.ends = {sum(budgets[: i + 1]) for i in range(len(budgets))}
        self.rows: list[list[float]] = []
        self.stages: list[Line] = []
        self.began, self.before = (time.process_time(), time.perf_counter()), 0.0

    def on_step(self, record: Any) -> None:
        """Note an iteration: step, CPU and wall seconds, evaluations, loss, error of λ."""
        step = record.step
        self.last = record.info.get("evaluations", float(record.iteration))
        if step % self.every and step & (step - 1) and step not in self.ends:
            return
        values = {name: torch.tensor(value) for name, value in record.values.items()}
        error = abs(float(exponent(values, self.profile)) - 1 / (2 * self.profile))
        self.rows.append([step, *self._clock(), self.before + self.last, record.loss, error])

    def on_stage(self, record: Any) -> None:
        """Note the end of a stage."""
        self.before += self.last
        cpu, wall = self._clock()
        self.stages.append(
            {
                "name": record.name, "iterations": record.iterations, "evaluations": self.last,
                "loss": record.loss, "cpu": cpu, "wall": wall, "reason": record.reason,
            }
        )  # fmt: skip

    def on_end(self, outcome: Any) -> None:
        """Nothing is left to note."""

    def _clock(self) -> tuple[float, float]:
        return time.process_time() - self.began[0], time.perf_counter() - self.began[1]


def train(
    profile: int, backend: str, adam: int, lbfgs: int, every: int, order: int | None = None
) -> tuple[Solution, Trace]:
    """Train by the paper's schedule."""
    trace = Trace(profile, every, (adam, lbfgs))
    stages = [optim.Adam(adam, lr=1.5e-4), optim.LBFGS(lbfgs, history=30)]
    solution = solve(
        problem(profile, order), Network(backend), stages, sampler=Grid(301),
        equation_weights=[0.3], sobolev=[1.0], callbacks=[trace], progress=False,
    )  # fmt: skip
    return solution, trace


def schedule_line(profile: int, options: Options) -> Line:
    """Return the numbers of the paper's schedule."""
    adam, lbfgs = (60, 60) if options.size == SMOKE else (ADAM, LBFGS)
    solution, trace = train(profile, "native", adam, lbfgs, max(1, (adam + lbfgs) // SAMPLES))
    values = {name: torch.tensor(value, dtype=torch.float64) for name, value in solution.unknowns.items()}
    return {
        "loss": solution.loss,
        "lambda": float(exponent(values, profile)),
        **_errors(solution, profile, float(exponent(values, profile))),
        "cpu": trace.stages[-1]["cpu"],
        "stages": trace.stages,
        "trace": [[float(f"{number:.6g}") for number in row] for row in trace.rows],
    }


def best_line(profile: int, _options: Options) -> Line:
    """Return the numbers of this library's own recipe for the same profile."""
    began = time.process_time(), time.perf_counter()
    solution = run("burgers-profile", BurgersProfile(profile), progress=False)
    spent = time.process_time() - began[0], time.perf_counter() - began[1]
    lam = solution.unknowns["lam"]
    return {
        "loss": solution.loss, "lambda": lam, **_errors(solution, profile, lam),
        "cpu": spent[0], "wall": spent[1],
    }  # fmt: skip


def _errors(solution: Solution, profile: int, lam: float) -> Line:
    x = torch.linspace(-2, 2, SHOWN, dtype=torch.float64)
    order = 2 * profile + 1
    rows = solution.derivatives(x, order)
    exact = BurgersProfile(profile).problem().reference(x, order)  # type: ignore[misc]
    return {
        "lambda_error": abs(lam - 1 / (2 * profile)),
        "max_errors": (rows - exact).abs().amax(1).tolist(),
        "relative_errors": ((rows - exact).norm(dim=1) / exact.norm(dim=1)).tolist(),
        "rows": [[float(f"{number:.5g}") for number in row] for row in rows.tolist()],
    }


def cost_line(profile: int, options: Options) -> Line:
    """Return CPU seconds of one evaluation in each phase, for every backend; they take turns."""
    rounds, count = (1, 40) if options.size == SMOKE else (5, 70)
    found: dict[str, dict[str, list[float]]] = {name: {"adam": [], "lbfgs": []} for name in BACKENDS}
    losses: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name in BACKENDS:
            _, trace = train(profile, name, count, count, 1)
            losses[name] = [row[4] for row in trace.rows[:count]]
            for phase, first in (("adam", 5), ("lbfgs", count + 32)):  # L-BFGS with all of its 30 pairs
                start, end = trace.rows[first], trace.rows[count * (1 + (phase == "lbfgs")) - 1]
                found[name][phase].append((end[1] - start[1]) / (end[3] - start[3]))
    seconds = {name: {p: statistics.median(v) for p, v in phases.items()} for name, phases in found.items()}
    pairs = [pair for other in losses.values() for pair in zip(other, losses["native"], strict=True)]
    apart = max(abs(loss / native - 1) for loss, native in pairs)
    return {"seconds": seconds, "rounds": rounds, "losses_apart": apart}


KINDS = {"schedule": schedule_line, "best": best_line, "cost": cost_line}


def cells() -> Iterator[tuple[str, int]]:
    """Return what is measured, the quick parts first."""
    yield from (("best", profile) for profile in PROFILES)
    yield from (("cost", profile) for profile in TIMED)
    yield from (("schedule", profile) for profile in PROFILES)


def measure(path: Path, options: Options) -> bool:
    """Write a line for each part that the file lacks."""
    began = time.perf_counter()
    known = {(line["kind"], line["profile"]) for line in read(path)}
    for kind, profile in cells():
        if (kind, profile) in known:
            continue
        if time.perf_counter() - began > options.budget:
            return False
        line = {"kind": kind, "profile": profile, **KINDS[kind](profile, options)}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(f"profile {profile} {kind}: {shown(line)}", flush=True)
    short = path.with_name("training-summary.json")
    short.write_text("[\n" + ",\n".join(map(json.dumps, summary(read(path)))) + "\n]\n", encoding="utf-8")
    return True


def read(path: Path) -> list[Line]:
    """Return the lines of a file; one that a kill cut off is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def shown(line: Line) -> str:
    """Return a line in short."""
    if line["kind"] == "cost":
        return ", ".join(
            f"{n} {1e3 * s['adam']:.2f}/{1e3 * s['lbfgs']:.2f} ms" for n, s in line["seconds"].items()
        )
    return (
        f"|dλ| {line['lambda_error']:.1e}, max|dU| {line['max_errors'][0]:.1e}, loss {line['loss']:.1e}, "
        f"{line['cpu']:.1f} CPU s"
    )


def find(lines: Sequence[Line], kind: str, profile: int) -> Line | None:
    """Return the line of a part."""
    return next((line for line in lines if (line["kind"], line["profile"]) == (kind, profile)), None)


def seconds(lines: Sequence[Line], profile: int, backend: str, phase: str) -> float | None:
    """Return CPU seconds of a phase of the schedule: cost of an evaluation times their number.

    The number is that of the whole training; all backends take the same path but for rounding.

    Args:
        lines: of the file.
        profile: which profile.
        backend: which backend.
        phase: "adam", "lbfgs" or "total".
    """
    cost, schedule = find(lines, "cost", profile), find(lines, "schedule", profile)
    if cost is None or schedule is None:
        return None
    counts = {stage["name"].lower(): stage["evaluations"] for stage in schedule["stages"]}
    phases = ("adam", "lbfgs") if phase == "total" else (phase,)
    return float(sum(cost["seconds"][backend][name] * counts[name] for name in phases))


def value(claim: Line, lines: Sequence[Line]) -> float | None:
    """Return our value of a claim: a ratio of times, or a number of one line."""
    profile = claim["profile"]
    if claim["quantity"] == "ratio":
        times = [seconds(lines, profile, name, claim["phase"]) for name in ("autograd", claim["ours"])]
        return times[0] / times[1] if times[0] and times[1] else None
    line = find(lines, claim["kind"], profile)
    return None if line is None else float(line[claim["quantity"]])


def summary(lines: Sequence[Line]) -> list[Line]:
    """Return the lines without curves and profiles, and with the seconds of every backend."""
    short = [{k: v for k, v in line.items() if k not in ("trace", "rows")} for line in lines]
    for line in short:
        if line["kind"] == "cost":
            line["schedule_seconds"] = {
                name: {p: seconds(lines, line["profile"], name, p) for p in ("adam", "lbfgs", "total")}
                for name in BACKENDS
            }
    return short
