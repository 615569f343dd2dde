"""Which rank evaluates which points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ntangent.pinn.equation import Block
from ntangent.pinn.passes import Segments, arranged, grouped, joined, section

# Shares begin at multiples of this: kernels take points in groups of 8 or 16, and a point that stands
# at the same place of its group gets the same bits.
ALIGNED = 16


@dataclass(frozen=True)
class Duty:
    """A pass and who evaluates it."""

    rank: int
    segments: Segments


def duties(blocks: Sequence[Block], size: int, chunk: int | None) -> list[Duty]:
    """Share the passes of an objective out among ranks, about equally by cost.

    Args:
        blocks: of the objective.
        size: number of ranks.
        chunk: largest number of points evaluated together. With it the passes are those of one
            process, in its order, and each goes to a rank as a whole. Without it each rank gets
            whole conditions first, and then as many of the other points as evens out.
    """
    return _contiguous(arranged(blocks, chunk), size) if chunk is not None else _even(blocks, size)


def _cost(segments: Segments) -> float:
    """Return rows times points, about what an evaluation costs."""
    points = sum(len(entries[0][1].points) for entries in segments)
    carried: dict[str, set[tuple[int, ...]]] = {}
    for entries in segments:
        for _, block, _ in entries:
            for name, members in block.demand.fields.items():
                carried.setdefault(name, set()).update(members)
    return points * (1 + sum(map(len, carried.values())))


def _contiguous(passes: list[Segments], size: int) -> list[Duty]:
    costs = [_cost(segments) for segments in passes]
    total, done, found = sum(costs), 0.0, []
    for segments, cost in zip(passes, costs, strict=True):
        found.append(Duty(min(size - 1, int(size * (done + cost / 2) / total)), segments))
        done += cost
    return found


def _even(blocks: Sequence[Block], size: int) -> list[Duty]:
    groups = grouped(blocks)
    free = [segments for segments in groups if segments[0][0][1].free]
    rest = [[entries] for segments in groups if not segments[0][0][1].free for entries in segments]
    shares: list[list[Segments]] = [[] for _ in range(size)]
    loads = [0.0] * size
    for segments in sorted(rest, key=_cost, reverse=True):
        rank = loads.index(min(loads))
        shares[rank].append(segments)
        loads[rank] += _cost(segments)
    costs = [_cost(segments) for segments in free]
    target = (sum(loads) + sum(costs)) / size
    room = [max(0.0, target - load) for load in loads]
    for segments in free:
        count, start, before = len(segments[0][0][1].points), 0, 0.0
        for rank in range(size):
            before += room[rank]
            stop = count if rank == size - 1 else round(count * before / sum(room) / ALIGNED) * ALIGNED
            stop = min(max(stop, start), count)
            if stop > start:
                shares[rank].insert(0, section(segments, start, stop))
            start = stop
    return [Duty(rank, segments) for rank in range(size) for segments in joined(shares[rank], None)]
