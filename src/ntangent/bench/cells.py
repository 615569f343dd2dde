"""One cell of a benchmark: a dense tanh network, a batch of points, an order."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ntangent._base.check import check_choice, check_order, check_positive

DTYPES = ("float32", "float64")


class Series(NamedTuple):
    """What cells of different orders have in common."""

    width: int
    depth: int
    batch: int
    dtype: str
    device: str

    def __str__(self) -> str:
        place = "" if self.device == "cpu" else f", {self.device}"
        return f"{self.depth}×{self.width}, {self.batch} points, {self.dtype}{place}"


@dataclass(frozen=True)
class Cell:
    """A network of ``depth`` hidden layers of ``width`` neurons from R to R, and N points.

    Args:
        order: highest derivative.
        width: neurons in each hidden layer.
        depth: number of hidden layers.
        batch: number of points.
        dtype: "float32" or "float64".
        device: where network and points live.
    """

    order: int
    width: int = 24
    depth: int = 3
    batch: int = 256
    dtype: str = "float64"
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_order(self.order)
        for name in ("width", "depth", "batch"):
            check_positive(getattr(self, name), name, integer=True)
        check_choice(self.dtype, DTYPES, "dtype")

    @property
    def series(self) -> Series:
        """What it shares with the cells of other orders."""
        return Series(self.width, self.depth, self.batch, self.dtype, self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch has it."""
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def network(self, seed: int) -> nn.Sequential:
        """Return the network with torch's default initialisation, the same in both precisions."""
        sizes = [1, *[self.width] * self.depth]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers: list[nn.Module] = []
            for fan_in, fan_out in itertools.pairwise(sizes):
                layers += [nn.Linear(fan_in, fan_out, dtype=torch.float64), nn.Tanh()]
            layers.append(nn.Linear(self.width, 1, dtype=torch.float64))
        return nn.Sequential(*layers).to(self.device, self.torch_dtype)

    def points(self, seed: int) -> Tensor:
        """Return the points, standard normal, shape (batch, 1)."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(self.batch, 1, dtype=torch.float64, generator=generator).to(
            self.device, self.torch_dtype
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the cell as plain data; ``Cell(**data)`` rebuilds it."""
        return asdict(self)
