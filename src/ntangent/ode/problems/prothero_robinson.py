"""The problem that shows order reduction: a fast approach to a known slow solution."""

from __future__ import annotations

import torch
from torch import Tensor

from ntangent.ode.problems.base import OdeProblem, register, rows


def _rhs(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    return (-p[..., 0] * (y[..., 0] - torch.cos(t)) - torch.sin(t))[..., None]


def _jac(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    del t
    return rows([[-p[..., 0]]], y[..., 0])


@register
def prothero_robinson(k: float = 1e4, start: float = 1.0, end: float = 3.0) -> OdeProblem:
    """Y' = -k (y - cos t) - sin t; started at 1 the solution is cos t."""

    def exact(t: Tensor, p: Tensor) -> Tensor:
        return (torch.cos(t) + (start - 1.0) * torch.exp(-p[0] * t))[:, None]

    return OdeProblem(
        "prothero_robinson", "fast approach to cos t",
        "Prothero & Robinson, Math. Comp. 28 (1974) 145", ("k",), (k,), (start,), (0.0, end),
        _rhs, _jac, exact,
    )  # fmt: skip
