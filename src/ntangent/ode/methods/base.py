"""What a method is: its coefficients, and everything that follows from them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError
from ntangent.ode.algebraic import Number
from ntangent.ode.methods.proof import (
    prove_additive,
    prove_exponential,
    prove_rosenbrock,
    prove_runge_kutta,
    refuse,
    simplifying,
    stage_order,
)
from ntangent.ode.polynomial import Polynomial, add, divide, is_hurwitz, multiply, power, scale
from ntangent.ode.stability import (
    BackwardDifferentiationStability,
    Interval,
    RationalStability,
    Stability,
    exponential_stability,
    pade,
    rational_stability,
)

Vector = tuple[Number, ...]
Matrix = tuple[Vector, ...]
Scalar = TypeVar("Scalar", float, complex, Any)


def vector(entries: Sequence[Number | str]) -> Vector:
    """Return exact numbers; strings such as ``"1/3"`` or ``"0.25"`` are read as rationals."""
    return tuple(Fraction(x) if isinstance(x, int | str) else x for x in entries)


def matrix(rows: Sequence[Sequence[Number | str]], size: int | None = None) -> Matrix:
    """Return a square matrix of exact numbers; short rows are filled with zeros."""
    size = len(rows) if size is None else size
    return tuple(vector([*row, *(0,) * (size - len(row))]) for row in rows)


def row_sums(a: Matrix) -> Vector:
    """Return the sums of the rows."""
    return tuple(sum(row, Fraction(0)) for row in a)


def as_tensor(values: Vector | Matrix, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Return exact numbers rounded to ``dtype``."""
    nested = [[float(x) for x in row] if isinstance(row, tuple) else float(row) for row in values]
    return torch.tensor(nested, dtype=torch.float64).to(dtype=dtype, device=device)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Method:
    """A one-step or multistep method for y' = f(t, y).

    Methods are compared by identity; :func:`ntangent.ode.methods.get` returns proved ones.

    Args:
        name: name in the catalogue.
        family: the family that the table lists it under.
        source: where the coefficients come from.
        order: classical order p.
        embedded_order: order of the embedded solution, or None.
        aliases: further names.
        rounding: bound on the residuals of order conditions that the published decimals leave;
            0 for coefficients that are exact.
    """

    name: str
    family: str
    source: str
    order: int
    embedded_order: int | None = None
    aliases: tuple[str, ...] = ()
    rounding: Fraction = Fraction(0)

    def __repr__(self) -> str:
        return f"methods.get({self.name!r})"

    @property
    def implicit(self) -> bool:
        """Whether a step solves equations."""
        raise NotImplementedError

    @property
    def stages(self) -> int:
        """Number of stages."""
        raise NotImplementedError

    @property
    def stage_order(self) -> int:
        """Order to which all stages are accurate, at most the order; 1 where the notion is idle."""
        return self.order

    @functools.cached_property
    def analysis(self) -> Stability:
        """The stability function with all that is proved about it."""
        raise NotImplementedError

    def stability(self, z: Scalar) -> Scalar:
        """Return R(z): one step of y' = λy is y ↦ R(hλ) y.

        Args:
            z: a float, complex number, NumPy array or tensor.

        Returns:
            The same kind of thing. A multistep method has the root of its characteristic
            polynomial with the largest modulus (of a conjugate pair, the one with Im ≥ 0).
        """
        return self.analysis.value(z)  # type: ignore[no-any-return]

    def stability_derivative(self, z: Scalar) -> Scalar:
        """Return R'(z), the sensitivity of one step to z = hλ; the exact flow has e^z."""
        return self.analysis.derivative(z)  # type: ignore[no-any-return]

    @property
    def at_infinity(self) -> float:
        """R(∞): the limit at -∞; ±inf for explicit methods."""
        return self.analysis.at_infinity

    @property
    def decay_order(self) -> float:
        """The power p of |R'(z)| ~ |C| |z|^-p at -∞: not positive if it does not decay, inf for e^z."""
        return self.analysis.decay_order

    @property
    def decay_constant(self) -> float:
        """The constant C of R'(z) ~ C z^-p at -∞, signed (the modulus for multistep methods)."""
        return self.analysis.decay_constant

    @property
    def is_a_stable(self) -> bool:
        """Whether |R| ≤ 1 on the left half-plane; proved, not sampled."""
        return self.analysis.a_stable

    @property
    def is_l_stable(self) -> bool:
        """Whether it is A-stable with R(∞) = 0."""
        return self.analysis.a_stable and self.analysis.at_infinity == 0

    @property
    def wrong_sign_intervals(self) -> tuple[Interval, ...]:
        """Intervals of the negative axis where R' < 0, though the flow's own e^z is positive."""
        return self.analysis.wrong_sign

    def prove(self) -> None:
        """Check the coefficients against every claim; cached by the catalogue.

        Raises:
            ArgumentError: naming the rooted tree or the condition that fails.
        """
        raise NotImplementedError

    @functools.cached_property
    def order_proved(self) -> int:
        """The classical order, after :meth:`prove`."""
        self.prove()
        return self.order


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RungeKutta(Method):
    """A Runge-Kutta method: k_i = f(t + c_i h, y + h Σ a_ij k_j), y₁ = y + h Σ b_i k_i.

    Args:
        A: coefficients of the stages.
        b: weights.
        c: nodes; the row sums of A by default.
        b_error: weights of the embedded solution; the error estimate is h Σ (b_i - b_error_i) k_i.
        b_error_initial: weight of f(t, y) in the embedded solution where y is not a stage
            (Hairer and Wanner's estimate for Radau IIA).
        dense: for each stage the coefficients of θ, θ², ... of b_i(θ), where
            y(t + θh) ≈ y + h Σ b_i(θ) k_i; or None.
        dense_order: order of that continuous extension.
    """

    A: Matrix
    b: Vector
    c: Vector = ()
    b_error: Vector | None = None
    b_error_initial: Number = Fraction(0)
    dense: Matrix | None = None
    dense_order: int | None = None

    def __post_init__(self) -> None:
        if not self.c:
            object.__setattr__(self, "c", row_sums(self.A))
        lengths = {len(self.A), len(self.b), len(self.c), *(len(row) for row in self.A)}
        lengths |= {len(weights) for weights in (self.b_error, self.dense) if weights is not None}
        if len(lengths) != 1:
            raise ArgumentError(
                f"the tableau of {self.name!r} has parts of the lengths {sorted(lengths)}",
                "A is a square matrix with one row for each stage; b and c have one entry for each",
                "RungeKutta(..., A=matrix([[0], [1]]), b=vector(['1/2', '1/2']))",
            )

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.b)

    @property
    def implicit(self) -> bool:
        """Whether a step solves equations."""
        return self.structure != "explicit"

    @functools.cached_property
    def structure(self) -> Literal["explicit", "dirk", "full"]:
        """Shape of A: strictly lower triangular, lower triangular, or neither."""
        above = [x for i, row in enumerate(self.A) for x in row[i + 1 :]]
        if any(above):
            return "full"
        return "dirk" if any(self.A[i][i] for i in range(self.stages)) else "explicit"

    @functools.cached_property
    def singly(self) -> bool:
        """Whether all implicit stages of a triangular A have one diagonal entry (SDIRK, ESDIRK)."""
        diagonal = [self.A[i][i] for i in range(self.stages)]
        return self.structure == "dirk" and len({x for x in diagonal if x}) == 1 and all(diagonal[1:])

    @functools.cached_property
    def explicit_first_stage(self) -> bool:
        """Whether the first stage is f(t, y) itself."""
        return not any(self.A[0])

    @functools.cached_property
    def stiffly_accurate(self) -> bool:
        """Whether the last stage is the solution: the last row of A is b, and c_s = 1."""
        return self.A[-1] == self.b and self.c[-1] == 1

    @functools.cached_property
    def first_same_as_last(self) -> bool:
        """Whether the last stage is the first one of the next step."""
        return self.explicit_first_stage and self.stiffly_accurate

    def tensors(
        self, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return A, b, c and b_error (or None), each rounded once from the exact numbers."""
        error = None if self.b_error is None else as_tensor(self.b_error, dtype, device)
        return (
            as_tensor(self.A, dtype, device),
            as_tensor(self.b, dtype, device),
            as_tensor(self.c, dtype, device),
            error,
        )

    def dense_tensor(
        self, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> Tensor | None:
        """Return the coefficients of b_i(θ), shape (stages, degree), powers θ, θ², ...; or None."""
        return None if self.dense is None else as_tensor(self.dense, dtype, device)

    @functools.cached_property
    def analysis(self) -> Stability:
        """The stability function with all that is proved about it."""
        return rational_stability(self.A, self.b, self.order, self.rounding)

    @functools.cached_property
    def stage_order(self) -> int:  # type: ignore[override]
        """The largest q with Butcher's B(q) and C(q)."""
        return stage_order(self.A, self.b, self.c, self.rounding)

    @functools.cached_property
    def simplifying(self) -> tuple[int, int, int]:
        """The largest (p, η, ζ) with Butcher's B(p), C(η), D(ζ)."""
        return simplifying(self.A, self.b, self.c, self.rounding)

    def prove(self) -> None:
        """Check row sums, order conditions, embedded and dense solution; see :class:`Method`."""
        prove_runge_kutta(self)


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
        close = [abs(x - y) <= self.rounding for x, y in zip(self.beta[-1], self.b, strict=True)]
        return all(close) and abs(self.alpha_sums[-1] - 1) <= self.rounding

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
                raise refuse(self.name, f"the coefficient of z^{j}", padded[j] - exact[j], f"order {self.order}")


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


def renamed(method: Method, name: str) -> Method:
    """Return the method under another name, without aliases."""
    return replace(method, name=name, aliases=())
