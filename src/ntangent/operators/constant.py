"""Matrices that a plan needs in the dtype and on the device of each call."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Constant:
    """A matrix of numbers, converted once for each dtype and device.

    Args:
        rows: its entries.
        columns: length of each row.
    """

    rows: tuple[tuple[float, ...], ...]
    columns: int
    _cache: dict[tuple[torch.dtype, torch.device], Tensor] = field(
        default_factory=dict, repr=False, compare=False
    )

    def like(self, x: Tensor) -> Tensor:
        """Return the matrix with the dtype and on the device of a tensor; not to be written to."""
        key = (x.dtype, x.device)
        if key not in self._cache:
            with torch.no_grad():
                matrix = torch.tensor(self.rows, dtype=x.dtype, device=x.device)
            self._cache[key] = matrix.reshape(len(self.rows), self.columns)
        return self._cache[key]
