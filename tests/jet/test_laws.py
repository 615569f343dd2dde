"""Algebraic laws of truncated series, as properties."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import ntangent as nt
from ntangent._base.precision import tolerance
from ntangent.jet import Jet, compose
from ntangent.testing import check_close, check_series, strategies

# Under pytest the annotations are checked at runtime, and that check samples the items of containers.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the .random. module")
F64 = torch.float64
laws = settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
X = torch.tensor([[-0.75], [0.25], [1.0]], dtype=F64)


def rows(series: Jet) -> torch.Tensor:
    return torch.stack([series.coefficient(k) for k in range(series.order + 1)])


def same(a: Jet, b: Jet, label: str, terms: int = 8) -> None:
    assert (a.order, a.directions) == (b.order, b.directions)
    check_series(rows(a), rows(b), label, terms)


def exactly(a: Jet, b: Jet) -> None:
    assert torch.equal(rows(a), rows(b))


@laws
@given(st.data(), strategies.orders(), st.sampled_from([None, 1, 3]))
def test_ring_axioms_hold_exactly(data: st.DataObject, order: int, width: int | None) -> None:
    a, b, c = (data.draw(strategies.series(order, (2, 1), width)) for _ in range(3))
    exactly(a + b, b + a)
    exactly(a * b, b * a)
    exactly(a * (b + c), a * b + a * c)
    exactly((a * b) * c, a * (b * c))
    exactly(a - a, 0 * a)
    exactly(a * 1, a)


@laws
@given(st.data(), strategies.orders())
def test_product_is_the_cauchy_sum(data: st.DataObject, order: int) -> None:
    a, b = (data.draw(strategies.series(order, (2,))) for _ in range(2))
    for k in range(order + 1):
        total = sum(a.coefficient(j) * b.coefficient(k - j) for j in range(k + 1))
        assert torch.equal((a * b).coefficient(k), total)


@laws
@given(st.data(), st.integers(1, 6))
def test_leibniz_rule(data: st.DataObject, order: int) -> None:
    f, g = (data.draw(strategies.networks()) for _ in range(2))
    u, v = nt.jet(f, X, order), nt.jet(g, X, order)
    whole = nt.jet(lambda x: f(x) * g(x), X, order).derivative(order)
    terms = torch.stack(
        [math.comb(order, j) * u.derivative(j) * v.derivative(order - j) for j in range(order + 1)]
    ).detach()
    check_close(whole, terms.sum(0), tolerance(F64, order) * terms.abs().sum(0), "Leibniz")


@laws
@given(st.data(), strategies.orders(), strategies.numbers(), strategies.numbers())
def test_linearity(data: st.DataObject, order: int, alpha: float, beta: float) -> None:
    f, g = (data.draw(strategies.networks()) for _ in range(2))
    whole = nt.jet(lambda x: alpha * f(x) + beta * g(x), X, order)
    same(whole, alpha * nt.jet(f, X, order) + beta * nt.jet(g, X, order), "linearity")


@laws
@given(st.data(), strategies.orders())
def test_chain_rule(data: st.DataObject, order: int) -> None:
    f, g = (data.draw(strategies.networks()) for _ in range(2))
    inner = nt.jet(g, X, order)
    outer = nt.jet(f, inner.value.detach(), order)
    composed, whole = compose(outer, inner), nt.jet(lambda x: f(g(x)), X, order)
    sizes = compose(Jet(outer.data.abs(), order), Jet(inner.data.abs(), order))
    for k in range(order + 1):
        allowed = tolerance(F64, k, 8) * sizes.coefficient(k)
        assert bool(((composed.coefficient(k) - whole.coefficient(k)).abs() <= allowed).all()), k


@laws
@given(st.data(), strategies.orders(), strategies.orders())
def test_truncation(data: st.DataObject, low: int, more: int) -> None:
    net = data.draw(strategies.networks(inputs=2))
    x, v = data.draw(strategies.tensors((3, 2))), data.draw(strategies.tensors((2, 2)))
    same(nt.jet(net, x, low + more, v).truncate(low), nt.jet(net, x, low, v), "truncation")


@laws
@given(st.data(), strategies.orders(), st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]))
def test_direction_scaling(data: st.DataObject, order: int, scale: float) -> None:
    net = data.draw(strategies.networks(inputs=2))
    x, v = data.draw(strategies.tensors((3, 2))), data.draw(strategies.tensors((2,)))
    base, scaled = nt.jet(net, x, order, v), nt.jet(net, x, order, scale * v)
    powers = torch.tensor([scale**k for k in range(order + 1)], dtype=F64).view(-1, 1, 1)
    check_series(rows(scaled), rows(base) * powers, "scaling", 8)


@laws
@given(strategies.polynomials(), strategies.orders(7), strategies.numbers(2, 4))
def test_integer_polynomials_are_exact(
    polynomial: tuple[list[int], object], order: int, point: float
) -> None:
    """Every operation is on small fractions, so not one rounding is allowed."""
    coefficients, f = polynomial
    series = nt.jet(f, torch.tensor([[point]], dtype=F64), order)
    for k in range(order + 1):
        terms = [(n, c) for n, c in enumerate(coefficients) if n >= k]
        exact = sum(math.comb(n, k) * c * Fraction(point) ** (n - k) for n, c in terms)
        assert Fraction(series.coefficient(k).item()) == exact


@laws
@given(strategies.polynomials(), st.integers(0, 4), strategies.orders(5))
def test_differentiate_is_the_series_of_the_derivative(
    polynomial: tuple[list[int], object], times: int, order: int
) -> None:
    coefficients, f = polynomial
    taken = coefficients
    for _ in range(times):
        taken = [k * c for k, c in enumerate(taken)][1:]

    def derivative(x: torch.Tensor) -> torch.Tensor:
        return sum((c * x**k for k, c in enumerate(taken)), 0 * x)

    exactly(nt.jet(f, X, order + times).differentiate(times), nt.jet(derivative, X, order))


@laws
@given(st.data(), strategies.orders())
def test_quotient_inverts_the_product(data: st.DataObject, order: int) -> None:
    a, b = (data.draw(strategies.series(order, (2,))) for _ in range(2))
    assume(bool((b.value.abs() >= 0.5).all()))
    quotient = a / b
    sizes = Jet(quotient.data.abs(), order) * Jet((1 / b).data.abs(), order) * Jet(b.data.abs(), order)
    sizes = sizes * Jet(b.data.abs(), order)
    back = quotient * b
    for k in range(order + 1):
        allowed = tolerance(F64, k) * sizes.coefficient(k) + 0.0
        assert bool(((back.coefficient(k) - a.coefficient(k)).abs() <= allowed).all())


@laws
@given(st.data(), strategies.orders(5), st.integers(0, 6))
def test_whole_powers_are_repeated_products(data: st.DataObject, order: int, exponent: int) -> None:
    a = data.draw(strategies.series(order, (2,)))
    product = Jet(torch.ones(1, 2, dtype=F64), order)
    for _ in range(exponent):
        product = product * a
    exactly(a**exponent, product)


@laws
@given(st.data(), strategies.orders(5), st.sampled_from([-3, -1, -0.5, 0.5, 1.5, 2.5]))
def test_power_rule(data: st.DataObject, order: int, exponent: float) -> None:
    """a·(a^p)' = p·a^p·a', the differential equation of a power."""
    a = data.draw(strategies.series(order + 1, (2,)))
    a = Jet(torch.cat([1.0 + a.data[:1].abs(), a.data[1:]]), order + 1)
    y = a**exponent
    left, right = a * y.differentiate(), exponent * (y * a.differentiate())
    sizes = Jet(a.data.abs(), order + 1) * Jet(y.data.abs(), order + 1).differentiate() + abs(exponent) * (
        Jet(y.data.abs(), order + 1) * Jet(a.data.abs(), order + 1).differentiate()
    )
    sizes = sizes * Jet((1 / a).data.abs(), order + 1) * Jet(a.data.abs(), order + 1)
    for k in range(order + 1):
        allowed = tolerance(F64, k) * sizes.coefficient(k)
        assert bool(((left.coefficient(k) - right.coefficient(k)).abs() <= allowed).all())


@pytest.mark.parametrize("order", [3, 8])
def test_functional_identities(order: int) -> None:
    x = nt.jet(lambda x: torch.exp(x) + x**2, X, order)
    s, c = torch.sin(x), torch.cos(x)
    same(s * s, 1 - c * c, "sin² + cos²", 64 * order**4)
    same(torch.sqrt(x) ** 2, x, "sqrt²", 64 * order**4)
    same(torch.tanh(x), 2 * torch.sigmoid(2 * x) - 1, "tanh and sigmoid", 64 * order**4)
