"""Singular values, and what they say about training: cut-offs, entropies, predicted losses.

The definitions follow Chen, Yang, Xiang & Hao (2025, J. Sci. Comput. 104, arXiv 2405.14099) as far as
these are public; the truncated entropy there is known in words only, so its candidates have names here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import FLOATS, check_choice, check_finite, check_positive
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError
from ntangent._base.extras import require_extra
from ntangent.diagnose.precise import double_double_singular_values, mpmath_singular_values
from ntangent.diagnose.snapshot import Measure, Snapshot, measures

ENTROPIES = ("plain", "exponential", "normalised")
Product = Callable[[Tensor], Tensor]


def singular_values(matrix: Any, precision: str | int = "lapack") -> Tensor:
    """Return the singular values of a matrix, largest first.

    Args:
        matrix: shape (N, M), float32 or float64; or an ``mpmath.matrix`` when ``precision`` is a number.
        precision: "lapack" computes in the matrix's own type; "float64" casts first;
            "double-double" carries about 31 digits (one-sided Jacobi); an integer that many decimal
            digits by mpmath (extra ``diagnose``). Values below eps·σ₁ are noise in the precision used.

    Returns:
        Shape (min(N, M),), in the matrix's type, float64 for the higher precisions.

    Raises:
        ShapeError, DtypeError, NonFiniteError: on a matrix that cannot be used.
        MissingExtraError: if mpmath is needed and not installed.

    Cost:
        O(N M min(N, M)); for a 100x100 matrix about 2 ms by LAPACK and 3 s in double-double, for 24x24
        about 1 s with 60 digits.
    """
    if isinstance(precision, int) and not isinstance(precision, bool):
        return mpmath_singular_values(matrix, check_positive(precision, "precision", integer=True))
    check_choice(str(precision), ("lapack", "float64", "double-double"), "precision")
    check_matrix(matrix, "matrix")
    if precision == "double-double":
        return double_double_singular_values(matrix)
    found: Tensor = torch.linalg.svdvals(
        matrix.detach().double() if precision == "float64" else matrix.detach()
    )
    return found


def leading_singular_values(
    matrix: Tensor | tuple[Product, Product, tuple[int, int]],
    count: int,
    method: str = "lanczos",
    generator: torch.Generator | int = 0,
) -> Tensor:
    """Return the largest singular values of a large matrix, or of one known by its products only.

    Args:
        matrix: shape (N, M); or the products v -> A v and u -> Aᵀ u with the shape (N, M).
        count: how many, below min(N, M).
        method: "lanczos" (ARPACK through scipy, extra ``diagnose``) finds them to full precision;
            "randomised" (Halko, Martinsson & Tropp 2011) with two power iterations and 10 extra
            vectors costs a few products and errs where the spectrum is flat.
        generator: start vectors, a generator or a seed.

    Returns:
        Shape (count,), largest first, float64.

    Cost:
        A few times ``count`` products with the matrix and its transpose.
    """
    check_choice(method, ("lanczos", "randomised"), "method")
    forward, backward, shape = _products(matrix)
    check_positive(count, "count", integer=True)
    if count >= min(shape):
        raise ArgumentError(
            f"{count} singular values of a matrix of shape {shape}",
            "iterative methods find fewer than all",
            "singular_values(matrix)",
        )
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)
    if method == "lanczos":
        return _lanczos(forward, backward, shape, count, generator)
    width = min(count + 10, *shape)
    basis = torch.randn(shape[1], width, dtype=torch.float64, generator=generator)
    for _ in range(3):
        range_of, _ = torch.linalg.qr(_columns(forward, basis))
        basis, small = torch.linalg.qr(_columns(backward, range_of))
    found: Tensor = torch.linalg.svdvals(small)
    return found[:count]


def _columns(product: Product, block: Tensor) -> Tensor:
    return torch.stack([product(v).detach().double().reshape(-1) for v in block.T], 1)


def _lanczos(
    forward: Product, backward: Product, shape: tuple[int, int], count: int, generator: torch.Generator
) -> Tensor:
    require_extra("diagnose", "singular values by the Lanczos method")
    from scipy.sparse.linalg import LinearOperator, svds

    def product(f: Product) -> Callable[[Any], Any]:
        return lambda v: f(torch.from_numpy(v.copy()).double().reshape(-1)).detach().double().cpu().numpy()

    operator = LinearOperator(shape, matvec=product(forward), rmatvec=product(backward), dtype="float64")
    start = torch.randn(min(shape), dtype=torch.float64, generator=generator).numpy()
    values = svds(operator, k=count, v0=start, return_singular_vectors=False)
    return torch.from_numpy(values.copy()).sort(descending=True).values


def _products(matrix: Any) -> tuple[Product, Product, tuple[int, int]]:
    if isinstance(matrix, Tensor):
        a = check_matrix(matrix, "matrix").detach()
        return (lambda v: a @ v.to(a)), (lambda u: a.T @ u.to(a)), (a.shape[0], a.shape[1])
    if not (isinstance(matrix, tuple) and len(matrix) == 3 and callable(matrix[0]) and callable(matrix[1])):
        raise DtypeError(
            f"matrix is {type(matrix).__name__}", "", "(lambda v: A @ v, lambda u: A.T @ u, (N, M))"
        )
    return matrix[0], matrix[1], (int(matrix[2][0]), int(matrix[2][1]))


def check_matrix(matrix: Any, name: str) -> Tensor:
    """Return ``matrix`` if it is a finite floating tensor with two axes and at least one entry."""
    if not isinstance(matrix, Tensor) or matrix.dtype not in FLOATS:
        kind = matrix.dtype if isinstance(matrix, Tensor) else type(matrix).__name__
        raise DtypeError(f"{name} is {kind}", "", "a float32 or float64 tensor")
    if matrix.ndim != 2 or not matrix.numel():
        raise ShapeError(f"{name} has shape {tuple(matrix.shape)}", "it has rows and columns", "(N, M)")
    return check_finite(matrix, name)


def check_values(values: Any) -> Tensor:
    """Return singular values, sorted, if there are any and none is negative."""
    found = torch.as_tensor(values, dtype=torch.float64).detach().reshape(-1)
    check_finite(found, "values")
    if not len(found) or bool((found < 0).any()):
        raise ArgumentError("values must be singular values >= 0, at least one", "", "singular_values(A)")
    return found.sort(descending=True).values


def training_kernel(jacobian: Tensor) -> Tensor:
    """Return K = J Jᵀ of the residual rows, shape (N, N); its eigenvalues are the squared singular values."""
    j = check_matrix(jacobian, "jacobian").detach()
    return j @ j.T


def effective_cutoff(values: Tensor, threshold: float, relative: bool = False) -> int:
    """Return n(a), how many singular values are at least the threshold (A.3).

    Args:
        values: singular values.
        threshold: a > 0.
        relative: compare with a·σ₁ instead of a.
    """
    return len(_kept(values, threshold, relative))


def truncated_entropy(values: Tensor, threshold: float, kind: str = "plain", relative: bool = False) -> float:
    """Return the entropy of the singular values above a threshold.

    With p_k = σ_k / Σσ over the n kept values:
        plain         H  = -Σ p_k ln p_k, between 0 and ln n;
        exponential   exp(H), the effective rank (Roy & Vetterli 2007), between 1 and n;
        normalised    H / ln n, between 0 and 1.
    Only the normalised one tells a matrix of finite differences from the exact one: their extra small
    values change n and carry no mass.

    Args:
        values: singular values.
        threshold: a > 0.
        kind: which of the three.
        relative: keep σ_k >= a·σ₁ instead of σ_k >= a.

    Returns:
        A number; NaN where no value is kept, and for "normalised" where only one is (0/0).
    """
    check_choice(kind, ENTROPIES, "kind")
    kept = _kept(values, threshold, relative)
    if not len(kept) or not float(kept.sum()):
        return math.nan
    p = kept / kept.sum()
    plain = float(torch.special.entr(p).sum())
    if kind == "normalised":
        return plain / math.log(len(kept)) if len(kept) > 1 else math.nan
    return math.exp(plain) if kind == "exponential" else plain


def _kept(values: Tensor, threshold: float, relative: bool) -> Tensor:
    found = check_values(values)
    check_positive(threshold, "threshold")
    return found[found >= threshold * (float(found[0]) if relative else 1.0)]


def stable_rank(values: Tensor) -> float:
    """Return |A|_F² / |A|₂² from the singular values, between 1 and the rank; NaN for the zero matrix."""
    found = check_values(values)
    return float((found / found[0]).square().sum()) if float(found[0]) else math.nan


def condition_number(values: Tensor) -> float:
    """Return σ₁ / σ_min from the singular values; infinite where the smallest is zero."""
    found = check_values(values)
    return float(found[0]) / float(found[-1]) if float(found[-1]) else math.inf


@dataclass(frozen=True)
class GradientFlow:
    """What linear gradient flow does to a residual.

    Args:
        rates: eigenvalues of the kernel, σ_i², shape (K,), largest first.
        modes: squared coefficients of the residual along the kernel's eigenvectors, shape (K,).
        rest: squared part of the residual that no parameter moves.
    """

    rates: Tensor
    modes: Tensor
    rest: float

    def loss(self, times: Tensor | float, step: float | None = None) -> Tensor:
        """Return the predicted |r|² at several times.

        Args:
            times: with ``step`` None the time t of the flow θ' = -∇ ½|r|²: mode i falls as
                exp(-2 σ_i² t); otherwise numbers T of steps of gradient descent of that length:
                (1 - step σ_i²)^(2T).
            step: learning rate for ½|r|².

        Returns:
            Shape of ``times``, float64.
        """
        per_mode = self.loss_per_mode(times, step)
        return self.rest + per_mode.sum(-1)

    def loss_per_mode(self, times: Tensor | float, step: float | None = None) -> Tensor:
        """Return the part of every mode, shape (*times, K)."""
        t = torch.as_tensor(times, dtype=torch.float64)[..., None]
        if step is None:
            return self.modes * torch.exp(-2 * self.rates * t)
        check_positive(step, "step")
        return self.modes * (1 - step * self.rates).abs() ** (2 * t)


def gradient_flow_loss(matrix: Tensor, residual: Tensor, of: str = "jacobian") -> GradientFlow:
    """Return the modes of linear gradient flow on ½|r|², r' = -K r with K = J Jᵀ.

    Args:
        matrix: the Jacobian J, shape (N, P), or the kernel K, shape (N, N), symmetric.
        residual: r at the start, shape (N,).
        of: "jacobian" or "kernel".

    Cost:
        One singular value or eigenvalue decomposition.
    """
    check_choice(of, ("jacobian", "kernel"), "of")
    a = check_matrix(matrix, "matrix").detach().double()
    r = check_finite(torch.as_tensor(residual).detach().double().reshape(-1), "residual")
    if len(r) != len(a) or (of == "kernel" and a.shape[0] != a.shape[1]):
        raise ShapeError(
            f"a {of} of shape {tuple(a.shape)} and {len(r)} residuals", "one row for each residual", "(N, P)"
        )
    if of == "kernel":
        rates, vectors = torch.linalg.eigh(a)
        rates, vectors = rates.clamp_min(0).flip(0), vectors.flip(1)
    else:
        vectors, sigma, _ = torch.linalg.svd(a, full_matrices=False)
        rates = sigma.square()
    modes = (vectors.T @ r).square()
    # As a norm of what is left, not as a difference of squares, which would lose half the digits.
    rest = float((r - vectors @ (vectors.T @ r)).square().sum())
    return GradientFlow(rates, modes, rest)


@dataclass(frozen=True)
class Spectrum:
    """Singular values with their summary at one threshold.

    Args:
        values: shape (K,), largest first.
        threshold: what counts as kept, absolute.
        cutoff: n(a).
        entropy: truncated entropy.
        effective_rank: its exponential.
        normalised_entropy: entropy over ln n.
        stable_rank: |A|_F² / |A|₂².
        condition: σ₁ / σ_min.
    """

    values: Tensor
    threshold: float
    cutoff: int
    entropy: float
    effective_rank: float
    normalised_entropy: float
    stable_rank: float
    condition: float

    def numbers(self) -> dict[str, float]:
        """Return the summary without the values."""
        return {
            "largest": float(self.values[0]),
            "smallest": float(self.values[-1]),
            "cutoff": float(self.cutoff),
            "entropy": self.entropy,
            "effective_rank": self.effective_rank,
            "normalised_entropy": self.normalised_entropy,
            "stable_rank": self.stable_rank,
            "condition": self.condition,
        }


def spectrum(
    matrix: Any, threshold: float = 1e-10, relative: bool = False, precision: str | int = "lapack"
) -> Spectrum:
    """Return the singular values of a matrix and their summary; see the functions of the same names."""
    values = singular_values(matrix, precision)
    bound = threshold * float(values[0]) if relative and float(values[0]) else threshold
    return Spectrum(
        values,
        bound,
        effective_cutoff(values, bound),
        truncated_entropy(values, bound),
        truncated_entropy(values, bound, "exponential"),
        truncated_entropy(values, bound, "normalised"),
        stable_rank(values),
        condition_number(values),
    )


def _measure(snapshot: Snapshot) -> dict[str, float | Tensor]:
    _, jacobian = snapshot.residuals_and_jacobian
    # The eigenvalues that matter lie above round-off of the largest.
    found = spectrum(jacobian, float(torch.finfo(jacobian.dtype).eps), relative=True)
    return {**found.numbers(), "values": found.values}


SPECTRUM = measures.add(
    "spectrum",
    Measure(
        "spectrum", "the Jacobian, and O(M P min(M, P)) for its singular values", ("objective",), _measure
    ),
)
