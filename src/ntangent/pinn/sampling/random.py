"""Samplers of n points: random and of low discrepancy."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent._base.extras import require_extra
from ntangent.pinn.domains.tools import Draw
from ntangent.pinn.sampling.base import Sequence, sampler, uniform_draw


@sampler
@dataclass(frozen=True)
class Uniform(Sequence):
    """Independent uniform points.

    Args:
        n: number of points.
        seed: seed of their generator.
    """

    def draw(self) -> Draw:
        """Return the generator's uniform numbers."""
        return uniform_draw(torch.Generator().manual_seed(self.seed))


class _Quasi(Sequence):
    """A sequence of scipy.stats.qmc (extra ``qmc``)."""

    def _engine(self, qmc: Any, dimension: int) -> Any:
        raise NotImplementedError  # pragma: no cover

    def draw(self) -> Draw:
        """Return the sequence, one for each dimension that is asked for.

        Raises:
            MissingExtraError: if scipy is not installed.
        """
        require_extra("qmc", f"the sampler {type(self).__name__}")
        from scipy.stats import qmc

        engines: dict[int, Any] = {}

        def draw(count: int, dimension: int) -> Tensor:
            if dimension not in engines:
                engines[dimension] = self._engine(qmc, dimension)
            with warnings.catch_warnings():  # counts that are no power of 2 are what is asked for
                warnings.simplefilter("ignore", UserWarning)
                return torch.from_numpy(engines[dimension].random(count)).to(torch.float64)

        return draw


@sampler
@dataclass(frozen=True)
class LatinHypercube(_Quasi):
    """Latin hypercube points: in a box, one point in each of n slices of every coordinate.

    In domains that are filled by rejection the slices are those of the candidates.

    Args:
        n: number of points.
        seed: of the permutations.
    """

    def _engine(self, qmc: Any, dimension: int) -> Any:
        return qmc.LatinHypercube(dimension, seed=self.seed)


@sampler
@dataclass(frozen=True)
class Sobol(_Quasi):
    """Sobol points, scrambled (Owen); best balanced when n is a power of 2.

    Args:
        n: number of points.
        seed: of the scrambling.
        scramble: whether to; without, the points are the same for every seed and include the corner.
    """

    scramble: bool = True

    def _engine(self, qmc: Any, dimension: int) -> Any:
        return qmc.Sobol(dimension, scramble=self.scramble, seed=self.seed)


@sampler
@dataclass(frozen=True)
class Halton(_Quasi):
    """Halton points, scrambled (Owen).

    Args:
        n: number of points.
        seed: of the scrambling.
        scramble: whether to; without, the points are the same for every seed and include the corner.
    """

    scramble: bool = True

    def _engine(self, qmc: Any, dimension: int) -> Any:
        return qmc.Halton(dimension, scramble=self.scramble, seed=self.seed)
