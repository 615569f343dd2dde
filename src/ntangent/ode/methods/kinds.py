"""The other kinds of methods: Rosenbrock, implicit-explicit, multistep, Taylor, exponential."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from ntangent.ode.algebraic import Number, approximate
from ntangent.ode.methods.base import Matrix, Method, RungeKutta, Vector, as_tensor, row_sums
from ntangent.ode.methods.proof import prove_additive, prove_exponential, prove_rosenbrock, refuse
from ntangent.ode.polynomial import Polynomial, add, divide, is_hurwitz, multiply, power, scale
from ntangent.ode.stability import (
    BackwardDifferentiationStability,
    RationalStability,
    Stability,
    exponential_stability,
    pade,
    rational_stability,
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Rosenbrock(Method):
    """A Rosenbrock (ROW) method with the exact Jacobian J (Hairer & Wanner II, IV.7).

    (I - hγJ) k_i = f(t + α_i h, y + h Σ α_ij k_j) + hJ Σ_{j<i} γ_ij k_j + h γ_i ∂f/∂t,
    y₁ = y + h Σ b_i k_i.

    Args:
        alpha: α_ij, strictly lower triangular.
        gamma: γ_ij, lower triangular with the constant diagonal γ.
        b: weights.
        b_error: weights of the embedded solution, or None.
    """

    alpha: Matrix
    gamma: Matrix
    b: Vector
    b_error: Vector | None = None

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.b)

    @property
    def implicit(self) -> bool:
        """Whether a step solves equations: linear ones."""
        return True

    @property
    def diagonal(self) -> Number:
        """The γ of the matrix I - hγJ."""
        return self.gamma[0][0]

    @functools.cached_property
    def alpha_sums(self) -> Vector:
        """Nodes α_i = Σ α_ij."""
        return row_sums(self.alpha)

    @functools.cached_property
    def gamma_sums(self) -> Vector:
        """γ_i = Σ γ_ij, diagonal included: the weights of ∂f/∂t."""
        return row_sums(self.gamma)

    @functools.cached_property
    def beta(self) -> Matrix:
        """α + γ: the method as a Runge-Kutta method on linear problems."""
        pairs = zip(self.alpha, self.gamma, strict=True)
        return tuple(tuple(a + g for a, g in zip(x, y, strict=True)) for x, y in pairs)

    @functools.cached_property
    def stiffly_accurate(self) -> bool:
        """Whether b is the last row of α + γ and α_s = 1."""
        gaps = [x - y for x, y in zip(self.beta[-1], self.b, strict=True)]
        return all(abs(approximate(x)) <= self.rounding for x in (*gaps, self.alpha_sums[-1] - 1))

    def tensors(
        self, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return alpha, gamma, b and b_error (or None), each rounded once from the exact numbers."""
        error = None if self.b_error is None else as_tensor(self.b_error, dtype, device)
        return (
            as_tensor(self.alpha, dtype, device),
            as_tensor(self.gamma, dtype, device),
            as_tensor(self.b, dtype, device),
            error,
        )

    @functools.cached_property
    def analysis(self) -> Stability:
        """The stability function with all that is proved about it."""
        return rational_stability(self.beta, self.b, self.order, self.rounding)

    @property
    def stage_order(self) -> int:
        """The arguments of f are accurate to first order; the linear terms mend the rest."""
        return 1

    def prove(self) -> None:
        """Check shape, order conditions and the embedded solution; see :class:`Method`."""
        prove_rosenbrock(self)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AdditiveRungeKutta(Method):
    """An implicit-explicit pair for y' = f_explicit + f_implicit; both tableaux share b and c.

    Its stability function is that of the implicit part.

    Args:
        explicit_part: tableau of the explicit part.
        implicit_part: tableau of the implicit part.
    """

    explicit_part: RungeKutta
    implicit_part: RungeKutta

    @property
    def explicit(self) -> RungeKutta:
        """Tableau of the explicit part."""
        return self.explicit_part

    @property
    def implicit(self) -> bool:
        """Whether a step solves equations."""
        return True

    @property
    def stages(self) -> int:
        """Number of stages."""
        return self.implicit_part.stages

    @functools.cached_property
    def analysis(self) -> Stability:
        """The stability function of the implicit part."""
        return self.implicit_part.analysis

    @property
    def stage_order(self) -> int:
        """The smaller one of the two."""
        return min(self.explicit_part.stage_order, self.implicit_part.stage_order)

    def prove(self) -> None:
        """Check both parts and their coupling over trees of two colours; see :class:`Method`."""
        prove_additive(self)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Multistep(Method):
    """The backward differentiation formula of k steps: Σ_{j=1..k} ∇^j y_n / j = h f_n.

    Args:
        order: k; coefficients for unequal steps follow from it.
    """

    @property
    def implicit(self) -> bool:
        """Whether a step solves equations."""
        return True

    @property
    def stages(self) -> int:
        """One evaluation of f in a step."""
        return 1

    @functools.cached_property
    def analysis(self) -> BackwardDifferentiationStability:
        """The dominant root of the characteristic polynomial."""
        return BackwardDifferentiationStability(self.order)

    @property
    def alpha(self) -> Vector:
        """α_0..α_k of Σ α_j y_{n-j} = h f_n for equal steps."""
        return self.analysis.alpha

    @property
    def sector(self) -> float:
        """The angle of A(α)-stability in degrees."""
        return self.analysis.sector

    def prove(self) -> None:
        """Check Σ α_j (-j)^m = m 0^(m-1) for m ≤ k, and zero-stability by Routh's scheme."""
        for m in range(self.order + 1):
            total = sum((a * (-j) ** m for j, a in enumerate(self.analysis.alpha)), Fraction(0))
            if total != (m == 1):
                raise refuse(self.name, f"the condition of t^{m}", total - (m == 1), f"order {self.order}")
        # ρ(ζ) / (ζ - 1) at ζ = (1 + s) / (1 - s): roots in the unit disc are roots with Re s < 0.
        rest = divide(tuple(self.analysis.alpha[::-1]), (Fraction(-1), Fraction(1)))[0]
        mapped: Polynomial = ()
        plus, minus = (Fraction(1), Fraction(1)), (Fraction(1), Fraction(-1))
        for j, a in enumerate(rest):
            term = multiply(power(plus, j), power(minus, len(rest) - 1 - j))
            mapped = add(mapped, scale(term, a))
        if not is_hurwitz(mapped):
            raise refuse(self.name, "the root condition", 1, "BDF is unstable beyond six steps")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Taylor(Method):
    """A method of the first derivatives at both ends (Hermite, Obreschkoff).

    Σ_j (-1)^j β_j h^j y₁^(j) = Σ_j α_j h^j y₀^(j), j ≤ l on the left, j ≤ k on the right, of order
    k + l. l = 0 is the explicit Taylor method. R is the (k, l) Padé approximant of e^z.

    Args:
        numerator: k, derivatives at the start of the step.
        denominator: l, derivatives at its end.
    """

    numerator: int
    denominator: int = 0

    @property
    def implicit(self) -> bool:
        """Whether a step solves equations."""
        return self.denominator > 0

    @property
    def stages(self) -> int:
        """One expansion at each end."""
        return 1 + (self.denominator > 0)

    @functools.cached_property
    def analysis(self) -> RationalStability:
        """The Padé approximant."""
        return pade(self.numerator, self.denominator)

    @property
    def weights(self) -> tuple[Vector, Vector]:
        """(α_j, β_j): factors of h^j y^(j) at the start and of (-h)^j y^(j) at the end."""
        end = tuple(x * (-1) ** j for j, x in enumerate(self.analysis.denominator))
        return self.analysis.numerator, end

    def prove(self) -> None:
        """Check P(z) - Q(z) e^z = O(z^(k+l+1)), which is the order of a quadrature of derivatives."""
        exponential = tuple(Fraction(1, math.factorial(j)) for j in range(self.order + 1))
        exact = multiply(self.analysis.denominator, exponential)
        padded = [*self.analysis.numerator, *[Fraction(0)] * self.order]
        for j in range(self.order + 1):
            if padded[j] != exact[j]:
                raise refuse(
                    self.name, f"the coefficient of z^{j}", padded[j] - exact[j], f"order {self.order}"
                )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Exponential(Method):
    """An explicit exponential Runge-Kutta method.

    With N(y) = f(y) - L y, Z = hL and U_1 = y:
    U_i = e^{c_i Z} y + h Σ_j a_ij(Z) N(U_j),  y₁ = e^Z y + h Σ_i b_i(Z) N(U_i).
    Exponential Rosenbrock methods take L = ∂f/∂y at y, the others a given linear part.
    Weights are combinations of φ_k(c Z), φ_0 = e^Z, φ_k = Σ_n Z^n / (n + k)!.

    Args:
        kind: which formula a step uses.
        rosenbrock: whether L is the Jacobian at the start of each step.
        c: nodes.
        a: for every stage and earlier stage, the terms (k, coefficient) of a_ij in φ_k(c_i Z).
        b: for every stage, the terms (k, coefficient) of b_i in φ_k(Z).
        b_error: the same for the embedded solution, or None.
        stiff_order: order with constants that do not depend on L.
    """

    kind: str
    rosenbrock: bool
    c: Vector
    a: tuple[tuple[tuple[tuple[int, Fraction], ...], ...], ...]
    b: tuple[tuple[tuple[int, Fraction], ...], ...]
    b_error: tuple[tuple[tuple[int, Fraction], ...], ...] | None = None
    stiff_order: int = 0

    @property
    def implicit(self) -> bool:
        """No equations are solved; φ-functions of hL are applied."""
        return False

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.c)

    @functools.cached_property
    def analysis(self) -> Stability:
        """R(z) = e^z: the linear part is exact."""
        return exponential_stability()

    @property
    def stage_order(self) -> int:
        """One for all of these: U_i = e^{c_i Z} y + c_i φ_1(c_i Z) N."""
        return 1

    def prove(self) -> None:
        """Check the order conditions as identities between φ-functions; see :class:`Method`."""
        prove_exponential(self)
