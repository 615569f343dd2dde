"""What is timed: the backends of ``jet``, nested autograd as lean as it can be written, and the floor.

The work is that of the n-TangentProp paper: all derivatives u, u', ..., u^(n) at all points, then the
gradient of the mean square of their sum in all parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ntangent._base.errors import NtangentError, UnknownNameError
from ntangent._base.registry import nearest_names
from ntangent.bench.cells import Cell
from ntangent.bench.timing import TOTAL, Task
from ntangent.jet.api import BACKENDS, derivatives

FORWARD, BACKWARD = "forward", "backward"
BASELINE, FLOOR = "autograd", "floor"
_PREFERRED = ("native", "triton", "eager", "faa-di-bruno")

Derivatives = Callable[[nn.Module, Tensor, int], Tensor]


@dataclass(frozen=True)
class Outcome:
    """What a contender computed, in float64 on the processor.

    Args:
        rows: the derivatives of orders 0..n, shape (n + 1, N, 1).
        gradient: the gradient of the loss, all parameters one after the other.
    """

    rows: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Work:
    """One contender's work on one cell, ready to run.

    Args:
        forward: the derivatives.
        backward: from what ``forward`` returned to the gradient.
        both: instead of ``backward``, for those who compile the whole pass: derivatives and gradient.
        outcome: runs the pass and returns its numbers; None where there is nothing to check.
    """

    forward: Callable[[], Any]
    backward: Callable[[Any], Any] | None = None
    both: Callable[[], Any] | None = None
    outcome: Callable[[], Outcome] | None = None

    def tasks(self, name: str) -> list[Task]:
        """Return what is to be timed; the names begin with ``name``."""

        def first(_: Any) -> Any:
            return self.forward()

        if self.backward is not None:
            return [Task(name, [(FORWARD, first), (BACKWARD, self.backward)])]
        both = self.both
        if both is None:
            return [Task(name, [(FORWARD, first)])]
        return [Task(name, [(FORWARD, first)]), Task(f"{name} {TOTAL}", [(TOTAL, lambda _: both())])]


@dataclass(frozen=True)
class Contender:
    """A way to do the work.

    Args:
        name: what it is called in tables and files.
        build: prepares the work on a cell with the network and the points of a seed.
    """

    name: str
    build: Callable[[Cell, int], Work]

    def reason_against(self, device: str = "cpu") -> str:
        """Return why it cannot be measured here, or an empty string."""
        try:
            work = self.build(Cell(1, width=3, depth=2, batch=4, device=device), 0)
            if work.outcome is not None:
                work.outcome()
        except (NtangentError, ImportError) as error:
            return str(error).partition("\n")[0]
        return ""


def loss_of(rows: Tensor) -> Tensor:
    """Return the mean square of the sum of all derivatives."""
    return rows.sum(0).square().mean()


def work_of(function: Derivatives, net: nn.Module, x: Tensor, order: int) -> Work:
    """Return the work of a function (network, points, order) -> derivatives (n + 1, N, 1) of torch."""
    parameters = list(net.parameters())

    def forward() -> Tensor:
        return function(net, x, order)

    def backward(rows: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss_of(rows), parameters)

    def outcome() -> Outcome:
        rows = forward()
        gradient = torch.cat([g.reshape(-1) for g in backward(rows)])
        return Outcome(rows.detach().double().cpu(), gradient.double().cpu())

    return Work(forward, backward, outcome=outcome)


def _build(function: Derivatives, cell: Cell, seed: int) -> Work:
    return work_of(function, cell.network(seed), cell.points(seed), cell.order)


def from_function(name: str, function: Derivatives) -> Contender:
    """Return the contender of a function (network, points, order) -> derivatives (n + 1, N, 1)."""
    return Contender(name, partial(_build, function))


def nested(net: nn.Module, x: Tensor, order: int) -> Tensor:
    """Return the derivatives by nested reverse mode: nothing is done that is not needed."""
    x = x.detach().requires_grad_()
    ones = torch.ones_like(x)
    rows = [net(x)]
    for _ in range(order):
        rows.append(torch.autograd.grad(rows[-1], x, ones, create_graph=True)[0])
    return torch.stack(rows)


def _floor(cell: Cell, _: int) -> Work:
    """Return the multiply-adds of the dense layers as bare products, and one pass over every activation.

    Forward: a product for each layer over the n + 1 coefficients of all points (2 of them at the first
    layer, whose argument is a line), and one pass that reads and writes each hidden layer's coefficients.
    Backward: two products for each layer (to its input, to its weights), and one pass. Buffers exist
    before; there is no bookkeeping.
    """
    size, width, depth = (cell.order + 1) * cell.batch, cell.width, cell.depth
    line = min(cell.order + 1, 2) * cell.batch

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=cell.torch_dtype, device=cell.device)

    x, first, last, top = random(line, 1), random(1, width), random(width, 1), random(size, 1)
    hidden = [random(width, width) / width**0.5 for _ in range(depth - 1)]
    saved = [random(size, width) for _ in range(depth)]
    work, cotangent, out = random(size, width), random(size, width), random(size, 1)
    to_first, to_last = random(1, width), random(width, 1)
    to_hidden = random(width, width)

    def forward() -> None:
        with torch.no_grad():
            torch.mm(x, first, out=work[:line])
            torch.mul(work, 0.5, out=saved[0])
            for i, weight in enumerate(hidden):
                torch.mm(saved[i], weight, out=work)
                torch.mul(work, 0.5, out=saved[i + 1])
            torch.mm(saved[-1], last, out=out)

    def backward(_: Any) -> None:
        with torch.no_grad():
            torch.mm(saved[-1].T, top, out=to_last)
            torch.mm(top, last.T, out=cotangent)
            for i in range(depth - 1, 0, -1):
                torch.mul(cotangent, saved[i], out=work)
                torch.mm(saved[i - 1].T, work, out=to_hidden)
                torch.mm(work, hidden[i - 1].T, out=cotangent)
            torch.mul(cotangent, saved[0], out=work)
            torch.mm(x.T, work[:line], out=to_first)

    return Work(forward, backward)


def _jets(backend: str, net: nn.Module, x: Tensor, order: int) -> Tensor:
    return derivatives(net, x, order, backend=backend)


def contenders() -> dict[str, Contender]:
    """Return every contender by name: the backends that ``jet`` lists, nested autograd, the floor."""
    names = sorted(
        set(BACKENDS) - {"auto", BASELINE},
        key=lambda name: _PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED),
    )
    found = {name: from_function(name, partial(_jets, name)) for name in names}
    found[BASELINE] = from_function(BASELINE, nested)
    found[FLOOR] = Contender(FLOOR, _floor)
    return found


def find(names: tuple[str, ...] = ()) -> list[Contender]:
    """Return the contenders of these names, all of them by default.

    Raises:
        UnknownNameError: there is no such contender.
    """
    known = contenders()
    for name in names:
        if name not in known:
            raise UnknownNameError(
                f"there is no backend {name!r} to time", "", nearest_names(name, list(known))
            )
    return [known[name] for name in names or known]
