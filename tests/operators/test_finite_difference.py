"""Finite differences: exact weights, order of accuracy, agreement with the exact operators, training."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ntangent as nt
import ntangent.operators as ops
from ntangent import fd
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError, UnknownNameError
from ntangent._base.stencil import weights
from ntangent.jet import MLP
from ntangent.operators import Operator

SCHEMES = [("central", 2), ("central", 4), ("forward", 1), ("forward", 3), ("backward", 2)]


def points(n=6, d=2):
    return 2 * torch.rand(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 1


def net(d=2, out=1):
    return MLP(d, out, width=7, depth=2, dtype=torch.float64, generator=0)


def test_stencils_of_the_textbook():
    half = Fraction(1, 2)
    assert fd.stencil(1) == {-1: -half, 1: half}
    assert fd.stencil(2) == {-1: 1, 0: -2, 1: 1}
    assert fd.stencil(4) == {-2: 1, -1: -4, 0: 6, 1: -4, 2: 1}
    assert fd.stencil(1, 4) == {
        -2: Fraction(1, 12),
        -1: -2 * Fraction(1, 3),
        1: 2 * Fraction(1, 3),
        2: -Fraction(1, 12),
    }
    assert fd.stencil(1, 2, "forward") == {0: -3 * half, 1: 2, 2: -half}
    assert fd.stencil(1, 1, "backward") == {0: 1, -1: -1}
    assert fd.stencil(0) == {0: 1}


@given(st.sets(st.integers(-9, 9), min_size=1, max_size=8), st.data())
@settings(deadline=None, max_examples=60)
def test_weights_are_exact_on_polynomials(nodes, data):
    nodes = tuple(nodes)
    order = data.draw(st.integers(0, len(nodes) - 1))
    found = weights(nodes, order)
    for power in range(len(nodes)):
        moment = sum(w * Fraction(k) ** power for k, w in zip(nodes, found, strict=True))
        assert moment == (math.factorial(order) if power == order else 0)


@pytest.mark.parametrize(("scheme", "accuracy"), SCHEMES)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_error_has_the_stated_order(scheme, accuracy, order):
    # Halving h divides the error by 2^accuracy; h is far above the step where round-off matters.
    x = torch.tensor([[0.3]], dtype=torch.float64)
    exact = nt.derivatives(torch.exp, x, order)[order]
    errors = [
        (fd.partial(torch.exp, x, (order,), step=h, accuracy=accuracy, scheme=scheme) - exact).abs().item()
        for h in (0.08, 0.04)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(accuracy, abs=0.35)


def test_accuracy_and_order_meet_in_one_dimension_jets():
    x = points(5, 1)
    exact = nt.jet(net(1), x, 4)
    found = fd.jet(net(1), x, 4, step=0.02, accuracy=6)
    assert found.order == 4 and found.directions is None
    torch.testing.assert_close(found.derivatives(), exact.derivatives(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fd.derivatives(net(1), x, 4, step=0.02, accuracy=6), found.derivatives())


def test_jets_along_several_directions_have_the_layout_of_exact_ones():
    x, v = points(), torch.tensor([[1.0, 0.5], [0.0, 1.0], [-1.0, 2.0]], dtype=torch.float64)
    exact, found = nt.jet(net(), x, 2, v), fd.jet(net(), x, 2, v, step=1e-3)
    assert found.data.shape == exact.data.shape and found.directions == 3
    torch.testing.assert_close(found.data, exact.data, rtol=1e-4, atol=1e-4)
    one = fd.jet(net(), x, 2, 1, step=1e-3)
    torch.testing.assert_close(one.coefficient(2), found.coefficient(2)[1])
    torch.testing.assert_close(fd.jet(net(), x, 0, 1).value, net()(x))


@pytest.mark.parametrize(
    ("name", "out", "arguments"),
    [
        ("partial", 1, ((1, 2),)),
        ("laplacian", 2, ()),
        ("biharmonic", 1, ()),
        ("polyharmonic", 1, (2,)),
        ("jacobian", 2, ()),
        ("gradient", 1, ()),
        ("hessian", 1, ()),
        ("divergence", 2, ()),
        ("curl", 2, ()),
        ("material_derivative", 1, (torch.ones(6, 1, dtype=torch.float64),)),
    ],
)
def test_every_operator_has_a_twin(name, out, arguments):
    f, x = net(2, out), points()
    exact = getattr(ops, name)(f, x, *arguments)
    found = getattr(fd, name)(f, x, *arguments, step=0.02, accuracy=6)
    # Truncation 0.02^6 against round-off eps/h^4, both below 1e-8, times derivatives of order 10.
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)
    default = getattr(fd, name)(f, x, *arguments)
    torch.testing.assert_close(default, exact, rtol=1e-2, atol=1e-3)


def test_operators_with_coefficients_and_lower_orders():
    operator = Operator({(2, 0): lambda x: x[:, 1], (0, 1): 3, (0, 0): -2})
    f, x = net(), points()
    torch.testing.assert_close(
        fd.apply(operator, f, x, step=1e-2, accuracy=6), ops.apply(operator, f, x), rtol=1e-7, atol=1e-7
    )
    nothing = fd.evaluate(f, x, [Operator({}, dimension=2), Operator.partial(0, 0)])
    assert not nothing[0].any()
    torch.testing.assert_close(nothing[1], f(x))
    assert fd.evaluate(f, x, []) == []
    parts = fd.laplacian(f, x, step=1e-2, chunk=4)
    torch.testing.assert_close(parts, fd.laplacian(f, x, step=1e-2), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fd.laplacian(f, x, step=1e-2, memory=2**20), parts, rtol=1e-9, atol=1e-9)
    polynomial = fd.taylor_polynomial(f, x, 2)
    torch.testing.assert_close(polynomial[(1, 1)], ops.partial(f, x, (1, 1)), rtol=1e-4, atol=1e-4)


def test_one_step_for_each_coordinate():
    x = points()
    f = lambda p: p[:, :1] ** 3 * p[:, 1:] ** 3  # noqa: E731
    found = fd.partial(f, x, (1, 1), step=(0.1, 0.2))
    # The central difference of x³ is 3x² + h².
    expected = (3 * x[:, :1] ** 2 + 0.01) * (3 * x[:, 1:] ** 2 + 0.04)
    torch.testing.assert_close(found, expected)


def test_differences_train():
    f, x = net(), points()
    parameters = list(f.parameters())
    exact = torch.autograd.grad(ops.laplacian(f, x).square().sum(), parameters, allow_unused=True)
    found = torch.autograd.grad(
        fd.laplacian(f, x, step=2e-2, accuracy=6).square().sum(), parameters, allow_unused=True
    )
    for a, b in zip(exact[:-1], found[:-1], strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)
    empty = points(0)
    assert fd.laplacian(f, empty).shape == (0, 1) and fd.jet(f, empty, 2, 0).derivative(2).shape == (0, 1)
    line = fd.jet(f, x, 2, 0, step=2e-2, accuracy=6)
    (by_jet,) = torch.autograd.grad(line.derivative(2).square().sum(), parameters[0])
    (direct,) = torch.autograd.grad(nt.jet(f, x, 2, 0).derivative(2).square().sum(), parameters[0])
    torch.testing.assert_close(by_jet, direct, rtol=1e-5, atol=1e-5)


def test_functions_without_taylor_rules_are_served():
    x = points(4, 1).abs() + 1
    f = lambda p: torch.special.gammaln(p) + torch.igammac(torch.ones_like(p), p)  # noqa: E731
    expected = torch.special.polygamma(1, x) + torch.exp(-x)
    torch.testing.assert_close(fd.laplacian(f, x, step=1e-2, accuracy=6), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (ArgumentError, {"accuracy": 3}),
        (ArgumentError, {"accuracy": 0}),
        (ArgumentError, {"step": -1.0}),
        (DtypeError, {"step": "small"}),
        (ShapeError, {"step": (0.1, 0.1, 0.1)}),
        (UnknownNameError, {"scheme": "middle"}),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(error, arguments):
    with pytest.raises(error):
        fd.laplacian(net(), points(), **arguments)


def test_wrong_functions_and_lines_are_refused():
    with pytest.raises(ShapeError, match="keeps the point axis"):
        fd.laplacian(lambda x: x.sum(), points())
    with pytest.raises(ArgumentError, match="a line has one parameter"):
        fd.jet(net(), points(), 2, 0, step=(0.1, 0.1))
    with pytest.raises(ArgumentError, match="different nodes"):
        weights((0, 1), 2)
