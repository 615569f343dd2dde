"""Adam on the flat parameter vector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError, DtypeError
from ntangent._base.protocols import Batched, Objective, State
from ntangent.optim._stage import check_theta, check_tolerance, is_finite, no_start, norm, verdict
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
        if self.batch is not None:
            check_positive(self.batch, "batch", integer=True)
        check_positive(self.lr, "lr")
        check_positive(self.eps, "eps")
        check_tolerance(self.tolerance)
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise DtypeError(f"betas must be a pair of numbers, got {self.betas!r}", "", "betas=(0.9, 0.999)")
        for beta in self.betas:
            check_tolerance(beta, "betas")
            if beta >= 1:
                raise ArgumentError(
                    f"betas must lie in [0, 1), got {self.betas!r}",
                    "with 1 a moment would never see the gradient",
                    "betas=(0.9, 0.999)",
                )
        object.__setattr__(self, "betas", tuple(self.betas))
        if self.schedule is not None and not isinstance(self.schedule, Schedule):
            raise DtypeError(
                f"schedule must have a method factor(iteration, iterations), got {self.schedule!r}",
                "a resumed run asks it for the rate of any iteration",
                "schedule=Cosine()",
            )

    def begin(self, objective: Objective, theta: Tensor) -> State:
        """Return the state before the first iteration, with zero moments."""
        theta = check_theta(theta)
        loss, gradient = self._part(objective, 0).value_and_gradient(theta)
        if not (math.isfinite(float(loss)) and is_finite(gradient)):
            raise no_start("the loss or its gradient")
        zero = theta.new_zeros(theta.shape)
        memory = {"gradient": gradient, "first": zero, "second": zero, "evaluations": 1}
        memory |= {"betas": self.betas, "eps": self.eps}  # whoever reads the moments needs them
        size = norm(gradient)
        return State(
            theta,
            float(loss),
            memory=memory,
            info={"gradient_norm": size, "evaluations": 1.0},
            stop=verdict(float(loss), size, self.tolerance, 0, self.iterations),
        )

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
        loss, gradient = self._part(objective, done + 1).value_and_gradient(theta)
        evaluations = memory["evaluations"] + 1
        value, size = float(loss), norm(gradient)
        # A norm may be beyond the largest number where no entry is.
        if not math.isfinite(value) or not (math.isfinite(size) or is_finite(gradient)):
            return State(
                state.theta,
                state.loss,
                done,
                memory | {"evaluations": evaluations},
                state.info | {"evaluations": float(evaluations)},
                f"the loss or its gradient is not finite after a step with learning rate {lr:g}; "
                "stopped at the last finite parameters; choose a smaller lr",
            )
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

    def _part(self, objective: Objective, index: int) -> Objective:
        """Return what iteration ``index`` evaluates."""
        if self.batch is None:
            return objective
        if not isinstance(objective, Batched):
            raise DtypeError(
                f"batch={self.batch} and an objective ({type(objective).__name__}) without a method `batch`",
                "only it knows which residuals belong to a point",
                "Adam(1_000)",
            )
        return objective.batch(self.batch, index)
