"""Estimates: unbiased, with honest standard errors, reproducible. All seeds are fixed."""

import pytest
import torch

from ntangent._base.errors import ArgumentError, DtypeError, ShapeError, UnknownNameError
from ntangent.jet import MLP
from ntangent.operators import (
    Operator,
    apply,
    biharmonic,
    biharmonic_estimate,
    estimate,
    laplacian,
    laplacian_estimate,
)

LAWS = ("rademacher", "gaussian", "sphere", "coordinate")
WEIGHTS = (1.0, 2.0, 0.5, 0.0, 3.0, 1.0)


def net(d=6, out=2, width=8):
    return MLP(d, out, width=width, depth=2, dtype=torch.float64, generator=0)


def points(n=3, d=6):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def check(estimated, exact):
    """|z| < 4 everywhere, and the sizes make sense."""
    assert estimated.value.shape == estimated.standard_error.shape == exact.shape
    assert (estimated.standard_error > 0).all()
    z = (estimated.value - exact) / estimated.standard_error
    assert z.abs().max() < 4


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_laplacian_estimates_are_unbiased(law, weights):
    got = laplacian_estimate(net(), points(), 4000, law, weights, generator=0)
    assert got.samples == 4000
    check(got, laplacian(net(), points(), weights))


@pytest.mark.parametrize("law", ["gaussian", "sphere"])
def test_biharmonic_estimates_are_unbiased(law):
    check(biharmonic_estimate(net(), points(), 4000, law, generator=0), biharmonic(net(), points()))


@pytest.mark.parametrize(
    "operator",
    [
        Operator.biharmonic(6),
        Operator.laplacian(6, [1, -2, 3, 0.5, 1, 1]),
        Operator.partial(1, 1, 0, 0, 0, 0) - 3 * Operator.partial(0, 0, 2, 0, 0, 1) + Operator.laplacian(6),
    ],
    ids=["biharmonic", "signed", "mixed"],
)
def test_sampled_terms_are_unbiased(operator):
    check(estimate(operator, net(), points(), 4000, generator=0), apply(operator, net(), points()))


def quadratic_form(d):
    source = torch.Generator().manual_seed(2)
    a = torch.randn(d, d, dtype=torch.float64, generator=source)
    a = a + a.T
    f = lambda x: (torch.nn.functional.linear(x, a) * x).sum(1, keepdim=True) * 0.5  # noqa: E731
    return a, f


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("replaced", [True, False])
def test_variances_are_those_of_the_docstring(law, replaced):
    d, samples = 6, 3
    a, f = quadratic_form(d)
    total, square, diagonal = a.trace(), (a**2).sum(), (a.diagonal() ** 2).sum()
    one = {
        "rademacher": 2 * (square - diagonal),
        "gaussian": 2 * square,
        "sphere": (2 * d * square - 2 * total**2) / (d + 2),
        "coordinate": d * diagonal - total**2,
    }[law]
    if not replaced:
        source = torch.Generator().manual_seed(3)
        x = torch.zeros(1, d, dtype=torch.float64)
        draws = [laplacian_estimate(f, x, samples, law, generator=source) for _ in range(800)]
        expected = one / samples * ((d - samples) / (d - 1) if law == "coordinate" else 1)
        values = torch.cat([draw.value for draw in draws])
        stated = torch.cat([draw.standard_error for draw in draws])
        assert abs((stated**2).mean() / expected - 1) < 0.2
    else:
        got = laplacian_estimate(f, torch.zeros(1, d, dtype=torch.float64), 20000, law, generator=3)
        values, expected = got.standard_error * 20000**0.5, one
        assert abs(values.item() ** 2 / expected - 1) < 0.1
        return
    assert abs(values.var() / expected - 1) < 0.2
    assert abs(values.mean() - total) < 4 * (expected / 800) ** 0.5


def test_all_coordinates_are_the_exact_laplacian():
    got = laplacian_estimate(net(), points(), 6, "coordinate", WEIGHTS, generator=0)
    torch.testing.assert_close(got.value, laplacian(net(), points(), WEIGHTS))
    assert not got.standard_error.any()


def test_a_diagonal_hessian_has_no_rademacher_error():
    got = laplacian_estimate(lambda x: torch.sin(x).sum(1, keepdim=True), points(), 2, generator=0)
    assert got.standard_error.max() < 1e-14


def test_a_thousand_dimensions():
    """1000 draws of one estimate: their mean is within 4 stated standard errors of the exact value."""
    d, draws = 1000, 1000
    f, x = net(d, out=1, width=8), points(1, d)
    exact = laplacian(f, x)
    got = laplacian_estimate(f, x, draws, generator=0, chunk=250)
    check(got, exact)
    halves = [laplacian_estimate(f, x, 8, law, generator=5) for law in LAWS]
    for part in halves:
        assert ((part.value - exact) / part.standard_error).abs().max() < 6


def test_the_seed_decides():
    a, b, c = (laplacian_estimate(net(), points(), 4, generator=seed).value for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    source = torch.Generator().manual_seed(1)
    assert torch.equal(laplacian_estimate(net(), points(), 4, generator=source).value, a)
    assert not torch.equal(laplacian_estimate(net(), points(), 4, generator=source).value, a)
    torch.manual_seed(0)
    first = estimate(Operator.laplacian(6), net(), points(), 4).value
    torch.manual_seed(0)
    assert torch.equal(estimate(Operator.laplacian(6), net(), points(), 4).value, first)


def test_parts_give_the_same():
    whole = laplacian_estimate(net(), points(), 10, generator=0)
    parts = laplacian_estimate(net(), points(), 10, generator=0, chunk=3)
    torch.testing.assert_close(whole.value, parts.value)
    torch.testing.assert_close(whole.standard_error, parts.standard_error)
    whole = estimate(Operator.biharmonic(6), net(), points(), 5, generator=0)
    parts = estimate(Operator.biharmonic(6), net(), points(), 5, generator=0, chunk=2)
    torch.testing.assert_close(whole.value, parts.value)


def test_estimates_have_gradients_and_float32():
    f = net()
    got = laplacian_estimate(f, points(), 4, generator=0)
    assert not got.standard_error.requires_grad
    gradients = torch.autograd.grad(got.value.sum(), [*f.parameters()][:2])
    assert all(g.abs().sum() > 0 for g in gradients)
    single = laplacian_estimate(f.float(), points().float(), 4, generator=0).value
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), got.value, rtol=1e-4, atol=1e-4)


def test_an_empty_batch():
    assert laplacian_estimate(net(), points(0), 4).value.shape == (0, 2)
    assert estimate(Operator.laplacian(6), net(), points(0), 4).standard_error.shape == (0, 2)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda f, x: laplacian_estimate(f, x, 1), ArgumentError, "samples is 1"),
        (lambda f, x: laplacian_estimate(f, x, 2.5), DtypeError, "samples must be"),
        (lambda f, x: laplacian_estimate(f, x, 4, "normal"), UnknownNameError, "unknown distribution"),
        (lambda f, x: laplacian_estimate(f, x, 4, weights=[1.0]), ShapeError, "weights of shape"),
        (lambda f, x: laplacian_estimate(f, x, 4, weights=[-1.0] * 6), ArgumentError, "weight is negative"),
        (lambda f, x: laplacian_estimate(f, x, 4, weights=[1e999] * 6), ArgumentError, "not finite"),
        (lambda f, x: laplacian_estimate(f, x, 4, generator="0"), DtypeError, "generator is str"),
        (lambda f, x: laplacian_estimate(f, x, 4, chunk=0), ArgumentError, "chunk must be"),
        (lambda f, x: biharmonic_estimate(f, x, 4, "rademacher"), UnknownNameError, "unknown distribution"),
        (lambda f, x: estimate("laplacian", f, x, 4), DtypeError, "operator is str"),
        (lambda f, x: estimate(Operator({}, 6), f, x, 4), ArgumentError, "no terms"),
        (lambda f, x: estimate(Operator.laplacian(2), f, x, 4), ShapeError, "in 2 dimensions"),
        (
            lambda f, x: estimate(Operator.laplacian(6) * torch.sin, f, x, 4),
            ArgumentError,
            "variable coefficients",
        ),
    ],
)
def test_refusals(call, error, text):
    with pytest.raises(error, match=text):
        call(net(), points())


def test_signed_weights_by_coordinates():
    weights = [1.0, -2.0, 0.0, 3.0, -1.0, 1.0]
    got = laplacian_estimate(net(), points(), 6, "coordinate", weights, generator=0)
    torch.testing.assert_close(got.value, laplacian(net(), points(), weights))
