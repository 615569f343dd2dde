"""``ntangent doctor``: what this installation has, and whether its backends are right."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import ntangent
from ntangent._base import machine
from ntangent._base.errors import BackendError
from ntangent._base.extras import EXTRAS, installed_version, missing
from ntangent._base.precision import tolerance
from ntangent.cli.errors import traceback_option
from ntangent.jet import MLP, jet
from ntangent.jet.api import BACKENDS
from ntangent.jet.backends import library, native

ORACLE = "autograd"
ORDER, WIDTH, DEPTH, POINTS, REPEATS = 5, 16, 2, 64, 20


@dataclass(frozen=True)
class Finding:
    """What the self-check of a backend gave.

    Args:
        name: the backend.
        error: largest relative error of a Taylor coefficient or of a gradient; None where the
            backend does not serve here.
        milliseconds: shortest time of one pass.
        note: why it does not serve.
    """

    name: str
    error: float | None
    milliseconds: float = 0.0
    note: str = ""

    @property
    def right(self) -> bool:
        """Whether the backend agrees with nested autograd, or does not serve at all."""
        return self.error is None or self.error <= bound()


def bound() -> float:
    """Return the relative error that rounding explains."""
    return tolerance(torch.float64, order=ORDER, terms=WIDTH * DEPTH)


def check_backends() -> list[Finding]:
    """Compare every backend with nested autograd, in values and in gradients of the parameters."""
    net = MLP(1, 1, width=WIDTH, depth=DEPTH, dtype=torch.float64, generator=0)
    x = torch.linspace(-1, 1, POINTS, dtype=torch.float64)[:, None]
    truth = _evaluate(net, x, ORACLE)
    findings = []
    for name in BACKENDS:
        try:
            found = _evaluate(net, x, name)
        except BackendError as error:
            findings.append(Finding(name, None, note=error.what))
            continue
        # Each order and each parameter tensor relative to its own size; NaN counts as infinite.
        errors = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, truth, strict=True)]
        worst = max(error if error == error else float("inf") for error in errors)
        findings.append(Finding(name, worst, _milliseconds(net, x, name)))
    return findings


def _evaluate(net: torch.nn.Module, x: Tensor, backend: str) -> list[Tensor]:
    """Return the coefficients of every order, then the gradient of their sum of squares."""
    series = jet(net, x, ORDER, backend=backend)
    rows = [series.coefficient(k) for k in range(ORDER + 1)]
    loss = torch.stack([row.square().mean() for row in rows]).sum()
    parameters = list(net.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
    return [row.detach() for row in rows] + [torch.cat([g.reshape(-1) for g in filled])]


def _milliseconds(net: torch.nn.Module, x: Tensor, backend: str) -> float:
    times = []
    with torch.no_grad():
        for _ in range(REPEATS):
            start = time.perf_counter()
            jet(net, x, ORDER, backend=backend)
            times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def native_status() -> str:
    """Return whether the compiled kernels serve, and for which instruction set, or why they do not."""
    if not native.available():
        return f"not available: {native.reason()}; the eager path serves"
    return f"built, {library.library().isa_name}"


def _extra(name: str) -> str:
    absent = missing(name)
    if absent:
        # The command first: a narrow terminal wraps the rest.
        return f"pip install 'ntangent[{name}]' (missing: {', '.join(absent)})"
    return ", ".join(f"{package} {installed_version(package)}" for package in EXTRAS[name])


def facts() -> list[tuple[str, str]]:
    """Return versions, extras, processor and devices, as (name, text)."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [
        ("ntangent", ntangent.__version__),
        ("torch", torch.__version__),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *((f"extra {name}", _extra(name)) for name in EXTRAS),
        ("processor", machine.processor()),
        ("instructions", torch.backends.cpu.get_cpu_capability()),
        ("threads", f"{torch.get_num_threads()} of {machine.cores()} cores"),
        ("gpu", ", ".join(gpus) or "none"),
        ("native kernels", native_status()),
    ]


@click.command("doctor")
@traceback_option
def doctor() -> None:
    """Say what this installation has, and check every backend against nested autograd."""
    console = Console(highlight=False, markup=False)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for row in facts():
        table.add_row(*row)
    console.print(table)
    findings = check_backends()
    table = Table(
        title=f"MLP {DEPTH}x{WIDTH}, {POINTS} points, orders 0 to {ORDER}, float64", title_justify="left"
    )
    for heading, side in (("backend", "left"), ("error", "right"), ("ms", "right"), ("verdict", "left")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for found in findings:
        if found.error is None:
            table.add_row(found.name, "", "", f"not available: {found.note}")
            continue
        verdict = "the oracle" if found.name == ORACLE else "right" if found.right else "WRONG"
        table.add_row(found.name, f"{found.error:.1e}", f"{found.milliseconds:.2f}", verdict)
    console.print(table)
    wrong = [found.name for found in findings if not found.right]
    if wrong:
        click.echo(f"error: wrong: {', '.join(wrong)} (allowed {bound():.1e})", err=True)
        raise click.exceptions.Exit(1)
