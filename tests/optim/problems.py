"""Least-squares problems with known minimisers, and helpers to drive a stage."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor

from ntangent._base.protocols import Objective, Stage, State


class LeastSquares:
    """An objective from a residual function, with counters of what was asked."""

    def __init__(self, residual: Callable[[Tensor], Tensor], scale: float = 1.0) -> None:
        self.residual, self.scale = residual, scale
        self.values = self.jacobians = self.residual_calls = 0

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        self.values += 1
        leaf = theta.detach().requires_grad_(True)
        r = self.residual(leaf)
        loss = self.scale**2 * (r @ r)
        (gradient,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), gradient

    def residuals(self, theta: Tensor) -> Tensor:
        self.residual_calls += 1
        return (self.scale * self.residual(theta)).detach()

    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        self.jacobians += 1
        jacobian = torch.func.jacfwd(self.residual)(theta)
        return (self.scale * self.residual(theta)).detach(), (self.scale * jacobian).detach()


class Linear(LeastSquares):
    """r = A θ - b."""

    def __init__(self, a: Tensor, b: Tensor, scale: float = 1.0) -> None:
        super().__init__(lambda theta: a @ theta - b, scale)
        self.a, self.b = a, b


def rosenbrock(theta: Tensor) -> Tensor:
    """Residuals of the chained Rosenbrock function; minimum 0 at (1, ..., 1)."""
    return torch.cat([10 * (theta[1:] - theta[:-1] ** 2), 1 - theta[:-1]])


def fit(dtype: torch.dtype = torch.float64) -> Callable[[Tensor], Tensor]:
    """Residuals of a two-exponential fit with noise: a minimum that is not zero."""
    x = torch.linspace(0, 2, 30, dtype=dtype)
    noise = 0.01 * torch.sin(37 * x)
    data = 1.5 * torch.exp(-0.7 * x) + 0.5 * torch.exp(-3 * x) + noise
    return lambda t: t[0] * torch.exp(-t[1] * x) + t[2] * torch.exp(-t[3] * x) - data


def tanh_net(
    dtype: torch.dtype = torch.float64, width: int = 5, points: int = 40
) -> Callable[[Tensor], Tensor]:
    """Residuals of fitting sin(3x) by a network of ``width`` tanh units (3·width parameters)."""
    x = torch.linspace(-1, 1, points, dtype=dtype)

    def residual(theta: Tensor) -> Tensor:
        w, b, c = theta.reshape(3, width)
        return (torch.tanh(x[:, None] * w + b) @ c - torch.sin(3 * x)) / points**0.5

    return residual


def net_start(width: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Initial parameters of ``tanh_net``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3 * width, generator=generator, dtype=torch.float64).to(dtype)


def drive(stage: Stage, objective: Objective, theta: Tensor, steps: int = 100_000) -> State:
    """Run a stage until it stops, at most ``steps`` iterations."""
    return proceed(stage, objective, stage.begin(objective, theta), steps)


def proceed(stage: Stage, objective: Objective, state: State, steps: int = 100_000) -> State:
    """Continue a stage from a state."""
    for _ in range(steps):
        if state.stop is not None:
            break
        state = stage.step(objective, state)
    return state


def through_file(state: State) -> State:
    """Save and load a state as a checkpoint does, with tensors and plain values only."""
    buffer = io.BytesIO()
    torch.save(asdict(state), buffer)
    buffer.seek(0)
    return State(**torch.load(buffer, weights_only=True))


def same_bits(a: object, b: object) -> bool:
    """Whether two nested values agree to the last bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same_bits(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same_bits, a, b))
    return type(a) is type(b) and a == b


def resumes(
    make: Callable[[], Stage], problem: Callable[[], Objective], theta: Tensor, cuts: list[int]
) -> bool:
    """Whether a run cut at every iteration of ``cuts`` ends with the bits of one never cut."""
    whole = drive(make(), problem(), theta)
    state = make().begin(problem(), theta)
    for cut in [*cuts, 10**9]:
        # Fresh stage and objective: nothing but the file connects the parts.
        stage, objective = make(), problem()
        state = proceed(stage, objective, through_file(state), cut - state.iteration)
    return same_bits(asdict(whole), asdict(state))
