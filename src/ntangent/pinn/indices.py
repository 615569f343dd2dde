"""Which Taylor coefficients a field carries: down-closed sets of multi-indices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError
from ntangent.jet.algebra import Algebra
from ntangent.jet.arithmetic import Structure

MultiIndex = tuple[int, ...]
Rows = slice | tuple[int, ...]


class Indices:
    """A down-closed set S of multi-indices b: the rows ∂^b f / b! that a series holds, by grade |b|.

    Built by :func:`indices`, once for each set. Where the set is a line, or a star of lines of one
    length, its rows are those of plain series along these directions; else those of an algebra.

    Args:
        names: of the coordinates.
        members: the multi-indices, sorted by grade, the origin first.
    """

    def __init__(self, names: tuple[str, ...], members: tuple[MultiIndex, ...]) -> None:
        self.names, self.members = names, members
        self.place = {b: i for i, b in enumerate(members)}
        self.order = sum(members[-1])
        self.trivial = len(members) == 1
        self._shifts: dict[MultiIndex, tuple[Indices | None, Rows, tuple[float, ...]]] = {}
        self._meets: dict[Indices, Indices] = {}
        self._constants: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def __repr__(self) -> str:
        return f"Indices({self.names}, {self.members})"

    @cached_property
    def axes(self) -> tuple[int, ...]:
        """The coordinates in which there is a first derivative."""
        return tuple(next(i for i, n in enumerate(b) if n) for b in self.members if sum(b) == 1)

    @cached_property
    def directions(self) -> int | Algebra | None:
        """How a Jet names this structure."""
        if len(self.axes) <= 1:
            return None
        if len(self.members) == 1 + self.order * len(self.axes) and all(
            sum(n > 0 for n in b) == 1 for b in self.members[1:]
        ):
            return len(self.axes)
        table = tuple(
            (i, j, self.place[_add(c, d)], 1.0)
            for (i, c), (j, d) in itertools.product(enumerate(self.members), repeat=2)
            if _add(c, d) in self.place
        )
        return Algebra(tuple(sum(b) for b in self.members), table)

    @property
    def structure(self) -> Structure:
        """The same for row functions."""
        return self.directions or 1

    def shifted(self, by: MultiIndex) -> tuple[Indices | None, Rows, tuple[float, ...]]:
        """Return the set of a derivative, the rows it is read from and their factors.

        The set is None where the derivative is not in this one.
        """
        if by not in self._shifts:
            inside = [b for b in self.members if _add(b, by) in self.place]
            rows = tuple(self.place[_add(b, by)] for b in inside)
            factors = tuple(
                float(math.prod(math.perm(n + k, k) for n, k in zip(b, by, strict=True))) for b in inside
            )
            target = indices(self.names, inside) if inside else None
            self._shifts[by] = (target, _as_slice(rows), factors)
        return self._shifts[by]

    def meet(self, other: Indices) -> Indices:
        """Return the intersection with another set over the same coordinates."""
        if other is self:
            return self
        found = self._meets.get(other)
        if found is None:
            found = indices(self.names, [b for b in self.members if b in other.place])
            self._meets[other] = found
        return found

    def rows_of(self, smaller: Indices) -> Rows:
        """Return where the members of a smaller set stand in this one."""
        return _as_slice(tuple(self.place[b] for b in smaller.members))

    def factorials(self, like: Tensor) -> Tensor:
        """Return b! for every row, shape (rows, 1, 1)."""
        values = [float(math.prod(math.factorial(n) for n in b)) for b in self.members]
        return self.constant("factorials", values, like)

    def constant(self, name: str, values: Iterable[float], like: Tensor) -> Tensor:
        """Return numbers by name as a column, shape (n, 1, 1), made once for each dtype and device."""
        key = (name, like.dtype, like.device)
        if key not in self._constants:
            with torch.no_grad():
                tensor = torch.tensor(list(values), dtype=like.dtype, device=like.device)
            self._constants[key] = tensor.view(-1, 1, 1)
        return self._constants[key]

    def tangents(self, x: Tensor) -> Tensor:
        """Return the coordinates themselves as rows over this set, shape (1 + axes, N, d)."""
        if not self.axes:
            return x[None]
        unit = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)[list(self.axes)]
        return torch.cat([x[None], unit[:, None].expand(-1, *x.shape)])


def _add(a: MultiIndex, b: MultiIndex) -> MultiIndex:
    return tuple(i + j for i, j in zip(a, b, strict=True))


def _as_slice(rows: tuple[int, ...]) -> Rows:
    """Return rows as a slice where they are evenly spaced: a slice is a view and costs little."""
    if not rows:
        return slice(0, 0)
    step = rows[1] - rows[0] if len(rows) > 1 else 1
    if step > 0 and rows == tuple(range(rows[0], rows[-1] + 1, step)):
        return slice(rows[0], rows[-1] + 1, step)
    return rows


def take(data: Tensor, rows: Rows) -> Tensor:
    """Return the given rows that are stored; they come by grade, so those missing are the last."""
    if isinstance(rows, slice):
        return data[rows]
    stored = [r for r in rows if r < len(data)]
    return data[stored]


def indices(names: tuple[str, ...], members: Iterable[MultiIndex]) -> Indices:
    """Return the smallest down-closed set that contains some multi-indices.

    Args:
        names: of the coordinates.
        members: multi-indices, each as long as ``names``.
    """
    return _closed(names, frozenset(members))


@lru_cache(maxsize=4096)
def _closed(names: tuple[str, ...], members: frozenset[MultiIndex]) -> Indices:
    closed = {(0,) * len(names)}
    for b in members:
        if len(b) != len(names):
            raise ArgumentError(f"{b} is no multi-index in {names}", "one order for each coordinate", "")
        closed.update(itertools.product(*[range(n + 1) for n in b]))
    # Along the first coordinates first, as the directions of a plain series stand.
    ordered = tuple(sorted(closed, key=lambda b: (sum(b), tuple(-n for n in b))))
    if frozenset(ordered) != members:
        return _closed(names, frozenset(ordered))
    return Indices(names, ordered)


def up_to(dimension: int, order: int) -> list[MultiIndex]:
    """Return all multi-indices of total order at most ``order``, by order."""
    found = [b for b in itertools.product(range(order + 1), repeat=dimension) if sum(b) <= order]
    return sorted(found, key=lambda b: (sum(b), tuple(-n for n in b)))


def sums(a: Iterable[MultiIndex], b: Iterable[MultiIndex]) -> set[MultiIndex]:
    """Return all sums of a member of one set and a member of another."""
    return {_add(i, j) for i, j in itertools.product(a, b)}
