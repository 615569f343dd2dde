"""Products with the Jacobian of a residual, without the Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ntangent._base.protocols import Linearisation
from ntangent.jet.implicit import ImplicitJacobian, implicit_jacobian
from ntangent.pinn.sums import Pairwise

if TYPE_CHECKING:
    from ntangent.pinn.equation import Block
    from ntangent.pinn.passes import Pass
    from ntangent.pinn.problem import Problem


class Products:
    """The part of an objective that multiplies by its Jacobian; see ``_base.protocols.MatrixFree``."""

    problem: Problem
    parameters: list[Tensor]
    blocks: list[Block]
    _structured: bool | None
    passes: list[Pass]
    _numbers: Sequence[int]  # of the passes, among those of all processes

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of each tensor that θ holds; an unknown is a scalar."""
        return [tuple(p.shape) for p in self.parameters] + [()] * len(self.problem.unknowns)

    def structured(self, theta: Tensor) -> bool:
        """Return whether the network is a chain of linear layers over independent points; found once."""
        if self._structured is None:
            self._structured = self._structure_holds(theta)
        return self._structured

    def linearise(self, theta: Tensor) -> Linearisation:
        """Return the residual at θ and products with its Jacobian; they hold until θ is changed.

        While the network is a chain of linear layers over independent points, the Jacobian is kept as
        factors, and a product costs about one pass through the network. Else J' w is a backward pass,
        and J v one through the graph of a backward pass.
        """
        return (
            self._factored(theta) if self.structured(theta) and self._single else self._twice_backward(theta)
        )

    @property
    def _single(self) -> bool:
        """Whether each residual is a row of one pass; one of several points is not."""
        return all(block.fold == 1 for block in self.blocks)

    def _total(self, sums: Pairwise, like: Tensor) -> Tensor:
        """Return the sum of what all passes contribute."""
        return sums.total(torch.zeros_like(like))

    def _factored(self, theta: Tensor) -> Linearisation:
        raw = self.load(theta)
        parts: list[ImplicitJacobian] = []
        places: list[list[Tensor]] = [[] for _ in self.blocks]
        total = 0
        for one in self.passes:
            leaves = [q.detach().expand(len(one.points), 1).clone().requires_grad_() for q in raw]
            part = implicit_jacobian(self.matrix(one, leaves), self.parameters, leaves)
            assert part is not None
            for index, positions in self._places(one, part.rows):
                places[index].append(total + positions)
            total += part.rows.numel()
            parts.append(part)
        # The residual vector goes block by block, the passes hold several blocks or parts of one.
        order = torch.cat([torch.cat(found, 1).reshape(-1) for found in places if found])
        sizes = [part.rows.numel() for part in parts]

        def vjp(w: Tensor) -> Tensor:
            spread, sums = w.new_zeros(total).index_put((order,), w).split(sizes), Pairwise()
            for number, part, piece in zip(self._numbers, parts, spread, strict=True):
                sums.add(number, part.pull(piece))
            return self._total(sums, theta)

        residual = torch.cat([part.rows.reshape(-1) for part in parts])[order]
        return Linearisation(residual, lambda v: torch.cat([part.push(v) for part in parts])[order], vjp)

    def _twice_backward(self, theta: Tensor) -> Linearisation:
        """J' w is linear in w; J v is the transpose of that map, applied to v."""
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
        load: Callable[[Tensor], Tensor]
        _vector: Callable[[Sequence[Tensor]], Tensor]
        _structure_holds: Callable[[Tensor], bool]
        _places: Callable[[Pass, Tensor], list[tuple[int, Tensor]]]
        matrix: Callable[[Pass, Sequence[Tensor]], Callable[[], Tensor]]


def _flat(grads: Sequence[Tensor | None], inputs: Sequence[Tensor]) -> Tensor:
    pairs = zip(grads, inputs, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in pairs])
