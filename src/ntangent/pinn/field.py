"""What an equation is written in: fields with named derivatives, and parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ntangent._base.check import check_choice, check_order
from ntangent._base.errors import ArgumentError, ProblemError, UnknownNameError
from ntangent._base.registry import nearest_names
from ntangent.jet import Jet
from ntangent.pinn.indices import Indices, MultiIndex, indices, take

HIGHEST_ORDER = 170  # 171! is beyond float64


@dataclass(frozen=True)
class Note:
    """What an equation asked for, noted while it is evaluated once on recorders.

    Args:
        uses: (name, derivative) of every field and coordinate that went in, with the derivatives
            taken of the results since.
        composites: derivatives taken of anything that was computed; empty for a field itself.
    """

    uses: frozenset[tuple[str, MultiIndex]]
    composites: frozenset[MultiIndex] = frozenset()

    def shifted(self, by: MultiIndex) -> Note:
        """Return the note of a derivative."""
        uses = frozenset((name, _add(b, by)) for name, b in self.uses)
        return Note(uses, frozenset(_add(b, by) for b in self.composites))

    @staticmethod
    def of_result(notes: Sequence[Note], dimension: int) -> Note:
        """Return the note of what is computed from several fields."""
        uses = frozenset().union(*[n.uses for n in notes])
        return Note(uses, frozenset([(0,) * dimension]).union(*[n.composites for n in notes]))


class Root:
    """The coefficients of a field at points, from which its derivatives are read.

    Args:
        data: rows over ``indices`` (the last ones may be missing: they are zero), (rows, N, c).
        indices: the set carried.
        within: the set in which the equation computes; {0} where it only needs values.
        single: whether one derivative is all that will be read.
    """

    __slots__ = ("_components", "_table", "data", "indices", "single", "within")

    def __init__(self, data: Tensor, indices: Indices, within: Indices, single: bool = False) -> None:
        self.data, self.indices, self.within, self.single = data, indices, within, single
        self._table: Sequence[Tensor] | None = None
        self._components: dict[int, Root] = {}

    def at(self, by: MultiIndex) -> Field:
        """Return a derivative as a field.

        Raises:
            ArgumentError: if it was not computed.
        """
        target, rows, factors = self.indices.shifted(by)
        if target is None:
            raise ArgumentError(
                f"the derivative {by} of the field was not computed",
                f"its series holds {self.indices.members}",
                "take derivatives in the equation itself, unconditionally",
            )
        inside = self.within.meet(target)
        if inside.trivial:
            data = self._one(by) if self.single else self._values()[self.indices.place[by]]
        else:
            data = _scaled(take(self.data, rows), factors, target, f"shift{by}", self.data)
            if inside is not target:
                data = take(data, target.rows_of(inside))
        field = _field(data, inside)
        field.root, field.offset = self, by
        return field

    def _one(self, by: MultiIndex) -> Tensor:
        """Return one derivative, (1, N, c)."""
        place = self.indices.place[by]
        if place >= len(self.data):
            return torch.zeros_like(self.data[:1])
        row = self.data if self.indices.trivial else self.data[place : place + 1]
        factor = math.prod(math.factorial(n) for n in by)
        return row if factor == 1 else row * float(factor)

    def _values(self) -> Sequence[Tensor]:
        """Return every derivative, (1, N, c) each; one pass over the rows, forward and backward."""
        if self._table is None:
            if self.indices.trivial:
                self._table = (self.data,)
            else:
                rows = self.data
                if self.indices.order > 1:
                    rows = rows * self.indices.factorials(rows)[: len(rows)]
                missing = len(self.indices.members) - len(rows)
                self._table = (*rows.split(1), *[torch.zeros_like(rows[:1])] * missing)
        return self._table

    def component(self, i: int) -> Root:
        """Return one component of a vector field, still a column."""
        if i not in self._components:
            self._components[i] = Root(self.data[..., i : i + 1], self.indices, self.within, self.single)
        return self._components[i]


class Field(Jet):
    """A function at points that knows its coordinates: ``u.x``, ``u.xx``, ``u.xt``, ``u.d(x=2, t=1)``.

    Its value has shape (N, c). It is a series over a set of multi-indices, of which an equation
    sees nothing: the set is just large enough for the derivatives that are taken. What is computed
    from fields is a field, so a flux can be differentiated as it is written: ``(k(u) * u.x).x``.

    A component of a vector field, ``w[..., 0]`` or ``w[:, 0]``, stays a column (N, 1), so that it
    goes with coordinates and other fields.

    Args:
        jet: the series.
        coordinates: the set of its rows, or the name of the only coordinate.
    """

    __slots__ = ("indices", "note", "offset", "root")

    def __init__(self, jet: Jet, coordinates: str | Indices) -> None:
        Jet.__init__(self, jet.data, jet.order, jet.directions)
        if isinstance(coordinates, str):
            coordinates = indices((coordinates,), [(jet.order,)])
        self.indices: Indices = coordinates
        self.root: Root | None = None
        self.offset: MultiIndex = (0,) * len(coordinates.names)
        self.note: Note | None = None

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return self.indices.names

    # --- derivatives -------------------------------------------------------------------------------

    def d(self, **orders: int) -> Field:
        """Return a partial derivative, ``u.d(x=2, t=1)``.

        Raises:
            UnknownNameError: if a coordinate is not the field's.
        """
        names = self.indices.names
        for name, order in orders.items():
            check_choice(name, names, "coordinate")
            check_order(order, name)
        return self.partial(tuple(orders.get(name, 0) for name in names))

    def differentiate(self, times: int = 1) -> Field:
        """Return the derivative along the only coordinate."""
        if len(self.indices.names) != 1:
            raise ArgumentError(
                f"a field of {', '.join(self.indices.names)} has no derivative without a name",
                "it has one along each coordinate",
                f"u.d({self.indices.names[0]}={times})",
            )
        return self.partial((check_order(times, "times"),))

    def partial(self, by: MultiIndex) -> Field:
        """Return a partial derivative by its multi-index."""
        if not any(by):
            return self
        if self.note is not None:
            note = self.note.shifted(by)
            if any(sum(b) > HIGHEST_ORDER for _, b in note.uses):
                raise ArgumentError(
                    f"a derivative of order {max(sum(b) for _, b in note.uses)} is asked for",
                    f"derivatives are computed up to order {HIGHEST_ORDER}: the factorials overflow",
                    "u.d(x=4)",
                )
            return _field(self.data, self.indices, note)
        if self.root is not None:
            return self.root.at(_add(self.offset, by))
        target, rows, factors = self.indices.shifted(by)
        if target is None:
            raise ArgumentError(
                f"a series over {self.indices.members} has no derivative {by}",
                "each derivative uses up coefficients",
                "take derivatives in the equation itself, unconditionally",
            )
        return _field(_scaled(take(self.data, rows), factors, target, f"shift{by}", self.data), target)

    def laplacian(self, *names: str) -> Field:
        """Return the sum of second derivatives, in all coordinates or in the named ones."""
        for name in names:
            check_choice(name, self.indices.names, "coordinate")
        chosen = names or self.indices.names
        total: Any = self.d(**{chosen[0]: 2})
        for name in chosen[1:]:
            total = total + self.d(**{name: 2})
        return total  # type: ignore[no-any-return]

    def series(self) -> Tensor:
        """Return the coefficients of every row of the field's set, zeros included, (rows, *shape)."""
        return _padded(self.data, len(self.indices.members))

    def derivative(self, k: int) -> Tensor:
        """Return the k-th derivative along the only coordinate as a tensor."""
        return self.differentiate(k).value

    # --- arithmetic --------------------------------------------------------------------------------

    def map_rows(self, f: Callable[[Tensor], Tensor]) -> Field:
        """Apply a function that is linear in the value to every coefficient."""
        return _field(f(self.data), self.indices, _note([self]))

    def __getitem__(self, index: Any) -> Field:
        component = _component(index) if self.ndim == 2 else None
        if component is not None:
            c = self.shape[1]
            if not -c <= component < c:
                raise ArgumentError(
                    f"there is no component {component} of a field with {c}", "they count from 0", "w[..., 0]"
                )
            component %= c
            if self.root is not None:
                return self.root.component(component).at(self.offset)
            data = self.data[..., component : component + 1]
            return _field(data, self.indices, self.note)
        return Field.__torch_function__(torch.Tensor.__getitem__, (), (self, index))  # type: ignore[no-any-return]

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # Operators have plain arguments: a walk through nested ones would cost more than the work.
        flat = not kwargs and not any(isinstance(a, list | tuple | dict) for a in args)
        if flat:
            found = [a for a in args if isinstance(a, Field)]
            if all(f.indices.trivial for f in found):  # ordinary tensors, and nothing to look for
                plain = function(*[a.data[0] if isinstance(a, Field) else a for a in args])
                if isinstance(plain, Tensor) and plain.is_floating_point():
                    return _field(plain[None], found[0].indices, _note(found))
                if not isinstance(plain, list | tuple):
                    return plain
        kwargs = kwargs or {}
        leaves = args if flat else tree_leaves((args, kwargs))
        fields = [leaf for leaf in leaves if isinstance(leaf, Field)]
        target = fields[0].indices
        for field in fields[1:]:
            target = target.meet(field.indices)
        note = _note(fields)

        def narrow(value: Any) -> Any:
            if not isinstance(value, Field):
                return value
            data = _narrow(value, target)
            return data[0] if target.trivial else Jet(data, target.order, target.directions)

        def widen(value: Any) -> Any:
            if isinstance(value, Jet):
                return _field(value.data, target, note)
            if target.trivial and isinstance(value, Tensor) and value.is_floating_point():
                return _field(value[None], target, note)
            return value

        args = tuple(map(narrow, args)) if flat else tree_map(narrow, args)
        kwargs = tree_map(narrow, kwargs) if kwargs else kwargs
        if target.trivial:
            result = function(*args, **kwargs)
        else:
            result = Jet.__torch_function__(function, (), args, kwargs)
        return widen(result) if isinstance(result, Jet | Tensor) else tree_map(widen, result)

    def __getattr__(self, name: str) -> Any:
        names = object.__getattribute__(self, "indices").names
        if name in names:
            return self.d(**{name: 1})
        if name and all(letter in names for letter in name):
            return self.partial(tuple(name.count(n) if len(n) == 1 else 0 for n in names))
        try:
            if name in ("T", "mT"):  # meant as a derivative more often than as a transpose
                raise AttributeError(name)
            method = Jet.__getattr__(self, name)
        except AttributeError:
            raise AttributeError(
                f"a field of {', '.join(map(repr, names))} has no {name!r}; "
                f"its derivatives are u.{names[0]} and u.d({names[0]}=2)"
            ) from None
        if not callable(method):
            return method
        function = getattr(torch.Tensor, name)
        return lambda *args, **kwargs: Field.__torch_function__(function, (), (self, *args), kwargs)


def _binary(function: Any, swapped: bool = False) -> Any:
    """Return an operator: plain tensor arithmetic where only values are needed."""

    def operator(self: Field, other: Any) -> Any:
        if isinstance(other, np.ndarray | np.generic):
            other = torch.as_tensor(other, dtype=self.dtype, device=self.device)
        if isinstance(other, Field):
            target = self.indices.meet(other.indices)
            fields: tuple[Field, ...] = (self, other)
        elif isinstance(other, Tensor | int | float):
            target, fields = self.indices, (self,)
        else:
            pair = (other, self) if swapped else (self, other)
            return Field.__torch_function__(function, (), pair)
        if not target.trivial:
            return Field.__torch_function__(function, (), (other, self) if swapped else (self, other))
        a = self.data if self.indices.trivial else self.data[:1]
        b = other
        if isinstance(other, Field):
            b = other.data if other.indices.trivial else other.data[:1]
        return _field(function(b, a) if swapped else function(a, b), target, _note(fields))

    return operator


_OPERATORS: dict[str, Any] = {
    "add": torch.add,
    "mul": torch.mul,
    "sub": torch.sub,
    "truediv": torch.true_divide,
    "pow": torch.pow,
}
for _name, _function in _OPERATORS.items():
    setattr(Field, f"__{_name}__", _binary(_function))
    setattr(Field, f"__r{_name}__", _binary(_function, swapped=True))


def _add(a: MultiIndex, b: MultiIndex) -> MultiIndex:
    return tuple(i + j for i, j in zip(a, b, strict=True))


def _field(data: Tensor, over: Indices, note: Note | None = None) -> Field:
    """Return a field without the checks of the constructor."""
    field = object.__new__(Field)
    field.data, field.order, field.directions = data, over.order, over.directions
    field.indices, field.root, field.note = over, None, note
    return field


def _note(fields: Sequence[Field]) -> Note | None:
    if all(field.note is None for field in fields):
        return None
    notes = [field.note for field in fields if field.note is not None]
    return Note.of_result(notes, len(fields[0].indices.names))


def _narrow(field: Field, target: Indices) -> Tensor:
    """Return the rows of a field over a smaller set."""
    if field.indices is target:
        return field.data
    return field.data[:1] if target.trivial else take(field.data, field.indices.rows_of(target))


def _padded(data: Tensor, rows: int) -> Tensor:
    missing = rows - len(data)
    return torch.cat([data, data.new_zeros((missing, *data.shape[1:]))]) if missing > 0 else data


def _scaled(rows: Tensor, factors: Sequence[float], over: Indices, name: str, like: Tensor) -> Tensor:
    """Return rows times their factors; a zero row where none is stored."""
    if len(rows) == 0:
        return torch.zeros_like(like[:1])
    if any(f != 1.0 for f in factors):
        scale = over.constant(name, factors, like)[: len(rows)]
        rows = rows * scale.view(-1, *[1] * (rows.ndim - 1))
    return rows


def _component(index: Any) -> int | None:
    """Return i of the index [..., i] or [:, i]."""
    if isinstance(index, tuple) and len(index) == 2 and isinstance(index[1], int):
        first = index[0]
        if first is Ellipsis or (isinstance(first, slice) and first == slice(None)):
            return index[1]
    return None


def recorder(name: str, over: Indices, like: Tensor) -> Field:
    """Return a field that notes which derivatives are taken of it.

    Args:
        name: of the field or coordinate.
        over: the set {0} over the coordinates.
        like: any value of the field's shape.
    """
    return _field(like[None], over, Note(frozenset([(name, (0,) * len(over.names))])))


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

    def _refuse(self, *_: Any) -> NoReturn:
        raise ProblemError(
            "an equation computes with all unknowns at once",
            "its second argument, or p, holds them by name; it is called with fields, p and coordinates",
            'unknowns={"k": Unknown(1.0)} and lambda u, p: u.x + p.k * u',
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __truediv__ = __rtruediv__ = __pow__ = __rpow__ = __neg__ = __getitem__ = _refuse

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        cls({})._refuse()
