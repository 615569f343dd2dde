"""The part of an objective that can change: factors on its residuals, and its collocation points."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from ntangent._base.check import check_finite
from ntangent._base.errors import ArgumentError, ShapeError
from ntangent.pinn.weighting.base import Layout, Term


class Revisable:
    """Factors, moving points and mini-batches, for an objective made of blocks of residual rows.

    The objective itself offers ``_bare_rows(raw)``: the residuals of each block, shape (C, N), without
    any weight; ``load``, ``_gradient``, ``residuals_and_jacobian``, ``blocks`` and ``points``. A block
    whose ``at`` is a function of points is a residual at collocation points, and moves with them.
    """

    blocks: list[Any]
    points: Tensor
    problem: Any
    version = 0
    seed = 0
    _roots: Mapping[str, Tensor] = {}
    _bare = False
    _seen: tuple[Tensor, dict[str, Tensor]] | None = None
    _shuffled: tuple[tuple[int, int, int], Tensor] | None = None

    def _bare_rows(self, raw: Sequence[Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError

    def load(self, theta: Tensor) -> Tensor:
        """Write θ into the network and return the raw unknowns."""
        raise NotImplementedError

    def _gradient(self, value: Tensor, raw: Tensor) -> Tensor:
        raise NotImplementedError

    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residuals and their Jacobian."""
        raise NotImplementedError

    def _scaled(self, block: Any, rows: Tensor) -> Tensor:
        """Return the rows of a block, shape (C, N), such that their squares add up to its loss."""
        if self._bare:
            return rows
        rows = rows * (block.weights / max(1, rows.shape[1])).sqrt()[:, None]
        root = self._roots.get(block.name)
        return rows if root is None else rows * root

    def movable(self) -> list[str]:
        """Return the names of the blocks at collocation points."""
        return [block.name for block in self.blocks if block.at is not None]

    def layout(self) -> Layout:
        """Return what a weighting needs to know of the blocks."""
        box = self.problem.domain
        terms = [Term(b.name, b.points, b.weights, len(b.points)) for b in self.blocks]
        return Layout(tuple(terms), {name: box.interval(name) for name in box.names})

    def rows(self, theta: Tensor) -> dict[str, Tensor]:
        """Return the residuals of each block without any weight, shape (C, N), detached.

        Those of the last gradient are kept: at its θ this costs nothing.
        """
        if self._seen is not None and self._seen[0] is theta:
            return self._seen[1]
        with torch.no_grad():
            return self._bare_rows(list(self.load(theta)))

    def set_factors(self, factors: Mapping[str, Tensor]) -> None:
        """Multiply the squared residuals of blocks by factors that broadcast to (C, N); others by 1.

        Raises:
            ArgumentError: if there is no such block, or a factor is negative or not finite.
            ShapeError: if a factor does not fit its block.
        """
        known = {block.name: block for block in self.blocks}
        roots = {}
        for name, factor in factors.items():
            if name not in known:
                raise ArgumentError(
                    f"there is no term {name!r}", f"there are {', '.join(known)}", "rows(theta)"
                )
            check_finite(factor, f"the factor of {name}")
            if bool((factor < 0).any()):
                raise ArgumentError(
                    f"a factor of {name!r} is negative", "a loss is a sum of squares", "factor.clamp_min(0)"
                )
            if factor.ndim and factor.shape[-1] not in (1, len(known[name].points)):
                raise ShapeError(
                    f"the factors of {name!r} have shape {tuple(factor.shape)} for "
                    f"{len(known[name].points)} points",
                    "there is one for each point, or one for all",
                    "factor.mean()",
                )
            roots[name] = factor.detach().to(known[name].points).sqrt()
        self._roots = roots
        self._changed()

    def set_points(self, points: Tensor) -> None:
        """Ask the equations to hold at other points, shape (M, d); per-point factors there become 1."""
        self.blocks = [block if block.at is None else block.at(points) for block in self.blocks]
        moved = self.movable()
        self._roots = {n: r for n, r in self._roots.items() if n not in moved or r.ndim == 0}
        self.points = points
        self._changed()

    def _changed(self) -> None:
        self.version += 1
        self._seen = None

    def term_gradient(self, theta: Tensor, name: str, factor: Tensor) -> Tensor:
        """Return the gradient of a block's mean(factor · r²), rows added by relative weight, shape (P,)."""
        raw = self.load(theta).detach().clone().requires_grad_()
        relative = self.layout()[name].relative
        with torch.enable_grad():
            rows = self._bare_rows(list(raw))[name]
            value = relative @ (factor * rows.square()).mean(dim=1)
        return self._gradient(value, raw)

    def row_squares(self, theta: Tensor) -> dict[str, Tensor]:
        """Return |dr/dθ|² of each unweighted residual by block, shape (C, N). Cost: one Jacobian."""
        bare = copy.copy(self)
        bare._bare = True
        squares = bare.residuals_and_jacobian(theta)[1].square().sum(dim=1)
        sizes = {block.name: (len(block.weights), len(block.points)) for block in self.blocks}
        parts = squares.split([c * n for c, n in sizes.values()])
        return {name: part.view(size) for (name, size), part in zip(sizes.items(), parts, strict=True)}

    def magnitude(self, theta: Tensor, points: Tensor) -> Tensor:
        """Return the size of the equations' residual at any points, shape (M,).

        It is the root of the sum of the squared rows of all equations, each with its relative weight.
        """
        there = copy.copy(self)
        there.blocks = [block.at(points) for block in self.blocks if block.at is not None]
        there._seen, there.points = None, points
        total = points.new_zeros(len(points))
        if there.blocks:
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
        if size >= count or not self.movable():
            return self
        epoch, place = divmod(index, count // size)
        key = (self.seed, epoch, count)
        if self._shuffled is None or self._shuffled[0] != key:
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
            self._shuffled = key, torch.randperm(count, generator=generator)
        chosen = self._shuffled[1][place * size : (place + 1) * size].to(self.points.device)
        part = copy.copy(self)
        part._seen, part.points = None, self.points[chosen]
        part.blocks = [block if block.at is None else block.at(part.points) for block in self.blocks]
        moved = self.movable()
        part._roots = {
            n: r[..., chosen] if n in moved and r.ndim and r.shape[-1] == count else r
            for n, r in self._roots.items()
        }
        return part
