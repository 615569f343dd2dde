"""The compiled kernels against independent recurrences, nested autograd and mpmath."""

import math
import os
import subprocess
import sys
from pathlib import Path

import mpmath
import pytest
import torch
from torch import Tensor

from ntangent._base.errors import BackendError, DtypeError, ShapeError
from ntangent._base.precision import tolerance
from ntangent.jet.activations import ACTIVATIONS, Activation, evaluate
from ntangent.jet.backends import library, native

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(not native.available(), reason=f"no native library: {native.reason()}")

F64, F32 = torch.float64, torch.float32
TANH = ACTIVATIONS["tanh"]


# --- the oracle: series as lists of coefficients, one direction at a time ---------------------------


def multiply(u: list[Tensor], v: list[Tensor]) -> list[Tensor]:
    return [sum(u[i] * v[k - i] for i in range(k + 1)) for k in range(len(u))]


def polynomial_series(p, series: list[list[Tensor]]) -> list[Tensor]:
    zero = torch.zeros_like(series[0][0])
    total = [zero for _ in series[0]]
    for exponents, coefficient in p.terms:
        term = [torch.full_like(zero, float(coefficient))] + [zero for _ in total[1:]]
        for factor, power in zip(series, exponents, strict=True):
            for _ in range(power):
                term = multiply(term, factor)
        total = [a + b for a, b in zip(total, term, strict=True)]
    return total


def activation_series(row: Activation, a: list[Tensor]) -> list[Tensor]:
    states = [[z] for z in row.initial(a[0])]
    for k in range(1, len(a)):
        known = [a[:k], *states]
        rates = [polynomial_series(p, known) for p in row.flow]
        for state, rate in zip(states, rates, strict=True):
            state.append(sum(j * a[j] * rate[k - j] for j in range(1, k + 1)) / k)
    return polynomial_series(row.output, [a, *states])


def oracle(x: Tensor, directions: int, order: int, params, rows, collapsed: bool = False) -> Tensor:
    """Differentiable, in the precision of its input; ``x`` is never collapsed."""
    degree = (x.shape[0] - 1) // directions
    lines = []
    for d in range(directions):
        line = [x[0]] + [x[1 + (k - 1) * directions + d] for k in range(1, degree + 1)]
        line += [torch.zeros_like(x[0])] * (order - degree)
        for layer in range(len(params) // 2):
            weight, bias = params[2 * layer : 2 * layer + 2]
            line = [c @ weight.T for c in line]
            if bias is not None:
                line[0] = line[0] + bias
            if layer < len(rows):
                line = activation_series(rows[layer], line)
        lines.append(line)
    out = [lines[0][0]]
    for k in range(1, order + 1):
        level = [line[k] for line in lines]
        out += [sum(level)] if collapsed and k == order else level
    return torch.stack(out)


def network(widths, dtype=F64, bias=True, seed=0, gain=1.0) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    params: list[Tensor | None] = []
    for i, o in zip(widths[:-1], widths[1:], strict=True):
        w = torch.randn(o, i, generator=generator, dtype=F64) * gain / math.sqrt(i)
        params += [w.to(dtype), (0.3 * torch.randn(o, generator=generator, dtype=F64)).to(dtype) if bias else None]
    return params


def points(count: int, dimension: int, directions: int, degree: int, dtype=F64, seed=1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (0.7 * torch.randn(1 + degree * directions, count, dimension, generator=generator, dtype=F64)).to(dtype)


def run(x: Tensor, directions: int, order: int, params, rows, **options) -> Tensor:
    return native.dense_jet(x, directions, order, params[::2], params[1::2], rows, **options)


def doubled(tensors):
    return [None if t is None else t.double() for t in tensors]


def close(found: Tensor, expected: Tensor, dtype, order: int, terms: int = 64) -> None:
    """Relative to the largest number of the row: single entries may cancel."""
    found, expected = found.detach(), expected.detach()
    assert found.shape == expected.shape
    if found.numel() == 0:
        return
    flat = expected.reshape(expected.shape[0], -1).abs().amax(1).clamp_min(1e-3 * float(expected.abs().max()))
    error = (found.double() - expected).reshape(expected.shape[0], -1).abs().amax(1) / flat.clamp_min(1e-300)
    assert error.max().item() <= tolerance(dtype, order, terms), f"relative error {error.max().item():.2e}"


# --- forward -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])
@pytest.mark.parametrize("width", [1, 3, 24, 65, 200])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 256])
def test_forward_of_ragged_sizes(count: int, width: int, dtype: torch.dtype) -> None:
    params = network([2, width, width, 3], dtype)
    for order, directions, degree in ((0, 1, 0), (1, 1, 1), (3, 3, 1), (4, 1, 2)):
        x = points(count, 2, directions, degree, dtype)
        expected = oracle(x.double(), directions, order, doubled(params), [TANH, TANH])
        close(run(x, directions, order, params, [TANH, TANH]), expected, dtype, order, width)


@pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])
@pytest.mark.parametrize("order", [*range(13), 18])
def test_forward_of_every_order(order: int, dtype: torch.dtype) -> None:
    params = network([1, 9, 9, 1], dtype, gain=0.7)
    for directions in (1, 3):
        for degree in {min(order, 1), order // 2, order}:
            x = points(21, 1, directions, degree, dtype)
            for collapsed in (False, True):
                given = x
                if collapsed and degree == order and order:
                    cut = 1 + (order - 1) * directions
                    given = torch.cat([x[:cut], x[cut:].sum(0, keepdim=True)])
                expected = oracle(x.double(), directions, order, doubled(params), [TANH, TANH], collapsed)
                found = run(given, directions, order, params, [TANH, TANH], collapsed=collapsed)
                close(found, expected, dtype, order)


def sampled(row: Activation, params, x: Tensor) -> list[Tensor | None]:
    """Scale the last bias-free layer's argument into the row's domain: one layer, one activation."""
    low, high = row.sample
    weight = torch.full((5, 1), 0.45 * (high - low), dtype=x.dtype) * torch.linspace(0.2, 1, 5, dtype=x.dtype)[:, None]
    return [weight, torch.full((5,), 0.5 * (low + high), dtype=x.dtype), *params]


@pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])
@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_every_activation(name: str, dtype: torch.dtype) -> None:
    row = ACTIVATIONS[name]
    assert native.serves(row)
    for order, directions, collapsed in ((0, 1, False), (1, 1, False), (4, 2, True), (6, 2, False), (14, 1, False)):
        x = torch.cat([torch.linspace(-1, 1, 37, dtype=F64)[None, :, None], 0.1 * points(37, 1, directions, 1)[1:]])
        x = x[: 1 + min(order, 1) * directions].to(dtype)
        params = sampled(row, network([5, 2], dtype), x)
        leaves = [t.clone().requires_grad_() for t in (x, *params)]
        reference = [t.detach().double().requires_grad_() for t in leaves]
        found = run(leaves[0], directions, order, leaves[1:], [row], collapsed=collapsed)
        expected = oracle(reference[0], directions, order, reference[1:], [row], collapsed)
        close(found, expected, dtype, order)
        g = points(37, 2, directions, order)[: expected.shape[0]]
        for a, b in zip(torch.autograd.grad(found, leaves, g.to(dtype)), torch.autograd.grad(expected, reference, g), strict=True):
            close(a.reshape(1, -1), b.reshape(1, -1), dtype, order, 256)
