"""How many points to evaluate at a time under a memory budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError

# Row tensors alive at once inside an activation: argument, series, derivative and scratch.
LIVE = 4


class _Widest(TorchFunctionMode):
    """Records the largest number of values per point that a function makes."""

    def __init__(self) -> None:
        super().__init__()
        self.widest = 1

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.widest = max(self.widest, result.numel())
        return result


def points_per_chunk(f: Callable[[Any], Any], x: Tensor, rows: int, memory: int) -> int:
    """Return how many points fit into ``memory`` bytes at a time, at least 1.

    An estimate: it counts four row tensors as wide as the widest intermediate value of f at one
    point. Libraries' scratch space is not counted, nor is the graph of automatic differentiation,
    which, where it is recorded, holds the rows of every layer for all chunks until the backward pass.

    Args:
        f: maps (N, d) to (N, out); called once with one point.
        x: points, shape (N, d).
        rows: rows that each layer carries per point, :attr:`ntangent.operators.Plan.rows`.
        memory: budget in bytes.

    Raises:
        ArgumentError: if the budget is not a positive integer, or less than one point needs.
    """
    check_positive(memory, "memory", integer=True)
    if not len(x):
        return 1
    with torch.no_grad(), _Widest() as seen:
        f(x[:1])
    per_point = LIVE * rows * max(seen.widest, x.shape[1]) * x.element_size()
    if per_point > memory:
        raise ArgumentError(
            f"a budget of {memory} bytes is less than the {per_point} that one point takes",
            f"{rows} rows of {seen.widest} values are carried",
            f"memory={per_point}, or a stochastic estimate",
        )
    return int(memory // per_point)
