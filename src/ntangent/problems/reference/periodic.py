"""Periodic evolution equations u_t = L u + N(u): Fourier in space, ETDRK4 in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError, ConvergenceError, ShapeError

Array = np.ndarray[Any, Any]

# Points of the local interpolation in time: order 9, far below the other errors for smooth u.
_STENCIL = 10
# Points on the circle around each hL of the contour integrals.
_CONTOUR = 64
# Samples of the initial state.
_SAMPLES = 2**20


@dataclass(frozen=True)
class PeriodicSolution:
    """A solution that can be evaluated anywhere: Fourier modes at equidistant times.

    Args:
        modes: coefficients of exp(2πi n (x - low)/length), n = 0, 1, ..., shape (T, n/2 + 1).
        low: lower end of the period.
        length: the period.
        end: last time; the first is 0.
    """

    modes: Array
    low: float
    length: float
    end: float

    def __call__(self, x: Array, t: Array, derivative: int = 0) -> Array:
        """Return u or a derivative in x at points, each of shape (N,).

        Cost: O(N · modes above rounding).
        """
        x, t = np.broadcast_arrays(np.asarray(x, float), np.asarray(t, float))
        if x.ndim != 1:
            raise ShapeError(f"points have shape {x.shape}", "x and t are vectors of N numbers", "x.ravel()")
        if len(t) and (t.min() < -1e-9 * self.end or t.max() > self.end * (1 + 1e-9)):
            raise ArgumentError(
                f"times reach from {t.min()} to {t.max()}", "", f"times between 0 and {self.end}"
            )
        size = np.abs(self.modes).max(0)
        (kept,) = np.nonzero(size > 1e-17 * size.max())
        count = int(kept.max()) + 1 if len(kept) else 1
        wave = 2j * np.pi * np.arange(count) / self.length
        weight = np.where(np.arange(count) == 0, 1.0, 2.0) * wave**derivative
        out = np.empty(len(x))
        for part in np.array_split(np.arange(len(x)), max(1, len(x) * count // 4_000_000)):
            first, local = self._stencils(t[part])
            modes = np.zeros((len(part), count), complex)
            for j in range(_STENCIL):
                modes += local[:, j, None] * self.modes[first + j, :count]
            phase = np.exp(wave[1] * (x[part] - self.low)) if count > 1 else np.ones(len(part))
            # Horner's rule in the phase: no table of N · count exponentials.
            total = np.zeros(len(part), complex)
            for n in range(count - 1, -1, -1):
                total = total * phase + weight[n] * modes[:, n]
            out[part] = total.real
        return out

    def _stencils(self, t: Array) -> tuple[Array, Array]:
        """Return the first row and the Lagrange weights, shape (N, stencil), of each time."""
        last = len(self.modes) - 1
        position = np.clip(t / self.end * last, 0.0, float(last))
        first = np.clip(np.floor(position).astype(int) - _STENCIL // 2 + 1, 0, last - _STENCIL + 1)
        offset = position - first
        local = np.ones((len(t), _STENCIL))
        for j in range(_STENCIL):
            for m in range(_STENCIL):
                if m != j:
                    local[:, j] *= (offset - m) / (j - m)
        return first, local


def solve_periodic(
    initial: Callable[[Array], Array],
    linear: Callable[[Array], Array],
    nonlinear: Callable[[Array], Array],
    box: tuple[float, float, float],
    *,
    points: int,
    steps: int,
    frames: int = 400,
    flux: bool = False,
) -> PeriodicSolution:
    """Solve u_t = L u + N(u) for a real periodic u with constant-coefficient L.

    Exponential time differencing of order 4 with the coefficients of Kassam & Trefethen (SIAM J.
    Sci. Comput. 26, 2005), taken from contour integrals so that small hL loses no digits; products
    are dealiased by the 3/2 rule.

    Args:
        initial: u at time 0, a function of x.
        linear: the symbol of L as a function of the wave number k (of exp(ikx)).
        nonlinear: N as a function of the values of u, or F with N = -∂F/∂x when ``flux`` is set.
        box: lower and upper end of x, and the last time.
        points: Fourier points in x, even.
        steps: steps in time, a multiple of ``frames``.
        frames: stored intervals in time, at least 9. Between them the solution is interpolated with
            order 9, which a solution that is not smooth at t = 0 does not allow close to it.
        flux: whether ``nonlinear`` returns the flux F.

    Raises:
        ConvergenceError: if the solution becomes non-finite.

    Cost: 8 transforms of 1.5 · points numbers a step.
    """
    low, high, end = box
    for name, value in (("points", points), ("steps", steps), ("frames", frames)):
        check_positive(value, name, integer=True)
    if points % 2 or steps % frames or frames < _STENCIL - 1:
        raise ArgumentError(
            f"points={points}, steps={steps}, frames={frames}",
            f"points is even, steps a multiple of frames, and frames at least {_STENCIL - 1}",
            "points=512, steps=4000, frames=400",
        )
    length, h = high - low, end / steps
    k = 2 * np.pi * np.arange(points // 2 + 1) / length
    fine = 3 * points // 2
    # Sampled finely: the coefficients of a periodic function with a kink (Allen-Cahn) alias slowly.
    samples = max(points, _SAMPLES)
    x = low + length * np.arange(samples) / samples
    v = np.fft.rfft(initial(x))[: points // 2 + 1] / samples
    v[-1] = 0.0  # the sawtooth mode has no phase
    c = h * np.asarray(linear(k), complex)

    def rate(modes: Array) -> Array:
        values = np.fft.irfft(modes, fine) * fine
        result = np.fft.rfft(nonlinear(values))[: len(modes)] / fine
        result[-1] = 0.0
        return -1j * k * result if flux else result

    half, full = np.exp(c / 2), np.exp(c)
    z = c[:, None] + np.exp(2j * np.pi * (np.arange(_CONTOUR) + 0.5) / _CONTOUR)
    q = h * (np.expm1(z / 2) / z).mean(1)
    f1 = h * ((-4 - z + np.exp(z) * (4 - 3 * z + z**2)) / z**3).mean(1)
    f2 = h * ((2 + z + np.exp(z) * (z - 2)) / z**3).mean(1)
    f3 = h * ((-4 - 3 * z - z**2 + np.exp(z) * (4 - z)) / z**3).mean(1)
    rows = [v.copy()]
    for step in range(1, steps + 1):
        n0 = rate(v)
        a = half * v + q * n0
        na = rate(a)
        b = half * v + q * na
        nb = rate(b)
        last = half * a + q * (2 * nb - n0)
        v = full * v + f1 * n0 + 2 * f2 * (na + nb) + f3 * rate(last)
        if step % (steps // frames) == 0:
            if not np.isfinite(v).all():
                raise ConvergenceError(
                    f"the reference solution became non-finite at t = {step * h:.4g}",
                    "the step in time is too long",
                    f"steps={4 * steps}",
                )
            rows.append(v.copy())
    return PeriodicSolution(np.array(rows), low, length, end)
