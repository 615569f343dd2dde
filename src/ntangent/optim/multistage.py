"""Multi-stage networks: a second network for what the first one has left."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ntangent._base.check import check_order, check_positive
from ntangent._base.errors import DtypeError
from ntangent._base.protocols import Correctable, Objective, Stage, State
from ntangent.optim._stage import check_theta, norm
from ntangent.optim._view import View, Views


@runtime_checkable
class _Sized(Protocol):
    """An objective that knows the natural size of each entry of θ, shape (P,), powers of two."""

    @property
    def sizes(self) -> Tensor: ...


@dataclass(frozen=True)
class MultiStage:
    """A second network beside the frozen first one, trained by another stage on rescaled targets.

    u = u_1 + ε u_2, with ε such that u_2 of size 1 changes the residual by its own size. The first layer
    of u_2 is sines, the fastest of them with three times the half-waves that the residual has sign
    changes along a coordinate, since a network of low frequencies cannot fit a residual of high ones.
    The inner stage sees residuals divided by their size at the start and unknowns in units of ε, so
    that methods with absolute constants work, too; losses are reported in the problem's own units.

    It is a change of what is trained: θ becomes (parameters of u_2, unknowns), and later stages go on
    with these, so several of them can train one network, and a second MultiStage adds a third one.

    Cost: that of the inner stage, with one more forward pass of each frozen network.

    Source: Wang & Lai, J. Comput. Phys. 504 (2024) 112865. Theirs is ε from an estimate of the
    operator's size; here it is measured.

    Args:
        inner: the stage that trains the second network.
        width: neurons in each of its hidden layers.
        depth: its hidden layers.
        frequency: half-waves of its fastest first neuron across the box of the points; from the sign
            changes of the residual when None.
        density: how many times more points the equations hold at than in the stage before.
        seed: seed of its weights.
    """

    inner: Stage
    width: int = 24
    depth: int = 2
    frequency: float | None = None
    density: int = 2
    seed: int = 0
    _views: Views = field(default_factory=Views, init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Stage):
            raise DtypeError(
                f"inner is {self.inner!r}",
                "it is the stage that trains",
                "MultiStage(LevenbergMarquardt(200))",
            )
        for name in ("width", "depth", "density"):
            check_positive(getattr(self, name), name, integer=True)
        if self.frequency is not None:
            check_positive(self.frequency, "frequency")
        check_order(self.seed, "seed")

    @property
    def iterations(self) -> int:
        """The budget of the inner stage."""
        return self.inner.iterations

    def prepare(self, objective: Objective, theta: Tensor) -> tuple[Objective, Tensor]:
        """Freeze the network at θ and return the objective over a second one, which starts at zero."""
        if not isinstance(objective, Correctable):
            raise DtypeError(
                f"{type(objective).__name__} cannot be corrected by a second network",
                "MultiStage needs an objective with the method with_network",
                "pinn.solve(problem, net, [..., optim.MultiStage(optim.LevenbergMarquardt(200))])",
            )
        return objective.with_network(
            theta,
            width=self.width,
            depth=self.depth,
            frequency=self.frequency,
            density=self.density,
            seed=self.seed,
        )

    def begin(self, objective: Objective, theta: Tensor) -> State:
        """Return the state of the inner stage before its first iteration."""
        theta = check_theta(theta)
        size = norm(objective.residuals(theta))
        # A power of two, so that scaling there and back rounds nothing.
        factor = 2.0 ** -round(math.log2(size)) if size > 0 and math.isfinite(size) else 1.0
        view = self._view(objective, factor)
        return view.show(self.inner.begin(view, view.inner(theta)), {"factor": factor})

    def step(self, objective: Objective, state: State) -> State:
        """Do one iteration of the inner stage; a finished state is returned as is."""
        if state.stop is not None:
            return state
        factor = state.memory["factor"]
        view = self._view(objective, factor)
        return view.show(self.inner.step(view, view.hide(state)), {"factor": factor})

    def _view(self, objective: Objective, factor: float) -> View:
        def make() -> View:
            ones = torch.ones_like(self._sizes(objective))
            return View(objective, self._sizes(objective), torch.zeros_like(ones), factor)

        return self._views.at(objective, factor, make)

    def _sizes(self, objective: Objective) -> Tensor:
        if not isinstance(objective, _Sized):
            raise DtypeError(
                f"{type(objective).__name__} does not know the sizes of its parameters",
                "MultiStage begins with what its own prepare returned",
                "objective, theta = stage.prepare(objective, theta)",
            )
        return objective.sizes
