"""Products with the Jacobian of a residual, without the Jacobian."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ntangent._base.protocols import Linearisation

if TYPE_CHECKING:
    from ntangent.pinn.problem import Problem


class Products:
    """The part of an objective that multiplies by its Jacobian; see ``_base.protocols.MatrixFree``."""

    problem: Problem
    parameters: list[Tensor]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of each tensor that θ holds; an unknown is a scalar."""
        return [tuple(p.shape) for p in self.parameters] + [()] * len(self.problem.unknowns)

    def linearise(self, theta: Tensor) -> Linearisation:
        """Return the residual at θ and products with its Jacobian J; they hold until θ is changed.

        J' w is one backward pass. J v is one too, through the graph of a backward pass that is made
        here once: J' w is linear in w, and J v is its transpose applied to v.
        """
        raw = self.load(theta).detach().clone().requires_grad_()
        inputs = [*self.parameters, raw]
        with torch.enable_grad():
            r = self._vector(list(raw))
            dual = torch.zeros_like(r, requires_grad=True)
            image = _flat(torch.autograd.grad(r, inputs, dual, create_graph=True, allow_unused=True), inputs)

        def jvp(v: Tensor) -> Tensor:
            (product,) = torch.autograd.grad(image, dual, v, retain_graph=True)
            return product.detach()

        def vjp(w: Tensor) -> Tensor:
            grads = torch.autograd.grad(r, inputs, w, retain_graph=True, allow_unused=True)
            return _flat(grads, inputs).detach()

        return Linearisation(r.detach(), jvp, vjp)

    if TYPE_CHECKING:

        def load(self, theta: Tensor) -> Tensor: ...
        def _vector(self, raw: Sequence[Tensor]) -> Tensor: ...


def _flat(grads: Sequence[Tensor | None], inputs: Sequence[Tensor]) -> Tensor:
    pairs = zip(grads, inputs, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in pairs])
