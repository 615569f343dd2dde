"""What the next order will cost, from lower ones: nobody should wait an hour to learn that it takes one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from ntangent._base import machine
from ntangent.bench.contenders import FORWARD, Work
from ntangent.bench.timing import TOTAL, duration, once

T = TypeVar("T")
WARY = 3.0  # per order: nested reverse mode grows 2.4 to 2.8-fold; used to leap over orders, not to refuse
GROWTH = (1.1, 6.0)  # limits to what a measured pair of orders is believed to say


@dataclass(frozen=True)
class Cost:
    """One pass.

    Args:
        seconds: of the whole pass.
        forward: of its forward part.
        memory: bytes, 0 where unknown.
    """

    seconds: float
    forward: float = 0.0
    memory: int = 0

    def within(self, limit: Cost) -> bool:
        """Return whether neither time nor memory exceeds a limit."""
        return self.seconds <= limit.seconds and self.memory <= limit.memory

    def excess(self, limit: Cost) -> str:
        """Say in what it exceeds a limit."""
        if self.seconds > limit.seconds:
            return f"predicted {duration_text(self.seconds)}"
        return f"predicted {self.memory / 2**30:.2g} GB"


def duration_text(seconds: float) -> str:
    """Return a time in a readable unit."""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


@dataclass
class Forecast:
    """The costs of the orders of one series that are known so far.

    Args:
        known: order -> cost of one pass.
        memory: order -> bytes that the first pass of a cell took, before its time is known.
        confirmed: orders whose cost was measured again before something was refused because of it.
    """

    known: dict[int, Cost] = field(default_factory=dict)
    memory: dict[int, int] = field(default_factory=dict)
    confirmed: set[int] = field(default_factory=set)

    def predict(self, order: int, at_least: float = 0.0) -> Cost | None:
        """Return the cost of an order: known, or by the growth between the two highest ones below it.

        Args:
            order: the order asked for.
            at_least: growth per order that is assumed even where less was measured.
        """
        if order in self.known:
            return self.known[order]
        below = sorted(k for k in self.known if k < order)
        if not below:
            return None
        last = self.known[below[-1]]
        growth = memory = WARY
        if len(below) > 1:
            before, steps = self.known[below[-2]], below[-1] - below[-2]
            growth = _growth(before.seconds, last.seconds, steps)
            # Memory is seen only where it exceeds what the process has at hand: too little is the rule.
            memory = max(growth, _growth(before.memory, last.memory, steps))
        ahead = order - below[-1]
        factor, more = max(growth, at_least) ** ahead, max(memory, at_least) ** ahead
        return Cost(last.seconds * factor, last.forward * factor, int(last.memory * more))

    def refuse(self, order: int, limit: Cost, probe: Callable[[int], Cost]) -> Cost | None:
        """Return None if an order can be afforded, else what it is predicted to cost.

        Where what is known does not decide, passes are made at lower orders, each of which can itself
        be afforded. Before an order is refused the one that speaks against it is measured once more:
        a hiccup of the machine is no trend.

        Args:
            order: the order asked for.
            limit: what can be afforded.
            probe: measures the cost of an order.
        """
        while True:
            wary = self.predict(order, WARY)
            if wary is not None and wary.within(limit):
                return None
            highest = max((k for k in self.known if k < order), default=-1)
            step = min(highest + 1, order)
            ahead = self.predict(step)
            if ahead is not None and not ahead.within(limit):
                if highest in self.confirmed:
                    return self.predict(order)
                self.confirmed.add(highest)
                self.known[highest] = min(self.known[highest], probe(highest), key=lambda cost: cost.seconds)
            elif step == order:
                return None
            else:
                self.known[step] = probe(step)


def _growth(before: float, after: float, steps: int) -> float:
    """Return the growth per order between two costs, within what is believed."""
    ratio = after / before if before > 0 else GROWTH[0]
    return min(max(math.pow(ratio, 1 / steps), GROWTH[0]), GROWTH[1])


def memory_of(call: Callable[[], T]) -> tuple[T, int]:
    """Return what a call returns, and by how many bytes the process grew in it at most; 0 if unknown."""
    before = machine.resident()
    measured = machine.reset_peak() and before is not None
    value = call()
    return value, max(0, (machine.peak_resident() or 0) - (before or 0)) if measured else 0


def cost_of(work: Work, wait: Callable[[], object]) -> Cost:
    """Return the cost of one pass, the shortest of a few: the first one also sets things up."""
    first, memory = memory_of(lambda: _pass(work, wait))
    passes = [first]
    while first[0] < 1.0 and (
        len(passes) < 2 or (len(passes) < 10 and sum(seconds for seconds, _ in passes) < 0.1)
    ):
        passes.append(_pass(work, wait))
    return Cost(*min(passes), memory)


def _pass(work: Work, wait: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of a pass, and of its forward part."""
    times = [once(task, wait) for task in work.tasks("")]
    forward = times[0].get(FORWARD, (0.0, 0.0))[0]
    last = times[-1]
    return (last[TOTAL][0] if TOTAL in last else duration(last)), forward
