"""R-functions: smooth functions that vanish on a boundary and say on which side a point lies.

Every function here is normalised to first order: on the boundary it is 0 and its inward normal
derivative is 1, away from corners. All take tensors or jets.

Rvachev & Sheiko (1995), R-functions in boundary value problems in mechanics, Appl. Mech. Rev. 48;
Biswas & Shapiro (2004), Approximate distance fields with non-vanishing gradients, Graph. Models 66;
Sukumar & Srivastava (2022), Comput. Methods Appl. Mech. Eng. 389, 114333.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any

import torch
from torch import Tensor


def length(rows: Tensor, dim: int) -> Tensor:
    """Return Euclidean lengths along an axis."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=dim)
    return lengths


def conjunction(a: Any, b: Any) -> Any:
    """Return a function that is positive where both are: a + b - sqrt(a² + b²) (R0)."""
    return a + b - torch.sqrt(a * a + b * b)


def disjunction(a: Any, b: Any) -> Any:
    """Return a function that is positive where one of them is: a + b + sqrt(a² + b²) (R0)."""
    return a + b + torch.sqrt(a * a + b * b)


def equivalence(distances: Iterable[Any]) -> Any:
    """Return the distance function of a union of boundary parts: (1/a + 1/b + ...)^-1.

    This is R-equivalence with m = 1. Its exponent is one of those that keep the first-order
    normalisation, it does not depend on the order of the parts, and it has derivatives on the parts
    themselves, all but their common points.
    """

    def join(a: Any, b: Any) -> Any:
        total = a + b
        # A corner: both are 0, and so is the distance; it has no derivatives there.
        return a * b / torch.where(_value(total) == 0, 1.0, total)

    return reduce(join, distances)


def trimmed(level: Any, trim: Any) -> Any:
    """Return the distance function of the part of {level = 0} on which trim >= 0.

    sqrt(f² + ((sqrt(t² + f⁴) - t)/2)²), Sukumar & Srivastava (2022), equation 7. Where t > 0 it is
    written as |f| times a smooth factor: there it has one-sided derivatives on the part itself, those
    of the side where f > 0, and loses no digits to the difference.
    """
    square = level * level
    root = torch.sqrt(trim * trim + square * square)
    side = _value(trim) > 0
    # In each branch the other's points are replaced, so that no root of 0 is differentiated.
    divisor = torch.where(side, root + trim, 1.0)
    inner = magnitude(level) * torch.sqrt(1.0 + square * square * square / (4.0 * divisor * divisor))
    gap = torch.where(side, 1.0, (root - trim) * 0.5)
    outer = torch.sqrt(torch.where(side, 1.0, square) + gap * gap)
    return torch.where(side, inner, outer)


def magnitude(level: Any) -> Any:
    """Return |level|, with the derivatives of ``level`` where it vanishes."""
    return torch.where(_value(level) >= 0, level, -level)


def _value(x: Any) -> Any:
    return x if isinstance(x, torch.Tensor) else x.value
