"""What every stepper offers: a step, and its derivative forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError
from ntangent.ode.controller import Control
from ntangent.ode.field import Field
from ntangent.ode.methods.base import Method


@dataclass
class Attempt:
    """What one attempted step gave.

    Args:
        state: the new state, (w, B, n); w = 1 for one-step methods, newest first for others.
        error: estimate of the local error, (B, n), or None.
        ok: rows whose equations were solved, (B,) bool.
        stages: the states where f was evaluated, (s, B, n).
        extra: what else the derivative of the step needs, (..., B, ...), or None.
        effort: Newton iterations over the most allowed.
        power: power of h that the error goes with in each row, (B,), where it varies.
    """

    state: Tensor
    error: Tensor | None
    ok: Tensor
    stages: Tensor
    extra: Tensor | None = None
    effort: float = 0.0
    power: Tensor | None = None


@dataclass
class Leap:
    """K steps that were solved.

    Args:
        states: at the start of each step and the end of the last, (K + 1, B, n).
        stages: (K, s, B, n).
        iterations: Newton iterations.
        factorisations: how often all matrices were inverted.
    """

    states: Tensor
    stages: Tensor
    iterations: int
    factorisations: int


@dataclass
class Step:
    """An accepted step of some rows; the others have h = 0, which makes it the identity for them.

    Args:
        stepper: who made it.
        t: times at its start, (B,).
        h: sizes, (B,).
        state: the state at its start, (w, B, n).
        stages: see :class:`Attempt`; None where it was left out to save memory.
        extra: see :class:`Attempt`.
        hit: index of the output reached, (B,), or -1.
    """

    stepper: Stepper
    t: Tensor
    h: Tensor
    state: Tensor
    stages: Tensor | None
    extra: Tensor | None
    hit: Tensor


@dataclass
class Steps:
    """K steps of one stepper, stacked along the first axis of every tensor of :class:`Step`."""

    t: Tensor
    h: Tensor
    state: Tensor
    stages: Tensor
    extra: Tensor | None

    @classmethod
    def stack(cls, steps: list[Step]) -> Steps:
        """Return the steps as one."""
        stages = [step.stages for step in steps]
        extras = [step.extra for step in steps]
        return cls(
            torch.stack([step.t for step in steps]),
            torch.stack([step.h for step in steps]),
            torch.stack([step.state for step in steps]),
            torch.stack([stage for stage in stages if stage is not None]),
            None if extras[0] is None else torch.stack([extra for extra in extras if extra is not None]),
        )


class Linearised(Protocol):
    """The derivative of K consecutive steps, walked from the last to the first or the other way."""

    def pull(self, k: int, cotangent: Tensor) -> Tensor:
        """Return the cotangent (w, B, n) at the start of step k from that at its end."""
        ...

    def gradients(self) -> list[Tensor]:
        """Return the gradients for the parameters after all K pulls."""
        ...

    def push(self, k: int, tangent: Tensor) -> Tensor:
        """Return the tangent (w, B, n, P) at the end of step k from that at its start."""
        ...


class Stepper:
    """Base of the steppers.

    Args:
        method: the row of the catalogue.
        field: the right-hand side.
        control: tolerances, for the inner iteration.
        tight: whether derivatives will be taken, so that stages are solved further.
    """

    recomputable: ClassVar[bool] = True
    """Whether stages follow from the start of a step alone, so that they may be left out."""
    growth: ClassVar[float] = torch.inf
    """Most that a step may be longer than the one before."""

    def __init__(self, method: Method, field: Field, control: Control, *, tight: bool) -> None:
        self.method, self.field, self.control, self.tight = method, field, control, tight
        self.newton_iterations = self.factorisations = 0

    @property
    def error_order(self) -> int | None:
        """The power of h that the error estimate goes with; None without an estimate."""
        raise NotImplementedError

    def initial(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the state (w, B, n) to start from; forgets what earlier steps left."""
        del t
        return y[None]

    def attempt(self, t: Tensor, h: Tensor, state: Tensor) -> Attempt:
        """Try a step of sizes h from the state at t, all (B,); no tape."""
        raise NotImplementedError

    def accept(self, accepted: Tensor, t: Tensor, h: Tensor, attempt: Attempt) -> None:
        """Hear which rows of the last attempt were accepted."""

    def longest_leap(self, state: Tensor) -> int:
        """Return how many given steps from a state (w, B, n) may be solved at once; less than 2 for none."""
        del state
        return 1

    def leap(self, t: Tensor, h: Tensor, state: Tensor) -> Leap | None:
        """Solve K given steps at once, t and h (K, B), or return None: then they are tried one by one."""
        del t, h, state
        return None

    def linearise(self, steps: Steps) -> Linearised:
        """Return the derivative of accepted steps, with their sizes as constants."""
        raise NotImplementedError


Maker = Callable[[Any, Field, Control, bool], Stepper]
_MAKERS: list[tuple[Callable[[Method], bool], Maker]] = []


def serves(test: Callable[[Method], bool]) -> Callable[[Maker], Maker]:
    """Return a decorator that registers a maker of steppers for the methods that pass ``test``."""

    def add(maker: Maker) -> Maker:
        _MAKERS.append((test, maker))
        return maker

    return add


def make_stepper(method: Method, field: Field, control: Control, *, tight: bool) -> Stepper:
    """Return a stepper for the method.

    Raises:
        ArgumentError: if no stepper serves it.
    """
    for test, maker in _MAKERS:
        if test(method):
            return maker(method, field, control, tight)
    raise ArgumentError(
        f"the method {method.name!r} has no stepper",
        f"methods of the kind {type(method).__name__} are listed and cannot be run",
        'method="radau5"',
    )
