"""Loads the compiled kernels, if this installation has them, and describes networks to them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ntangent._base.errors import BackendError
from ntangent.jet import backends
from ntangent.jet.activations import ACTIVATIONS, IDENTITY, Activation
from ntangent.jet.algebra import Algebra
from ntangent.jet.arithmetic import Structure
from ntangent.jet.backends.rows import keeps, signature
from ntangent.jet.backends.tables import Table, table
from ntangent.jet.polynomial import variables

ABI = 4
MAX_LAYERS = 64
_P, _I, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_long
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ntangent_abi": (_I, []),
    "ntangent_isa": (ctypes.c_char_p, []),
    "ntangent_max_order": (_I, []),
    "ntangent_max_rows": (_I, []),
    "ntangent_rows": (_I, []),
    "ntangent_row": (ctypes.c_char_p, [_L]),
    "ntangent_lanes": (_I, [_I]),
    "ntangent_saved_size": (_L, [_I, _P, _L]),
    "ntangent_forward": (None, [_I, _P, _P, _L, _P, _P, _P, _P, _I]),
    "ntangent_backward": (None, [_I, _P, _P, _L, _P, _P, _P, _P, _P, _P, _I]),
    "ntangent_jacobian": (None, [_I, _P, _P, _L, _P, _P, _P, _P, _I]),
    "ntangent_tangent": (None, [_I, _P, _P, _L, _P, _P, _P, _P, _P, _I]),
    "ntangent_step_forward": (None, [_I, _P, _L, _P, _P, _P, _I]),
    "ntangent_step_backward": (None, [_I, _P, _L, _P, _P, _P, _P, _I]),
}


class Library:
    """The loaded kernels: their C functions, and the numbers of the rows they know."""

    def __init__(self, path: Path) -> None:
        self.path = path
        handle = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(handle, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name.removeprefix("ntangent_"), function)
        if self.abi() != ABI:
            raise OSError(f"{path} has interface {self.abi()}, this package needs {ABI}: rebuild it")
        self.isa_name: str = self.isa().decode()
        self.order_limit: int = self.max_order()
        self.row_limit: int = self.max_rows()
        self.lane_counts = (self.lanes(0), self.lanes(1))
        self.kinds = {self.row(i).decode(): i for i in range(self.rows())}

    def __getattr__(self, name: str) -> Any:  # the C functions, for type checkers
        raise AttributeError(name)


@lru_cache(maxsize=1)
def _search() -> tuple[Library | None, str]:
    tried = []
    for folder in backends.__path__:
        for suffix in (".so", ".dylib"):
            path = Path(folder) / f"libntangent_native{suffix}"
            if not path.exists():
                tried.append(str(path))
                continue
            try:
                return Library(path), ""
            except (OSError, AttributeError) as error:
                return None, f"{path} cannot be used: {error}"
    return None, "the kernels were not built with this installation (looked for " + ", ".join(tried) + ")"


def available() -> bool:
    """Return whether the compiled kernels can be used."""
    return _search()[0] is not None


def reason() -> str:
    """Return why the compiled kernels cannot be used, or an empty string."""
    return _search()[1]


def library() -> Library:
    """Return the loaded kernels, or raise an error that says why there are none."""
    found, why = _search()
    if found is None:
        raise BackendError(
            "there are no native kernels here", why, 'use backend="eager", or reinstall with a C++ compiler'
        )
    return found


def is_identity(row: Activation) -> bool:
    """Return whether the row is y = x."""
    return not row.flow and row.output == variables(0)[0]


@lru_cache(maxsize=1024)
def _kind(row: Activation) -> int | None:
    if is_identity(row):
        return -1
    return library().kinds.get(signature(row))


def serves(row: Activation) -> bool:
    """Return whether the kernels know this row of the activation table."""
    return available() and _kind(row) is not None


def kind(row: Activation) -> int:
    """Return the number of a row in the kernels; -1 is the identity."""
    number = _kind(row)
    if number is None:
        raise BackendError(
            f"the native kernels do not know the activation {row.name!r}",
            f"they were compiled for the {len(ACTIVATIONS)} rows of the activation table",
            'use backend="eager"',
        )
    return number


def row_count(order: int, directions: Structure, collapsed: bool) -> int:
    """Return the number of rows of a jet."""
    if isinstance(directions, Algebra):
        return directions.rows(order)
    if order == 0:
        return 1
    return 1 + directions * (order - 1) + (1 if collapsed else directions)


def order_limit() -> int:
    """Return the highest order that the kernels carry."""
    return library().order_limit


def _check_order(order: int) -> None:
    limit = order_limit()
    if order > limit:
        raise BackendError(
            f"the native kernels stop at order {limit}, got {order}", "", 'use backend="eager"'
        )


def _check_rows(rows: int) -> None:
    limit = library().row_limit
    if rows > limit:
        raise BackendError(
            f"the native kernels take algebras of at most {limit} rows, got {rows}",
            "",
            'use backend="eager"',
        )


class _Shape:
    """Rows of the jets, of the argument, and how they multiply.

    Args:
        order, directions, degree, collapsed: shape of the jets; an algebra in the place of the number
            of directions.
    """

    def __init__(self, order: int, directions: Structure, degree: int, collapsed: bool) -> None:
        self.order, self.directions, self.degree, self.collapsed = order, directions, degree, collapsed
        self.rows = row_count(order, directions, collapsed)
        self._table: Table | None = None
        if isinstance(directions, Algebra):
            _check_rows(self.rows)
            self._table = table(directions, order, degree)
            self.rows_in = directions.rows(degree)
            self.head = (1, order, degree, 0, self._table.address)
        else:
            _check_order(order)
            self.rows_in = self.rows if degree == order else 1 + degree * directions
            self.head = (directions, order, degree, int(collapsed), 0)


class StepPlan(_Shape):
    """One activation and the shape of its jets, as the kernels read them."""

    def __init__(
        self, row: Activation, order: int, directions: Structure, degree: int, collapsed: bool
    ) -> None:
        super().__init__(order, directions, degree, collapsed)
        self.row = row
        number = library().kinds[signature(IDENTITY)] if is_identity(row) else kind(row)
        self.slope_rows = self.rows if keeps(row) == 2 else 1
        self._numbers = (ctypes.c_int64 * 6)(*self.head, number)
        self.address = ctypes.addressof(self._numbers)


class Plan(_Shape):
    """A network's shape as the kernels read it, checked once.

    Args:
        widths: input, hidden and output widths.
        rows: one activation, or None, for each layer.
        order, directions, degree, collapsed: shape of the jets; an algebra in the place of the number
            of directions.
        dtype: float32 or float64.
        given: the activations as they were passed.
    """

    def __init__(
        self, widths: Sequence[int], rows: Sequence[Activation | None], order: int, directions: Structure,
        degree: int, collapsed: bool, dtype: torch.dtype, given: tuple[Activation, ...] = (),
    ) -> None:  # fmt: skip
        lib = library()
        super().__init__(order, directions, degree, collapsed)
        if len(rows) > MAX_LAYERS:
            raise BackendError(
                f"the native kernels take at most {MAX_LAYERS} layers, got {len(rows)}",
                "",
                'use backend="eager"',
            )
        self.active, self.widest = tuple(rows), max(widths)
        self.given, self.dtype = given, dtype
        self.widths, self.single = tuple(widths), int(dtype == torch.float32)
        self.layers = len(rows)
        kinds = [-1 if row is None else kind(row) for row in rows]
        numbers = [self.layers, *self.head, *widths, *kinds]
        self._numbers = (ctypes.c_int64 * len(numbers))(*numbers)
        self.address = ctypes.addressof(self._numbers)
        # Per tile of points and feature: the output, and what backward needs of the slope.
        self.per_tile = 0
        for layer, (row, width) in enumerate(zip(rows, widths[1:], strict=True)):
            if kinds[layer] >= 0 and row is not None:
                self.per_tile += width * (self.rows + (self.rows if keeps(row) == 2 else 1))
            elif layer + 1 < self.layers:
                self.per_tile += width * self.rows
        self.lanes = lib.lane_counts[self.single]
        self.sizes: dict[int, int] = {}  # points -> saved_size

    def saved_size(self, points: Any) -> Any:
        """Return how many numbers forward saves for backward; works on symbolic sizes."""
        tiles = (points + self.lanes - 1) // self.lanes
        share, wanted = torch.sym_max(tiles // 4, 1), max((24 if self.widest > 128 else 48) // self.rows, 1)
        block = torch.sym_min(share, wanted)
        return (tiles + block - 1) // block * block * self.per_tile * self.lanes
