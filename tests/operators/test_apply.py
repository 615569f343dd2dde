"""Application: named operators, shapes, gradients, sharing, parts, refusals."""

import pytest
import torch

import ntangent as nt
import ntangent.operators as ops
from ntangent._base.errors import (
    ArgumentError,
    DtypeError,
    MissingRule,
    NonFiniteError,
    ShapeError,
    UnknownNameError,
)
from ntangent.jet import MLP
from ntangent.jet.jacobian import batched_jacobian, grouped_gradients, per_point_jacobian
from ntangent.operators import Operator, apply


def points(n=5, d=3, dtype=torch.float64):
    return torch.rand(n, d, dtype=dtype, generator=torch.Generator().manual_seed(0)) + 0.25


def net(d=3, out=1, dtype=torch.float64, width=8):
    return MLP(d, out, width=width, depth=2, dtype=dtype, generator=0)


def quadratic(x):
    """x² y + 3 y z, whose derivatives are known by heart."""
    return x[:, :1] ** 2 * x[:, 1:2] + 3 * x[:, 1:2] * x[:, 2:]


def field(x):
    return torch.cat([x[:, 1:2] * x[:, 2:], x[:, :1] ** 2, x[:, :1] * x[:, 1:2] ** 2], 1)


def test_named_operators_on_known_functions():
    p = points()
    x, y, z = p.unbind(1)
    torch.testing.assert_close(ops.gradient(quadratic, p), torch.stack([2 * x * y, x**2 + 3 * z, 3 * y], 1))
    torch.testing.assert_close(ops.laplacian(quadratic, p), 2 * y[:, None])
    torch.testing.assert_close(ops.laplacian(quadratic, p, weights=[0.5, 7, 1]), y[:, None])
    zero = torch.zeros_like(x)
    hessian = torch.stack([2 * y, 2 * x, zero, 2 * x, zero, zero + 3, zero, zero + 3, zero], 1)
    torch.testing.assert_close(ops.hessian(quadratic, p), hessian.reshape(-1, 3, 3))
    torch.testing.assert_close(ops.partial(quadratic, p, (2, 1, 0)), torch.full((5, 1), 2.0).double())
    torch.testing.assert_close(ops.divergence(field, p), torch.zeros(5, 1).double())
    curl = torch.stack([2 * x * y, y - y**2, 2 * x - z], 1)
    torch.testing.assert_close(ops.curl(field, p), curl)
    jacobian = ops.jacobian(field, p)
    torch.testing.assert_close(jacobian, torch.func.vmap(torch.func.jacrev(lambda q: field(q[None])[0]))(p))
    torch.testing.assert_close(ops.divergence(lambda q: q**2, p), 2 * p.sum(1, keepdim=True))


def test_curl_in_two_dimensions():
    p = points(d=2)
    turn = lambda q: torch.cat([-(q[:, 1:] ** 2), q[:, :1] ** 2], 1)  # noqa: E731
    torch.testing.assert_close(ops.curl(turn, p), 2 * p.sum(1, keepdim=True))


@pytest.mark.parametrize("time", [-1, 0, 1])
def test_material_derivative(time):
    p = points()
    v = torch.rand(5, 2, dtype=torch.float64)
    gradient = ops.gradient(quadratic, p)
    t = time % 3
    space = [i for i in range(3) if i != t]
    expected = gradient[:, t] + (gradient[:, space] * v).sum(1)
    for velocity in (v, lambda _: v):
        got = ops.material_derivative(quadratic, p, velocity, time=time)
        torch.testing.assert_close(got[:, 0], expected)


def test_harmonic_and_polyharmonic_functions():
    p = points(d=2)
    harmonic = lambda q: torch.exp(q[:, :1]) * torch.sin(q[:, 1:])  # noqa: E731
    assert ops.laplacian(harmonic, p).abs().max() < 1e-14
    radial = lambda q: (q[:, :1] ** 2 + q[:, 1:] ** 2) ** 3  # noqa: E731
    torch.testing.assert_close(ops.polyharmonic(radial, p, 3), torch.full((5, 1), 2304.0).double())
    torch.testing.assert_close(ops.biharmonic(radial, p), 36 * 16 * (p**2).sum(1, keepdim=True))


@pytest.mark.parametrize("method", ["algebra", "directions"])
@pytest.mark.parametrize("n", [0, 1])
def test_empty_and_single_batches(n, method):
    p, f = points(n), net(out=2)
    for operator in (Operator.biharmonic(3), Operator.partial(0, 0, 0), Operator({}, dimension=3)):
        assert ops.apply(operator, f, p, method=method).shape == (n, 2)
    assert ops.laplacian(f, p, chunk=1).shape == (n, 2)
    assert ops.hessian(net(), p).shape == (n, 3, 3)
    assert ops.laplacian(f, p, memory=10**6).shape == (n, 2)


def test_float32():
    p, f = points().float(), net().float()
    exact = ops.biharmonic(net(), p.double())
    got = ops.biharmonic(f, p)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["algebra", "directions"])
def test_gradients_in_points_and_parameters(method):
    p, f = points(2, d=2).requires_grad_(), net(d=2, width=4)
    names = list(dict(f.named_parameters()))
    operator = Operator.biharmonic(2) + Operator.partial(1, 2)

    def value(p, *parameters):
        call = lambda q: torch.func.functional_call(f, dict(zip(names, parameters, strict=True)), q)  # noqa: E731
        return ops.apply(operator, call, p, method=method)

    inputs = (p, *(q.detach().requires_grad_() for q in f.parameters()))
    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs)


@pytest.mark.parametrize("activation", ["silu", "gelu", "softplus", "exp"])
def test_gradients_of_other_activations(activation):
    f = MLP(2, 1, width=4, depth=2, activation=activation, dtype=torch.float64, generator=0)
    p = points(2, d=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: ops.biharmonic(f, q), (p,))


def test_several_operators_in_one_pass():
    p, f = points(), net(out=2)
    operators = [
        Operator.laplacian(3),
        Operator.partial(2, 1, 0),
        Operator({(0, 0, 0): 1}),
        Operator.partial(1, 0, 0) * (lambda x: x[:, 1]),
        Operator({}, dimension=3),
    ]
    for operator, together in zip(operators, ops.evaluate(f, p, operators), strict=True):
        torch.testing.assert_close(together, ops.apply(operator, f, p), rtol=1e-12, atol=1e-12)
    assert ops.evaluate(f, p, []) == []
    calls = []

    def counted(x):
        calls.append(1)
        return f(x)

    ops.evaluate(counted, p, operators, backend="eager")
    assert len(calls) == 1


def test_results_may_be_changed_in_place():
    p, f = points(), net()
    u, lap = ops.evaluate(f, p, [Operator({(0, 0, 0): 1}), Operator.laplacian(3)])
    expected = 2 * u.detach() + lap.detach()
    u *= 2
    u += lap
    torch.testing.assert_close(u.detach(), expected)
    u.sum().backward()


@pytest.mark.parametrize("size", [1, 2, 5, 99])
def test_parts_give_the_same(size):
    p, f = points(), net(out=2)
    operators = [Operator.biharmonic(3), Operator.partial(1, 0, 0)]
    whole = ops.evaluate(f, p, operators)
    for a, b in zip(ops.evaluate(f, p, operators, chunk=size), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_memory_budget():
    p, f = points(64), net(width=32)
    plan = ops.make_plan(Operator.laplacian(3).symbols, 3)
    per_point = 4 * plan.rows * 32 * 8
    assert ops.points_per_chunk(f, p, plan.rows, 10 * per_point + 1) == 10
    seen = []

    def watched(x):
        seen.append(len(x))
        return f(x)

    got = ops.laplacian(watched, p, memory=10 * per_point)
    torch.testing.assert_close(got, ops.laplacian(f, p), rtol=1e-12, atol=1e-12)
    assert max(seen) == 10
    with pytest.raises(ArgumentError, match="less than the"):
        ops.laplacian(f, p, memory=per_point - 1)


def test_constant_functions():
    p = points()
    assert not ops.laplacian(lambda x: torch.ones(len(x), 1).double(), p).any()
    assert not ops.laplacian(lambda x: x[:, :1] * 3 + 1, p).any()


def test_a_large_dimension_is_one_plan():
    p = points(2, d=300)
    torch.testing.assert_close(
        ops.laplacian(lambda x: (x**2).sum(1, keepdim=True), p), torch.full((2, 1), 600.0).double()
    )


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: ops.laplacian(net(), [[0.0] * 3]), DtypeError, "must be a torch.Tensor"),
        (lambda: ops.laplacian(net(), points().long()), DtypeError, "float32 or float64"),
        (lambda: ops.laplacian(net(), points()[0]), ShapeError, "points, dimension"),
        (lambda: ops.laplacian(net(), points() * float("nan")), NonFiniteError, "non-finite"),
        (lambda: ops.laplacian(net(), points(dtype=torch.float32)), DtypeError, "parameters are"),
        (lambda: ops.laplacian(3, points()), DtypeError, "not a function or module"),
        (lambda: ops.apply(Operator.laplacian(2), net(), points()), ShapeError, "in 2 dimensions"),
        (lambda: ops.laplacian(net(), points(), method="lines"), UnknownNameError, "unknown method"),
        (lambda: ops.laplacian(net(), points(), backend="gpu"), UnknownNameError, "unknown backend"),
        (lambda: ops.laplacian(net(), points(), chunk=0), ArgumentError, "chunk must be at least 1"),
        (lambda: ops.laplacian(net(), points(), chunk=1.5), DtypeError, "chunk must be"),
        (lambda: ops.laplacian(net(), points(), memory=0), ArgumentError, "memory must be at least 1"),
        (
            lambda: ops.laplacian(net(), points(), memory=9**9, chunk=2),
            ArgumentError,
            "both chunk and memory",
        ),
        (lambda: ops.laplacian(net(), points(), [1, 2]), ShapeError, "2 weights in 3 dimensions"),
        (lambda: ops.partial(net(), points(), (1, 0)), ShapeError, "in 2 dimensions"),
        (lambda: ops.gradient(net(out=2), points()), ShapeError, "gradient of a field with 2 outputs"),
        (lambda: ops.hessian(net(out=2), points()), ShapeError, "hessian of a field with 2 outputs"),
        (lambda: ops.divergence(net(out=2), points()), ShapeError, "has no divergence"),
        (lambda: ops.curl(net(out=2), points()), ShapeError, "has no curl"),
        (lambda: ops.curl(net(d=1), points(d=1)), ShapeError, "has no curl"),
        (lambda: ops.material_derivative(net(), points(), points()), ShapeError, "velocity must have shape"),
        (lambda: ops.laplacian(lambda x: x.sum(1), points()), ShapeError, "it must map points"),
        (lambda: ops.laplacian(lambda x: torch.digamma(x), points()), MissingRule, "digamma"),
        (lambda: ops.laplacian(lambda x: (x, x), points()), DtypeError, "returned tuple"),
        (
            lambda: ops.apply(Operator({(1, 0, 0): lambda x: x}), net(), points()),
            ShapeError,
            "one number per point",
        ),
    ],
)
def test_refusals(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("operator", [Operator.laplacian(2), Operator.biharmonic(2), Operator.partial(2, 1)])
def test_per_point_jacobians_of_operators(operator):
    net = MLP(2, 1, width=6, depth=2, dtype=torch.float64, generator=0)
    x = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parameters = list(net.parameters())
    found = per_point_jacobian(lambda: apply(operator, net, x).mT, parameters)
    assert found is not None  # nothing but linear layers: no need of a general method
    expected = batched_jacobian(apply(operator, net, x, backend="eager").flatten(), parameters)
    torch.testing.assert_close(found[1][0], expected)
    groups = [torch.tensor([0, 3]), torch.tensor([1, 2, 8])]
    sums = grouped_gradients(lambda: apply(operator, net, x).mT, parameters, groups)
    rows = [2 * found[0][0, group] @ expected[group] for group in groups]
    torch.testing.assert_close(sums, torch.stack(rows))


def test_weights_may_be_a_tensor_and_an_index_is_a_sequence():
    net = nt.MLP(2, 1, dtype=torch.float64)
    x = torch.rand(3, 2, dtype=torch.float64)
    found = nt.laplacian(net, x, weights=torch.tensor([1.0, 0.5]))
    assert torch.equal(found, nt.laplacian(net, x, weights=[1.0, 0.5]))
    with pytest.raises(DtypeError, match="multi-index is 2") as caught:
        nt.partial(net, x, 2)
    assert caught.value.fix == "partial(f, x, (1, 1))"
