"""Argument checks with one wording; each returns the value it checked."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError, DtypeError, NonFiniteError, ShapeError, UnknownNameError
from ntangent._base.registry import nearest_names

FLOATS = (torch.float32, torch.float64)


def check_order(order: Any, name: str = "order") -> int:
    """Return ``order`` as an int if it is a non-negative integer."""
    try:
        if isinstance(order, bool):
            raise TypeError
        value = operator.index(order)
    except TypeError:
        raise DtypeError(
            f"{name} must be a non-negative integer, got {order!r}",
            "a Taylor series is truncated after a whole number of terms" if "order" in name else "it counts",
            f"{name}=2",
        ) from None
    if value < 0:
        raise ArgumentError(
            f"{name} must be a non-negative integer, got {value}",
            "there is no derivative of negative order" if "order" in name else "it counts",
            f"{name}={-value}",
        )
    return value


def check_positive(value: Any, name: str, *, integer: bool = False) -> Any:
    """Return ``value`` if it is a finite positive number (an integer when asked)."""
    if integer:
        if check_order(value, name) == 0:
            raise ArgumentError(f"{name} must be at least 1, got 0", "nothing would be done", f"{name}=1")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DtypeError(f"{name} must be a number, got {value!r}", "", f"{name}=1.0")
    if not (math.isfinite(value) and value > 0):
        raise ArgumentError(f"{name} must be finite and positive, got {value!r}", "", f"{name}=1.0")
    return value


def check_points(x: Any, name: str = "x") -> Tensor:
    """Return ``x`` if it is a finite floating tensor of shape (points, dimension)."""
    if not isinstance(x, Tensor):
        raise DtypeError(
            f"{name} must be a torch.Tensor, got {type(x).__name__}", "", f"torch.as_tensor({name})"
        )
    if x.dtype not in FLOATS:
        raise DtypeError(
            f"{name} has dtype {x.dtype}",
            "derivatives are computed in float32 or float64",
            f"{name} = {name}.to(torch.float64)",
        )
    if x.ndim != 2:
        raise ShapeError(
            f"{name} must have shape (points, dimension), got {tuple(x.shape)}",
            "the first axis counts collocation points, the second their coordinates",
            f"{name} = {name}.reshape(-1, 1)" if x.ndim < 2 else f"{name} = {name}.flatten(0, -2)",
        )
    return check_finite(x, name)


def under_transform(x: Tensor) -> bool:
    """Return whether ``x`` is inside torch.func (vmap, jvp, grad), where its entries cannot be read."""
    # The compiler cannot trace the question, and has no such tensors.
    return not torch.compiler.is_compiling() and torch._C._functorch.is_functorch_wrapped_tensor(x)


def check_finite(x: Tensor, name: str) -> Tensor:
    """Return ``x`` if all of its entries are finite (skipped while tracing)."""
    if torch.compiler.is_compiling() or under_transform(x):
        return x
    # A finite sum has finite terms: one pass and one number, where the mask takes three.
    total = (x.detach() if x.requires_grad else x).sum().item()
    if not math.isfinite(total) and not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).sum())
        raise NonFiniteError(
            f"{name} contains {bad} non-finite value(s)",
            "a derivative at NaN or infinity is undefined and would spread to every result",
            f"{name} = {name}[torch.isfinite({name}).all(dim=1)]",
        )
    return x


def check_real(value: Any) -> Any:
    """Return a constant unless it is complex: a cast to the dtype of a series would drop a part of it."""
    dtype = getattr(value, "dtype", None)
    kind = dtype.is_complex if isinstance(dtype, torch.dtype) else getattr(dtype, "kind", "") == "c"
    if kind or isinstance(value, complex):
        raise DtypeError(
            "a series meets complex numbers",
            "series are real",
            "torch.cat([torch.cos(x), torch.sin(x)], 1)  # real and imaginary part as two outputs",
        )
    return value


def check_choice(value: str, choices: Iterable[str], name: str) -> str:
    """Return ``value`` if it is one of ``choices``."""
    known = list(choices)
    if value not in known:
        raise UnknownNameError(f"unknown {name} {value!r}", "", nearest_names(str(value), known))
    return value
