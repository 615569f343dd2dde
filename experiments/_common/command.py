"""``python -m experiments``: list the papers, run one."""

import argparse
import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from experiments._common.paper import FULL, SMOKE, Options, Paper, wanted

from ntangent.bench import about_here

RESULTS = Path("experiments/results")


def main(papers: Mapping[str, Paper], arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description="Papers redone.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="papers, figures and claims")
    run = commands.add_parser("run", help="measure what figures need, draw them, check the claims")
    run.add_argument("paper", choices=list(papers))
    run.add_argument("--figure", help="1, or 1,3, or 1..5; all of them by default")
    size = run.add_mutually_exclusive_group()
    size.add_argument("--smoke", action="store_const", dest="size", const=SMOKE, help="seconds, small sizes")
    size.add_argument("--full", action="store_const", dest="size", const=FULL, help="the paper's sizes")
    run.add_argument("--threads", type=int, help="threads of torch")
    run.add_argument("--budget", type=float, default=float("inf"), help="seconds of measuring")
    run.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="time that figures show")
    run.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
    given = parser.parse_args(arguments)
    if given.command == "list":
        show(papers)
        return
    options = Options(given.size or FULL, given.threads, given.budget, given.clock)
    execute(papers[given.paper], given.figure, options, given.results)


def show(papers: Mapping[str, Paper]) -> None:
    """Print the papers with their figures and claims."""
    for paper in papers.values():
        facts = paper.facts
        print(f"{paper.key}: {facts['title']} ({facts['link']})")
        for figure in paper.figures.values():
            print(f"  figure {figure.number}  {figure.title}")
        for claim in facts["claim"]:
            print(f"  claim {claim['id']}: {claim['statement']} ({claim['where']})")


def execute(paper: Paper, figures: str | None, options: Options, results: Path) -> None:
    """Measure, draw, check the claims; write everything below ``results``."""
    chosen = wanted(figures, paper)
    folder = results / paper.key / options.size
    folder.mkdir(parents=True, exist_ok=True)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    start, manifest = time.perf_counter(), _manifest(options, [figure.number for figure in chosen])
    files = {name: folder / f"{name}.jsonl" for name in paper.measure}
    for name in dict.fromkeys(figure.data for figure in chosen):
        if not paper.measure[name](files[name], options):
            print(f"{name}: not complete; the same command continues")
    for figure in chosen:
        path = folder / f"figure-{figure.number}.png"
        path.write_bytes(figure.draw(files[figure.data], options))
        print(path)
    _claims(paper, files, options, folder)
    _write(folder / "manifest.json", {**manifest, "seconds": round(time.perf_counter() - start, 1)})


def _claims(paper: Paper, files: Mapping[str, Path], options: Options, folder: Path) -> None:
    claims = paper.facts["claim"]
    rows = []
    for claim, ours in zip(claims, paper.check(claims, files, options), strict=True):
        verdict = _verdict(claim, ours)
        rows.append({**claim, "ours": ours, **({"holds": verdict} if verdict is not None else {})})
        value = "not measured" if ours is None else f"{ours:.3g}"
        said = {None: "", True: "holds: ", False: "does NOT hold: "}[verdict]
        print(f"  {claim['id']:<16} paper {claim['paper']!s:<8} ours {value:<14} {said}{claim['statement']}")
    _write(folder / "claims.json", {"clock": options.clock, "claims": rows})


def _verdict(claim: Mapping[str, Any], ours: float | None) -> bool | None:
    """Whether our value lies where a claim says it does; None where nothing is said or measured."""
    if ours is None or "between" not in claim:
        return None
    low, high = claim["between"]
    return bool(low <= ours <= high)


def _manifest(options: Options, figures: Sequence[int]) -> dict[str, Any]:
    settings = {k: str(v) if v == float("inf") else v for k, v in asdict(options).items()}
    return {"git": _git(), "options": settings, "figures": list(figures), "machine": about_here()}


def _git() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
