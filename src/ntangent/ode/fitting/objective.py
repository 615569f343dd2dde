"""Losses over trajectories: residuals, their Jacobians by forward sensitivities, gradients by adjoints."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ntangent._base.check import check_choice, check_positive
from ntangent._base.errors import ArgumentError, SolverError
from ntangent.ode.field import Jacobian
from ntangent.ode.fitting.data import Data, Parameters
from ntangent.ode.integration import Integration, Question, Traced, trace
from ntangent.ode.trust.check import TrustReport, check_gradient


class FitObjective:
    """What the losses share: a sum of squares over the model's parameters, the mean over observations.

    Where the solver fails the residuals are infinite: a trust region method steps back, and Adam says so.

    Args:
        model: ``model(t, y)`` returns dy/dt for y of shape (n,), and (B, n) with t of (B, 1).
        data: the observations.
    """

    def __init__(self, model: nn.Module, data: Data) -> None:
        self.model, self.data = model, data
        self.parameters = Parameters(model)
        self._last: tuple[Tensor, Traced | None] | None = None

    def start(self) -> Tensor:
        """Return the parameters as they are, (P,)."""
        return self.parameters.read()

    def finish(self, theta: Tensor) -> None:
        """Leave the model with the parameters of θ."""
        self.parameters.write(theta[: self.parameters.total])

    def question(self, theta: Tensor) -> tuple[Question, Integration]:
        """Return what is solved, and how, for θ."""
        raise NotImplementedError

    def misfit(self, traced: Traced, theta: Tensor) -> Tensor:
        """Return the residuals, (M,)."""
        raise NotImplementedError

    def solved(self, theta: Tensor) -> Traced | None:
        """Return the solution at θ, or None where the solver fails; the last one is kept."""
        if self._last is None or not torch.equal(self._last[0], theta):
            self.parameters.write(theta[: self.parameters.total])
            question, how = self.question(theta)
            found: Traced | None = None
            try:
                found = trace(question, how)
            except SolverError:
                found = None
            self._last = theta.clone(), found
        else:
            self.parameters.write(theta[: self.parameters.total])
        return self._last[1]

    def residuals(self, theta: Tensor) -> Tensor:
        """Return the weighted residuals, (M,)."""
        traced = self.solved(theta)
        if traced is None:
            return theta.new_full((self.count,), math.inf)
        return self.misfit(traced, theta)

    @property
    def count(self) -> int:
        """Number of residuals."""
        raise NotImplementedError

    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residuals and their Jacobian, (M, P)."""
        raise NotImplementedError

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return |r|² and its gradient by the adjoint."""
        raise NotImplementedError

    def trust(self, theta: Tensor) -> TrustReport:
        """Check gradients at θ through the first trajectory, see :func:`check_gradient`.

        Of the observed components over their sizes with random signs: the misfit itself has no
        gradient where the fit is good.
        """
        self.parameters.write(theta[: self.parameters.total])
        data, size = self.data, self.data.sizes
        seen = data.seen[:, 0]
        signs = 2.0 * torch.randint(0, 2, seen.shape, generator=torch.Generator().manual_seed(0)) - 1

        def loss(y: Tensor) -> Tensor:
            return (torch.where(seen, y / size, torch.zeros_like(y)) * signs.to(y)).sum()

        how = getattr(self, "how", Integration())
        return check_gradient(
            self.model, data.start.reshape(-1, len(size))[0], data.t, loss, params=self.parameters.tensors,
            method=how.method, rtol=how.rtol, atol=how.atol, mesh=how.mesh, options=how.options,
        )  # fmt: skip


class TrajectoryObjective(FitObjective):
    """Mean square misfit of solved trajectories, each component over its size.

    Args:
        model: see :class:`FitObjective`.
        data: the observations.
        how: scheme, tolerances or mesh.
        jacobian: df/dy as a function of (t, y), or None.
    """

    def __init__(
        self, model: nn.Module, data: Data, how: Integration, jacobian: Jacobian | None = None
    ) -> None:
        super().__init__(model, data)
        self.how, self.jacobian = how, jacobian
        self.seen, self.target, self.size = data.seen, torch.nan_to_num(data.rows), data.sizes

    @property
    def count(self) -> int:
        """Number of residuals."""
        return int(self.seen.sum())

    def question(self, theta: Tensor) -> tuple[Question, Integration]:
        """Return the initial value problem."""
        del theta
        data = self.data
        params = self.parameters.tensors
        return Question(self.model, data.start, data.t, params, self.jacobian, data.batched), self.how

    def misfit(self, traced: Traced, theta: Tensor) -> Tensor:
        """Return (y - data) / size at the observed entries, over √M."""
        del theta
        gap = (traced.outputs - self.target) / self.size
        return gap[self.seen] / math.sqrt(self.count)

    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residuals and their Jacobian by forward sensitivities."""
        traced = self.solved(theta)
        if traced is None:
            r = self.residuals(theta)
            return r, theta.new_zeros((len(r), len(theta)))
        slopes = traced.sensitivities() / self.size[:, None]
        return self.misfit(traced, theta), slopes[self.seen] / math.sqrt(self.count)

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient by the adjoint."""
        traced = self.solved(theta)
        if traced is None:
            return theta.new_tensor(math.inf), torch.zeros_like(theta)
        r = self.misfit(traced, theta)
        cotangent = torch.zeros_like(traced.outputs)
        cotangent[self.seen] = 2 * r / math.sqrt(self.count)
        grads, _ = traced.gradient(cotangent / self.size)
        return r @ r, self.parameters.flat(grads)


class ShootingObjective(FitObjective):
    """Multiple shooting: every interval between two observations is solved on its own, all as one batch.

    With ``nodes="data"`` the intervals start from the observations, which must be complete, and θ is
    the model's parameters. With ``nodes="free"`` their starts are unknowns too: θ is followed by the
    states at all times over their sizes, tied to the data and, by ``weight``, to each other.

    Args:
        model: see :class:`FitObjective`.
        data: the observations.
        how: scheme and tolerances; meshes count in the unit time of an interval.
        nodes: "data" or "free".
        weight: of the continuity defects.
    """

    def __init__(
        self, model: nn.Module, data: Data, how: Integration, nodes: str = "data", weight: float = 10.0
    ) -> None:
        super().__init__(model, data)
        self.how, self.free = how, check_choice(nodes, ["data", "free"], "nodes") == "free"
        self.weight = check_positive(weight, "weight")
        self.size, rows = data.sizes, data.rows.clone()
        rows[0] = data.start
        self.complete = bool(torch.isfinite(rows).all())
        if not self.complete and not self.free:
            raise ArgumentError("some states are not observed", "intervals start there", 'nodes="free"')
        self.target, self.seen = torch.nan_to_num(rows), torch.isfinite(rows)
        self.first = _filled(data.t, rows)
        self.pieces, self.batch, self.n = len(rows) - 1, rows.shape[1], rows.shape[2]
        self.begin = data.t[:-1].double().repeat_interleave(self.batch)[:, None]
        self.length = data.t.diff().double().repeat_interleave(self.batch)[:, None]

    @property
    def count(self) -> int:
        """Number of residuals."""
        defects = self.pieces * self.batch * self.n
        return defects + (int(self.seen.sum()) if self.free else 0)

    def start(self) -> Tensor:
        """Return the model's parameters, followed by the nodes if they are free."""
        theta = super().start()
        if not self.free:
            return theta
        return torch.cat([theta, (self.first / self.size).reshape(-1).to(theta)])

    def nodes(self, theta: Tensor) -> Tensor:
        """Return the states at all times, (T, B, n)."""
        if not self.free:
            return self.target
        return theta[self.parameters.total :].reshape(self.first.shape) * self.size

    def _func(self, tau: Tensor, y: Tensor) -> Any:
        return self.length.to(y) * self.model((self.begin + self.length * tau).to(y), y)

    def question(self, theta: Tensor) -> tuple[Question, Integration]:
        """Return all intervals as one batch over the unit of time."""
        first = self.nodes(theta)[:-1].reshape(-1, self.n)
        unit = torch.tensor([0.0, 1.0], dtype=torch.float64)
        return Question(self._func, first, unit, self.parameters.tensors, None, True), self.how

    def misfit(self, traced: Traced, theta: Tensor) -> Tensor:
        """Return the defects, and with free nodes also the distances to the data."""
        nodes = self.nodes(theta)
        defects = (traced.outputs[1].reshape(self.pieces, self.batch, self.n) - nodes[1:]) / self.size
        if not self.free:
            return defects.reshape(-1) / math.sqrt(self.count)
        gaps = ((nodes - self.target) / self.size)[self.seen]
        return torch.cat([self.weight * defects.reshape(-1), gaps]) / math.sqrt(self.count)

    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residuals and their Jacobian."""
        traced = self.solved(theta)
        if traced is None:
            r = self.residuals(theta)
            return r, theta.new_zeros((len(r), len(theta)))
        total, n, rows = self.parameters.total, self.n, self.pieces * self.batch
        slopes = traced.sensitivities(initial=self.free)[1] / self.size[:, None]
        if not self.free:
            return self.misfit(traced, theta), slopes.reshape(-1, total) / math.sqrt(self.count)
        jac = theta.new_zeros((rows, n, len(theta)))
        jac[..., :total] = slopes[..., :total]
        index = torch.arange(rows)
        states = jac[..., total:].reshape(rows, n, rows + self.batch, n)
        states[index, :, index] = slopes[..., total:] * self.size
        states[index, :, index + self.batch] = -torch.eye(n).to(theta)
        jac[..., total:] = states.reshape(rows, n, -1)
        eye = torch.eye(len(theta) - total).to(theta)[self.seen.reshape(-1)]
        gaps = torch.cat([eye.new_zeros((len(eye), total)), eye], dim=1)
        both = torch.cat([self.weight * jac.reshape(-1, len(theta)), gaps])
        return self.misfit(traced, theta), both / math.sqrt(self.count)

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient by the adjoint."""
        traced = self.solved(theta)
        if traced is None:
            return theta.new_tensor(math.inf), torch.zeros_like(theta)
        r = self.misfit(traced, theta)
        rows = self.pieces * self.batch * self.n
        weight = self.weight if self.free else 1.0
        pull = (2 * weight / math.sqrt(self.count)) * r[:rows].reshape(-1, self.n)
        grads, initial = traced.gradient(torch.stack([torch.zeros_like(pull), pull / self.size]))
        flat = self.parameters.flat(grads)
        if not self.free:
            return r @ r, flat
        slots = torch.zeros_like(self.first)
        slots[:-1] += (initial * self.size).reshape(slots[1:].shape)
        slots[1:] -= pull.reshape(slots[1:].shape)
        slots[self.seen] += (2 / math.sqrt(self.count)) * r[rows:]
        return r @ r, torch.cat([flat, slots.reshape(-1)])


def _filled(t: Tensor, rows: Tensor) -> Tensor:
    """Return (T, B, n) with what is not observed interpolated in time."""
    out = rows.clone()
    for b in range(rows.shape[1]):
        for i in range(rows.shape[2]):
            known = torch.isfinite(rows[:, b, i])
            x, y = t[known], rows[known, b, i]
            if len(x) < 2:
                out[~known, b, i] = y[0]
                continue
            k = (torch.searchsorted(x, t, right=True) - 1).clamp(0, len(x) - 2)
            line = y[k] + (y[k + 1] - y[k]) * ((t - x[k]) / (x[k + 1] - x[k])).clamp(0, 1).to(y)
            out[~known, b, i] = line[~known]
    return out


@dataclass(frozen=True)
class Trajectory:
    """The loss of :class:`TrajectoryObjective`.

    Args:
        integration: scheme, tolerances or mesh.
    """

    integration: Integration = field(default_factory=Integration)

    def objective(self, model: nn.Module, data: Data) -> FitObjective:
        """Return the objective."""
        return TrajectoryObjective(model, data, self.integration)


@dataclass(frozen=True)
class Shooting:
    """The loss of :class:`ShootingObjective`.

    Args:
        integration: scheme and tolerances.
        nodes: "data" or "free".
        weight: of the continuity defects.
    """

    integration: Integration = field(default_factory=Integration)
    nodes: str = "data"
    weight: float = 10.0

    def objective(self, model: nn.Module, data: Data) -> FitObjective:
        """Return the objective."""
        return ShootingObjective(model, data, self.integration, self.nodes, self.weight)
