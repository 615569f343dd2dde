"""Damped linear least squares for many dampings from one factorisation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ntangent._base.errors import ConvergenceError

# The stubs do not export it.
LinAlgError: type[RuntimeError] = torch.linalg.LinAlgError  # type: ignore[attr-defined]

Kind = Literal["gram", "cholesky", "qr", "svd"]

# "auto" trusts the Gram matrix while the damping exceeds this multiple of eps·|J|². Its entries carry
# an error of about eps·|J|², so the damped components of a step are then right to about one percent
# (the others better), which costs a Gauss-Newton iteration nothing; below, digits of the step go.
MARGIN = 100.0

BLOCK = 128  # columns of a block of J'J


# From this size on, a triangular factor for each damping is cheaper than one decomposition for all of them:
# at 900 columns Cholesky takes a tenth of the time of an eigendecomposition, two QR factorisations a third
# of that of the SVD.
LARGE = 256


def choose(damping: float, size: float, eps: float, count: int = 0) -> Kind:
    """Return which factorisation serves a damping, for |J| (Frobenius) = ``size``, min(M, P) = ``count``."""
    if damping / size > MARGIN * eps * size:
        return "cholesky" if count >= LARGE else "gram"
    return "qr" if count >= LARGE else "svd"


def smallest_damping(kind: Kind, size: float, eps: float) -> float:
    """Return the damping below which the factorisation shows only its own rounding errors.

    Singular values of J are known to eps·|J|; those of the Gram matrix, which are their squares, to
    eps·|J|², so that the normal equations lose half the digits.
    """
    return (eps * size) ** 2 if kind in ("qr", "svd") else eps * size * size


@dataclass(frozen=True)
class Damped:
    """The solution operator of min |J d + b|² + damping·|d|² for every b and damping.

    Two forms share the fields. With k = min(M, P):

    - "gram": ``vectors`` (k, k) and ``squares`` (k,) are the eigendecomposition of the smaller of
      J'J and J J'; ``left`` and ``values`` are not used.
    - "svd": J = left diag(values) vectors', with shapes (M, k), (k,), (P, k).

    Args:
        kind: which form.
        jacobian: J, shape (M, P).
        vectors: see above.
        squares: squared singular values, shape (k,), not negative.
        left: left singular vectors or an empty tensor.
        rank: how many singular values stand above the rounding errors of the factorisation.
    """

    kind: Kind
    jacobian: Tensor
    vectors: Tensor
    squares: Tensor
    left: Tensor
    rank: int

    @property
    def wide(self) -> bool:
        """Whether there are fewer residuals than parameters."""
        return self.jacobian.shape[0] < self.jacobian.shape[1]

    def coefficients(self, b: Tensor) -> Tensor:
        """Return what a solution and its reduction need of ``b``, shape (M,); the result has shape (k,).

        It is the component along each left singular vector; times the singular value in the tall
        "gram" form, which has no left vectors.
        """
        if self.kind == "svd":
            return self.left.T @ b
        return self.vectors.T @ (b if self.wide else self.jacobian.T @ b)

    def solve(self, c: Tensor, damping: float) -> Tensor:
        """Return d = -(J'J + damping)⁻¹ J' b, shape (P,), for the coefficients ``c`` of b. Cost O(k P)."""
        filtered = -c / (self.squares + damping)
        if self.kind == "svd":
            return self.vectors @ (self.squares.sqrt() * filtered)
        d = self.vectors @ filtered
        return self.jacobian.T @ d if self.wide else d

    def reduction(self, c: Tensor, damping: float) -> float:
        """Return |b|² - |b + J d|² for the solution d, as a sum of non-negative terms (no cancellation)."""
        share = (self.squares + 2 * damping) / (self.squares + damping)
        if self.kind == "gram" and not self.wide:
            return float((c * (c / (self.squares + damping)) * share).sum())
        return float((c * c * (self.squares / (self.squares + damping)) * share).sum())


@dataclass
class Normal:
    """The same operator by a Cholesky factorisation of the smaller Gram matrix for each damping.

    Args:
        jacobian: J, shape (M, P).
        gram: J'J or J J', shape (k, k).
    """

    jacobian: Tensor
    gram: Tensor
    rank: None = None  # unknown without singular values
    _factor: tuple[float, Tensor] | None = field(default=None, init=False)

    @property
    def wide(self) -> bool:
        """Whether there are fewer residuals than parameters."""
        return self.jacobian.shape[0] < self.jacobian.shape[1]

    def coefficients(self, b: Tensor) -> Tensor:
        """Return what a solution and its reduction need of ``b``, shape (M,); the result has shape (k,)."""
        return b if self.wide else self.jacobian.T @ b

    def solve(self, c: Tensor, damping: float) -> Tensor:
        """Return d = -(J'J + damping)⁻¹ J' b, shape (P,), for the coefficients ``c`` of b.

        Cost: k³/3 multiplications for a new damping, O(k P) otherwise.
        """
        if self._factor is None or self._factor[0] != damping:
            shifted = self.gram.clone()
            shifted.diagonal().add_(damping)
            triangle, failed = torch.linalg.cholesky_ex(shifted)
            if failed:  # rounding errors of J'J are larger than the damping
                squares, vectors = torch.linalg.eigh(self.gram)
                triangle = torch.linalg.qr((vectors * (squares.clamp_min(0) + damping).sqrt()).T).R.T
            self._factor = damping, triangle
        d = torch.cholesky_solve(-c[:, None], self._factor[1])[:, 0]
        return self.jacobian.T @ d if self.wide else d

    def reduction(self, c: Tensor, damping: float) -> float:
        """Return |b|² - |b + J d|² = -g·d + damping·|d|² with g = J'b: two terms that are not negative."""
        d = self.solve(c, damping)
        g = self.jacobian.T @ c if self.wide else c
        return float(damping * (d @ d) - g @ d)


@dataclass
class Triangular:
    """The same operator by orthogonal transformations alone: QR of J, then of its factor above √damping·I.

    Nothing is squared, so it has the digits of the singular value decomposition.

    Args:
        jacobian: J, shape (M, P).
    """

    jacobian: Tensor
    rank: None = None  # unknown without singular values
    _damped: tuple[float, Tensor, Tensor] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._reflections = torch.geqrf(self.jacobian.T if self.wide else self.jacobian)
        k = min(self.jacobian.shape)
        self._triangle = self._reflections[0][:k].triu()

    @property
    def wide(self) -> bool:
        """Whether there are fewer residuals than parameters."""
        return self.jacobian.shape[0] < self.jacobian.shape[1]

    def coefficients(self, b: Tensor) -> Tensor:
        """Return what a solution and its reduction need of ``b``, shape (M,); the result has shape (k,)."""
        return b if self.wide else _turned(self._reflections, b, back=True)[: self.jacobian.shape[1]]

    def solve(self, c: Tensor, damping: float) -> Tensor:
        """Return d = -(J'J + damping)⁻¹ J' b, shape (P,), for the coefficients ``c`` of b.

        Cost: 10 k³/3 multiplications for a new damping, O(k (M + P)) otherwise.
        """
        reflections = self._with(damping)
        k = len(c)
        triangle, none = reflections[0][:k].triu(), c.new_zeros(k)
        if not self.wide:
            turned = _turned(reflections, torch.cat([c, none]), back=True)[:k]
            found: Tensor = torch.linalg.solve_triangular(triangle, turned[:, None], upper=True)
            return -found[:, 0]
        inner = torch.linalg.solve_triangular(triangle.mT, c[:, None], upper=False)[:, 0]
        top = _turned(reflections, torch.cat([inner, none]), back=False)[:k]
        rest = c.new_zeros(self.jacobian.shape[1] - k)
        return -_turned(self._reflections, torch.cat([top, rest]), back=False)

    def reduction(self, c: Tensor, damping: float) -> float:
        """Return |b|² - |b + J d|² = -b·J d + damping·|d|² for the solution d: not negative both."""
        d = self.solve(c, damping)
        moved = self.jacobian @ d if self.wide else self._triangle @ d
        return float(damping * (d @ d) - c @ moved)

    def _with(self, damping: float) -> tuple[Tensor, Tensor]:
        """Return the QR factorisation of the triangular factor above √damping·I."""
        if self._damped is None or self._damped[0] != damping:
            below = torch.eye(len(self._triangle)).to(self._triangle) * damping**0.5
            self._damped = damping, *torch.geqrf(torch.cat([self._triangle, below]))
        return self._damped[1:]


def _turned(reflections: tuple[Tensor, Tensor], b: Tensor, *, back: bool) -> Tensor:
    """Return Q b, or Q'b where ``back`` is set, for all columns of Q."""
    turned: Tensor = torch.ormqr(*reflections, b[:, None], transpose=back)
    return turned[:, 0]


def factorise(jacobian: Tensor, kind: Kind) -> Damped | Normal | Triangular:
    """Factorise J, shape (M, P); a failed eigendecomposition falls back to "svd".

    Cost, with k = min(M, P) and n = max(M, P): "gram" n k² multiplications plus an eigendecomposition
    of size k; "cholesky" n k² and then k³/3 for each damping; "qr" 2 n k² and then 10 k³/3 for each
    damping; "svd" about 2 n k² for the QR, 2 n k² for its orthogonal factor, plus an SVD of size k.
    """
    if kind == "qr":
        return Triangular(jacobian)
    if kind == "cholesky":
        return Normal(jacobian, _square(jacobian.T if len(jacobian) < jacobian.shape[1] else jacobian))
    if kind == "gram":
        try:
            return _gram(jacobian)
        except LinAlgError:
            pass
    try:
        return _svd(jacobian)
    except LinAlgError as error:
        raise ConvergenceError(
            f"the factorisation of the Jacobian of shape {tuple(jacobian.shape)} failed: {error}",
            "its entries are finite but span too many orders of magnitude",
            "scale the residuals, or use float64",
        ) from error


def _gram(jacobian: Tensor) -> Damped:
    wide = jacobian.shape[0] < jacobian.shape[1]
    gram = _square(jacobian.T if wide else jacobian)
    squares, vectors = torch.linalg.eigh(gram)
    # Rounding makes small eigenvalues negative.
    squares = squares.clamp_min(0)
    noise = max(jacobian.shape) * torch.finfo(jacobian.dtype).eps * float(squares.max())
    return Damped("gram", jacobian, vectors, squares, jacobian.new_empty(0), int((squares > noise).sum()))


def _square(a: Tensor) -> Tensor:
    """Return A'A, (k, k), from blocks on and above the diagonal: half of the multiplications for many."""
    count = a.shape[1]
    if count <= 2 * BLOCK:
        return a.T @ a
    gram = a.new_empty(count, count)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        torch.mm(a[:, start:stop].T, a[:, start:], out=gram[start:stop, start:])
        gram[stop:, start:stop] = gram[start:stop, stop:].T
    return gram


def _svd(jacobian: Tensor) -> Damped:
    wide = jacobian.shape[0] < jacobian.shape[1]
    q, triangle = torch.linalg.qr(jacobian.T if wide else jacobian)
    u, values, vh = torch.linalg.svd(triangle)
    # J = Q T = (Q U) S V', or for a wide J: J' = Q T, so J = V S (Q U)'.
    left, right = (vh.T, q @ u) if wide else (q @ u, vh.T)
    noise = max(jacobian.shape) * torch.finfo(jacobian.dtype).eps * float(values.max())
    return Damped("svd", jacobian, right, values * values, left, int((values > noise).sum()))
