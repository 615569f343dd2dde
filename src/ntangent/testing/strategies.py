"""Hypothesis strategies: series, polynomials and small networks, all float64.

Numbers are drawn as small fractions, so examples shrink to readable ones and sums of products of
them stay exact where a property needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ntangent.jet.mlp import FUNCTIONS, MLP, MODULES
from ntangent.jet.series import Jet

# hypothesis' own DrawFn is a protocol that cannot be checked when the program runs.
Draw = Callable[..., Any]
SMOOTH = ("tanh", "sigmoid", "silu", "gelu", "softplus", "mish", "sin", "cos", "erf", "atan", "asinh")
assert set(SMOOTH) <= {*MODULES, *FUNCTIONS}


def orders(largest: int = 6) -> st.SearchStrategy[int]:
    """Draw an order of truncation."""
    return st.integers(0, largest)


def numbers(bound: int = 2, denominator: int = 8) -> st.SearchStrategy[float]:
    """Draw a multiple of 1/denominator in [-bound, bound]; exact in binary for powers of two."""
    return st.integers(-bound * denominator, bound * denominator).map(lambda n: n / denominator)


@st.composite
def tensors(draw: Draw, shape: tuple[int, ...], elements: st.SearchStrategy[float] | None = None) -> Tensor:
    """Draw a float64 tensor of a given shape."""
    size = torch.Size(shape).numel()
    values: list[float] = draw(st.lists(elements or numbers(), min_size=size, max_size=size))
    return torch.tensor(list(values), dtype=torch.float64).reshape(shape)


@st.composite
def series(
    draw: Draw,
    order: int,
    shape: tuple[int, ...] = (2, 1),
    directions: int | None = None,
    degree: int | None = None,
) -> Jet:
    """Draw a jet of a given order; its stored degree is drawn too, unless it is given."""
    stored = draw(st.integers(0, order)) if degree is None else degree
    rows = 1 + stored * (directions or 1)
    return Jet(draw(tensors((rows, *shape))), order, directions)


@st.composite
def polynomials(draw: Draw, degree: int = 5, bound: int = 4) -> tuple[list[int], Callable[[Any], Any]]:
    """Draw a polynomial with integer coefficients, as its list and as a function (Horner's rule)."""
    coefficients: list[int] = draw(st.lists(st.integers(-bound, bound), min_size=1, max_size=degree + 1))

    def f(x: Any) -> Any:
        total = 0 * x + coefficients[-1]
        for c in reversed(coefficients[:-1]):
            total = total * x + c
        return total

    return coefficients, f


@st.composite
def networks(draw: Draw, inputs: int = 1, outputs: int = 1) -> nn.Sequential:
    """Draw a small smooth network."""
    return MLP(
        inputs,
        outputs,
        width=draw(st.integers(1, 5)),
        depth=draw(st.integers(1, 2)),
        activation=draw(st.sampled_from(SMOOTH)),
        bias=draw(st.booleans()),
        dtype=torch.float64,
        generator=draw(st.integers(0, 10_000)),
    )
