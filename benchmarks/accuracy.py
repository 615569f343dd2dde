"""The accuracy of every problem of the catalogue, beside the best published numbers.

    python benchmarks/accuracy.py --out accuracy.json --table docs/accuracy-table.md
    python benchmarks/accuracy.py --problems poisson2d,beam --seeds 5 --budget 600

Each run is written as soon as it ends; a rerun with the same --out continues with what is missing, and
measures again what ran with other options. Seconds are CPU seconds of one thread, evaluation included.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ntangent import problems
from ntangent.problems import CATALOGUE
from ntangent.run import Outcome, Record, StageRecord


class Budget:
    """Ends a run when its CPU seconds are used."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.began = seconds, time.process_time()

    def on_step(self, _: Record) -> str | None:
        """Return why to stop, or None."""
        used = time.process_time() - self.began
        return f"the budget of {self.seconds:g} CPU seconds is used" if used > self.seconds else None

    def on_stage(self, _: StageRecord) -> None:
        """A stage that ends needs nothing."""

    def on_end(self, _: Outcome) -> None:
        """Nor does a run."""


def measure(name: str, seed: int, budget: float) -> dict[str, Any]:
    """Return the numbers of one run."""
    recipe: Any = CATALOGUE[name](seed=seed)
    began = time.process_time()
    solution = problems.run(name, recipe, progress=False, callbacks=[Budget(budget)])
    result = solution.summary()
    seconds = time.process_time() - began
    errors = result.get("errors", {})
    network = solution.objective.net
    history = solution.outcome.history
    return {
        "problem": name,
        "seed": seed,
        "recipe": repr(recipe),
        "stages": [repr(stage) for stage in recipe.stages()],
        "weights": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "points": len(solution.objective.points),
        "iterations": history[-1].step if history else 0,
        "seconds": seconds,
        "relative_l2": result.get("relative_l2"),
        "max_error": max((own["max"] for own in errors.values()), default=None),
        "unknown_errors": result.get("unknown_errors", {}),
        "loss": result["loss"],
        "held_out": result.get("held_out"),
        "reasons": result["reasons"],
    }


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def median(rows: list[dict[str, Any]], key: str) -> float | None:
    """Return the median of a number over runs, None if one lacks it."""
    values = [row[key] for row in rows]
    return None if any(v is None for v in values) else statistics.median(values)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the Markdown table: medians over seeds, in the order of the catalogue."""
    lines = [
        "| problem | network, stages | points | iterations | CPU s | relative L2 | max error | seeds "
        "| published |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in CATALOGUE:
        group = [row for row in rows if row["problem"] == name]
        if not group:
            continue
        recipe: Any = CATALOGUE[name]()
        how = " + ".join(type(stage).__name__ for stage in recipe.stages())
        net = f"{recipe.depth} x {recipe.width}, " if recipe.iterations else ""
        published = "; ".join(
            f"{p.error:.2g} ({p.cost}; {p.source})" for p in getattr(recipe, "published", ())
        )
        numbers = [
            median(group, key) for key in ("points", "iterations", "seconds", "relative_l2", "max_error")
        ]
        shown = [
            "" if v is None else (f"{v:.1e}" if i > 2 else f"{v:.0f}" if v >= 10 else f"{v:.1f}")
            for i, v in enumerate(numbers)
        ]
        unknown = [max(row["unknown_errors"].values()) for row in group if row["unknown_errors"]]
        if unknown:
            shown[4] += f", unknowns {statistics.median(unknown):.1e}"
        lines.append("| " + " | ".join([name, net + how, *shown, str(len(group)), published]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing and show the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--problems", default=",".join(CATALOGUE), help="names, separated by commas")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=600.0, help="CPU seconds of a run")
    parser.add_argument("--out", type=Path, default=Path("accuracy.json"))
    parser.add_argument("--table", type=Path, help="where to write the table as Markdown")
    options = parser.parse_args()
    torch.set_num_threads(1)
    document: dict[str, Any] = {"runs": []}
    if options.out.exists():
        document = json.loads(options.out.read_text(encoding="utf-8"))
    document["machine"] = machine()
    rows: list[dict[str, Any]] = document["runs"]
    for seed in range(options.seeds):
        for name in options.problems.split(","):
            recipe = repr(CATALOGUE[name](seed=seed))
            done = [row for row in rows if (row["problem"], row["seed"]) == (name, seed)]
            if done and done[0]["recipe"] == recipe:
                continue
            row = measure(name, seed, options.budget)
            rows[:] = [r for r in rows if r not in done] + [row]
            options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            print(
                f"{name} seed {seed}: {row['relative_l2']:.2e} in {row['seconds']:.1f} CPU s", file=sys.stderr
            )
    text = table(rows)
    if options.table:
        options.table.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
