"""What an equation is written in: fields with named derivatives, and parameters."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ntangent._base.check import check_choice, check_order
from ntangent._base.errors import UnknownNameError
from ntangent._base.registry import nearest_names
from ntangent.jet import Jet


class Field(Jet):
    """A jet that knows the name of its coordinate, so that ``u.x`` and ``u.xx`` are derivatives.

    Each derivative is the series of the derivative, one order shorter, so an equation evaluated
    on fields is itself a series: its own derivatives come for free.

    Args:
        jet: the series along the coordinate.
        coordinate: name of the coordinate.
    """

    __slots__ = ("coordinate",)

    def __init__(self, jet: Jet, coordinate: str) -> None:
        Jet.__init__(self, jet.data, jet.order, jet.directions)
        self.coordinate = coordinate

    def d(self, **orders: int) -> Field:
        """Return a partial derivative, ``u.d(x=3)``.

        Raises:
            UnknownNameError: if the coordinate is not the field's.
        """
        times = 0
        for name, order in orders.items():
            check_choice(name, [self.coordinate], "coordinate")
            times += check_order(order, name)
        return Field(self.differentiate(times), self.coordinate)

    def __getitem__(self, index: Any) -> Field:
        return Field(Jet.__getitem__(self, index), self.coordinate)

    def __getattr__(self, name: str) -> Any:
        coordinate = object.__getattribute__(self, "coordinate")
        if name == coordinate:
            return self.d(**{coordinate: 1})
        if len(coordinate) == 1 and name and set(name) == {coordinate}:
            return self.d(**{coordinate: len(name)})
        return Jet.__getattr__(self, name)


class Parameters:
    """The unknown and given parameters of a problem, by name: ``p.nu``.

    Args:
        values: scalars, or one value per point, shape (N, 1).
    """

    def __init__(self, values: dict[str, Tensor]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Tensor:
        values = object.__getattribute__(self, "_values")
        if name not in values:
            raise UnknownNameError(
                f"the problem has no parameter {name!r}",
                nearest_names(name, list(values)) if values else "it declares none",
                f'Problem(..., unknowns={{"{name}": Unknown(1.0)}})',
            )
        return values[name]  # type: ignore[no-any-return]
