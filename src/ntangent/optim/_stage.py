"""What all stages share: argument checks, the stop tests, norms that neither under- nor overflow."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import FLOATS, check_finite
from ntangent._base.errors import ArgumentError, ConvergenceError, DtypeError, ShapeError


def check_tolerance(value: Any, name: str = "tolerance") -> float:
    """Return ``value`` if it is a finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DtypeError(f"{name} must be a number, got {value!r}", "", f"{name}=0.0")
    if not (math.isfinite(value) and value >= 0):
        raise ArgumentError(
            f"{name} must be finite and not negative, got {value!r}",
            "a loss, being a sum of squares, is never negative; 0 means: as far as possible",
            f"{name}=0.0",
        )
    return value


def check_wolfe(armijo: Any, curvature: Any) -> None:
    """Refuse constants for which the strong Wolfe conditions may have no solution."""
    for value, name in ((armijo, "armijo"), (curvature, "curvature")):
        check_tolerance(value, name)
    if not 0 < armijo < curvature < 1:
        raise ArgumentError(
            f"armijo={armijo!r} and curvature={curvature!r} cannot be satisfied together",
            "0 < armijo < curvature < 1 guarantees that a step exists",
            "armijo=1e-4, curvature=0.9",
        )


def check_theta(theta: Any) -> Tensor:
    """Return a copy of ``theta`` if it is a finite flat vector; the copy is contiguous and aligned."""
    if not isinstance(theta, Tensor):
        raise DtypeError(
            f"theta must be a torch.Tensor, got {type(theta).__name__}", "", "torch.as_tensor(theta)"
        )
    if theta.dtype not in FLOATS:
        raise DtypeError(
            f"theta has dtype {theta.dtype}",
            "parameters are optimised in float32 or float64",
            "theta = theta.to(torch.float64)",
        )
    if theta.ndim != 1 or theta.numel() == 0:
        raise ShapeError(
            f"theta must have shape (P,) with P >= 1, got {tuple(theta.shape)}",
            "an optimiser sees all parameters as one flat vector",
            "theta = theta.flatten()",
        )
    check_finite(theta, "theta")
    return theta.detach().clone(memory_format=torch.contiguous_format)


def verdict(
    loss: float, gradient_norm: float, tolerance: float, iteration: int, iterations: int
) -> str | None:
    """Return why a stage is finished, or None. Nothing here looks at the size of a nonzero number."""
    if loss <= tolerance:
        return f"the loss reached the tolerance {tolerance:g}" if tolerance else "the loss is exactly zero"
    if gradient_norm == 0:
        return "the gradient is exactly zero"
    if iteration >= iterations:
        return f"the budget of {iterations} iterations is used"
    return None


def norm(x: Tensor) -> float:
    """Return |x| as a float, without under- or overflow of the squares (NaN and inf go through)."""
    plain = float(torch.linalg.vector_norm(x))
    # Between these bounds the squares that are lost are far below rounding, and none overflows.
    if 1e-8 < plain < 1e12:
        return plain
    largest = float(x.abs().max()) if x.numel() else 0.0
    if largest == 0 or not math.isfinite(largest):
        return largest
    # By a power of two, so that the digits are those of the plain norm; in two steps, each in range.
    exponent = math.frexp(largest)[1] - 1
    half = exponent // 2
    return float(torch.linalg.vector_norm(x * 2.0**-half * 2.0 ** (half - exponent))) * 2.0**exponent


def is_finite(x: Tensor) -> bool:
    """Whether all entries are finite."""
    return bool(torch.isfinite(x).all())


def no_start(what: str) -> ConvergenceError:
    """Return the error of a stage that cannot begin because ``what`` is not finite at its start."""
    return ConvergenceError(
        f"{what} is not finite at the initial parameters",
        "no direction can be computed from NaN or infinity",
        "start from smaller parameters, or scale the residual that overflows",
    )
