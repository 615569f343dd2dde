"""Van der Pol's oscillator."""

from __future__ import annotations

import torch
from torch import Tensor

from ntangent.ode.problems.base import OdeProblem, register, rows


def _rhs(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    del t
    u, v = y.unbind(-1)
    return torch.stack([v, p[..., 0] * (1 - u * u) * v - u], dim=-1)


def _jac(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    del t
    u, v = y.unbind(-1)
    mu = p[..., 0]
    return rows([[0.0, 1.0], [-2 * mu * u * v - 1, mu * (1 - u * u)]], u)


@register
def van_der_pol(mu: float = 1000.0, end: float | None = None) -> OdeProblem:
    """U' = v, v' = mu (1 - u²) v - u, from (2, 0); by default over about one period."""
    # Period (3 - 2 ln 2) mu + ... for large mu; 2π for small.
    period = 2.0 * mu if mu > 10 else 6.7 + 1.3 * mu
    return OdeProblem(
        "van_der_pol", "Van der Pol's oscillator", "van der Pol 1926; Hairer & Wanner II, IV.1",
        ("mu",), (mu,), (2.0, 0.0), (0.0, period if end is None else end), _rhs, _jac,
        scale=(2.0, max(1.0, mu)),
    )  # fmt: skip
