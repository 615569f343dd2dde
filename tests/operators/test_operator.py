"""Operators as data: the algebra, its laws, and what is refused."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntangent._base.errors import ArgumentError, DtypeError, ShapeError
from ntangent.operators import Operator, apply, evaluate

numbers = st.fractions(-5, 5, max_denominator=7)
indices = st.tuples(st.integers(0, 3), st.integers(0, 3))
operators = st.dictionaries(indices, numbers, max_size=4).map(lambda terms: Operator(terms, dimension=2))
LAWS = settings(max_examples=40, deadline=None)


def points(n=4, d=2):
    return torch.rand(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) + 0.25


def wave(x):
    return torch.sin(x[:, :1] * 1.5 + x[:, 1:2] ** 2)


@LAWS
@given(operators, operators, operators, numbers)
def test_operators_form_a_commutative_algebra(a, b, c, number):
    zero, one = Operator({}, dimension=2), Operator({(0, 0): 1})
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + zero == a
    assert a - a == zero
    assert -a == a * -1
    assert a @ b == b @ a
    assert (a @ b) @ c == a @ (b @ c)
    assert a @ (b + c) == a @ b + a @ c
    assert a @ one == a
    assert number * a == a * number
    assert (a * number) @ b == (a @ b) * number
    assert a**3 == a @ a @ a


@LAWS
@given(operators, operators)
def test_equal_operators_have_equal_hashes(a, b):
    assert hash(a + b) == hash(b + a)
    assert len({a + b, b + a}) == 1


def test_equality_is_by_content():
    def weight(x):
        return x[:, 0]

    assert Operator.laplacian(2) == Operator({(0, 2): 1, (2, 0): Fraction(1)})
    assert Operator.laplacian(2) != Operator.laplacian(3)
    assert Operator.laplacian(2) != "laplacian"
    assert Operator({(2, 0): weight}) == Operator.partial(2, 0) * weight
    assert Operator({(2, 0): weight}) != Operator.partial(2, 0)
    assert Operator({(1, 0): 0, (0, 1): 2}) == Operator({(0, 1): 2})


def test_coefficients_stay_exact():
    third = Operator({(1, 0): Fraction(1, 3)})
    assert third + third + third == Operator.partial(1, 0)
    assert Operator({(1, 0): 0.1}) == Operator({(1, 0): Fraction(0.1)})


def test_named_operators():
    assert Operator.biharmonic(2) == Operator({(4, 0): 1, (2, 2): 2, (0, 4): 1})
    assert Operator.polyharmonic(3, 3) == Operator.laplacian(3) ** 3
    assert Operator.laplacian(2, [2, Fraction(1, 2)]) == Operator({(2, 0): 2, (0, 2): Fraction(1, 2)})
    assert [Operator({}, dimension=1).order, Operator.partial(2, 1).order] == [0, 3]
    assert Operator.biharmonic(5).order == 4


def test_repr_reads_as_a_formula():
    assert repr(Operator({(2, 1): Fraction(1, 3)})) == "Operator(1/3·∂(2, 1))"
    assert repr(Operator({}, dimension=2)) == "Operator(0)"

    def speed(x):
        return x[:, 0]

    assert "speed(x)·" in repr(Operator({(1, 0): speed}))
    assert "..." in repr(Operator.laplacian(9))
    assert "_0^2" in repr(Operator.laplacian(9))


def test_composition_applies_one_after_the_other():
    x = points()
    a, b = Operator({(1, 0): 2, (0, 2): -1}), Operator({(1, 1): 1, (0, 0): Fraction(1, 2)})
    inner = lambda y: apply(b, wave, y)  # noqa: E731
    gradients = torch.func.vmap(torch.func.jacrev(lambda y: inner(y[None])[0, 0]))(x)
    hessians = torch.func.vmap(torch.func.hessian(lambda y: inner(y[None])[0, 0]))(x)
    expected = 2 * gradients[:, 0] - hessians[:, 1, 1]
    torch.testing.assert_close(apply(a @ b, wave, x)[:, 0], expected)


def test_variable_coefficients():
    x = points()
    rotation = Operator({(0, 1): lambda x: x[:, 0], (1, 0): lambda x: -x[:, 1:2]})
    radius = lambda x: (x**2).sum(1, keepdim=True) ** 2  # noqa: E731
    torch.testing.assert_close(apply(rotation, radius, x), torch.zeros(4, 1).double(), atol=1e-14, rtol=0)
    scaled = Operator.partial(1, 0) * (lambda x: x[:, 0]) * (lambda x: x[:, 1]) * 3
    expected = 3 * x[:, :1] * x[:, 1:] * apply(Operator.partial(1, 0), wave, x)
    torch.testing.assert_close(apply(scaled, wave, x), expected)
    outer = (Operator.partial(0, 1) * (lambda x: x[:, 0])) @ Operator.laplacian(2)
    expected = x[:, :1] * apply(Operator.partial(0, 1) @ Operator.laplacian(2), wave, x)
    torch.testing.assert_close(apply(outer, wave, x), expected)


def test_coefficient_functions_can_have_gradients():
    x = points()
    k = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    value = apply(Operator({(2, 0): lambda x: k * x[:, 0]}), wave, x).sum()
    (gradient,) = torch.autograd.grad(value, k)
    torch.testing.assert_close(gradient * k, value)


def test_the_zero_operator_gives_zeros_of_the_functions_shape():
    two = lambda x: torch.cat([wave(x), wave(x)], 1)  # noqa: E731
    zero, value = evaluate(two, points(), [Operator({}, dimension=2), Operator({(0, 0): 1})])
    assert zero.shape == value.shape == (4, 2)
    assert not zero.any()


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda: Operator(), ArgumentError, "needs its dimension"),
        (lambda: Operator({(1, 0): 1, (1,): 1}), ShapeError, "has 1 entries in 2 dimensions"),
        (lambda: Operator({(-1, 0): 1}), ArgumentError, "non-negative"),
        (lambda: Operator({(0.5, 0): 1}), DtypeError, "non-negative integer"),
        (lambda: Operator({(1, 0): "2"}), DtypeError, "number or a function"),
        (lambda: Operator({(1, 0): True}), DtypeError, "number or a function"),
        (lambda: Operator({(1, 0): float("nan")}), ArgumentError, "must be finite"),
        (lambda: Operator({}, dimension=0), ArgumentError, "dimension must be at least 1"),
        (lambda: Operator.laplacian(2, [1]), ShapeError, "1 weights in 2 dimensions"),
        (lambda: Operator.laplacian(2) + Operator.laplacian(3), ShapeError, "are added"),
        (lambda: Operator.laplacian(2) @ Operator.laplacian(3), ShapeError, "are composed"),
        (lambda: Operator.laplacian(2) * Operator.laplacian(2), DtypeError, "composition is written with @"),
        (lambda: Operator.laplacian(2) + 1, DtypeError, "multiple of the identity"),
        (lambda: Operator.laplacian(2) @ 2, DtypeError, "composed with 2"),
        (lambda: Operator.laplacian(2) ** 0, ArgumentError, "power must be at least 1"),
        (lambda: Operator.laplacian(2) @ Operator({(1, 0): torch.sin}), ArgumentError, "product rule"),
        (lambda: Operator.polyharmonic(2, 0), ArgumentError, "power must be at least 1"),
    ],
)
def test_refusals(build, error, text):
    with pytest.raises(error, match=text):
        build()
