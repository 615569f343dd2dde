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
from ntangent.jet.backends.rows import keeps, signature
from ntangent.jet.polynomial import variables

ABI = 1
MAX_LAYERS = 64
_P, _I, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_long
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ntangent_abi": (_I, []),
    "ntangent_isa": (ctypes.c_char_p, []),
    "ntangent_max_order": (_I, []),
    "ntangent_rows": (_I, []),
    "ntangent_row": (ctypes.c_char_p, [_L]),
    "ntangent_lanes": (_I, [_I]),
    "ntangent_saved_size": (_L, [_I, _P, _L]),
    "ntangent_forward": (None, [_I, _P, _P, _L, _P, _P, _P, _I]),
    "ntangent_backward": (None, [_I, _P, _P, _L, _P, _P, _P, _P, _P, _I]),
    "ntangent_jacobian": (None, [_I, _P, _P, _L, _P, _P, _P, _I]),
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


def row_count(order: int, directions: int, collapsed: bool) -> int:
    """Return the number of rows of a jet."""
    if order == 0:
        return 1
    return 1 + directions * (order - 1) + (1 if collapsed else directions)


def _check_order(order: int) -> None:
    limit = library().order_limit
    if order > limit:
        raise BackendError(
            f"the native kernels stop at order {limit}, got {order}", "", 'use backend="eager"'
        )


class StepPlan:
    """One activation and the shape of its jets, as the kernels read them."""

    def __init__(self, row: Activation, order: int, directions: int, degree: int, collapsed: bool) -> None:
        _check_order(order)
        self.row, self.order, self.directions, self.degree, self.collapsed = (
            row,
            order,
            directions,
            degree,
            collapsed,
        )
        self.rows = row_count(order, directions, collapsed)
        self.rows_in = self.rows if degree == order else 1 + degree * directions
        number = library().kinds[signature(IDENTITY)] if is_identity(row) else kind(row)
        self.slope_rows = self.rows if keeps(row) == 2 else 1
        self._numbers = (ctypes.c_int64 * 5)(directions, order, degree, int(collapsed), number)
        self.address = ctypes.addressof(self._numbers)


class Plan:
    """A network's shape as the kernels read it, checked once.

    Args:
        widths: input, hidden and output widths.
        rows: one activation, or None, for each layer.
        order, directions, degree, collapsed: shape of the jets.
        dtype: float32 or float64.
        given: the activations as they were passed.
    """

    def __init__(
        self, widths: Sequence[int], rows: Sequence[Activation | None], order: int, directions: int,
        degree: int, collapsed: bool, dtype: torch.dtype, given: tuple[Activation, ...] = (),
    ) -> None:  # fmt: skip
        lib = library()
        _check_order(order)
        if len(rows) > MAX_LAYERS:
            raise BackendError(
                f"the native kernels take at most {MAX_LAYERS} layers, got {len(rows)}",
                "",
                'use backend="eager"',
            )
        self.active, self.widest = tuple(rows), max(widths)
        self.given, self.order, self.directions = given, order, directions
        self.degree, self.collapsed, self.dtype = degree, collapsed, dtype
        self.widths, self.single = tuple(widths), int(dtype == torch.float32)
        self.layers = len(rows)
        self.rows = row_count(order, directions, collapsed)
        self.rows_in = self.rows if degree == order else 1 + degree * directions
        kinds = [-1 if row is None else kind(row) for row in rows]
        numbers = [self.layers, directions, order, degree, int(collapsed), *widths, *kinds]
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
        share, wanted = torch.sym_max(tiles // 4, 1), max(24 // self.rows, 1)
        block = torch.sym_min(share, wanted)
        return (tiles + block - 1) // block * block * self.per_tile * self.lanes
