"""Two coupled linear modes, one slow and one fast."""

from __future__ import annotations

import torch
from torch import Tensor

from ntangent.ode.problems.base import OdeProblem, register, rows


def _rhs(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    del t
    slow, fast = p.unbind(-1)
    u, v = y.unbind(-1)
    mean, half = slow * (u + v) / 2, fast * (u - v) / 2
    return torch.stack([-mean - half, -mean + half], dim=-1)


def _jac(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    del t
    slow, fast = p.unbind(-1)
    same, other = -(slow + fast) / 2, (fast - slow) / 2
    return rows([[same, other], [other, same]], y[..., 0])


@register
def two_scale(slow: float = 1.0, fast: float = 1e4, end: float = 2.0) -> OdeProblem:
    """Y' = Ay with the eigenvalues -slow for (1, 1) and -fast for (1, -1)."""

    def exact(t: Tensor, p: Tensor) -> Tensor:
        # y0 = (2, 0) has the amplitude 1 in both modes.
        a, b = torch.exp(-p[0] * t), torch.exp(-p[1] * t)
        return torch.stack([a + b, a - b], dim=-1)

    return OdeProblem(
        "two_scale", "two coupled linear modes", "elementary", ("slow", "fast"), (slow, fast),
        (2.0, 0.0), (0.0, end), _rhs, _jac, exact,
    )  # fmt: skip
