"""Laplacians, biharmonics, a residual: against nested autograd, torch.func and, if there, JAX's jet and folx.

    python benchmarks/operators.py [--quick] [--json FILE]

One process, one thread. The methods of a case take turns, so that a change of the machine's speed
meets all of them; the median of the CPU time of each is reported. Two quantities: the value, and
the value with the gradient of mean(value²) in the parameters. Peak memory is what torch's allocator
holds at most above its level at the start, by torch's profiler, in one further call of its own
(JAX's allocator is not seen by it: no memory is reported for JAX).

The last case is the residual of Burgers' equation in space and time, also with its per-point Jacobian (the
matrix of a Gauss-Newton step) instead of the gradient, by the compiled kernels and by torch operations.

JAX and folx are optional: `pip install jax folx`. They are compiled with jit, compilation is not timed.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy
import torch
from torch.func import functional_call, grad, hessian, vmap
from torch.profiler import ProfilerActivity, profile

from ntangent.jet import MLP
from ntangent.jet.jacobian import per_point_jacobian
from ntangent.operators import Operator, biharmonic, evaluate, laplacian, make_plan

try:
    import jax
    import jax.numpy as jnp
    from jax.experimental import jet as jax_jet
except ImportError:
    jax = None
try:
    import folx
except ImportError:
    folx = None


def torch_methods(net, x, order):
    """Name -> (value, value with gradient), for the Laplacian (order 2) or the biharmonic (order 4)."""
    parameters = [p for p in net.parameters() if p.requires_grad]

    def scalar(y):
        return net(y[None])[0, 0]

    def trace(y):
        return torch.diagonal(hessian(scalar)(y)).sum()

    def bilaplacian(y):
        return torch.diagonal(hessian(trace)(y)).sum()

    def nested_sum(f, y):
        value = f(y)
        (gradient,) = torch.autograd.grad(value.sum(), y, create_graph=True)
        seconds = [
            torch.autograd.grad(gradient[:, i].sum(), y, create_graph=True)[0][:, i]
            for i in range(y.shape[1])
        ]
        return torch.stack(seconds).sum(0)

    def nested():
        y = x.clone().requires_grad_()
        if order == 2:
            return nested_sum(net, y)
        return nested_sum(lambda z: nested_sum(net, z), y)

    values = {
        "ntangent": lambda: (laplacian if order == 2 else biharmonic)(net, x),
        "torch.func hessian trace, vmapped": lambda: vmap(trace if order == 2 else bilaplacian)(x),
        "nested autograd": nested,
    }

    def with_gradient(value):
        return lambda: torch.autograd.grad((value() ** 2).mean(), parameters, allow_unused=True)

    def without(name, value):
        def call():
            with torch.no_grad():
                return value()

        return value if name == "nested autograd" else call

    return {name: (without(name, value), with_gradient(value)) for name, value in values.items()}


def jax_methods(net, x, order):
    """The same from JAX, jitted; values are checked against ours by the caller."""
    if jax is None:
        return {}
    jax.config.update("jax_enable_x64", True)
    weights = [(jnp.asarray(m.weight.detach().numpy().T), jnp.asarray(m.bias.detach().numpy()))
               for m in net if isinstance(m, torch.nn.Linear)]  # fmt: skip
    points = jnp.asarray(x.numpy())

    def f(p, y):
        for w, b in p[:-1]:
            y = jnp.tanh(y @ w + b)
        return (y @ p[-1][0] + p[-1][1])[0]

    def with_jet(p, y):
        directions = jnp.eye(y.shape[0])
        second = lambda v: jax_jet.jet(lambda z: f(p, z), (y,), ((v, jnp.zeros_like(v)),))[1][1]  # noqa: E731
        return jax.vmap(second)(directions).sum()

    def forward(p):
        return folx.forward_laplacian(lambda y: f(p, y))

    def bi_folx(p, y):
        inner = lambda z: forward(p)(z).laplacian  # noqa: E731
        return folx.forward_laplacian(inner)(y).laplacian

    single = {}
    if order == 2:
        single["jax jet, jit"] = with_jet
        single["jax hessian trace, jit"] = lambda p, y: jnp.trace(jax.hessian(f, 1)(p, y))
        if folx is not None:
            single["folx, jit"] = lambda p, y: forward(p)(y).laplacian
    elif folx is not None:
        single["folx nested, jit"] = bi_folx

    def bind(g):
        batched = jax.vmap(g, (None, 0))
        value = jax.jit(batched)
        gradient = jax.jit(jax.grad(lambda p: (batched(p, points) ** 2).mean()))
        return (
            lambda: jax.block_until_ready(value(weights, points)),
            lambda: jax.block_until_ready(gradient(weights)),
        )

    return {name: bind(g) for name, g in single.items()}


def peak_bytes(call):
    """Peak of torch's allocations during one call, above its start."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    total = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            total += event.nbytes()
            peak = max(peak, total)
    return peak


def measure(methods, repeats, budget):
    """Median CPU milliseconds of each call, the methods taking turns, until repeats or budget seconds."""
    times = {name: [] for name in methods}
    for call in methods.values():
        call()
        call()
    start = time.monotonic()
    for _ in range(repeats):
        for name, call in methods.items():
            begin = time.process_time()
            call()
            times[name].append(1e3 * (time.process_time() - begin))
        if time.monotonic() - start > budget and len(next(iter(times.values()))) >= 3:
            break
    return {name: statistics.median(values) for name, values in times.items()}


def run_case(label, d, width, depth, batch, order, options):
    net = MLP(d, 1, width=width, depth=depth, dtype=torch.float64, generator=0)
    x = torch.randn(batch, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = torch_methods(net, x, order)
    methods = {**ours, **({} if options.no_jax else jax_methods(net, x, order))}
    exact = methods["ntangent"][0]().flatten()
    for name, (value, _) in methods.items():
        other = torch.as_tensor(numpy.array(value())) if name not in ours else value().detach()
        error = float((other.flatten() - exact).abs().max() / exact.abs().max())
        assert error < 1e-9, f"{name} disagrees in {label}: {error}"
    repeats, budget = (5, 5.0) if options.quick else (31, 25.0)
    timings = [measure({n: m[k] for n, m in methods.items()}, repeats, budget) for k in (0, 1)]
    operator = Operator.laplacian(d) if order == 2 else Operator.biharmonic(d)
    rows = []
    for name, calls in methods.items():
        peaks = [peak_bytes(call) if name in ours else None for call in calls]
        row = {"case": label, "method": name}
        row |= {"value_ms": timings[0][name], "train_ms": timings[1][name]}
        row |= {"value_bytes": peaks[0], "train_bytes": peaks[1]}
        row["rows"] = make_plan(operator.symbols, d).rows if name == "ntangent" else None
        rows.append(row)
    return rows


CASES = [
    ("Laplacian d=10, 4x64, N=256", 10, 64, 4, 256, 2),
    ("Laplacian d=100, 4x64, N=256", 100, 64, 4, 256, 2),
    ("biharmonic d=2, 4x64, N=256", 2, 64, 4, 256, 4),
    ("biharmonic d=3, 4x64, N=256", 3, 64, 4, 256, 4),
    ("biharmonic d=5, 4x64, N=256", 5, 64, 4, 256, 4),
    ("Laplacian d=3, 3x64, N=256", 3, 64, 3, 256, 2),
    ("Laplacian d=10, 3x64, N=256", 10, 64, 3, 256, 2),
    ("Laplacian d=50, 3x128, N=128", 50, 128, 3, 128, 2),
]


def burgers_methods(net, x):
    """Name -> calls for u_t + u u_x - ν u_xx: value, value with gradient, value with per-point Jacobian."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    operators = [
        Operator.partial(0, 0),
        Operator.partial(1, 0),
        Operator.partial(0, 1),
        Operator.partial(2, 0),
    ]
    viscosity = 0.01

    def combine(u, ux, ut, uxx):
        return ut + u * ux - viscosity * uxx

    def by_jets(backend):
        return combine(*evaluate(net, x, operators, backend=backend))

    def nested():
        y = x.clone().requires_grad_()
        u = net(y)
        first = torch.autograd.grad(u.sum(), y, create_graph=True)[0]
        second = torch.autograd.grad(first[:, 0].sum(), y, create_graph=True)[0]
        return combine(u, first[:, :1], first[:, 1:], second[:, :1])

    def gradient(value):
        return lambda: torch.autograd.grad((value() ** 2).mean(), parameters, allow_unused=True)

    def without_graph(backend):
        def call():
            with torch.no_grad():
                return by_jets(backend)

        return call

    def per_point(backend):
        return lambda: per_point_jacobian(lambda: by_jets(backend).mT, parameters)

    def at_point(values, y):
        u = lambda z: functional_call(net, values, (z[None],))[0, 0]  # noqa: E731
        first = grad(u)(y)
        return combine(u(y), first[0], first[1], grad(lambda z: grad(u)(z)[0])(y)[0])

    values = {name: p.detach() for name, p in net.named_parameters()}
    nested_per_point = lambda: vmap(grad(at_point), (None, 0))(values, x)  # noqa: E731

    methods = {"nested autograd": (nested, gradient(nested), nested_per_point)}
    for name, backend in (("ntangent", "native"), ("ntangent, eager", "eager")):
        methods[name] = (without_graph(backend), gradient(lambda b=backend: by_jets(b)), per_point(backend))
    return methods


def run_burgers(options):
    points = 4000
    net = MLP(2, 1, width=20, depth=3, dtype=torch.float64, generator=0)
    x = torch.randn(points, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    methods = burgers_methods(net, x)
    exact = methods["nested autograd"][0]().detach()
    for name, (value, *_) in methods.items():
        assert torch.allclose(value(), exact, rtol=1e-9, atol=1e-9), name
    repeats, budget = (5, 5.0) if options.quick else (31, 25.0)
    value, train, jacobian = (
        measure({n: m[k] for n, m in methods.items()}, repeats, budget) for k in range(3)
    )
    return [
        {"case": "Burgers residual, 2-20-20-20-1, N=4000", "method": name, "rows": 4,
         "value_ms": value[name], "train_ms": train[name], "jacobian_ms": jacobian[name],
         "value_bytes": None, "train_bytes": None}
        for name in methods
    ]  # fmt: skip


def print_table(rows):
    print(f"{'':38}{'value ms':>10}{'train ms':>10}{'value MiB':>11}{'train MiB':>11}   our time / theirs")
    for case in dict.fromkeys(row["case"] for row in rows):
        own = next(row for row in rows if row["case"] == case and row["method"] == "ntangent")
        print(f"{case} ({own['rows']} rows)")
        for row in (row for row in rows if row["case"] == case):
            sizes = [row["value_bytes"], row["train_bytes"]]
            memory = "".join(f"{size / 2**20:11.1f}" if size else " " * 11 for size in sizes)
            ratios = f"{own['value_ms'] / row['value_ms']:.2f}, {own['train_ms'] / row['train_ms']:.2f}"
            times = f"{row['value_ms']:10.2f}{row['train_ms']:10.2f}"
            if "jacobian_ms" in row:
                ratios += (
                    f"; Jacobian {row['jacobian_ms']:.2f} ms, {own['jacobian_ms'] / row['jacobian_ms']:.3f}"
                )
            print(f"  {row['method']:36}{times}{memory}   {ratios}")


def main():
    parser = argparse.ArgumentParser(description="time operators against their peers")
    parser.add_argument("--json", type=Path, help="write the measurements here")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--no-jax", action="store_true", help="leave JAX out even if it is installed")
    parser.add_argument("--case", default="", help="only the cases whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = [case for case in CASES if options.case in case[0]]
    rows = [row for case in cases for row in run_case(*case, options)]
    if options.case in "Burgers":
        rows += run_burgers(options)
    print_table(rows)
    if options.json:
        versions = {"torch": torch.__version__, "python": platform.python_version()}
        versions |= {"jax": jax.__version__} if jax else {}
        text = json.dumps({"versions": versions, "machine": platform.machine(), "rows": rows}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
