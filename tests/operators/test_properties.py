"""Laws of differentiation, exactness on polynomials, agreement of all methods with nested autograd."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntangent._base.precision import tolerance
from ntangent.jet import MLP
from ntangent.operators import Operator, apply, biharmonic, evaluate, laplacian, partial, taylor_polynomial
from ntangent.testing.operators import (
    check_operator,
    check_polynomial,
    multi_indices,
    nested_partial,
    polynomial_function,
    random_polynomial,
)

seeds = st.integers(0, 2**16)
FEW = settings(max_examples=8, deadline=None)


def points(seed=0, n=4, d=2):
    return torch.rand(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def net(seed=0, d=2, out=1, activation="tanh"):
    return MLP(d, out, width=8, depth=2, activation=activation, dtype=torch.float64, generator=seed)


def close(a, b, order=0, scale=1.0):
    size = max(float(b.detach().abs().max()) if b.numel() else 0.0, 1.0) * scale
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance(torch.float64, order, 8) * 2.0**order * size)


@FEW
@given(seeds, st.integers(-3, 3))
def test_linear_in_the_function(seed, c):
    f, g, x = net(seed), net(seed + 1, activation="sin"), points(seed)
    operator = Operator({(2, 1): 1, (0, 2): -2, (0, 0): 3})
    close(
        apply(operator, lambda y: f(y) * c + g(y), x), c * apply(operator, f, x) + apply(operator, g, x), 3, 8
    )


@FEW
@given(seeds, st.fractions(-3, 3, max_denominator=5))
def test_linear_in_the_operator(seed, c):
    f, x = net(seed), points(seed)
    a, b = Operator.laplacian(2), Operator({(1, 2): 1, (1, 0): 2})
    close(apply(a + c * b, f, x), apply(a, f, x) + float(c) * apply(b, f, x), 3, 8)


@FEW
@given(seeds)
def test_leibniz(seed):
    f, g, x = net(seed), net(seed + 1), points(seed)
    parts = [Operator.partial(0, 0), Operator.partial(1, 0), Operator.partial(0, 1), Operator.laplacian(2)]
    (u, ux, uy, lu), (v, vx, vy, lv) = evaluate(f, x, parts), evaluate(g, x, parts)
    close(laplacian(lambda y: f(y) * g(y), x), lu * v + 2 * (ux * vx + uy * vy) + u * lv, 2, 8)


@FEW
@given(seeds)
def test_chain_rule(seed):
    """Δ sin(u) = cos(u) Δu - sin(u) |∇u|²."""
    f, x = net(seed), points(seed)
    u, ux, uy, lap = evaluate(
        f, x, [Operator({(0, 0): 1}), Operator.partial(1, 0), Operator.partial(0, 1), Operator.laplacian(2)]
    )
    close(laplacian(lambda y: torch.sin(f(y)), x), torch.cos(u) * lap - torch.sin(u) * (ux**2 + uy**2), 2, 8)


@FEW
@given(seeds, st.permutations([0, 0, 1, 2]))
def test_mixed_partials_are_symmetric(seed, order):
    """Differentiating one coordinate after the other gives the same in every order."""
    f, x = net(seed, d=3), points(seed, d=3)
    operator = Operator({(0, 0, 0): 1})
    for i in order:
        operator = Operator.partial(*[int(i == j) for j in range(3)]) @ operator
    assert operator == Operator.partial(2, 1, 1)
    current = f(y := x.clone().requires_grad_())
    for i in order:
        current = torch.autograd.grad(current.sum(), y, create_graph=True)[0][:, i : i + 1]
    close(apply(operator, f, x), current, 4)


@FEW
@given(seeds, st.sampled_from([(2, 0), (1, 1), (3, 1)]), st.sampled_from([0.5, -2.0, 3.0]))
def test_scaling_of_the_argument(seed, index, s):
    f, x = net(seed), points(seed)
    close(partial(lambda y: f(y * s), x, index), s ** sum(index) * partial(f, x * s, index), sum(index))


@FEW
@given(seeds, st.integers(2, 4))
def test_rotation_invariance(seed, d):
    f, x = net(seed, d=d), points(seed, d=d)
    source = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=source))[0]
    turned = lambda y: f(torch.nn.functional.linear(y, rotation))  # noqa: E731
    close(laplacian(turned, x), laplacian(f, x @ rotation.T), 2, 8)
    close(biharmonic(turned, x), biharmonic(f, x @ rotation.T), 4, 8)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 4), st.integers(0, 8), st.data())
def test_exact_on_polynomials(seed, d, order, data):
    index = data.draw(st.sampled_from(multi_indices(d, order)))
    check_polynomial(Operator.partial(*index), random_polynomial(d, 8, seed, terms=5), seed)


@pytest.mark.parametrize("seed", range(3))
def test_sums_of_partials_are_exact_on_polynomials(seed):
    operator = Operator.polyharmonic(3, 3) + Operator({(1, 1, 1): Fraction(2, 3), (0, 0, 0): -1})
    check_polynomial(operator, random_polynomial(3, 8, seed), seed)


def test_derivatives_past_the_degree_vanish():
    f = polynomial_function(random_polynomial(2, 3, 0))
    for method in ("algebra", "directions"):
        assert not apply(Operator.partial(2, 2), f, points(), method=method).abs().max() > 1e-12


@pytest.mark.parametrize("activation", ["tanh", "gelu", "sin", "silu", "softplus"])
def test_all_partials_to_order_six(activation):
    f, x = net(1, activation=activation), points(1)
    table = taylor_polynomial(f, x, 6)
    assert len(table) == 28
    for index, value in table.items():
        close(value, nested_partial(f, x, index), sum(index))


@pytest.mark.parametrize(
    "operator",
    [
        Operator.laplacian(1),
        Operator.laplacian(3, [1, Fraction(1, 2), -3]),
        Operator.biharmonic(2),
        Operator.biharmonic(3),
        Operator.polyharmonic(2, 3),
        Operator.partial(3, 1),
        Operator.partial(0, 0),
        Operator.partial(2, 1, 2),
        Operator({(1, 0): 1, (0, 1): 1}) ** 5,
        Operator({(0, 1): 1, (2, 0): Fraction(-1, 3), (3, 0): 2}),
        Operator({(1, 0): lambda x: x[:, 1], (0, 2): lambda x: x[:, :1] ** 2, (0, 0): 2}),
    ],
    ids=str,
)
def test_conformance(operator):
    check_operator(operator)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "silu", "sin", "relu", "elu"])
def test_algebra_and_directions_agree(activation):
    f, x = net(2, d=3, out=2, activation=activation), points(2, d=3)
    operators = [Operator.biharmonic(3), Operator.partial(1, 1, 1), Operator.partial(0, 2, 0)]
    algebra, directions = (evaluate(f, x, operators, method=m) for m in ("algebra", "directions"))
    for operator, a, b in zip(operators, algebra, directions, strict=True):
        close(a, b, operator.order, 8)


def test_check_operator_finds_a_wrong_operator(monkeypatch):
    from ntangent.testing import operators as suite

    monkeypatch.setattr(suite, "apply", lambda operator, f, x, **_: apply(2 * operator, f, x))
    with pytest.raises(AssertionError, match="by algebra"):
        check_operator(Operator.laplacian(2))
