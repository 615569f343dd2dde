"""Simplified Newton iteration for stages, row by row of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent.ode.controller import Control, norm

# A chosen step that needs more iterations had better be shorter; a given one has no other way.
MOST_ITERATIONS, MOST_FOR_GIVEN_STEPS = 10, 50


def most_iterations(control: Control) -> int:
    """Return how many iterations a step may take."""
    return MOST_FOR_GIVEN_STEPS if control.fixed else MOST_ITERATIONS


@dataclass
class Solved:
    """Result of an iteration: the unknowns, which rows converged, iterations, slowest contraction."""

    value: Tensor
    ok: Tensor
    iterations: int
    rate: float


def stage_tolerance(control: Control, dtype: torch.dtype, *, tight: bool) -> float:
    """Return the accepted Newton error over the tolerance of a step.

    Hairer & Wanner II, IV.8 take 1e-1 .. 1e-2: below the discretisation error, and no further. The
    adjoint holds at the solution of the stage equations, so where it is wanted they are solved
    1000 times further; with given steps, whose error is unknown, as far as rounding allows.
    """
    eps = float(torch.finfo(dtype).eps)
    rtol = max(control.rtol, 4 * eps)
    floor = 20 * eps / rtol
    if control.fixed:
        return floor
    return max(floor, 1e-5 if tight else min(0.03, rtol**0.5))


def simplified_newton(
    start: Tensor,
    correction: Callable[[Tensor], Tensor],
    scale: Tensor,
    accuracy: float,
    most: int,
) -> Solved:
    """Iterate z <- z + correction(z) until the rest of the geometric series is below the accuracy.

    Args:
        start: first unknowns, (s, B, n).
        correction: -M^-1 G(z), of the same shape.
        scale: tolerance of each unknown, (B, n).
        accuracy: accepted error over ``scale``.
        most: iterations allowed.
    """
    z = start
    done = torch.zeros(z.shape[1], dtype=torch.bool, device=z.device)
    bad = torch.zeros_like(done)
    last: Tensor | None = None
    rate, iterations = 0.0, 0
    eps = torch.finfo(z.dtype).eps
    for _ in range(most):
        iterations += 1
        delta = correction(z)
        z = z + delta
        size = norm((delta / scale).transpose(0, 1).flatten(1))
        if last is None:
            done = size <= 1e-2 * accuracy
        else:
            theta = size / last.clamp_min(1e-300)
            left = theta / (1 - theta).clamp_min(eps)
            # Corrections at rounding level do not contract any more; nothing better can be had.
            level = norm((z.abs().amax(0) / scale) * (8 * eps)) + 1e-30
            done = done | (left * size <= accuracy) & (theta < 1) | (size <= level)
            running = theta[~(done | bad)]
            if running.numel():
                rate = max(rate, float(running.max()))
            bad = bad | ~done & (theta >= 2.0)
        bad = bad | ~torch.isfinite(size)
        if bool((done | bad).all()):
            break
        last = size
    return Solved(z, done & ~bad, iterations, rate)
