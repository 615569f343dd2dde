"""Constant factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.errors import DtypeError
from ntangent.pinn.weighting.base import WEIGHTINGS, Layout, Memory, View, Weighting


@dataclass(frozen=True)
class Fixed(Weighting):
    """Constant factors on terms of the loss: ``Fixed({"equation": 0.1, "dirichlet": 100.0})``.

    They multiply the weights that the conditions carry themselves.

    Args:
        weights: name of a term -> factor; "equation" means every "equation[i]", a full name goes
            before such a short one, and a term that is not named has factor 1.

    Raises:
        UnknownNameError: when the training begins, if the loss has no such term.
    """

    weights: Mapping[str, float]
    every = None

    def __post_init__(self) -> None:
        if not isinstance(self.weights, Mapping) or not self.weights:
            raise DtypeError(
                f"weights must map terms to numbers, got {self.weights!r}", "", 'Fixed({"equation": 0.1})'
            )
        for name, value in self.weights.items():
            check_positive(value, f"weights[{name!r}]")
        object.__setattr__(self, "weights", dict(self.weights))

    def start(self, layout: Layout, generator: torch.Generator) -> Memory:  # noqa: ARG002
        """Return the factor of every term that is named."""
        found: dict[str, Tensor] = {}
        for name, value in sorted(self.weights.items(), key=lambda item: "[" in item[0]):
            for term in layout.select([name]):
                found[term.name] = term.weights.new_tensor(value)
        return {"factors": found}

    def update(self, state: Memory, view: View) -> Memory:  # noqa: ARG002
        """Return the state: nothing changes."""
        return state

    def factors(self, state: Memory) -> dict[str, Tensor]:
        """Return the constants, scalars."""
        return dict(state["factors"])

    def due(self, iteration: int, settle: int) -> bool:  # noqa: ARG002
        """Return False: there is nothing to update."""
        return False


WEIGHTINGS.add("fixed", Fixed)
