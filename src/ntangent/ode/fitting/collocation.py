"""Losses without a solver: the derivative of a curve through the data against the right-hand side."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError
from ntangent.jet import jet
from ntangent.ode.fitting.data import Data, Parameters
from ntangent.ode.fitting.objective import FitObjective


def derivative_weights(t: Tensor, points: int = 5) -> tuple[Tensor, Tensor]:
    """Return for each time the indices of its stencil, (T, m), and the weights of y' there, (T, m).

    Exact for polynomials of degree m - 1 on any mesh (Lagrange; Fornberg 1988).
    """
    count = min(points, len(t))
    times = t.double()
    first = (torch.arange(len(t)) - count // 2).clamp(0, len(t) - count)
    index = first[:, None] + torch.arange(count)
    offsets = times[index] - times[:, None]
    length = offsets.abs().amax(1, keepdim=True)
    powers = (offsets / length)[:, None, :] ** torch.arange(count, dtype=torch.float64)[:, None]
    right = torch.zeros(count, 1, dtype=torch.float64)
    right[1] = 1.0
    return index, torch.linalg.solve(powers, right.expand(len(t), -1, -1))[..., 0] / length


class CollocationObjective(FitObjective):
    """Derivative matching: h (u' - f(t, u)) / size at the times of the data, h their mean distance there.

    Without a curve u is the data, and u' the derivative of the polynomial through 5 neighbours.
    With one, u and u' are a jet of the curve, a module t ↦ y, which is trained along and also fits
    the data (weight 1); θ is the model's parameters followed by the curve's.

    Args:
        model: see :class:`FitObjective`.
        data: the observations; complete ones where there is no curve.
        curve: maps (T, 1) to (T, n), one trajectory only.
        weight: of the derivatives.
        points: neighbours of a derivative.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        curve: nn.Module | None = None,
        weight: float = 1.0,
        points: int = 5,
    ) -> None:
        super().__init__(model, data)
        self.curve, self.weight, self.size = curve, check_positive(weight, "weight"), data.sizes
        self.all = Parameters(model, [] if curve is None else [curve])
        rows = data.rows.clone()
        rows[0] = data.start
        self.target, self.seen = torch.nan_to_num(rows), torch.isfinite(rows)
        if curve is None and not bool(self.seen.all()):
            raise ArgumentError(
                "some states are not observed",
                "the model is evaluated there",
                "Collocation(curve=nt.MLP(1, n))",
            )
        if curve is not None and data.batched:
            raise ArgumentError("a curve describes one trajectory", "", "Data(t, y[:, 0])")
        index, weights = derivative_weights(data.t, points)
        self.slopes = torch.einsum("tm,tmbn->tbn", weights.to(rows), self.target[index])
        steps = data.t.diff().double()
        spacing = torch.cat([steps[:1], (steps[:-1] + steps[1:]) / 2, steps[-1:]])
        self.spacing = spacing.to(rows)[:, None, None]

    @property
    def count(self) -> int:
        """Number of residuals."""
        return self.target.numel() + (int(self.seen.sum()) if self.curve is not None else 0)

    def start(self) -> Tensor:
        """Return the model's parameters, followed by the curve's."""
        return self.all.read()

    def finish(self, theta: Tensor) -> None:
        """Leave model and curve with the parameters of θ."""
        self.all.write(theta)

    def _residuals(self) -> Tensor:
        t = self.data.t.to(self.target)
        if self.curve is None:
            u, slope = self.target, self.slopes
        else:
            series = jet(self.curve, t[:, None], 1, backend="eager")
            u, slope = series.derivative(0)[:, None], series.derivative(1)[:, None]
        batch = u.shape[1]
        times = t.repeat_interleave(batch)[:, None]
        f = self.model(times, u.reshape(-1, u.shape[-1])).reshape(u.shape)
        gaps = [(self.weight * self.spacing * (f - slope) / self.size).reshape(-1)]
        if self.curve is not None:
            gaps.append(((u - self.target) / self.size)[self.seen])
        return torch.cat(gaps) / math.sqrt(self.count)

    def residuals(self, theta: Tensor) -> Tensor:
        """Return the residuals, (M,)."""
        self.all.write(theta)
        with torch.no_grad():
            return self._residuals()

    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residuals and their Jacobian: M transposed products."""
        self.all.write(theta)
        with torch.enable_grad():
            r = self._residuals()
            eye = torch.eye(len(r), dtype=r.dtype, device=r.device)
            # The backward pass of a jet has no batching rule: then one product after the other.
            size = 256 if self.curve is None else 1
            blocks = [self._pull(r, seeds) for seeds in eye.split(size)]
        return r.detach(), torch.cat(blocks)

    def _pull(self, r: Tensor, seeds: Tensor) -> Tensor:
        """Return rows of the Jacobian, (len(seeds), P)."""
        grads = torch.autograd.grad(
            r,
            self.all.tensors,
            seeds if len(seeds) > 1 else seeds[0],
            is_grads_batched=len(seeds) > 1,
            retain_graph=True,
            allow_unused=True,
        )
        parts = [
            seeds.new_zeros((len(seeds), p.numel())) if g is None else g.reshape(len(seeds), -1)
            for g, p in zip(grads, self.all.tensors, strict=True)
        ]
        return torch.cat(parts, dim=1)

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient."""
        self.all.write(theta)
        with torch.enable_grad():
            r = self._residuals()
            loss = r @ r
            grads = torch.autograd.grad(loss, self.all.tensors, allow_unused=True)
        parts = [
            torch.zeros_like(p) if g is None else g for g, p in zip(grads, self.all.tensors, strict=True)
        ]
        return loss.detach(), self.all.flat(parts)


@dataclass(frozen=True)
class Collocation:
    """The loss of :class:`CollocationObjective`.

    Args:
        curve: a module t ↦ y that is trained along, or None.
        weight: of the derivatives.
        points: neighbours of a derivative.
    """

    curve: nn.Module | None = None
    weight: float = 1.0
    points: int = 5

    def objective(self, model: nn.Module, data: Data) -> FitObjective:
        """Return the objective."""
        return CollocationObjective(model, data, self.curve, self.weight, self.points)
