"""Finite differences of any order, step and accuracy: exact weights, and their sums over a function."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_choice, check_finite, check_order, check_positive
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError

SCHEMES = ("central", "forward", "backward")
Powers = tuple[tuple[int, int], ...]  # (coordinate, power) pairs, sorted
Function = Callable[[Any], Any]


@lru_cache(maxsize=1024)
def weights(nodes: tuple[int, ...], order: int) -> tuple[Fraction, ...]:
    """Return the weights w with f^(order)(0) ≈ Σ w_k f(nodes_k), exact for polynomials up to degree.

    Fornberg (1988), Generation of finite difference formulas on arbitrarily spaced grids, in exact
    fractions.

    Args:
        nodes: different integers; the step is 1.
        order: of the derivative, below the number of nodes.
    """
    count = len(nodes)
    if len(set(nodes)) != count or order >= count:
        raise ArgumentError(
            f"{count} nodes {nodes} for a derivative of order {order}",
            "a derivative of order n needs n + 1 different nodes",
            f"nodes = tuple(range({order + 1}))",
        )
    table = [[Fraction(0)] * (order + 1) for _ in nodes]
    table[0][0] = Fraction(1)
    scale = Fraction(1)
    for i in range(1, count):
        product = Fraction(1)
        for j in range(i):
            gap = nodes[i] - nodes[j]
            product *= gap
            old = table[j].copy()
            if j == i - 1:
                for k in range(min(i, order), -1, -1):
                    lower = k * old[k - 1] if k else Fraction(0)
                    table[i][k] = scale * (lower - nodes[i - 1] * old[k]) / product
            for k in range(min(i, order), -1, -1):
                lower = k * old[k - 1] if k else Fraction(0)
                table[j][k] = (nodes[i] * old[k] - lower) / gap
        scale = product
    return tuple(row[order] for row in table)


@lru_cache(maxsize=1024)
def stencil(order: int, accuracy: int = 2, scheme: str = "central") -> dict[int, Fraction]:
    """Return offset -> weight of a derivative at step 1, without the offsets of weight 0.

    Args:
        order: of the derivative; 0 is the value itself.
        accuracy: power of the step in the error; even for the central scheme.
        scheme: "central", "forward" or "backward".
    """
    check_scheme(accuracy, scheme)
    if check_order(order) == 0:
        return {0: Fraction(1)}
    if scheme == "central":
        reach = (order + 1) // 2 + accuracy // 2 - 1
        nodes = tuple(range(-reach, reach + 1))
    else:
        nodes = tuple(range(order + accuracy))
        nodes = nodes if scheme == "forward" else tuple(-k for k in nodes)
    return {k: w for k, w in zip(nodes, weights(nodes, order), strict=True) if w}


def check_scheme(accuracy: int, scheme: str) -> None:
    """Raise unless there is a stencil of this accuracy."""
    check_choice(scheme, SCHEMES, "scheme")
    check_positive(accuracy, "accuracy", integer=True)
    if scheme == "central" and accuracy % 2:
        raise ArgumentError(
            f"a central stencil has no accuracy {accuracy}",
            "its error has even powers of the step only",
            f"accuracy={accuracy + 1}",
        )


@lru_cache(maxsize=1024)
def product_stencil(powers: Powers, accuracy: int, scheme: str) -> dict[Powers, Fraction]:
    """Return the tensor product of stencils for ∂^powers: offsets as (coordinate, steps) pairs -> weight."""
    axes = [[((i, k), w) for k, w in sorted(stencil(power, accuracy, scheme).items())] for i, power in powers]
    return {
        tuple(offset for offset, _ in combination if offset[1]): math.prod(
            (w for _, w in combination), start=Fraction(1)
        )
        for combination in itertools.product(*axes)
    }


def best_step(dtype: torch.dtype, order: int, accuracy: int) -> float:
    """Return eps^(1/(order + accuracy)), where truncation error h^accuracy meets round-off eps/h^order.

    It supposes a function that varies over lengths of about 1.
    """
    return float(torch.finfo(dtype).eps ** (1 / max(1, order + accuracy)))


@dataclass(frozen=True)
class Differences:
    """How derivatives are replaced by finite differences.

    Args:
        step: h, one number or one for each coordinate; None takes eps^(1/(order + accuracy)),
            where truncation and round-off balance for a function that varies over lengths of 1.
        accuracy: power of h in the truncation error; even for the central scheme.
        scheme: "central", "forward" or "backward".
    """

    step: float | tuple[float, ...] | None = None
    accuracy: int = 2
    scheme: str = "central"

    def __post_init__(self) -> None:
        check_scheme(self.accuracy, self.scheme)
        if isinstance(self.step, Sequence):
            object.__setattr__(self, "step", tuple(check_positive(h, "step") for h in self.step))
        elif self.step is not None:
            check_positive(self.step, "step")

    def steps(self, dimension: int, order: int, dtype: torch.dtype) -> tuple[float, ...]:
        """Return the step of each coordinate for derivatives up to an order."""
        if not isinstance(self.step, tuple):
            h = best_step(dtype, order, self.accuracy) if self.step is None else float(self.step)
            return (h,) * dimension
        if len(self.step) != dimension:
            raise ShapeError(
                f"{len(self.step)} steps in {dimension} dimensions",
                "each coordinate has one",
                f"step={self.step[0]}",
            )
        return self.step

    def apply(self, f: Function, x: Tensor, symbols: Sequence[Mapping[Powers, Fraction]]) -> list[Tensor]:
        """Return the finite-difference value of operators with constant coefficients.

        Args:
            f: maps (n, d) to (n, out), each row on its own.
            x: points, shape (N, d).
            symbols: one for each operator: {((coordinate, power), ...): coefficient}.

        Returns:
            One tensor of shape (N, out) per operator, differentiable in x and in what f contains.

        Cost:
            One evaluation of f at N times the number of different stencil points.
        """
        order = max((sum(p for _, p in m) for symbol in symbols for m in symbol), default=0)
        steps = self.steps(x.shape[1], order, x.dtype)
        stencils = self._stencils(symbols)
        place = {offset: k for k, offset in enumerate(dict.fromkeys(o for s in stencils.values() for o in s))}
        values = _at_offsets(f, x, list(place), steps)
        parts = {}
        for m, points in stencils.items():
            column = values.new_tensor([float(w) for w in points.values()])
            total = torch.tensordot(column, values[[place[o] for o in points]], 1)
            parts[m] = total / math.prod(steps[i] ** power for i, power in m) if m else total
        nothing = torch.zeros_like(values[0])
        return [sum((float(c) * parts[m] for m, c in symbol.items()), start=nothing) for symbol in symbols]

    def _stencils(self, symbols: Sequence[Mapping[Powers, Fraction]]) -> dict[Powers, dict[Powers, Fraction]]:
        monomials = dict.fromkeys(m for symbol in symbols for m in symbol) or {(): None}
        return {m: product_stencil(m, self.accuracy, self.scheme) for m in monomials}

    def points(self, symbols: Sequence[Mapping[Powers, Fraction]]) -> int:
        """Return the number of different stencil points of several operators."""
        return len({offset for s in self._stencils(symbols).values() for offset in s})

    def along(self, f: Function, x: Tensor, order: int, directions: Tensor) -> list[Tensor]:
        """Return the differences of order 0..order along lines x + t v.

        Args:
            f: maps (n, d) to (n, out), each row on its own.
            x: points, shape (N, d).
            order: highest order.
            directions: v, shape (D, d).

        Returns:
            The value, shape (N, out), then for each order a tensor of shape (D, N, out).
        """
        if isinstance(self.step, tuple):
            raise ArgumentError(
                "one step for each coordinate is given for derivatives along a line",
                "a line has one parameter",
                f"step={self.step[0]}",
            )
        h = self.steps(1, order, x.dtype)[0]
        stencils = [stencil(k, self.accuracy, self.scheme) for k in range(order + 1)]
        nodes = sorted({k for s in stencils[1:] for k in s} - {0})
        shifts = x.new_tensor(nodes).view(1, -1, 1, 1) * h * directions[:, None, None, :]
        count, reach = len(directions), len(nodes)
        all_points = torch.cat([x, (x + shifts).reshape(-1, x.shape[1])])
        values = check_rows(f(all_points), len(all_points))
        center, rest = values[: len(x)], values[len(x) :].reshape(count, reach, len(x), values.shape[1])
        found = [center]
        for k, points in enumerate(stencils[1:], start=1):
            total = center.expand(count, *center.shape) * float(points.get(0, 0))
            for node, w in points.items():
                if node:
                    total = total + float(w) * rest[:, nodes.index(node)]
            found.append(total / h**k)
        return found


def _at_offsets(f: Function, x: Tensor, offsets: Sequence[Powers], steps: Sequence[float]) -> Tensor:
    shifts = torch.zeros(len(offsets), 1, x.shape[1], dtype=torch.float64)
    for row, offset in enumerate(offsets):
        for i, k in offset:
            shifts[row, 0, i] = k * steps[i]
    points = (x + shifts.to(x)).reshape(-1, x.shape[1])
    values = check_rows(f(points), len(points))
    return values.reshape(len(offsets), len(x), values.shape[1])


def check_rows(values: Any, count: int) -> Tensor:
    """Return what a function gave if it is a tensor with one row for each point."""
    if not isinstance(values, Tensor):
        raise DtypeError(f"f returned {type(values).__name__}", "it must return a tensor", "f(x) -> Tensor")
    if values.ndim != 2 or len(values) != count:
        raise ShapeError(
            f"f maps {count} points to shape {tuple(values.shape)}", "it keeps the point axis", "(N, out)"
        )
    return check_finite(values, "f(x)")
