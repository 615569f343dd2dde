"""Computations repeated in their own memory: the same bits for other values, and what is refused."""

import pytest
import torch

from ntangent._base.errors import NotRepeatable
from ntangent.jet import replay
from ntangent.jet.replay import recorded

TABLE = torch.linspace(0.5, 2, 4)


def slices(x, y):
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        z = leaf[1:, 2].sum() * y[0] + leaf.unbind(1)[0].sum() * leaf[0]
    return [z, *torch.autograd.grad(z.sum(), leaf)]


def filled(x, y):
    out = x.new_zeros(5, 4)
    out[0] = torch.tanh(y)
    out[1:] = x
    out[2].addcmul_(x[0], y, value=-2.0)
    torch.mul(x[1], 3, out=out[3])
    return [out, out.max(1).values, out.std(), x.flip(0).cumsum(0)]


def reshaped(x, y):
    z = (x * 2).unsqueeze_(0)
    z.squeeze_(0).mul_(y)
    return [z, z.t_().clone(), torch.ones_like(x) * TABLE + x.new_full((4,), 2.0)]


def overwritten(x, y):
    z = torch.zeros_like(x)
    z[0] = y
    first = z.clone()
    z[0] = x[1]
    z[1].add_(z[0])
    return [first, z]


def several(x, y):
    q, r = torch.linalg.qr(x)
    return [q @ r, torch.where(x > y, x, y), torch.cat([x, y[None]]), torch.sort(x, 0).values]


@pytest.mark.parametrize("function", [slices, filled, reshaped, overwritten, several])
def test_other_values_give_the_same_bits(function):
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(4, 4, generator=generator), torch.randn(4, generator=generator)
    repeat = recorded(function, [x, y])
    for _ in range(3):
        given = torch.randn(4, 4, generator=generator), torch.randn(4, generator=generator)
        expected = function(*given)
        found = repeat(*given)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(x, given[0])  # they read from the memory with which they were recorded
    x.mul_(0.5)
    assert all(torch.equal(a, b) for a, b in zip(repeat.again(), function(x, y), strict=True))


def test_views_and_copies_of_results_are_no_operations():
    def function(x):
        out = torch.empty(3, 4)
        out[0] = torch.tanh(x)
        out[1] = out[0].view(2, 2).t().reshape(4)
        out[2] = torch.exp(x)[None][0]
        unused = torch.sin(x)
        return [out.view(2, 6), unused[:0]]

    x = torch.rand(4)
    repeat = recorded(lambda x: function(x)[:1], [x])
    assert repeat.operations == 4  # tanh and exp into their rows; a transposed copy, and its copy
    other = x + 1
    assert torch.equal(repeat(other)[0], function(other)[0])


def test_results_stay_in_place_until_the_next_time():
    x = torch.rand(3)
    repeat = recorded(lambda x: [x * 2], [x])
    first = repeat.again()[0]
    assert repeat(torch.ones(3))[0].data_ptr() == first.data_ptr()
    assert first.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: [x + torch.rand(3)], "random"),
        (lambda x: [x * float(x.sum())], "depends on values"),
        (lambda x: [x[x > 0]], "depends on values"),
        (lambda x: [x.add_(1)], "what it is given"),
        (lambda x: [TABLE[:3].copy_(x)], "into a constant"),
    ],
)
def test_refused(function, why):
    kept = TABLE.clone()
    with pytest.raises(NotRepeatable, match=why):
        recorded(function, [torch.rand(3) + 1])
    TABLE.copy_(kept)


def test_large_results_are_not_kept(monkeypatch):
    monkeypatch.setattr(replay, "KEPT", 100)
    recorded(lambda x: [x + 1], [torch.rand(20)])
    with pytest.raises(NotRepeatable, match="large"):
        recorded(lambda x: [(x + 1) * 2], [torch.rand(20)])
