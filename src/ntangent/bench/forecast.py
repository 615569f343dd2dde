"""What the next order will cost, from lower ones: nobody should wait an hour to learn that it takes one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ntangent._base import machine
from ntangent.bench.contenders import FORWARD, Work
from ntangent.bench.timing import TOTAL, duration, once

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
            return f"predicted {self.seconds:.2g} s" if self.seconds < 100 else f"predicted {self.seconds:.0f} s"
        return f"predicted {self.memory / 2**30:.2g} GB"


@dataclass
class Forecast:
    """The costs of the orders of one series that are known so far.

    Args:
        known: order -> cost of one pass.
    """

    known: dict[int, Cost] = field(default_factory=dict)

    @property
    def highest(self) -> int | None:
        """The highest order known."""
        return max(self.known, default=None)

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
        growth = WARY
        if len(below) > 1:
            before = self.known[below[-2]]
            growth = (last.seconds / max(before.seconds, 1e-9)) ** (1 / (below[-1] - below[-2]))
            growth = min(max(growth, GROWTH[0]), GROWTH[1])
        factor = max(growth, at_least) ** (order - below[-1])
        return Cost(last.seconds * factor, last.forward * factor, int(last.memory * factor))

    def refuse(self, order: int, limit: Cost, probe: Callable[[int], Cost]) -> Cost | None:
        """Return None if an order can be afforded, else what it is predicted to cost.

        Where what is known does not decide, one pass is made at lower orders, each of which can
        itself be afforded.
        """
        while True:
            wary = self.predict(order, WARY)
            if wary is not None and wary.within(limit):
                return None
            highest = max((k for k in self.known if k < order), default=-1)
            step = highest + 1
            if step >= order:
                found = self.predict(order)
                return None if found is None or found.within(limit) else found
            ahead = self.predict(step)
            if ahead is not None and not ahead.within(limit):
                return self.predict(order)
            self.known[step] = probe(step)


def cost_of(work: Work, wait: Callable[[], object]) -> Cost:
    """Return the cost of one pass: the second one where it is short, for the first also sets things up."""
    before = machine.resident()
    measured = machine.reset_peak() and before is not None
    forward = seconds = 0.0
    for _ in range(2):
        forward, seconds = _pass(work, wait)
        if seconds > 0.5:
            break
    memory = max(0, (machine.peak_resident() or 0) - (before or 0)) if measured else 0
    return Cost(seconds, forward, memory)


def _pass(work: Work, wait: Callable[[], object]) -> tuple[float, float]:
    times = [once(task, wait) for task in work.tasks("")]
    forward = times[0].get(FORWARD, (0.0, 0.0))[0]
    last = times[-1]
    return forward, last[TOTAL][0] if TOTAL in last else duration(last)
