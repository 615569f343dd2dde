"""A differential equation with its domain, conditions and unknown parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ntangent._base.check import check_positive
from ntangent._base.errors import ProblemError
from ntangent.jet import Jet
from ntangent.pinn.arguments import PARAMETERS
from ntangent.pinn.conditions.base import Condition
from ntangent.pinn.equation import Demand, Equation, make_equation
from ntangent.pinn.evaluation import Evaluation, checked_series, handed, network_call
from ntangent.pinn.field import Field
from ntangent.pinn.hard import HardAnsatz
from ntangent.pinn.hard.conditions import built_in
from ntangent.pinn.indices import indices, up_to
from ntangent.pinn.unknown import Unknown

if TYPE_CHECKING:
    from ntangent.pinn.scaling import Nondimensional

Net = Callable[[Any], Any]
Ansatz = Callable[[Net, Any], Any]


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
class Output:
    """A field of a problem: how many components it has and of which coordinates it is a function.

    Args:
        components: values at each point.
        coordinates: names of the coordinates it depends on; all by default. A field of fewer, as an
            unknown coefficient k(x), has a network of its own: ``net={"u": ..., "k": ...}``.
    """

    components: int = 1
    coordinates: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_positive(self.components, "components", integer=True)


@dataclass(frozen=True)
class Problem:
    """A problem that reads like its equation.

    Args:
        domain: where the equations hold.
        equations: residuals, functions of the fields, the parameters ``p`` and the coordinates, by
            name and in any order: ``lambda u, p, x: u.x + p.k * x * u``. With a single field the
            first argument is that field whatever its name.
        conditions: boundary and initial conditions, data, Taylor residuals.
        unknowns: scalar parameters to be found, by name.
        ansatz: builds the fields from the network, for exact symmetries or boundary values:
            ``pinn.odd``, ``pinn.even``, or any function of (net, x) with x of shape (N, d).
        reference: the exact solution, for errors and reports only: a function of the coordinates
            by name, ``lambda x, t: ...``, that returns a field's values (a mapping by name for
            several fields); in one coordinate also a function (x of shape (N,), order) ->
            derivatives of order 0..n, shape (n+1, N).
        expected: true values of the unknowns, where known; used for errors and reports only.
        extent: where the solution is shown and compared, if a symmetry of the ansatz carries it
            beyond the domain.
        fields: names of the fields, or a mapping name -> components or :class:`Output`. The network
            returns their components side by side, or is a ``ModuleDict`` with one for each field.

    Raises:
        ProblemError: if the statement contradicts itself.
    """

    domain: Any
    equations: Sequence[Callable[..., Any]]
    conditions: Sequence[Condition] = ()
    unknowns: Mapping[str, Unknown] = field(default_factory=dict)
    ansatz: Ansatz = plain
    reference: Callable[..., Any] | None = None
    expected: Mapping[str, float] = field(default_factory=dict)
    extent: Any = None
    fields: Sequence[str] | Mapping[str, int | Output] = ("u",)

    def __post_init__(self) -> None:
        self._check_types()
        self._check_fields()
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
        if self.extent is not None and (
            self.extent.names != self.domain.names
            or not all(
                self.extent.holds(name, end) for name in self.domain.names for end in self.interval(name)
            )
        ):
            raise ProblemError(
                f"the extent {self.extent} does not contain {self.domain}", "", f"extent={self.domain}"
            )

    def _check_types(self) -> None:
        """Refuse fields of the wrong type here, where the statement is, and not deep in a training."""
        if not all(hasattr(self.domain, name) for name in ("names", "dimension")):
            raise ProblemError(f"domain is {self.domain!r}", "it has no coordinates", "Box(x=(-1, 1))")
        if self.extent is not None and not hasattr(self.extent, "names"):
            raise ProblemError(f"extent is {self.extent!r}", "", "Box(x=(-1, 1))")
        expected: list[tuple[Any, Any, str, str]] = [
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

    def _check_fields(self) -> None:
        given = self.fields
        fix = 'fields=("u", "v"), or fields={"w": 2}'
        if isinstance(given, str) or not isinstance(given, Sequence | Mapping) or not given:
            raise ProblemError(f"fields is {given!r}", "it names the fields", fix)
        for name in given:
            if not (isinstance(name, str) and name.isidentifier()) or name.startswith("_"):
                raise ProblemError(f"{name!r} cannot name a field", "equations take fields by name", fix)
            if name in self.domain.names or name == PARAMETERS:
                raise ProblemError(
                    f"a field is called {name!r}, like a coordinate or the parameters",
                    "an equation takes its arguments by name",
                    fix,
                )
        if len(set(given)) != len(given):
            raise ProblemError(f"fields is {given!r}", "each name is used once", fix)
        for name, output in self.outputs_by_name.items():
            strangers = [c for c in output.coordinates or () if c not in self.domain.names]
            if strangers or output.coordinates == ():
                raise ProblemError(
                    f"the field {name!r} depends on {output.coordinates}",
                    f"the coordinates are {', '.join(self.domain.names)}",
                    f"Output(1, coordinates=({self.domain.names[0]!r},))",
                )

    @cached_property
    def outputs_by_name(self) -> dict[str, Output]:
        """The fields in full."""
        if not isinstance(self.fields, Mapping):
            return {name: Output() for name in self.fields}
        return {
            name: output if isinstance(output, Output) else Output(output)
            for name, output in self.fields.items()
        }

    @cached_property
    def components(self) -> dict[str, int]:
        """Number of components of each field."""
        return {name: output.components for name, output in self.outputs_by_name.items()}

    def inputs(self, name: str) -> tuple[str, ...]:
        """Return the coordinates of which a field is a function, in the order of the domain."""
        chosen = self.outputs_by_name[name].coordinates
        names: tuple[str, ...] = self.domain.names
        return names if chosen is None else tuple(n for n in names if n in chosen)

    @property
    def coordinate(self) -> str:
        """Name of the first coordinate."""
        return str(self.domain.names[0])

    @property
    def box(self) -> Any:
        """The bounding box of the domain."""
        return getattr(self.domain, "box", self.domain)

    def interval(self, name: str) -> tuple[float, float]:
        """Return the ends of a coordinate."""
        low, high = self.box.interval(name)
        return low, high

    def equation(self, index: int) -> Equation:
        """Return an equation with what it needs, read off by evaluating it once.

        Raises:
            ProblemError: if there is no such equation or it cannot be evaluated.
        """
        if not 0 <= index < len(self.equations):
            raise ProblemError(
                f"there is no equation {index}", f"the problem has {len(self.equations)}", "equation=0"
            )
        return make_equation(self.equations[index], self, f"equation[{index}]")

    def nondimensionalise(
        self,
        *,
        length: float | Mapping[str, float] = 1.0,
        time: float = 1.0,
        field: float | Mapping[str, float] = 1.0,
        clock: str = "t",
    ) -> Nondimensional:
        """Return the equivalent problem in characteristic scales, and the way back.

        Args:
            length: size of all coordinates but ``clock``, or of each by name (1 for one not named).
            time: size of ``clock``.
            field: size of all fields, or of each by name (1 for one not named).
            clock: name of the time coordinate; need not exist.

        Raises:
            ProblemError: if the domain is not a box or a condition is hard.
            ArgumentError, UnknownNameError: if a size is not positive, or a name is none of the problem's.
        """
        from ntangent.pinn.scaling import nondimensionalise

        return nondimensionalise(self, length=length, time=time, field=field, clock=clock)

    def outputs(self, net: Net, argument: Jet, name: str | None = None) -> Jet:
        """Return all fields (or the one with a network of its own) side by side as one series.

        Args:
            net: the network.
            argument: the coordinates as a series, shape (N, d).
            name: of the field where each has its network.
        """
        count = sum(self.components.values()) if name is None else self.components[name]
        call = network_call(net, count)

        def u(x: Jet) -> Jet:
            return checked_series(self.ansatz(call, x), "the ansatz")

        built = self.built_in(name)
        return u(argument) if built is None else checked_series(built(u, argument), "the hard conditions")

    def built_in(self, name: str | None = None) -> HardAnsatz | None:
        """Return what builds the hard conditions into all fields, or the one with its own network.

        Raises:
            ProblemError: if no construction is known for them together.
        """
        if name not in self._built_in:
            self._built_in[name] = built_in(self, name)
        return self._built_in[name]

    def check_network(self, net: Any, dtype: torch.dtype, device: torch.device) -> None:
        """Check what the hard conditions need of the network, or of those by name.

        Raises:
            ProblemError: if a network is not periodic where it is to be.
        """
        several = isinstance(net, nn.ModuleDict | Mapping)
        for name in self.components if several else (None,):
            built = self.built_in(name)
            if built is not None:
                own = net if name is None else net[name]
                built.check(lambda x, own=own: self.ansatz(own, x), dtype, device)  # type: ignore[misc]

    @cached_property
    def _built_in(self) -> dict[str | None, HardAnsatz | None]:
        return {}

    def field(self, net: Net, points: Tensor, order: int = 0) -> dict[str, Field]:
        """Return all fields at points with their derivatives up to a total order.

        Args:
            net: the network, or one for each field by name.
            points: shape (N, d).
            order: highest total order.
        """
        members = frozenset(up_to(self.domain.dimension, order))
        demand = Demand(dict.fromkeys(self.components, members), members)
        rows = Evaluation(self, points, [demand])(net)
        return handed(rows, indices(self.domain.names, members))
