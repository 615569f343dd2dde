"""The product table of an algebra as the compiled kernels read it."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from ntangent.jet.algebra import Algebra, Entry

Part = dict[float, list[tuple[int, int]]]  # weight -> pairs of factors


class Table:
    """The programs with which the kernels multiply in an algebra, truncated at an order.

    Numbers, 64 bits each: rows, rows of the argument; where the six programs begin: the step of a
    recurrence and the same for the network's argument, product, square, transposed product and the
    same for the network's argument; where the grades begin; where the marks of the rows begin that
    recurrences read of a slope; and all of these in turn.

    Args:
        algebra: the algebra.
        order: rows of higher grade are left out.
        degree: highest grade of the network's argument.
    """

    def __init__(self, algebra: Algebra, order: int, degree: int) -> None:
        self.rows, self.rows_in = algebra.rows(order), algebra.rows(degree)
        grades = algebra.grades[: self.rows]
        entries = [e for e in algebra.table if e[2] < self.rows]
        squares: dict[tuple[int, int, int], float] = {}
        for c, d, b, w in entries:
            key = (min(c, d), max(c, d), b)
            squares[key] = squares.get(key, 0.0) + w

        def steps(limit: int) -> Iterable[Entry]:
            return ((c, d, b, w / grades[b]) for c, d, b, w in entries if 0 < c < limit)

        def adjoints(limit: int) -> Iterable[Entry]:
            return ((d, b, c, w) for c, d, b, w in entries if c < limit)

        programs = [
            steps(self.rows), steps(self.rows_in), entries, [(*key, w) for key, w in squares.items()],
            adjoints(self.rows), adjoints(self.rows_in),
        ]  # fmt: skip
        needed = {d for c, d, _, _ in entries if c}
        numbers = [self.rows, self.rows_in, *[0] * 8]
        for i, program in enumerate(programs):
            numbers[2 + i] = len(numbers)
            numbers += _program(program, self.rows, len(numbers))
        numbers[8] = len(numbers)
        numbers += grades
        numbers[9] = len(numbers)
        numbers += [int(b in needed) for b in range(self.rows)]
        self._numbers = (ctypes.c_int64 * len(numbers))(*numbers)
        self.address = ctypes.addressof(self._numbers)


def _program(entries: Iterable[Entry], rows: int, start: int) -> list[int]:
    """Return the places of the parts of the rows, then the parts."""
    parts: list[Part] = [{} for _ in range(rows)]
    for c, d, b, w in entries:
        parts[b].setdefault(w, []).append((c, d))
    numbers = [0] * rows
    for b, part in enumerate(parts):
        numbers[b] = start + len(numbers)
        numbers.append(len(part))
        for weight, pairs in part.items():
            numbers.append(struct.unpack("q", struct.pack("d", weight))[0])
            numbers.append(len(pairs))
            numbers += [c + (d << 32) for c, d in pairs]
    return numbers


table: Callable[[Algebra, int, int], Any] = lru_cache(maxsize=256)(Table)
