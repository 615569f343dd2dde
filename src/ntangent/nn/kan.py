"""Kolmogorov-Arnold layers: a trainable function of one variable on every edge."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ntangent._base.errors import ArgumentError
from ntangent.nn._build import Making, check_sizes


class ChebyshevLayer(nn.Module):
    """y_o = sum over i and k of C_oik T_k(tanh x_i), with the Chebyshev polynomials T_0..T_K.

    The hyperbolic tangent keeps the arguments in (-1, 1); the layer is analytic.

    Source: SS, AR, R & KP (2024), arXiv 2405.07200, equations 3 and 4.

    Args:
        inputs, outputs: numbers of features.
        degree: K.
        dtype, device, generator: see :mod:`ntangent.nn`.

    Shape: (*, inputs) → (*, outputs).

    Cost: K - 1 products of series of the inputs, one matrix product with outputs·inputs·(K + 1)
    weights.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        degree: int = 4,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(inputs=inputs, outputs=outputs, degree=degree)
        making = Making(dtype, device, generator)
        self.degree = degree
        self.coefficients = nn.Parameter(
            making.normal(outputs, inputs * (degree + 1), scale=(inputs * (degree + 1)) ** -0.5)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the sums over the edges."""
        t = torch.tanh(x)
        terms = [torch.ones_like(t), t]
        for _ in range(2, self.degree + 1):
            terms.append(2 * t * terms[-1] - terms[-2])
        return nn.functional.linear(torch.cat(terms, -1), self.coefficients)


class SplineLayer(nn.Module):
    """y_o = sum over i of w_oi silu(x_i) + sum over k of c_oik B_k(x_i), with cubic B-splines B_k.

    Smoothness: twice continuously differentiable. The third derivative in x jumps at the knots, and
    from there on derivatives are those of the pieces, the right one at a knot; a differential
    equation of order n needs a smoother layer from n = 3. The splines of the grid reach three cells
    past it on both sides and vanish further out.

    Source: Liu et al. (2024), arXiv 2404.19756, equations 2.10-2.12, with a fixed uniform grid.

    Args:
        inputs, outputs: numbers of features.
        cells: number of cells of the grid.
        interval: the ends of the grid.
        dtype, device, generator: see :mod:`ntangent.nn`.

    Shape: (*, inputs) → (*, outputs).

    Cost: two products of series of the inputs, and a matrix product with outputs·inputs·(cells + 4)
    weights.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        cells: int = 8,
        interval: tuple[float, float] = (-2.0, 2.0),
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(inputs=inputs, outputs=outputs, cells=cells)
        self.low, self.high = (float(end) for end in interval)
        if not self.low < self.high:
            raise ArgumentError(f"the grid is {interval}", "its ends must increase", "interval=(-2.0, 2.0)")
        making = Making(dtype, device, generator)
        self.cells = cells
        self.base = nn.Parameter(making.normal(outputs, inputs, scale=(2.0 / (inputs + outputs)) ** 0.5))
        self.coefficients = nn.Parameter(
            making.normal(outputs, inputs * (cells + 3), scale=0.1 / inputs**0.5)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the sums over the edges."""
        smooth = nn.functional.linear(nn.functional.silu(x), self.base)
        return smooth + nn.functional.linear(self.splines(x).flatten(-2), self.coefficients)

    def splines(self, x: Tensor) -> Tensor:
        """Return B_0..B_{cells+2} at every input, shape (*, inputs, cells + 3).

        In each cell four cubics of the place s in the cell are not zero; the cell is a constant.
        """
        u = (x - self.low) * (self.cells / (self.high - self.low))
        cell = torch.floor(u)
        s = u - cell
        square = s * s
        cube = square * s
        rest = 1 - s
        pieces = [
            rest * rest * rest / 6,
            cube / 2 - square + 2.0 / 3.0,
            (square + s - cube) / 2 + 1.0 / 6.0,
            cube / 6,
        ]
        numbers = torch.arange(self.cells + 3, dtype=x.dtype, device=x.device)
        terms = [
            piece.unsqueeze(-1) * (cell.unsqueeze(-1) + j == numbers).to(x.dtype)
            for j, piece in enumerate(pieces)
        ]
        return terms[0] + terms[1] + terms[2] + terms[3]


def _chain(
    kind: type[nn.Module], sizes: tuple[int, ...], making: Making, **options: object
) -> list[nn.Module]:
    check_sizes(**{f"size {i}": n for i, n in enumerate(sizes)})
    if len(sizes) < 2:
        raise ArgumentError("a network has at least two sizes", "its inputs and its outputs", "(2, 16, 1)")
    place = {"dtype": making.dtype, "device": making.device, "generator": making.generator}
    return [kind(a, b, **options, **place) for a, b in pairwise(sizes)]


def ChebyshevKAN(
    *sizes: int,
    degree: int = 4,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | int | None = None,
) -> nn.Sequential:
    """Return a chain of :class:`ChebyshevLayer` with these numbers of features, inputs first.

    Example:
        >>> import ntangent as nt
        >>> len(nt.nn.ChebyshevKAN(2, 8, 1, degree=3, generator=0))
        2
    """
    making = Making(dtype, device, generator)
    return nn.Sequential(*_chain(ChebyshevLayer, sizes, making, degree=degree))


def SplineKAN(
    *sizes: int,
    cells: int = 8,
    interval: tuple[float, float] = (-2.0, 2.0),
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | int | None = None,
) -> nn.Sequential:
    """Return a chain of :class:`SplineLayer` with these numbers of features, inputs first.

    Twice continuously differentiable; see the layer for what that means for higher orders.
    """
    making = Making(dtype, device, generator)
    return nn.Sequential(*_chain(SplineLayer, sizes, making, cells=cells, interval=interval))
