"""Solutions of ordinary differential equations to nearly all digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ntangent._base.errors import ConvergenceError
from ntangent._base.extras import require_extra

Array = np.ndarray[Any, Any]


def trajectory(rate: Callable[[float, Array], Array], start: Array, t: Array, begin: float = 0.0) -> Array:
    """Return y(t) with y' = rate(t, y), y(begin) = start, by scipy's DOP853 at a tolerance of 1e-13.

    Args:
        rate: the right-hand side.
        start: shape (n,).
        t: times, shape (N,), in any order, not before ``begin``.
        begin: time of the start.

    Returns:
        Shape (N, n).

    Raises:
        ConvergenceError: if the integration fails.
        MissingExtraError: if scipy is not installed.
    """
    require_extra("qmc", "a reference trajectory")
    from scipy import integrate

    times, where = np.unique(np.asarray(t, float), return_inverse=True)
    span = (begin, max(float(times[-1]), begin + 1e-300))
    result = integrate.solve_ivp(
        rate, span, np.asarray(start, float), "DOP853", t_eval=times, rtol=1e-13, atol=1e-13
    )
    if not result.success:
        raise ConvergenceError("the reference trajectory failed", result.message, "an earlier end time")
    values: Array = result.y.T[where]
    return values
