import math

import mpmath
import pytest
import torch
from mpmath import mp, mpf

import ntangent as nt
from ntangent._base.precision import tolerance
from ntangent.jet import Jet
from ntangent.jet.activations import Activation, evaluate
from ntangent.jet.backends import native
from ntangent.jet.dense import as_dense
from ntangent.jet.mlp import FUNCTIONS, MODULES
from ntangent.jet.polynomial import Polynomial
from ntangent.testing import check_backend, check_series
from ntangent.testing.oracles import polygon

F64 = torch.float64
NAMES = [*MODULES, *FUNCTIONS]


def coefficients(series: Jet) -> torch.Tensor:
    return torch.stack([series.coefficient(k) for k in range(series.order + 1)])


@pytest.mark.parametrize("backend", ["eager", "faa-di-bruno", "native"])
@pytest.mark.parametrize("name", NAMES)
def test_backend_conformance(backend: str, name: str) -> None:
    if backend == "native" and not native.available():
        pytest.skip("the kernels were not built")
    check_backend(backend, order=3, activations=[name])


@pytest.mark.parametrize("name", ["tanh", "elu"])
def test_the_chosen_backend_conforms(name: str) -> None:
    check_backend("auto", order=4, activations=[name])


@pytest.mark.parametrize("name", NAMES)
def test_order_six_against_nested_autograd(name: str) -> None:
    net = nt.MLP(1, 2, width=6, depth=2, activation=name, dtype=F64, generator=1)
    x = torch.linspace(-2, 2, 5, dtype=F64)[:, None]
    got, expected = (nt.jet(net, x, 6, backend=b) for b in ("eager", "autograd"))
    check_series(coefficients(got), coefficients(expected), name, terms=6)


def cancellation(row: Activation, order: int) -> float:
    """Return how many times larger the terms of a raw derivative polynomial are than its value.

    Faà di Bruno's formula is fed with these derivatives, so it loses that factor in accuracy.
    """
    x = torch.linspace(-3, 3, 25, dtype=F64)
    states, polynomial, worst = (x, *row.initial(x)), row.output, 1.0
    for _ in range(order + 1):
        value = float(evaluate(polynomial, states).abs().max())
        terms = Polynomial(tuple((e, abs(c)) for e, c in polynomial.terms), polynomial.arity)
        size = float(evaluate(terms, tuple(s.abs() for s in states)).max())
        worst = max(worst, size / value) if value else worst
        polynomial = polynomial.along(row.flow)
    return worst


@pytest.mark.parametrize("name", NAMES)
def test_order_twelve_against_faa_di_bruno(name: str) -> None:
    net = nt.MLP(2, 1, width=6, depth=2, activation=name, dtype=F64, generator=2)
    x = torch.linspace(-2, 2, 8, dtype=F64).reshape(4, 2)
    directions = torch.tensor([[1.0, 0.5], [-0.25, 1.0]], dtype=F64)
    got, expected = (nt.jet(net, x, 12, directions, b) for b in ("eager", "faa-di-bruno"))
    dense = as_dense(net)
    assert dense is not None
    terms = int(6 * cancellation(dense.activations[0], 12) ** 2)
    assert tolerance(F64, 12, terms) < 1e-3  # or the comparison would say little
    check_series(coefficients(got), coefficients(expected), name, terms)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_whole_network_at_fifty_digits(dtype: torch.dtype) -> None:
    """The network as a formula, typed in mpmath; order 12."""
    net = nt.MLP(1, 1, width=5, depth=3, dtype=torch.float32, generator=3).to(dtype)
    layers = [m for m in net if isinstance(m, torch.nn.Linear)]
    x = torch.tensor([[-0.75], [0.3125], [1.5]], dtype=dtype)
    with mp.workdps(50):
        weights = [[[mpf(w) for w in row] for row in m.weight.tolist()] for m in layers]
        biases = [[mpf(b) for b in m.bias.tolist()] for m in layers]

        def u(t: object) -> object:
            values = [t]
            for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
                values = [mp.fdot(row, values) + c for row, c in zip(w, b, strict=True)]
                values = [mp.tanh(v) for v in values] if i < len(weights) - 1 else values
            return values[0]

        exact = [mpmath.taylor(u, mpf(point), 12) for point in x[:, 0].tolist()]
    got = nt.jet(net, x, 12)
    scale = polygon([max(abs(row[k]) for row in exact) for k in range(13)])
    for k in range(13):
        for value, row in zip(got.coefficient(k)[:, 0].tolist(), exact, strict=True):
            assert abs(mpf(value) - row[k]) <= tolerance(dtype, k, terms=5) * scale[k], (k, value, row[k])


def test_order_zero_is_the_network_itself() -> None:
    net = nt.MLP(3, 2, width=7, depth=3, dtype=F64, generator=0)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    for order in (0, 3):
        torch.testing.assert_close(nt.jet(net, x, order, 1).value, net(x), rtol=1e-15, atol=1e-15)


def test_value_is_shared_by_all_directions() -> None:
    net = nt.MLP(3, 2, width=7, depth=2, dtype=F64, generator=0)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    series = nt.jet(net, x, 4, torch.eye(3, dtype=F64))
    assert series.data.shape == (1 + 4 * 3, 5, 2)
    for d in range(3):
        torch.testing.assert_close(series.coefficient(4)[d], nt.jet(net, x, 4, d).coefficient(4))


def test_points_do_not_influence_each_other() -> None:
    net = nt.MLP(1, 1, width=7, depth=2, dtype=F64, generator=0)
    x = torch.linspace(-1, 1, 6, dtype=F64)[:, None]
    whole = coefficients(nt.jet(net, x, 4))
    parts = torch.cat([coefficients(nt.jet(net, p[None], 4)) for p in x], 1)
    torch.testing.assert_close(whole, parts, rtol=1e-13, atol=1e-13)


def test_strided_points_and_transposed_weights() -> None:
    net = nt.MLP(2, 2, width=4, depth=2, dtype=F64, generator=0)
    x = torch.randn(2, 5, dtype=F64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(nt.jet(net, x.t(), 3, 0).data, nt.jet(net, x.t().contiguous(), 3, 0).data)

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ net[0].weight.t()).t().cumsum(0).t()

    a, b = (nt.jet(f, x.t(), 3, 0, backend=b) for b in ("eager", "autograd"))
    check_series(coefficients(a), coefficients(b), "transposed", terms=4)


def test_second_gradient_in_the_parameters() -> None:
    """A Hessian-vector product through the jet: what Newton and gradient penalties need."""
    x = torch.linspace(-1, 1, 4, dtype=F64)[:, None]
    products = {}
    for backend in ("eager", "faa-di-bruno", "autograd"):
        net = nt.MLP(1, 1, width=4, depth=2, dtype=F64, generator=5)
        loss = nt.jet(net, x, 3, backend=backend).derivative(3).square().mean()
        first = torch.autograd.grad(loss, list(net.parameters()), create_graph=True, allow_unused=True)
        total = sum(g.square().sum() for g in first if g is not None)
        second = torch.autograd.grad(total, [*net.parameters()][:-1])
        products[backend] = torch.cat([g.flatten() for g in second])
    for backend in ("eager", "faa-di-bruno"):
        check_series(products[backend][None], products["autograd"][None], backend, terms=16)


def test_one_network_used_twice_and_products_of_networks() -> None:
    net = nt.MLP(1, 1, width=4, depth=1, dtype=F64, generator=5)

    def f(x: torch.Tensor) -> torch.Tensor:
        u = net(x)
        return u * net(2 * x) / (1 + u**2) - torch.exp(-(x**2)) * u

    x = torch.linspace(-1, 1, 4, dtype=F64)[:, None]
    for order in range(6):
        got, expected = (nt.jet(f, x, order, backend=b) for b in ("eager", "autograd"))
        check_series(coefficients(got), coefficients(expected), f"order {order}", terms=4)


@pytest.mark.parametrize("order", [3, 5])
def test_nested_autograd_through_normalisation_is_right_where_torch_alone_is_not(order):
    # The fused layer_norm and instance_norm of torch 2.13 have wrong third derivatives.
    torch.manual_seed(3)
    lift = torch.nn.Linear(1, 6, dtype=torch.float64)
    nets = [
        torch.nn.Sequential(lift, torch.nn.Tanh(), torch.nn.LayerNorm(6, dtype=torch.float64)),
        torch.nn.Sequential(
            lift, torch.nn.Tanh(), torch.nn.Unflatten(1, (2, 3)),
            torch.nn.InstanceNorm1d(2, affine=True, dtype=torch.float64), torch.nn.Flatten(),
        ),
    ]  # fmt: skip
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    for net in nets:
        series, nested = (nt.jet(net, x, order, backend=b).coefficient(order) for b in ("eager", "autograd"))
        size = float(series.detach().abs().max())
        torch.testing.assert_close(nested, series, rtol=1e-9, atol=1e-9 * size)


def test_orders_beyond_the_kernels_are_served_by_the_rules():
    """sin(a x + b) as a network: its derivatives are known."""
    net = nt.MLP(1, 1, width=1, depth=1, activation="sin", dtype=torch.float64)
    with torch.no_grad():
        for p, value in zip(net.parameters(), (1.5, 0.25, 1.0, 0.0), strict=True):
            p.fill_(value)
    x = torch.tensor([[0.3]], dtype=torch.float64)
    exact = 1.5**80 * math.sin(1.5 * 0.3 + 0.25 + 80 * math.pi / 2)
    for found in (nt.jet(net, x, 80).derivative(80), nt.partial(net, x, (80,))):
        assert abs(found.item() / exact - 1) < 1e-12
