"""Dense networks by torch operations on whole stacks of rows, with a backward pass of their own.

The compiled kernels serve the CPU. This serves every device: a layer is one matrix product for all
coefficients, an activation the recurrence of its row, and the adjoint of each is written out, so that
training needs no graph of small operations. There are no transfers and no synchronisation. What is a
derivative of a derivative runs through the differentiable rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import Function

from ntangent._base.errors import NotRepeatable
from ntangent.jet.activations import Activation
from ntangent.jet.arithmetic import Structure, correlate_rows, degree_of, row_count
from ntangent.jet.backends import differentiable
from ntangent.jet.backends.bound import used_twice
from ntangent.jet.backends.library import is_identity
from ntangent.jet.replay import recorded
from ntangent.jet.solver import solve_rows

Params = Sequence[Tensor | None]


@dataclass(frozen=True)
class Layout:
    """What a pass does, without the tensors.

    Args:
        active: the activation after each affine map, None for the identity.
        order: order of truncation.
        directions: number of lines, or the algebra of the rows.
    """

    active: tuple[Activation | None, ...]
    order: int
    directions: Structure
    collapsed = False

    @property
    def layers(self) -> int:
        """The number of affine maps."""
        return len(self.active)

    @property
    def rows(self) -> int:
        """The number of rows of the result."""
        return row_count(self.directions, self.order)


@lru_cache(maxsize=256)
def layout_of(activations: tuple[Activation, ...], order: int, directions: Structure) -> Layout:
    """Return the layout of a network with an activation after each affine map."""
    return Layout(tuple(None if is_identity(row) else row for row in activations), order, directions)


def usable(x: Tensor) -> bool:
    """Return whether nothing is under way that has to look into the single operations."""
    return not (
        torch.compiler.is_compiling()
        or torch.is_autocast_enabled(x.device.type)
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or type(x) not in (Tensor, torch.nn.Parameter)
    )


@dataclass(frozen=True)
class Kept:
    """What a forward pass leaves for the backward pass: of each layer input, argument rows and slope."""

    inputs: list[Tensor]
    rows: list[int]
    slopes: list[Tensor | None]


def forward(layout: Layout, x: Tensor, params: Params) -> tuple[Tensor, Kept]:
    """Return the rows of the network, and what the backward pass needs.

    Args:
        layout: of the pass.
        x: jet of degree <= order, shape (rows, N, d), contiguous.
        params: W1, b1, W2, b2, ...
    """
    y, kept, structure = x, Kept([], [], []), layout.directions
    for row, weight, bias in zip(layout.active, params[::2], params[1::2], strict=True):
        assert weight is not None
        a = torch.mm(y.flatten(0, 1), weight.t()).view(*y.shape[:2], len(weight))
        if bias is not None:
            a[0].add_(bias)
        kept.inputs.append(y)
        kept.rows.append(len(a))
        y, s = (a, None) if row is None else solve_rows(row, a, structure, layout.order)
        kept.slopes.append(s)
    return differentiable.fill_rows(y, layout.rows), kept


def cotangents(
    layout: Layout, kept: Kept, params: Params, g: Tensor, through: bool = False
) -> Iterator[tuple[int, Tensor]]:
    """Go backwards: yield the number of each layer and the cotangent of its argument.

    With ``through``, the last is -1 and the cotangent of x.
    """
    structure = layout.directions
    for layer in reversed(range(layout.layers)):
        s, rows = kept.slopes[layer], kept.rows[layer]
        h = (
            g[:rows]
            if s is None
            else correlate_rows(s, g, structure, degree_of(kept.inputs[layer], structure))
        )
        yield layer, h
        if layer or through:
            weight = params[2 * layer]
            assert weight is not None
            g = torch.mm(h.flatten(0, 1), weight).view(*h.shape[:2], weight.shape[1])
    if through:
        yield -1, g


def backward(
    layout: Layout, kept: Kept, params: Params, g: Tensor, out: Params, through: bool = False
) -> Tensor | None:
    """Write the gradients of <g, output> into ``out``; None there: not needed.

    Returns:
        The gradient in the input with ``through``, else None.
    """
    for layer, h in cotangents(layout, kept, params, g.contiguous(), through):
        if layer < 0:
            return h
        weight, bias = out[2 * layer], out[2 * layer + 1]
        if weight is not None:
            torch.mm(h.flatten(0, 1).t(), kept.inputs[layer].flatten(0, 1), out=weight)
        if bias is not None:
            torch.sum(h[0], 0, out=bias)
    return None


def jacobian(layout: Layout, kept: Kept, params: Params, g: Tensor) -> Tensor:
    """Return the gradient of every point's <g, output> in all parameters, shape (N, P)."""
    parts: list[Tensor] = []
    for layer, h in cotangents(layout, kept, params, g.contiguous()):
        if params[2 * layer + 1] is not None:
            parts.append(h[0])
        product = torch.bmm(h.permute(1, 2, 0), kept.inputs[layer].permute(1, 0, 2))
        parts.append(product.flatten(1))
    return torch.cat(parts[::-1], 1)


class _Network(Function):
    """The pass under automatic differentiation."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, x: Tensor, *params: Tensor | None) -> Tensor:
        out, ctx.kept = forward(layout, x, params)
        ctx.layout = layout
        ctx.save_for_backward(x, *params)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        x, *params = ctx.saved_tensors
        layout, needs = ctx.layout, ctx.needs_input_grad[1:]
        # A graph made in eager mode may be pulled back under vmap, or to be differentiated again.
        if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            function = lambda *t: differentiable.dense(layout, *t)  # noqa: E731
            return None, *differentiable.pull(function, needs, g, x, *params)
        grads = [
            torch.empty_like(p, memory_format=torch.contiguous_format) if n and p is not None else None
            for p, n in zip(params, needs[1:], strict=True)
        ]
        return None, backward(layout, ctx.kept, params, g, grads, needs[0]), *grads


def network(layout: Layout, x: Tensor, params: Params) -> Tensor:
    """Return the rows of a dense network, differentiable in x and the parameters.

    Args:
        layout: of the pass.
        x: jet of degree <= order, shape (rows, N, d).
        params: W1, b1, W2, b2, ...; an absent bias is None.

    Cost:
        Per point and weight a multiply-add for each row forward, two backward; memory for input and
        slope of every layer.
    """
    return _Network.apply(layout, x.contiguous(), *params)  # type: ignore[no-any-return,no-untyped-call]


class BoundLayout:
    """Both passes at a fixed series, recorded and repeated in the same memory.

    Args:
        layout: of the pass.
        x: the series, shape (rows, N, d).
        params: W1, b1, W2, b2, ...; what they hold may change.
        places: id of a parameter -> where its gradient stands in the flat vector; those of others are
            not computed.
        length: of the flat vector.

    Raises:
        NotRepeatable: if the intermediate results are too large to be kept, or a parameter is used twice.
    """

    def __init__(
        self, layout: Layout, x: Tensor, params: Params, places: Mapping[int, int], length: int
    ) -> None:
        self._layout, self._x, self._params = layout, x, list(params)
        self._places, self._length = places, length
        self._addresses: list[int] = []
        if used_twice(params):
            raise NotRepeatable("a parameter belongs to several layers")
        self._bind()

    def _bind(self) -> None:
        layout, params = self._layout, [None if p is None else p.detach() for p in self._params]
        given = [p for p in params if p is not None]
        found: list[Kept] = []

        def ahead(*_: Tensor) -> list[Tensor]:
            out, kept = forward(layout, self._x, params)
            found.append(kept)
            return [out, *kept.inputs[1:], *[s for s in kept.slopes if s is not None]]

        def back(g: Tensor, *_: Tensor) -> list[Tensor]:
            # Each in memory of its own, as under automatic differentiation: for the same bits.
            parts = [
                torch.empty_like(p) if p is not None and id(q) in self._places else None
                for p, q in zip(params, self._params, strict=True)
            ]
            backward(layout, found[0], params, g, parts)
            return [p for p in parts if p is not None]

        with torch.no_grad():
            self._ahead = recorded(ahead, given)
            out, *kept = self._ahead.outputs
            self.out = out
            self._back = recorded(back, [torch.zeros_like(out), *given, *kept])
        starts = [self._places[id(p)] for p in self._params if p is not None and id(p) in self._places]
        self._pieces, end = [], 0
        for start, part in sorted(zip(starts, self._back.outputs, strict=True), key=lambda pair: pair[0]):
            self._pieces += [*([out.new_zeros(start - end)] if start > end else []), part.view(-1)]
            end = start + part.numel()
        if end < self._length:
            self._pieces.append(out.new_zeros(self._length - end))
        self._addresses = self._where()

    def _where(self) -> list[int]:
        return [p.data_ptr() for p in self._params if p is not None]

    def forward(self) -> Tensor:
        """Return the output rows, in memory that the next call overwrites."""
        if self._addresses != self._where():  # parameters were moved
            self._bind()
        self._ahead.again()
        return self.out

    def backward(self, g: Tensor) -> Tensor:
        """Return the gradient of <g, output> of the last forward pass, shape (length,)."""
        self._back.inputs[0].copy_(g)
        self._back.again()
        return torch.cat(self._pieces)
