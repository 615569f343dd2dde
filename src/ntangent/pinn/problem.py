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
from ntangent.jet.execute import run
from ntangent.pinn.conditions import Condition, Equation, series_of
from ntangent.pinn.domain import Box
from ntangent.pinn.field import Field, Parameters
from ntangent.pinn.unknown import Unknown

Net = Callable[[Any], Any]
Ansatz = Callable[[Net, Any], Any]
# Orders tried when counting how many derivatives an equation takes; 170! is the last in range.
PROBE_ORDERS = (8, 32, 170)


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
        self._check_types()
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
        strangers = sorted(set(self.expected) - set(self.unknowns))
        if strangers:
            raise ProblemError(
                f"expected values are given for {strangers}, which are not unknowns",
                f"the unknowns are {sorted(self.unknowns)}",
                f"unknowns={{{strangers[0]!r}: Unknown(1.0)}}",
            )
        if self.extent is not None:
            low, high = self.domain.interval(self.coordinate)
            if self.extent.names != self.domain.names or not (
                self.extent.holds(self.coordinate, low) and self.extent.holds(self.coordinate, high)
            ):
                raise ProblemError(
                    f"the extent {self.extent} does not contain {self.domain}", "", f"extent={self.domain}"
                )

    def _check_types(self) -> None:
        """Refuse fields of the wrong type here, where the statement is, and not deep in a training."""
        expected: list[tuple[Any, Any, str, str]] = [
            (self.domain, Box, "domain", "Box(x=(-1, 1))"),
            (self.extent, Box | None, "extent", "Box(x=(-1, 1))"),
            (self.equations, Sequence, "equations", "equations=[lambda u: u.xx + u]"),
            (self.conditions, Sequence, "conditions", "conditions=[Dirichlet(x=0.0)]"),
            (self.unknowns, Mapping, "unknowns", 'unknowns={"k": Unknown(1.0)}'),
            (self.expected, Mapping, "expected", 'expected={"k": 1.0}'),
            (self.ansatz, Callable, "ansatz", "ansatz=plain"),
        ]
        for value, kind, name, fix in expected:
            if not isinstance(value, kind):
                raise ProblemError(f"{name} is {value!r}", "", fix)
        for condition in self.conditions:
            if not isinstance(condition, Condition):
                raise ProblemError(
                    f"{condition!r} is not a condition", "it has no method `blocks`", "Dirichlet(x=0.0)"
                )
        for name, unknown in self.unknowns.items():
            if not isinstance(unknown, Unknown):
                raise ProblemError(
                    f"the unknown {name!r} is {unknown!r}", "", f'unknowns={{"{name}": Unknown(1.0)}}'
                )
            if not (isinstance(name, str) and name.isidentifier()) or name.startswith("_"):
                raise ProblemError(f"{name!r} cannot name an unknown", "p.NAME must be readable", '"k"')

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
        equation = _three_arguments(self.equations[index], self.coordinate)
        low, high = self.domain.interval(self.coordinate)
        x = torch.tensor([[0.75 * low + 0.25 * high]], dtype=torch.float64)
        parameters = Parameters(
            {name: torch.tensor([[u.start]], dtype=x.dtype) for name, u in self.unknowns.items()}
        )
        for order in PROBE_ORDERS:
            argument = variable(x, order)
            try:
                u = Field(argument.sin(), self.coordinate)
                residual = equation(u, parameters, Field(argument, self.coordinate))
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
        # Through `run`, the network takes its fastest backend inside any ansatz.
        u = self.ansatz(lambda x: run(net, x) if isinstance(x, Jet) else net(x), argument)
        if not isinstance(u, Jet):
            raise ProblemError(
                f"the ansatz returned {type(u).__name__}, not a series",
                "the field must be computed from its argument x",
                "ansatz=lambda net, x: net(x)",
            )
        if u.shape != (len(x), 1):
            raise ProblemError(
                f"the field has shape {tuple(u.shape)} at {len(x)} point(s)",
                "a problem has one field with one value for each point: shape (N, 1)",
                "MLP(1, 1), or ansatz=lambda net, x: net(x)[:, :1]",
            )
        return Field(u, self.coordinate), Field(argument, self.coordinate)


def _three_arguments(equation: Callable[..., Any], coordinate: str) -> Equation:
    """Return the equation as a function of (u, p, x), whichever of them it takes."""
    if not callable(equation):
        raise ProblemError(
            f"an equation is {equation!r}", "it is a function of the field", "lambda u: u.xx + u"
        )
    try:
        parameters = list(inspect.signature(equation).parameters.values())
    except (TypeError, ValueError):
        return equation
    fix = f"lambda u, p, {coordinate}: u.{coordinate} + p.k * {coordinate} * u"
    needed = [p for p in parameters if p.default is p.empty]
    if any(p.kind is p.KEYWORD_ONLY for p in needed):
        raise ProblemError(
            f"an equation takes {', '.join(p.name for p in needed)}, some of them by keyword only",
            "it is called with the field, the parameters and the coordinate, in this order",
            fix,
        )
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return equation
    names = [p.name for p in needed if p.kind is not p.VAR_KEYWORD]
    if not 1 <= len(names) <= 3 or names[1:2] == [coordinate]:
        raise ProblemError(
            f"an equation takes {len(names)} argument(s): {', '.join(names)}",
            "it is called with the field, the parameters and the coordinate, in this order",
            fix,
        )
    return lambda *arguments: equation(*arguments[: len(names)])
