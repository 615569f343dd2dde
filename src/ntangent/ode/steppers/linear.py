"""The derivative of Runge-Kutta steps by the implicit function theorem, many steps at once.

With stages Y_i = y + h Σ a_ij f(Y_j) the implicit function theorem gives, for a cotangent λ of y₁,
M^T w = d ⊗ λ, where M = I - h A ⊗ J_j and A^T d = b; then λ₀ = (1 - Σ d) λ + Σ w_i, and the
cotangent of f(Y_j) is h Σ_i a_ij w_i (Sandu 2006; Hager 2000 for the transformed adjoint scheme).
The Jacobians of the stages are those of the solution: one call for all stages of all K steps, one
batched factorisation, and then a chain of products of small matrices. Tangents use the transposes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ntangent.ode.field import Field
from ntangent.ode.steppers.base import Steps


def increments_weights(a: Tensor, b: Tensor, stiffly_accurate: bool) -> Tensor | None:
    """Return d with A^T d = b, so that y₁ = y + Σ d_i Z_i for Z_i = Y_i - y; None if there is none."""
    if stiffly_accurate:
        return torch.eye(len(b), dtype=b.dtype, device=b.device)[-1]
    matrix, rhs = a.double().cpu().numpy().T, b.double().cpu().numpy()
    d = np.linalg.lstsq(matrix, rhs, rcond=1e-10)[0]
    if np.abs(matrix @ d - rhs).max() > 1e-13:
        return None
    return torch.from_numpy(d).to(b)


@dataclass
class Tableau:
    """A tableau as tensors, with what the linearisation needs."""

    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor | None
    triangular: bool


class MatrixLinearised:
    """Derivative of K steps given as matrices: transfer of the state, weights of f at the stages.

    Args:
        field: the right-hand side.
        times: where f was evaluated, (K, s, B).
        stages: (K, s, B, n).
        transfer: λ ↦ λ₀, (K, B, n, n).
        weights: λ ↦ cotangent of f at the stages, (K, s, B, n, n).
    """

    def __init__(
        self, field: Field, times: Tensor, stages: Tensor, transfer: Tensor, weights: Tensor
    ) -> None:
        self.field, self.times, self.stages = field, times.flatten(0, 1), stages.flatten(0, 1)
        self.transfer, self.weights = transfer, weights
        self.seen: dict[int, Tensor] = {}
        self.slopes: Tensor | None = None

    def pull(self, k: int, cotangent: Tensor) -> Tensor:
        """Return the cotangent at the start of step k."""
        self.seen[k] = cotangent[0]
        return torch.bmm(self.transfer[k], cotangent[0, :, :, None])[None, ..., 0]

    def gradients(self) -> list[Tensor]:
        """Return the gradients for the parameters: one call of f for all steps."""
        cotangents = torch.stack([self.seen[k] for k in range(len(self.transfer))])
        mu = (self.weights @ cotangents[:, None, :, :, None])[..., 0].flatten(0, 1)
        return self.field.vjp(self.times, self.stages, mu)

    def push(self, k: int, tangent: Tensor) -> Tensor:
        """Return the tangent at the end of step k."""
        if self.slopes is None:
            slopes = self.field.param_jacobian(self.times, self.stages)
            self.slopes = slopes.reshape(*self.weights.shape[:-1], -1)
        source = (self.weights[k].mT @ self.slopes[k]).sum(0)
        initial = tangent.shape[-1] - source.shape[-1]  # columns of y0 come after those of the parameters
        source = torch.nn.functional.pad(source, (0, initial))
        return (self.transfer[k].mT @ tangent[0] + source)[None]


def linearise(field: Field, tableau: Tableau, steps: Steps) -> MatrixLinearised:
    """Return the derivative of K Runge-Kutta steps."""
    stages, h = steps.stages, steps.h.to(steps.stages.dtype)
    times = steps.t[:, None] + tableau.c.to(steps.t.dtype)[None, :, None] * steps.h[:, None]
    slopes = field.jacobian(times.flatten(0, 1), stages.flatten(0, 1))
    hj = slopes.reshape(*stages.shape, -1).mT * h[:, None, :, None, None]
    if bool((h == 0).any()):  # rows that stay where they are, perhaps where J is not finite
        hj = torch.where((h != 0)[:, None, :, None, None], hj, hj.new_zeros(()))
    solve = _substitute if tableau.triangular else _dense
    x = solve(tableau, hj)
    eye = torch.eye(stages.shape[-1], dtype=stages.dtype, device=stages.device)
    if len(tableau.b) == 1:
        scaled = x * (tableau.a[0, 0] * h)[:, None, :, None, None]
    else:
        scaled = h[:, None, :, None, None] * torch.einsum("ij,kibpq->kjbpq", tableau.a, x)
    if tableau.d is None:
        transfer = eye + x.sum(1)
        scaled = scaled + h[:, None, :, None, None] * tableau.b[None, :, None, None, None] * eye
    else:
        transfer = x.sum(1)
        transfer.diagonal(dim1=-2, dim2=-1).add_(1 - tableau.d.sum())
    return MatrixLinearised(field, times, stages, transfer, scaled)


def _right_hand_sides(tableau: Tableau, hj: Tensor) -> Tensor:
    """Return d_i I, or h b_i J_i^T where no d exists, (K, s, B, n, n); ``hj`` holds h J^T."""
    if tableau.d is None:
        return tableau.b[None, :, None, None, None] * hj
    eye = torch.eye(hj.shape[-1], dtype=hj.dtype, device=hj.device)
    return (tableau.d[None, :, None, None, None] * eye).expand_as(hj)


def _substitute(tableau: Tableau, hj: Tensor) -> Tensor:
    """Solve M^T x = rhs for a triangular A: stage by stage from the last."""
    rhs = _right_hand_sides(tableau, hj)
    eye = torch.eye(hj.shape[-1], dtype=hj.dtype, device=hj.device)
    a, s = tableau.a, len(tableau.b)
    solved: dict[int, Tensor] = {}
    for i in reversed(range(s)):
        if i == s - 1 and tableau.d is not None and a[i, i] != 0:
            solved[i] = tableau.d[i] * torch.linalg.inv(eye - a[i, i] * hj[:, i])
            continue
        right = rhs[:, i]
        later = [float(a[j, i]) * solved[j] for j in range(i + 1, s) if a[j, i] != 0]
        if later:
            right = right + hj[:, i] @ torch.stack(later).sum(0)
        solved[i] = right if a[i, i] == 0 else torch.linalg.solve(eye - a[i, i] * hj[:, i], right)
    return torch.stack([solved[i] for i in range(s)], dim=1)


def _dense(tableau: Tableau, hj: Tensor) -> Tensor:
    """Solve M^T x = rhs for a full A: one block matrix of size s·n for each step and row."""
    k, s, batch, n, _ = hj.shape
    blocks = -torch.einsum("ij,kjbpq->kbjpiq", tableau.a, hj).reshape(k, batch, s * n, s * n)
    blocks.diagonal(dim1=-2, dim2=-1).add_(1)
    rhs = _right_hand_sides(tableau, hj).transpose(1, 2).reshape(k, batch, s * n, n)
    solution: Tensor = torch.linalg.solve(blocks, rhs)
    return solution.reshape(k, batch, s, n, n).transpose(1, 2)
