"""Sums whose rounding does not depend on who adds what."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

Key = tuple[int, int]


class Pairwise:
    """The sum of tensors 0, 1, 2, ... in a fixed binary tree: any way of adding parts gives the same bits.

    A node (level, i) is the sum of the 2^level tensors from i·2^level on. A sum over K tensors keeps
    about log2(K) nodes at a time, and its rounding errors grow with log2(K), not with K.
    """

    def __init__(self) -> None:
        self.nodes: dict[Key, Tensor] = {}

    def add(self, number: int, value: Tensor, level: int = 0) -> None:
        """Add tensor ``number``, or, with a level above 0, a whole node of another sum."""
        while (other := self.nodes.pop((level, number ^ 1), None)) is not None:
            # The sum of two numbers does not depend on their order.
            value, level, number = value + other, level + 1, number // 2
        self.nodes[level, number] = value

    def total(self, zero: Tensor) -> Tensor:
        """Return the sum of all that was added; ``zero`` where there is nothing."""
        values = [self.nodes[key] for key in sorted(self.nodes)]
        total = values[0] if values else zero
        for value in values[1:]:
            total = total + value
        return total


def nodes_of(numbers: Iterable[int]) -> list[Key]:
    """Return the nodes, in order, that a sum of the tensors with these numbers consists of."""
    nodes: set[Key] = set()
    for number in numbers:
        level = 0
        while (level, number ^ 1) in nodes:
            nodes.remove((level, number ^ 1))
            level, number = level + 1, number // 2
        nodes.add((level, number))
    return sorted(nodes)
