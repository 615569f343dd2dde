"""Signal-to-noise ratios: planted signal and noise, invariances, batch gradients against autograd."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import ntangent as nt
from ntangent import diagnose
from ntangent._base.errors import ArgumentError, NonFiniteError, ShapeError
from ntangent.diagnose import Block, Layer


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def random(*size, seed=0):
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# --- the ratio -------------------------------------------------------------------------------------


def test_ratio_by_hand():
    # Mean (3, 0), deviations (±1, ±2): standard deviations 1 and 2.
    found = diagnose.gradient_snr(f64([[4.0, 2.0], [2.0, -2.0]]))
    assert (found.mean, found.noise, found.batches) == (3.0, pytest.approx(math.sqrt(5)), 2)
    assert found.snr == pytest.approx(3 / math.sqrt(5))
    # rms: √10 and 2.
    assert found.order == pytest.approx(3 / math.sqrt(14))
    assert diagnose.gradient_order_parameter(f64([[4.0, 2.0], [2.0, -2.0]])) == found.order


def test_planted_signal_and_noise():
    # B batches of m + noise of size s: ‖m‖² + s² P/B over s² P, for a signal of size ‖m‖.
    batches, parameters, s = 100, 20_000, 0.5
    m = random(parameters, seed=1)
    m = 40 * m / m.norm()
    found = diagnose.gradient_snr(m + s * random(batches, parameters, seed=2))
    expected = math.sqrt((1600 + s**2 * parameters / batches) / (s**2 * parameters * (1 - 1 / batches)))
    assert found.snr == pytest.approx(expected, rel=0.01)
    # Without signal the ratio is not 0: batches that share nothing still have a mean.
    assert diagnose.gradient_snr(random(batches, parameters)).snr == pytest.approx(
        1 / math.sqrt(99), rel=0.02
    )


def test_extremes():
    same = random(1, 5).expand(4, 5)
    assert diagnose.gradient_snr(same).snr == math.inf and diagnose.gradient_snr(same).order == 1
    opposed = torch.cat([random(1, 5), -random(1, 5)])
    assert diagnose.gradient_snr(opposed).snr == 0
    assert math.isnan(diagnose.gradient_snr(torch.zeros(3, 2)).snr)
    # Squares of these numbers are zero in float32.
    tiny = 1e-30 * torch.tensor([[4.0, 2.0], [2.0, -2.0]])
    assert diagnose.gradient_snr(tiny).snr == pytest.approx(3 / math.sqrt(5), rel=1e-6)


@given(st.integers(2, 12), st.integers(1, 9), st.integers(0, 1000), st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=40)
def test_laws_of_the_ratio(batches, parameters, seed, scale):
    g = random(batches, parameters, seed=seed) + 0.3
    found = diagnose.gradient_snr(g)
    assert found.order == pytest.approx(found.snr / math.sqrt(1 + found.snr**2), rel=1e-10)
    others = [scale * g, -g, g[torch.randperm(batches)], g[:, torch.randperm(parameters)], torch.cat([g, g])]
    for other in others:
        assert diagnose.gradient_snr(other).snr == pytest.approx(found.snr, rel=1e-9)
    rotation = torch.linalg.qr(random(parameters, parameters, seed=seed + 1))[0]
    assert diagnose.gradient_snr(g @ rotation).snr == pytest.approx(found.snr, rel=1e-9)


def test_layers_and_weights_only():
    layers = [Layer("a.weight", 0, 2), Layer("a.bias", 2, 3, is_weight=False), Layer("b.weight", 3, 5)]
    g = random(6, 5)
    by_layer = diagnose.layer_snr(g, layers)
    assert by_layer["a.weight"] == diagnose.gradient_snr(g[:, :2])
    assert by_layer["b.weight"] == diagnose.gradient_snr(g[:, 3:])
    mask = diagnose.weight_entries(layers, 5)
    assert mask.tolist() == [True, True, False, True, True]
    assert diagnose.gradient_snr(g, mask) == diagnose.gradient_snr(g[:, [0, 1, 3, 4]])
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    found = diagnose.layers_of(net)
    assert [layer.is_weight for layer in found] == [True, False, True, False]
    assert found[-1].stop == sum(p.numel() for p in net.parameters())


# --- gradients of batches --------------------------------------------------------------------------


def toy():
    net = nt.MLP(1, 1, width=5, depth=2, dtype=torch.float64, generator=0)
    x = torch.linspace(-1, 1, 23, dtype=torch.float64)[:, None]
    return net, x, torch.tensor([[-1.0], [1.0]], dtype=torch.float64)


def test_batch_gradients_are_those_of_backward_passes():
    net, x, ends = toy()
    interior = lambda p: torch.cat([nt.laplacian(net, p), net(p)], 1).T  # noqa: E731  two components
    residual = lambda: {  # noqa: E731
        "equation": interior(x) / math.sqrt(len(x)),
        "ends": 3.0 * net(ends).T,
    }
    objective = diagnose.ModuleObjective(net, residual)
    theta, blocks = objective.theta(), objective.blocks({"equation": x}, shared=["ends"])
    r, j = objective.residuals_and_jacobian(theta)
    parts = torch.arange(len(x)).tensor_split(4)

    def loss(k):
        return interior(x[parts[k]]).square().sum() / len(parts[k])

    expected = diagnose.gradients_of_batches(
        loss, list(net.parameters()), 4, shared=lambda: 9 * net(ends).square().sum()
    )
    for batches in (4, parts):
        found = diagnose.batch_gradients(r, j, batches, blocks)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    # Batches of equal size: their mean is the full gradient.
    _, full = objective.value_and_gradient(theta)
    torch.testing.assert_close(
        diagnose.batch_gradients(r, j, 23, blocks).mean(0), full, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_one_backward_pass_serves_all_batches(backend):
    net, x, ends = toy()
    residual = lambda: {  # noqa: E731
        "equation": torch.cat(
            [nt.laplacian(net, x, backend=backend), nt.gradient(net, x, backend=backend)], 1
        ).T,
        "mixed": (nt.laplacian(net, x, backend=backend) + net(x) ** 3).T,
        "ends": net(ends).T,
    }
    objective = diagnose.IndependentPoints(net, residual)
    blocks = objective.blocks({"equation": x}, shared=["ends"])
    found = objective.batch_gradients(4, blocks)
    assert found is not None
    expected = diagnose.batch_gradients(*objective.residuals_and_jacobian(objective.theta()), 4, blocks)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_independent_points_have_the_same_jacobian_in_fewer_passes():
    net, x, ends = toy()
    residual = lambda: {"equation": nt.laplacian(net, x).T, "ends": net(ends).T}  # noqa: E731
    slow, fast = diagnose.ModuleObjective(net, residual), diagnose.IndependentPoints(net, residual)
    theta = slow.theta()
    moved = theta + 0.1
    for at in (theta, moved):
        assert fast.residuals_and_jacobian(at) is not None and fast._holds
        for a, b in zip(slow.residuals_and_jacobian(at), fast.residuals_and_jacobian(at), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert torch.equal(slow.theta(), theta)
    torch.testing.assert_close(slow.residuals(theta), slow.residuals_and_jacobian(theta)[0])


def test_a_broken_promise_of_independence_is_found_out():
    net, x, _ = toy()
    residual = lambda: (net(x) - net(x).mean()).T  # noqa: E731
    slow, fast = diagnose.ModuleObjective(net, residual), diagnose.IndependentPoints(net, residual)
    theta = slow.theta()
    torch.testing.assert_close(fast.residuals_and_jacobian(theta), slow.residuals_and_jacobian(theta))
    assert fast.batch_gradients(4, fast.blocks()) is None


# --- Adam ----------------------------------------------------------------------------------------------


def test_adam_moments_against_the_definition():
    net, x, _ = toy()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.8, 0.9))
    with pytest.raises(ArgumentError, match="no moments"):
        diagnose.adam_moments(optimizer)
    history = []
    for _ in range(5):
        optimizer.zero_grad()
        (net(x) - 1).square().mean().backward()
        history.append(torch.cat([p.grad.reshape(-1).clone() for p in net.parameters()]))
        optimizer.step()
    g = torch.stack(history)
    age = torch.arange(4, -1, -1, dtype=torch.float64)[:, None]
    # Bias-corrected moments are weighted means of the gradients and of their squares.
    m = (g * 0.8**age).sum(0) / (0.8**age).sum()
    v = (g**2 * 0.9**age).sum(0) / (0.9**age).sum()
    memory = diagnose.adam_moments(optimizer)
    found = diagnose.adam_snr(memory["first"], memory["second"], memory["iteration"], memory["betas"])
    root = v.sqrt() + 1e-8
    assert found.snr == pytest.approx(float(m.norm() / root.norm()), rel=1e-9)
    assert found.effective_step == pytest.approx(float((m.abs() / root).mean()), rel=1e-9)


def test_steady_gradients_give_adam_full_steps():
    # A gradient that never changes: m̂ = g, √v̂ = |g|.
    g = random(7)
    found = diagnose.adam_snr(g * (1 - 0.9**3), g**2 * (1 - 0.999**3), 3)
    assert found.snr == pytest.approx(1, rel=1e-6) and found.effective_step == pytest.approx(1, rel=1e-6)


# --- residuals over the domain ---------------------------------------------------------------------


def test_residual_order_by_hand():
    points = f64([[0.1, 0.1], [0.2, 0.2], [0.9, 0.9], [0.6, 0.1]])
    weights = f64([1.0, 3.0, 4.0, 0.0])
    # Four quarters of the unit square, three of them occupied: means 2, 4, 0.
    found = diagnose.residual_order(weights, points, [(0, 1), (0, 1)], bins=2)
    assert found == pytest.approx(2 / math.sqrt(20 / 3))
    assert diagnose.residual_homogeneity(-weights, points, [(0, 1), (0, 1)], 2) == pytest.approx(found)
    assert diagnose.residual_homogeneity(weights) == pytest.approx(2 / math.sqrt(26 / 4))
    assert diagnose.residual_homogeneity(torch.stack([weights * 0.6, weights * 0.8])) == pytest.approx(
        2 / math.sqrt(26 / 4)
    )
    assert math.isnan(diagnose.residual_order(weights * 0, points))


@given(st.integers(0, 100), st.floats(0.1, 50), st.floats(-9, 9))
@settings(deadline=None, max_examples=25)
def test_laws_of_the_residual_order(seed, scale, shift):
    g = torch.Generator().manual_seed(seed)
    points = torch.rand(60, 2, dtype=torch.float64, generator=g)
    weights = torch.rand(60, dtype=torch.float64, generator=g)
    box = [(0.0, 1.0), (0.0, 1.0)]
    found = diagnose.residual_order(weights, points, box)
    assert 0 < found <= 1
    assert diagnose.residual_order(scale * weights, points, box) == pytest.approx(found)
    # Bins follow the domain: stretching and moving both changes nothing.
    moved = [(shift, scale + shift), (0.0, 1.0)]
    factors, offset = f64([scale, 1.0]), f64([shift, 0.0])
    # Points within rounding of a bin's edge may change sides.
    near = (points * 10 - (points * 10).round()).abs().min()
    if near > 1e-9:
        assert diagnose.residual_order(weights, points * factors + offset, moved) == pytest.approx(found)
    assert diagnose.residual_order(torch.ones(60).double(), points, box) == pytest.approx(1)
    turned = points.flip(1)
    assert diagnose.residual_order(weights, turned, box) == pytest.approx(found)


def test_many_dimensions_do_not_overflow():
    points = torch.rand(50, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = torch.arange(1.0, 51.0)
    # 10^30 bins for 50 points: each has one of its own.
    expected = float(weights.mean() / weights.square().mean().sqrt())
    assert diagnose.residual_order(weights, points) == pytest.approx(expected)


def test_wrong_arguments_are_refused():
    g = random(4, 3)
    with pytest.raises(ShapeError):
        diagnose.gradient_snr(g[:1])
    with pytest.raises(NonFiniteError):
        diagnose.gradient_snr(g * math.nan)
    with pytest.raises(ShapeError):
        diagnose.layer_snr(g, [Layer("a", 0, 9)])
    with pytest.raises(ArgumentError, match="at least one"):
        diagnose.batch_gradients(g[:, 0], g, 5)
    with pytest.raises(ArgumentError, match="no block is batched"):
        diagnose.batch_gradients(g[:, 0], g, 2, [Block("a", 0, 4, batched=False)])
    with pytest.raises(ArgumentError, match="negative"):
        diagnose.residual_order(f64([-1.0]), f64([[0.0]]))
    with pytest.raises(ArgumentError, match="outside"):
        diagnose.residual_order(f64([1.0]), f64([[2.0]]), [(0, 1)])
    with pytest.raises(ShapeError):
        diagnose.residual_order(f64([1.0, 2.0]), f64([[2.0]]))
