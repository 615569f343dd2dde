"""Phases of training, found on a curve of signal-to-noise ratios by a change-point rule.

Anagnostopoulos et al. (arXiv 2403.18494) see three phases: fitting (the ratio is high and falls),
diffusion (low, fluctuating), total diffusion or diffusion equilibrium (an abrupt rise to order 1), and
place the boundaries by hand. The rule here has no hand in it:

1. The curve becomes at most 256 means of log SNR over equal parts of log iteration.
2. The optimal piecewise-linear fit with k segments is found by dynamic programming for every k.
3. k minimises BIC, n ln(RSS_k/n) + (3k - 1) ln n, where n counts independent points: the fit's
   residuals are correlated (smoothing sees to that), so n shrinks by (1 - ρ)/(1 + ρ), ρ their lag-1
   correlation.
4. A segment whose mean is below ``threshold`` (noise stronger than twice the signal) is low. Segments
   before the first low one are fitting; from the first low one on it is diffusion, until a segment lies
   above the threshold and above the low one before it by the factor ``rise``: total diffusion. Low
   segments after that are late.
5. A boundary's interval holds every position at which the best fit's deviance exceeds its minimum by
   less than the 95 % point of χ² with one degree of freedom (profile of the cost function).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError, ShapeError

NAMES = ("fitting", "diffusion", "total diffusion", "late")
POINTS, SEGMENTS, SHORTEST = 256, 10, 4
CHI_SQUARE = 3.841458820694124  # 95 % point, one degree of freedom
# Residuals of a fit through exact data are rounding: they say nothing about where a boundary is.
FLOOR = 1e-10


def moving_average(values: Any, window: int = 60) -> Tensor:
    """Return the centred moving average; near the ends the window is cut off.

    Args:
        values: shape (n,).
        window: entries in a full window.
    """
    check_positive(window, "window", integer=True)
    v = _vector(values, "values")
    sums = torch.cat([v.new_zeros(1), v.cumsum(0)])
    i = torch.arange(len(v))
    start, stop = (i - window // 2).clamp_min(0), (i - window // 2 + window).clamp_max(len(v))
    return (sums[stop] - sums[start]) / (stop - start)


def smoothed_snr(mean: Any, noise: Any, window: int = 60) -> Tensor:
    """Return the ratio of the smoothed ‖m‖ to the smoothed ‖s‖: each is averaged on its own (C.1)."""
    return moving_average(mean, window) / moving_average(noise, window)


def _vector(values: Any, name: str) -> Tensor:
    v = torch.as_tensor(values, dtype=torch.float64).detach().cpu().reshape(-1)
    if not len(v):
        raise ShapeError(f"{name} is empty", "", "at least one number")
    return v


@dataclass(frozen=True)
class Boundary:
    """The end of a phase and the beginning of the next one.

    Args:
        iteration: best position.
        low: lower end of the 95 % interval.
        high: upper end.
    """

    iteration: float
    low: float
    high: float


@dataclass(frozen=True)
class Phase:
    """A stretch of training.

    Args:
        name: "fitting", "diffusion", "total diffusion" or "late".
        start: first iteration.
        stop: last iteration.
        level: geometric mean of the signal-to-noise ratio (over log iteration).
        boundary: where it began; None for the first.
    """

    name: str
    start: float
    stop: float
    level: float
    boundary: Boundary | None


@dataclass(frozen=True)
class Phases:
    """The phases of a training.

    Args:
        phases: in order of time.
        segments: number of segments of the fit.
        reason: what was found, or why no transition was, in words.
    """

    phases: tuple[Phase, ...]
    segments: int
    reason: str

    def __getitem__(self, name: str) -> Phase | None:
        return next((phase for phase in self.phases if phase.name == name), None)

    @property
    def transition(self) -> Boundary | None:
        """Where total diffusion began; None if no transition was found."""
        phase = self["total diffusion"]
        return None if phase is None else phase.boundary

    @property
    def current(self) -> str:
        """The phase at the end."""
        return self.phases[-1].name


def phases(
    iterations: Any,
    snr: Any,
    *,
    threshold: float = 0.5,
    rise: float = 3.0,
    points: int = POINTS,
    most: int = SEGMENTS,
) -> Phases:
    """Return the phases of a training from its signal-to-noise ratios, by the rule of this module.

    Args:
        iterations: increasing, at least 1, shape (n,).
        snr: positive ratios, shape (n,), smoothed or not, see :func:`smoothed_snr`. Entries that are
            not finite or not positive are left out.
        threshold: below it a segment is low.
        rise: factor by which total diffusion must lie above the diffusion before it.
        points: largest number of points of the fit.
        most: largest number of segments.

    Raises:
        ShapeError, ArgumentError: on curves that cannot be used.

    Cost:
        O(most · points²), about 0.1 s.
    """
    x, y = _resampled(iterations, snr, threshold, rise, points)
    count, boundaries, table = _segmented(x, y, most)
    return _labelled(x, y, (count, boundaries, table), threshold, rise)


def _resampled(iterations: Any, snr: Any, threshold: float, rise: float, points: int) -> tuple[Any, Any]:
    check_positive(threshold, "threshold")
    check_positive(points, "points", integer=True)
    if check_positive(rise, "rise") < 1:
        raise ArgumentError(f"rise is {rise}", "it is a factor upwards", "rise=3.0")
    t, v = _vector(iterations, "iterations").numpy(), _vector(snr, "snr").numpy()
    if len(t) != len(v):
        raise ShapeError(f"{len(t)} iterations and {len(v)} ratios", "one for each", "(n,)")
    kept = np.isfinite(v) & (v > 0)
    t, v = t[kept], v[kept]
    if len(t) < 3 * SHORTEST or (np.diff(t) <= 0).any() or t[0] < 1:
        raise ArgumentError(
            f"{len(t)} usable ratios",
            f"a rule needs {3 * SHORTEST} of them at increasing iterations from 1 on",
            "diagnose.phases(monitor.iterations, monitor.values)",
        )
    x, y = np.log10(t), np.log10(v)
    place = np.minimum(((x - x[0]) / (x[-1] - x[0]) * points).astype(int), points - 1)
    counts = np.bincount(place, minlength=points)
    full = counts > 0
    means = [np.bincount(place, weights=a, minlength=points)[full] / counts[full] for a in (x, y)]
    return means[0], means[1]


@dataclass(frozen=True)
class _Tables:
    """Cost of the best fits: of the first points, and of the last ones, with every number of segments."""

    cost: Any  # cost[i, j]: residual sum of squares of one line through points i..j-1
    forward: Any  # forward[k, j]: of points 0..j-1 with k segments
    backward: Any  # backward[k, i]: of points i..n-1 with k segments


def _segmented(x: Any, y: Any, most: int) -> tuple[int, list[int], _Tables]:
    n = len(x)
    most = max(1, min(most, n // SHORTEST))
    tables = _tables(x, y, most)
    floor = n * FLOOR
    rss = np.maximum(tables.forward[1 : most + 1, n], floor)
    # The largest number of segments leaves the purest noise to measure correlation in.
    effective = _effective_points(x, y, _cuts(tables, most, n))
    k = np.arange(1, most + 1)
    bic = effective * np.log(rss / n) + (3 * k - 1) * math.log(n)
    count = int(k[bic.argmin()])
    return count, _cuts(tables, count, n), tables


def _effective_points(x: Any, y: Any, cuts: list[int]) -> float:
    r = _residuals(x, y, cuts)
    power = float(r @ r)
    correlation = float(r[1:] @ r[:-1]) / power if power else 0.0
    correlation = min(max(correlation, 0.0), 0.95)
    return len(x) * (1 - correlation) / (1 + correlation)


def _residuals(x: Any, y: Any, cuts: list[int]) -> Any:
    parts = []
    for start, stop in zip([0, *cuts], [*cuts, len(x)], strict=True):
        a = np.stack([np.ones(stop - start), x[start:stop] - x[start:stop].mean()], 1)
        parts.append(y[start:stop] - a @ np.linalg.lstsq(a, y[start:stop], rcond=None)[0])
    return np.concatenate(parts)


def _tables(x: Any, y: Any, most: int) -> _Tables:
    n = len(x)
    x, y = x - x.mean(), y - y.mean()
    sums = [np.concatenate([[0.0], np.cumsum(a)]) for a in (np.ones(n), x, y, x * x, x * y, y * y)]
    m, sx, sy, sxx, sxy, syy = (s[None, :] - s[:, None] for s in sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        vx, vy, vxy = sxx - sx * sx / m, syy - sy * sy / m, sxy - sx * sy / m
        cost = np.maximum(vy - np.where(vx > 0, vxy * vxy / vx, 0.0), 0.0)
    cost[m < SHORTEST] = np.inf
    forward = np.full((most + 1, n + 1), np.inf)
    backward = forward.copy()
    forward[0, 0] = backward[0, n] = 0.0
    for k in range(1, most + 1):
        forward[k] = (forward[k - 1][:, None] + cost).min(0)
        backward[k] = (cost + backward[k - 1][None, :]).min(1)
    return _Tables(cost, forward, backward)


def _cuts(tables: _Tables, count: int, n: int) -> list[int]:
    cuts, stop = [], n
    for k in range(count - 1, 0, -1):
        stop = int((tables.forward[k] + tables.cost[:, stop]).argmin())
        cuts.append(stop)
    return cuts[::-1]


def _labelled(x: Any, y: Any, fit: tuple[int, list[int], _Tables], threshold: float, rise: float) -> Phases:
    count, cuts, tables = fit
    effective = _effective_points(x, y, cuts)
    edges = [0, *cuts, len(x)]
    levels = [float(y[a:b].mean()) for a, b in itertools.pairwise(edges)]
    names = _names(levels, math.log10(threshold), math.log10(rise))
    found: list[Phase] = []
    for k, name in enumerate(names):
        if k and name == names[k - 1]:
            continue
        last = next((j for j in range(k, count) if names[j] != name), count) - 1
        boundary = None if k == 0 else _boundary(x, tables, count, k, cuts[k - 1], effective)
        start, stop = (10 ** float(v) for v in (x[edges[k]], x[edges[last + 1] - 1]))
        level = 10 ** float(y[edges[k] : edges[last + 1]].mean())
        found.append(Phase(name, boundary.iteration if boundary else start, stop, level, boundary))
    return Phases(tuple(found), count, _reason(names, threshold, rise))


def _names(levels: Sequence[float], threshold: float, rise: float) -> list[str]:
    names: list[str] = []
    lowest = math.inf
    for level in levels:
        if not names or names[-1] == NAMES[0]:
            name = NAMES[0] if level >= threshold else NAMES[1]
        elif names[-1] == NAMES[1]:
            name = NAMES[2] if level >= threshold and level - lowest >= rise else NAMES[1]
        else:
            name = NAMES[2] if level >= threshold else NAMES[3]
        lowest = level if level < threshold else lowest
        names.append(name)
    return names


def _reason(names: Sequence[str], threshold: float, rise: float) -> str:
    if NAMES[2] in names:
        return f"the ratio rose above {threshold:g}, by a factor of {rise:g} or more"
    if NAMES[1] in names:
        return f"no transition found: after falling below {threshold:g} the ratio did not rise above it"
    return f"no transition found: the ratio never fell below {threshold:g}"


def _boundary(x: Any, tables: _Tables, count: int, k: int, cut: int, effective: float) -> Boundary:
    """Return boundary k of a fit with ``count`` segments with its interval, all others kept optimal."""
    n = len(x)
    profile = np.maximum(tables.forward[k] + tables.backward[count - k], n * FLOOR)
    with np.errstate(invalid="ignore"):
        inside = np.flatnonzero(effective * np.log(profile / profile.min()) <= CHI_SQUARE)
    inside = inside[(inside > 0) & (inside < n)]

    def between(i: int) -> float:
        return 10 ** float((x[i - 1] + x[i]) / 2)

    # The resampled points are means: the change lies anywhere between two of them.
    low, high = 10 ** float(x[inside.min() - 1]), 10 ** float(x[inside.max()])
    return Boundary(between(cut), low, high)
