import math

import pytest
import sympy
import torch

import ntangent as nt
from ntangent.jet.dense import as_dense
from ntangent.jet.reference import bell_terms, partitions

BELL = [1, 1, 2, 5, 15, 52, 203, 877, 4140, 21147, 115975, 678570, 4213597]


@pytest.mark.parametrize("n", range(1, 16))
def test_partitions_are_all_there_and_distinct(n: int) -> None:
    found = partitions(n)
    assert len(set(found)) == len(found) == sympy.partition(n)
    assert all(sum(part * times for part, times in p) == n for p in found)


@pytest.mark.parametrize("n", range(1, 13))
def test_bell_coefficients_sum_to_bell_numbers(n: int) -> None:
    assert sum(c for c, _, _ in bell_terms(n)) == BELL[n] == sympy.bell(n)


@pytest.mark.parametrize("n", range(1, 9))
def test_bell_terms_are_the_partial_bell_polynomials(n: int) -> None:
    inner = sympy.symbols(f"x1:{n + 1}")
    for depth in range(1, n + 1):
        total = sum(
            c * math.prod(inner[part - 1] ** times for part, times in p)
            for c, d, p in bell_terms(n)
            if d == depth
        )
        assert sympy.expand(total - sympy.bell(n, depth, inner[: n - depth + 1])) == 0


def test_faa_di_bruno_of_exp_of_exp_gives_touchard_at_zero() -> None:
    """exp(exp(x) - 1) generates the Bell numbers; no oracle but counting."""
    net = torch.nn.Sequential(torch.nn.Linear(1, 1), _Exp(), torch.nn.Linear(1, 1), _Exp()).to(torch.float64)
    with torch.no_grad():
        for layer, bias in ((net[0], 0.0), (net[2], -1.0)):
            layer.weight.fill_(1.0)
            layer.bias.fill_(bias)
    x = torch.zeros(1, 1, dtype=torch.float64)
    for backend in ("eager", "faa-di-bruno"):
        got = nt.derivatives(net, x, 12, backend=backend).flatten().tolist()
        assert got == pytest.approx(BELL, rel=1e-13)


class _Exp(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.exp(x)


def test_dense_networks_are_recognised_however_they_are_nested() -> None:
    net = nt.MLP(2, 1, width=3, depth=2, activation="softplus", generator=0)
    for f in (net, torch.nn.Sequential(net), lambda x: net(x), net.forward):
        found = as_dense(f)
        assert found is not None
        assert [row.name for row in found.activations] == ["softplus", "softplus", "identity"]
        assert all(a is b for a, b in zip(found.parameters, net.parameters(), strict=True))


def test_other_functions_are_not_dense() -> None:
    net = nt.MLP(2, 1, width=3, depth=1, generator=0)
    for f in (
        torch.sin,
        lambda x: net(x) + 1,
        lambda x: net(x[:, :2]),
        lambda x: net(2 * x),
        lambda x: torch.tanh(torch.tanh(net(x))),
        lambda x: net(x) if x.sum() > 0 else -net(x),
        lambda x: torch.nn.functional.linear(x, x),
        lambda x: net(x).item(),
    ):
        assert as_dense(f) is None
