"""What an equation is written in: fields with named derivatives, and parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from ntangent._base.check import check_choice, check_order
from ntangent._base.errors import UnknownNameError
from ntangent._base.registry import nearest_names
from ntangent.jet import Jet


class Field(Jet):
    """A jet that knows the name of its coordinate, so that ``u.x`` and ``u.xx`` are derivatives.

    Each derivative is the series of the derivative, one order shorter, so an equation evaluated
    on fields is itself a series: its own derivatives come for free. What is computed from fields
    is a field, so a flux can be differentiated as it is written: ``(k(u) * u.x).x``.

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
        return self.differentiate(times)

    def differentiate(self, times: int = 1) -> Field:
        """Return the field of the derivative along the coordinate, of an order lower by ``times``."""
        return Field(Jet.differentiate(self, times), self.coordinate)

    def map_rows(self, f: Callable[[Tensor], Tensor]) -> Field:
        """Apply a function that is linear in the value to every coefficient."""
        return Field(Jet.map_rows(self, f), self.coordinate)

    def __getitem__(self, index: Any) -> Field:
        return Field(Jet.__getitem__(self, index), self.coordinate)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        first = next(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Field))
        return _named(Jet.__torch_function__(function, types, args, kwargs), first.coordinate)

    def __getattr__(self, name: str) -> Any:
        coordinate = object.__getattribute__(self, "coordinate")
        if name == coordinate:
            return self.d(**{coordinate: 1})
        if len(coordinate) == 1 and name and set(name) == {coordinate}:
            return self.d(**{coordinate: len(name)})
        try:
            if name in ("T", "mT"):  # meant as a derivative more often than as a transpose
                raise AttributeError(name)
            method = Jet.__getattr__(self, name)
        except AttributeError:
            raise AttributeError(
                f"a field of {coordinate!r} has no {name!r}; "
                f"its derivatives are u.{coordinate} and u.d({coordinate}=2)"
            ) from None
        if not callable(method):
            return method
        return lambda *args, **kwargs: _named(method(*args, **kwargs), coordinate)


def _named(result: Any, coordinate: str) -> Any:
    return Field(result, coordinate) if isinstance(result, Jet) else result


class Parameters:
    """The unknown and given parameters of a problem, by name: ``p.nu``.

    Args:
        values: scalars, or one value per point, shape (N, 1).
    """

    def __init__(self, values: dict[str, Tensor]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Tensor:
        values = object.__getattribute__(self, "_values")
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in values:
            raise UnknownNameError(
                f"the problem has no parameter {name!r}",
                nearest_names(name, list(values)) if values else "it declares none",
                f'Problem(..., unknowns={{"{name}": Unknown(1.0)}})',
            )
        return values[name]  # type: ignore[no-any-return]
