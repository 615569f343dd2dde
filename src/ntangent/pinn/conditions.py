"""What a solution must satisfy besides its equation: a condition is one row of residuals per point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ntangent._base.check import check_finite, check_order, check_positive
from ntangent._base.errors import ArgumentError, DtypeError, ProblemError, ShapeError
from ntangent.jet import Jet
from ntangent.pinn.domain import Box
from ntangent.pinn.field import Field, Parameters

Equation = Callable[[Field, Parameters, Jet], Jet]


@dataclass(frozen=True)
class Block:
    """Residual rows that share their points.

    Args:
        name: label in metrics and reports.
        points: shape (N, 1).
        order: order of the field's series that the rows need.
        rows: maps the field, the parameters and the coordinate to residuals, shape (C, N).
        weights: weight of the mean square of each row, shape (C,).
        at: maps other points to the block there, where the rows belong to collocation points; None
            where the points are part of the condition.
    """

    name: str
    points: Tensor
    order: int
    rows: Callable[[Field, Parameters, Field], Tensor]
    weights: Tensor
    at: Callable[[Tensor], Block] | None = None


@runtime_checkable
class Condition(Protocol):
    """Anything that contributes residual rows."""

    def blocks(self, problem: Any, dtype: torch.dtype, device: torch.device) -> list[Block]:
        """Return the blocks of residual rows."""
        ...


def column(points: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return numbers or a tensor as finite points of shape (N, 1)."""
    tensor = _numbers(points, "points", dtype, device)
    if tensor.ndim > 2 or (tensor.ndim == 2 and tensor.shape[1] != 1):
        raise ShapeError(
            f"points have shape {tuple(tensor.shape)}", "one coordinate is expected", "points[:, :1]"
        )
    return tensor.reshape(-1, 1)


def points_in(points: Any, problem: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the points of a condition, shape (N, 1), if there are any and all lie where the field is.

    That is the domain, or the larger extent to which a symmetry of the ansatz carries the field.
    """
    box = problem.extent or problem.domain
    name = box.names[0]
    for x in column(points, torch.float64, torch.device("cpu"))[:, 0].tolist():
        if not box.holds(name, x):
            low, high = box.interval(name)
            raise ProblemError(
                f"the condition at {name} = {x} lies outside {box}",
                "the field is not determined there",
                f"points between {low} and {high}",
            )
    tensor = column(points, dtype, device)
    if len(tensor) == 0:
        raise ShapeError("a condition has no points", "it would contribute nothing", "points=[0.0]")
    return tensor


def evaluate(value: Any, points: Tensor) -> Tensor:
    """Return a prescribed value (number, tensor or function of the points), shape (N,)."""
    result = value(points) if callable(value) else value
    tensor = _numbers(result, "value", points.dtype, points.device)
    shape = tuple(tensor.shape)
    if tensor.numel() != 1 and shape not in ((len(points),), (len(points), 1)):
        raise ShapeError(
            f"the prescribed value has shape {shape} at {len(points)} point(s)",
            "it is one number, or one for each point",
            "value=0.0",
        )
    return tensor.reshape(-1).expand(len(points))


def _numbers(value: Any, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return real finite numbers as a tensor outside any graph."""
    try:
        tensor = torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else dtype, device=device)
        if tensor.is_complex():
            raise TypeError
    except (TypeError, ValueError, RuntimeError):
        raise DtypeError(
            f"{name} must be one or several numbers, got {value!r}", "", "numbers or a tensor of them"
        ) from None
    return check_finite(tensor.detach().to(dtype), name)


def at_coordinate(coordinates: dict[str, Any], domain: Box) -> Any:
    """Return the points of ``Dirichlet(x=2)``: the value given to the domain's coordinate."""
    if set(coordinates) != set(domain.names):
        given = ", ".join(coordinates) or "none"
        raise ProblemError(
            f"the condition names the coordinate(s) {given}, the domain has {', '.join(domain.names)}",
            "a condition says where it holds by the domain's own names",
            f"Dirichlet({domain.names[0]}={domain.intervals[0][1]}, value=0.0)",
        )
    return coordinates[domain.names[0]]


class _Prescribed:
    """A derivative of the field takes a value at points: the common part of the conditions below.

    Args:
        value: number, tensor of one value per point, or function of the points.
        weight: weight of the mean square.
        coordinates: the points, under the coordinate's name.
    """

    derivative = 0

    def __init__(self, value: Any = 0.0, weight: float = 1.0, **coordinates: Any) -> None:
        self.value, self.coordinates = value, coordinates
        self.weight = float(check_positive(weight, "weight"))

    def __repr__(self) -> str:
        where = ", ".join(f"{n}={v!r}" for n, v in self.coordinates.items())
        return f"{type(self).__name__}({where}, value={_described(self.value)}, weight={self.weight!r})"

    def blocks(self, problem: Any, dtype: torch.dtype, device: torch.device) -> list[Block]:
        """Return one block of one row."""
        points = points_in(at_coordinate(self.coordinates, problem.domain), problem, dtype, device)
        return [prescribed(type(self).__name__.lower(), points, self.derivative, self.value, self.weight)]


def _described(value: Any) -> str:
    return getattr(value, "__qualname__", None) or repr(value)


def prescribed(name: str, points: Tensor, derivative: int, value: Any, weight: float) -> Block:
    """Return the block of d^k u/dx^k = value at points."""
    target = evaluate(value, points)

    def rows(u: Field, _p: Parameters, _x: Field) -> Tensor:
        return (per_point(u.derivative(derivative), points, "the field") - target)[None]

    return Block(name, points, derivative, rows, points.new_tensor([weight]))


class Dirichlet(_Prescribed):
    """The field takes a value: ``Dirichlet(x=(-1, 1), value=0)``."""


class Neumann(_Prescribed):
    """The first derivative of the field takes a value: ``Neumann(x=1, value=0)``.

    In one dimension it is du/dx itself at either end, not the outward derivative.
    """

    derivative = 1


@dataclass(frozen=True)
class Initial:
    """Value and derivatives of the field at the lower end of the coordinate.

    Args:
        values: u, u', u'', ... at the initial point.
        weight: weight of each square.
    """

    values: Sequence[float] | float
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self.weight, "weight")

    def blocks(self, problem: Any, dtype: torch.dtype, device: torch.device) -> list[Block]:
        """Return one block with a row for each prescribed derivative."""
        _, low, _ = problem.domain.intervals[0]
        points = column(low, dtype, device)
        target = _numbers(self.values, "values", dtype, device).reshape(-1, 1)
        count = len(target)
        if count == 0:
            raise ShapeError("Initial has no values", "it would contribute nothing", "Initial((1.0, 0.0))")

        def rows(u: Field, _p: Parameters, _x: Field) -> Tensor:
            values = [per_point(u.derivative(k), points, "the field") for k in range(count)]
            return torch.stack(values) - target

        return [Block("initial", points, count - 1, rows, points.new_full((count,), self.weight))]


@dataclass(frozen=True)
class PointData:
    """Measured values of the field.

    Args:
        points: where, N numbers.
        values: what was measured there, N numbers.
        weight: weight of the mean square.
    """

    points: Any
    values: Any
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self.weight, "weight")

    def blocks(self, problem: Any, dtype: torch.dtype, device: torch.device) -> list[Block]:
        """Return one block of one row."""
        points = points_in(self.points, problem, dtype, device)
        values = _numbers(self.values, "values", dtype, device).reshape(-1)
        if len(values) != len(points):
            raise ShapeError(
                f"{len(points)} points and {len(values)} values",
                "each point has one measured value",
                "values[:len(points)]",
            )
        return [prescribed("data", points, 0, values, self.weight)]


@dataclass(frozen=True)
class TaylorResidual:
    """Taylor coefficients R_j = R^(j)/j! of the equation's residual vanish at chosen points.

    They say that the solution is smooth there. Coefficients, not derivatives: the raw R^(9) of a
    profile is 9! times larger, 1e11 in the loss, and no optimiser recovers from that.

    Args:
        points: where, N numbers.
        orders: the orders j, for example ``range(0, 4)``.
        weight: weight of each mean square.
        equation: index of the equation.
    """

    points: Any
    orders: Sequence[int]
    weight: float = 1.0
    equation: int = 0

    def __post_init__(self) -> None:
        check_positive(self.weight, "weight")
        if not isinstance(self.orders, Sequence):
            raise DtypeError(f"orders is {self.orders!r}", "it lists the orders", "orders=range(4)")
        if len(self.orders) == 0:
            raise ArgumentError(
                "TaylorResidual needs at least one order", "it would contribute nothing", "orders=range(4)"
            )
        for order in self.orders:
            check_order(order, "orders")

    def blocks(self, problem: Any, dtype: torch.dtype, device: torch.device) -> list[Block]:
        """Return one block with a row for each order."""
        points, orders = points_in(self.points, problem, dtype, device), list(self.orders)
        equation, need = problem.equation(self.equation)

        def rows(u: Field, p: Parameters, x: Field) -> Tensor:
            residual = series_of(equation(u, p, x))
            return torch.stack([per_point(residual.coefficient(j), points, what) for j in orders])

        what, name = f"the residual of equation {self.equation}", f"taylor[{self.equation}]"
        return [Block(name, points, need + max(orders), rows, points.new_full((len(orders),), self.weight))]


def residual_block(
    name: str, equation: Equation, need: int, points: Tensor, weight: float, sobolev: Sequence[float]
) -> Block:
    """Return the block of an equation at collocation points, with its derivatives for a Sobolev loss.

    Args:
        name: label.
        equation: the residual as a function of field, parameters and coordinate.
        need: highest derivative of the field in it.
        points: shape (N, 1).
        weight: weight of the mean square of the residual.
        sobolev: weights of the mean squares of its derivatives of order 1, 2, ...
    """

    def rows(u: Field, p: Parameters, x: Field) -> Tensor:
        residual = series_of(equation(u, p, x))
        derivatives = [residual.derivative(k) for k in range(len(sobolev) + 1)]
        return torch.stack([per_point(d, points, f"the residual of {name}") for d in derivatives])

    weights = points.new_tensor([weight, *[weight * w for w in sobolev]])

    def at(other: Tensor) -> Block:
        return residual_block(name, equation, need, other, weight, sobolev)

    return Block(name, points, need + len(sobolev), rows, weights, at)


def per_point(values: Tensor, points: Tensor, what: str) -> Tensor:
    """Return one number per point, shape (N,)."""
    if values.shape not in ((len(points), 1), (len(points),)):
        raise ShapeError(
            f"{what} has shape {tuple(values.shape)} at {len(points)} point(s)",
            "it must be one number for each point: shape (N, 1)",
            "one equation for each component; a network with one output",
        )
    return values.reshape(len(points))


def series_of(residual: Any) -> Jet:
    """Return an equation's result if it is a series, else say what went wrong."""
    if isinstance(residual, Jet):
        return residual
    raise DtypeError(
        f"the equation returned {type(residual).__name__}, not a series",
        "a residual must be computed from the field u, its derivatives and the coordinates",
        "lambda u, p: u.xx + u",
    )
