"""Which points are evaluated together: blocks on the same points, small blocks of one kind, chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ntangent._base.errors import ShapeError
from ntangent.pinn.equation import Block
from ntangent.pinn.evaluation import Evaluation, handed
from ntangent.pinn.field import Field, Parameters
from ntangent.pinn.indices import Indices, indices

if TYPE_CHECKING:
    from ntangent.pinn.problem import Problem


# A few points more in a large pass cost less than a pass of their own: at most this fraction.
SMALL = 0.25

Entry = tuple[int, Block, slice]
# The blocks of a segment share their points, the segments of a pass stand side by side.
Segments = list[list[Entry]]


@dataclass(frozen=True)
class Part:
    """The share of a block in a pass.

    Args:
        index: of the block.
        block: the block, with the points of this pass alone.
        segment: which of the segments of the pass holds its points.
        points: where they stand among the points of the pass; None for all of them.
        columns: which of the block's residuals these are.
        within: the set in which the block computes.
        coordinates: the coordinates as fields.
    """

    index: int
    block: Block
    segment: int
    points: slice | None
    columns: slice
    within: Indices
    coordinates: dict[str, Field]


class Pass:
    """One network evaluation that serves one or several blocks.

    Args:
        problem: the problem.
        segments: lists of (index, block, columns); the blocks of a segment share their points, the
            segments stand side by side.
    """

    def __init__(self, problem: Problem, segments: Sequence[Sequence[Entry]]) -> None:
        tables = [entries[0][1].points for entries in segments]
        self._sizes = [len(table) for table in tables]
        self.points = torch.cat(tables) if len(tables) > 1 else tables[0]
        blocks = [block for entries in segments for _, block, _ in entries]
        self.evaluation = Evaluation(problem, self.points, [block.demand for block in blocks])
        self.height = max(sum(len(b.weights) for _, b, _ in entries) for entries in segments)
        self.parts = []
        start, names = 0, problem.domain.names
        for segment, entries in enumerate(segments):
            count = len(tables[segment])
            where = slice(start, start + count) if len(tables) > 1 else None
            for index, block, columns in entries:
                within = indices(names, block.demand.within)
                rows = self.evaluation.coordinate_rows(where)
                fixed = handed({n: rows[n] for n in block.demand.fields if n in rows}, within)
                self.parts.append(Part(index, block, segment, where, columns, within, fixed))
            start += count

    def rows(
        self, net: Any, parameters: Callable[[slice | None], Parameters]
    ) -> Iterator[tuple[Part, Tensor]]:
        """Evaluate the network once and return the unweighted residuals of every block, (C, n).

        Args:
            net: the network.
            parameters: returns the parameters at some of the points.
        """
        rows = self.evaluation(net)
        pieces = [rows]
        if len(self._sizes) > 1:
            # One operation for all segments: single slices would each have a backward pass.
            cut = {name: (data.split(self._sizes, 1), over) for name, (data, over) in rows.items()}
            pieces = [
                {name: (parts[i], over) for name, (parts, over) in cut.items()}
                for i in range(len(self._sizes))
            ]
        for part in self.parts:
            block, here = part.block, pieces[part.segment]
            own = {name: here[name] for name in block.demand.fields if name in here}
            fields = handed(own, part.within, block.demand)
            values = block.rows(fields, parameters(part.points), part.coordinates)
            if values.shape != (len(block.weights), block.count):
                raise ShapeError(
                    f"the rows of {block.name} have shape {tuple(values.shape)}",
                    f"there are {len(block.weights)} weight(s) and {block.count} residual(s) in a row",
                    "rows of shape (C, N)",
                )
            yield part, values


def plan(problem: Problem, blocks: Sequence[Block], chunk: int | None = None) -> list[Pass]:
    """Arrange blocks into as few network evaluations as pay; see :func:`arranged`."""
    return [Pass(problem, segments) for segments in arranged(blocks, chunk)]


def arranged(blocks: Sequence[Block], chunk: int | None = None) -> list[Segments]:
    """Return the segments of each pass.

    Equations share those of their points; conditions of one kind stand side by side; a few points
    that need no more than a larger pass carries join it.

    Args:
        blocks: the blocks.
        chunk: largest number of points evaluated together, for blocks that can be cut.
    """
    cut = [piece for segments in grouped(blocks) for piece in _cut(segments, chunk)]
    return joined(cut, chunk)


def grouped(blocks: Sequence[Block]) -> list[Segments]:
    """Return the blocks that can stand in one pass: those of the same points, those of one kind."""
    groups: dict[Any, Segments] = {}
    for i, block in enumerate(blocks):
        entry = (i, block, slice(0, block.count))
        if block.free:
            key: Any = ("points", id(block.points))
            groups.setdefault(key, [[]])[0].append(entry)
        elif block.fold == 1:
            groups.setdefault(("kind", block.demand.key(), len(block.weights)), []).append([entry])
        else:
            groups[i] = [[entry]]
    return list(groups.values())


def section(segments: Segments, start: int, stop: int) -> Segments:
    """Return a part of the points of a group of equations."""
    columns = slice(start, stop)
    # One table for all: blocks of a segment share their points.
    points = segments[0][0][1].points[columns]
    return [[(i, replace(block, points=points), columns) for i, block, _ in segments[0]]]


def _cut(segments: Segments, chunk: int | None) -> list[Segments]:
    """Cut the points of a group of equations into chunks."""
    entries = segments[0]
    count = len(entries[0][1].points)
    if chunk is None or count <= chunk or not entries[0][1].free:
        return [segments]
    return [section(segments, start, min(start + chunk, count)) for start in range(0, count, chunk)]


def joined(groups: list[Segments], chunk: int | None) -> list[Segments]:
    """Let small groups join a larger one that carries all they need."""
    sizes = [sum(len(entries[0][1].points) for entries in segments) for segments in groups]
    order = sorted(range(len(groups)), key=lambda i: -sizes[i])
    kept: list[int] = []
    for i in order:
        host = next((j for j in kept if _fits(groups[i], groups[j], sizes[i], sizes[j], chunk)), None)
        if host is None:
            kept.append(i)
        else:
            groups[host] = groups[host] + groups[i]
    return [groups[i] for i in sorted(kept)]


def _fits(small: Segments, large: Segments, count: int, size: int, chunk: int | None) -> bool:
    if count > SMALL * size or (chunk is not None and size + count > chunk):
        return False
    if any(block.fold > 1 for entries in (*small, *large) for _, block, _ in entries):
        return False
    height = max(sum(len(b.weights) for _, b, _ in entries) for entries in large)
    carried: dict[str, set[Any]] = {}
    for entries in large:
        for _, block, _ in entries:
            for name, members in block.demand.fields.items():
                carried.setdefault(name, set()).update(members)
    return all(
        sum(len(b.weights) for _, b, _ in entries) <= height
        and all(_below(members, carried.get(name, set())) for name, members in block.demand.fields.items())
        for entries in small
        for _, block, _ in entries
    )


def _below(members: Iterable[Any], carried: Iterable[Any]) -> bool:
    """Return whether each multi-index lies below one that is carried."""
    return all(any(all(n <= m for n, m in zip(b, c, strict=True)) for c in carried) for b in members)
