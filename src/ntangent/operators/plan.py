"""How to evaluate operators in one pass: along lines, or in the smallest algebra that holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_choice
from ntangent.jet import Jet
from ntangent.jet.algebra import Algebra
from ntangent.jet.execute import run_along
from ntangent.operators.constant import Constant
from ntangent.operators.directions import Direction, directional_plan
from ntangent.operators.inverse_system import InverseSystem, inverse_system
from ntangent.operators.symbol import Monomial, Symbol, degree, factorial

METHODS = ("auto", "algebra", "directions")
Key = tuple[tuple[Monomial, Fraction], ...]


@dataclass(frozen=True)
class Plan:
    """A way to evaluate several operators with constant coefficients in one pass.

    Args:
        dimension: of the space.
        method: "algebra" or "directions".
        rows: rows that each layer carries per point.
        reason: why this method.
        alternatives: rows of the other methods, by name.
        system: the inverse system of the operators.
        algebra: the same with its product table as numbers.
        vectors: the tangents with which the coordinates enter, (L, d).
        order: the highest order.
        outputs: (row, weight) of each operator.
    """

    dimension: int
    method: str
    rows: int
    reason: str
    alternatives: tuple[tuple[str, int], ...]
    system: InverseSystem
    algebra: Algebra
    vectors: Constant
    order: int
    outputs: tuple[tuple[tuple[int, float], ...], ...]

    def expand(self, f: Callable[[Any], Any], x: Tensor, backend: str = "auto") -> Jet:
        """Return the jet of a function at points, shape (N, d), of this plan's kind."""
        return run_along(f, x, self.vectors.like(x), self.order, self.structure, backend)

    @property
    def structure(self) -> int | Algebra:
        """What the rows are: derivatives along so many lines, or those of the algebra."""
        return self.algebra if self.method == "algebra" else max(1, len(self.vectors.rows))

    def results(self, u: Jet) -> list[Tensor]:
        """Return the value of every operator from the jet of the function, shape (N, out) each."""
        size = len(u.data)
        # Taking many rows one by one would give each a backward pass over all of them.
        rows = u.data.unbind(0) if len(self.outputs) > 1 else u.data
        values = []
        for weights in self.outputs:
            stored = [(b, w) for b, w in weights if b < size]
            if not stored:
                values.append(torch.zeros_like(u.data[0]))
            elif len(stored) == 1:
                ((b, w),) = stored
                values.append(rows[b].clone() if w == 1.0 else rows[b] * w)
            else:
                index = torch.tensor([b for b, _ in stored], device=u.device)
                scale = u.data.new_tensor([w for _, w in stored])
                values.append(torch.tensordot(scale, u.data.index_select(0, index), dims=1))
        return values

    def explain(self) -> str:
        """Say how many rows each layer carries, and why."""
        others = ", ".join(f"{name} {rows}" for name, rows in self.alternatives)
        return (
            f"{len(self.outputs)} operator(s) of order up to {self.order} in {self.dimension} dimension(s): "
            f"{self.rows} rows per point, by {self.method} ({self.reason}); in comparison: {others}"
        )


def make_plan(symbols: Sequence[Symbol], dimension: int, method: str = "auto") -> Plan:
    """Return the plan for operators given by their symbols; plans are cached.

    Args:
        symbols: polynomials in ξ.
        dimension: of the space.
        method: "algebra" carries the smallest inverse system, never more rows than any other way;
            "directions" carries Taylor coefficients along lines; "auto" takes the cheaper.

    Raises:
        UnknownNameError: if the method is unknown.
    """
    check_choice(method, METHODS, "method")
    return _cached(tuple(tuple(sorted(p.items())) for p in symbols), dimension, method)


@lru_cache(maxsize=256)
def _cached(keys: tuple[Key, ...], dimension: int, method: str) -> Plan:
    symbols = [dict(key) for key in keys]
    order = max((degree(m) for p in symbols for m in p), default=0)
    system = inverse_system(symbols)
    lines, combinations = directional_plan(symbols)
    directional_rows = 1 + order * len(lines)
    counts = (
        ("inverse system", len(system.pivots)),
        ("directional jets", directional_rows),
    )
    single = len(lines) <= 1
    chosen = method if method != "auto" else "directions" if single else "algebra"
    algebra = Algebra(system.grades, tuple((c, d, b, float(w)) for c, d, b, w in system.table))
    if chosen == "directions":
        ordered = tuple(sorted(lines))
        place = {line: i for i, line in enumerate(ordered)}
        outputs = tuple(_line_weights(terms, place) for terms in combinations)
        reason = "a single line: a plain Taylor series" if single else "as asked for"
        vectors = Constant(tuple(_vector(line, dimension) for line in ordered), dimension)
        return Plan(
            dimension, chosen, directional_rows, reason, counts, system, algebra, vectors, order, outputs
        )
    outputs = tuple(tuple((b, float(w)) for b, w in sorted(system.coordinates(p).items())) for p in symbols)
    reason = "the smallest set of Taylor functionals closed under products that contains the operators"
    linear = system.basis[1 : algebra.rows(min(1, order))]
    vectors = Constant(
        tuple(_vector([(m[0][0], c) for m, c in q.items()], dimension) for q in linear), dimension
    )
    return Plan(
        dimension, chosen, len(system.pivots), reason, counts, system, algebra, vectors, order, outputs
    )


def _vector(entries: Iterable[tuple[int, Fraction]], dimension: int) -> tuple[float, ...]:
    vector = [0.0] * dimension
    for i, c in entries:
        vector[i] = float(c)
    return tuple(vector)


def _line_weights(
    terms: list[tuple[Direction, int, Fraction]], place: dict[Direction, int]
) -> tuple[tuple[int, float], ...]:
    """Return (row, weight) of a combination of derivatives along lines, n! included."""
    weights = []
    for v, n, w in terms:
        row = 1 + (n - 1) * len(place) + place[v] if n else 0
        weights.append((row, float(w * factorial(((0, n),)) if n else w)))
    return tuple(weights)
