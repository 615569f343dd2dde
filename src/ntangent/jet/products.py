"""Taylor rules of products: everything that is linear in each of several arguments.

One series among constants is one call on all rows, through an axis of the rows that torch carries
along; two are a truncated product; more are taken two at a time.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ntangent._base.errors import MissingRule, ShapeError
from ntangent.jet.dispatch import rule
from ntangent.jet.layers import add, bilinear
from ntangent.jet.series import Jet, multiply
from ntangent.jet.shapes import both, flatten, total


def apply_bilinear(operation: Callable[[Any, Any], Any], a: Any, b: Any) -> Jet:
    """Return a bilinear operation of two arguments of which at least one is a series."""
    if isinstance(a, Jet) and isinstance(b, Jet):
        return bilinear(operation, a, b)
    if isinstance(a, Jet):
        return a.map_rows(torch.func.vmap(lambda rows: operation(rows, b)))
    return b.map_rows(torch.func.vmap(lambda rows: operation(a, rows)))  # type: ignore[no-any-return]


def _bilinear_rule(function: Any) -> Callable[..., Jet]:
    def apply(input: Any, other: Any) -> Jet:
        return apply_bilinear(function, input, other)

    return apply


for _function in (torch.bmm, torch.mv, torch.outer, torch.inner):
    rule(*both(_function.__name__))(_bilinear_rule(_function))
rule(*both("ger"))(_bilinear_rule(torch.outer))


@rule(*both("dot", "vdot"))
def _dot(input: Any, other: Any) -> Jet:
    return apply_bilinear(torch.dot, input, other)


@rule(torch.tensordot)
def _tensordot(a: Any, b: Any, dims: Any = 2) -> Jet:
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    return apply_bilinear(lambda u, v: torch.tensordot(u, v, dims), a, b)


@rule(torch.linalg.cross)
def cross(input: Any, other: Any, *, dim: int = -1) -> Jet:
    """Return the vector product along an axis."""
    return apply_bilinear(lambda u, v: torch.linalg.cross(u, v, dim=dim), input, other)


@rule(*both("cross"))
def _cross(input: Any, other: Any, dim: int | None = None) -> Jet:
    if dim is None:
        raise MissingRule("no Taylor rule for torch.cross without dim", "torch guesses the axis", "dim=-1")
    return cross(input, other, dim=dim)


@rule(torch.linalg.vecdot)
def _vecdot(x: Any, y: Any, *, dim: int = -1) -> Jet:
    return total(torch.mul(x, y), dim)  # type: ignore[arg-type]


def scaled(value: Any, factor: Any) -> Any:
    """Return ``factor`` times a series or constant."""
    return value if isinstance(factor, int | float) and factor == 1 else value * factor


def _sum_of(input: Any, product: Any, beta: Any, alpha: Any) -> Jet:
    right = scaled(product, alpha)
    # As in torch, beta = 0 leaves the input out, infinities and all.
    if isinstance(beta, int | float) and beta == 0:
        return torch.zeros_like(input) + right  # type: ignore[no-any-return]
    return add(scaled(input, beta), right)


def _fused(product: Callable[[Any, Any], Any]) -> Callable[..., Jet]:
    def apply(input: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Jet:
        return _sum_of(input, product(a, b), beta, alpha)

    return apply


for _name, _product in (
    ("addmm", torch.matmul),
    ("addmv", torch.matmul),
    ("addr", torch.outer),
    ("baddbmm", torch.bmm),
    ("addbmm", lambda a, b: torch.bmm(a, b).sum(0)),
):
    rule(*both(_name))(_fused(_product))


@rule(*both("addcmul"))
def _addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Jet:
    return add(input, scaled(tensor1 * tensor2, value))


@rule(*both("addcdiv"))
def _addcdiv(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Jet:
    return add(input, scaled(tensor1 / tensor2, value))


@rule(*both("lerp"))
def _lerp(input: Any, end: Any, weight: Any) -> Jet:
    return add(input, (end - input) * weight)


@rule(torch.linalg.multi_dot)
def _multi_dot(tensors: Sequence[Any]) -> Jet:
    result = tensors[0]
    for factor in tensors[1:]:
        result = torch.matmul(result, factor)
    return result  # type: ignore[no-any-return]


@rule(F.bilinear)
def _bilinear_layer(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Jet:
    """Return x1ᵀ W_o x2 + b_o for every output o; weight (out, in1, in2)."""
    half = torch.einsum("...i,oij->...oj", input1, weight)
    result: Any = torch.einsum("...oj,...j->...o", half, input2)
    return result if bias is None else add(result, bias)


# --- einsum --------------------------------------------------------------------------------------


def _explicit(equation: str, operands: tuple[Any, ...]) -> tuple[list[str], str]:
    """Return the subscripts of the operands and the result, without ellipses, sorted out as torch does."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise ShapeError(f"{equation!r} names {len(terms)} operands, {len(operands)} were given", "", "")
    free = [c for c in string.ascii_letters if c not in equation]
    widths = [op.ndim - len(t.replace("...", "")) for t, op in zip(terms, operands, strict=True)]
    if any(width < 0 or (width and "..." not in t) for width, t in zip(widths, terms, strict=True)):
        raise ShapeError(
            f"{equation!r} does not fit the shapes {[tuple(op.shape) for op in operands]}", "", ""
        )
    dots = free[: max(widths)]
    plain = [t.replace("...", "".join(dots[len(dots) - w :])) for t, w in zip(terms, widths, strict=True)]
    if arrow:
        return plain, right.replace("...", "".join(dots))
    letters = "".join(terms).replace(".", "")
    once = sorted(c for c in set(letters) if letters.count(c) == 1)
    return plain, "".join(dots) + "".join(once)


@rule(torch.einsum)
def einsum(equation: Any, *operands: Any) -> Jet:
    """Return the sum of products of any number of series and constants.

    A single series is one ``einsum`` with one more subscript for the rows. Two or more are
    contracted from the left, two at a time, keeping the subscripts that are still needed.

    Raises:
        MissingRule: for the form with lists of numbers in place of the equation.
    """
    if not isinstance(equation, str):
        raise MissingRule(
            "no Taylor rule for einsum with lists of subscripts", "", 'torch.einsum("ij,jk->ik", a, b)'
        )
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    terms, target = _explicit(equation, operands)
    if sum(isinstance(op, Jet) for op in operands) <= 1:
        return _einsum_rows(terms, target, operands)
    current, subscripts = operands[0], terms[0]
    for k, (operand, term) in enumerate(zip(operands[1:], terms[1:], strict=True), 1):
        later = set("".join(terms[k + 1 :]) + target)
        both_terms = list(dict.fromkeys(subscripts + term))
        kept = target if k == len(operands) - 1 else "".join(c for c in both_terms if c in later)
        current = _einsum_pair([subscripts, term], kept, current, operand)
        subscripts = kept
    return current  # type: ignore[no-any-return]


def _einsum_pair(terms: list[str], target: str, a: Any, b: Any) -> Any:
    if isinstance(a, Jet) and isinstance(b, Jet):
        return bilinear(lambda u, v: torch.einsum(f"{terms[0]},{terms[1]}->{target}", u, v), a, b)
    if isinstance(a, Jet) or isinstance(b, Jet):
        return _einsum_rows(terms, target, (a, b))
    return torch.einsum(f"{terms[0]},{terms[1]}->{target}", a, b)


def _einsum_rows(terms: list[str], target: str, operands: tuple[Any, ...]) -> Jet:
    used = set("".join(terms) + target)
    row = next(c for c in string.ascii_letters if c not in used)
    series = next(op for op in operands if isinstance(op, Jet))
    lifted = [row + t if isinstance(op, Jet) else t for t, op in zip(terms, operands, strict=True)]
    values = [op.data if isinstance(op, Jet) else op for op in operands]
    data = torch.einsum(f"{','.join(lifted)}->{row}{target}", *values)
    return Jet(data, series.order, series.directions)


# --- products along an axis ----------------------------------------------------------------------


@rule(*both("prod"))
def _prod(
    input: Jet, dim: int | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Jet:
    """Return the product over an axis: a tree of truncated products, of depth log2 of its length."""
    series = input if dtype is None else input.to(dtype)
    if input.ndim == 0:
        return series
    if dim is None:
        series, dim = flatten(series), 0
    parts = list(torch.unbind(series, dim))  # type: ignore[arg-type]
    if not parts:
        return total(series, dim, keepdim) + 1
    while len(parts) > 1:
        pairs = [multiply(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)]  # type: ignore[arg-type]
        parts = [*pairs, *parts[2 * len(pairs) :]]  # type: ignore[list-item]
    return parts[0].unsqueeze(dim) if keepdim else parts[0]  # type: ignore[return-value]


@rule(*both("cumprod"))
def _cumprod(input: Jet, dim: int, *, dtype: torch.dtype | None = None) -> Jet:
    series = input if dtype is None else input.to(dtype)
    if input.ndim == 0:
        return series
    parts = list(torch.unbind(series, dim))  # type: ignore[arg-type]
    for i in range(1, len(parts)):
        parts[i] = multiply(parts[i - 1], parts[i])  # type: ignore[arg-type,call-overload]
    return torch.stack(parts, dim) if parts else series  # type: ignore[return-value]


@rule(F.cosine_similarity)
def _cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    # torch bounds each norm from below by eps; away from zero vectors the bound is not met.
    lengths = [torch.sqrt(torch.sum(x * x, dim)).clamp_min(eps) for x in (x1, x2)]
    return torch.sum(x1 * x2, dim) / (lengths[0] * lengths[1])


@rule(F.mse_loss)
def _mse_loss(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Any = None,
) -> Any:
    old = size_average is not None or reduce is not None
    if reduction not in ("mean", "sum", "none") or weight is not None or old:
        raise MissingRule(
            f"no Taylor rule for mse_loss(reduction={reduction!r}) or with a weight",
            "",
            "((u - y)**2).mean()",
        )
    square: Any = torch.square(input - target)
    if reduction == "none":
        return square
    return square.mean() if reduction == "mean" else square.sum()
