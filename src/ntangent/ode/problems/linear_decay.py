"""Independent linear decays with very different rates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ntangent.ode.problems.base import OdeProblem, register


def _rhs(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    del t
    return -p * y


def _jac(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    del t
    return torch.diag_embed((-p).expand_as(y))


@register
def linear_decay(rates: Sequence[float] = (1.0, 1e3, 1e6), end: float = 1.0) -> OdeProblem:
    """y_i' = -k_i y_i, y(0) = 1."""

    def exact(t: Tensor, p: Tensor) -> Tensor:
        return torch.exp(-t[:, None] * p)

    count = len(rates)
    return OdeProblem(
        "linear_decay", "independent linear decays", "elementary",
        tuple(f"k{i + 1}" for i in range(count)), tuple(float(k) for k in rates),
        (1.0,) * count, (0.0, end), _rhs, _jac, exact,
    )  # fmt: skip
