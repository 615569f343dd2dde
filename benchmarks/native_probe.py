"""The native kernels against nested autograd and the bare multiply-adds: one process, interleaved, medians.

    python benchmarks/native_probe.py                 # 3x24, 256 points, and 3x128, 4096 points
    python benchmarks/native_probe.py --only 3x24 --orders 1 3 9 --repeats 200

Milliseconds of the forward pass (under grad mode, keeping what backward needs) and of forward+backward,
through the public functions. The floor is the same multiply-adds as bare matrix products in torch: one per
layer over (n+1)·N rows forward, three per layer forward+backward.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ntangent.jet.activations import ACTIVATIONS
from ntangent.jet.backends import library, native

CASES = {"3x24": (24, 256), "3x128": (128, 4096)}
NESTED_UP_TO = 6


def network(width: int, dtype: torch.dtype) -> torch.nn.Sequential:
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for i, o in ((1, width), (width, width), (width, width)):
        layers += [torch.nn.Linear(i, o, dtype=dtype), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, 1, dtype=dtype))


def contenders(
    width: int, points: int, order: int, dtype: torch.dtype, nested: bool
) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Name -> (forward, forward+backward)."""
    net = network(width, dtype)
    linear = [m for m in net if isinstance(m, torch.nn.Linear)]
    weights, biases = [m.weight for m in linear], [m.bias for m in linear]
    parameters = list(net.parameters())
    x = torch.linspace(-2, 2, points, dtype=dtype)[:, None]
    line = torch.stack([x, torch.ones_like(x)])
    g = torch.randn(order + 1, points, 1, dtype=dtype)
    rows = [ACTIVATIONS["tanh"]] * 3

    def forward() -> Tensor:
        return native.dense_jet(line, 1, order, weights, biases, rows)

    def both() -> object:
        return torch.autograd.grad(forward(), parameters, g)

    def nested_forward() -> Tensor:
        leaf = x.requires_grad_()
        out = [net(leaf)]
        for _ in range(order):
            out.append(torch.autograd.grad(out[-1].sum(), leaf, create_graph=True)[0])
        return torch.stack(out)

    def nested_both() -> object:
        return torch.autograd.grad(nested_forward(), parameters, g, allow_unused=True)

    jets = [torch.randn((order + 1) * points, m.in_features, dtype=dtype) for m in linear]
    cotangents = [torch.randn((order + 1) * points, m.out_features, dtype=dtype) for m in linear]
    plain = [w.detach() for w in weights]

    def floor_forward() -> None:
        for y, w in zip(jets, plain, strict=True):
            y @ w.T

    def floor_both() -> None:
        floor_forward()
        for y, h, w in zip(jets, cotangents, plain, strict=True):
            h.T @ y
            h @ w

    found = {"native": (forward, both), "floor": (floor_forward, floor_both)}
    if nested:
        found["nested"] = (nested_forward, nested_both)
    return found


def measure(functions: dict[str, Callable[[], object]], repeats: int, seconds: float) -> dict[str, float]:
    """Median milliseconds of each function; the functions take turns."""
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    end = time.perf_counter() + seconds
    for i in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            samples[name].append(time.perf_counter() - start)
        if i >= 4 and time.perf_counter() > end:
            break
    return {name: 1e3 * statistics.median(times) for name, times in samples.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=list(CASES), nargs="*", default=list(CASES))
    parser.add_argument("--orders", type=int, nargs="*", default=list(range(1, 10)))
    parser.add_argument("--dtypes", choices=["float64", "float32"], nargs="*", default=["float64", "float32"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=3.0, help="time limit of one line of the table")
    parser.add_argument("--no-nested", action="store_true")
    parser.add_argument("--json", help="also write the numbers here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(
        f"kernels: {library.library().isa_name}, threads: {args.threads};"
        " milliseconds, forward / forward+backward"
    )
    records = []
    for case in args.only:
        width, points = CASES[case]
        for name in args.dtypes:
            print(f"\n{case}, {points} points, {name}")
            print(f"{'n':>2} {'native':>19} {'floor':>19} {'nested':>19}   gain")
            for order in args.orders:
                nested = order <= NESTED_UP_TO and not args.no_nested
                pairs = contenders(width, points, order, getattr(torch, name), nested)
                flat = {f"{k}:{i}": f for k, pair in pairs.items() for i, f in enumerate(pair)}
                times = measure(flat, args.repeats, args.seconds)
                cells = [
                    f"{times[f'{k}:0']:8.3f} / {times[f'{k}:1']:8.3f}" if k in pairs else " " * 19
                    for k in ("native", "floor", "nested")
                ]
                gain = f"{times['nested:1'] / times['native:1']:6.1f}x" if nested else ""
                print(f"{order:>2} {' '.join(cells)} {gain}", flush=True)
                records.append({"case": case, "dtype": name, "order": order, **times})
    if args.json:
        Path(args.json).write_text(json.dumps(records, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
