"""An objective seen through a change of variables, for stages that run another stage inside."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ntangent._base.protocols import Linearisation, MatrixFree, Objective, Shaped, State


class View:
    """The objective factor²·loss(shift + sizes·p) of p, shape (P,).

    With powers of two for ``factor`` and ``sizes``, and no shift where a size is not zero, it has the
    digits of the objective: nothing is rounded. A size of zero holds an entry at its shift.

    Args:
        objective: what is looked at.
        sizes: shape (P,).
        shift: shape (P,).
        factor: of the residuals.
    """

    def __init__(self, objective: Objective, sizes: Tensor, shift: Tensor, factor: float = 1.0) -> None:
        self.objective, self.sizes, self.shift, self.factor = objective, sizes, shift, factor
        if isinstance(objective, MatrixFree):
            self.linearise = self._linearise
        if isinstance(objective, Shaped):
            self.shapes = objective.shapes

    def outer(self, p: Tensor) -> Tensor:
        """Return θ for p."""
        return self.shift + self.sizes * p

    def inner(self, theta: Tensor) -> Tensor:
        """Return p for θ; zero where θ is held."""
        held = self.sizes == 0
        p = (theta - self.shift) / torch.where(held, torch.ones_like(self.sizes), self.sizes)
        return torch.where(held, torch.zeros_like(p), p)

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient in p."""
        loss, gradient = self.objective.value_and_gradient(self.outer(theta))
        square = self.factor * self.factor
        return loss * square, gradient * (square * self.sizes)

    def residuals(self, theta: Tensor) -> Tensor:
        """Return the residual."""
        return self.objective.residuals(self.outer(theta)) * self.factor

    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residual and its Jacobian in p."""
        r, jacobian = self.objective.residuals_and_jacobian(self.outer(theta))
        return r * self.factor, jacobian * (self.factor * self.sizes)

    def _linearise(self, theta: Tensor) -> Linearisation:
        assert isinstance(self.objective, MatrixFree)
        found, scale = self.objective.linearise(self.outer(theta)), self.factor * self.sizes
        return Linearisation(
            found.residual * self.factor, lambda v: found.jvp(scale * v), lambda w: scale * found.vjp(w)
        )

    def show(self, state: State, memory: dict[str, object]) -> State:
        """Return an inner state as one of the objective, with the inner memory inside ``memory``."""
        loss = state.loss / (self.factor * self.factor)
        return replace(
            state, theta=self.outer(state.theta), loss=loss, memory={**memory, "inner": state.memory}
        )

    def hide(self, state: State) -> State:
        """Return the inner state that :meth:`show` was given."""
        loss = state.loss * (self.factor * self.factor)
        return replace(state, theta=self.inner(state.theta), loss=loss, memory=state.memory["inner"])


class Views:
    """The last view a stage used, kept so that an inner stage finds what it has cached for it.

    Like the cache of Levenberg-Marquardt it saves time and decides nothing: it is empty after copying
    or unpickling.
    """

    def __init__(self) -> None:
        self._entry: tuple[Callable[[], Objective | None], object, View] | None = None

    def __reduce__(self) -> tuple[type[Views], tuple[()]]:
        return Views, ()

    def at(self, objective: Objective, key: object, make: Callable[[], View]) -> View:
        """Return the view of an objective under a key, made anew unless it is the last one."""
        entry = self._entry
        if entry is not None and entry[0]() is objective and entry[1] == key:
            return entry[2]
        view = make()
        self._entry = weakref.ref(objective), key, view
        return view
