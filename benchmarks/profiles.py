"""The self-similar Burgers profiles: profiles x seeds x starts of λ, as a table and as JSON.

    python benchmarks/profiles.py --profiles 1,2,3,4,5,6 --seeds 10 --out profiles.json
    python benchmarks/profiles.py --profiles 1,2,3,4,5,6 --seeds 2 --starts 0.05,0.25,0.75,0.95

A run succeeds if |λ - 1/(2k)| and the largest error of U on [-2, 2] are at most --goal. Seconds are
CPU seconds of the whole run, restarts included.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from ntangent.problems import BurgersProfile, run


def measure(k: int, seed: int, start: float, method: str) -> dict[str, Any]:
    """Return the numbers of one run."""
    recipe = BurgersProfile(k=k, seed=seed, start=start, method=method)  # type: ignore[arg-type]
    began = time.process_time()
    solution = run("burgers-profile", recipe, progress=False)
    seconds = time.process_time() - began
    result = solution.summary()
    return {
        "k": k,
        "seed": seed,
        "start": start,
        "method": method,
        "lambda_error": result["unknown_errors"]["lam"],
        "max_error_U": result["max_errors"][0],
        "loss": result["loss"],
        "objection": recipe.objection(solution),
        "restarted": abs(solution.problem.unknowns["lam"].start - recipe.first_lambda) > 1e-12,
        "seconds": seconds,
    }


def summarise(rows: list[dict[str, Any]], goal: float) -> list[dict[str, Any]]:
    """Return one line for each profile and start: successes, medians, worst cases."""
    lines = []
    for k, start in sorted({(row["k"], row["start"]) for row in rows}):
        group = [row for row in rows if (row["k"], row["start"]) == (k, start)]
        right = [row for row in group if max(row["lambda_error"], row["max_error_U"]) <= goal]
        said = [row for row in group if row not in right and row["objection"]]
        lines.append(
            {
                "k": k,
                "start": start,
                "runs": len(group),
                "right": len(right),
                "wrong_and_said_so": len(said),
                "restarted": sum(row["restarted"] for row in group),
                "lambda_error_median": statistics.median(row["lambda_error"] for row in group),
                "lambda_error_worst": max(row["lambda_error"] for row in group),
                "max_error_U_median": statistics.median(row["max_error_U"] for row in group),
                "max_error_U_worst": max(row["max_error_U"] for row in group),
                "seconds_median": statistics.median(row["seconds"] for row in group),
                "seconds_worst": max(row["seconds"] for row in group),
            }
        )
    return lines


def show(lines: list[dict[str, Any]], heading: bool) -> None:
    """Print lines of the table, at once: a long run shows how far it is."""
    if heading:
        print(
            " k start  right  said  again  |dλ| median / worst    max|dU| median / worst"
            "  CPU s median / worst"
        )
    for x in lines:
        print(
            f"{x['k']:2d} {x['start']:5.2f}  {x['right']:2d}/{x['runs']:<2d}  {x['wrong_and_said_so']:4d}"
            f"  {x['restarted']:5d}  {x['lambda_error_median']:.1e} / {x['lambda_error_worst']:.1e}"
            f"      {x['max_error_U_median']:.1e} / {x['max_error_U_worst']:.1e}"
            f"       {x['seconds_median']:6.2f} / {x['seconds_worst']:.2f}",
            flush=True,
        )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--profiles", default="1,2,3,4,5,6", help="values of k, with commas")
    parser.add_argument("--seeds", type=int, default=10, help="how many seeds, from 0")
    parser.add_argument("--starts", default="0.5", help="starts of λ as fractions of its bracket")
    parser.add_argument("--method", choices=("trainable", "funnel"), default="trainable")
    parser.add_argument("--goal", type=float, default=1e-13)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("ntangent").setLevel(logging.ERROR)
    rows: list[dict[str, Any]] = []
    for k in options.profiles.split(","):
        begun = len(rows)
        for start in options.starts.split(","):
            rows += [measure(int(k), seed, float(start), options.method) for seed in range(options.seeds)]
        show(summarise(rows[begun:], options.goal), heading=begun == 0)
    lines = summarise(rows, options.goal)
    if options.out:
        machine = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        document = {**machine, "goal": options.goal, "threads": options.threads, "table": lines, "runs": rows}
        options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
