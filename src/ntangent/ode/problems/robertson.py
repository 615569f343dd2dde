"""Robertson's autocatalytic reaction."""

from __future__ import annotations

import torch
from torch import Tensor

from ntangent.ode.problems.base import OdeProblem, register, rows


def _rhs(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    del t
    k1, k2, k3 = p.unbind(-1)
    a, b, c = y.unbind(-1)
    first, second, third = k1 * a, k2 * b * b, k3 * b * c
    return torch.stack([third - first, first - third - second, second], dim=-1)


def _jac(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    del t
    k1, k2, k3 = p.unbind(-1)
    a, b, c = y.unbind(-1)
    q, r, s = k3 * c, k3 * b, 2 * k2 * b
    return rows([[-k1, q, r], [k1, -q - s, -r], [0.0, s, 0.0]], a)


@register
def robertson(end: float = 40.0) -> OdeProblem:
    """Three species and the rates 0.04, 3e7 and 1e4."""
    return OdeProblem(
        "robertson", "Robertson's autocatalytic reaction", "Robertson 1966; Hairer & Wanner II, IV.1",
        ("k1", "k2", "k3"), (0.04, 3e7, 1e4), (1.0, 0.0, 0.0), (0.0, end), _rhs, _jac,
        scale=(1.0, 4e-5, 1.0),
    )  # fmt: skip
