"""Which points are evaluated together: blocks on the same points, small blocks of one kind, chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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


@dataclass(frozen=True)
class Part:
    """The share of a block in a pass.

    Args:
        index: of the block.
        block: the block, with the points of this pass alone.
        points: where they stand among the points of the pass; None for all of them.
        columns: which of the block's residuals these are.
        within: the set in which the block computes.
        coordinates: the coordinates as fields.
    """

    index: int
    block: Block
    points: slice | None
    columns: slice
    within: Indices
    coordinates: dict[str, Field]


class Pass:
    """One network evaluation that serves one or several blocks.

    Args:
        problem: the problem.
        blocks: (index, block, columns) of those that take part.
        pooled: whether the blocks stand side by side, each with its own points, and not on the
            same points.
    """

    def __init__(self, problem: Problem, blocks: Sequence[tuple[int, Block, slice]], pooled: bool) -> None:
        first = blocks[0][1]
        self.pooled = pooled
        self.points = torch.cat([b.points for _, b, _ in blocks]) if pooled else first.points
        self.evaluation = Evaluation(problem, self.points, [b.demand for _, b, _ in blocks])
        self.parts = []
        start, names = 0, problem.domain.names
        for index, block, columns in blocks:
            where = slice(start, start + len(block.points)) if pooled else None
            within = indices(names, block.demand.within)
            fixed = handed(self.evaluation.coordinate_rows(where), within)
            self.parts.append(Part(index, block, where, columns, within, fixed))
            start += len(block.points)

    def rows(
        self, net: Any, parameters: Callable[[slice | None], Parameters]
    ) -> Iterator[tuple[Part, Tensor]]:
        """Evaluate the network once and return the unweighted residuals of every block, (C, n).

        Args:
            net: the network.
            parameters: returns the parameters at some of the points.
        """
        rows = self.evaluation(net)
        for part in self.parts:
            block, own = part.block, rows
            if part.points is not None:
                own = {name: (data[:, part.points], over) for name, (data, over) in rows.items()}
            fields = handed({n: own[n] for n in block.demand.fields if n in own}, part.within)
            values = block.rows(fields, parameters(part.points), part.coordinates)
            expected = (len(block.weights), block.count)
            if tuple(values.shape) != expected:
                raise ShapeError(
                    f"the rows of {block.name} have shape {tuple(values.shape)}",
                    f"there are {expected[0]} weight(s) and {expected[1]} residual(s) in a row",
                    "rows of shape (C, N)",
                )
            yield part, values


def plan(problem: Problem, blocks: Sequence[Block], chunk: int | None = None) -> list[Pass]:
    """Arrange blocks into as few network evaluations as possible.

    Args:
        problem: the problem.
        blocks: the blocks.
        chunk: largest number of points evaluated together, for blocks that can be cut.
    """
    shared: dict[Any, list[tuple[int, Block]]] = {}
    for i, block in enumerate(blocks):
        if block.free:
            key: Any = ("points", id(block.points))
        elif block.fold == 1:
            key = ("kind", block.demand.key(), len(block.weights))
        else:
            key = ("single", i)
        shared.setdefault(key, []).append((i, block))
    passes = []
    for (kind, *_), members in shared.items():
        count = len(members[0][1].points)
        if kind != "points" or chunk is None or count <= chunk:
            entries = [(i, block, slice(0, block.count)) for i, block in members]
            passes.append(Pass(problem, entries, kind == "kind" and len(members) > 1))
            continue
        for start in range(0, count, chunk):
            columns = slice(start, min(start + chunk, count))
            points = members[0][1].points[columns]
            passes.append(Pass(problem, [(i, replace(b, points=points), columns) for i, b in members], False))
    return passes
