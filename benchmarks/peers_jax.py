"""The same networks in JAX and in torch.func, against the backends of ntangent: one process, interleaved.

    pip install 'ntangent[bench]'
    python benchmarks/peers_jax.py --threads 1                  # 3x24, 256 points, float64, orders 1 to 9
    python benchmarks/peers_jax.py --width 128 --batch 4096 --orders 1 3 6 --out benchmarks/out/peers.json

Contenders: jax.experimental.jet under jit, nested jax.jvp under jit, nested torch.func.jvp, and ours. JAX
and torch have thread pools of their own: with --threads the process is bound to that many cores (Linux),
so that neither has more. Compilation is not timed; where it would take longer than --compile seconds, by
what the order below took, the contender is left out and the reason given.
"""

import argparse
import functools
import importlib.util
import math
import os
import time
from pathlib import Path


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, nargs="*", default=list(range(1, 10)))
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.5, help="timed for each contender on an order")
    parser.add_argument("--limit", type=float, default=10.0, help="longest pass in seconds")
    parser.add_argument("--compile", type=float, default=120.0, help="longest compilation in seconds")
    parser.add_argument("--backends", default="native,eager,autograd,floor", help="ours, with commas")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser.parse_args()


ARGUMENTS = arguments() if __name__ == "__main__" else argparse.Namespace(threads=1, compile=120.0)
if __name__ == "__main__" and hasattr(os, "sched_setaffinity"):  # before the thread pools are made
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: ARGUMENTS.threads])

import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from ntangent import bench  # noqa: E402
from ntangent._base.errors import BackendError  # noqa: E402
from ntangent.bench.show import tables  # noqa: E402
from ntangent.bench.sweep import about_here  # noqa: E402


def nested_jvp(net: nn.Module, x: Tensor, order: int) -> Tensor:
    """All derivatives by nested torch.func.jvp; each level returns the lower ones along."""
    ones = torch.ones_like(x)

    def up_to(n: int):
        if n == 0:
            return lambda x: (net(x),)
        below = up_to(n - 1)

        def function(x: Tensor):
            # The derivative of the whole tuple, whose last entry is the new order.
            values, tangents = torch.func.jvp(below, (x,), (ones,))
            return (*values, tangents[-1])

        return function

    return torch.stack(up_to(order)(x))


def jax_derivatives(method: str, order: int):
    """Return a function (parameters, points) -> derivatives (n + 1, N, 1) in jax."""
    import jax
    import jax.numpy as jnp

    def net(parameters, x):
        *hidden, (weight, bias) = parameters
        for w, b in hidden:
            x = jnp.tanh(x @ w.T + b)
        return x @ weight.T + bias

    def by_jet(parameters, x):
        from jax.experimental import jet

        if order == 0:
            return net(parameters, x)[None]
        series = [jnp.ones_like(x), *[jnp.zeros_like(x) for _ in range(order - 1)]]
        value, rest = jet.jet(functools.partial(net, parameters), (x,), (series,))
        return jnp.stack([value, *rest])

    def by_jvp(parameters, x):
        function = lambda x: (net(parameters, x),)  # noqa: E731
        for _ in range(order):

            def function(x, below=function):
                values, tangents = jax.jvp(below, (x,), (jnp.ones_like(x),))
                return (*values, tangents[-1])

        return jnp.stack(function(x))

    return {"jet": by_jet, "jvp": by_jvp}[method]


compiling: dict[str, list[float]] = {}  # contender -> seconds of each compilation so far


def jax_work(method: str, name: str, cell: bench.Cell, seed: int) -> bench.Work:
    """Prepare the work of a jax contender: compiled forward, compiled forward + backward."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    spent = compiling.setdefault(name, [])
    growth = max(1.0, min(4.0, spent[-1] / spent[-2])) if len(spent) > 1 and spent[-2] > 0 else 1.0
    if spent and spent[-1] * growth > ARGUMENTS.compile:
        raise BackendError(f"compilation predicted to take {spent[-1] * growth:.0f} s")
    jax.config.update("jax_enable_x64", True)
    layers = [layer for layer in cell.network(seed) if isinstance(layer, nn.Linear)]
    parameters = [
        (jnp.asarray(m.weight.detach().numpy()), jnp.asarray(m.bias.detach().numpy())) for m in layers
    ]
    x = jnp.asarray(cell.points(seed).numpy())
    rows = jax_derivatives(method, cell.order)
    forward = jax.jit(rows)
    both = jax.jit(jax.value_and_grad(lambda p, x: (rows(p, x).sum(0) ** 2).mean()))
    start = time.perf_counter()
    jax.block_until_ready((forward(parameters, x), both(parameters, x)))
    spent.append(time.perf_counter() - start)

    def outcome() -> bench.Outcome:
        values, (_, gradients) = forward(parameters, x), both(parameters, x)
        flat = [np.asarray(g).reshape(-1) for pair in gradients for g in pair]
        return bench.Outcome(
            torch.from_numpy(np.asarray(values, dtype=np.float64).copy()),
            torch.from_numpy(np.concatenate(flat).astype(np.float64)),
        )

    return bench.Work(
        forward=lambda: jax.block_until_ready(forward(parameters, x)),
        both=lambda: jax.block_until_ready(both(parameters, x)),
        outcome=outcome,
    )


def peers() -> list[bench.Contender]:
    """Return the peers that can be imported."""
    found = [bench.from_function("torch.func.jvp", nested_jvp)]
    if importlib.util.find_spec("jax") is None:
        print("jax is not installed: pip install 'ntangent[bench]'")
        return found
    for name, method in (("jax jet", "jet"), ("jax jvp", "jvp")):
        found.append(bench.Contender(name, functools.partial(jax_work, method, name)))
    return found


def main() -> None:
    args = ARGUMENTS
    torch.set_num_threads(args.threads)
    cells = [bench.Cell(n, args.width, args.depth, args.batch, args.dtype) for n in args.orders]
    ours = bench.find(tuple(args.backends.split(",")))
    settings = bench.Settings(bench.Effort(args.seconds), args.limit)
    sweep, results = bench.Sweep([*ours, *peers()], settings), []
    console = Console(highlight=False)
    with console.status("") as status:
        for result in sweep.run(cells):
            results.append(result)
            status.update(f"{len(results)} of {len(cells)} orders")
    for table in tables(results, args.clock):
        console.print(table)
    if importlib.util.find_spec("jax"):
        print("compilation, seconds:", {k: [round(s, 1) for s in v] for k, v in compiling.items()})
    print(f"geometric mean of jax / native at n >= 3: {advantage(results, args.clock):.2f}")
    if args.out:
        about = {**about_here(), "jax": _version("jax"), "jaxlib": _version("jaxlib")}
        bench.write_document(args.out, bench.document(about, settings, results))
    if mistakes := bench.wrong(results):
        raise SystemExit("wrong results:\n  " + "\n  ".join(mistakes))


def advantage(results: list[bench.Result], clock: str) -> float:
    """Return how many times faster native is than the better of the two jax contenders."""
    logs = []
    for result in results:
        records = result["contenders"]
        native = bench.median(records.get("native", {}), "total", clock)
        rivals = [bench.median(records.get(name, {}), "total", clock) for name in ("jax jet", "jax jvp")]
        rivals = [time for time in rivals if time is not None]
        if native and rivals and result["cell"]["order"] >= 3:
            logs.append(math.log(min(rivals) / native))
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


if __name__ == "__main__":
    main()
