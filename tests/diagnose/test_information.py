"""Binned information: planted distributions, the paper's binning re-implemented, bias, recording."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import ntangent as nt
from ntangent import diagnose
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError


def uniform(*size, seed=0):
    return torch.rand(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def paper_codes(a, bins=30):
    """The routine of C.5, with numpy's own functions."""
    a = a.numpy()
    ranges = a.max(0) - a.min(0)
    width = ranges.mean() / bins
    columns, counts = [], []
    for v in range(a.shape[1]):
        edges = np.linspace(a[:, v].min(), a[:, v].max() + 1e-6, int(ranges[v] / width) + 1)
        columns.append(np.digitize(a[:, v], edges) - 1)
        counts.append(max(1, len(edges) - 1))
    return np.stack(columns, 1), counts


def test_binning_is_that_of_the_paper():
    a = torch.tanh(3 * uniform(500, 7, seed=1) * torch.tensor([0.01, 0.5, 1, 1, 2, 3, 4]))
    codes, counts = diagnose.bin_activations(a)
    expected, expected_counts = paper_codes(a)
    assert counts.tolist() == expected_counts
    # A value within rounding of an edge may fall on either side of it.
    inside = torch.from_numpy(expected)
    several = counts > 1
    assert (codes[:, several] == inside[:, several]).double().mean() > 0.999
    assert not codes[:, ~several].any()


def test_equal_populations():
    a = uniform(600, 2, seed=2) ** 5
    codes, counts = diagnose.bin_activations(a, 6, "population")
    assert counts.tolist() == [6, 6]
    for v in range(2):
        assert torch.bincount(codes[:, v]).tolist() == [100] * 6
    ties = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
    assert diagnose.bin_activations(ties, 2, "population")[0][:, 0].tolist() == [0, 0, 0, 1]


def test_planted_states():
    # 8 states with probabilities 1/2, 1/4, ..., each with activations far apart.
    counts = [128, 64, 32, 16, 8, 4, 2, 2]
    states = torch.repeat_interleave(torch.arange(8), torch.tensor(counts))
    codes = torch.stack([states % 2, states // 2 % 2, states // 4], 1)
    p = np.array(counts) / 256
    entropy = float(-(p * np.log2(p)).sum())
    assert diagnose.joint_entropy(codes) == pytest.approx(entropy)
    found = diagnose.activation_information(codes.double())["layer"]
    assert found.information == pytest.approx(entropy)
    assert (found.states, found.samples, found.bound) == (8, 256, 8.0)
    assert found.corrected == pytest.approx(entropy + 7 / (512 * math.log(2)))
    assert found.saturation == 1.0  # every activation sits at an end of its range


def test_bounds():
    one = diagnose.activation_information(torch.full((64, 3), 0.7))["layer"]
    assert one.information == 0 and one.states == 1 and one.saturation == 1
    full = diagnose.activation_information(uniform(64, 40))["layer"]
    # Every sample has a state of its own: the estimate shows its bound and nothing else.
    assert full.information == pytest.approx(6) and full.corrected == full.bound == 6


@pytest.mark.parametrize("samples", [200, 1000])
def test_bias_of_the_estimator_is_as_stated(samples):
    # 32 equal states: H = 5 bits. The plug-in estimate is low by (K - 1)/(2 N ln 2).
    g = torch.Generator().manual_seed(0)
    plain, corrected = [], []
    for _ in range(300):
        codes = torch.randint(32, (samples, 1), generator=g)
        plain.append(diagnose.joint_entropy(codes))
        corrected.append(diagnose.joint_entropy(codes, "miller-madow"))
    bias = 31 / (2 * samples * math.log(2))
    spread = np.std(plain) / math.sqrt(300)
    assert np.mean(plain) - 5 == pytest.approx(-bias, abs=0.15 * bias + 4 * spread)
    assert abs(np.mean(corrected) - 5) < 0.15 * bias + 4 * spread


def test_saturation_of_planted_fractions():
    # A fifth of the samples at each end of tanh's range, the others evenly between.
    ends = torch.cat([torch.full((100,), -1.0), torch.full((100,), 1.0), torch.linspace(-0.9, 0.9, 300)])
    assert diagnose.saturation(ends[:, None].repeat(1, 4)) == pytest.approx(0.4, abs=0.02)
    flat = torch.linspace(-1, 1, 3000)[:, None]
    assert diagnose.saturation(flat) == pytest.approx(2 / 30, abs=0.005)
    assert diagnose.saturation(flat, binning="population") == pytest.approx(2 / 30, abs=0.005)


@given(st.integers(0, 1000), st.floats(0.1, 10), st.floats(-3, 3))
@settings(deadline=None, max_examples=25)
def test_laws_of_information(seed, scale, shift):
    a = uniform(150, 3, seed=seed)
    found = diagnose.activation_information(a, 5, "population")["layer"]
    assert 0 <= found.information <= found.corrected <= found.bound
    order, columns = torch.randperm(150), torch.randperm(3)
    for other in (a[order], a[:, columns], scale * a + shift, a.exp(), torch.cat([a, a], 1)):
        # Ranks do not change under increasing maps; a second copy of a neuron says nothing new.
        assert diagnose.activation_information(other, 5, "population")["layer"].information == pytest.approx(
            found.information
        )
    # A function of the states cannot carry more than they do.
    assert diagnose.joint_entropy((a[:, :2] * 4).long()) <= diagnose.joint_entropy((a * 4).long()) + 1e-12


# --- recording -------------------------------------------------------------------------------------


class Gated(nn.Module):
    """A modified MLP: two encoders read x, and the layers call their activations as functions."""

    def __init__(self):
        super().__init__()
        self.u, self.v, self.a, self.b = nn.Linear(2, 4), nn.Linear(2, 4), nn.Linear(2, 4), nn.Linear(4, 4)
        self.end = nn.Linear(4, 1)

    def forward(self, x):
        u, v, h = torch.tanh(self.u(x)), torch.tanh(self.v(x)), torch.tanh(self.a(x))
        self.one = (1 - h) * u + h * v
        self.two = torch.tanh(self.b(self.one))
        return self.end(self.two)


def test_hidden_activations_are_recorded():
    net = nt.MLP(2, 1, width=5, depth=3, generator=0)
    x = uniform(10, 2).float()
    found = diagnose.record_activations(net, x)
    first = torch.tanh(net[0](x))
    second = torch.tanh(net[2](first))
    assert list(found) == ["2", "4", "6"]
    torch.testing.assert_close(found["2"], first.detach())
    torch.testing.assert_close(found["4"], second.detach())
    assert not any(a.requires_grad for a in found.values())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in net.modules())
    chosen = diagnose.record_activations(net, x, {"first": net[1]})
    torch.testing.assert_close(chosen["first"], first.detach())


def test_functional_activations_and_encoders():
    net, x = Gated(), uniform(6, 2).float()
    found = diagnose.record_activations(net, x)
    assert list(found) == ["b", "end"]
    torch.testing.assert_close(found["b"], net.one.detach())
    torch.testing.assert_close(found["end"], net.two.detach())


def test_wrong_arguments_are_refused():
    with pytest.raises(ArgumentError, match="no hidden activation"):
        diagnose.record_activations(nn.Linear(2, 1), torch.zeros(3, 2))
    with pytest.raises(DtypeError):
        diagnose.record_activations(torch.sin, torch.zeros(3, 2))
    with pytest.raises(ShapeError):
        diagnose.saturation(torch.zeros(3))
    with pytest.raises(ShapeError):
        diagnose.joint_entropy(torch.zeros(3, 2))
    with pytest.raises(ArgumentError):
        diagnose.activation_information({})
    with pytest.raises(ArgumentError):
        diagnose.saturation(torch.zeros(3, 2), bins=0)
