"""Continuous extensions of explicit methods, made from their order conditions.

y(t + θh) ≈ y + h Σ b_i(θ) k_i has order q where Σ b_i(θ) Φ_i(τ) = θ^|τ| / γ(τ) for every tree τ of up
to q nodes: linear equations for the coefficients of b_i. A tableau of high order meets them for some
q below its own; slopes at points that this first extension gives raise q by one (the bootstrap of
Enright, Jackson, Nørsett & Thomsen 1986). The new slopes cost calls of f only where the extension is
asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntangent._base.errors import ArgumentError
from ntangent.ode.trees import density, order_of, runge_kutta_weights, trees

Array = NDArray[np.float64]

# Rounding of the weights, which are of the size of 100.
TOLERANCE = 1e-11
POINTS = 12  # where the next order's conditions are looked at


@dataclass(frozen=True, eq=False)
class Continuation:
    """A continuous extension with slopes of its own.

    Args:
        nodes: of the added slopes.
        rows: their weights of the slopes before them; the first is f at the end of the step.
        weights: coefficients of θ, θ², ... of b_i(θ), those of the added slopes last.
        order: q; the local error is of order q + 1.
    """

    nodes: tuple[float, ...]
    rows: tuple[Array, ...]
    weights: Array
    order: int


def bootstrap(name: str, a: Array, b: Array, nodes: Sequence[float], order: int) -> Continuation:
    """Return the extension of an order, with continuous derivative, from slopes at the nodes.

    Args:
        name: of the method, for the error.
        a: its coefficients, strictly lower triangular.
        b: its weights.
        nodes: where, besides the end of the step, slopes are added.
        order: q; slopes at the nodes come from the extension of order q - 1 without them.

    Raises:
        ArgumentError: if the slopes do not suffice for that order.
    """
    wide, last = _added(a, b), len(b)
    rows = [b]
    if nodes:
        low = _weights(name, wide, b, last, order - 1)
        for node in nodes:
            rows.append(low @ node ** np.arange(1, low.shape[1] + 1))
            wide = _added(wide, rows[-1])
    return Continuation((1.0, *nodes), tuple(rows), _weights(name, wide, b, last, order), order)


def _added(a: Array, row: Array) -> Array:
    size = len(a)
    wide = np.zeros((size + 1, size + 1))
    wide[:size, :size] = a
    wide[size, : len(row)] = row
    return wide


def _weights(name: str, a: Array, b: Array, last: int, order: int) -> Array:
    """Return b_i(θ) of degree order + 1 that keep value and slope at both ends.

    What the conditions leave open makes the conditions of the next order nearly right, in the mean
    over the step.
    """
    size, degree = len(a), order + 1
    phi = runge_kutta_weights([a.tolist()], 1.0)
    known = [(t, np.array(phi(t))) for n in range(1, order + 2) for t in trees(n)]
    eye, ones = np.eye(size), np.arange(1, degree + 1)
    blocks = [
        np.kron(np.eye(degree), np.array([v for t, v in known if order_of(t) <= order])),
        np.kron(np.ones(degree), eye),  # b(1) = b
        np.kron(np.eye(degree)[0], eye),  # b'(0): f at the start
        np.kron(ones.astype(float), eye),  # b'(1): f at the end
    ]
    goals = [
        np.concatenate(
            [
                [(order_of(t) == k) / density(t) for t, _ in known if order_of(t) <= order]
                for k in range(1, degree + 1)
            ]
        ),
        np.pad(b, (0, size - len(b))),
        eye[0],
        eye[last],
    ]
    matrix, right = np.concatenate(blocks), np.concatenate(goals)
    u, s, vt = np.linalg.svd(matrix)
    rank = int((s > 1e-10 * s[0]).sum())

    def least(residual: Array) -> Array:
        return np.asarray(vt[:rank].T @ ((u[:, :rank].T @ residual) / s[:rank]))

    x, free = least(right), vt[rank:].T
    theta = (np.arange(POINTS) + 0.5) / POINTS
    powers = theta[:, None] ** ones
    after = [(t, v) for t, v in known if order_of(t) > order]
    soft = np.concatenate([np.kron(powers, v) for _, v in after])
    wanted = np.concatenate([theta ** order_of(t) / density(t) for t, _ in after])
    small = 1e-6 * free  # and among equals the smallest
    rest = np.concatenate([wanted - soft @ x, -1e-6 * x])
    x = x + free @ np.linalg.lstsq(np.concatenate([soft @ free, small]), rest, rcond=None)[0]
    x = x + least(right - matrix @ x)  # once more, against rounding
    gap = float(np.abs(matrix @ x - right).max())
    if gap > TOLERANCE:
        raise ArgumentError(
            f"the slopes of {name!r} do not suffice for a continuous extension of order {order}",
            f"a condition fails by {gap:.1e}",
            f"dense_order={order - 1}  # or more dense_nodes",
        )
    return np.asarray(x.reshape(degree, size).T)
