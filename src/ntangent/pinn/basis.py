"""A correction by products of Fourier waves and Chebyshev polynomials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ntangent._base.check import under_transform
from ntangent.jet import Jet
from ntangent.jet.arithmetic import product_entries, row_count
from ntangent.jet.layers import TAPE
from ntangent.jet.series import common, compose, lift
from ntangent.pinn.hard.along import plain


@dataclass(frozen=True)
class Waves:
    """1, cos kθ and sin kθ for k = 1..modes, θ = 2π(x - low)/period.

    Args:
        modes: largest k.
        low: lower end of the period.
        period: its length.
    """

    modes: int
    low: float
    period: float

    @property
    def count(self) -> int:
        """How many functions there are."""
        return 2 * self.modes + 1

    def __call__(self, x: Jet) -> Jet:
        """Return the functions at x, shape (N, 1), as (N, count)."""
        k = torch.arange(1, self.modes + 1, dtype=x.dtype, device=x.device)
        angle: Any = (x - self.low) * (k * (2 * math.pi / self.period))
        one = lift(x.data.new_ones(x.shape[0], 1), x)
        parts: Any = [one, torch.cos(angle), torch.sin(angle)]
        return plain(torch.cat(parts, -1))


@dataclass(frozen=True)
class Polynomials:
    """Chebyshev polynomials T_0..T_modes on [low, high].

    Args:
        modes: largest degree.
        low: lower end.
        high: upper end.
        without: degrees that are left out.
    """

    modes: int
    low: float
    high: float
    without: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many functions there are."""
        return len(self._degrees)

    @property
    def _degrees(self) -> list[int]:
        return [k for k in range(self.modes + 1) if k not in self.without]

    def __call__(self, x: Jet) -> Jet:
        """Return the functions at x, shape (N, 1), as (N, count)."""
        z = plain((x - (self.low + self.high) / 2) * (2 / (self.high - self.low)))
        # Series in z first, by the recurrence T_k = 2 z T_(k-1) - T_(k-2): rows of plain numbers.
        value, order = z.data[0], z.order
        one = torch.cat([torch.ones_like(value.T), value.new_zeros(order, len(value))])
        rows = [one, _times(value.T, one)]
        for _ in range(2, self.modes + 1):
            rows.append(2 * _times(value.T, rows[-1]) - rows[-2])
        return compose(Jet(torch.stack([rows[k] for k in self._degrees], -1), order), z)


def _times(value: Tensor, rows: Tensor) -> Tensor:
    """Return the series (z + t) times a series in t, shape (order + 1, N)."""
    return value * rows + torch.cat([torch.zeros_like(rows[:1]), rows[:-1]])


Family = Waves | Polynomials


class TensorBasis(nn.Module):
    """x -> C (product over coordinates of a family of functions each), with C = 0 at first, which is trained.

    The last coordinate's functions run fastest in the rows of C. The products themselves, (N, F) rows, are
    formed only where a Jacobian in C is recorded; else C is contracted with one family after the other.

    Source: Boyd, Chebyshev and Fourier Spectral Methods, 2nd edition, Dover 2001.

    Args:
        families: one for each coordinate.
        outputs: how many fields.
        like: of the dtype and on the device of the weights.
    """

    def __init__(self, families: Sequence[Family], outputs: int, like: Tensor) -> None:
        super().__init__()
        self.families = tuple(families)
        count = math.prod(family.count for family in self.families)
        self.last = nn.Linear(count, outputs, bias=False, dtype=like.dtype, device=like.device)
        nn.init.zeros_(self.last.weight)

    def extra_repr(self) -> str:
        """Return the families, which no parameter holds."""
        return ", ".join(map(repr, self.families))

    def forward(self, x: Any) -> Any:
        """Return the value at points, a tensor or a series of shape (N, d)."""
        series = plain(x)
        columns = [distinct(plain(series[:, i : i + 1])) for i in range(len(self.families))]
        pairs = zip(self.families, columns, strict=True)
        factors = [(family(own), places) for family, (own, places) in pairs]
        if TAPE.get() is None or series.data.requires_grad:
            found = self._contracted(factors)
        else:
            found = plain(self.last(products([spread(*factor) for factor in factors])))
        return found.value if isinstance(x, Tensor) else found

    def _contracted(self, factors: Sequence[tuple[Jet, Tensor | None]]) -> Jet:
        (first, places), *others = factors
        total: Any = spread(plain(first @ self.last.weight.T.reshape(first.shape[1], -1)), places)
        for factor in others:
            own: Any = spread(*factor)
            total = (total.reshape(total.shape[0], own.shape[1], -1) * own[:, :, None]).sum(1)
        return plain(total.reshape(total.shape[0], self.last.out_features))


def distinct(x: Jet) -> tuple[Jet, Tensor | None]:
    """Return the different entries of a column (N, 1), and which of them each is; None for the column itself.

    On a tensor product of points there are far fewer of them: functions of one coordinate cost nothing.
    """
    if x.data.requires_grad or under_transform(x.data):
        return x, None
    values, places = torch.unique(x.data[..., 0], dim=1, return_inverse=True)
    if 2 * values.shape[1] > x.shape[0]:
        return x, None
    return Jet(values[..., None], x.order, x.directions), places


def spread(values: Jet, places: Tensor | None) -> Jet:
    """Return what was found for the distinct entries, for all of them."""
    return values if places is None else values.map_rows(lambda rows: rows[:, places])


def products(factors: Sequence[Jet]) -> Jet:
    """Return all products of one function from each family, shape (N, F)."""
    total = factors[0]
    for factor in factors[1:]:
        total = _outer(total, factor)
    return total


def _outer(a: Jet, b: Jet) -> Jet:
    """Return the truncated products of all columns of a with all of b, in place.

    A family of one coordinate has no rows across it: products with these are left out.
    """
    order, directions = common([a, b])
    degree = min(order, a.degree + b.degree)
    rows = a.data.new_empty((row_count(a.structure, degree), *a.shape, b.shape[1]))
    live_a, live_b = (jet.data.flatten(1).any(1).tolist() for jet in (a, b))
    begun = set()
    for c, d, target, weight in product_entries(a.structure, degree):
        if c < len(live_a) and d < len(live_b) and live_a[c] and live_b[d]:
            left, right = a.data[c][:, :, None], b.data[d][:, None, :]
            right = right if weight == 1.0 else right * weight
            if target in begun:
                rows[target].addcmul_(left, right)
            else:
                torch.mul(left, right, out=rows[target])
                begun.add(target)
    for target in set(range(len(rows))) - begun:
        rows[target] = 0
    return Jet(rows.flatten(2), order, directions)
