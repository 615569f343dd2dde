"""Algebras of Taylor coefficients other than lines: a product given by a table.

Rows are linear functionals of the function at a point, closed under products: row b of fg is the
sum of w · f_c · g_d over the entries (c, d, b, w) of a table. The operators build such tables; the
jet layer only multiplies by them. A grade counts the order of a row; row 0 is the value.

Everything that holds along a line holds here, with the grade in place of the order: if
z' = P(z, a) a' along every line, then  grade(b) z_b = sum of w · grade(c) · a_c · P_d.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError

Entry = tuple[int, int, int, float]


# From this many numbers in a row on, adding products row by row beats one product and a sum; and so it
# does for so few rows, of any length.
_LONG_ROW, _MANY_ROWS, _FEW_ROWS = 4096, 32, 3


@dataclass(frozen=True)
class _Block:
    """Entries (c + i·step_c, d + i·step_d, b + i·step_b, w), i < count: one operation on slices."""

    start: tuple[int, int, int]
    steps: tuple[int, int, int]
    count: int
    weight: float

    def _rows(self, data: Tensor, i: int) -> Tensor:
        start, step = self.start[i], self.steps[i]
        return data[start : start + self.count * step : step] if step else data[start]

    def add_to(self, out: Tensor, a: Tensor, b: Tensor, scale: float) -> None:
        weight = self.weight * scale
        if self.steps[2] == 0:
            (c, d, target), (step_c, step_d, _) = self.start, self.steps
            if self.count > (_MANY_ROWS if out[target].numel() >= _LONG_ROW else _FEW_ROWS):
                out[target].add_((self._rows(a, 0) * self._rows(b, 1)).sum(0), alpha=weight)
                return
            for i in range(self.count):
                out[target].addcmul_(a[c + i * step_c], b[d + i * step_d], value=weight)
            return
        self._rows(out, 2).addcmul_(self._rows(a, 0), self._rows(b, 1), value=weight)


# Steps in which entries are gathered into blocks: a factor or the result may stay put.
_STEPS = ((1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 1, 2), (1, 0, 2))


def _blocks(entries: list[Entry]) -> tuple[_Block, ...]:
    """Gather entries into runs, each the longest that starts at the first entry left."""
    left = {entry[:3]: entry[3] for entry in sorted(entries)}
    blocks = []
    while left:
        start = next(iter(left))
        weight = left[start]
        count, steps = 0, (1, 1, 1)
        for candidate in _STEPS:
            n = 1
            while left.get(_advance(start, candidate, n)) == weight:
                n += 1
            if n > count:
                count, steps = n, candidate
        for i in range(count):
            del left[_advance(start, steps, i)]
        blocks.append(_Block(start, steps, count, weight))
    return tuple(blocks)


def _advance(start: tuple[int, int, int], steps: tuple[int, int, int], n: int) -> tuple[int, int, int]:
    return start[0] + n * steps[0], start[1] + n * steps[1], start[2] + n * steps[2]


Blocks = dict[tuple[int, int, int], tuple[_Block, ...]]


@dataclass(frozen=True)
class Algebra:
    """A graded algebra of rows with a product table.

    Args:
        grades: order of each row, non-decreasing, first 0; only row 0 has grade 0.
        table: entries (c, d, b, w): row b of a product gains w · row c of one factor · row d of the
            other.
    """

    grades: tuple[int, ...]
    table: tuple[Entry, ...]

    def __post_init__(self) -> None:
        if (
            not self.grades
            or self.grades[0] != 0
            or list(self.grades) != sorted(self.grades)
            or 0 in self.grades[1:]
        ):
            raise ArgumentError(
                f"the grades {self.grades} are not those of an algebra of Taylor coefficients",
                "the value comes first and alone has grade 0; the grades do not decrease",
                "Algebra((0, 1, 2), ...)",
            )

    @property
    def order(self) -> int:
        """The highest grade."""
        return self.grades[-1]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of rows of grade at most k, for k = 0, 1, ..., order."""
        return tuple(sum(g <= k for g in self.grades) for k in range(self.order + 1))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.grades, self.table))

    @cached_property
    def _entries(self) -> dict[tuple[int, int, int], list[Entry]]:
        """The entries without the value, by the grades of (left, right, result)."""
        groups: dict[tuple[int, int, int], list[Entry]] = {}
        for c, d, b, w in self.table:
            if c and d:
                key = (self.grades[c], self.grades[d], self.grades[b])
                groups.setdefault(key, []).append((c, d, b, float(w)))
        return groups

    @cached_property
    def _groups(self) -> Blocks:
        return {key: _blocks(entries) for key, entries in self._entries.items()}

    @cached_property
    def _squares(self) -> Blocks:
        """The table of a square: (c, d) and (d, c) together."""
        groups: Blocks = {}
        for (g, h, k), entries in self._entries.items():
            merged: dict[tuple[int, int, int], float] = {}
            for c, d, b, w in entries:
                key = (min(c, d), max(c, d), b)
                merged[key] = merged.get(key, 0.0) + w
            if g <= h:
                twice = 2.0 if g < h else 1.0
                groups[g, h, k] = _blocks([(*key, w * twice) for key, w in merged.items()])
        return groups

    @cached_property
    def _merged(self) -> dict[tuple[str, int, int, int], tuple[_Block, ...]]:
        """Blocks of whole products, found so far; see :meth:`_whole`."""
        return {}

    def _whole(self, kind: str, left: int, right: int, result: int) -> tuple[_Block, ...]:
        """Return the blocks of a product, or of its adjoint, of all entries up to these grades.

        The adjoint takes cotangent row b and factor row c to row d.
        """
        key = (kind, left, right, result)
        found = self._merged.get(key)
        if found is None:
            chosen = [
                entry
                for (g, h, k), entries in self._entries.items()
                for entry in entries
                if g <= left and h <= right and k <= result
            ]
            if kind == "adjoint":
                chosen = [(c, b, d, w) for c, d, b, w in chosen]
            found = self._merged[key] = _blocks(chosen)
        return found

    def rows(self, degree: int) -> int:
        """Return the number of rows of grade at most ``degree``."""
        return self.sizes[min(degree, self.order)]

    def degree(self, data: Tensor) -> int:
        """Return the highest grade of the stored rows."""
        return self.grades[data.shape[0] - 1]

    def grade_rows(self, k: int) -> slice:
        """Return the rows of grade k."""
        return slice(self.sizes[k - 1] if k else 0, self.sizes[k])

    def product(self, a: Tensor, b: Tensor, degree: int) -> Tensor:
        """Return the product truncated at grade ``degree``."""
        size = self.rows(degree)
        out = a.new_empty((size, *a.shape[1:]))
        _multiply_into(out, b, a[0])
        count = min(len(a), size)
        out[1:count].addcmul_(a[1:count], b[0])
        for block in self._whole("product", self.degree(a), self.degree(b), degree):
            block.add_to(out, a, b, 1.0)
        return out

    def correlate(self, s: Tensor, g: Tensor, degree: int) -> Tensor:
        """Return the adjoint of x ↦ s·x, for x of grade at most ``degree``, applied to g."""
        out = g.new_empty((self.rows(degree), *g.shape[1:]))
        _multiply_into(out, g, s[0])
        count = min(len(s), len(g))
        if count > 1:
            _Block((1, 1, 0), (1, 1, 0), count - 1, 1.0).add_to(out, s, g, 1.0)
        for block in self._whole("adjoint", self.degree(s), degree, self.degree(g)):
            block.add_to(out, s, g, 1.0)
        return out

    def integrate_value(self, out: Tensor, a: Tensor, rate: Tensor) -> None:
        """Write what the value of the rate gives to the rows of grade >= 1 of z with z' = rate·a'."""
        _multiply_into(out[1:], a[1:], rate[0])

    def integrate_grade(self, out: Tensor, a: Tensor, rate: Tensor, k: int) -> None:
        """Add to the rows of grade k >= 1 of z with z' = rate·a' what a rate known below grade k gives."""
        top = self.degree(a)
        for (g, h, result), blocks in self._groups.items():
            if result == k and g <= top and h <= self.degree(rate):
                for block in blocks:
                    block.add_to(out, a, rate, g / k)

    @staticmethod
    def head_factor(scale: float, square: bool, k: int) -> float:
        """Return the multiple of the value of a factor in ``scale`` times a product: twice for a square."""
        return scale * (2.0 if square and k > 0 else 1.0)

    def product_grade(
        self, out: Tensor, a: Tensor, b: Tensor, k: int, scale: float = 1.0, add: bool = False,
        head: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Write or add ``scale`` times the rows of grade k of a product, from factors known up to k.

        ``head``: :meth:`head_factor` times the value of b, where that is known already.
        """
        rows, square, factor = self.grade_rows(k), a is b, self.head_factor(scale, a is b, k)
        value = head if head is not None else b[0] if factor == 1.0 else b[0] * factor
        if not add:
            _multiply_into(out[rows], a[rows], value)
        elif rows.start < len(a):
            out[rows].addcmul_(a[rows], value)
        if k and not square and rows.start < len(b):
            out[rows].addcmul_(b[rows], a[0], value=scale)
        top_a, top_b = self.degree(a), self.degree(b)
        for (g, h, result), blocks in (self._squares if square else self._groups).items():
            if result == k and g <= top_a and h <= top_b:
                for block in blocks:
                    block.add_to(out, a, b, scale)


def _multiply_into(out: Tensor, rows: Tensor, factor: Tensor) -> None:
    """Write rows · factor, and zeros past the stored rows."""
    count = min(len(rows), len(out))
    torch.mul(rows[:count], factor, out=out[:count])
    if count < len(out):
        out[count:].zero_()
