"""What a row of the activation table is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ntangent.jet.polynomial import Polynomial

States = tuple[Tensor, ...]


@dataclass(frozen=True)
class Activation:
    """One row of the table.

    Args:
        name: unique name; parameters of the function are part of it.
        initial: maps the argument x0 to the states z(x0), elementwise.
        flow: dz_i/dx as polynomials in (x, z).
        output: the activation as a polynomial in (x, z).
        slope: optional values of ``flow`` at x0 that are more accurate than evaluating the
            polynomials (1 - tanh² loses all digits where tanh saturates).
        parameters: numbers that ``initial`` depends on, for kernels that rebuild it.
        sample: an interval inside the domain, for tests and examples.
    """

    name: str
    initial: Callable[[Tensor], States]
    flow: tuple[Polynomial, ...]
    output: Polynomial
    slope: Callable[[Tensor], States] | None = None
    parameters: tuple[float, ...] = ()
    sample: tuple[float, float] = (-2.0, 2.0)
    family: str = field(default="")

    def __repr__(self) -> str:
        return f"Activation({self.name!r})"

    def __hash__(self) -> int:  # the name is unique and short; hashing the polynomials would cost more
        return hash(self.name)

    @property
    def kernel(self) -> str:
        """Name of the function that computes the initial states in compiled kernels."""
        return self.family or self.name

    @cached_property
    def derivative(self) -> Activation:
        """The row of σ', with the same states: differentiation maps the table into itself."""
        return Activation(
            f"d({self.name})",
            self.initial,
            self.flow,
            self.output.along(self.flow),
            self.slope,
            self.parameters,
            self.sample,
            self.kernel,
        )

    def raw_derivatives(self, x: Tensor, order: int) -> list[Tensor]:
        """Return σ(x), σ'(x), ..., σ^(order)(x), each from its own polynomial in the states.

        Independent of the Taylor recurrences: the derivative polynomials are built symbolically
        with exact coefficients and evaluated term by term.
        """
        states = (x, *self.initial(x))
        polynomial, values = self.output, []
        for _ in range(order + 1):
            values.append(evaluate(polynomial, states))
            polynomial = polynomial.along(self.flow)
        return values


def evaluate(polynomial: Polynomial, values: States) -> Tensor:
    """Evaluate a polynomial at tensors (x, z1, ..., zm)."""
    total = torch.zeros_like(values[0])
    for exponents, coefficient in polynomial.terms:
        term: Any = float(coefficient)
        for value, power in zip(values, exponents, strict=True):
            if power:
                term = term * value**power
        total = total + term
    return total
