"""The call of JAX's jet: signature, scaling, several arguments, containers."""

import math

import pytest
import torch

from ntangent._base.errors import ArgumentError, DtypeError, MissingRule, NonFiniteError, ShapeError
from ntangent.jet import jax_jet


def value(x):
    return torch.tensor(x, dtype=torch.float64)


def nested(g, order):
    """Derivatives of t -> g(t) at 0 by nested reverse mode."""
    t = value(0.0).requires_grad_()
    y, terms = g(t), []
    for _ in range(order):
        (y,) = torch.autograd.grad(y, t, create_graph=True)
        terms.append(y.detach())
    return terms


def test_the_example_of_its_documentation():
    h0, h1, h2 = 0.5**3, 3 * 0.5**2, 6 * 0.5
    f0, (f1, f2) = jax_jet(torch.sin, (value(h0),), ((h1, h2),))
    assert f0.item() == pytest.approx(math.sin(h0), abs=1e-15)
    assert f1.item() == pytest.approx(math.cos(h0) * h1, abs=1e-15)
    assert f2.item() == pytest.approx(-math.sin(h0) * h1**2 + math.cos(h0) * h2, abs=1e-15)


@pytest.mark.parametrize("order", [0, 1, 2, 5])
def test_several_arguments_against_nested_autograd(order):
    source = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, order + 1, dtype=torch.float64, generator=source)
    f = lambda a, b: torch.exp(a * b) / (1 + a**2) + torch.tanh(b)  # noqa: E731

    def curve(terms):
        return lambda t: sum(c * t**k / math.factorial(k) for k, c in enumerate(terms))

    out, series = jax_jet(f, (x[0], y[0]), (list(x[1:]), list(y[1:])))
    torch.testing.assert_close(out, f(x[0], y[0]))
    expected = nested(lambda t: f(curve(x)(t), curve(y)(t)), order)
    assert len(series) == order
    for got, wanted in zip(series, expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_unscaled_terms_are_taylor_coefficients():
    _, scaled = jax_jet(torch.exp, (value([0.0, 1.0]),), ([value([1.0, 2.0]), *[value([0.0, 0.0])] * 4],))
    _, plain = jax_jet(
        torch.exp,
        (value([0.0, 1.0]),),
        ([value([1.0, 2.0]), *[value([0.0, 0.0])] * 4],),
        factorial_scaled=False,
    )
    for k, (a, b) in enumerate(zip(scaled, plain, strict=True), 1):
        torch.testing.assert_close(a, b * math.factorial(k))
        torch.testing.assert_close(a, value([1.0, math.e * 2**k]))


def test_shapes_and_containers():
    x, v = torch.rand(2, 3, 4, dtype=torch.float64)
    zeros = torch.zeros_like(x)

    def f(a, b):
        return {"product": (a * b, a @ b.transpose(0, 1)), "list": [a + 1], "constant": torch.ones(2)}

    out, series = jax_jet(f, (x, v), ((v, zeros), (zeros, zeros)))
    assert out["product"][1].shape == (3, 3)
    torch.testing.assert_close(series["product"][0][0], v * v)
    torch.testing.assert_close(series["list"][0], [v, zeros])
    assert isinstance(out["product"], tuple)
    assert isinstance(out["list"], list)
    assert [term.tolist() for term in series["constant"]] == [[0, 0], [0, 0]]


def test_gradients_pass_through():
    x = value([0.3, 0.4]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: jax_jet(torch.tanh, (x,), ((x * 2, x),))[1][1], (x,))


X = value([1.0, 2.0])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: jax_jet(torch.sin, (X,), ()), ArgumentError, "1 primals and 0 series"),
        (lambda: jax_jet(torch.sin, (), ()), ArgumentError, "0 primals"),
        (lambda: jax_jet(torch.mul, (X, X), ((X,), (X, X))), ArgumentError, "expanded to one order"),
        (lambda: jax_jet(torch.sin, (X,), ((X[:1],),)), ShapeError, "term 1 of argument 0 has shape"),
        (lambda: jax_jet(torch.sin, (X,), ((X.float(),),)), DtypeError, "has dtype torch.float32"),
        (lambda: jax_jet(torch.sin, (X.long(),), ((X,),)), DtypeError, "floating"),
        (lambda: jax_jet(torch.sin, (X / 0,), ((X,),)), NonFiniteError, "term 0"),
        (lambda: jax_jet(3, (X,), ((X,),)), DtypeError, "not a function"),
        (lambda: jax_jet(lambda x: "x", (X,), ((X,),)), DtypeError, "returned str"),
        (lambda: jax_jet(torch.digamma, (X,), ((X,),)), MissingRule, "digamma"),
    ],
)
def test_refusals(call, error, text):
    with pytest.raises(error, match=text):
        call()
