"""A differential equation with its domain, conditions and unknown parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError, ProblemError
from ntangent.jet import Jet, variable
from ntangent.pinn.conditions import Condition, Equation, series_of
from ntangent.pinn.domain import Box
from ntangent.pinn.field import Field, Parameters
from ntangent.pinn.unknown import Unknown

Net = Callable[[Any], Any]
Ansatz = Callable[[Net, Any], Any]
# Orders tried when counting how many derivatives an equation takes.
PROBE_ORDERS = (8, 32)


def plain(net: Net, x: Any) -> Any:
    """The network itself."""
    return net(x)


def odd(net: Net, x: Any) -> Any:
    """An odd field, (N(x) - N(-x))/2."""
    return (net(x) - net(-x)) * 0.5


def even(net: Net, x: Any) -> Any:
    """An even field, (N(x) + N(-x))/2."""
    return (net(x) + net(-x)) * 0.5


@dataclass(frozen=True)
class Problem:
    """A problem that reads like its equation.

    Args:
        domain: where the equations hold; one coordinate.
        equations: residuals, each a function of the field u, the parameters p and, if it names a
            third argument, the coordinate: ``lambda u, p, x: u.x + p.k * x * u``.
        conditions: boundary and initial conditions, data, Taylor residuals.
        unknowns: scalar parameters to be found, by name.
        ansatz: builds the field from the network, for exact symmetries or boundary values:
            ``pinn.odd``, ``pinn.even``, or any function of (net, x).
        reference: the exact solution as a function (x of shape (N,), order) -> derivatives of
            order 0..n, shape (n+1, N); used for errors and reports only.
        expected: true values of the unknowns, where known; used for errors and reports only.
        extent: where the solution is shown and compared, if a symmetry of the ansatz carries it
            beyond the domain.

    Raises:
        ProblemError: if the statement contradicts itself.
    """

    domain: Box
    equations: Sequence[Callable[..., Any]]
    conditions: Sequence[Condition] = ()
    unknowns: Mapping[str, Unknown] = field(default_factory=dict)
    ansatz: Ansatz = plain
    reference: Callable[[Tensor, int], Tensor] | None = None
    expected: Mapping[str, float] = field(default_factory=dict)
    extent: Box | None = None

    def __post_init__(self) -> None:
        if self.domain.dimension != 1:
            raise ProblemError(
                f"the domain has {self.domain.dimension} coordinates",
                "residual series are taken along one coordinate; equations in several are not covered yet",
                "Box(x=(-1, 1))",
            )
        if not self.equations and not self.conditions:
            raise ProblemError(
                "the problem has no equation and no condition", "there is nothing to solve", "equations=[...]"
            )
        unknown_names = set(self.expected) - set(self.unknowns)
        if unknown_names:
            raise ProblemError(
                f"expected values are given for {sorted(unknown_names)}, which are not unknowns",
                f"the unknowns are {sorted(self.unknowns)}",
                f"unknowns={{{sorted(unknown_names)[0]!r}: Unknown(1.0)}}",
            )

    @property
    def coordinate(self) -> str:
        """Name of the coordinate."""
        return self.domain.names[0]

    def equation(self, index: int) -> tuple[Equation, int]:
        """Return an equation as a function of (u, p, x) and the highest derivative it takes.

        The count is read off the equation itself: evaluated on a series of known order, its
        residual is shorter by just the derivatives that were taken.

        Raises:
            ProblemError: if there is no such equation or it cannot be evaluated.
        """
        if not 0 <= index < len(self.equations):
            raise ProblemError(
                f"there is no equation {index}", f"the problem has {len(self.equations)}", "equation=0"
            )
        equation = _three_arguments(self.equations[index])
        low, high = self.domain.interval(self.coordinate)
        x = torch.tensor([[0.75 * low + 0.25 * high]], dtype=torch.float64)
        parameters = Parameters(
            {name: torch.tensor([[u.start]], dtype=x.dtype) for name, u in self.unknowns.items()}
        )
        for order in PROBE_ORDERS:
            argument = variable(x, order)
            try:
                residual = equation(
                    Field(torch.sin(argument), self.coordinate), parameters, Field(argument, self.coordinate)
                )
            except ArgumentError:
                if order == PROBE_ORDERS[-1]:
                    raise
                continue
            return equation, order - series_of(residual).order
        raise AssertionError("unreachable")

    def field(self, net: Net, x: Tensor, order: int) -> tuple[Field, Field]:
        """Return the field and the coordinate as series at points.

        Args:
            net: the network.
            x: shape (N, 1).
            order: order of the series.
        """
        argument = variable(x, order)
        u = self.ansatz(net, argument)
        if not isinstance(u, Jet):
            raise ProblemError(f"the ansatz returned {type(u).__name__}", "", "ansatz=lambda net, x: net(x)")
        return Field(u, self.coordinate), Field(argument, self.coordinate)


def _three_arguments(equation: Callable[..., Any]) -> Equation:
    """Return the equation as a function of (u, p, x), whichever of them it takes."""
    try:
        count = len([
            p for p in inspect.signature(equation).parameters.values()
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ])  # fmt: skip
    except (TypeError, ValueError):
        count = 3
    if not 1 <= count <= 3:
        raise ProblemError(
            f"an equation takes {count} arguments",
            "it is called with the field, the parameters and the coordinate",
            "lambda u, p, x: u.x + p.k * x * u",
        )
    return lambda *arguments: equation(*arguments[:count])
