"""A fast variable slaved to a slow one: what slow data tell about the fast rate."""

from __future__ import annotations

import torch
from torch import Tensor

from ntangent.ode.problems.base import OdeProblem, register, rows


def _rhs(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    del t
    x, s = y.unbind(-1)
    return torch.stack([-p[..., 0] * (x - s), -s], dim=-1)


def _jac(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    del t
    k = p[..., 0]
    return rows([[-k, k], [0.0, -1.0]], y[..., 0])


@register
def slow_data(k: float = 1e3, start: float | None = 0.0, end: float = 2.0) -> OdeProblem:
    """X' = -k (x - s), s' = -s, s(0) = 1; only the rate k ≠ 1 is unknown.

    On the slow manifold x = s k/(k - 1): the sensitivity of slow data to log k is about 1/k.

    Args:
        k: the fast rate.
        start: x(0); None starts on the slow manifold.
        end: last time.
    """
    first = k / (k - 1) if start is None else start

    def exact(t: Tensor, p: Tensor) -> Tensor:
        ratio = p[0] / (p[0] - 1)
        slow = torch.exp(-t)
        return torch.stack([(first - ratio) * torch.exp(-p[0] * t) + ratio * slow, slow], dim=-1)

    return OdeProblem(
        "slow_data", "a fast variable slaved to a slow one", "elementary", ("k",), (k,),
        (first, 1.0), (0.0, end), _rhs, _jac, exact,
    )  # fmt: skip
