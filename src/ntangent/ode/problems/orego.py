"""OREGO: the Oregonator, a model of the Belousov-Zhabotinskii reaction."""

from __future__ import annotations

import torch
from torch import Tensor

from ntangent.ode.problems.base import OdeProblem, register, rows


def _rhs(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    del t
    s, q, w = p.unbind(-1)
    a, b, c = y.unbind(-1)
    return torch.stack([s * (b + a * (1 - q * a - b)), (c - (1 + a) * b) / s, w * (a - c)], dim=-1)


def _jac(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    del t
    s, q, w = p.unbind(-1)
    a, b, _ = y.unbind(-1)
    first = [s * (1 - 2 * q * a - b), s * (1 - a), 0.0]
    return rows([first, [-b / s, -(1 + a) / s, 1 / s], [w, 0.0, -w]], a)


@register
def orego(end: float = 360.0) -> OdeProblem:
    """Three species with relaxation oscillations over six decades."""
    return OdeProblem(
        "orego", "the Oregonator", "Field & Noyes 1974; Hairer & Wanner II, IV.10",
        ("s", "q", "w"), (77.27, 8.375e-6, 0.161), (1.0, 2.0, 3.0), (0.0, end), _rhs, _jac,
        scale=(1e5, 2e3, 3e4),
    )  # fmt: skip
