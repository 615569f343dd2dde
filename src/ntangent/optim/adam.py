"""Adam on the flat parameter vector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.protocols import Objective, State
from ntangent.optim._moments import begun, check_batch, check_betas, check_rate, evaluated, halted, part
from ntangent.optim._stage import check_theta, check_tolerance, is_finite, norm, verdict
from ntangent.optim.schedules import Schedule


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015), equal to ``torch.optim.Adam`` step for step.

    One iteration costs one gradient and O(P) arithmetic. Its state holds the two moments and the
    gradient at θ, shape (P,) each. If the loss or the gradient becomes NaN or infinite, the stage
    stops at the last finite θ and says so.

    Args:
        iterations: budget.
        lr: learning rate.
        betas: decay rates of the two moments, each in [0, 1).
        eps: added to the root of the second moment.
        schedule: factor on ``lr`` by iteration, e.g. ``Cosine()``; None keeps it constant.
        tolerance: stop when the loss is not above it (in the units of the loss).
        batch: collocation points of each iteration, drawn anew in every one, so that an epoch goes
            through all of them; None takes all. The loss of an iteration is that of its batch.
    """

    iterations: int
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    schedule: Schedule | None = None
    tolerance: float = 0.0
    batch: int | None = None
    settle: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_positive(self.iterations, "iterations", integer=True)
        check_batch(self.batch)
        check_rate(self.lr, self.schedule)
        check_positive(self.eps, "eps")
        check_tolerance(self.tolerance)
        object.__setattr__(self, "betas", check_betas(self.betas, (0.9, 0.999)))

    def begin(self, objective: Objective, theta: Tensor) -> State:
        """Return the state before the first iteration, with zero moments."""
        theta = check_theta(theta)
        loss, gradient = evaluated(part(objective, self.batch, 0, "Adam"), theta)
        # Whoever reads the moments needs the rates.
        memory = {"gradient": gradient, "betas": self.betas, "eps": self.eps}
        return begun(theta, loss, memory, self.tolerance, self.iterations)

    def step(self, objective: Objective, state: State) -> State:
        """Move along the gradient at θ, then evaluate at the new θ; a finished state is returned as is."""
        if state.stop is not None:
            return state
        memory, done = state.memory, state.iteration
        beta1, beta2 = self.betas
        lr = self.lr if self.schedule is None else self.lr * self.schedule.factor(done, self.iterations)
        gradient = memory["gradient"]
        # The same operations in the same order as torch.optim.Adam, so that the bits agree.
        first = memory["first"].lerp(gradient, 1 - beta1)
        second = (memory["second"] * beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (second.sqrt() / (1 - beta2 ** (done + 1)) ** 0.5).add_(self.eps)
        theta = state.theta.addcdiv(first, root, value=-(lr / (1 - beta1 ** (done + 1))))
        loss, gradient = part(objective, self.batch, done + 1, "Adam").value_and_gradient(theta)
        evaluations = memory["evaluations"] + 1
        value, size = float(loss), norm(gradient)
        # A norm may be beyond the largest number where no entry is.
        if not math.isfinite(value) or not (math.isfinite(size) or is_finite(gradient)):
            return halted(state, evaluations, lr)
        return State(
            theta,
            value,
            done + 1,
            memory | {"gradient": gradient, "first": first, "second": second, "evaluations": evaluations},
            {
                "gradient_norm": size,
                "step_length": norm(theta - state.theta),
                "learning_rate": lr,
                "evaluations": float(evaluations),
            },
            verdict(value, size, self.tolerance, done + 1, self.iterations),
        )

    def refresh(self, objective: Objective, state: State) -> State:  # noqa: ARG002
        """Return the state as it is: moments, and the gradient at θ, which is of the old objective.

        One step is taken along that gradient and everything after it is of the new objective, so a
        change costs nothing.
        """
        return state
