"""Every network: its series and gradients to order 6, its seed, and what its docstring promises."""

import itertools
import math
from typing import Any

import pytest
import torch
from rulecheck import LAPLACIAN, MIXED, Case, check_structure
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import ntangent as nt

DOUBLE: dict[str, Any] = {"dtype": torch.float64, "generator": 3}


class Periodic(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.embedding = nt.nn.PeriodicEmbedding([1.5, *[None] * (inputs - 1)], harmonics=2)
        self.net = nt.MLP(self.embedding.features, 2, width=6, depth=2, **DOUBLE)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.embedding(x))


class Attention(nn.Module):
    """Embedded coordinates as a sequence of tokens, one pre-norm transformer layer, a mean."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(inputs, 12, dtype=torch.float64)
        self.layer = nn.TransformerEncoderLayer(
            4, 2, 8, 0.0, "gelu", norm_first=True, batch_first=True, dtype=torch.float64
        )
        self.last = nn.Linear(4, 1, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(torch.tanh(self.embed(x)).unflatten(-1, (3, 4))).mean(1))


class Convolution(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(inputs, 8),
            nn.Unflatten(-1, (2, 4)),
            nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"),
            nn.GELU(),
            nn.AvgPool1d(2),
            nn.GroupNorm(1, 3),
            nn.Conv1d(3, 2, 2),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(2, 1),
        ).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def networks(inputs: int) -> dict[str, nn.Module]:
    small: dict[str, Any] = {"width": 6, "depth": 2, **DOUBLE}
    pirate = nt.nn.PirateNet(inputs, 2, **small)
    with torch.no_grad():
        for block in pirate.blocks:
            block.alpha.fill_(0.4)
    return {
        "mlp": nt.nn.MLP(inputs, 2, **small),
        "modified": nt.nn.ModifiedMLP(inputs, 2, **small),
        "pirate": pirate,
        "siren": nt.nn.SIREN(inputs, 2, frequency=3.0, **small),
        "residual": nt.nn.ResidualMLP(inputs, 2, activation="gelu", **small),
        "fourier": nn.Sequential(
            nt.nn.FourierFeatures(inputs, 3, scale=0.3, trainable=True, **DOUBLE), nt.MLP(6, 1, **small)
        ),
        "periodic": Periodic(inputs),
        "factorised": nt.nn.factorise(nt.MLP(inputs, 2, **small), generator=1),
        "chebyshev": nt.nn.ChebyshevKAN(inputs, 4, 2, degree=3, **DOUBLE),
        "spline": nt.nn.SplineKAN(inputs, 4, 2, cells=5, **DOUBLE),
        "attention": Attention(inputs),
        "convolution": Convolution(inputs),
    }


# torch's own derivatives of layer_norm are wrong from the third on (2.13): the oracle spells it out.
def plain_layer_norm(x: Tensor, _: Any, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    c = x - x.mean(-1, keepdim=True)
    return c / torch.sqrt((c * c).mean(-1, keepdim=True) + eps) * weight + bias


@pytest.fixture
def spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: nn.LayerNorm, x: Any) -> Any:
        norm = plain_layer_norm if isinstance(x, Tensor) else nn.functional.layer_norm
        return norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    monkeypatch.setattr(nn.LayerNorm, "forward", forward)


@pytest.mark.usefixtures("spelled_out")
@pytest.mark.parametrize("name", networks(1))
def test_series_and_gradients(name: str) -> None:
    for d, structure, order in ((1, None, 6), (3, 3, 2), (3, LAPLACIAN, 2), (2, MIXED, 4)):
        net = networks(d)[name]
        case = Case(name, net, ((2, d),), parameters=tuple(net.parameters()), order=order)
        check_structure(case, (0,), d, structure, order)


@pytest.mark.usefixtures("spelled_out")
@pytest.mark.parametrize("name", ["pirate", "attention", "convolution", "siren"])
def test_three_directions_to_order_six(name: str) -> None:
    net = networks(2)[name]
    x = torch.tensor([[0.3, -0.4], [0.8, 0.1]], dtype=torch.float64)
    directions = torch.tensor([[1.0, 0.0], [0.5, 0.5], [-0.3, 0.8]], dtype=torch.float64)
    got = nt.jet(net, x, 6, directions)
    for d in range(3):
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            exact = nt.jet(net, x, 6, directions[d], backend="autograd")
        for k in range(7):
            torch.testing.assert_close(got.coefficient(k)[d], exact.coefficient(k), rtol=1e-8, atol=1e-9)


BUILDERS = {
    "modified": lambda **o: nt.nn.ModifiedMLP(2, 1, **o),
    "pirate": lambda **o: nt.nn.PirateNet(2, 1, **o),
    "siren": lambda **o: nt.nn.SIREN(2, 1, **o),
    "residual": lambda **o: nt.nn.ResidualMLP(2, 1, **o),
    "fourier": lambda **o: nt.nn.FourierFeatures(2, 8, **o),
    "chebyshev": lambda **o: nt.nn.ChebyshevKAN(2, 4, 1, **o),
    "spline": lambda **o: nt.nn.SplineKAN(2, 4, 1, **o),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_seed_dtype_and_device(name: str) -> None:
    build = BUILDERS[name]
    state = torch.random.get_rng_state()
    first, second, other = (build(dtype=torch.float64, generator=g).state_dict() for g in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state), "a seeded network leaves torch's generator alone"
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)
    own = build(dtype=torch.float64, generator=torch.Generator().manual_seed(1)).state_dict()
    assert all(torch.equal(first[k], own[k]) for k in first)
    single = build(device="cpu", dtype=torch.float32, generator=1)
    assert {v.dtype for v in single.state_dict().values()} == {torch.float32}
    assert next(iter(build(device="meta").state_dict().values())).device.type == "meta"
    assert next(iter(build().state_dict().values())).dtype == torch.get_default_dtype()
    with pytest.raises(TypeError, match="float"):
        build(dtype=torch.float16)


def test_periodic_to_the_last_bit() -> None:
    net = Periodic(2)
    features = net.embedding
    x = torch.randint(-64, 64, (200, 2), generator=torch.Generator().manual_seed(0)).double() / 64
    shifted = x + torch.tensor([1.5, 0.0], dtype=torch.float64)
    a, b = (nt.jet(features, p, 4, direction=0) for p in (x, shifted))
    assert torch.equal(a.data, b.data)
    # Matrix products may round by where a batch lies in memory.
    torch.testing.assert_close(net(x), net(shifted), rtol=1e-13, atol=1e-13)
    ends = torch.tensor([[0.0, 0.3], [1.5, 0.3], [-3.0, 0.3]], dtype=torch.float64)
    values = nt.jet(features, ends, 3, direction=0).data
    assert torch.equal(values[:, 0], values[:, 1])
    assert torch.equal(values[:, 0], values[:, 2])
    assert not torch.allclose(net(ends[:1]), net(ends[:1] + 0.1))


def test_periodic_embedding_keeps_other_coordinates() -> None:
    embedding = nt.nn.PeriodicEmbedding([None, 2.0, None], harmonics=3)
    x = torch.randn(5, 3, dtype=torch.float64)
    y = embedding(x)
    assert y.shape == (5, embedding.features) == (5, 8)
    assert torch.equal(y[:, 6:], x[:, [0, 2]])
    with pytest.raises(ValueError, match="period"):
        nt.nn.PeriodicEmbedding([None])


def test_factorised_network_computes_the_same_function() -> None:
    plain = nt.MLP(2, 3, width=8, **DOUBLE)
    x = torch.randn(7, 2, dtype=torch.float64)
    before = plain(x)
    net = nt.nn.factorise(plain, generator=0)
    torch.testing.assert_close(net(x), before, rtol=1e-13, atol=1e-13)
    assert not any(type(m) is nn.Linear for m in net.modules())
    with pytest.raises(ValueError, match="factorise"):
        nt.nn.factorise(nn.Tanh())


def test_a_shared_layer_stays_shared() -> None:
    layer = nn.Linear(3, 3)
    net = nt.nn.factorise(nn.Sequential(layer, nn.Tanh(), layer), generator=0)
    assert net[0] is net[2]


def test_pirate_net_starts_linear_in_its_features() -> None:
    net = nt.nn.PirateNet(2, 3, width=10, **DOUBLE)
    x = torch.randn(6, 2, dtype=torch.float64)
    assert torch.equal(net(x), net.last(net.embedding(x)))
    with pytest.raises(ValueError, match="odd"):
        nt.nn.PirateNet(2, 1, width=9)


def test_siren_arguments_are_standard_normal_at_any_depth() -> None:
    net = nt.nn.SIREN(2, 1, width=256, depth=6, dtype=torch.float64, generator=0)
    h = 2 * torch.rand(512, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1
    for k, layer in enumerate(net.layers[:-1]):
        argument = 30.0 * layer(h)
        if k:
            assert 0.85 < argument.std().item() < 1.6
        h = torch.sin(argument)


def test_fourier_features_have_the_stated_frequencies() -> None:
    features = nt.nn.FourierFeatures(1, 4000, scale=2.0, **DOUBLE)
    assert abs(features.frequencies.std().item() - 2.0) < 0.1
    x = torch.tensor([[0.25]], dtype=torch.float64)
    expected = torch.cos(2 * math.pi * 0.25 * features.frequencies[:, 0])
    torch.testing.assert_close(features(x)[0, :4000], expected)
    assert not list(features.parameters())
    assert len(list(nt.nn.FourierFeatures(1, 4, trainable=True).parameters())) == 1


def test_splines_are_a_partition_of_unity_and_twice_continuously_differentiable() -> None:
    layer = nt.nn.SplineLayer(1, 1, cells=4, interval=(-1.0, 1.0), **DOUBLE)
    x = torch.linspace(-1, 1, 41, dtype=torch.float64)[:, None]
    torch.testing.assert_close(layer.splines(x).sum(-1), torch.ones_like(x))
    knots = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    near = [nt.jet(layer, knots + e, 3) for e in (-1e-9, 0.0, 1e-9)]
    for k in range(3):
        torch.testing.assert_close(near[0].derivative(k), near[2].derivative(k), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(near[1].derivative(3), near[2].derivative(3), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(near[0].derivative(3), near[2].derivative(3), rtol=1e-3)
    far = torch.tensor([[-9.0], [9.0]], dtype=torch.float64)
    assert layer.splines(far).abs().max() == 0


def test_chebyshev_layer_evaluates_the_polynomials() -> None:
    layer = nt.nn.ChebyshevLayer(2, 3, degree=4, **DOUBLE)
    x = torch.randn(5, 2, dtype=torch.float64)
    angle = torch.acos(torch.tanh(x))
    terms = torch.cat([torch.cos(k * angle) for k in range(5)], -1)
    torch.testing.assert_close(layer(x), terms @ layer.coefficients.T)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: nt.nn.ModifiedMLP(0, 1), "inputs"),
        (lambda: nt.nn.SIREN(1, 1, depth=0), "depth"),
        (lambda: nt.nn.SIREN(1, 1, frequency=-1.0), "frequency"),
        (lambda: nt.nn.ResidualMLP(1, 1, activation="tahn"), "tanh"),
        (lambda: nt.nn.FourierFeatures(1, 4, scale=0.0), "scale"),
        (lambda: nt.nn.SplineLayer(1, 1, interval=(1.0, 0.0)), "grid"),
        (lambda: nt.nn.ChebyshevKAN(3), "two sizes"),
    ],
)
def test_refused_arguments(build: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build()


def test_the_namespaces_are_lazy() -> None:
    assert nt.nn.MLP is nt.MLP
    assert {"nn", "optim"} <= set(dir(nt))
    with pytest.raises(AttributeError, match="nonsense"):
        nt.nonsense  # noqa: B018


def test_networks_differ_in_parameters_not_in_shape() -> None:
    for (name, net), d in itertools.product(networks(2).items(), (2,)):
        assert net(torch.zeros(0, d, dtype=torch.float64)).shape[0] == 0, name
