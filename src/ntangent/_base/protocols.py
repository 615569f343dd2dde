"""The contracts between optimisers, runs and problems. They know tensors and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class State:
    """Where a stage of training stands: all that its next iteration depends on.

    A state is a value: a step returns a new one. It is what a checkpoint stores, so it holds
    tensors and plain Python values only.

    Args:
        theta: flat parameter vector, shape (P,).
        loss: loss at ``theta``.
        iteration: iterations done in this stage.
        memory: what the method carries over (moments, curvature pairs, damping, ...).
        info: numbers worth a line in the metrics (step length, damping, gradient norm, ...).
        stop: why the stage is finished, or None while it is not.
    """

    theta: Tensor
    loss: float
    iteration: int = 0
    memory: dict[str, Any] = field(default_factory=dict)
    info: dict[str, float] = field(default_factory=dict)
    stop: str | None = None


@runtime_checkable
class Objective(Protocol):
    """A sum of squares over a flat parameter vector θ of shape (P,): loss(θ) = |r(θ)|².

    Every method is a deterministic function of θ; results are detached tensors.
    """

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss (scalar) and its gradient, shape (P,)."""
        ...

    def residuals(self, theta: Tensor) -> Tensor:
        """Return the weighted residual vector r, shape (M,)."""
        ...

    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return r, shape (M,), and dr/dθ, shape (M, P)."""
        ...


@runtime_checkable
class Stage(Protocol):
    """An optimiser with a budget: a frozen configuration and two pure functions of the state."""

    @property
    def iterations(self) -> int:
        """The largest number of iterations."""
        ...

    def begin(self, objective: Objective, theta: Tensor) -> State:
        """Return the state before the first iteration."""
        ...

    def step(self, objective: Objective, state: State) -> State:
        """Do one iteration; set ``stop`` when the stage is finished, with the reason."""
        ...
