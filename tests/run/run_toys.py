"""A toy objective and toy stages: small, deterministic, one of them with a memory."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ntangent._base.protocols import Objective, State
from ntangent.run import Outcome, Record, RunFolder, StageRecord, read_metrics

CONFIG = {"problem": "toy", "options": {"k": 2, "bounds": [0.0, math.inf]}, "seed": 1, "threads": 1}


@dataclass(frozen=True)
class Fit:
    """Fit y = a sin(b x + c): three parameters, nonlinear least squares."""

    pause: float = 0.0
    bad_below: float = -math.inf

    def residuals(self, theta: Tensor) -> Tensor:
        x = torch.linspace(0, 3, 40, dtype=theta.dtype)
        return (theta[0] * torch.sin(theta[1] * x + theta[2]) - 1.3 * torch.sin(1.7 * x + 0.4)) / 40**0.5

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        time.sleep(self.pause)
        leaf = theta.detach().requires_grad_()
        loss = (self.residuals(leaf) ** 2).sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        loss = loss.detach()
        return (loss if float(loss) > self.bad_below else loss * math.nan), gradient

    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        jacobian = torch.autograd.functional.jacobian(self.residuals, theta)
        assert isinstance(jacobian, Tensor)
        return self.residuals(theta), jacobian


def start() -> Tensor:
    return torch.tensor([1.0, 1.4, 0.1], dtype=torch.float64)


@dataclass(frozen=True)
class Descent:
    """Gradient descent: no memory."""

    iterations: int = 20
    rate: float = 0.05
    tolerance: float = 0.0

    def begin(self, objective: Objective, theta: Tensor) -> State:
        return State(theta, float(objective.value_and_gradient(theta)[0]))

    def step(self, objective: Objective, state: State) -> State:
        gradient = objective.value_and_gradient(state.theta)[1]
        theta = state.theta - self.rate * gradient
        loss = float(objective.value_and_gradient(theta)[0])
        stop = f"loss below {self.tolerance}" if loss < self.tolerance else None
        return State(theta, loss, state.iteration + 1, info={"gradient": float(gradient.norm())}, stop=stop)


@dataclass(frozen=True)
class Moments:
    """Adam: its moments, and a list and a number, are carried over."""

    iterations: int = 20
    rate: float = 0.02

    def begin(self, objective: Objective, theta: Tensor) -> State:
        loss, gradient = objective.value_and_gradient(theta)
        zero = torch.zeros_like(theta)
        memory = {"m": zero, "v": zero, "gradient": gradient, "losses": [float(loss)], "power": 1.0}
        return State(theta, float(loss), memory=memory)

    def step(self, objective: Objective, state: State) -> State:
        old = state.memory
        m = 0.9 * old["m"] + 0.1 * old["gradient"]
        v = 0.99 * old["v"] + 0.01 * old["gradient"] ** 2
        power = old["power"] * 0.9
        theta = state.theta - self.rate * m / (1 - power) / (v.sqrt() + 1e-8)
        loss, gradient = objective.value_and_gradient(theta)
        losses = [*old["losses"][-4:], float(loss)]
        memory = {"m": m, "v": v, "gradient": gradient, "losses": losses, "power": power}
        return State(theta, float(loss), state.iteration + 1, memory, {"mean": sum(losses) / len(losses)})


class Noise:
    """A callback with a generator, and an objective that depends on it: what `extra` is for."""

    def __init__(self, inner: Fit) -> None:
        self.inner = inner
        self.generator = torch.Generator().manual_seed(3)
        self.shift = torch.zeros(40, dtype=torch.float64)

    def residuals(self, theta: Tensor) -> Tensor:
        return self.inner.residuals(theta) + self.shift

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        leaf = theta.detach().requires_grad_()
        loss = (self.residuals(leaf) ** 2).sum()
        return loss.detach(), torch.autograd.grad(loss, leaf)[0]

    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def on_step(self, record: Record) -> None:
        self.shift = 0.01 * torch.randn(40, dtype=torch.float64, generator=self.generator)

    def on_stage(self, record: StageRecord) -> None:
        pass

    def on_end(self, outcome: Outcome) -> None:
        pass

    def extra(self) -> dict[str, Tensor]:
        return {"generator": self.generator.get_state(), "shift": self.shift}

    def restore(self, stored: dict[str, Tensor]) -> None:
        self.generator.set_state(stored["generator"])
        self.shift = stored["shift"]


class Watch:
    """A callback that keeps what it is told; it can raise or stop after a step."""

    def __init__(self, at: int = -1, error: BaseException | None = None, reason: str | None = None) -> None:
        self.at, self.error, self.reason = at, error, reason
        self.steps: list[Record] = []
        self.stages: list[StageRecord] = []
        self.outcomes: list[Outcome] = []

    def on_step(self, record: Record) -> str | None:
        self.steps.append(record)
        if record.step != self.at:
            return None
        if self.error is not None:
            raise self.error
        return self.reason

    def on_stage(self, record: StageRecord) -> None:
        self.stages.append(record)

    def on_end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def timeless(folder: RunFolder) -> tuple[list[Record], list[StageRecord], object]:
    """Return the metrics without their times."""
    metrics = read_metrics(folder.metrics_path)
    end = metrics.end and metrics.end._replace(seconds=0.0)
    return (
        [record._replace(seconds=0.0) for record in metrics.steps],
        [record._replace(seconds=0.0) for record in metrics.stages],
        end,
    )


def make(path: Path) -> RunFolder:
    return RunFolder.create(path, CONFIG)


def assert_same(folder: RunFolder, outcome: Outcome, other: RunFolder, expected: Outcome) -> None:
    """Raise unless two runs agree to the bit in all but their times."""
    assert torch.equal(outcome.theta, expected.theta)
    assert outcome.loss == expected.loss
    assert outcome.reasons == expected.reasons
    assert outcome.stopped == expected.stopped
    assert timeless(folder) == timeless(other)
    assert [record._replace(seconds=0.0) for record in outcome.history] == timeless(other)[0]
