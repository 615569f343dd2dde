"""Algebras of Taylor coefficients other than lines: a product given by a table.

Rows are linear functionals of the function at a point, closed under products: row b of fg is the
sum of w · f_c · g_d over the entries (c, d, b, w) of a table. The operators build such tables; the
jet layer only multiplies by them. A grade counts the order of a row; row 0 is the value.

Everything that holds along a line holds here, with the grade in place of the order: if
z' = P(z, a) a' along every line, then  grade(b) z_b = sum of w · grade(c) · a_c · P_d.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError

Entry = tuple[int, int, int, float]


@dataclass(frozen=True)
class _Group:
    """Entries of one kind as index tensors, by device and dtype."""

    entries: tuple[Entry, ...]
    _cache: dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]] = field(
        default_factory=dict, compare=False
    )

    def on(self, like: Tensor) -> tuple[Tensor, ...]:
        key = (like.device, like.dtype)
        if key not in self._cache:
            columns = [torch.tensor([e[i] for e in self.entries], device=like.device) for i in range(3)]
            weights = torch.tensor([e[3] for e in self.entries], dtype=like.dtype, device=like.device)
            self._cache[key] = (*columns, weights)
        return self._cache[key]

    def add_to(self, out: Tensor, a: Tensor, b: Tensor) -> None:
        """Add w · a_c · b_d to row b of ``out`` for every entry whose rows are stored."""
        entries = self.entries
        if not entries:
            return
        if len(entries) <= 6:
            for c, d, target, weight in entries:
                out[target].addcmul_(a[c], b[d], value=weight)
            return
        left, right, target_index, weights = self.on(out)
        terms = a.index_select(0, left) * b.index_select(0, right)
        if any(e[3] != 1.0 for e in entries):
            terms *= weights.view(-1, *[1] * (a.ndim - 1))
        out.index_add_(0, target_index, terms)


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
    def _groups(self) -> dict[tuple[int, int, int], _Group]:
        """The entries without the value, by the grades of (left, right, result)."""
        groups: dict[tuple[int, int, int], list[Entry]] = {}
        for c, d, b, w in self.table:
            if c and d:
                groups.setdefault((self.grades[c], self.grades[d], self.grades[b]), []).append(
                    (c, d, b, float(w))
                )
        return {key: _Group(tuple(entries)) for key, entries in groups.items()}

    @cached_property
    def _adjoints(self) -> dict[tuple[int, int, int], _Group]:
        """The entries of the adjoint product: cotangent row b and factor row c give row d."""
        return {
            key: _Group(tuple((c, b, d, w) for c, d, b, w in group.entries))
            for key, group in self._groups.items()
        }

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
        out = a.new_zeros((size, *a.shape[1:]))
        both_a, both_b = a[:size], b[:size]
        out[: len(both_b)] += both_b * a[0]
        out[1 : len(both_a)] += both_a[1:] * b[0]
        top_a, top_b = self.degree(a), self.degree(b)
        for (g, h, k), group in self._groups.items():
            if g <= top_a and h <= top_b and k <= degree:
                group.add_to(out, a, b)
        return out

    def correlate(self, s: Tensor, g: Tensor, degree: int) -> Tensor:
        """Return the adjoint of x ↦ s·x, for x of grade at most ``degree``, applied to g."""
        size = self.rows(degree)
        out = g.new_zeros((size, *g.shape[1:]))
        shared = g[:size]
        out[: len(shared)] += shared * s[0]
        count = min(len(s), len(g))
        out[0] += (s[1:count] * g[1:count]).sum(0)
        top_s, top_g = self.degree(s), self.degree(g)
        for (left, right, result), group in self._adjoints.items():
            if left <= top_s and result <= top_g and right <= degree:
                group.add_to(out, s, g)
        return out

    def product_grade(self, out: Tensor, a: Tensor, b: Tensor, k: int) -> None:
        """Write the rows of grade k of a product, from factors known up to grade k."""
        rows = self.grade_rows(k)
        if rows.start < len(b):
            out[rows] += b[rows] * a[0]
        if k and rows.start < len(a):
            out[rows] += a[rows] * b[0]
        top_a, top_b = self.degree(a), self.degree(b)
        for (g, h, result), group in self._groups.items():
            if result == k and g <= top_a and h <= top_b:
                group.add_to(out, a, b)
