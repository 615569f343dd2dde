"""The contracts between optimisers, runs and problems. They know tensors and nothing else."""

from __future__ import annotations

from collections.abc import Callable
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


@runtime_checkable
class Refreshing(Protocol):
    """A stage that can go on when its objective has changed under it.

    An objective that changes counts its changes in ``version``. A stage without this method is never
    given a changed objective while it runs.

    Args:
        settle: iterations over which the method builds what it knows of the loss; an objective that
            changed more often would throw that away. 1 for a method that does not mind.
    """

    @property
    def settle(self) -> int:
        """Iterations that should pass between two changes."""
        ...

    def refresh(self, objective: Objective, state: State) -> State:
        """Return the state at the same θ and iteration for an objective that has changed."""
        ...


@runtime_checkable
class Batched(Protocol):
    """An objective that can be estimated from a part of its points."""

    def batch(self, size: int, index: int) -> Objective:
        """Return the objective on mini-batch ``index``, a deterministic function of both arguments.

        Args:
            size: points of each set of collocation points; a set with no more is taken whole.
            index: counts the batches from 0; an epoch goes through a set once, in random order.
        """
        ...


@runtime_checkable
class Preparing(Protocol):
    """A stage that changes what is trained, such as one that adds a second network.

    The loop calls ``prepare`` when the stage begins, and again, with the same θ, when a later run
    resumes; so it must be a deterministic function of its arguments.
    """

    def prepare(self, objective: Objective, theta: Tensor) -> tuple[Objective, Tensor]:
        """Return the objective of this and of the later stages, and where they start.

        Args:
            objective: what was minimised so far.
            theta: its parameters at the end of the stage before, shape (P,).

        Returns:
            The new objective and its θ, of any length, with the loss of the old one on shared rows.
        """
        ...


@dataclass(frozen=True)
class Linearisation:
    """A residual with products of its Jacobian J at one θ, without J itself.

    Args:
        residual: r, shape (M,).
        jvp: v of shape (P,) -> J v, shape (M,).
        vjp: w of shape (M,) -> J' w, shape (P,).
    """

    residual: Tensor
    jvp: Callable[[Tensor], Tensor]
    vjp: Callable[[Tensor], Tensor]


@runtime_checkable
class MatrixFree(Protocol):
    """An objective that can multiply by its Jacobian without forming it."""

    def linearise(self, theta: Tensor) -> Linearisation:
        """Return the residual at θ and products of its Jacobian there."""
        ...


@runtime_checkable
class Shaped(Protocol):
    """An objective that knows which tensors θ is made of."""

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of each tensor, in the order in which θ holds them flattened."""
        ...


@runtime_checkable
class Correctable(Protocol):
    """An objective whose field can be corrected by a second function while the first stays frozen."""

    def with_features(
        self,
        theta: Tensor,
        *,
        count: int,
        slope: float | tuple[float, ...],
        density: int,
        seed: int,
        activation: str = "tanh",
    ) -> tuple[Objective, Tensor]:
        """Return the objective over the output weights of random features and the unknowns.

        Args:
            theta: parameters that are frozen, shape (P,).
            count: how many features.
            slope: largest slope of a feature, or one for each coordinate, where the domain has width 2.
            density: how many times more points the equations are asked to hold at.
            seed: seed of the features.
            activation: "tanh" or "sin".
        """
        ...

    def with_basis(
        self, theta: Tensor, *, modes: int | tuple[int, ...], density: int
    ) -> tuple[Objective, Tensor]:
        """Return the objective over the output weights of a tensor-product basis and the unknowns.

        Args:
            theta: parameters that are frozen, shape (P,).
            modes: highest mode in each coordinate, or one number for all.
            density: how many times more points the equations are asked to hold at.
        """
        ...

    def with_network(
        self, theta: Tensor, *, width: int, depth: int, frequency: float | None, density: int, seed: int
    ) -> tuple[Objective, Tensor]:
        """Return the objective over a second network and the unknowns.

        Args:
            theta: parameters that are frozen, shape (P,).
            width: neurons of a hidden layer of the second network.
            depth: its hidden layers.
            frequency: half-waves it starts with across the domain; counted in the residual when None.
            density: how many times more points the equations are asked to hold at.
            seed: seed of the second network.
        """
        ...


def version(objective: Objective) -> int:
    """Return how often an objective has changed; 0 for one that does not."""
    return int(getattr(objective, "version", 0))
