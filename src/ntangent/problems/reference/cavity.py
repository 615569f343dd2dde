"""The steady lid-driven cavity by a spectral Galerkin method and Newton's iteration."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev, chebyshev

from ntangent._base.check import check_positive
from ntangent._base.errors import ConvergenceError

Array = np.ndarray[Any, Any]

_WALL = Chebyshev(chebyshev.poly2cheb([1.0, 0.0, -2.0, 0.0, 1.0]))
# h(±1) = h'(-1) = 0 and h'(1) = 1.
_LIFT = Chebyshev(chebyshev.poly2cheb([-0.25, -0.25, 0.25, 0.25]))
_LID = _WALL


def _table(order: int, points: Array, count: int) -> Array:
    """Return the derivatives in s of (1-ξ²)² T_j(ξ), ξ = 2s - 1, shape (points, count)."""
    columns = [(_WALL * Chebyshev.basis(j)).deriv(order)(points) for j in range(count)]
    return 2.0**order * np.stack(columns, 1)


def _plain(series: Chebyshev, order: int, points: Array) -> Array:
    values: Array = 2.0**order * series.deriv(order)(points)
    return values


@cache
def _coefficients(viscosity: float, count: int) -> Array:
    """Return the coefficients of the basis, shape (count, count)."""
    # Galerkin, not collocation: the walls' factor in the test functions mutes the corners, where
    # fourth derivatives are unbounded.
    nodes, weights = np.polynomial.legendre.leggauss(3 * count // 2)
    tables = [_table(k, nodes, count) for k in range(5)]
    test = (weights[:, None] * tables[0]).T

    def project(values: Array) -> Array:
        """Integrate functions at the nodes, shape (nodes², ...), against all test functions."""
        square = values.reshape(len(nodes), len(nodes), -1)
        rows = np.tensordot(test, np.tensordot(test, square, (1, 0)), (1, 1))
        result: Array = rows.transpose(1, 0, 2).reshape(count * count, *values.shape[1:])
        return result

    lid = [_plain(_LID, k, nodes) for k in range(5)]
    # ψ_y = lid at y = 1: in s the slope of h is 2, so the lift carries half of it.
    rise = [_plain(_LIFT, k, nodes) / 2 for k in range(5)]

    def part(i: int, j: int) -> Array:
        """The matrix of ∂^i/∂x^i ∂^j/∂y^j on all coefficients, at all nodes."""
        return np.kron(tables[i], tables[j])

    def lifted(i: int, j: int) -> Array:
        return np.outer(lid[i], rise[j]).ravel()

    orders = [(1, 0), (0, 1), (3, 0), (2, 1), (1, 2), (0, 3), (4, 0), (2, 2), (0, 4)]
    matrix = {o: part(*o) for o in orders}
    base = {o: lifted(*o) for o in orders}
    bilaplacian = matrix[4, 0] + 2 * matrix[2, 2] + matrix[0, 4]
    base_bilaplacian = base[4, 0] + 2 * base[2, 2] + base[0, 4]
    lap_x, lap_y = matrix[3, 0] + matrix[1, 2], matrix[2, 1] + matrix[0, 3]
    base_x, base_y = base[3, 0] + base[1, 2], base[2, 1] + base[0, 3]
    c = np.zeros(count * count)
    nu, scale = max(viscosity, 0.05), 1.0
    while True:
        for _ in range(30):
            px, py = matrix[1, 0] @ c + base[1, 0], matrix[0, 1] @ c + base[0, 1]
            lx, ly = lap_x @ c + base_x, lap_y @ c + base_y
            residual = py * lx - px * ly - nu * (bilaplacian @ c + base_bilaplacian)
            jacobian = (
                py[:, None] * lap_x
                + lx[:, None] * matrix[0, 1]
                - px[:, None] * lap_y
                - ly[:, None] * matrix[1, 0]
                - nu * bilaplacian
            )
            step = np.linalg.solve(project(jacobian), project(residual))
            c = c - step
            scale = float(np.abs(step).max() / max(np.abs(c).max(), 1e-300))
            if scale < 1e-12:
                break
        if not scale < 1e-8:
            raise ConvergenceError(
                f"the cavity at viscosity {nu} did not converge", f"last step {scale:.1e}", "viscosity=0.01"
            )
        if nu <= viscosity:
            return c.reshape(count, count)
        nu = max(viscosity, nu / 2)  # continuation in the Reynolds number


def cavity(
    x: Array, y: Array, viscosity: float, derivative: tuple[int, int] = (0, 0), count: int = 36
) -> Array:
    """Return a derivative of the stream function ψ of the regularised cavity, shape (N,).

    ψ_y Δψ_x - ψ_x Δψ_y = ν Δ²ψ on the unit square, velocity (ψ_y, -ψ_x) zero on the walls and
    16x²(1-x)² on the lid y = 1, which has no corner singularity. The basis satisfies all boundary
    conditions; the error falls fast with its size (about 1e-9 at ν = 0.01).

    Args:
        x: first coordinates, shape (N,).
        y: second coordinates, shape (N,).
        viscosity: ν, the inverse Reynolds number; down to about 1/400 with the default basis.
        derivative: orders in x and y, each at most 4.
        count: basis functions in each direction; the cost is that of a few dense solves of count².
    """
    check_positive(viscosity, "viscosity")
    c = _coefficients(float(viscosity), check_positive(count, "count", integer=True))
    u, v = 2 * np.asarray(x, float) - 1, 2 * np.asarray(y, float) - 1
    i, j = derivative
    inner = np.einsum("nj,jk,nk->n", _table(i, u, count), c, _table(j, v, count))
    return np.asarray(inner + _plain(_LID, i, u) * _plain(_LIFT, j, v) / 2)
