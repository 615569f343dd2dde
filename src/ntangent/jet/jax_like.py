"""``jet`` with the signature and the conventions of ``jax.experimental.jet.jet``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_finite
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError
from ntangent.jet.series import Jet, padded

Terms = Sequence[Any]


def jet(
    f: Callable[..., Any], primals: Sequence[Any], series: Sequence[Terms], factorial_scaled: bool = True
) -> tuple[Any, Any]:
    """Propagate truncated Taylor polynomials through a function of several arguments.

    ``primals_out, series_out = jet(f, (x,), ((x1, x2),))`` takes the curve with value x, first
    derivative x1 and second derivative x2 at t = 0, and returns value and derivatives of f along it.

    Args:
        f: function of tensors of any shape; it returns a tensor, or a tuple, list or dictionary of them.
        primals: one tensor or number per argument of f.
        series: for each argument its terms of order 1, 2, ..., each of the argument's shape; all
            arguments have the same number of terms, the order of the result.
        factorial_scaled: whether terms are derivatives (the default), or Taylor coefficients,
            derivatives over k!, which do not overflow at high order.

    Returns:
        ``f(*primals)`` and its series: a list of terms in the place of each tensor.

    Raises:
        ArgumentError, ShapeError, DtypeError: on arguments that cannot be used.
        MissingRule: if an operation of f has no Taylor rule.

    Cost:
        As for :func:`ntangent.jet.jet` with one direction.

    Example:
        >>> import math, torch
        >>> from ntangent.jet import jax_jet
        >>> _, (first, second) = jax_jet(torch.sin, (torch.tensor(0.0),), ((1.0, 0.0),))
        >>> float(first), float(second)
        (1.0, 0.0)
    """
    if not callable(f):
        raise DtypeError(f"f is {type(f).__name__}, not a function", "", "jax_jet(torch.sin, (x,), ((x1,),))")
    if len(primals) != len(series) or not len(primals):
        raise ArgumentError(
            f"{len(primals)} primals and {len(series)} series",
            "each argument of f has a value and a series",
            "jax_jet(f, (x, y), ((x1, x2), (y1, y2)))",
        )
    lengths = sorted({len(terms) for terms in series})
    if len(lengths) > 1:
        raise ArgumentError(
            f"the series have {lengths} terms",
            "all arguments are expanded to one order",
            "pad the shorter series with zeros",
        )
    order = lengths[0]
    like = next((p for p in primals if isinstance(p, Tensor)), torch.zeros(()))
    if not like.dtype.is_floating_point:
        raise DtypeError(f"a primal has dtype {like.dtype}", "series need floating numbers", "x.double()")
    arguments = [
        Jet(_rows(value, terms, factorial_scaled, like, i), order)
        for i, (value, terms) in enumerate(zip(primals, series, strict=True))
    ]
    return _unpack(f(*arguments), order, factorial_scaled)


def _rows(value: Any, terms: Terms, scaled: bool, like: Tensor, position: int) -> Tensor:
    rows: list[Tensor] = []
    for k, term in enumerate((value, *terms)):
        row = torch.as_tensor(term, device=like.device)
        row = row if isinstance(term, Tensor) else row.to(like.dtype)
        if row.dtype != like.dtype:
            raise DtypeError(
                f"term {k} of argument {position} has dtype {row.dtype}, the first primal {like.dtype}",
                "a silent cast would lose digits",
                f".to({like.dtype})",
            )
        if rows and row.shape != rows[0].shape:
            raise ShapeError(
                f"term {k} of argument {position} has shape {tuple(row.shape)}, "
                f"its value {tuple(rows[0].shape)}",
                "a curve stays in one space",
                "torch.zeros_like(x) for a term that vanishes",
            )
        check_finite(row, f"term {k} of argument {position}")
        rows.append(row / float(math.factorial(k)) if scaled and k > 1 else row)
    return torch.stack(rows)


def _unpack(y: Any, order: int, scaled: bool) -> tuple[Any, Any]:
    """Return values and series with the containers of ``y``."""
    if isinstance(y, dict):
        parts = {key: _unpack(item, order, scaled) for key, item in y.items()}
        return {key: part[0] for key, part in parts.items()}, {key: part[1] for key, part in parts.items()}
    if isinstance(y, tuple | list):
        pairs = [_unpack(item, order, scaled) for item in y]
        kind = list if isinstance(y, list) else tuple
        return kind(pair[0] for pair in pairs), kind(pair[1] for pair in pairs)
    if isinstance(y, Tensor):
        return y, [torch.zeros_like(y) for _ in range(order)]
    if not isinstance(y, Jet):
        raise DtypeError(f"f returned {type(y).__name__}", "it must return tensors", "lambda x: f(x)[0]")
    rows = padded(y, order)
    if scaled:
        return rows[0], [
            rows[k] * float(math.factorial(k)) if k > 1 else rows[k] for k in range(1, order + 1)
        ]
    return rows[0], list(rows[1:].unbind(0))


jax_jet = jet
