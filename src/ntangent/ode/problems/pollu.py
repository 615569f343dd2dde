"""POLLU: the chemical part of an air pollution model."""

from __future__ import annotations

import torch
from torch import Tensor

from ntangent.ode.problems.base import OdeProblem, register

RATES = (
    0.35, 26.6, 1.23e4, 8.6e-4, 8.2e-4, 1.5e4, 1.3e-4, 2.4e4, 1.65e4, 9e3, 0.022, 1.2e4, 1.88, 1.63e4,
    4.8e6, 3.5e-4, 0.0175, 1e8, 4.44e11, 1240.0, 2.1, 5.78, 0.0474, 1780.0, 3.12,
)  # fmt: skip
# Species (counted from 1) on the left of each reaction.
REACTANTS = (
    (1,), (2, 4), (5, 2), (7,), (7,), (7, 6), (9,), (9, 6), (11, 2), (11, 1), (13,), (10, 2), (14,), (1, 6),
    (3,), (4,), (4,), (16,), (16,), (17, 6), (19,), (19,), (1, 4), (19, 1), (20,),
)  # fmt: skip
# For each species the reactions (counted from 1) that make it and use it up; twice means two molecules.
MAKE = (
    (2, 3, 9, 11, 12, 22, 25), (1, 21), (1, 17, 19, 22), (15,), (4, 4, 6, 7, 13, 20), (3, 18, 18), (13,),
    (4, 5, 6, 7), (), (7, 9), (8, 11), (9,), (10,), (12,), (14,), (16,), (), (20,), (23, 25), (24,),
)  # fmt: skip
USE = (
    (1, 10, 14, 23, 24), (2, 3, 9, 12), (15,), (2, 16, 17, 23), (3,), (6, 8, 14, 20), (4, 5, 6), (), (7, 8),
    (12,), (9, 10), (), (11,), (13,), (), (18, 19), (20,), (), (21, 22, 24), (25,),
)  # fmt: skip


def _stoichiometry() -> list[list[float]]:
    return [
        [float(make.count(r) - use.count(r)) for r in range(1, len(RATES) + 1)]
        for make, use in zip(MAKE, USE, strict=True)
    ]


def _rhs(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    del t
    first = torch.tensor([r[0] - 1 for r in REACTANTS], device=y.device)
    second = torch.tensor([r[1] - 1 if len(r) > 1 else y.shape[-1] for r in REACTANTS], device=y.device)
    padded = torch.cat([y, torch.ones_like(y[..., :1])], dim=-1)
    speed = p * padded[..., first] * padded[..., second]
    return speed @ torch.tensor(_stoichiometry(), dtype=y.dtype, device=y.device).T


def _start() -> tuple[float, ...]:
    known = {2: 0.2, 4: 0.04, 7: 0.1, 8: 0.3, 9: 0.01, 17: 0.007}
    return tuple(known.get(i, 0.0) for i in range(1, 21))


@register
def pollu(end: float = 60.0) -> OdeProblem:
    """Twenty species and twenty-five reactions."""
    return OdeProblem(
        "pollu", "an air pollution model",
        "Verwer, SIAM J. Sci. Comput. 15 (1994) 1243; Mazzia & Magherini, Test Set for IVP Solvers",
        tuple(f"k{i}" for i in range(1, 26)), RATES, _start(), (0.0, end), _rhs,
        scale=(
            0.06, 0.2, 5e-9, 0.04, 3e-7, 2e-7, 0.1, 0.3, 0.01, 2e-8, 1e-8, 2e-3, 2e-4, 2e-5, 1e-2, 3e-17,
            0.007, 1e-4, 2e-6, 6e-5,
        ),
    )  # fmt: skip
