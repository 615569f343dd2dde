"""A batch of stiff neural ODEs by backward Euler: ntangent beside pyzag, forward and backward.

    pip install --no-deps pyzag          # optional: skipped, and said so, where it is missing
    python benchmarks/peers_ode.py --out peers_ode.json

x' = -diag(rates) x + W2 tanh(W1 x + b1) + b2 with 6 rates from 1 to 1e4 and 32 neurons, 50 equal steps to
t = 1, the mean square of the final state differentiated in all weights. One thread, float64, CPU seconds,
medians of interleaved rounds. The peer is given the Jacobian in closed form, which it asks for; ntangent is
run with it and without.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from ntangent import ode  # noqa: E402

STATES, WIDTH, STEPS = 6, 32, 50


class Stiff(nn.Module):
    """The right-hand side, row by row of a batch."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
        self.w1 = nn.Parameter(draw(WIDTH, STATES) / STATES**0.5)
        self.b1 = nn.Parameter(0.1 * draw(WIDTH))
        self.w2 = nn.Parameter(draw(STATES, WIDTH) / WIDTH**0.5)
        self.b2 = nn.Parameter(0.1 * draw(STATES))
        self.register_buffer("rates", torch.logspace(0, 4, STATES, dtype=torch.float64))

    def hidden(self, x: Tensor) -> Tensor:
        """Return tanh(W1 x + b1)."""
        return torch.tanh(x @ self.w1.T + self.b1)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Return x', shape (..., 6)."""
        del t
        return -self.rates * x + self.hidden(x) @ self.w2.T + self.b2

    def jacobian(self, t: Tensor, x: Tensor) -> Tensor:
        """Return the Jacobian, shape (..., 6, 6)."""
        del t
        slope = 1 - self.hidden(x) ** 2
        return (self.w2 * slope[..., None, :]) @ self.w1 - torch.diag(self.rates)


def ours(model: Stiff, y0: Tensor, *, given: bool) -> Callable[[], Tensor]:
    """Return the solve by ntangent, with the Jacobian given or found."""
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    jacobian = model.jacobian if given else None
    return lambda: ode.odeint(
        model, y0, t, method="backward_euler", options={"steps": STEPS}, batched=True, jacobian=jacobian
    )[-1]


def pyzag(model: Stiff, y0: Tensor) -> Callable[[], Tensor]:
    """Return the solve by pyzag, all steps of a chunk at once."""
    from pyzag import chunktime, nonlinear
    from pyzag import ode as peer

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.model(t, x), self.model.jacobian(t, x)

    solver = nonlinear.RecursiveNonlinearEquationSolver(
        peer.BackwardEulerODE(Both()),
        step_generator=nonlinear.StepGenerator(10),
        predictor=nonlinear.PreviousStepsPredictor(),
        # Its default leaves 1e-5 in the gradient; ntangent solves given steps to rounding.
        nonlinear_solver=chunktime.ChunkNewtonRaphson(rtol=1e-10, atol=1e-11),
    )
    times = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)[:, None, None].expand(-1, len(y0), 1)
    return lambda: nonlinear.solve_adjoint(solver, y0, STEPS + 1, times)[-1]


def measure(solve: Callable[[], Tensor], model: Stiff) -> tuple[float, Tensor]:
    """Return CPU seconds of a solve with its backward pass, and the gradient."""
    model.zero_grad()
    start = time.process_time()
    solve().square().mean().backward()
    seconds = time.process_time() - start
    return seconds, torch.cat([p.grad.reshape(-1) for p in model.parameters()])


def main() -> None:
    """Run the rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", default="1,16,128")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for batch in (int(size) for size in arguments.batches.split(",")):
        generator = torch.Generator().manual_seed(1)
        y0 = torch.randn(batch, STATES, generator=generator, dtype=torch.float64)
        model = Stiff()
        contenders = {
            "ntangent": ours(model, y0, given=False),
            "ntangent, J given": ours(model, y0, given=True),
        }
        if importlib.util.find_spec("pyzag") is not None:
            contenders["pyzag, J given"] = pyzag(model, y0)
        times: dict[str, list[float]] = {name: [] for name in contenders}
        gradients = {}
        for _ in range(arguments.rounds + 1):
            for name, solve in contenders.items():
                seconds, gradients[name] = measure(solve, model)
                times[name].append(seconds)
        reference = gradients["ntangent"]
        for name, all_of_them in times.items():
            seconds = statistics.median(all_of_them[1:])
            gap = float((gradients[name] - reference).norm() / reference.norm())
            rows.append({"batch": batch, "name": name, "seconds": seconds, "gradient_gap": gap})
            print(f"{batch:5d}  {name:20s} {seconds:8.4f} s   gradient differs by {gap:.1e}", flush=True)
    if importlib.util.find_spec("pyzag") is None:
        print("1 peer left out: pyzag is not installed (pip install --no-deps pyzag)")
    if arguments.out is not None:
        facts = {"torch": torch.__version__, "machine": platform.machine(), "rows": rows}
        arguments.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
