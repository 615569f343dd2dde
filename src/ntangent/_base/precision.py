"""One place for tolerances: what accuracy a result may be held to, and why."""

from __future__ import annotations

import math

import torch


def tolerance(dtype: torch.dtype, order: int = 0, terms: int = 1, safety: float = 32.0) -> float:
    """Return the relative tolerance of a Taylor coefficient of a given order.

    A coefficient of order n is a sum of products in which every input coefficient of order
    up to n enters once, through a recurrence of n steps. Each step rounds once, so the
    relative error of the row grows linearly, not exponentially, in n:
    ``safety * eps * (1 + order) * sqrt(terms)``.

    Args:
        dtype: precision of the computation.
        order: order of the coefficient.
        terms: length of the inner products (the layer width), whose rounding errors add in
            quadrature.
        safety: the constant that covers the condition of a typical layer chain.
    """
    return safety * torch.finfo(dtype).eps * (1 + order) * math.sqrt(terms)
