"""The grid of Figures 4 and 5 of the n-TangentProp paper: depths, widths, batches, orders, both precisions.

    python benchmarks/paper_grid.py                                   # continues where it was left
    python benchmarks/paper_grid.py --cells depth=3,width=24,batch=256 --all-orders
    python benchmarks/paper_grid.py --budget 600 --threads 2

Every cell becomes a line of the output file as soon as it is measured; cells already there are left out,
so the grid can be stopped and continued at any time. Cells that would take too long say so instead of a
time. On a shared machine compare the processor time ("cpu"), not the wall time.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ntangent.bench import Cell, Effort, Lines, Result, Settings, Sweep, fill, find, median, wrong

DEPTHS = (3, 5, 7)
WIDTHS = (24, 32, 48, 64, 76, 88, 104, 128)
BATCHES = (32, 64, 256, 1024, 4096)
ORDERS = (1, 3, 6, 8)
ALL_ORDERS = tuple(range(1, 10))
DTYPES = ("float64", "float32")
AXES = ("order", "width", "depth", "batch", "dtype")


def grid(
    orders: Sequence[int] = ORDERS,
    widths: Sequence[int] = WIDTHS,
    depths: Sequence[int] = DEPTHS,
    batches: Sequence[int] = BATCHES,
    dtypes: Sequence[str] = DTYPES,
) -> list[Cell]:
    """Return the cells of a grid."""
    return [Cell(*axes) for axes in itertools.product(orders, widths, depths, batches, dtypes)]


def chosen(cells: Sequence[Cell], conditions: Sequence[str]) -> Iterator[Cell]:
    """Yield the cells that meet one of the conditions, such as "depth=3,width=24:64"."""
    wanted = [dict(part.split("=") for part in condition.split(",")) for condition in conditions]
    for condition in wanted:
        if unknown := set(condition) - set(AXES):
            raise SystemExit(f"--cells knows {', '.join(AXES)}, not {', '.join(unknown)}")
    for cell in cells:
        values = {name: str(getattr(cell, name)) for name in AXES}
        if not wanted or any(all(values[k] in v.split(":") for k, v in each.items()) for each in wanted):
            yield cell


def line(have: int, total: int, result: Result) -> str:
    """Return one cell in words: how many times faster than nested autograd, forward and in all."""
    cell, records = Cell(**result["cell"]), result["contenders"]
    text = f"{have}/{total}  n={cell.order}  {cell.series}  {result['seconds']:.1f} s "
    base = records.get("autograd", {})
    if reason := base.get("reason"):
        text += f" autograd {base['status']}: {reason}"
    for name, record in records.items():
        for clock in ("wall", "cpu"):
            ours, theirs = median(record, "total", clock), median(base, "total", clock)
            if ours and theirs and name not in ("autograd", "floor"):
                text += (
                    f"  {name} {theirs / ours:.3g}×" if clock == "wall" else f" ({theirs / ours:.3g}× cpu)"
                )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/paper_grid.jsonl"))
    parser.add_argument("--cells", nargs="*", default=[], metavar="AXIS=VALUE[:VALUE],...")
    parser.add_argument("--all-orders", action="store_true", help="orders 1 to 9 instead of the paper's four")
    parser.add_argument("--backends", default="", help="with commas; everything available by default")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds; then no further cell")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seconds", type=float, default=0.5, help="timed for each contender on a cell")
    parser.add_argument("--limit", type=float, default=20.0, help="longest pass in seconds")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    cells = list(chosen(grid(ALL_ORDERS if args.all_orders else ORDERS), args.cells))
    names = tuple(name for name in args.backends.split(",") if name)
    sweep = Sweep(find(names), Settings(Effort(args.seconds), args.limit))
    lines = Lines(args.out)
    left = fill(lines, sweep, cells, args.budget, lambda *cell: print(line(*cell), flush=True))
    print(f"{len(cells) - left} of {len(cells)} cells in {args.out}" + (f", {left} to go" if left else ""))
    if mistakes := wrong(lines.results):
        raise SystemExit("wrong results:\n  " + "\n  ".join(mistakes))


if __name__ == "__main__":
    main()
