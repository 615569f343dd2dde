"""A dense network bound to its input: forward and backward with nothing looked up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ntangent._base.errors import NotRepeatable
from ntangent.jet.backends.calls import _address, _library, _pack, _pointers, _saved_size
from ntangent.jet.backends.library import Plan


def used_twice(params: Sequence[Tensor | None]) -> bool:
    """Return whether a parameter is there twice: only one of its gradients would stand at its place."""
    there = [id(p) for p in params if p is not None]
    return len(set(there)) < len(there)


class BoundNetwork:
    """Forward and backward pass of a network at a fixed series, the gradients written into a flat vector.

    Args:
        plan: of the call.
        input: rows of shape (rows, N, d) and None, or points (N, d) and the tangents (D, d) that all of them
            share; contiguous.
        params: W1, b1, W2, b2, ..., contiguous; what they hold may change.
        places: id of a parameter -> where its gradient stands in the flat vector; those of others are
            not computed.
        sizes: how many numbers of the flat vector belong to parameters, and its length.

    Raises:
        NotRepeatable: if a parameter is used twice.
    """

    def __init__(
        self,
        plan: Plan,
        input: tuple[Tensor, Tensor | None],
        params: Sequence[Tensor | None],
        places: Mapping[int, int],
        sizes: tuple[int, int],
    ) -> None:
        if used_twice(params):
            raise NotRepeatable("a parameter belongs to several layers")
        self.plan, self.params, self.length = plan, list(params), sizes[1]
        self.input, self.tangents = input
        self.points = self.input.shape[-2]
        size = self.input.element_size()
        self._offsets = [places[id(p)] * size if id(p) in places else None for p in params]
        self.whole = sum(p.numel() for p in params if p is not None and id(p) in places) == sizes[0]
        self._saved = torch.empty(_saved_size(plan, self.points), dtype=plan.dtype)
        self._given: Any = None
        self.out = torch.empty((plan.rows, self.points, plan.widths[-1]), dtype=plan.dtype)

    def forward(self) -> Tensor:
        """Return the output series, shape (rows, N, c), in memory that the next call overwrites."""
        plan, out = self.plan, self.out
        self._given = _pack(self.params)
        _library().forward(
            plan.single, plan.address, self._given, self.points, self.input.data_ptr(),
            _address(self.tangents), out.data_ptr(), self._saved.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return out

    def backward(self, g: Tensor) -> Tensor:
        """Return the gradient of <g, output> of the last forward pass, shape (length,).

        What belongs to no parameter is undefined.
        """
        plan, g = self.plan, g.contiguous()
        make = torch.empty if self.whole else torch.zeros
        flat = make(self.length, dtype=plan.dtype)
        base = flat.data_ptr()
        kind = _pointers[len(self.params)]
        grads = kind(*[None if o is None else base + o for o in self._offsets])
        _library().backward(
            plan.single, plan.address, self._given, self.points, self.input.data_ptr(),
            _address(self.tangents), self._saved.data_ptr(), g.data_ptr(), None, grads,
            torch.get_num_threads(),
        )  # fmt: skip
        return flat
