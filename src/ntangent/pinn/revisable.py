"""What the changing part of an objective needs: terms one by one, other points, mini-batches."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from ntangent.pinn.equation import Block
from ntangent.pinn.weighting.base import Layout, Term


class Revisable:
    """Views of an objective made of blocks, beside its loss; a base class of the objective."""

    blocks: list[Block]
    points: Tensor
    problem: Any
    version = 0  # counts the changes of factors and points
    seed = 0  # of the mini-batches
    _factors: dict[str, Tensor]
    _scales: list[Tensor]
    _seen: tuple[Tensor, dict[str, Tensor], Tensor] | None = None
    _shuffled: tuple[tuple[int, int, int], Tensor] | None = None

    # --- what the objective offers -------------------------------------------------------------------

    def rows(self, theta: Tensor) -> dict[str, Tensor]:
        """Return the residuals of every block, unweighted."""
        raise NotImplementedError

    def load(self, theta: Tensor) -> Tensor:
        """Write θ into the network and return the raw unknowns."""
        raise NotImplementedError

    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residuals and their Jacobian."""
        raise NotImplementedError

    def _pieces(self, raw: Sequence[Tensor], weighted: bool = True) -> list[Tensor]:
        raise NotImplementedError

    def _gradient(self, value: Tensor, raw: Tensor) -> Tensor:
        raise NotImplementedError

    def _arrange(self) -> None:
        raise NotImplementedError

    # --- rows that are known -------------------------------------------------------------------------

    def factor(self, name: str) -> Tensor | None:
        """Return the factor of a block's squared residuals; None where it is 1."""
        return self._factors.get(name)

    def _keep_rows(self, theta: Tensor, pieces: Sequence[Tensor], residuals: Tensor) -> None:
        named = zip(self.blocks, pieces, strict=True)
        self._seen = theta, {block.name: rows.detach() for block, rows in named}, residuals

    def _known_rows(self, theta: Tensor) -> dict[str, Tensor] | None:
        return self._seen[1] if self._seen is not None and self._seen[0] is theta else None

    def _known_residuals(self, theta: Tensor) -> Tensor | None:
        return self._seen[2] if self._seen is not None and self._seen[0] is theta else None

    def _changed(self) -> None:
        self.version += 1
        self._seen = None

    def whole(self) -> Self:
        """Return the objective with all of its points in this process."""
        return self

    # --- terms ---------------------------------------------------------------------------------------

    def movable(self) -> list[str]:
        """Return the names of the blocks at collocation points."""
        return [block.name for block in self._moving()]

    def _moving(self) -> list[Block]:
        return [block for block in self.blocks if block.free and block.points is self.points]

    def layout(self) -> Layout:
        """Return what a weighting needs to know of the blocks."""
        terms = [Term(block.name, block.points, block.weights, block.count) for block in self.blocks]
        return Layout(tuple(terms), {name: self.problem.interval(name) for name in self.problem.domain.names})

    def term(self, name: str) -> Self:
        """Return the objective of one block alone, with its weights."""
        alone = copy.copy(self)
        alone.blocks, alone._seen = [block for block in self.blocks if block.name == name], None
        alone._arrange()
        return alone

    def term_gradient(self, theta: Tensor, name: str, factor: Tensor) -> Tensor:
        """Return the gradient of a block's mean(factor · r²), rows added by relative weight, shape (P,)."""
        alone = self.term(name)
        raw = alone.load(theta).detach().clone().requires_grad_()
        with torch.enable_grad():
            (rows,) = alone._pieces(raw.unbind(0) if len(raw) else (), weighted=False)
            value = self.layout()[name].relative @ (factor * rows.square()).mean(dim=1)
        return self._gradient(value, raw)

    def row_squares(self, theta: Tensor) -> dict[str, Tensor]:
        """Return |dr/dθ|² of each unweighted residual by block, shape (C, n). Cost: one Jacobian."""
        bare = copy.copy(self)
        bare._scales = [torch.ones_like(scale[:, :1]) for scale in self._scales]
        squares = bare.residuals_and_jacobian(theta)[1].square().sum(dim=1)
        sizes = [(len(block.weights), block.count) for block in self.blocks]
        parts = squares.split([c * n for c, n in sizes])
        named = zip(self.blocks, parts, sizes, strict=True)
        return {block.name: part.view(size) for block, part, size in named}

    # --- other points --------------------------------------------------------------------------------

    def _at(self, points: Tensor, blocks: Sequence[Block]) -> Self:
        """Return the objective with collocation blocks at other points; factors are left to the caller."""
        moving = {id(block) for block in self._moving()}
        there = copy.copy(self)
        there._seen, there.points = None, points
        there.blocks = [dataclasses.replace(b, points=points) if id(b) in moving else b for b in blocks]
        return there

    def magnitude(self, theta: Tensor, points: Tensor) -> Tensor:
        """Return the size of the equations' residual at any points, shape (M,).

        It is the root of the sum of the squared rows of all equations, each with its relative weight.
        """
        there = self._at(points, self._moving())
        total = points.new_zeros(len(points))
        if there.blocks:
            there._factors = {}
            there._arrange()
            layout = there.layout()
            for name, rows in there.rows(theta).items():
                total = total + layout[name].relative @ rows.square()
        return total.sqrt()

    def batch(self, size: int, index: int) -> Self:
        """Return the objective on mini-batch ``index`` of the collocation points.

        Conditions keep all of their points. An epoch is a random order of the points, from the seed of
        the objective and the number of the epoch, cut into batches of ``size``; a rest is left out.
        """
        count = len(self.points)
        if size >= count or not self._moving():
            return self
        epoch, place = divmod(index, count // size)
        key = (self.seed, epoch, count)
        if self._shuffled is None or self._shuffled[0] != key:
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
            self._shuffled = key, torch.randperm(count, generator=generator)
        chosen = self._shuffled[1][place * size : (place + 1) * size].to(self.points.device)
        return self.part(chosen)

    def part(self, chosen: Tensor) -> Self:
        """Return the objective on some of the collocation points, by index; conditions stay whole."""
        part = self._at(self.points[chosen], self.blocks)
        moving = self.movable()
        part._factors = {
            name: factor[..., chosen] if name in moving and factor.ndim and factor.shape[-1] > 1 else factor
            for name, factor in self._factors.items()
        }
        part._arrange()
        return part
