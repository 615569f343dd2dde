"""Damped least squares from products with J alone: conjugate gradients and a randomised sketch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent._base.protocols import Linearisation
from ntangent.optim._stage import norm

Operator = Callable[[Tensor], Tensor]
POWER_STEPS = 8


@dataclass(frozen=True)
class Gram:
    """The smaller of J'J and J J' as an operator on vectors of length k = min(M, P).

    With fewer residuals than parameters the step is found in the space of residuals (Woodbury):
    (J'J + μ)⁻¹ J' = J' (J J' + μ)⁻¹.
    """

    linear: Linearisation
    parameters: int

    @property
    def wide(self) -> bool:
        """Whether there are fewer residuals than parameters."""
        return len(self.linear.residual) < self.parameters

    @property
    def size(self) -> int:
        """Length of the vectors it acts on."""
        return min(len(self.linear.residual), self.parameters)

    def __call__(self, v: Tensor) -> Tensor:
        """Return J J' v or J'J v: two products."""
        linear = self.linear
        return linear.jvp(linear.vjp(v)) if self.wide else linear.vjp(linear.jvp(v))

    @property
    def right(self) -> Tensor:
        """The right-hand side of the equation for the step."""
        return self.linear.residual if self.wide else self.linear.vjp(self.linear.residual)

    def step(self, y: Tensor) -> Tensor:
        """Return the step -(J'J + μ)⁻¹ J'r, shape (P,), from the solution of (Gram + μ) y = right."""
        return -(self.linear.vjp(y) if self.wide else y)


@dataclass(frozen=True)
class Sketch:
    """A ≈ U diag(values) U' of low rank, from products with random vectors.

    Source: Frangella, Tropp & Udell, Randomized Nyström Preconditioning, arXiv 2110.02820, algorithm
    2.1 and equation (1.3).

    Args:
        vectors: U, shape (k, l), orthonormal.
        values: shape (l,), not negative, descending.
    """

    vectors: Tensor
    values: Tensor

    def precondition(self, v: Tensor, damping: float) -> Tensor:
        """Return P⁻¹ v for the preconditioner of (A + damping)."""
        parts = self.vectors.T @ v
        weights = (self.values[-1] + damping) / (self.values + damping) - 1
        return v + self.vectors @ (weights * parts)

    def solve(self, v: Tensor, damping: float) -> Tensor:
        """Return (U diag(values) U' + damping)⁻¹ v."""
        parts = self.vectors.T @ v
        return v / damping + self.vectors @ ((1 / (self.values + damping) - 1 / damping) * parts)


def sketch(operator: Operator, like: Tensor, rank: int, seed: int) -> Sketch:
    """Return the Nyström sketch of a positive semidefinite operator. Cost: ``rank`` applications, O(k l²).

    Args:
        operator: v -> A v on vectors of length k.
        like: any vector of that length.
        rank: l, at most k is used.
        seed: seed of the random vectors.
    """
    generator = torch.Generator().manual_seed(seed)
    rank = min(rank, len(like))
    omega = torch.randn(len(like), rank, generator=generator, dtype=torch.float64).to(like)
    omega = torch.linalg.qr(omega)[0]
    image = torch.stack([operator(column) for column in omega.T], 1)
    # The shift keeps the small matrix positive definite in the presence of rounding.
    shift = torch.finfo(like.dtype).eps * float(image.norm())
    if shift == 0:
        return Sketch(omega, like.new_zeros(rank))
    small = omega.T @ image
    small = (small + small.T) / 2
    small.diagonal().add_(shift)
    values, vectors = torch.linalg.eigh(small)
    # B = (Y + shift Ω) S^(-1/2), by eigenvectors: Cholesky may fail where rank is above that of A.
    factor = vectors / values.clamp_min(shift).sqrt()
    u, s, _ = torch.linalg.svd((image + shift * omega) @ factor, full_matrices=False)
    return Sketch(u, (s * s - shift).clamp_min(0))


def largest(operator: Operator, like: Tensor, seed: int) -> float:
    """Return an estimate from below of the largest eigenvalue, by the power method."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(len(like), generator=generator, dtype=torch.float64).to(like)
    size = 0.0
    for _ in range(POWER_STEPS):
        length = norm(v)
        if length == 0:
            return 0.0
        v = operator(v / length)
        size = norm(v)
    return size


@dataclass(frozen=True)
class Solved:
    """A solution of a linear system, how many products it took, and its relative residual."""

    y: Tensor
    products: int
    residual: float


def conjugate_gradients(
    operator: Operator, b: Tensor, damping: float, precondition: Operator, *, accuracy: float, budget: int
) -> Solved:
    """Solve (A + damping) y = b from y = 0.

    ``scipy.sparse.linalg.cg`` would do on the CPU; it knows no tensors on other devices.

    Args:
        operator: v -> A v, positive semidefinite.
        b: right-hand side, shape (k,).
        damping: added to the operator.
        precondition: v -> P⁻¹ v.
        accuracy: relative residual at which to stop.
        budget: largest number of products with A.
    """
    y, r = torch.zeros_like(b), b.clone()
    target, products = accuracy * norm(b), 0
    z = precondition(r)
    p, rz = z, float(torch.dot(r, z))
    while products < budget and norm(r) > target and rz > 0:
        ap = operator(p) + damping * p
        products += 1
        curvature = float(torch.dot(p, ap))
        if not curvature > 0:
            break  # rounding: the directions found so far still give a descent
        alpha = rz / curvature
        y, r = y + alpha * p, r - alpha * ap
        z = precondition(r)
        before, rz = rz, float(torch.dot(r, z))
        p = z + (rz / before) * p
    size = norm(b)
    return Solved(y, products, norm(r) / size if size else 0.0)
