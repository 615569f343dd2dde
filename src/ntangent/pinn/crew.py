"""How the ranks of a distributed run act together on one objective."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from ntangent._base.errors import DistributedError
from ntangent.run.distribution import Team, dismiss, fail, moved, serve
from ntangent.run.interrupts import Interrupts

Method = TypeVar("Method", bound=Callable[..., Any])


class Crew:
    """The ranks at work on one training: the leader calls, the others do the same beside it.

    Args:
        team: the ranks.
    """

    def __init__(self, team: Team) -> None:
        self.team = team
        self.objectives: list[Any] = []
        self.depth = 0
        self.over = False  # every rank for itself again
        self.broken = False  # ranks may stand in different operations
        self._part: tuple[tuple[int, ...], int, Any] | None = None

    @contextmanager
    def together(self, address: tuple[int, ...], name: str, values: tuple[Any, ...]) -> Iterator[None]:
        """Enter a method that all ranks run; the outermost one is announced."""
        if self.depth == 0 and self.team.leads:
            self.team.announce(("call", (address, name, values)))
        self.depth += 1
        try:
            yield
        except BaseException:
            self.broken = True
            raise
        finally:
            self.depth -= 1

    @contextmanager
    def led(self) -> Iterator[list[Any]]:
        """Lead; what is put into the list is the other ranks' result."""
        result: list[Any] = []
        try:
            yield result
        except BaseException as error:
            # Ranks that stand in an operation could not hear; they notice that this process ends.
            if not (self.broken or isinstance(error, DistributedError)):
                fail(self.team, error)
            raise
        else:
            dismiss(self.team, result)
        finally:
            self.over = True

    def follow(self) -> Any:
        """Do what the leader calls; return the result it hands out at the end."""
        try:
            # A signal is the leader's to act on, which writes a checkpoint first; a second one acts here.
            with Interrupts():
                return serve(self.team, self._call)
        finally:
            self.over = True

    def _call(self, content: Any) -> None:
        address, name, values = content
        target = self._at(address)
        positional, named = moved(values, target.device)
        getattr(target, name)(*positional, **named)

    def _at(self, address: tuple[int, ...]) -> Any:
        """Return an objective by its number, or one of its mini-batches."""
        objective = self.objectives[address[0]]
        if len(address) == 1:
            return objective
        known = self._part
        if known is None or known[:2] != (address, objective.version):
            known = address, objective.version, objective.batch(*address[1:])
            self._part = known
        return known[2]


def shared(method: Method) -> Method:
    """Make a method one that all ranks run at the same time; after the training, the plain one."""
    name = method.__name__

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        crew: Crew = self.crew
        if crew.over:
            self.gather_all()
            return getattr(super(self.sharing, self), name)(*args, **kwargs)
        with crew.together(self.address, name, (args, kwargs)):
            return method(self, *args, **kwargs)

    return cast("Method", call)
