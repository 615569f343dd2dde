"""Observations of trajectories, and the flat vector of what is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntangent._base.check import FLOATS
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError


@dataclass(frozen=True, eq=False)
class Data:
    """Observed trajectories.

    Args:
        t: times, (T,), increasing; the first is the initial time.
        y: states, (T, n), or (T, B, n) for B trajectories at the same times. NaN: not observed.
        y0: initial states, (n,) or (B, n); None takes y[0], which must be complete then.
        scale: size of each component, (n,), that misfits are divided by; by default the largest
            observed absolute value.
    """

    t: Tensor
    y: Tensor
    y0: Tensor | None = None
    scale: Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.y, Tensor) or self.y.dtype not in FLOATS:
            raise DtypeError("y must be a float32 or float64 tensor", "", "Data(t, y.to(torch.float64))")
        if self.t.ndim != 1 or self.y.ndim not in (2, 3) or len(self.t) != len(self.y) or len(self.t) < 2:
            raise ShapeError(
                f"t has shape {tuple(self.t.shape)} and y {tuple(self.y.shape)}",
                "a row of y, (n,) or (B, n), belongs to each of at least two times",
                "Data(t, y[:, None])",
            )
        if not bool((self.t.diff() > 0).all()):
            raise ArgumentError(
                "the times are not increasing", "", "order = t.argsort(); Data(t[order], y[order])"
            )
        if self.y0 is not None and self.y0.shape != self.y.shape[1:]:
            raise ShapeError(
                f"y0 has shape {tuple(self.y0.shape)}", "it is one row of y", "Data(t, y, y0=y[0])"
            )
        if not bool(torch.isfinite(self.start).all()):
            raise ArgumentError(
                "the initial state is not known", "a solution starts there", "Data(t, y, y0=...)"
            )
        if not bool(self.seen.any()):
            raise ArgumentError("nothing is observed", "every entry of y is NaN or initial", "Data(t, y)")

    @property
    def batched(self) -> bool:
        """Whether there are several trajectories."""
        return self.y.ndim == 3

    @property
    def start(self) -> Tensor:
        """Initial states, (n,) or (B, n)."""
        return self.y[0] if self.y0 is None else self.y0

    @property
    def rows(self) -> Tensor:
        """Observations as (T, B, n)."""
        return self.y if self.batched else self.y[:, None]

    @property
    def seen(self) -> Tensor:
        """Which entries of ``rows`` count, (T, B, n); the initial row does not where it is the start."""
        seen = torch.isfinite(self.rows)
        if self.y0 is None:
            seen = torch.cat([torch.zeros_like(seen[:1]), seen[1:]])
        return seen

    @property
    def sizes(self) -> Tensor:
        """What misfits are divided by, (n,)."""
        if self.scale is not None:
            return self.scale.to(self.y)
        largest = torch.nan_to_num(self.rows).abs().amax((0, 1))
        largest = torch.maximum(largest, self.start.reshape(-1, self.y.shape[-1]).abs().amax(0))
        return torch.where(largest > 0, largest, torch.ones_like(largest))


class Parameters:
    """The trainable parameters of a model as one flat vector.

    Args:
        model: the model; its parameters with ``requires_grad`` are those that count.
        more: further modules that are trained with it.
    """

    def __init__(self, model: nn.Module, more: Sequence[nn.Module] = ()) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        for extra in more:
            named += [(f"curve.{name}", p) for name, p in extra.named_parameters() if p.requires_grad]
        if not named:
            raise ArgumentError(
                "the model has no trainable parameter", "nothing could be fitted", "LogRate([1.0])"
            )
        if len({(p.dtype, p.device) for _, p in named}) != 1:
            raise DtypeError("parameters differ in dtype or device", "one vector holds all", "model.double()")
        self.names = [name for name, _ in named]
        self.tensors: list[Tensor] = [p for _, p in named]
        self.sizes = [p.numel() for p in self.tensors]

    @property
    def total(self) -> int:
        """Number of entries."""
        return sum(self.sizes)

    def read(self) -> Tensor:
        """Return a copy of all entries, (P,)."""
        return torch.cat([p.detach().reshape(-1) for p in self.tensors]).clone()

    def write(self, theta: Tensor) -> None:
        """Put a vector (P,) into the model."""
        with torch.no_grad():
            for p, part in zip(self.tensors, theta.split(self.sizes), strict=True):
                p.copy_(part.reshape(p.shape))

    def flat(self, parts: Sequence[Tensor]) -> Tensor:
        """Return tensors of the parameters' shapes as one vector."""
        return torch.cat([part.detach().reshape(-1) for part in parts])
