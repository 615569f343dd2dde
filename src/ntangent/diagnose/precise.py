"""Singular values beyond float64: one-sided Jacobi in double-double numbers, and mpmath.

A double-double number is an unevaluated sum of two float64 numbers, about 31 digits. The elementary
operations are those of Dekker (1971) and Knuth; the singular values come from Hestenes' rotations, which
need no shifts and no bidiagonal form.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ntangent._base.errors import ConvergenceError, DtypeError
from ntangent._base.extras import require_extra

_SPLITTER = 2.0**27 + 1
_PRECISION = 2.0**-104
_SWEEPS = 60


class Pair(NamedTuple):
    """An array of double-double numbers."""

    high: Any
    low: Any


def _two_sum(a: Any, b: Any) -> Pair:
    s = a + b
    t = s - a
    return Pair(s, (a - (s - t)) + (b - t))


def _quick(a: Any, b: Any) -> Pair:
    s = a + b
    return Pair(s, b - (s - a))


def _split(a: Any) -> Pair:
    t = _SPLITTER * a
    high = t - (t - a)
    return Pair(high, a - high)


def add(x: Pair, y: Pair) -> Pair:
    """Return x + y, with an error of about 2^-105 of the result."""
    s, e = _two_sum(x.high, y.high)
    t, f = _two_sum(x.low, y.low)
    s, e = _quick(s, e + t)
    return _quick(s, e + f)


def multiply(x: Pair, y: Pair) -> Pair:
    """Return x · y, with an error of about 2^-104 of the result."""
    p = x.high * y.high
    (a, b), (c, d) = _split(x.high), _split(y.high)
    e = ((a * c - p) + a * d + b * c) + b * d
    return _quick(p, e + (x.high * y.low + x.low * y.high))


def negative(x: Pair) -> Pair:
    """Return -x."""
    return Pair(-x.high, -x.low)


def inverse_root(x: Pair) -> Pair:
    """Return 1/√x by one step of Newton's method, which doubles the digits of the float64 start."""
    y = 1.0 / np.sqrt(x.high)
    start = Pair(y, np.zeros_like(y))
    defect = add(Pair(np.ones_like(y), np.zeros_like(y)), negative(multiply(x, multiply(start, start))))
    return add(start, Pair(0.5 * y * (defect.high + defect.low), np.zeros_like(y)))


def total(x: Pair) -> Pair:
    """Return the sum over the first axis, in pairs of pairs."""
    while len(x.high) > 1:
        half = len(x.high) // 2
        rest = Pair(x.high[2 * half :], x.low[2 * half :])
        folded = add(Pair(x.high[:half], x.low[:half]), Pair(x.high[half : 2 * half], x.low[half : 2 * half]))
        x = Pair(np.concatenate([folded.high, rest.high]), np.concatenate([folded.low, rest.low]))
    return Pair(x.high[0], x.low[0])


def double_double_singular_values(matrix: Tensor) -> Tensor:
    """Return the singular values of a float matrix with about 31 digits, rounded to float64.

    Absolute error about 1e-31 σ₁. Rotations of disjoint pairs of columns are done at once.
    """
    a = matrix.detach().cpu().double().numpy()
    a = a if a.shape[0] >= a.shape[1] else a.T
    scale = float(np.abs(a).max())
    if scale == 0:
        return torch.zeros(a.shape[1], dtype=torch.float64)
    # A power of two: nothing is rounded, and no square overflows.
    unit = 2.0 ** -int(np.frexp(scale)[1])
    # Columns by falling norm: the rotations then converge in fewer sweeps.
    a = (a * unit)[:, np.argsort(-np.linalg.norm(a, axis=0))]
    count = a.shape[1] + a.shape[1] % 2
    columns = Pair(np.zeros((a.shape[0], count)), np.zeros((a.shape[0], count)))
    columns.high[:, : a.shape[1]] = a
    floor = float(np.linalg.norm(a)) * _PRECISION
    for _ in range(_SWEEPS):
        if not _sweep(columns, floor):
            break
    else:
        raise ConvergenceError(
            f"Jacobi's rotations have not converged in {_SWEEPS} sweeps", "", "singular_values(A, 40)"
        )
    squares = total(multiply(columns, columns)).high
    values = np.sort(np.sqrt(squares))[::-1][: a.shape[1]] / unit
    return torch.from_numpy(values.copy())


def _sweep(columns: Pair, floor: float) -> bool:
    """Rotate every pair of columns once; return whether any was not yet orthogonal."""
    count, changed = columns.high.shape[1], False
    ring = list(range(count))
    for _ in range(count - 1):
        first, second = np.array(ring[: count // 2]), np.array(ring[: count // 2 - 1 : -1])
        changed |= _rotate(columns, np.minimum(first, second), np.maximum(first, second), floor)
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return changed


def _rotate(columns: Pair, i: Any, j: Any, floor: float) -> bool:
    p, q = Pair(columns.high[:, i], columns.low[:, i]), Pair(columns.high[:, j], columns.low[:, j])
    alpha, beta, gamma = (total(multiply(*pair)).high for pair in ((p, p), (q, q), (p, q)))
    norms = np.sqrt(alpha) * np.sqrt(beta)
    # A column below the floor is rounding of the largest: turning it on changes nothing.
    active = (np.abs(gamma) > 8 * _PRECISION * norms) & (np.sqrt(np.maximum(alpha, beta)) > floor)
    active &= np.abs(gamma) > floor * np.sqrt(np.maximum(alpha, beta))
    if not active.any():
        return False
    i, j, alpha, beta, gamma = i[active], j[active], alpha[active], beta[active], gamma[active]
    p, q = Pair(p.high[:, active], p.low[:, active]), Pair(q.high[:, active], q.low[:, active])
    zeta = (beta - alpha) / (2 * gamma)
    # The angle may be rounded, as long as cosine and sine belong to the same angle to all digits.
    t = np.where(zeta >= 0, 1.0, -1.0) / (np.abs(zeta) + np.hypot(1.0, zeta))
    tangent = Pair(t, np.zeros_like(t))
    one = Pair(np.ones_like(t), np.zeros_like(t))
    cosine = inverse_root(add(one, multiply(tangent, tangent)))
    sine = multiply(cosine, tangent)
    new_p = add(multiply(p, cosine), negative(multiply(q, sine)))
    new_q = add(multiply(p, sine), multiply(q, cosine))
    for k, new in ((i, new_p), (j, new_q)):
        columns.high[:, k], columns.low[:, k] = new.high, new.low
    return True


def mpmath_singular_values(matrix: Any, digits: int) -> Tensor:
    """Return the singular values of a float tensor or an ``mpmath.matrix``, with that many digits."""
    require_extra("diagnose", f"singular values with {digits} digits")
    import mpmath

    with mpmath.workdps(digits):
        if isinstance(matrix, Tensor):
            if matrix.ndim != 2:
                raise DtypeError(f"matrix has shape {tuple(matrix.shape)}", "", "(N, M)")
            a = mpmath.matrix(matrix.detach().cpu().double().tolist())
        elif isinstance(matrix, mpmath.matrix):
            a = matrix
        else:
            raise DtypeError(f"matrix is {type(matrix).__name__}", "", "a tensor or an mpmath.matrix")
        values = mpmath.svd_r(a if a.rows >= a.cols else a.T, compute_uv=False)
        return torch.tensor(sorted((float(v) for v in values), reverse=True), dtype=torch.float64)
