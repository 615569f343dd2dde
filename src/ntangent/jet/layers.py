"""Taylor rules of torch functions. A module needs no rule: its ``forward`` calls these.

Every combination of arguments is either implemented or refused with an error; none is ignored.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ntangent._base.check import under_transform
from ntangent._base.errors import ArgumentError, MissingRule
from ntangent.jet import activations as table
from ntangent.jet.activations import Activation
from ntangent.jet.arithmetic import common_shape, product_entries, row_count
from ntangent.jet.dispatch import RULES, rule
from ntangent.jet.flow import flow
from ntangent.jet.series import Jet, broadcast_rows, common, lift, multiply, padded

# --- activations -----------------------------------------------------------------------------


def activate(a: Jet, row: Activation) -> Jet:
    """Return the series of an activation of a jet."""
    if row is table.IDENTITY:
        return a
    rows = a.data.contiguous()
    return Jet(flow(rows, row, a.structure, a.order), a.order, a.directions)


class ActivationRule:
    """The rule of a torch function that is one row of the table, or one row per parameter value.

    Args:
        select: maps the arguments after the input to the row; it raises TypeError for an argument
            it does not know, so that none is ignored.
    """

    def __init__(self, select: Callable[..., Activation]) -> None:
        self.select = select

    def __call__(self, input: Jet, *args: Any, **kwargs: Any) -> Jet:
        """Return the series of the activation that the arguments select."""
        return activate(input, self.select(*args, **kwargs))


def activation_rule(select: Callable[..., Activation], *functions: Any) -> None:
    """Register torch functions as activations."""
    rule(*functions)(ActivationRule(select))


def _one(row: Activation) -> Callable[[], Activation]:
    def select(*, inplace: bool = False) -> Activation:
        return row

    return select


_PLAIN: dict[Activation, tuple[Any, ...]] = {
    table.TANH: (torch.tanh, torch.Tensor.tanh, F.tanh),
    table.SIGMOID: (torch.sigmoid, torch.Tensor.sigmoid, F.sigmoid, torch.special.expit),
    table.SIN: (torch.sin, torch.Tensor.sin),
    table.COS: (torch.cos, torch.Tensor.cos),
    table.TAN: (torch.tan, torch.Tensor.tan),
    table.ATAN: (torch.atan, torch.Tensor.atan, torch.arctan, torch.Tensor.arctan),
    table.SINH: (torch.sinh, torch.Tensor.sinh),
    table.COSH: (torch.cosh, torch.Tensor.cosh),
    table.ASINH: (torch.asinh, torch.Tensor.asinh, torch.arcsinh, torch.Tensor.arcsinh),
    table.EXP: (torch.exp, torch.Tensor.exp),
    table.EXPM1: (torch.expm1, torch.Tensor.expm1),
    table.LOG: (torch.log, torch.Tensor.log),
    table.LOG1P: (torch.log1p, torch.Tensor.log1p),
    table.SQRT: (torch.sqrt, torch.Tensor.sqrt),
    table.RSQRT: (torch.rsqrt, torch.Tensor.rsqrt),
    table.RECIPROCAL: (torch.reciprocal, torch.Tensor.reciprocal),
    table.SQUARE: (torch.square, torch.Tensor.square),
    table.ERF: (torch.erf, torch.Tensor.erf),
    table.ERFC: (torch.erfc, torch.Tensor.erfc),
    table.RELU: (torch.relu, torch.Tensor.relu, F.relu),
    table.RELU6: (F.relu6,),
    table.ABS: (torch.abs, torch.Tensor.abs),
    table.SILU: (F.silu,),
    table.MISH: (F.mish,),
    table.LOGSIGMOID: (F.logsigmoid,),
    table.TANHSHRINK: (F.tanhshrink,),
}
for _row, _functions in _PLAIN.items():
    activation_rule(_one(_row), *dict.fromkeys(_functions))


def _select_gelu(approximate: str = "none") -> Activation:
    rows = {"none": table.GELU, "tanh": table.GELU_TANH}
    if approximate not in rows:
        raise ArgumentError(f"gelu has no approximation {approximate!r}", "", 'gelu(x, approximate="tanh")')
    return rows[approximate]


def _select_leaky_relu(negative_slope: float = 0.01, inplace: bool = False) -> Activation:
    return table.leaky_relu(float(negative_slope))


def _select_elu(alpha: float = 1.0, inplace: bool = False) -> Activation:
    return table.elu(float(alpha))


def _select_selu(inplace: bool = False) -> Activation:
    return table.elu(table.SELU_ALPHA, table.SELU_SCALE)


def _select_softplus(beta: float = 1.0, threshold: float = 20.0) -> Activation:
    # The exact function: torch replaces it by x above the threshold, a jump of up to e^-threshold.
    return table.SOFTPLUS if beta == 1 else table.softplus(float(beta))


activation_rule(_select_gelu, F.gelu)
activation_rule(_select_leaky_relu, F.leaky_relu)
activation_rule(_select_elu, F.elu)
activation_rule(_select_selu, F.selu, torch.selu)
activation_rule(_select_softplus, F.softplus)


# --- arithmetic --------------------------------------------------------------------------------


def _is_scalar(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _jets(values: Sequence[Any]) -> list[Jet]:
    """Lift the constants among the arguments to series like the jets."""
    like = next(value for value in values if isinstance(value, Jet))
    return [value if isinstance(value, Jet) else lift(value, like) for value in values]


@rule(torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__)
def add(a: Any, b: Any, *, alpha: float = 1) -> Jet:
    """Return a + alpha·b; a constant touches order 0 only."""
    first, second = _jets([a, b])
    if alpha != 1:
        second = second.map_rows(lambda rows: rows * alpha)
    order, directions = common([first, second])
    shape = common_shape(first.shape, second.shape)
    left, right = (broadcast_rows(j.truncate(order).data, shape) for j in (first, second))
    if left.shape[0] < right.shape[0]:
        left, right = right, left
    shared = right.shape[0]
    total = left + right if shared == left.shape[0] else torch.cat([left[:shared] + right, left[shared:]])
    return Jet(total, order, directions)


@rule(torch.sub, torch.Tensor.sub, torch.Tensor.__sub__, torch.subtract, torch.Tensor.subtract)
def subtract(a: Any, b: Any, *, alpha: float = 1) -> Jet:
    """Return a - alpha·b."""
    return add(a, b, alpha=-alpha)


@rule(torch.Tensor.__rsub__, torch.rsub)
def _reverse_subtract(a: Any, b: Any, *, alpha: float = 1) -> Jet:
    return add(b, a, alpha=-alpha)


@rule(torch.mul, torch.Tensor.mul, torch.multiply, torch.Tensor.multiply)
@rule(torch.Tensor.__mul__, torch.Tensor.__rmul__)
def _multiply(a: Any, b: Any) -> Jet:
    if _is_scalar(b):
        return a.map_rows(lambda rows: rows * float(b))  # type: ignore[no-any-return]
    if _is_scalar(a):
        return b.map_rows(lambda rows: rows * float(a))  # type: ignore[no-any-return]
    return multiply(*_jets([a, b]))


@rule(torch.true_divide, torch.Tensor.true_divide, torch.divide, torch.Tensor.divide)
@rule(torch.div, torch.Tensor.div, torch.Tensor.__truediv__)
def _divide(a: Any, b: Any, *, rounding_mode: str | None = None) -> Jet:
    if rounding_mode is not None:
        raise MissingRule(
            f"no Taylor rule for div(rounding_mode={rounding_mode!r})", "a rounded quotient jumps", "a / b"
        )
    if isinstance(b, Jet):
        return _multiply(activate(b, table.RECIPROCAL), a)
    divisor = lift(b, a).value
    shape = torch.broadcast_shapes(a.shape, divisor.shape)
    return Jet(broadcast_rows(a.data, shape) / divisor, a.order, a.directions)


@rule(torch.Tensor.__rtruediv__)
def _reverse_divide(a: Any, b: Any) -> Jet:
    return _divide(b, a)


@rule(torch.neg, torch.Tensor.neg, torch.negative, torch.Tensor.negative)
def _negate(a: Jet) -> Jet:
    return -a


@rule(torch.pow, torch.Tensor.pow, torch.Tensor.__pow__)
def power(base: Any, exponent: Any) -> Jet:
    """Return base**exponent; a whole exponent is a polynomial, any other needs a positive base."""
    if isinstance(exponent, Jet):
        # The logarithm is torch's, so a base that has none becomes NaN as in torch.
        argument: Any = base if isinstance(base, Jet) else lift(base, exponent).value
        logarithm: Any = torch.log(argument)
        return activate(_multiply(exponent, logarithm), table.EXP)
    if not _is_scalar(exponent):
        return _tensor_power(base, torch.as_tensor(exponent, device=base.device))
    exponent = float(exponent)
    if exponent == 0.5:
        return activate(base, table.SQRT)
    if exponent.is_integer():
        return activate(base, table.power(int(exponent)))
    row = table.power(exponent)
    if exponent <= base.order:
        return activate(base, row)
    # At 0 all coefficients vanish that are asked for, and the recurrence divides by the base.
    zero = base.value == 0
    powers: Any = where(zero, 0.0, activate(where(zero, 1.0, base), row))
    return powers  # type: ignore[no-any-return]


def _tensor_power(base: Jet, exponent: Tensor) -> Jet:
    """Return base**exponent for a tensor of exponents: entry by entry where they are few and constant."""
    if exponent.requires_grad or under_transform(exponent):
        return activate(_multiply(activate(base, table.LOG), exponent), table.EXP)
    shape = torch.broadcast_shapes(base.shape, exponent.shape)
    total: Any = torch.zeros(shape, dtype=base.dtype, device=base.device)
    for value in exponent.unique().tolist():
        total = where(exponent == value, power(base, value), total)
    return total if isinstance(total, Jet) else lift(total, base)


@rule(torch.Tensor.__rpow__)
def _reverse_power(exponent: Any, base: Any) -> Jet:
    return power(base, exponent)


# --- linear maps ---------------------------------------------------------------------------------


@rule(F.linear)
def linear(input: Any, weight: Any, bias: Any = None) -> Jet:
    """Return input·weightᵀ + bias: one matrix product for all orders; the bias touches order 0 only."""
    if isinstance(weight, Jet) or isinstance(bias, Jet):
        total: Any = torch.matmul(input, weight if weight.ndim == 1 else weight.transpose(-1, -2))
        return add(total, 0 if bias is None else bias)
    rows = F.linear(input.data, weight)
    if bias is not None and under_transform(bias):
        rows = torch.cat([rows[:1] + bias, rows[1:]])  # a bias under vmap has an axis that rows may lack
    elif bias is not None:
        # The rows are fresh, so the bias can go in place.
        rows[0].add_(bias)
    tape = TAPE.get()
    if tape is not None:
        rows = tape.linear(weight, bias, input.data, rows)
    return Jet(rows, input.order, input.directions)


class Tape(Protocol):
    """Watches the layers that a function of jets passes through."""

    def linear(self, weight: Tensor, bias: Tensor | None, input: Tensor, output: Tensor) -> Tensor:
        """Take note of an affine map; return the output to go on with."""
        ...

    def dense(self, call: Any, output: Tensor) -> Tensor:
        """Take note of a whole dense network; return the output to go on with."""
        ...


# Set by `jet.jacobian`, which reads inputs and cotangents off the layers.
TAPE: ContextVar[Tape | None] = ContextVar("TAPE", default=None)


def linear_rule(*functions: Any, arguments: int = 1) -> None:
    """Register torch functions that are linear in their first ``arguments`` arguments jointly.

    Their other arguments must be constants. An argument that is a list of tensors counts as one.
    """
    for function in functions:
        rule(function)(_lift_linear(function, arguments))


def _has_jet(value: Any) -> bool:
    return isinstance(value, Jet) or (isinstance(value, list | tuple) and any(map(_has_jet, value)))


def _lift_linear(function: Any, count: int) -> Callable[..., Jet]:
    def apply(*args: Any, **kwargs: Any) -> Jet:
        heads, rest = list(args[:count]), args[count:]
        if not heads or any(_has_jet(value) for value in (*rest, *kwargs.values())):
            raise MissingRule(
                f"{getattr(function, '__name__', function)} got a series where it needs a constant",
                f"its rule covers series in the first {count} argument(s) only",
                "pass series positionally, constants as plain tensors",
            )
        listed = [isinstance(head, list | tuple) for head in heads]
        flat = [item for head, many in zip(heads, listed, strict=True) for item in (head if many else [head])]
        jets = _jets(flat)
        order, directions = common(jets)
        degree = min(order, max(jet.degree for jet in jets))
        rows = [padded(jet.truncate(order), min(degree, order)) for jet in jets]

        def on_row(*values: Tensor) -> Tensor:
            taken, arguments = 0, []
            for head, many in zip(heads, listed, strict=True):
                n = len(head) if many else 1
                arguments.append(list(values[taken : taken + n]) if many else values[taken])
                taken += n
            return function(*arguments, *rest, **kwargs)  # type: ignore[no-any-return]

        return Jet(torch.func.vmap(on_row)(*rows), order, directions)

    return apply


_index = _lift_linear(torch.Tensor.__getitem__, 1)


@rule(torch.Tensor.__getitem__)
def _getitem(input: Jet, index: Any) -> Jet:
    parts = index if isinstance(index, tuple) else (index,)
    advanced = sum(not (part is None or part is Ellipsis or isinstance(part, int | slice)) for part in parts)
    if advanced == 0 or (advanced == 1 and not any(isinstance(part, int) for part in parts)):
        return input.map_rows(lambda rows: rows[(slice(None), *parts)])
    # Several advanced indices move axes about; vmap keeps torch's own rule for where they go.
    return _index(input, index)


@rule(torch.where)
def where(condition: Any, a: Any, b: Any) -> Jet:
    """Return the series of ``a`` where the condition holds, else that of ``b``."""
    if isinstance(condition, Jet):
        raise MissingRule(
            "no Taylor rule for torch.where(series, ...)", "it needs a mask", "where(x > 0, a, b)"
        )
    first, second = _jets([a, b])
    order, directions = common([first, second])
    shape = torch.broadcast_shapes(condition.shape, first.shape, second.shape)
    degree = min(order, max(first.degree, second.degree))
    left, right = (broadcast_rows(padded(j, degree), shape) for j in (first, second))
    return Jet(torch.where(condition, left, right), order, directions)


@rule(torch.Tensor.where)
def _where_method(a: Any, condition: Tensor, b: Any) -> Jet:
    return where(condition, a, b)


@rule(torch.clone, torch.Tensor.clone, torch.Tensor.contiguous)
def _copy(input: Jet) -> Jet:
    return input.map_rows(torch.clone)


@rule(F.dropout)
def _dropout(input: Jet, p: float = 0.5, training: bool = True, inplace: bool = False) -> Jet:
    if training and p > 0:
        raise MissingRule(
            "dropout in training mode has no Taylor series",
            "each call would draw another mask, and derivatives of different functions would mix",
            "net.eval()",
        )
    return input


# --- bilinear maps ---------------------------------------------------------------------------------


@rule(torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.Tensor.mm)
def matmul(a: Any, b: Any) -> Jet:
    """Return the matrix product of series and constants."""
    if not isinstance(b, Jet):
        return a.map_rows(lambda rows: torch.func.vmap(lambda v: torch.matmul(v, b))(rows))  # type: ignore[no-any-return]
    if not isinstance(a, Jet):
        return b.map_rows(lambda rows: torch.func.vmap(lambda v: torch.matmul(a, v))(rows))
    return bilinear(torch.matmul, a, b)


@rule(torch.Tensor.__rmatmul__)
def _reverse_matmul(a: Any, b: Any) -> Jet:
    return matmul(b, a)


def bilinear(operation: Callable[[Tensor, Tensor], Tensor], a: Jet, b: Jet) -> Jet:
    """Return the truncated product of two series under any bilinear operation.

    Cost: one call of the operation for each entry of the product table, order²/2 along a line.
    """
    order, directions = common([a, b])
    degree = min(order, a.degree + b.degree)
    entries = product_entries(a.structure, degree)
    rows: list[Tensor | None] = [None] * row_count(a.structure, degree)
    for c, d, target, weight in entries:
        if c < len(a.data) and d < len(b.data):
            term = operation(a.data[c], b.data[d])
            term = term if weight == 1.0 else term * weight
            held = rows[target]
            rows[target] = term if held is None else held + term
    value = rows[0]
    assert value is not None
    return Jet(torch.stack([torch.zeros_like(value) if r is None else r for r in rows]), order, directions)


def rules() -> dict[Any, Callable[..., Any]]:
    """Return the table of Taylor rules, torch function -> rule."""
    return RULES
