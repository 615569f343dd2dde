"""Points that gather where a solution is known to be steep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_choice, check_order, check_positive
from ntangent._base.errors import ArgumentError
from ntangent.pinn.domains.base import Domain
from ntangent.pinn.domains.box import Box
from ntangent.pinn.domains.tools import Draw, reject
from ntangent.pinn.sampling.base import sampler, settle, uniform_draw


@sampler
@dataclass(frozen=True, init=False)
class Clustered:
    """Uniform points, and a share of them around a line, a plane or a point.

    ``Clustered(4000, x=0.0, width=0.1, fraction=1/3)`` puts a third of the points around the line
    x = 0, with the density exp(-(x/width)²/2) cut to the domain, and the others uniformly. With
    several coordinates the density is the product.

    Args:
        n: number of points.
        width: standard deviation of the cluster before it is cut.
        fraction: share of the points in the cluster, above 0 and at most 1.
        seed: of the generator.
        near: coordinates of the centre by name.
    """

    n: int
    width: float
    fraction: float
    seed: int
    near: tuple[tuple[str, float], ...]

    def __init__(
        self, n: int, *, width: float = 0.1, fraction: float = 0.5, seed: int = 0, **near: Any
    ) -> None:
        if isinstance(near.get("near"), tuple):  # dataclasses.replace hands over the field
            near = dict(near["near"])
        check_positive(n, "n", integer=True)
        check_positive(width, "width")
        check_order(seed, "seed")
        if check_positive(fraction, "fraction") > 1:
            raise ArgumentError(f"fraction is {fraction}", "it is a share of the points", "fraction=0.5")
        if not near or not all(math.isfinite(float(v)) for v in near.values()):
            raise ArgumentError(
                "the cluster has no centre", "give finite coordinates", "Clustered(4000, x=0.0)"
            )
        rows = tuple((name, float(value)) for name, value in near.items())
        for name, value in (("n", n), ("width", float(width)), ("fraction", float(fraction)), ("seed", seed)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "near", rows)

    def __repr__(self) -> str:
        near = ", ".join(f"{name}={value!r}" for name, value in self.near)
        return (
            f"Clustered({self.n}, width={self.width!r}, fraction={self.fraction!r}, seed={self.seed}, {near})"
        )

    def points(self, domain: Domain, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the points, shape (n, d), the cluster last.

        Raises:
            UnknownNameError: if a coordinate of the centre is not the domain's.
            ProblemError: if the domain is far from the centre.
        """
        for name, _ in self.near:
            check_choice(name, domain.names, "coordinate")
        draw = uniform_draw(torch.Generator().manual_seed(self.seed))
        count = round(self.fraction * self.n)
        pieces = [domain.sample(self.n - count, draw)] if count < self.n else []
        if count:
            pieces.append(self._cluster(domain, count, draw))
        return settle(torch.cat(pieces), dtype, device)

    def _cluster(self, domain: Domain, count: int, draw: Draw) -> Tensor:
        """Draw in the bounding box by normal quantiles; keep what lies in the domain."""
        box = domain.box

        def propose(size: int) -> tuple[Tensor]:
            unit = draw(size, box.dimension)
            points = box.interior(unit)
            for name, centre in self.near:
                axis = box.names.index(name)
                points[:, axis] = _truncated(unit[:, axis], centre, self.width, *box.interval(name))
            return (points,)

        if isinstance(domain, Box):
            return propose(count)[0]
        what = f"{domain!r} around {dict(self.near)}"
        return reject(count, propose, lambda p: domain.signed_distance(p) <= 0, what)[0]


def _truncated(unit: Tensor, centre: float, width: float, low: float, high: float) -> Tensor:
    """Map uniform numbers to a normal distribution cut to an interval.

    Of an interval to the right of the centre the left tail of the mirror image is taken: there the
    distribution function has all of its digits.
    """
    mirrored = low > centre
    if mirrored:
        low, high = 2 * centre - high, 2 * centre - low
    ends = torch.special.log_ndtr(unit.new_tensor([(low - centre) / width, (high - centre) / width]))
    top = ends[1]
    # Far out both are tiny: only their ratio is needed, from logarithms.
    share = torch.exp(ends[0] - top)
    level = top + torch.log(share + (1 - share) * unit)
    points = centre + width * _log_quantile(level)
    points = points.clamp(low, high)
    return 2 * centre - points if mirrored else points


def _log_quantile(level: Tensor) -> Tensor:
    """Return z with log Φ(z) = level: the normal quantile, and Newton's method in the far tail."""
    z = torch.special.ndtri(torch.exp(level).clamp(1e-300, 1 - 1e-16))
    tail = level < -600
    guess = torch.where(tail, -torch.sqrt(-2 * level), z)
    for _ in range(8):
        log_density = -0.5 * guess * guess - 0.5 * math.log(2 * math.pi)
        value = torch.special.log_ndtr(guess)
        step = (value - level) * torch.exp(value - log_density)
        guess = torch.where(tail, guess - step, guess)
    return guess
