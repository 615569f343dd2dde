"""Levenberg-Marquardt with geodesic acceleration, dense."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ntangent._base.check import check_choice, check_positive
from ntangent._base.errors import DtypeError
from ntangent._base.protocols import Objective, State, version
from ntangent.optim._damped import Damped, Kind, Normal, Triangular, choose, factorise, smallest_damping
from ntangent.optim._stage import check_theta, check_tolerance, is_finite, no_start, norm, verdict

CHOICES = ("auto", "gram", "cholesky", "qr", "svd")
STILL = "the step no longer changes the parameters in this precision, and so cannot lower the loss"


class _Linearisation:
    """The residual and Jacobian at one θ, and their factorisation once it is asked for."""

    def __init__(self, objective: Objective, theta: Tensor) -> None:
        self.theta, self.version = theta.clone(), version(objective)
        self.residual, self.jacobian = objective.residuals_and_jacobian(theta)
        self.finite = is_finite(self.residual) and is_finite(self.jacobian)
        self.size = norm(self.jacobian)
        self.gradient_norm = norm(2 * (self.jacobian.T @ self.residual))
        self._factor: tuple[Kind, Damped | Normal | Triangular] | None = None

    def factor(self, kind: Kind) -> Damped | Normal | Triangular:
        """Return the factorisation of one kind; it is computed once per point."""
        if self._factor is None or self._factor[0] != kind:
            self._factor = (kind, factorise(self.jacobian, kind))
        return self._factor[1]


class _Cache:
    """The last linearisation a stage used: a saving of time that no result depends on.

    It is not part of the configuration or of the state: it is empty after copying or unpickling, it
    is keyed on the objective (held weakly), its version and the value of θ, and what it returns has the bits
    that a recomputation has.
    """

    def __init__(self) -> None:
        self._entry: tuple[Callable[[], Objective | None], _Linearisation] | None = None

    def __reduce__(self) -> tuple[type[_Cache], tuple[()]]:
        return _Cache, ()

    def clear(self) -> None:
        self._entry = None

    def put(self, objective: Objective, point: _Linearisation) -> None:
        try:
            self._entry = weakref.ref(objective), point
        except TypeError:  # an objective with __slots__; it lives until the stage ends
            self._entry = (lambda: objective), point

    def at(self, objective: Objective, theta: Tensor) -> _Linearisation:
        entry = self._entry
        if entry is not None and entry[0]() is objective:
            known = entry[1]
            if known.version == version(objective) and _same(known.theta, theta):
                return known
        point = _Linearisation(objective, theta)
        self.put(objective, point)
        return point


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


@dataclass(frozen=True)
class _Trial:
    """A proposed step d, shape (P,), and what is known of it."""

    step: Tensor
    predicted: float
    ratio: float
    evaluations: int


@dataclass(frozen=True)
class LevenbergMarquardt:
    """Levenberg-Marquardt for loss = |r|², with Levenberg's damping and geodesic acceleration.

    One iteration is ONE TRIAL, accepted or rejected, as the literature counts: it solves
    (J'J + μ) d = -J'r, adds half the acceleration a, (J'J + μ) a = -J' r_dd / 2 with
    r_dd = 2/h·((r(θ + h d) - r(θ))/h - J d), if 2|a|/|d| <= ``acceleration_ratio``, and accepts any
    decrease of the loss.

    Damping: Nielsen's rule. The first μ is ``damping`` times the largest diagonal entry of J'J;
    an accepted trial multiplies it by max(0.1, 1 - (2ρ - 1)³), ρ being the actual over the predicted
    reduction, a rejected one by ν = 2, 4, 8, .... μ never falls below the rounding errors of the
    factorisation. All rules are ratios: scaling r by a constant leaves the iterates as they are.

    Factorisation: once per accepted point, for all trial dampings there. "gram" is the
    eigendecomposition of the smaller of J'J and J J'; "svd" is a QR factorisation followed by an SVD of
    the triangular factor, about three times dearer, which does not square the condition number; "qr"
    does not either, and factorises the triangular factor above √μ·I anew for each damping.
    "cholesky" factorises the smaller of J'J + μ and J J' + μ anew for each damping. "auto" takes "gram",
    or from 256 rows or columns on "cholesky", as long as μ is 100 times above eps·|J|² at the point, so
    that nothing is lost; below, "svd", or "qr" from the same size on.

    Cost of an accepted trial with n = max(M, P), k = min(M, P): one Jacobian, n k² multiplications
    and O(k³); of a rejected one: two residuals and O(n k). Memory: J and a factor of its size.

    A trial with a NaN or infinite residual or Jacobian is rejected. The state holds θ and numbers; r
    and J are recomputed when a run resumes.

    Source: Nielsen, Damping Parameter in Marquardt's Method, IMM-REP-1999-05 (with 0.1 for his 1/3);
    Transtrum & Sethna, arXiv 1201.5885 (2012), for the acceleration.

    Args:
        iterations: budget, in trials.
        damping: first μ relative to the largest squared column norm of J.
        geodesic: whether to use the acceleration.
        acceleration_ratio: largest 2|a|/|d| for which it is used.
        geodesic_step: h in the finite difference for r_dd.
        tolerance: stop when the loss is not above it (in the units of the loss).
        factorisation: "auto", "gram", "cholesky", "qr" or "svd".
        max_rejections: stop after so many rejections in a row.
    """

    iterations: int
    damping: float = 1e-3
    geodesic: bool = True
    acceleration_ratio: float = 0.75
    geodesic_step: float = 0.1
    tolerance: float = 0.0
    factorisation: str = "auto"
    max_rejections: int = 30
    settle: ClassVar[int] = 10

    def __post_init__(self) -> None:
        check_positive(self.iterations, "iterations", integer=True)
        for name in ("damping", "acceleration_ratio", "geodesic_step"):
            check_positive(getattr(self, name), name)
        if not isinstance(self.geodesic, bool):
            raise DtypeError(f"geodesic must be True or False, got {self.geodesic!r}", "", "geodesic=True")
        check_tolerance(self.tolerance)
        check_choice(self.factorisation, CHOICES, "factorisation")
        check_positive(self.max_rejections, "max_rejections", integer=True)
        # Not a field: it belongs neither to the configuration's identity nor to its repr.
        object.__setattr__(self, "_cache", _Cache())

    def begin(self, objective: Objective, theta: Tensor) -> State:
        """Return the state before the first trial."""
        theta = check_theta(theta)
        cache = self._runtime()
        cache.clear()
        point = cache.at(objective, theta)
        loss = _loss(objective.residuals(theta))
        if not (point.finite and math.isfinite(loss)):
            raise no_start("the residual or its Jacobian")
        mu = self.damping * float((point.jacobian * point.jacobian).sum(dim=0).max())
        memory: dict[str, Any] = {
            **self._damping(mu, 2.0, point),
            "rejections": 0,
            "accepted": 0,
            "residuals": 1,
            "jacobians": 1,
        }
        stop = verdict(loss, point.gradient_norm, self.tolerance, 0, self.iterations)
        info = {"gradient_norm": point.gradient_norm, "damping": memory["damping"], "evaluations": 2.0}
        return State(theta, loss, memory=memory, info=info, stop=stop)

    def step(self, objective: Objective, state: State) -> State:
        """Do one trial: accept or reject it. A finished state is returned as is."""
        if state.stop is not None:
            return state
        cache, memory = self._runtime(), state.memory
        point = cache.at(objective, state.theta)
        trial = self._propose(objective, state, point)
        theta = state.theta + trial.step
        if torch.equal(theta, state.theta):
            return self._rejected(state, point, trial, memory, STILL)
        loss = _loss(objective.residuals(theta))
        used = memory | {"residuals": memory["residuals"] + trial.evaluations + 1}
        if not (math.isfinite(loss) and loss < state.loss):
            return self._rejected(state, point, trial, used)
        new = _Linearisation(objective, theta)
        used["jacobians"] += 1
        if not new.finite:
            return self._rejected(state, point, trial, used)
        gain = (state.loss - loss) / trial.predicted if trial.predicted > 0 else 1.0
        # Any gain above 1 shrinks by 0.1; the bound keeps the cube from overflowing.
        mu = memory["damping"] * max(0.1, 1 - (2 * min(gain, 2.0) - 1) ** 3)
        used |= {**self._damping(mu, 2.0, new), "rejections": 0, "accepted": memory["accepted"] + 1}
        done = state.iteration + 1
        stop = verdict(loss, new.gradient_norm, self.tolerance, done, self.iterations)
        cache.put(objective, new)
        if stop is not None:
            cache.clear()
        info = self._info(point, trial, used, memory["damping"], memory["method"])
        info |= {"gradient_norm": new.gradient_norm, "gain_ratio": gain, "accepted": 1.0}
        return State(theta, loss, done, used, info, stop)

    def refresh(self, objective: Objective, state: State) -> State:
        """Evaluate residual and Jacobian anew; keep the damping in proportion to |J|².

        Rejections begin to count again: they were of the old objective. Cost: one residual and one
        Jacobian, which the next trial uses.
        """
        memory, point = state.memory, self._runtime().at(objective, state.theta)
        old, growth = memory["size"], memory["growth"]
        mu = memory["damping"] * ((point.size / old) ** 2 if old > 0 else 1.0)
        memory = memory | self._damping(mu, growth if point.size == 0 else 2.0, point)
        memory |= {
            "rejections": 0,
            "residuals": memory["residuals"] + 1,
            "jacobians": memory["jacobians"] + 1,
        }
        info = state.info | {"gradient_norm": point.gradient_norm, "damping": memory["damping"]}
        return replace(state, loss=_loss(objective.residuals(state.theta)), memory=memory, info=info)

    def _propose(self, objective: Objective, state: State, point: _Linearisation) -> _Trial:
        """Return the damped Gauss-Newton step, accelerated if the acceleration is small."""
        mu = state.memory["damping"]
        factor = point.factor(state.memory["method"])
        c = factor.coefficients(point.residual)
        d = factor.solve(c, mu)
        predicted = factor.reduction(c, mu)
        length = norm(d)
        if not self.geodesic or not (math.isfinite(length) and length > 0):
            return _Trial(d, predicted, 0.0, 0)
        h = self.geodesic_step
        ahead = objective.residuals(state.theta + h * d)
        second = (2 / h) * ((ahead - point.residual) / h - point.jacobian @ d)
        a = 0.5 * factor.solve(factor.coefficients(second), mu)
        ratio = 2 * norm(a) / length
        # False also for NaN: a residual that is not finite at h·d says nothing of the curvature.
        return _Trial(d + a if ratio <= self.acceleration_ratio else d, predicted, ratio, 1)

    def _rejected(
        self,
        state: State,
        point: _Linearisation,
        trial: _Trial,
        memory: dict[str, Any],
        stop: str | None = None,
    ) -> State:
        """Return the state with a larger damping, or the reason why that is useless."""
        rejections, done = memory["rejections"] + 1, state.iteration + 1
        mu, growth = memory["damping"] * memory["growth"], 2 * memory["growth"]
        used = memory | {"rejections": rejections, "damping": mu, "growth": growth}
        if stop is None and rejections >= self.max_rejections:
            stop = f"{rejections} trials in a row with growing damping did not lower the loss"
        stop = stop or verdict(state.loss, point.gradient_norm, self.tolerance, done, self.iterations)
        if stop is not None:
            self._runtime().clear()
        info = self._info(point, trial, used, memory["damping"], memory["method"])
        info |= {"gradient_norm": point.gradient_norm, "accepted": 0.0}
        return State(state.theta, state.loss, done, used, info, stop)

    def _info(
        self, point: _Linearisation, trial: _Trial, memory: dict[str, Any], mu: float, method: Kind
    ) -> dict[str, float]:
        rank = point.factor(method).rank
        return {
            "damping": mu,
            "step_length": norm(trial.step),
            "acceleration_ratio": trial.ratio,
            **({} if rank is None else {"rank": float(rank)}),
            "orthogonal": float(method in ("qr", "svd")),
            "evaluations": float(memory["residuals"] + memory["jacobians"]),
            "jacobians": float(memory["jacobians"]),
        }

    def _damping(self, mu: float, growth: float, point: _Linearisation) -> dict[str, Any]:
        """Return the entries of the memory that a new point needs.

        The kind of factorisation is fixed here, from what the state remembers, so that a resumed run
        takes the same one; rejections only raise the damping, which suits either kind.
        """
        eps = torch.finfo(point.jacobian.dtype).eps
        if point.size == 0:
            return {"damping": mu, "growth": growth, "method": "gram", "size": 0.0}
        kind: Kind = choose(mu, point.size, eps, min(point.jacobian.shape))
        if self.factorisation != "auto":
            kind = self.factorisation  # type: ignore[assignment]  # checked against CHOICES
        return {
            "damping": max(mu, smallest_damping(kind, point.size, eps)),
            "growth": growth,
            "method": kind,
            "size": point.size,
        }

    def _runtime(self) -> _Cache:
        cache: _Cache = self.__dict__["_cache"]
        return cache


def _loss(residual: Tensor) -> float:
    return float(torch.dot(residual, residual))
