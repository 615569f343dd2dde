"""What a method is: its coefficients, and everything that follows from them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError
from ntangent.ode.algebraic import Number, Operand, approximate
from ntangent.ode.methods.continuation import Continuation, bootstrap
from ntangent.ode.methods.proof import prove_runge_kutta, simplifying, stage_order
from ntangent.ode.stability import Interval, Stability, rational_stability

Vector = tuple[Number, ...]
Matrix = tuple[Vector, ...]
Scalar = TypeVar("Scalar", float, complex, Any)


Entry = Operand | str
"""What tableaux are written with."""


def vector(entries: Sequence[Entry]) -> Vector:
    """Return exact numbers; strings such as ``"1/3"`` or ``"0.25"`` are read as rationals."""
    return tuple(Fraction(x) if isinstance(x, int | str) else x for x in entries)


def matrix(rows: Sequence[Sequence[Entry]], size: int | None = None) -> Matrix:
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
        dense_nodes: where slopes are added for an extension that is made from the order conditions,
            in place of ``dense``; for explicit methods.
    """

    A: Matrix
    b: Vector
    c: Vector = ()
    b_error: Vector | None = None
    b_error_initial: Number = Fraction(0)
    dense: Matrix | None = None
    dense_order: int | None = None
    dense_nodes: tuple[float, ...] | None = None

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
        return self.A[-1] == self.b and abs(approximate(self.c[-1] - 1)) <= self.rounding

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
    def continuation(self) -> Continuation | None:
        """The extension with ``dense_nodes``, made at first use (about 20 ms); None without them."""
        if self.dense_nodes is None:
            return None
        a, b, _, _ = self.tensors()
        return bootstrap(self.name, a.numpy(), b.numpy(), self.dense_nodes, self.dense_order or self.order)

    @functools.cached_property
    def analysis(self) -> Stability:
        """The stability function with all that is proved about it."""
        return rational_stability(self.A, self.b, self.order, self.rounding)

    @functools.cached_property
    def stage_order(self) -> int:
        """The largest q with Butcher's B(q) and C(q)."""
        return stage_order(self.A, self.b, self.c, self.rounding)

    @functools.cached_property
    def simplifying(self) -> tuple[int, int, int]:
        """The largest (p, η, ζ) with Butcher's B(p), C(η), D(ζ)."""
        return simplifying(self.A, self.b, self.c, self.rounding)

    def prove(self) -> None:
        """Check row sums, order conditions, embedded and dense solution; see :class:`Method`."""
        prove_runge_kutta(self)
