"""The same PINNs in plain torch, DeepXDE, PINA and ntangent: CPU time of an Adam iteration.

    pip install deepxde pina-mathlab                     # optional: what is missing is skipped, and counted
    python benchmarks/peers_pinn.py --out benchmarks/out/peers_pinn.json

Network 3x20 tanh, Glorot uniform, zero biases; Adam 1e-3, full batch, 200 collocation points; soft boundary
conditions. One process, one thread. Contenders take turns; in a turn each trains from scratch twice, for a
few and for many iterations, and the difference is the time of an iteration, without what starting costs.
Progress bars, loggers and checkpoints are off where they can be switched off.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import logging
import math
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["DDE_BACKEND"] = "pytorch"

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from ntangent import optim, pinn  # noqa: E402

PI, POINTS, SIDE, RATE = math.pi, 200, 20, 1e-3
Train = Callable[[int], object]


def network(inputs: int, dtype: torch.dtype) -> nn.Sequential:
    sizes = [inputs, 20, 20, 20, 1]
    layers: list[nn.Module] = []
    for i in range(4):
        layer = nn.Linear(sizes[i], sizes[i + 1], dtype=dtype)
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.Tanh()] if i < 3 else [layer]
    return nn.Sequential(*layers)


def interior(dimension: int, dtype: torch.dtype) -> Tensor:
    if dimension == 1:
        return torch.linspace(0, 1, POINTS, dtype=dtype)[:, None]
    return torch.quasirandom.SobolEngine(dimension, scramble=True, seed=0).draw(POINTS, dtype=dtype)


def sides(dtype: torch.dtype) -> Tensor:
    s = torch.linspace(0, 1, SIDE, dtype=dtype)[:, None]
    zero, one = torch.zeros_like(s), torch.ones_like(s)
    return torch.cat([torch.cat(p, 1) for p in ((zero, s), (one, s), (s, zero), (s, one))])


# --- plain torch ------------------------------------------------------------------------------------


def slope(u: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(u, x, torch.ones_like(u), create_graph=True)[0]


def plain_loss(name: str, dtype: torch.dtype) -> tuple[int, Callable[[nn.Module], Tensor]]:
    if name == "poisson1d":
        x, ends = interior(1, dtype).requires_grad_(), torch.tensor([[0.0], [1.0]], dtype=dtype)

        def loss(net: nn.Module) -> Tensor:
            r = slope(slope(net(x), x), x) + PI**2 * torch.sin(PI * x)
            return r.square().mean() + net(ends).square().mean()

        return 1, loss
    if name == "beam":
        x = interior(1, dtype).requires_grad_()
        left, right = (torch.full((1, 1), v, dtype=dtype, requires_grad=True) for v in (0.0, 1.0))

        def loss(net: nn.Module) -> Tensor:
            u = net(x)
            for _ in range(4):
                u = slope(u, x)
            start = net(left)
            second = slope(slope(net(right), right), right)
            conditions = [start, slope(start, left), second, slope(second, right)]
            return (u + 1).square().mean() + torch.cat(conditions).square().sum()

        return 1, loss
    x, edge = interior(2, dtype).requires_grad_(), sides(dtype)

    def loss(net: nn.Module) -> Tensor:
        first = slope(net(x), x)
        lap = slope(first[:, :1], x)[:, :1] + slope(first[:, 1:], x)[:, 1:]
        force = 2 * PI**2 * torch.sin(PI * x[:, :1]) * torch.sin(PI * x[:, 1:])
        return (lap + force).square().mean() + net(edge).square().mean()

    return 2, loss


def plain(name: str, dtype: torch.dtype) -> Train:
    dimension, loss = plain_loss(name, dtype)

    def train(iterations: int) -> float:
        net = network(dimension, dtype)
        adam = torch.optim.Adam(net.parameters(), lr=RATE)
        value = torch.tensor(0.0)
        for _ in range(iterations):
            adam.zero_grad()
            value = loss(net)
            value.backward()
            adam.step()
        return float(value.detach())

    return train


# --- ntangent ---------------------------------------------------------------------------------------


def ours(name: str, dtype: torch.dtype) -> Train:
    dimension = 2 if name == "poisson2d" else 1
    line = pinn.Box(x=(0.0, 1.0))
    if name == "poisson1d":
        problem = pinn.Problem(
            line,
            [lambda u, x: u.xx + PI**2 * torch.sin(PI * x)],
            conditions=[pinn.Dirichlet(x=[0.0, 1.0])],
        )
    elif name == "beam":
        problem = pinn.Problem(
            line,
            [lambda u: u.xxxx + 1],
            conditions=[
                pinn.Dirichlet(x=0.0),
                pinn.Neumann(x=0.0),
                pinn.Operator(lambda u: u.xx, x=1.0),
                pinn.Operator(lambda u: u.xxx, x=1.0),
            ],
        )
    else:
        problem = pinn.Problem(
            pinn.Box(x=(0.0, 1.0), y=(0.0, 1.0)),
            [lambda u, x, y: u.xx + u.yy + 2 * PI**2 * torch.sin(PI * x) * torch.sin(PI * y)],
            conditions=[pinn.Dirichlet(on=sides(dtype))],
        )
    sampler = pinn.FixedPoints(interior(dimension, dtype))

    def train(iterations: int) -> float:
        net = network(dimension, dtype)
        return pinn.solve(
            problem, net, [optim.Adam(iterations, lr=RATE)], sampler=sampler, progress=False
        ).loss

    return train


# --- DeepXDE ----------------------------------------------------------------------------------------


def deepxde(name: str, dtype: torch.dtype) -> Train:
    import deepxde as dde

    dde.config.set_default_float(str(dtype).removeprefix("torch."))
    hessian, jacobian = dde.grad.hessian, dde.grad.jacobian
    zero, line = (lambda _: 0.0), dde.geometry.Interval(0, 1)
    if name == "poisson1d":
        residual = lambda x, u: hessian(u, x) + PI**2 * torch.sin(PI * x)  # noqa: E731
        conditions = [dde.icbc.DirichletBC(line, zero, lambda _, on: on)]
        data = dde.data.PDE(line, residual, conditions, POINTS, 2, train_distribution="uniform")
    elif name == "beam":
        left, right = lambda x, on: on and x[0] < 0.5, lambda x, on: on and x[0] > 0.5
        residual = lambda x, u: hessian(hessian(u, x), x) + 1  # noqa: E731
        conditions = [
            dde.icbc.DirichletBC(line, zero, left),
            dde.icbc.NeumannBC(line, zero, left),
            dde.icbc.OperatorBC(line, lambda x, u, _: hessian(u, x), right),
            dde.icbc.OperatorBC(line, lambda x, u, _: jacobian(hessian(u, x), x), right),
        ]
        data = dde.data.PDE(line, residual, conditions, POINTS, 2, train_distribution="uniform")
    else:
        square = dde.geometry.Rectangle([0, 0], [1, 1])

        def residual(x: Tensor, u: Tensor) -> Tensor:
            force = 2 * PI**2 * torch.sin(PI * x[:, :1]) * torch.sin(PI * x[:, 1:])
            return hessian(u, x, i=0, j=0) + hessian(u, x, i=1, j=1) + force

        conditions = [dde.icbc.DirichletBC(square, zero, lambda _, on: on)]
        data = dde.data.PDE(square, residual, conditions, POINTS, 4 * SIDE)
    inputs = 2 if name == "poisson2d" else 1

    def train(iterations: int) -> None:
        net = dde.nn.FNN([inputs, 20, 20, 20, 1], "tanh", "Glorot uniform")
        model = dde.Model(data, net)
        model.compile("adam", lr=RATE, verbose=0)
        model.train(iterations=iterations, display_every=10**9, verbose=0)

    return train


# --- PINA -------------------------------------------------------------------------------------------


def pina(name: str, _: torch.dtype) -> Train:
    from pina import Condition, Trainer
    from pina.domain import CartesianDomain
    from pina.equation import Equation
    from pina.model import FeedForward
    from pina.operator import grad, laplacian
    from pina.optim import TorchOptimizer
    from pina.problem import SpatialProblem
    from pina.solver import PhysicsInformedSingleModelSolver

    def poisson(x: Tensor, u: Tensor) -> Tensor:
        force = PI**2 * torch.sin(PI * x.extract(["x"]))
        if name == "poisson2d":
            force = 2 * force * torch.sin(PI * x.extract(["y"]))
        return laplacian(u, x, components=["u"], d=list(x.labels)) + force

    def order(n: int, shift: float = 0.0) -> Equation:
        def residual(x: Tensor, u: Tensor) -> Tensor:
            label = "u"
            for _ in range(n):
                u = grad(u, x, components=[label], d=["x"])
                label = u.labels[0]
            return u + shift

        return Equation(residual)

    names = ["x", "y"] if name == "poisson2d" else ["x"]
    whole = CartesianDomain({n: [0.0, 1.0] for n in names})
    ends = {f"end{v:.0f}": CartesianDomain({"x": v}) for v in (0.0, 1.0)}
    places, rules = {"inside": whole}, {"inside": Equation(poisson)}
    if name == "poisson1d":
        places, rules = places | ends, rules | dict.fromkeys(ends, order(0))
    elif name == "beam":
        kinds = {"value": 0.0, "slope": 0.0, "moment": 1.0, "shear": 1.0}
        places |= {kind: CartesianDomain({"x": v}) for kind, v in kinds.items()}
        rules = {"inside": order(4, 1.0)} | {kind: order(i) for i, kind in enumerate(kinds)}
    else:
        places["boundary"], rules["boundary"] = whole.partial(), order(0)

    class Statement(SpatialProblem):
        output_variables = ("u",)
        spatial_domain = whole
        domains = places
        conditions = {k: Condition(domain=k, equation=rule) for k, rule in rules.items()}  # noqa: RUF012

    Statement.output_variables = ["u"]
    problem = Statement()
    for key in places:
        count = POINTS if key == "inside" else 4 * SIDE if key == "boundary" else 1
        problem.discretise_domain(n=count, mode="random", domains=[key])

    def train(iterations: int) -> None:
        model = FeedForward(len(names), 1, inner_size=20, n_layers=3, func=nn.Tanh)
        solver = PhysicsInformedSingleModelSolver(
            problem, model, optimizer=TorchOptimizer(torch.optim.Adam, lr=RATE)
        )
        Trainer(
            solver, max_epochs=iterations, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        ).train()  # fmt: skip

    return train


CONTENDERS: dict[str, tuple[str | None, Callable[[str, torch.dtype], Train]]] = {
    "torch nested": (None, plain),
    "DeepXDE": ("deepxde", deepxde),
    "PINA": ("pina", pina),
    "ntangent": (None, ours),
}


@contextlib.contextmanager
def quiet(dtype: torch.dtype):
    """Silence a contender, and give it the precision in the way it knows: as torch's default."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        torch.set_default_dtype(before)


def seconds(train: Train, iterations: int) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    train(iterations)
    return time.process_time() - cpu, time.perf_counter() - wall


def measure(name: str, dtype: torch.dtype, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    trains: dict[str, Train] = {}
    for label, (module, make) in CONTENDERS.items():
        if module is None or importlib.util.find_spec(module) is not None:
            with quiet(dtype):
                trains[label] = make(name, dtype)
                trains[label](options.few)
    found: dict[str, list[tuple[float, float, float]]] = {label: [] for label in trains}
    for turn in range(options.rounds):
        labels = list(trains)
        for label in labels[turn % len(labels) :] + labels[: turn % len(labels)]:
            with quiet(dtype):
                if label == "DeepXDE":
                    trains[label] = deepxde(name, dtype)  # its precision is one setting for all
                few, many = seconds(trains[label], options.few), seconds(trains[label], options.many)
            steps = options.many - options.few
            found[label].append(((many[0] - few[0]) / steps, (many[1] - few[1]) / steps, few[0]))
    return {
        label: dict(
            zip(
                ("cpu_ms", "wall_ms", "start_s"),
                (1e3 * statistics.median(t[0] for t in rows), 1e3 * statistics.median(t[1] for t in rows),
                 statistics.median(t[2] for t in rows)),
                strict=True,
            )
        )
        for label, rows in found.items()
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", nargs="*", default=["poisson1d", "poisson2d", "beam"])
    parser.add_argument("--dtypes", nargs="*", default=["float32", "float64"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--few", type=int, default=20)
    parser.add_argument("--many", type=int, default=320)
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for logger in ("lightning", "lightning.pytorch", "lightning.fabric", "pina"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    absent = [
        label
        for label, (module, _) in CONTENDERS.items()
        if module is not None and importlib.util.find_spec(module) is None
    ]
    if absent:
        print(f"{len(absent)} contender(s) skipped, not installed: {', '.join(absent)}")
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name in options.problems:
        for kind in options.dtypes:
            found = results[f"{name} {kind}"] = measure(name, getattr(torch, kind), options)
            best = found["ntangent"]["cpu_ms"]
            print(f"{name} {kind}: CPU ms per iteration (times ntangent)")
            for label, row in found.items():
                print(
                    f"  {label:13s} {row['cpu_ms']:8.3f}  ({row['cpu_ms'] / best:5.1f}x)"
                    f"  start {row['start_s']:.2f} s",
                    flush=True,
                )
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        setting = {"torch": torch.__version__, "python": platform.python_version(), "skipped": absent}
        setting |= {"points": POINTS, "rounds": options.rounds, "iterations": options.many}
        options.out.write_text(json.dumps({"setting": setting, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
