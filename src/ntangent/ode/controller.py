"""Step sizes: error norms, the next step, the first step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError, ShapeError
from ntangent.ode.field import Field


@dataclass(frozen=True)
class Control:
    """How steps are chosen; every row of a batch has its own.

    Args:
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step.
        step_size: fixed step (its size), or None.
        steps: fixed number of equal steps between two output times, or None.
        first_step: size of the first step; None asks Hairer's algorithm.
        max_steps: attempts for each row until the solver gives up.
        min_step: smallest step.
        max_step: largest step.
        safety: factor on the predicted step.
        smallest: least factor between two steps.
        largest: greatest factor between two steps.
        max_order: order of a multistep method that can have several, or None for its own.
        max_iters: fixed-point iterations of an implicit Adams step before Newton's take over;
            None leaves few unknowns to Newton at once.
    """

    rtol: float = 1e-6
    atol: float | Tensor = 1e-9
    step_size: float | None = None
    steps: int | None = None
    first_step: float | None = None
    max_steps: int = 100_000
    min_step: float = 0.0
    max_step: float = math.inf
    safety: float = 0.9
    smallest: float = 0.2
    largest: float = 8.0
    max_order: int | None = None
    max_iters: int | None = None

    @property
    def fixed(self) -> bool:
        """Whether the steps are given and not chosen."""
        return self.step_size is not None or self.steps is not None

    def given(self, gap: Tensor) -> Tensor:
        """Return |h| of given steps that divide the ways between outputs into equal ones."""
        if self.steps is not None:
            return gap / self.steps
        assert self.step_size is not None
        return gap / torch.ceil(gap / self.step_size - 1e-9).clamp_min(1)

    def check(self, y0: Tensor) -> None:
        """Check the numbers against the state they apply to."""
        eps = torch.finfo(y0.dtype).eps
        count = torch.as_tensor(self.atol).numel()
        if count not in (1, y0.shape[1]):
            raise ShapeError(
                f"atol has {count} numbers for {y0.shape[1]} unknown(s)",
                "it is one number, or one for each unknown",
                "atol=1e-9",
            )
        least = torch.as_tensor(self.atol).min().item()
        if not (math.isfinite(self.rtol) and self.rtol >= 0 and math.isfinite(least) and least >= 0):
            raise ArgumentError(
                f"tolerances must be finite and not negative, got rtol={self.rtol}, atol={self.atol}",
                "",
                "rtol=1e-6, atol=1e-9",
            )
        if not self.fixed and self.rtol < 10 * eps and least < 1e-300 + (self.rtol == 0) * eps**2:
            raise ArgumentError(
                f"rtol={self.rtol}, atol={self.atol} cannot be met",
                f"{y0.dtype} rounds to {eps:.1e}",
                f"rtol={100 * eps:.0e}",
            )
        positive = {"step_size": self.step_size, "steps": self.steps, "first_step": self.first_step}
        counts = {"max_num_steps": self.max_steps, "max_iters": self.max_iters}
        for name, value in {**positive, "max_step": self.max_step, **counts}.items():
            if value is not None and not value > 0:
                raise ArgumentError(f"{name} must be positive, got {value!r}", "", f"{name}=1")

    def scale(self, *states: Tensor) -> Tensor:
        """Return atol + rtol·|y| for the larger of the states, never below a few rounding errors."""
        size = states[0].abs()
        for state in states[1:]:
            size = torch.maximum(size, state.abs())
        eps = torch.finfo(size.dtype).eps
        tiny = torch.finfo(size.dtype).tiny
        atol = torch.as_tensor(self.atol, dtype=size.dtype, device=size.device)
        return (atol.reshape(1, -1) + max(self.rtol, 4 * eps) * size).clamp_min(tiny)


def norm(x: Tensor) -> Tensor:
    """Return the root mean square over the unknowns of each row."""
    return x.square().mean(-1).sqrt()


def first_step(field: Field, t: Tensor, y: Tensor, sign: float, order: int, control: Control) -> Tensor:
    """Return a first step for each row (Hairer, Nørsett & Wanner I, II.4).

    Cost: two evaluations of f.
    """
    scale = control.scale(y)
    f0 = field.value(t, y)
    d0, d1 = norm(y / scale), norm(f0 / scale)
    guess = torch.where((d0 < 1e-5) | (d1 < 1e-5), torch.full_like(d0, 1e-6), 0.01 * d0 / d1)
    f1 = field.value(t + sign * guess.to(t.dtype), y + (sign * guess)[:, None] * f0)
    d2 = norm((f1 - f0) / scale) / guess
    steep = torch.maximum(d1, d2)
    better = torch.where(steep <= 1e-15, (guess * 1e-3).clamp_min(1e-6), (0.01 / steep) ** (1 / (order + 1)))
    step = torch.minimum(100 * guess, better)
    return torch.where(torch.isfinite(step), step, torch.full_like(step, 1e-8)).to(t.dtype)


class StepControl:
    """The next step from the error of this one: Gustafsson's predictive controller, or a PI one.

    Source: Hairer & Wanner II, IV.8 (8.20); Hairer, Nørsett & Wanner I, II.4 for the PI form.

    Args:
        control: limits of the factor.
        order: the error behaves as h^order.
        implicit: which of the two controllers.
    """

    def __init__(self, control: Control, order: int, *, implicit: bool) -> None:
        self.control, self.implicit = control, implicit
        self.order: int | Tensor = order
        self.last_error: Tensor | None = None
        self.last_step: Tensor | None = None
        self.rejected: Tensor | None = None
        self.unlimited = torch.ones(1)

    def factor(self, error: Tensor, step: Tensor, accepted: Tensor, effort: float) -> Tensor:
        """Return h_new / h for each row, and remember what was accepted.

        Args:
            error: error over tolerance, (B,).
            step: |h|, (B,).
            accepted: (B,) bool.
            effort: of the Newton iteration, between 0 and 1; more effort makes the next step shorter.
        """
        control = self.control
        safety = control.safety * 2.1 / (2.0 + effort)
        error = error.clamp_min(1e-10).to(step.dtype)
        plain = safety * error ** (-1 / self.order)
        self.unlimited = factor = plain
        if self.last_error is not None and self.last_step is not None:
            if self.implicit:
                ratio = step / self.last_step.clamp_min(1e-300)
                predicted = safety * ratio * (self.last_error / error**2) ** (1 / self.order)
                factor = torch.where(accepted, torch.minimum(plain, predicted), plain)
            else:
                smooth = safety * error ** (-0.7 / self.order) * self.last_error ** (0.4 / self.order)
                factor = torch.where(accepted, smooth, plain)
        factor = factor.clamp(control.smallest, control.largest)
        if self.rejected is not None:  # no growth right after a rejection
            factor = torch.where(accepted & self.rejected, factor.clamp_max(1.0), factor)
        self._remember(error, step, accepted)
        return factor

    def _remember(self, error: Tensor, step: Tensor, accepted: Tensor) -> None:
        held = error.clamp_min(1e-2)
        if self.last_error is None or self.last_step is None:
            self.last_error, self.last_step = held, step.clone()
        else:
            self.last_error = torch.where(accepted, held, self.last_error)
            self.last_step = torch.where(accepted, step, self.last_step)
        self.rejected = ~accepted
