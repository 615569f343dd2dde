"""Checks of names and points, and the drawing of points, for all domains."""

from __future__ import annotations

import inspect
import keyword
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError, ProblemError, ShapeError
from ntangent.pinn.field import Field

if TYPE_CHECKING:
    from ntangent.pinn.domains.box import Box

# Maps (count, dimension) to the next points of the unit cube, float64 on the CPU.
Draw = Callable[[int, int], Tensor]
# A tensor of points, shape (N, d), or a jet of such.
Points = Any

# Attributes of a field and arguments of a condition: a coordinate of that name would hide behind them.
OPTIONS = frozenset({"on", "n", "sampler", "seed", "field", "component", "hard"})
RESERVED = frozenset({*dir(Field), *OPTIONS, "value", "weight", "self"})
# Rejection gives up when fewer than one candidate in so many lies in the domain.
_HOPELESS = 1 << 17
# Points of the low-discrepancy rule that measures what has no formula.
QUADRATURE = 1 << 16


def check_name(name: Any) -> str:
    """Return ``name`` if it can name a coordinate."""
    if not isinstance(name, str):
        raise ArgumentError(f"{name!r} cannot name a coordinate", "a name is a string", 'names=("x", "y")')
    if name in RESERVED or name.startswith("_") or keyword.iskeyword(name) or not name.isidentifier():
        raise ArgumentError(
            f"{name!r} cannot name a coordinate",
            "fields or conditions already use this name" if name in RESERVED else "u.NAME must be readable",
            "Box(x=(-1, 1))",
        )
    return name


def check_names(names: Any, dimension: int) -> tuple[str, ...]:
    """Return names of the coordinates if they are distinct and of the right number."""
    known = tuple(check_name(name) for name in ((names,) if isinstance(names, str) else names))
    if len(known) != dimension or len(set(known)) != dimension:
        fix = "(" + ", ".join(repr("xyzwabc"[i : i + 1] or f"x{i}") for i in range(dimension)) + ")"
        raise ArgumentError(
            f"the names {known} do not fit {dimension} coordinates", "each has one of its own", f"names={fix}"
        )
    return known


def check_shape(points: Points, dimension: int, what: str = "points") -> Points:
    """Return points if their shape is (N, dimension)."""
    if len(points.shape) != 2 or points.shape[1] != dimension:
        raise ShapeError(
            f"{what} have shape {tuple(points.shape)}, the domain has {dimension} coordinate(s)",
            "a row is a point",
            f"torch.rand(100, {dimension})",
        )
    return points


def columns(points: Points) -> list[Any]:
    """Return the coordinates of points, shape (N, 1) each."""
    return [points[:, i : i + 1] for i in range(points.shape[1])]


def rounding(points: Tensor, box: Box) -> float:
    """Return how far a point may leave a domain by the rounding of its coordinates alone."""
    size = max(max(abs(low), abs(high), high - low) for _, low, high in box.intervals)
    return 16 * float(torch.finfo(points.dtype).eps) * size


def by_name(function: Callable[..., Any], names: Sequence[str], points: Points) -> Any:
    """Call a function of coordinates: by their names, or with all points if it names none of them.

    Each coordinate has shape (N, 1); a function of one argument that is no coordinate gets (N, d).
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return function(points)
    taken = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [p.name for p in parameters if p.default is p.empty and p.name in taken]
    known = dict(zip(names, columns(points), strict=True))
    if any(name in known for name in taken):
        strangers = [name for name in needed if name not in known]
        if strangers:
            raise ArgumentError(
                f"a function takes {', '.join(strangers)}, which are no coordinates",
                f"the coordinates are {', '.join(names)}",
                f"lambda {', '.join(names)}: ...",
            )
        return function(**{name: known[name] for name in taken if name in known})
    if len(needed) == len(names) and len(names) > 1:
        return function(*known.values())
    return function(points)


def shares(count: int, measures: Sequence[float]) -> list[int]:
    """Split a number of points in proportion to measures, by largest remainders.

    Every part has a point when there are enough of them.
    """
    floor = 1 if count >= len(measures) else 0
    left, whole = count - floor * len(measures), sum(measures)
    exact = [left * m / whole for m in measures]
    counts = [math.floor(e) for e in exact]
    rest = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for i in rest[: left - sum(counts)]:
        counts[i] += 1
    return [c + floor for c in counts]


def reject(
    count: int, propose: Callable[[int], tuple[Tensor, ...]], keep: Callable[..., Tensor], what: str
) -> tuple[Tensor, ...]:
    """Return ``count`` of the proposals that are kept, spread evenly over all of those.

    Raises:
        ProblemError: if hardly any is.
    """
    found: list[tuple[Tensor, ...]] = []
    have = tried = 0
    while have < count:
        batch = max(64, min(1 << 16, int(1.2 * (count - have) * max(tried, 1) / max(have, 1))))
        proposal = propose(batch)
        mask = keep(*proposal)
        tried, have = tried + batch, have + int(mask.sum())
        found.append(tuple(tensor[mask] for tensor in proposal))
        if tried >= _HOPELESS and have * _HOPELESS < tried * 16:
            raise ProblemError(
                f"only {have} of {tried} candidates lie in {what}",
                "it is tiny in its bounding box, or empty; drawing points by rejection would not end",
                "check the shapes with .contains(...), or give the points: PointCloud(points)",
            )
    # A source may run along a line in order: the first ones would leave its end empty.
    chosen = torch.arange(count) * have // max(count, 1)
    return tuple(torch.cat(parts)[chosen] for parts in zip(*found, strict=True))


def lattice(count: int, dimension: int) -> Tensor:
    """Return fixed low-discrepancy points of the unit cube (Sobol, unscrambled), shape (N, d)."""
    return torch.quasirandom.SobolEngine(dimension).draw(count, dtype=torch.float64)


def fixed_draw() -> Draw:
    """Return the draw of these points, from the first one on."""
    engines: dict[int, Any] = {}

    def draw(count: int, dimension: int) -> Tensor:
        if dimension == 0:
            return torch.zeros(count, 0, dtype=torch.float64)
        engine = engines.setdefault(dimension, torch.quasirandom.SobolEngine(dimension))
        return engine.draw(count, dtype=torch.float64)  # type: ignore[no-any-return]

    return draw
