"""Every optimiser on the same losses: loss and error against CPU seconds, as a plot and as JSON.

    python benchmarks/optimisers.py --out optimisers.json --figure optimisers.png
    python benchmarks/optimisers.py --problems profile-1,burgers --seconds 60 --out o.json --figure o.png

The self-similar profiles k = 1, 2, 3 and the viscous Burgers equation; every run of a problem starts from
the same network. A run ends when its CPU seconds are used, or when the method stops by itself. The error
is that of λ for a profile and the relative L2 error of the solution for Burgers, measured now and then,
which is not counted. The polish gets what Levenberg-Marquardt left: it stops at a loss of 1e-12 or after
60 % of the time.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ntangent import optim
from ntangent.pinn import solve
from ntangent.problems import CATALOGUE
from ntangent.report.style import LIGHT, dress, new_figure, png

MANY = 1_000_000_000  # iterations: the clock decides
POLISH = "polish"  # stands for that of the problem's own recipe
METHODS: dict[str, Any] = {
    "Adam": lambda: [optim.Adam(MANY, lr=1e-3)],
    "SOAP": lambda: [optim.SOAP(MANY)],
    "L-BFGS": lambda: [optim.LBFGS(MANY)],
    "SSBFGS": lambda: [optim.SSBFGS(MANY)],
    "SSBroyden": lambda: [optim.SSBroyden(MANY)],
    "Gauss-Newton": lambda: [optim.GaussNewton(MANY)],
    "LM": lambda: [optim.LevenbergMarquardt(MANY)],
    "LM + polish": lambda: [optim.LevenbergMarquardt(MANY, tolerance=1e-12), POLISH],
}
COLOURS = (*LIGHT.lines, "#8a8f00", "#3d3d3d", "#d6a200")


@dataclass
class Stopwatch:
    """A callback that notes loss and error by CPU seconds, without those of the measuring itself.

    Args:
        seconds: after which the run ends.
        error: of a parameter vector.
        points: how many errors are measured about, equally spread in the logarithm of time.
    """

    seconds: float
    error: Any
    rows: list[list[float]] = field(default_factory=list)
    began: float = field(default_factory=time.process_time)
    due: float = 0.0

    def on_step(self, record: Any) -> str | None:
        """Note an iteration when it is time, and end the run when its time is over."""
        now = time.process_time()
        used = now - self.began
        if used >= self.due or used >= self.seconds:
            self.rows.append([used, record.step, record.loss, self.error(record)])
            self.due = max(used * 1.12, used + 0.01)
            self.began += time.process_time() - now
        return f"{self.seconds:g} CPU seconds are used" if used >= self.seconds else None

    def on_stage(self, _record: Any) -> None:
        """At a stage's end the next iteration is noted."""
        self.due = 0.0

    def on_end(self, _outcome: Any) -> None:
        """Nothing is left to note."""


class Timed:
    """A stage with which the clock starts, and which also ends when its share of the time is used.

    Args:
        inner: the stage.
        watch: the clock.
        seconds: CPU seconds after which it ends.
    """

    def __init__(self, inner: Any, watch: Stopwatch, seconds: float) -> None:
        self.inner, self.watch, self.seconds = inner, watch, seconds

    @property
    def iterations(self) -> int:
        """The budget of the stage."""
        return int(self.inner.iterations)

    def begin(self, objective: Any, theta: Any) -> Any:
        """Begin the stage; what was prepared before does not count."""
        self.watch.began = time.process_time()
        return self.inner.begin(objective, theta)

    def step(self, objective: Any, state: Any) -> Any:
        """Do an iteration."""
        state = self.inner.step(objective, state)
        used = time.process_time() - self.watch.began
        return state if used < self.seconds or state.stop else replace(state, stop="its share is used")


def recipe_of(name: str, seed: int) -> Any:
    """Return the recipe of a problem."""
    if name.startswith("profile-"):
        return CATALOGUE["burgers-profile"](k=int(name[-1]), seed=seed)
    # A front ten times as wide as the usual one: minutes would show nothing otherwise.
    return CATALOGUE["burgers"](
        viscosity=0.1 / torch.pi, points=800, width=16, depth=2, features=300, seed=seed
    )


def measure(name: str, method: str, seconds: float, seed: int) -> dict[str, Any]:
    """Return the curve of one method on one problem."""
    recipe = recipe_of(name, seed)
    problem, net, sampler = recipe.problem(), recipe.network(), recipe.sampler()
    watch = Stopwatch(seconds, lambda _: float("nan"))
    profile = name.startswith("profile-")
    if profile:
        watch.error = lambda record: abs(record.values["lam"] - problem.expected["lam"])
    else:
        grid = torch.cartesian_prod(
            *(torch.linspace(a, b, 41, dtype=torch.float64) for a, b in ((-1, 1), (0, 1)))
        )
        truth = problem.reference(x=grid[:, 0], t=grid[:, 1])
        shown = copy.deepcopy(net)  # the trained network is the objective's own

        def relative(record: Any) -> float:
            if record.name == "Polish":
                return float("nan")  # the corrected network is measured at the end
            with torch.no_grad():
                torch.nn.utils.vector_to_parameters(record.theta.clone(), shown.parameters())
                found = next(iter(problem.field(shown, grid).values())).value[:, 0]
            return float((found - truth).norm() / truth.norm())

        watch.error = relative
    stages = [
        next(stage for stage in recipe.stages() if isinstance(stage, optim.Polish))
        if stage is POLISH
        else stage
        for stage in METHODS[method]()
    ]
    stages[0] = Timed(stages[0], watch, 0.6 * seconds if len(stages) > 1 else float("inf"))
    solution = solve(problem, net, stages, sampler=sampler, callbacks=[watch], progress=False, seed=seed)
    used = time.process_time() - watch.began
    summary = solution.summary()
    error = summary["unknown_errors"]["lam"] if profile else summary["relative_l2"]
    watch.rows.append([used, watch.rows[-1][1], solution.loss, float(error)])
    reason = solution.outcome.stopped or solution.outcome.reasons[-1]
    rows = [[float(f"{number:.5g}") for number in row] for row in watch.rows]
    return {
        "problem": name,
        "method": method,
        "seed": seed,
        "columns": ["cpu", "step", "loss", "error"],
        "rows": rows,
        "stopped": reason,
    }


def draw(curves: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the plot: a column for each problem, loss above, error below."""
    from matplotlib.ticker import LogLocator, NullLocator

    problems = list(dict.fromkeys(curve["problem"] for curve in curves))
    figure = new_figure(3.6 * len(problems) + 0.4, 7.2, LIGHT)
    grid = figure.subplots(2, len(problems), squeeze=False)
    for j, problem in enumerate(problems):
        for i, (what, column) in enumerate((("loss", 2), ("error", 3))):
            axes = grid[i][j]
            for curve in curves:
                if curve["problem"] != problem:
                    continue
                colour = COLOURS[list(METHODS).index(curve["method"])]
                rows = [row for row in curve["rows"] if row[column] > 0]
                wide = 2.2 if "polish" in curve["method"] else 1.2
                axes.loglog([row[0] for row in rows], [row[column] for row in rows], color=colour,
                            linewidth=wide, label=curve["method"])  # fmt: skip
            of = "of u, relative L2" if problem == "burgers" else "of λ"
            title = f"{problem}: {what}" + (f" {of}" if what == "error" else "")
            dress(axes, LIGHT, title=title, xlabel="CPU seconds" if i else "")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(LogLocator(base=10, numticks=9))
                axis.set_minor_locator(NullLocator())
    handles, labels = grid[0][0].get_legend_handles_labels()
    look = {"fontsize": 8, "frameon": False, "labelcolor": LIGHT.text}
    figure.legend(handles, labels, loc="outside upper center", ncols=2 * len(problems), **look)
    path.write_bytes(png(figure))


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--problems", default="profile-1,profile-2,profile-3,burgers")
    parser.add_argument("--methods", default=",".join(METHODS), help="with commas")
    parser.add_argument("--seconds", type=float, default=20.0, help="CPU seconds of each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--figure", type=Path, help="where the PNG goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("ntangent").setLevel(logging.ERROR)
    curves = []
    for problem in options.problems.split(","):
        for method in options.methods.split(","):
            curve = measure(problem, method, options.seconds, options.seed)
            used, _, loss, error = curve["rows"][-1]
            print(f"{problem:10s} {method:13s} {used:7.1f} s  loss {loss:.1e}  error {error:.1e}  "
                  f"{curve['stopped']}", flush=True)  # fmt: skip
            curves.append(curve)
    if options.out:
        machine = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        options.out.write_text(json.dumps({**machine, "threads": options.threads, "curves": curves}) + "\n")
    if options.figure:
        draw(curves, options.figure)


if __name__ == "__main__":
    main()
