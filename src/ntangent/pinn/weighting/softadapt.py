"""Balance by the rate of change: terms that fall slowest count more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.errors import DtypeError
from ntangent.pinn.weighting.base import WEIGHTINGS, Layout, Memory, View, Weighting, check_common
from ntangent.pinn.weighting.relobralo import named


@dataclass(frozen=True)
class SoftAdapt(Weighting):
    """SoftAdapt: λ = m · softmax(β · s), s_i the change of term i since the last update, for m terms.

    The changes are divided by the sum of their sizes, so that β does not depend on the size of the
    loss. With ``loss_weighted`` each exponential is multiplied by its term before they are normalised.
    The λ sum to m (the source has 1), which leaves the size of the loss alone.

    Source: Heydari, Thompson & Mehmood, arXiv 1912.12355, the normalised variants.

    Args:
        beta: β; positive, more weight on the terms that fall slowest or grow.
        loss_weighted: multiply by the terms themselves.
        every: iterations between updates; None is 1, or what the optimiser can follow.
    """

    beta: float = 0.1
    loss_weighted: bool = False
    every: int | None = None
    balancing: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_positive(self.beta, "beta")
        if not isinstance(self.loss_weighted, bool):
            raise DtypeError(f"loss_weighted must be True or False, got {self.loss_weighted!r}", "", "False")
        check_common(self)

    def start(self, layout: Layout, generator: torch.Generator) -> Memory:  # noqa: ARG002
        """Return λ = 1 for every term."""
        ones = torch.ones(len(layout.terms), dtype=torch.float64)
        return {"last": None, "factors": named(layout, ones)}

    def update(self, state: Memory, view: View) -> Memory:
        """Compare the terms with their last values."""
        losses = torch.tensor([view.loss(name) for name in view.layout.names], dtype=torch.float64)
        if state["last"] is None:
            return state | {"last": losses}
        change = losses - state["last"]
        size = change.abs().sum()
        scores = self.beta * (change / size if bool(size > 0) else change)
        if self.loss_weighted and bool((losses > 0).any()):
            # Never zero, so that no term is lost for good.
            scores = scores + losses.clamp_min(losses.max() * torch.finfo(losses.dtype).eps).log()
        weights = len(losses) * torch.softmax(scores, dim=0)
        return {"last": losses, "factors": named(view.layout, weights)}

    def factors(self, state: Memory) -> dict[str, Tensor]:
        """Return λ, a scalar for each term."""
        return dict(state["factors"])


WEIGHTINGS.add("softadapt", SoftAdapt)
