"""The compiled kernels against independent recurrences, nested autograd and mpmath."""

import functools
import itertools
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
from ntangent.jet import Jet, execute
from ntangent.jet.activations import ACTIVATIONS, Activation, evaluate
from ntangent.jet.algebra import Algebra
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
    for i, o in itertools.pairwise(widths):
        w = torch.randn(o, i, generator=generator, dtype=F64) * gain / math.sqrt(i)
        params += [
            w.to(dtype),
            (0.3 * torch.randn(o, generator=generator, dtype=F64)).to(dtype) if bias else None,
        ]
    return params


def points(count: int, dimension: int, directions: int, degree: int, dtype=F64, seed=1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (0.7 * torch.randn(1 + degree * directions, count, dimension, generator=generator, dtype=F64)).to(
        dtype
    )


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
    weight = (
        torch.full((5, 1), 0.45 * (high - low), dtype=x.dtype)
        * torch.linspace(0.2, 1, 5, dtype=x.dtype)[:, None]
    )
    return [weight, torch.full((5,), 0.5 * (low + high), dtype=x.dtype), *params]


@pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])
@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_every_activation(name: str, dtype: torch.dtype) -> None:
    row = ACTIVATIONS[name]
    assert native.serves(row)
    for order, directions, collapsed in (
        (0, 1, False),
        (1, 1, False),
        (4, 2, True),
        (6, 2, False),
        (14, 1, False),
    ):
        # Ends that are no round numbers: no argument may fall on a kink, where rounding picks the branch.
        line = torch.linspace(-0.9871, 0.9937, 37, dtype=F64)
        x = torch.cat([line[None, :, None], 0.1 * points(37, 1, directions, 1)[1:]])
        x = x[: 1 + min(order, 1) * directions].to(dtype)
        params = sampled(row, network([5, 2], dtype), x)
        leaves = [t.clone().requires_grad_() for t in (x, *params)]
        reference = [t.detach().double().requires_grad_() for t in leaves]
        found = run(leaves[0], directions, order, leaves[1:], [row], collapsed=collapsed)
        expected = oracle(reference[0], directions, order, reference[1:], [row], collapsed)
        close(found, expected, dtype, order)
        g = points(37, 2, directions, order)[: expected.shape[0]]
        for a, b in zip(
            torch.autograd.grad(found, leaves, g.to(dtype)),
            torch.autograd.grad(expected, reference, g),
            strict=True,
        ):
            close(a.reshape(1, -1), b.reshape(1, -1), dtype, order, 256)


# --- derivatives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])
@pytest.mark.parametrize("recompute", [False, True], ids=["saved", "recomputed"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bias-free"])
@pytest.mark.parametrize(("width", "count"), [(1, 9), (3, 8), (24, 256), (65, 7), (200, 33)])
def test_backward(width: int, count: int, bias: bool, recompute: bool, dtype: torch.dtype) -> None:
    sin = ACTIVATIONS["sin"]
    for order, directions, degree, collapsed in (
        (0, 1, 0, False),
        (2, 3, 1, True),
        (3, 2, 2, False),
        (5, 1, 5, False),
    ):
        params = network([3, width, width, 2], dtype, bias)
        x = points(count, 3, directions, degree, dtype)
        leaves = [x.requires_grad_(), *(p.requires_grad_() for p in params if p is not None)]
        found = run(x, directions, order, params, [TANH, sin], recompute=recompute, collapsed=collapsed)
        reference = [t if t is None else t.detach().double().requires_grad_() for t in (x, *params)]
        expected = oracle(reference[0], directions, order, reference[1:], [TANH, sin], collapsed)
        g = points(count, 2, directions, order)[: found.shape[0]]
        wanted = torch.autograd.grad(expected, [t for t in reference if t is not None], g)
        for a, b in zip(torch.autograd.grad(found, leaves, g.to(dtype)), wanted, strict=True):
            close(a.reshape(1, -1), b.reshape(1, -1), dtype, order, width * count)


def test_backward_gives_only_what_is_asked_for() -> None:
    params = network([1, 5, 1])
    params[0].requires_grad_()
    x = points(9, 1, 1, 1)
    run(x, 1, 3, params, [TANH]).sum().backward()
    assert params[0].grad is not None
    assert params[1].grad is None
    assert x.grad is None


def test_layers_without_activation_and_activation_after_the_last() -> None:
    identity = ACTIVATIONS["identity"]
    params = network([2, 4, 5, 3])
    for rows in ([identity, TANH], [TANH, identity], [TANH, TANH, TANH], [identity, identity, identity]):
        x = points(11, 2, 2, 1).requires_grad_()
        leaves = [x, *(p.requires_grad_() for p in params)]
        found, expected = run(x, 2, 3, params, rows), oracle(x, 2, 3, params, rows)
        close(found, expected, F64, 3)
        g = torch.ones_like(found)
        for a, b in zip(
            torch.autograd.grad(found, leaves, g), torch.autograd.grad(expected, leaves, g), strict=True
        ):
            close(a.reshape(1, -1), b.reshape(1, -1), F64, 3, 256)


@pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])
@pytest.mark.parametrize("count", [0, 1, 9, 100])
@pytest.mark.parametrize(
    ("order", "directions", "collapsed"), [(0, 1, False), (4, 1, False), (2, 3, True), (3, 2, False)]
)
def test_jacobian(order: int, directions: int, collapsed: bool, count: int, dtype: torch.dtype) -> None:
    for bias in (True, False):
        params = network([2, 9, 10, 2], dtype, bias)
        x = points(count, 2, directions, min(order, 1), dtype)
        present = [p for p in params if p is not None]
        size = oracle(x, directions, order, params, [TANH, TANH], collapsed).shape[0]
        g = points(count, 2, directions, order)[:size].to(dtype)
        found = native.dense_jacobian(
            x, directions, order, params[::2], params[1::2], [TANH, TANH], g, collapsed=collapsed
        )
        assert found.shape == (count, sum(p.numel() for p in present))
        leaves = [p.detach().double().requires_grad_() for p in present]
        given = iter(leaves)
        full = [None if p is None else next(given) for p in params]
        y = oracle(x.double(), directions, order, full, [TANH, TANH], collapsed)
        for i in range(0, count, 7):
            rows = torch.autograd.grad(y[:, i], leaves, g.double()[:, i], retain_graph=True)
            close(found[i : i + 1], torch.cat([r.flatten() for r in rows])[None], dtype, order)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch.func.jvp itself triggers it once
@pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])
@pytest.mark.parametrize(
    ("order", "directions", "collapsed"), [(0, 1, False), (5, 1, False), (2, 3, True), (3, 2, False)]
)
def test_tangent(order: int, directions: int, collapsed: bool, dtype: torch.dtype) -> None:
    rows = [TANH, ACTIVATIONS["gelu"]]
    params = network([2, 9, 10, 2], dtype)
    x = points(19, 2, directions, min(order, 1), dtype)
    moves = [
        0.3 * t
        for t in (points(19, 2, directions, min(order, 1), dtype, 5), *network([2, 9, 10, 2], dtype, True, 7))
    ]
    found = native.dense_tangent(
        x, directions, order, params[::2], params[1::2], rows, moves, collapsed=collapsed
    )
    _, expected = torch.func.jvp(
        lambda x, *p: oracle(x, directions, order, p, rows, collapsed),
        tuple(doubled([x, *params])),
        tuple(doubled(moves)),
    )
    close(found, expected, dtype, order)
    partly = [None, moves[1], None, None, moves[4], *[None] * 2]
    found = native.dense_tangent(
        x, directions, order, params[::2], params[1::2], rows, partly, collapsed=collapsed
    )
    zeros = [torch.zeros_like(t) if m is None else m for t, m in zip((x, *params), partly, strict=True)]
    _, expected = torch.func.jvp(
        lambda x, *p: oracle(x, directions, order, p, rows, collapsed),
        tuple(doubled([x, *params])),
        tuple(doubled(zeros)),
    )
    close(found, expected, dtype, order)


def test_the_jacobian_is_the_transpose_of_the_tangent() -> None:
    params, x = network([1, 6, 1]), points(10, 1, 1, 1)
    v = network([1, 6, 1], seed=3)
    g = points(10, 1, 1, 4)
    jacobian = native.dense_jacobian(x, 1, 4, params[::2], params[1::2], [TANH], g)
    tangent = native.dense_tangent(x, 1, 4, params[::2], params[1::2], [TANH], [None, *v])
    flat = torch.cat([t.flatten() for t in v])
    torch.testing.assert_close(jacobian @ flat, (g * tangent).sum((0, 2)))


@pytest.mark.parametrize(("order", "directions", "collapsed"), [(2, 1, False), (2, 2, True), (3, 2, False)])
def test_derivatives_of_derivatives(order: int, directions: int, collapsed: bool) -> None:
    rows = [TANH, ACTIVATIONS["gelu"]]
    tensors = [points(6, 2, directions, 1), *network([2, 4, 3, 1])]
    leaves = [t.requires_grad_() for t in tensors]

    def twice(function) -> list[Tensor]:
        y = function(leaves[0], leaves[1:])
        first = torch.autograd.grad((y**3).sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum((f**2).sum() for f in first), leaves, create_graph=True)
        return [*first, *second, *torch.autograd.grad(sum((s**2).sum() for s in second), leaves)]

    found = twice(lambda x, p: run(x, directions, order, p, rows, collapsed=collapsed))
    expected = twice(lambda x, p: oracle(x, directions, order, p, rows, collapsed))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


# --- algebras -------------------------------------------------------------------------------------------


def down_closed(*tops: tuple[int, ...]) -> tuple[Algebra, list[tuple[int, ...]]]:
    """Return the algebra of the Taylor coefficients at all multi-indices below the given ones."""
    found = {b for top in tops for b in itertools.product(*(range(n + 1) for n in top))}
    indices = sorted(found, key=lambda b: (sum(b), b))
    place = {b: i for i, b in enumerate(indices)}
    table = [
        (place[c], place[d], place[b], 1.0)
        for c, d in itertools.product(indices, repeat=2)
        if (b := tuple(i + j for i, j in zip(c, d, strict=True))) in place
    ]
    return Algebra(tuple(sum(b) for b in indices), tuple(table)), indices


def coordinates(x: Tensor, algebra: Algebra, indices: list[tuple[int, ...]]) -> Tensor:
    """Return the points as a jet of degree 1: row e_i moves coordinate i."""
    rows = x.new_zeros(algebra.rows(1), *x.shape)
    rows[0] = x
    for i, b in enumerate(indices[1 : len(rows)]):
        rows[i + 1][:, b.index(1)] = 1
    return rows


def partials(x: Tensor, indices: list[tuple[int, ...]], params, rows) -> Tensor:
    """Return the same Taylor coefficients by nested autograd, differentiable in the parameters."""

    def function(x: Tensor) -> Tensor:
        y = x
        for layer in range(len(params) // 2):
            y = torch.nn.functional.linear(y, *params[2 * layer : 2 * layer + 2])
            if layer < len(rows):
                y = evaluate(rows[layer].output, (y, *rows[layer].initial(y)))
        return y

    x = x if x.requires_grad else x.clone().requires_grad_()
    values = {indices[0]: function(x)}
    for b in indices[1:]:
        axis = next(i for i, n in enumerate(b) if n)
        below = values[tuple(n - (i == axis) for i, n in enumerate(b))]
        columns = [
            torch.autograd.grad(below[:, j].sum(), x, create_graph=True)[0][:, axis]
            for j in range(below.shape[1])
        ]
        values[b] = torch.stack(columns, -1)
    return torch.stack([values[b] / math.prod(map(math.factorial, b)) for b in indices])


# Burgers; Korteweg-de Vries; fourth order in the plane; a mixed derivative in three dimensions.
ALGEBRAS = [((2, 0), (0, 1)), ((3, 0), (0, 1)), ((4, 0), (3, 1), (2, 2), (1, 3), (0, 4)), ((2, 1, 1),)]


@pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])
@pytest.mark.parametrize("tops", ALGEBRAS, ids=str)
def test_algebras_against_nested_autograd(tops: tuple[tuple[int, ...], ...], dtype: torch.dtype) -> None:
    algebra, indices = down_closed(*tops)
    d, order = len(tops[0]), algebra.order
    sin = ACTIVATIONS["sin"]
    for count, width in ((1, 3), (9, 24), (8, 5)):
        params = network([d, width, width, 2], dtype, gain=0.7)
        x = points(count, d, 1, 0, dtype)[0]
        leaves = [t.clone().requires_grad_() for t in (x, *params)]
        rows = coordinates(leaves[0], algebra, indices)
        found = run(rows, algebra, order, leaves[1:], [TANH, sin])
        reference = [t.detach().double().requires_grad_() for t in leaves]
        expected = partials(reference[0], indices, reference[1:], [TANH, sin])
        close(found, expected, dtype, order)
        g = points(count, 2, len(indices) - 1, 1)
        wanted = torch.autograd.grad(expected, reference, g, retain_graph=True)
        for a, b in zip(torch.autograd.grad(found, leaves, g.to(dtype)), wanted, strict=True):
            close(a.reshape(1, -1), b.reshape(1, -1), dtype, order, width * count)
        jacobian = native.dense_jacobian(
            rows.detach(), algebra, order, params[::2], params[1::2], [TANH, sin], g.to(dtype)
        )
        for i in range(count):
            own = torch.autograd.grad(expected[:, i], reference[1:], g[:, i], retain_graph=True)
            close(jacobian[i : i + 1], torch.cat([t.flatten() for t in own])[None], dtype, order)


@pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])
@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_every_activation_in_an_algebra(name: str, dtype: torch.dtype) -> None:
    row = ACTIVATIONS[name]
    algebra, _ = down_closed((2, 2), (0, 3))
    low, high = row.sample
    for degree in (0, 1, 2, 4):
        a = (0.2 * (high - low) * points(37, 1, algebra.rows(degree) - 1, 1)[: algebra.rows(degree)]).to(
            dtype
        )
        a[0, :, 0] = torch.linspace(
            low + 0.0129 * (high - low), high - 0.0063 * (high - low), 37, dtype=dtype
        )
        a.requires_grad_()
        y, _ = native.activation_jet(a, 4, algebra, row)
        reference = a.detach().double().requires_grad_()
        expected = table_series(row, reference, algebra)
        close(y, expected, dtype, 4)
        g = torch.cos(torch.arange(expected.numel(), dtype=F64)).view_as(expected)
        (found,), (wanted,) = (
            torch.autograd.grad(y, a, g.to(dtype)),
            torch.autograd.grad(expected, reference, g),
        )
        close(found.reshape(1, -1), wanted.reshape(1, -1), dtype, 4, 256)


def table_series(row: Activation, a: Tensor, algebra: Algebra) -> Tensor:
    """The recurrence of a row in an algebra, entry by entry, in torch operations."""
    size = len(algebra.grades)
    zero = torch.zeros_like(a[0])

    def times(u: list[Tensor], v: list[Tensor]) -> list[Tensor]:
        total = [zero] * len(u)
        for c, d, b, w in algebra.table:
            if b < len(u):
                total[b] = total[b] + w * u[c] * v[d]
        return total

    def combine(p, series: list[list[Tensor]], count: int) -> list[Tensor]:
        total = [zero] * count
        for exponents, coefficient in p.terms:
            term = [torch.full_like(zero, float(coefficient))] + [zero] * (count - 1)
            for factor, power in zip(series, exponents, strict=True):
                for _ in range(power):
                    term = times(term, factor[:count])
            total = [t + s for t, s in zip(total, term, strict=True)]
        return total

    argument = [*a, *[zero] * (size - len(a))]
    states = [[z] for z in row.initial(a[0])]
    for b in range(1, size):
        rates = [combine(p, [argument, *states], b) for p in row.flow]
        for state, rate in zip(states, rates, strict=True):
            terms = [
                algebra.grades[c] * w / algebra.grades[b] * argument[c] * rate[d]
                for c, d, target, w in algebra.table
                if target == b and c
            ]
            state.append(sum(terms, zero))
    return torch.stack(combine(row.output, [argument, *states], size))


def test_tangents_and_derivatives_of_derivatives_in_an_algebra() -> None:
    algebra, indices = down_closed((2, 0), (1, 1))
    rows, order = [TANH, ACTIVATIONS["gelu"]], algebra.order
    x = points(6, 2, 1, 0)[0]
    params = network([2, 4, 3, 1])
    given = coordinates(x, algebra, indices)
    moves = network([2, 4, 3, 1], seed=7)
    found = native.dense_tangent(given, algebra, order, params[::2], params[1::2], rows, [None, *moves])
    small = 1e-6
    shifted = [
        partials(x, indices, [p + s * small * m for p, m in zip(params, moves, strict=True)], rows)
        for s in (1, -1)
    ]
    torch.testing.assert_close(found, (shifted[0] - shifted[1]) / (2 * small), rtol=1e-7, atol=1e-7)
    leaves = [p.requires_grad_() for p in params]

    def twice(y: Tensor) -> list[Tensor]:
        first = torch.autograd.grad((y**3).sum(), leaves, create_graph=True)
        return [*first, *torch.autograd.grad(sum((f**2).sum() for f in first), leaves)]

    for a, b in zip(
        twice(run(given, algebra, order, leaves, rows)),
        twice(partials(x, indices, leaves, rows)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_functions_of_an_algebra_run_on_the_kernels() -> None:
    algebra, indices = down_closed((2, 0), (0, 1))
    net = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).double()
    x = points(7, 2, 1, 0)[0]
    argument = Jet(coordinates(x, algebra, indices), algebra.order, algebra)
    found, expected = (execute.run(net, argument, backend).data for backend in ("native", "eager"))
    torch.testing.assert_close(found, expected)
    values = {name: p.detach() for name, p in net.named_parameters()}

    def loss(values, backend: str) -> Tensor:
        function = lambda z: torch.func.functional_call(net, values, (z,))  # noqa: E731
        return execute.run(function, argument, backend).data.square().sum()

    for transform in (torch.func.grad, torch.func.hessian):
        both = [transform(functools.partial(loss, backend=b))(values) for b in ("native", "eager")]
        torch.testing.assert_close(*both)
    large, _ = down_closed((9, 0, 0, 0), *[(1, 1, 1, 4)] * 2, (0, 9, 9, 0))
    assert execute.native_network(net, x, large)[1].startswith("the kernels take algebras of at most")
    with pytest.raises(ShapeError, match="grade"):
        run(argument.data[:2], algebra, algebra.order, list(net.parameters()), [TANH])


# --- tangents that all points share -----------------------------------------------------------------------


SHARED = [(1, 1, False), (3, 2, True), (9, 2, True), (2, 4, False), (1, 3, True), (0, 4, False)]


@pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])
@pytest.mark.parametrize(("lines", "order", "collapsed"), SHARED)
@pytest.mark.parametrize("count", [0, 1, 9, 100])
def test_shared_tangents(lines: int, order: int, collapsed: bool, count: int, dtype: torch.dtype) -> None:
    structure, d = (lines, 3) if lines else (down_closed((2, 2))[0], 2)  # no lines: an algebra
    rows = [TANH, ACTIVATIONS["sin"]]
    x, v = points(count, d, 1, 0, dtype)[0], points(lines or 2, d, 1, 0, dtype, seed=4)[0]
    leaves = [t.requires_grad_() for t in (x, *network([d, 7, 10, 2], dtype))]
    spread = lambda: torch.cat([x[None], v[:, None].expand(-1, *x.shape)])  # noqa: E731
    call = functools.partial(run, directions=structure, order=order, params=leaves[1:], rows=rows)
    expected = call(spread(), collapsed=collapsed)
    g = torch.cos(torch.arange(expected.numel(), dtype=F64)).view_as(expected).to(dtype)
    first = torch.autograd.grad(expected, leaves, g, create_graph=True)
    second = torch.autograd.grad(sum((t**2).sum() for t in first), leaves)
    for recompute in (False, True):
        found = call((x, v), collapsed=collapsed, recompute=recompute)
        close(found, expected.double(), dtype, order)
        graph = torch.autograd.grad(found, leaves, g, create_graph=True)
        again = torch.autograd.grad(sum((t**2).sum() for t in graph), leaves)
        plain = torch.autograd.grad(call((x, v), collapsed=collapsed, recompute=recompute), leaves, g)
        for a, b in zip((*plain, *graph, *again), (*first, *first, *second), strict=True):
            close(a.reshape(1, -1), b.double().reshape(1, -1), dtype, 2 * order, 256)
    weights, biases = leaves[1::2], leaves[2::2]
    with torch.no_grad():
        jacobians = [
            native.dense_jacobian(
                argument, structure, order, weights, biases, rows, g, collapsed=collapsed
            ).reshape(1, -1)
            for argument in ((x, v), spread())
        ]
    close(jacobians[0], jacobians[1].double(), dtype, order)


def test_shared_tangents_may_move() -> None:
    x, v = points(5, 2, 1, 0)[0], points(3, 2, 1, 0, seed=2)[0].requires_grad_()
    params = network([2, 4, 1])
    found = torch.autograd.grad(run((x, v), 3, 2, params, [TANH]).square().sum(), v)
    rows = torch.cat([x[None], v[:, None].expand(-1, *x.shape)])
    expected = torch.autograd.grad(oracle(rows, 3, 2, params, [TANH]).square().sum(), v)
    torch.testing.assert_close(found, expected)
    with pytest.raises(ShapeError, match="tangents"):
        run((x, v[:, :1]), 3, 2, params, [TANH])
    with pytest.raises(ShapeError, match="rows"):
        run((x, v[:2]), 3, 2, params, [TANH])
    with pytest.raises(DtypeError, match="tangents"):
        run((x, v.float()), 3, 2, params, [TANH])


# --- transforms ------------------------------------------------------------------------------------------


def scalar(x: Tensor, params, order: int = 3) -> Tensor:
    return (run(x, 1, order, params, [TANH]) ** 2).sum()


def scalar_oracle(x: Tensor, params, order: int = 3) -> Tensor:
    return (oracle(x, 1, order, params, [TANH]) ** 2).sum()


def along_ones(f):
    return lambda x, p: torch.func.jvp(lambda x: f(x, p), (x,), (torch.ones_like(x),))


GRAD = functools.partial(torch.func.grad, argnums=(0, 1))
TRANSFORMS = {
    "grad": (GRAD, ""),
    "jacrev of grad": (lambda f: torch.func.jacrev(torch.func.grad(f, argnums=1)), ""),
    "hessian": (torch.func.hessian, ""),
    "jvp": (along_ones, ""),
    "jvp of grad": (lambda f: along_ones(torch.func.grad(f, argnums=1)), ""),
    "vmap of grad, points": (lambda f: torch.vmap(GRAD(f), in_dims=(0, None)), "x"),
    "vmap of grad, parameters": (lambda f: torch.vmap(GRAD(f), in_dims=(None, 0)), "p"),
    "vmap of grad, both": (lambda f: torch.vmap(GRAD(f)), "xp"),
    "vmap of hessian": (lambda f: torch.vmap(torch.func.hessian(f), in_dims=(0, None)), "x"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch.func.jvp itself triggers it once
@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_func_transforms(name: str) -> None:
    transform, mapped = TRANSFORMS[name]
    x, params = points(5, 1, 1, 1), tuple(network([1, 4, 1]))
    if "x" in mapped:
        x = torch.stack([x, 2 * x])
    if "p" in mapped:
        params = tuple(torch.stack([p, -p]) for p in params)
    torch.testing.assert_close(
        transform(scalar)(x, params), transform(scalar_oracle)(x, params), rtol=1e-9, atol=1e-9
    )


def test_vmap_of_forward() -> None:
    params = network([2, 4, 3])
    x = torch.stack([points(5, 2, 2, 1, seed=s) for s in range(3)])
    mapped = torch.vmap(lambda x: run(x, 2, 3, params, [TANH]))(x)
    torch.testing.assert_close(mapped, torch.stack([run(t, 2, 3, params, [TANH]) for t in x]))
    stacked = [torch.stack([p, 2 * p]) for p in params]
    mapped = torch.vmap(lambda *p: run(x[0], 2, 3, p, [TANH]))(*stacked)
    expected = torch.stack([run(x[0], 2, 3, [p[i] for p in stacked], [TANH]) for i in range(2)])
    torch.testing.assert_close(mapped, expected)


def test_per_sample_gradients_and_functional_call() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(1, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).double()
    x = points(7, 1, 1, 1)
    values = dict(net.named_parameters())

    def loss(values, x: Tensor) -> Tensor:
        given = [values[k].clone() for k in values]
        return run(x[:, None], 1, 2, given, [TANH]).square().sum()

    found = torch.vmap(torch.func.grad(loss), in_dims=(None, 1))(values, x)
    for i in range(7):
        one = torch.func.grad(loss)(values, x[:, i])
        for name in values:
            torch.testing.assert_close(found[name][i], one[name])


COMPILE = """
import torch
from ntangent.jet.activations import ACTIVATIONS
from ntangent.jet.backends import native
net = [torch.nn.Linear(i, o, dtype=torch.float64) for i, o in ((1, 8), (8, 8), (8, 1))]
params = [p for l in net for p in (l.weight, l.bias)]
rows = [ACTIVATIONS["tanh"], ACTIVATIONS["silu"]]
def loss(x, params):
    return native.dense_jet(x, 1, 3, params[::2], params[1::2], rows).square().sum()
compiled = torch.compile(loss, fullgraph=True)
for count in (20, 33):
    x = torch.randn(2, count, 1, dtype=torch.float64).requires_grad_()
    torch.testing.assert_close(compiled(x, params), loss(x, params))
    found = torch.autograd.grad(compiled(x, params), [x, *params])
    torch.testing.assert_close(found, torch.autograd.grad(loss(x, params), [x, *params]))
with torch.no_grad():
    torch.testing.assert_close(compiled(x, params), loss(x, params))
stack = torch.randn(4, 2, 20, 1, dtype=torch.float64)
mapped = torch.compile(lambda s: torch.vmap(lambda x: loss(x, params))(s), fullgraph=True)
torch.testing.assert_close(mapped(stack), torch.stack([loss(x, params) for x in stack]))
"""


@pytest.mark.slow
def test_compile_fullgraph() -> None:
    # In its own process: the compiler cannot trace the argument checks that pytest puts around functions.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_operator_registration() -> None:
    x, params = points(9, 1, 1, 1).requires_grad_(), [p.requires_grad_() for p in network([1, 4, 1])]
    torch.library.opcheck(
        torch.ops.ntangent.dense_jet.default, (x, params, [1, 3, 0], ["tanh"], True),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )  # fmt: skip
    out = torch.vmap(lambda x: torch.ops.ntangent.dense_jet(x, params, [1, 3, 0], ["tanh"], True)[0])(x[None])
    torch.testing.assert_close(out[0], run(x, 1, 3, params, [TANH]))


# --- one activation at a time ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])
@pytest.mark.parametrize("name", ["tanh", "sin", "gelu", "relu", "identity", "softplus", "elu[1.0,1.0]"])
def test_single_steps(name: str, dtype: torch.dtype) -> None:
    row = ACTIVATIONS[name]
    for order, directions, degree, collapsed in (
        (0, 1, 0, False),
        (3, 2, 1, False),
        (4, 2, 4, True),
        (15, 1, 15, False),
    ):
        a = (0.5 * points(13, 17, directions, degree, dtype))[: 1 + degree * directions]
        if collapsed:
            cut = 1 + (order - 1) * directions
            full, a = a, torch.cat([a[:cut], a[cut:].sum(0, keepdim=True)])
        else:
            full = a
        a.requires_grad_()
        y, s = native.activation_jet(a, order, directions, row, collapsed=collapsed)
        identity = [torch.eye(17, dtype=F64), None]
        reference = full.detach().double().requires_grad_()
        expected = oracle(reference, directions, order, identity, [row], collapsed)
        close(y, expected, dtype, order)
        slope = oracle(full.double().detach(), directions, order, identity, [row.derivative], collapsed)
        close(s, slope[: s.shape[0]], dtype, order)
        g = points(13, 17, directions, order)[: y.shape[0]]
        found, wanted = (
            torch.autograd.grad(y, a, g.to(dtype))[0],
            torch.autograd.grad(expected, reference, g)[0],
        )
        close(found, wanted[: found.shape[0]], dtype, order)


def test_layers_one_by_one_agree_with_the_fused_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    params = [p.requires_grad_() for p in network([2, 9, 8, 2])]
    x = points(11, 2, 2, 1).requires_grad_()
    for collapsed in (False, True):
        fused = run(x, 2, 3, params, [TANH, TANH], collapsed=collapsed)
        wanted = torch.autograd.grad(fused.square().sum(), [x, *params])
        with monkeypatch.context() as m:
            m.setattr(native, "FUSED_WIDTH", 0)
            layered = run(x, 2, 3, params, [TANH, TANH], collapsed=collapsed)
        close(layered, fused.detach(), F64, 3)
        first = torch.autograd.grad(layered.square().sum(), [x, *params], create_graph=True)
        torch.testing.assert_close(first, wanted)
        second = torch.autograd.grad(sum(f.square().sum() for f in first), params)
        again = torch.autograd.grad(
            fused_first := run(x, 2, 3, params, [TANH, TANH], collapsed=collapsed).square().sum(),
            [x, *params],
            create_graph=True,
        )
        assert fused_first.requires_grad
        torch.testing.assert_close(second, torch.autograd.grad(sum(f.square().sum() for f in again), params))


# --- numbers --------------------------------------------------------------------------------------------

ULP = {F64: 2.0**-52, F32: 2.0**-23}
EXACT = {
    "tanh": mpmath.tanh, "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)), "sin": mpmath.sin, "cos": mpmath.cos,
    "exp": mpmath.exp, "softplus": lambda x: mpmath.log1p(mpmath.exp(x)), "erf": mpmath.erf,
    "erfc": mpmath.erfc,
    "silu": lambda x: x / (1 + mpmath.exp(-x)), "gelu": lambda x: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2,
    "gaussian": lambda x: mpmath.exp(-x * x), "atan": mpmath.atan, "sinh": mpmath.sinh, "expm1": mpmath.expm1,
    "asinh": mpmath.asinh, "mish": lambda x: x * mpmath.tanh(mpmath.log1p(mpmath.exp(x))),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])
@pytest.mark.parametrize("name", list(EXACT))
def test_values_to_a_few_ulp(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.cat(
        [
            10.0 ** (-6 * torch.rand(300, generator=generator, dtype=F64)),
            12 * torch.rand(300, generator=generator, dtype=F64),
        ]
    )
    x = torch.cat([x, -x, torch.tensor([0.0, 80.0, -80.0], dtype=F64)]).to(dtype)
    y = native.activation_jet(x[None], 0, 1, ACTIVATIONS[name])[0][0]
    with mpmath.workdps(40):
        worst = 0.0
        for xi, yi in zip(x.tolist(), y.tolist(), strict=True):
            exact = EXACT[name](mpmath.mpf(xi))
            tiny = torch.finfo(dtype).tiny
            if abs(exact) < tiny or abs(exact) > torch.finfo(dtype).max:
                assert abs(yi) <= tiny or math.isinf(yi)
                continue
            worst = max(worst, float(abs(yi - exact) / abs(exact)) / ULP[dtype])
    # The rounded argument of exp or erfc costs digits where these are steep.
    assert worst <= {"gaussian": 150, "gelu": 150}.get(name, 4), f"{worst:.1f} ulp"


@pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])
def test_high_orders_against_mpmath(dtype: torch.dtype) -> None:
    for name, start in (("tanh", 0.4), ("sigmoid", -0.7), ("softplus", 0.3), ("sin", 0.9), ("gelu", 0.2)):
        a = torch.zeros(2, 1, dtype=dtype)
        a[0], a[1] = start, 1
        y = native.activation_jet(a, 18, 1, ACTIVATIONS[name])[0][:, 0]
        with mpmath.workdps(60):
            exact = mpmath.taylor(EXACT[name], mpmath.mpf(a[0].item()), 18)
        for k, c in enumerate(exact):
            scale = max(abs(float(c)), 1e-2 * abs(float(exact[max(k - 1, 0)])))
            assert abs(y[k].item() - float(c)) <= tolerance(dtype, k) * scale


@pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])
@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_nan_and_infinity_propagate_as_in_torch(name: str, dtype: torch.dtype) -> None:
    row = ACTIVATIONS[name]
    special = torch.tensor([math.nan, math.inf, -math.inf, 0.0, 1e30, -1e30], dtype=dtype)
    expected = evaluate(row.output, (special, *row.initial(special)))
    found = native.activation_jet(special[None], 0, 1, row)[0][0]
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_nan_stays_with_its_point() -> None:
    params = [p.requires_grad_() for p in network([1, 24, 24, 1])]
    x = points(20, 1, 1, 1)
    clean = run(x, 1, 4, params, [TANH, TANH])
    x[0, 11] = math.nan
    dirty = run(x, 1, 4, params, [TANH, TANH])
    others = torch.arange(20) != 11
    assert dirty[:, 11].isnan().all()
    assert torch.equal(dirty[:, others], clean[:, others])
    assert torch.autograd.grad(dirty.sum(), params)[0].isnan().all()
    x[0, 11] = math.inf
    saturated = run(x[:1], 1, 0, params, [TANH, TANH])
    torch.testing.assert_close(saturated, oracle(x[:1], 1, 0, params, [TANH, TANH]))


def test_padding_of_a_ragged_tile_is_harmless() -> None:
    # log is singular at 0, which a tile padded with zeros would evaluate
    params = [torch.full((2, 1), 1.0, dtype=F64), None, torch.ones(1, 2, dtype=F64), None]
    params[0].requires_grad_()
    x = 1 + points(3, 1, 1, 1).abs()
    run(x, 1, 3, params, [ACTIVATIONS["log"]]).sum().backward()
    assert params[0].grad.isfinite().all()


# --- threads, determinism, errors ------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_and_determinism(threads: int) -> None:
    params = [p.requires_grad_() for p in network([2, 24, 24, 1])]
    x = points(1001, 2, 2, 1).requires_grad_()
    before = torch.get_num_threads()
    results = []
    try:
        for count in (threads, threads, 1):
            torch.set_num_threads(count)
            y = run(x, 2, 3, params, [TANH, TANH])
            g = torch.cos(torch.arange(y.numel(), dtype=F64)).view_as(y)
            jacobian = native.dense_jacobian(x, 2, 3, params[::2], params[1::2], [TANH, TANH], g)
            results.append([y, jacobian, *torch.autograd.grad(y, [x, *params], g)])
    finally:
        torch.set_num_threads(before)
    for a, b, c in zip(*results, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=1e-12, atol=1e-12)


def test_size_of_the_saved_state_is_as_documented() -> None:
    from ntangent.jet.backends.calls import plan_of

    lib = library.library()
    for dtype in (F64, F32):
        for rows in ([TANH, TANH], [ACTIVATIONS["sin"], TANH, TANH], [ACTIVATIONS["identity"], TANH]):
            for order, directions, count in ((0, 1, 0), (1, 1, 256), (9, 1, 257), (3, 3, 31)):
                params = network([1, 24, 7, 1], dtype)
                plan = plan_of(points(count, 1, directions, 0, dtype), params, order, directions, rows, False)
                assert plan.saved_size(count) == lib.saved_size(plan.single, plan.address, count)


def test_arguments_that_are_not_contiguous() -> None:
    params = network([2, 5, 1])
    x = points(9, 2, 1, 1)
    odd = [None if p is None else torch.stack([p, p], -1)[..., 0] for p in params]
    assert torch.equal(
        run(x.transpose(1, 2).contiguous().transpose(1, 2), 1, 3, odd, [TANH]), run(x, 1, 3, params, [TANH])
    )


def test_errors_say_what_is_wrong() -> None:
    params, x = network([2, 5, 1]), points(9, 2, 1, 1)
    with pytest.raises(ShapeError, match="weight 0"):
        run(x[..., :1], 1, 3, params, [TANH])
    with pytest.raises(ShapeError, match="rows"):
        run(points(9, 2, 1, 5), 1, 3, params, [TANH])
    with pytest.raises(DtypeError, match="float32"):
        run(x.float(), 1, 3, params, [TANH])
    with pytest.raises(BackendError, match="order"):
        run(x, 1, 100, params, [TANH])
    stranger = Activation("tanh", TANH.initial, TANH.flow, 2 * TANH.output)
    with pytest.raises(BackendError, match="activation"):
        run(x, 1, 3, params, [stranger])


def test_generated_source_is_current() -> None:
    script = ROOT / "native" / "generate.py"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, str(script), "--check"], env=environment, check=False)
    assert done.returncode == 0, "run python native/generate.py"
