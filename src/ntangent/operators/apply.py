"""Operators applied to functions: one pass for all that are asked for together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ntangent._base.check import check_choice, check_order, check_points, check_positive
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError
from ntangent._base.stencil import Differences
from ntangent.jet.api import check_network
from ntangent.jet.execute import EXECUTORS, native_network
from ntangent.jet.reference import check_output
from ntangent.operators.collapsed import SumPlan, sum_plan
from ntangent.operators.memory import points_per_chunk
from ntangent.operators.operator import Operator
from ntangent.operators.plan import Plan, make_plan
from ntangent.operators.symbol import Symbol

Function = Callable[[Any], Any]
# How many times the rows of the smallest algebra the compiled kernels may carry along lines and still be
# ahead: their recurrences along lines are unrolled, those of an algebra follow its table (measured on
# dense networks of width 20 and 64, training).
NATIVE_GAIN = 1.5


def evaluate(
    f: Function,
    x: Tensor,
    operators: Sequence[Operator],
    *,
    method: str | Differences = "auto",
    backend: str = "auto",
    chunk: int | None = None,
    memory: int | None = None,
) -> list[Tensor]:
    """Apply several operators to a function in one pass that shares all of their work.

    Args:
        f: maps (N, d) to (N, out); made of operations with Taylor rules.
        x: points, shape (N, d).
        operators: operators in d dimensions; each acts on every output.
        method: "auto", "algebra" or "directions", see :func:`ntangent.operators.make_plan`; or
            :class:`ntangent.fd.Differences`, for finite differences instead.
        backend: "auto", "native" or "eager", see :func:`ntangent.jet`; finite differences have none.
        chunk: evaluate this many points at a time; bounds the memory, the result is the same.
        memory: instead of ``chunk``, a budget in bytes from which it is estimated, see
            :func:`ntangent.operators.points_per_chunk`.

    Returns:
        One tensor of shape (N, out) per operator.

    Raises:
        ShapeError, DtypeError, NonFiniteError: on arguments that cannot be used.
        MissingRule: if an operation of f has no Taylor rule.

    Cost:
        One pass with ``make_plan(...).rows`` rows per point.
    """
    x = check_points(x)
    check_network(f, x)
    check_choice(backend, EXECUTORS, "backend")
    for operator in operators:
        if operator.dimension != x.shape[1]:
            raise ShapeError(
                f"an operator in {operator.dimension} dimensions is applied at points in {x.shape[1]}",
                "each coordinate has one order in its multi-indices",
                f"Operator.laplacian({x.shape[1]})",
            )
    prepared: _Prepared | _Differenced
    if isinstance(method, Differences):
        prepared = _Differenced(method, tuple(operators))
    else:
        prepared = _prepare(tuple(operators), x.shape[1], method)
    if memory is not None:
        if chunk is not None:
            raise ArgumentError(
                "both chunk and memory are given", "one says how large a part is", "memory=2**30"
            )
        chunk = points_per_chunk(f, x, prepared.rows, memory)
    if chunk is not None and len(x) > check_positive(chunk, "chunk", integer=True):
        chunks = [evaluate(f, part, operators, method=method, backend=backend) for part in x.split(chunk)]
        return [torch.cat(column) for column in zip(*chunks, strict=True)]
    values = iter(prepared.values(f, x, backend) if operators else [])
    results = []
    for operator in operators:
        parts = [_weighted(term.factor, next(values), x) for term in operator.terms] or [next(values)]
        results.append(sum(parts[1:], start=parts[0]))
    return results


def _weighted(factor: Callable[[Tensor], Tensor] | None, value: Tensor, x: Tensor) -> Tensor:
    if factor is None:
        return value
    coefficient = torch.as_tensor(factor(x), dtype=x.dtype, device=x.device)
    if coefficient.numel() not in (1, len(x)):
        raise ShapeError(
            f"a coefficient function maps {tuple(x.shape)} to {tuple(coefficient.shape)}",
            "it gives one number per point",
            "lambda x: x[:, 0] ** 2",
        )
    return value * coefficient.reshape(-1, 1)


@dataclass(frozen=True)
class _Prepared:
    """The ways to evaluate a list of operators, found once.

    Args:
        plan: what serves any function.
        lines: the plan along lines, for the compiled kernels; None where it carries too many rows.
        sums: for a single homogeneous operator, the plan that sums its highest derivatives.
    """

    plan: Plan
    lines: Plan | None
    sums: SumPlan | None

    @property
    def rows(self) -> int:
        """How many numbers a neuron carries per point."""
        return self.plan.rows

    def values(self, f: Function, x: Tensor, backend: str) -> list[Tensor]:
        """Return the value of every symbol, shape (N, out) each."""
        plan = self.plan
        if backend != "eager" and (self.lines or self.sums):
            net, _ = native_network(f, x, 1, plan.order)
            if net is not None and self.sums is not None:
                return [self.sums.value(net, x)]
            if net is not None and self.lines is not None:
                plan = self.lines
        u = plan.expand(f, x, backend)
        check_output(u, x)
        return plan.results(u)


@dataclass(frozen=True)
class _Differenced:
    """The twin of ``_Prepared`` that takes finite differences."""

    differences: Differences
    operators: tuple[Operator, ...]

    @property
    def symbols(self) -> list[Symbol]:
        """The symbols of all operators; the operator without terms asks for 0."""
        return [symbol for operator in self.operators for symbol in operator.symbols or [{}]]

    @property
    def rows(self) -> int:
        """The number of stencil points."""
        return self.differences.points(self.symbols)

    def values(self, f: Function, x: Tensor, _backend: str) -> list[Tensor]:
        """Return the value of every symbol, shape (N, out) each."""
        return self.differences.apply(f, x, self.symbols)


@lru_cache(maxsize=256)
def _prepare(operators: tuple[Operator, ...], dimension: int, method: str) -> _Prepared:
    # The operator without terms asks for 0, which has the shape of the function's value.
    symbols = [symbol for operator in operators for symbol in operator.symbols or [{}]]
    plan = make_plan(symbols, dimension, method)
    if method != "auto" or plan.order == 0:
        return _Prepared(plan, None, None)
    bound = NATIVE_GAIN * plan.rows
    lines = make_plan(symbols, dimension, "directions")
    sums = sum_plan(symbols[0], dimension) if len(symbols) == 1 else None
    return _Prepared(
        plan,
        lines if lines.rows <= bound else None,
        sums if sums is not None and sums.rows <= bound else None,
    )


def apply(operator: Operator, f: Function, x: Tensor, **options: Any) -> Tensor:
    """Apply one operator to a function, shape (N, out); options as for :func:`evaluate`."""
    return evaluate(f, x, [operator], **options)[0]


def partial(f: Function, x: Tensor, index: Sequence[int], **options: Any) -> Float[Tensor, "point out"]:
    """Return the partial derivative ∂^index f, ``partial(f, x, (2, 1))`` for u_xxy."""
    if not isinstance(index, Iterable):
        raise DtypeError(
            f"the multi-index is {index!r}",
            "it has one order for each coordinate",
            f"partial(f, x, {(1,) * check_points(x).shape[1]})",
        )
    return apply(Operator.partial(*index), f, x, **options)


def laplacian(f: Function, x: Tensor, weights: Any = None, **options: Any) -> Float[Tensor, "point out"]:
    """Return Σ_i w_i ∂²f/∂x_i², shape (N, out), with 2 + d rows per point (the forward Laplacian)."""
    return apply(Operator.laplacian(check_points(x).shape[1], weights), f, x, **options)


def biharmonic(f: Function, x: Tensor, **options: Any) -> Float[Tensor, "point out"]:
    """Return ΔΔf, shape (N, out), with 2 + 2d + d(d+1)/2 rows per point."""
    return apply(Operator.biharmonic(check_points(x).shape[1]), f, x, **options)


def polyharmonic(f: Function, x: Tensor, power: int, **options: Any) -> Float[Tensor, "point out"]:
    """Return Δ^power f, shape (N, out)."""
    return apply(Operator.polyharmonic(check_points(x).shape[1], power), f, x, **options)


@lru_cache(maxsize=4096)
def _unit(d: int, *coordinates: int) -> Operator:
    index = [0] * d
    for i in coordinates:
        index[i] += 1
    return Operator({tuple(index): Fraction(1)})


def jacobian(f: Function, x: Tensor, **options: Any) -> Float[Tensor, "point out dimension"]:
    """Return ∂f_o/∂x_i, shape (N, out, d)."""
    d = check_points(x).shape[1]
    return torch.stack(evaluate(f, x, [_unit(d, i) for i in range(d)], **options), -1)


def gradient(f: Function, x: Tensor, **options: Any) -> Float[Tensor, "point dimension"]:
    """Return the gradient of a scalar field, shape (N, d); see :func:`jacobian` for vector fields."""
    return _scalar(jacobian(f, x, **options), "gradient", "jacobian(f, x)")


def hessian(f: Function, x: Tensor, **options: Any) -> Float[Tensor, "point dimension dimension"]:
    """Return the Hessian of a scalar field, shape (N, d, d), with 1 + d + d(d+1)/2 rows per point."""
    d = check_points(x).shape[1]
    pairs = [(i, j) for i in range(d) for j in range(i + 1)]
    values = evaluate(f, x, [_unit(d, i, j) for i, j in pairs], **options)
    place = {pair: k for k, pair in enumerate(pairs)}
    stacked = _scalar(torch.stack(values, -1), "hessian", "hessian(lambda x: f(x)[:, :1], x)")
    order = [place[max(i, j), min(i, j)] for i in range(d) for j in range(d)]
    return stacked[:, order].reshape(len(x), d, d)


def _scalar(values: Tensor, name: str, fix: str) -> Tensor:
    if values.shape[1] != 1:
        raise ShapeError(
            f"the {name} of a field with {values.shape[1]} outputs was asked for",
            "it is that of a scalar field",
            fix,
        )
    return values[:, 0]


def divergence(f: Function, x: Tensor, **options: Any) -> Float[Tensor, "point one"]:
    """Return Σ_i ∂f_i/∂x_i of a vector field with d outputs, shape (N, 1)."""
    d = check_points(x).shape[1]
    full = jacobian(f, x, **options)
    if full.shape[1] != d:
        raise ShapeError(
            f"a field with {full.shape[1]} outputs has no divergence in {d} dimensions",
            "",
            f"f with {d} outputs",
        )
    return torch.diagonal(full, dim1=1, dim2=2).sum(-1, keepdim=True)


def curl(f: Function, x: Tensor, **options: Any) -> Float[Tensor, "point component"]:
    """Return the curl: shape (N, 3) in three dimensions, (N, 1) in two (∂f_y/∂x - ∂f_x/∂y)."""
    d = check_points(x).shape[1]
    full = jacobian(f, x, **options)
    if d not in (2, 3) or full.shape[1] != d:
        raise ShapeError(
            f"a field with {full.shape[1]} outputs in {d} dimensions has no curl",
            "",
            "2 or 3 dimensions and outputs",
        )
    if d == 2:
        return (full[:, 1, 0] - full[:, 0, 1])[:, None]
    return torch.stack([full[:, k, j] - full[:, j, k] for j, k in ((1, 2), (2, 0), (0, 1))], -1)


def material_derivative(
    f: Function, x: Tensor, velocity: Function | Tensor, time: int = -1, **options: Any
) -> Float[Tensor, "point out"]:
    """Return ∂f/∂t + v·∇f.

    Args:
        f: maps (N, d) to (N, out); one of the d coordinates is time.
        x: points, shape (N, d).
        velocity: v at the points, shape (N, d - 1) in the order of the other coordinates, or a
            function of the points.
        time: index of the time coordinate.
        options: as for :func:`evaluate`.
    """
    d = check_points(x).shape[1]
    v = velocity(x) if callable(velocity) else velocity
    if not isinstance(v, Tensor) or tuple(v.shape) != (len(x), d - 1):
        raise ShapeError(
            f"the velocity must have shape ({len(x)}, {d - 1})",
            "it has one component per space coordinate",
            "v[:, :d-1]",
        )
    full = jacobian(f, x, **options)
    t = range(d)[time]
    space = [i for i in range(d) if i != t]
    return full[..., t] + (full[..., space] * v[:, None, :]).sum(-1)


def taylor_polynomial(f: Function, x: Tensor, order: int, **options: Any) -> dict[tuple[int, ...], Tensor]:
    """Return all partial derivatives of total order up to ``order``, by multi-index."""
    d = check_points(x).shape[1]
    indices = [index for n in range(check_order(order) + 1) for index in _indices(d, n)]
    values = evaluate(f, x, [Operator.partial(*index) for index in indices], **options)
    return dict(zip(indices, values, strict=True))


def _indices(d: int, n: int) -> list[tuple[int, ...]]:
    if d == 1:
        return [(n,)]
    return [(k, *rest) for k in range(n, -1, -1) for rest in _indices(d - 1, n - k)]
