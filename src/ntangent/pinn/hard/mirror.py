"""Symmetry about an end of a coordinate: points beyond it are mirrored, and odd fields change their sign."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent._base.check import under_transform
from ntangent.jet import Jet


@dataclass(frozen=True)
class Mirror:
    """A mirror at one end of one coordinate.

    Args:
        axis: of the coordinate.
        position: where the mirror stands.
        upper: whether it is the upper end of the domain.
        odd: for each component, whether it changes its sign.
    """

    axis: int
    position: float
    upper: bool
    odd: tuple[bool, ...]

    def into(self, x: Jet) -> tuple[Jet, Tensor | None]:
        """Return points inside the domain for points on either side, and the signs of odd fields there.

        Shape (N, 1); None where nothing was mirrored, as for collocation points.
        """
        own = x.data[0, :, self.axis : self.axis + 1]
        beyond = own > self.position if self.upper else own < self.position
        if not (torch.compiler.is_compiling() or under_transform(own)) and not bool(beyond.any()):
            return x, None
        sign = torch.where(beyond, -torch.ones_like(own), torch.ones_like(own)).detach()
        columns = list(x.data.split(1, -1))
        moved = columns[self.axis] * sign
        columns[self.axis] = torch.cat([moved[:1] + self.position * (1 - sign), moved[1:]])
        return Jet(torch.cat(columns, -1), x.order, x.directions), sign

    def back(self, values: Jet, sign: Tensor) -> Jet:
        """Return the fields at the points themselves from those at the mirrored ones, shape (N, c)."""
        factor = torch.where(values.data.new_tensor(self.odd, dtype=torch.bool), sign, torch.ones_like(sign))
        return Jet(values.data * factor, values.order, values.directions)
