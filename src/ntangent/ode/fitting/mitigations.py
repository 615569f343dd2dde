"""Small helps for hard gradients: Adam's epsilon, preconditioning, continuation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError
from ntangent._base.protocols import Objective, Stage
from ntangent.optim import Adam
from ntangent.run import Outcome, train

# Adam moves an entry by lr·g/(|g| + eps): with eps above this share of |g| the step is cut short.
EPSILON_SHARE = 0.1


def adam_epsilon(gradient: Tensor) -> float:
    """Return an epsilon for Adam below all gradients that mean anything: 1e-8 of the largest.

    The default 1e-8 is a vanishing-gradient mechanism of its own: entries below it do not move.
    """
    largest = float(gradient.abs().max())
    return max(1e-8 * largest, 1e-30) if largest > 0 else 1e-30


def check_adam(stages: Sequence[Stage], gradient: Tensor, names: Sequence[str]) -> None:
    """Warn of an Adam stage whose epsilon keeps entries of the gradient from acting."""
    size = gradient.abs()
    for stage in stages:
        if not isinstance(stage, Adam):
            continue
        stuck = (size > 0) & (size * EPSILON_SHARE < stage.eps)
        if float(stuck.double().mean()) > 0.1:
            which = [name for name, bad in zip(names, stuck.tolist(), strict=False) if bad]
            better = replace(stage, eps=float(f"{adam_epsilon(gradient):.0e}"))
            warnings.warn(
                f"Adam's eps = {stage.eps:g} is not small beside the gradient of {int(stuck.sum())} of "
                f"{len(size)} parameters ({', '.join(which[:4])}): they will hardly move. Use {better!r}",
                stacklevel=3,
            )


class Preconditioned:
    """An objective in coordinates φ of equal sensitivity: θ = start + φ / norm of the Jacobian's columns.

    It gives first-order methods, and the trust region of others, one scale for all parameters.

    Args:
        objective: the objective.
        theta: the start, where the norms are taken, (P,).
        floor: smallest norm over the largest; columns below count as that much.
    """

    def __init__(self, objective: Objective, theta: Tensor, floor: float = 1e-6) -> None:
        check_positive(floor, "floor")
        self.objective, self.origin = objective, theta.detach().clone()
        norms = torch.linalg.vector_norm(objective.residuals_and_jacobian(theta)[1], dim=0)
        largest = float(norms.max())
        if not largest > 0:
            raise ArgumentError(
                "the Jacobian is zero at the start", "nothing depends on θ there", "another start"
            )
        self.factors = 1 / norms.clamp_min(floor * largest)

    def theta(self, phi: Tensor) -> Tensor:
        """Return θ for φ."""
        theta: Tensor = self.origin + self.factors * phi
        return theta

    def start(self) -> Tensor:
        """Return φ = 0."""
        return torch.zeros_like(self.origin)

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient for φ."""
        loss, gradient = self.objective.value_and_gradient(self.theta(theta))
        return loss, self.factors * gradient

    def residuals(self, theta: Tensor) -> Tensor:
        """Return the residuals at φ."""
        return self.objective.residuals(self.theta(theta))

    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residuals and their Jacobian for φ."""
        r, jacobian = self.objective.residuals_and_jacobian(self.theta(theta))
        return r, jacobian * self.factors


def continuation(
    problem: Callable[[float], Objective], values: Sequence[float], stages: Sequence[Stage], theta: Tensor
) -> list[Outcome]:
    """Train one problem after the other, each from the solution of the last.

    ``problem(s)`` returns the objective at stiffness s: a time horizon that grows, a rate or a
    tolerance that changes, a data set that widens.

    Args:
        problem: objective of a value.
        values: values in order; the last is the one that is wanted.
        stages: optimisers for each.
        theta: start, (P,).

    Returns:
        One outcome for each value.
    """
    if not values:
        raise ArgumentError("values is empty", "nothing would be done", "values=[1.0, 10.0, 100.0]")
    outcomes: list[Outcome] = []
    for value in values:
        outcomes.append(train(stages, problem(float(value)), theta))
        theta = outcomes[-1].theta
    return outcomes
