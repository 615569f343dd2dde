"""The loss and its gradient without a graph: bound passes of the network, and a recorded residual."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ntangent._base.errors import NoEffectWarning, NotRepeatable
from ntangent.jet.backends import native
from ntangent.jet.backends.bound import BoundNetwork
from ntangent.jet.backends.calls import plan_of
from ntangent.jet.backends.stacked import BoundLayout
from ntangent.jet.dense import Pass
from ntangent.jet.layers import TAPE
from ntangent.jet.replay import recorded

if TYPE_CHECKING:
    from ntangent.pinn.equation import Block

# After so many repetitions they are compared with the equations themselves; then every time a thousand.
CHECKS = (10, 100)
CHECK_EVERY = 1000
_log = logging.getLogger("ntangent.pinn")

Losses = Callable[[Tensor, Sequence[Tensor]], tuple[Tensor, Tensor, Sequence[Tensor]]]


class Found(NamedTuple):
    """The loss, its gradient (P,), the weighted residuals (M,) and the rows of every block (C, n)."""

    loss: Tensor
    gradient: Tensor
    residuals: Tensor
    rows: Sequence[Tensor]


@dataclass(frozen=True)
class _Call:
    made: Pass
    output: Tensor


class _Calls:
    """Notes the calls of dense networks, or puts given outputs in their place."""

    def __init__(self, outputs: Sequence[Tensor] | None = None) -> None:
        self.calls: list[_Call] = []
        self.outputs = outputs

    def linear(self, weight: Tensor, bias: Tensor | None, input: Tensor, output: Tensor) -> Tensor:  # noqa: ARG002
        raise NotRepeatable("the network is not a dense one")

    def dense(self, call: Pass, output: Tensor) -> Tensor:
        given = call.input if isinstance(call.input, tuple) else (call.input,)
        if any(t.requires_grad for t in given):
            raise NotRepeatable("the network is applied to something that is trained")
        if self.outputs is not None and len(self.calls) >= len(self.outputs):
            raise NotRepeatable("the number of network calls changes")
        chosen = output.requires_grad_() if self.outputs is None else self.outputs[len(self.calls)]
        self.calls.append(_Call(call, output))
        return chosen


@contextmanager
def _taped(tape: _Calls) -> Iterator[None]:
    token = TAPE.set(tape)
    try:
        yield
    finally:
        TAPE.reset(token)


class Direct:
    """loss(θ) and its gradient for dense networks at fixed points.

    All that depends on the points alone, data and lifts of hard conditions among it, is computed
    once. Functions of the problem must return the same for the same arguments; this is tested now and
    then, and ``consistent`` says how it went.

    Args:
        losses: maps unknowns and the scales of the blocks to loss, weighted residuals and rows; calls
            the network by itself.
        parameters: of the network, in the order of θ.
        raw: the unknowns as they stand in θ.
        scales: of the blocks.

    Raises:
        NotRepeatable: where this does not serve.
    """

    def __init__(
        self, losses: Losses, parameters: Sequence[Tensor], raw: Tensor, scales: Sequence[Tensor]
    ) -> None:
        self._losses = losses
        tape = _Calls()
        with _taped(tape), torch.enable_grad():
            loss, _, rows = losses(raw.detach().clone().requires_grad_(), scales)
        self._blocks, self._own = len(rows), sum(p.numel() for p in parameters)
        places, start = {}, 0
        for p in parameters:
            places[id(p)] = start
            start += p.numel()
        self._bound = [self._bind(call, places, start, start + len(raw)) for call in tape.calls]
        outputs = [one.out for one in self._bound]
        if not loss.requires_grad or not outputs:
            raise NotRepeatable("nothing is trained")
        for memory, call in zip(outputs, tape.calls, strict=True):
            memory.copy_(call.output.detach())
        # The residual reads where the passes write.
        leaves = [t.detach().requires_grad_() for t in (*outputs, raw.clone())]
        self._repeat = recorded(self._graph, [*leaves, *[s.clone() for s in scales]])
        self._held = self._repeat.inputs[len(outputs) + 1 :]
        self._given = list(scales)
        moved = [*[1.01 * t + 0.05 for t in outputs], 1.01 * raw + 0.05, *[0.9 * s for s in scales]]
        if not self._agree(moved, self._repeat(*moved)):
            raise NotRepeatable("it computes by other means than operations on tensors")
        torch._foreach_copy_(self._held, self._given)
        self.consistent = True
        self._count = 0

    @staticmethod
    def _bind(call: _Call, places: dict[int, int], own: int, length: int) -> BoundNetwork | BoundLayout:
        made = call.made
        params = made.net.interleaved
        x, tangents = made.input if isinstance(made.input, tuple) else (made.input, None)
        memory = [t for t in (*params, x, tangents) if t is not None]
        if not all(t.is_contiguous() for t in memory):
            raise NotRepeatable("a parameter has no memory of its own")
        if any(p is not None and p.requires_grad and id(p) not in places for p in params):
            raise NotRepeatable("a parameter is computed from others")
        if made.stacked is not None:
            return BoundLayout(made.stacked[0], x, params, places, length)
        plan = plan_of(x, params, made.order, made.structure, made.net.activations, made.collapsed, tangents)
        if plan.widest > native.FUSED_WIDTH:
            raise NotRepeatable("wide networks go layer by layer")
        return BoundNetwork(plan, (x, tangents), params, places, (own, length))

    @staticmethod
    def _leaves(values: Sequence[Tensor]) -> list[Tensor]:
        return [t.detach().clone().requires_grad_() for t in values]

    def _graph(self, *inputs: Tensor) -> list[Tensor]:
        """Return loss, residuals, rows and the gradients in the network's outputs and the unknowns."""
        count = len(self._bound)
        leaves = list(inputs[: count + 1])
        tape = _Calls(leaves[:count])
        with _taped(tape), torch.enable_grad():
            loss, r, rows = self._losses(leaves[-1], inputs[count + 1 :])
        if len(tape.calls) != count:
            raise NotRepeatable("the number of network calls changes")
        known = {id(t) for t in leaves}
        if any(id(t) not in known for t in leaves_of(loss)):
            raise NotRepeatable("a parameter is used beside the network")
        grads = torch.autograd.grad(loss, leaves, allow_unused=True)
        zeros = [torch.zeros_like(t) if g is None else g for g, t in zip(grads, leaves, strict=True)]
        return [loss, r, *rows, *zeros]

    def _agree(self, inputs: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
        """Return whether the equations give the same bits."""
        count = len(self._bound) + 1
        try:
            expected = self._graph(*self._leaves(inputs[:count]), *inputs[count:])
        except NotRepeatable:
            return False
        return all(
            a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())
            for a, b in zip(expected, found, strict=True)
        )

    def fits(self, scales: Sequence[Tensor]) -> bool:
        """Return whether scales have the shapes that were recorded."""
        return all(a.shape == b.shape for a, b in zip(scales, self._held, strict=True))

    def __call__(self, raw: Tensor, scales: Sequence[Tensor]) -> Found:
        """Evaluate with the parameters as they are."""
        if any(new is not old for new, old in zip(scales, self._given, strict=True)):
            torch._foreach_copy_(self._held, list(scales))
            self._given = list(scales)
        inputs = [*[one.forward() for one in self._bound], raw, *self._held]
        found = self._repeat(*inputs)
        # The next evaluation overwrites them.
        loss, r, *rows = (t.clone() for t in found[: 2 + self._blocks])
        grads = found[2 + self._blocks :]
        self._count += 1
        if self._count in CHECKS or self._count % CHECK_EVERY == 0:
            self.consistent = self._agree(inputs, found)
        gradient: Tensor | None = None
        # The order in which a graph would be gone through backwards.
        for one, g in zip(reversed(self._bound), reversed(grads[:-1]), strict=True):
            part = one.backward(g)
            gradient = part if gradient is None else gradient.add_(part)
        assert gradient is not None
        if len(raw):
            gradient[self._own :] = grads[-1]
        return Found(loss, gradient, r, rows)


class Directly:
    """The part of an objective that evaluates without a graph where it can."""

    parameters: list[Tensor]
    blocks: list[Block]
    _scales: list[Tensor]
    _direct: Direct | None = None
    _evaluations = 0  # of the gradient at the present points

    def __getstate__(self) -> dict[str, Any]:
        # A copy may have other blocks, and memory of the kernels cannot be copied.
        return {**self.__dict__, "_direct": None, "_evaluations": 0}

    def _losses(self, raw: Tensor, scales: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        pieces = self._pieces(raw.unbind(0) if len(raw) else (), False)
        scaled = [rows * factor for rows, factor in zip(pieces, scales, strict=True)]
        r = torch.cat([rows.reshape(-1) for rows in scaled])
        return r @ r, r, pieces

    def _direct_pass(self, raw: Tensor) -> Direct | None:
        """Return the pass without a graph, from the second evaluation at the same points on.

        Mini-batches are evaluated once each; a recording would cost more than it saves.
        """
        self._evaluations += 1
        if self._direct is not None and not self._direct.fits(self._scales):
            self._direct, self._evaluations = None, 2
        if self._evaluations == 2:
            try:
                self._direct = Direct(self._losses, self.parameters, raw, self._scales)
            except Exception as reason:  # whatever it is: without a recording it has just worked
                _log.debug("every evaluation builds a graph: %s", reason)
        return self._direct

    def _inconsistent(self) -> None:
        self._direct = None
        warnings.warn(
            "a function of the problem returns other values for the same arguments than before: "
            "iterations since the last test may have used the earlier ones. Values that change belong "
            "into unknowns, weights or a new problem",
            NoEffectWarning,
            stacklevel=3,
        )

    if TYPE_CHECKING:
        _pieces: Callable[[Sequence[Tensor], bool], list[Tensor]]


def leaves_of(value: Tensor) -> list[Any]:
    """Return the leaves of a graph: the tensors that would receive a gradient."""
    found, seen, pending = [], set(), [value.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        pending.extend(parent for parent, _ in node.next_functions)
    return found
