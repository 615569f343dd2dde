"""A fast rate recovered from data, against its size, by optimiser, scheme and mesh."""

import math
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from experiments._common.lines import Line
from experiments._common.paper import SMOKE, Options

from ntangent import ode, optim

COARSE = {"steps": 1}  # one step from output to output: the transient is not resolved


@dataclass(frozen=True)
class Way:
    """How the rate is sought.

    Args:
        title: in words.
        optimiser: "adam" or "lm".
        log: whether the logarithm is trained.
        scheme: name in the catalogue.
        graded: whether the mesh resolves the start, else one step from output to output.
        eps: of Adam.
        collocation: derivative matching, no solver.
        transient: whether the data are 80 geometric times from 1e-7, else 20 even ones from 0.1.
    """

    title: str
    optimiser: str = "lm"
    log: bool = True
    scheme: str = "radau_iia3"
    graded: bool = False
    eps: float = 1e-8
    collocation: bool = False
    transient: bool = False


WAYS = {
    "adam-rate": Way("Adam on the rate", "adam", log=False),
    "adam-log": Way("Adam on log rate", "adam"),
    "adam-log-graded": Way("Adam on log rate, graded mesh", "adam", graded=True),
    "adam-eps-graded": Way("the same, eps = 1e-16", "adam", graded=True, eps=1e-16),
    "lm": Way("LM"),
    "lm-graded": Way("LM, graded mesh", graded=True),
    "lm-lobatto": Way("LM, Lobatto IIIC-4", scheme="lobatto_iiic4"),
    "lm-lobatto-graded": Way("LM, Lobatto IIIC-4, graded mesh", scheme="lobatto_iiic4", graded=True),
    "collocation": Way("collocation", collocation=True),
    "collocation-transient": Way("collocation, transient sampled", collocation=True, transient=True),
}


def recovery_line(cell: Mapping[str, Any]) -> Line:
    """Fit k of x' = -k (x - s), s' = -s, x(0) = 0 within a budget; return k / true k."""
    way, k = WAYS[cell["way"]], cell["k"]
    problem = ode.problems.get("slow_data", k=k)
    later = torch.logspace(-7, math.log10(2), 80) if way.transient else torch.linspace(0.1, 2, 20)
    t = torch.cat([torch.zeros(1), later]).double()
    start = k * cell["factor"]
    model = problem.model([start], log=way.log)
    if way.optimiser == "adam":
        lr = 0.1 if way.log else 0.05 * start
        stage: Any = optim.Adam(cell["adam"], lr=lr, eps=way.eps)
    else:
        stage = optim.LevenbergMarquardt(cell["lm"])
    how = ode.Integration(way.scheme, mesh=ode.Graded() if way.graded else None,
                          options=None if way.graded else COARSE)  # fmt: skip
    loss = "collocation" if way.collocation else "trajectory"
    clock, said = time.process_time(), ""
    trusted: bool | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small gradients, fast modes: what is measured here
        try:
            result = ode.fit(model, ode.Data(t, problem.reference(t)), [stage], method=how, loss=loss)
            said = "; ".join(str(reason) for reason in result.outcome.reasons)
            trusted = None if result.trust is None else result.trust.ok
        except ArithmeticError as error:
            said = str(error).splitlines()[0]
    found = model.values().item() / k
    return {**cell, "found": found, "error": abs(found - 1), "trusted": trusted, "said": said,
            "seconds": time.process_time() - clock}  # fmt: skip


def recovery_cells(options: Options) -> Iterator[Line]:
    """Every way, from 30 k (and k / 30); k = 1 has no slow manifold, 2 stands for it."""
    smoke = options.size == SMOKE
    ways = [w for w in WAYS if not smoke or (w != "lm-lobatto-graded" and w != "adam-eps-graded")]
    for k in (1e1, 1e5) if smoke else (2.0, 1e1, 1e2, 1e3, 1e4, 1e5):
        for factor in (30.0,) if smoke else (30.0, 1 / 30):
            for way in ways:
                yield {"way": way, "k": k, "factor": factor,
                       "adam": 10 if smoke else 100, "lm": 25 if smoke else 40}  # fmt: skip
