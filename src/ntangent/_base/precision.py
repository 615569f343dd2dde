"""One place for tolerances: what accuracy a result may be held to, and why."""

from __future__ import annotations

import math

import torch


def tolerance(dtype: torch.dtype, order: int = 0, terms: int = 1, safety: float = 32.0) -> float:
    """Return the allowed error of a Taylor coefficient, relative to the size of the terms it sums.

    The coefficient of order n comes out of n steps of a recurrence. A step sums up to n products,
    whose roundings add in quadrature (n^1/2); the errors of the steps are carried on and add
    linearly (n). Inner products over a layer of ``terms`` neurons add in quadrature too. Hence

        ``safety * eps * (1 + n)^(3/2) * sqrt(terms)``.

    The number is to be multiplied by the size of the terms, not by that of the result, which may
    vanish while they do not (for one activation: the Newton polygon of its coefficients composed
    with the absolute argument; for a network: the largest coefficient of that order). The growth
    of the coefficients themselves, a geometric one that no formula in n could give, is in that
    size.

    Args:
        dtype: precision of the computation.
        order: order n of the coefficient.
        terms: length of the inner products (the layer width).
        safety: what a chain of layers and a few ulp of the elementary functions may add. Against
            50 digits the rows of the activation table use less than a quarter of the default.
    """
    eps = float(torch.finfo(dtype).eps)
    return float(safety * eps * math.pow(1 + order, 1.5) * math.sqrt(terms))
