"""Dense networks as one torch operation: values, gradients, Jacobians, and what is refused."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import ntangent as nt
from ntangent._base.errors import NotRepeatable
from ntangent.jet.activations import ACTIVATIONS, IDENTITY
from ntangent.jet.algebra import Algebra
from ntangent.jet.api import variable
from ntangent.jet.arithmetic import product_entries, row_count
from ntangent.jet.backends import differentiable, stacked
from ntangent.jet.execute import stacked_pass

# u, u_x, u_y, u_xx, u_xy: a set that is not that of series along lines.
MIXED = Algebra(
    (0, 1, 1, 2, 2),
    (
        (0, 0, 0, 1.0),
        *[entry for b in range(1, 5) for entry in ((0, b, b, 1.0), (b, 0, b, 1.0))],
        (1, 1, 3, 1.0),
        (1, 2, 4, 1.0),
        (2, 1, 4, 1.0),
    ),
)
STRUCTURES = {"line": 1, "lines": 3, "mixed": MIXED}


def close(a, b, dtype=torch.float64, growth=400.0):
    scale = max(1.0, float(b.detach().abs().max())) if b.numel() else 1.0
    return float((a - b).detach().abs().max()) <= growth * torch.finfo(dtype).eps * scale


def network(row, structure, order, degree=1, dtype=torch.float64, points=7):
    """Return layout, argument and parameters; the hidden arguments stay inside the row's domain."""
    generator = torch.Generator().manual_seed(4)
    rand = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64) - 0.5  # noqa: E731
    low, high = row.sample
    middle, half = (low + high) / 2, (high - low) / 2
    params = [
        rand(4, 2) * half, middle + 0.2 * half * rand(4),
        rand(3, 4), None,
        rand(2, 3), rand(2),
    ]  # fmt: skip
    x = rand(row_count(structure, degree), points, 2)
    layout = stacked.layout_of((row, IDENTITY, ACTIVATIONS["tanh"]), order, structure)
    return layout, x.to(dtype), [None if p is None else p.to(dtype) for p in params]


def by_rules(layout, x, params):
    """The differentiable rules, and automatic differentiation of them."""
    leaves = [t.clone().requires_grad_() for t in (x, *params) if t is not None]
    rest = iter(leaves)
    full = [next(rest) if t is not None else None for t in (x, *params)]
    return differentiable.dense(layout, *full), leaves


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_same_as_the_rules_for_every_row_of_the_table(name, structure):
    layout, x, params = network(ACTIVATIONS[name], STRUCTURES[structure], 2)
    expected, leaves = by_rules(layout, x, params)
    own = [t.clone().requires_grad_() for t in leaves]
    rest = iter(own)
    found = stacked.network(layout, *[next(rest)], [next(rest) if p is not None else None for p in params])
    assert close(found, expected)
    g = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view(expected.shape)
    for a, b in zip(
        torch.autograd.grad(found, own, g), torch.autograd.grad(expected, leaves, g), strict=True
    ):
        assert close(a, b)


@pytest.mark.parametrize("order", range(7))
@pytest.mark.parametrize("activation", ["tanh", "silu", "gelu", "sin"])
@pytest.mark.parametrize("directions", [None, 2])
def test_derivatives_are_those_of_nested_differentiation(order, activation, directions):
    net = nt.MLP(2, 2, width=6, depth=2, activation=activation, dtype=torch.float64, generator=1)
    x = torch.rand(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    v = torch.tensor([[1.0, 0.3], [-0.2, 0.7]], dtype=torch.float64)
    v = v[0] if directions is None else v
    rows = stacked_pass(net, variable(x, order, v))
    expected = nt.jet(net, x, order, v, backend="autograd").data
    assert close(rows, expected, growth=100.0 * 4**order)


@pytest.mark.parametrize("degree", [1, 3])
def test_float32_and_arguments_of_any_degree(degree):
    layout, x, params = network(ACTIVATIONS["tanh"], 2, 3, degree, torch.float32)
    exact = network(ACTIVATIONS["tanh"], 2, 3, degree)
    assert close(stacked.network(layout, x, params).double(), by_rules(*exact)[0], torch.float32)


def test_saturated_slopes_keep_their_digits():
    for name, exact in {
        "tanh": lambda z: 1 / math.cosh(z) ** 2,
        "sigmoid": lambda z: 1 / (2 * math.cosh(z / 2)) ** 2,
    }.items():
        for value in (-30.0, -9.0, 0.0, 9.0, 30.0, 300.0):
            x = torch.tensor([[value]], dtype=torch.float64)
            slope = nt.jet(lambda z, name=name: getattr(torch, name)(z), x, 1, backend="eager").derivative(1)
            assert float(slope) == pytest.approx(exact(value), rel=1e-14)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_jacobian_of_every_point(structure):
    layout, x, params = network(ACTIVATIONS["silu"], STRUCTURES[structure], 2)
    given = [p for p in params if p is not None]
    out, kept = stacked.forward(layout, x, params)
    g = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
    found = stacked.jacobian(layout, kept, params, g)
    for i in range(x.shape[1]):
        expected, leaves = by_rules(layout, x[:, i : i + 1], params)
        grads = torch.autograd.grad(expected, leaves[1:], g[:, i : i + 1])
        assert close(found[i], torch.cat([t.reshape(-1) for t in grads]))
    assert found.shape == (x.shape[1], sum(p.numel() for p in given))


def test_derivatives_of_derivatives_and_transforms():
    layout, x, params = network(ACTIVATIONS["tanh"], 1, 2)
    params[3] = torch.zeros(3, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (x, *params)]
    assert torch.autograd.gradgradcheck(lambda x, *p: stacked.network(layout, x, p), leaves)
    y = stacked.network(layout, x, params)
    seeds = torch.eye(y.numel(), dtype=torch.float64).view(-1, *y.shape)[:4]
    pulled = torch.func.vmap(lambda g: torch.autograd.grad(y, leaves, g, retain_graph=True))(seeds)
    for i, seed in enumerate(seeds):
        for many, one in zip(pulled, torch.autograd.grad(y, leaves, seed, retain_graph=True), strict=True):
            assert close(many[i], one)


def test_what_looks_into_single_operations_is_left_to_the_rules():
    net = nt.MLP(1, 1, width=4, dtype=torch.float64, generator=0)
    series = variable(torch.rand(3, 1, dtype=torch.float64), 2)
    assert stacked_pass(net, series) is not None
    assert stacked_pass(nn.Sequential(net, nn.LayerNorm(1)), series) is None
    assert stacked_pass(nt.MLP(1, 1, dtype=torch.float32), series) is None
    refused = []
    torch.func.vmap(lambda _: refused.append(stacked_pass(net, series)) or _)(torch.zeros(2))
    with torch.autocast("cpu"):
        refused.append(stacked_pass(net, series))
    assert refused == [None, None]


def test_nothing_is_read_from_the_device():
    # On the device "meta" there are no numbers: reading one, or mixing devices, raises.
    layout, x, params = network(ACTIVATIONS["gelu"], 2, 3)
    x, params = x.to("meta"), [None if p is None else p.to("meta") for p in params]
    out, kept = stacked.forward(layout, x, params)
    assert out.is_meta
    assert stacked.jacobian(layout, kept, params, torch.empty_like(out)).is_meta
    grads = [None if p is None else torch.empty_like(p) for p in params]
    assert stacked.backward(layout, kept, params, torch.empty_like(out), grads, True).is_meta


class _Count(TorchDispatchMode):
    made, views = (
        0,
        (
            "view",
            "select",
            "slice",
            "t",
            "detach",
            "permute",
            "alias",
            "_unsafe_view",
            "new_empty",
            "empty_like",
            "expand",
        ),
    )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.made += func._overloadpacket.__name__ not in self.views
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("order", "limit"), [(2, 72), (4, 128)])
def test_a_training_pass_takes_few_operations(order, limit):
    # On a GPU each of them is a launch. Three hidden layers: five products of matrices or sums for each
    # affine map, the rest is shared by three activations and their adjoints.
    net = nt.MLP(1, 1, width=8, depth=3, dtype=torch.float64)
    series = variable(torch.rand(6, 1, dtype=torch.float64), order)
    with _Count() as count:
        stacked_pass(net, series).sum().backward()
    assert count.made <= limit


def bound(params, layout, x, trained):
    places, start = {}, 3
    for p in trained:
        places[id(p)] = start
        start += p.numel()
    return stacked.BoundLayout(layout, x, params, places, start + 2), places


def test_bound_passes_have_the_same_bits_and_follow_the_parameters():
    layout, x, params = network(ACTIVATIONS["sigmoid"], 2, 3)
    params = [None if p is None else nn.Parameter(p) for p in params]
    trained = [params[4], params[0], params[1]]
    one, places = bound(params, layout, x, trained)
    g = torch.linspace(-1, 1, 7 * x.shape[1] * 2, dtype=torch.float64).view(7, x.shape[1], 2)
    for step in range(3):
        with torch.no_grad():
            for p in trained:
                p.mul_(1.1)
            if step == 2:  # other memory
                params[0].data = params[0].data.clone() + 0.1
        expected = stacked.network(layout, x, params)
        grads = torch.autograd.grad(expected, trained, g)
        assert torch.equal(one.forward(), expected)
        flat = one.backward(g)
        for p, grad in zip(trained, grads, strict=True):
            assert torch.equal(flat[places[id(p)] :][: p.numel()], grad.reshape(-1))
        assert torch.equal(flat[[0, 1, 2, -2, -1]], torch.zeros(5, dtype=torch.float64))


def test_a_parameter_of_two_layers_is_not_bound():
    square = torch.eye(2, dtype=torch.float64)
    layout = stacked.layout_of((ACTIVATIONS["sin"], ACTIVATIONS["sin"]), 2, 1)
    with pytest.raises(NotRepeatable, match="several layers"):
        bound([square, None, square, None], layout, square[None], [])


def test_lines_and_their_table_are_one_algebra():
    layout, x, params = network(ACTIVATIONS["mish"], 2, 4)
    grades = (0, *[k for k in range(1, 5) for _ in range(2)])
    algebra = Algebra(grades, tuple(product_entries(2, 4)))
    table = stacked.layout_of((ACTIVATIONS["mish"], IDENTITY, ACTIVATIONS["tanh"]), 4, algebra)
    assert torch.equal(stacked.network(layout, x, params), stacked.network(table, x, params))
