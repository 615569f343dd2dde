"""HIRES: high irradiance responses of photomorphogenesis."""

from __future__ import annotations

import torch
from torch import Tensor

from ntangent.ode.problems.base import OdeProblem, register

NAMES = ("k1", "k2", "k3", "oks", "k2+k3+k5", "k3+k6+k1", "k6", "k2+k4", "k2+k5+k6", "k7", "k4", "k4+k8")
VALUES = (1.71, 0.43, 8.32, 0.0007, 8.75, 10.03, 0.035, 1.12, 1.745, 280.0, 0.69, 1.81)


def _rhs(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    del t
    a, b, c, source, loss2, loss3, k6, loss4, loss5, fast, k4, loss7 = p.unbind(-1)
    y1, y2, y3, y4, y5, y6, y7, y8 = y.unbind(-1)
    pair = fast * y6 * y8
    return torch.stack(
        [
            -a * y1 + b * y2 + c * y3 + source,
            a * y1 - loss2 * y2,
            -loss3 * y3 + b * y4 + k6 * y5,
            c * y2 + a * y3 - loss4 * y4,
            -loss5 * y5 + b * y6 + b * y7,
            -pair + k4 * y4 + a * y5 - b * y6 + k4 * y7,
            pair - loss7 * y7,
            -pair + loss7 * y7,
        ],
        dim=-1,
    )


@register
def hires(end: float = 321.8122) -> OdeProblem:
    """Eight species; the twelve constants are varied independently."""
    return OdeProblem(
        "hires", "high irradiance responses of photomorphogenesis",
        "Schäfer 1975; Hairer & Wanner II, IV.10; Mazzia & Magherini, Test Set for IVP Solvers",
        NAMES, VALUES, (1.0, 0, 0, 0, 0, 0, 0, 0.0057), (0.0, end), _rhs,
        scale=(1.0, 0.1, 0.1, 1.0, 1.0, 1.0, 5e-3, 5e-3),
    )  # fmt: skip
