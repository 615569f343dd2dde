"""Odd and even fields: mirrored exactly, with the derivatives of nested autograd, and the same answers."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ntangent as nt
from ntangent import optim, pinn
from ntangent._base.errors import NtangentError, ProblemError
from ntangent.pinn.hard.along import plain

F64 = torch.float64


def heat(parity: str, low: float, high: float, at: float) -> pinn.Problem:
    """A heat equation on one side of ``at``, an end of (low, high)."""
    far = high if at == low else low
    return pinn.Problem(
        domain=pinn.Box(x=(low, high), t=(0.0, 0.5)),
        extent=pinn.Box(x=(min(low, 2 * at - far), max(high, 2 * at - far)), t=(0.0, 0.5)),
        equations=[lambda u: u.t - u.xx],
        conditions=[pinn.Dirichlet(x=far, value=0.0, hard=True), pinn.Symmetry(parity, x=at)],
    )


def net(outputs: int = 1, inputs: int = 2):
    return nt.MLP(inputs, outputs, width=8, depth=2, dtype=F64, generator=3)


def field(problem, network, points):
    return problem.outputs(network, plain(points), None).value


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["odd", "even"]),
    st.sampled_from([(0.0, 1.0, 0.0), (-1.5, 0.5, 0.5), (2.0, 3.0, 2.0)]),
    st.integers(0, 10**6),
)
def test_both_sides_mirror_each_other(parity, where, seed):
    low, high, at = where
    problem, generator = heat(parity, low, high, at), torch.Generator().manual_seed(seed)
    x = torch.rand(20, 2, generator=generator, dtype=F64) * torch.tensor([high - low, 0.5], dtype=F64)
    x[:, 0] += low
    mirrored = torch.stack([2 * at - x[:, 0], x[:, 1]], 1)
    inside, beyond = field(problem, net(), x), field(problem, net(), mirrored)
    sign = -1.0 if parity == "odd" else 1.0
    assert torch.allclose(beyond, sign * inside, rtol=1e-12, atol=1e-13)
    assert float(inside.detach().abs().max()) > 1e-8
    far = torch.tensor([[high if at == low else low, 0.2]], dtype=F64)
    assert float(field(problem, net(), far).detach().abs()) < 1e-14


@pytest.mark.parametrize("parity", ["odd", "even"])
def test_the_end_itself(parity):
    """u = 0 at the end if odd, u_x = 0 if even, and not the other way round."""
    problem = heat(parity, 0.0, 1.0, 0.0)
    found = problem.field(net(), torch.tensor([[0.0, 0.3]], dtype=F64), order=1)["u"]
    value, slope = float(found.data[0].detach()), float(found.x.data[0].detach())
    gone, kept = (value, slope) if parity == "odd" else (slope, value)
    assert abs(gone) < 1e-14 < 1e-3 < abs(kept)


@pytest.mark.parametrize("parity", ["odd", "even"])
def test_derivatives_on_both_sides_against_nested_autograd(parity):
    problem, network = heat(parity, 0.0, 1.0, 0.0), net()
    x = torch.tensor([[-0.7, 0.1], [0.4, 0.2], [-0.1, 0.45]], dtype=F64, requires_grad=True)
    sign = 1.0 if parity == "even" else x.detach()[:, :1].sign()
    folded = torch.cat([x[:, :1].abs(), x[:, 1:]], 1)
    u = sign * field(problem, network, folded)  # the side of the domain, which other tests check
    (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first[:, 0].sum(), x, create_graph=True)
    (third,) = torch.autograd.grad(second[:, 0].sum(), x)
    ours = problem.field(network, x.detach(), order=3)["u"]
    for mine, theirs in [(ours.x, first[:, 0]), (ours.t, first[:, 1]), (ours.xx, second[:, 0]),
                         (ours.xt, second[:, 1]), (ours.xxx, third[:, 0])]:  # fmt: skip
        assert torch.allclose(mine.data[0].reshape(-1), theirs, rtol=1e-10, atol=1e-10)


def test_a_solution_on_one_side_is_the_solution_on_both():
    """u'' = -π² u... with u = sin πx on (-1, 1), solved on (0, 1) alone."""
    problem = pinn.Problem(
        domain=pinn.Interval(x=(0.0, 1.0)),
        extent=pinn.Interval(x=(-1.0, 1.0)),
        equations=[lambda u, x: u.xx + math.pi**2 * torch.sin(math.pi * x)],
        conditions=[pinn.Symmetry("odd", x=0.0), pinn.Dirichlet(x=1.0, hard=True)],
        reference=lambda x: torch.sin(math.pi * x),
    )
    polish = optim.Polish(3, features=60, slope=6.0, activation="sin", seed=0)
    solution = pinn.solve(problem, net(inputs=1), [polish], sampler=pinn.Sobol(240), progress=False)
    result = solution.summary()
    assert result["relative_l2"] < 1e-11
    assert solution.evaluate()["x" if "x" in solution.evaluate() else "axis_x"].min() == -1.0
    x = torch.linspace(-1, 1, 9, dtype=F64)
    assert torch.allclose(solution(x), torch.sin(math.pi * x), atol=1e-10)


def test_components_have_parities_of_their_own():
    problem = pinn.Problem(
        domain=pinn.Box(x=(0.0, 1.0), y=(0.0, 1.0)),
        equations=[lambda u, v: u.x + v.y],
        fields=("u", "v"),
        conditions=[pinn.Symmetry("odd", x=0.0, field="u"), pinn.Symmetry("even", x=0.0, field="v")],
    )
    x = torch.tensor([[0.3, 0.2], [0.9, 0.7]], dtype=F64)
    mirrored = x * torch.tensor([-1.0, 1.0], dtype=F64)
    inside, beyond = field(problem, net(2), x), field(problem, net(2), mirrored)
    assert torch.allclose(beyond, inside * torch.tensor([-1.0, 1.0], dtype=F64), rtol=1e-12)


def test_mirrors_at_both_ends():
    """Even about 0 and odd about 1: cos(πx/2) continued to (-1, 2)."""
    problem = pinn.Problem(
        domain=pinn.Interval(x=(0.0, 1.0)),
        extent=pinn.Interval(x=(-1.0, 2.0)),
        equations=[lambda u: u.xx + u],
        conditions=[pinn.Symmetry("even", x=0.0), pinn.Symmetry("odd", x=1.0)],
    )
    network = net(inputs=1)
    x = torch.tensor([[0.2], [0.7]], dtype=F64)
    inside = field(problem, network, x)
    assert torch.allclose(field(problem, network, -x), inside, rtol=1e-12)
    assert torch.allclose(field(problem, network, 2 - x), -inside, rtol=1e-12)


def test_windows_carry_the_whole():
    problem = pinn.Problem(
        domain=pinn.Box(x=(0.0, 1.0), t=(0.0, 0.2)),
        extent=pinn.Box(x=(-1.0, 1.0), t=(0.0, 0.2)),
        equations=[lambda u: u.t - u.xx],
        conditions=[
            pinn.Initial(lambda x: torch.sin(math.pi * x), hard=True),
            pinn.Dirichlet(x=1.0, hard=True),
            pinn.Symmetry("odd", x=0.0),
        ],
        reference=lambda x, t: torch.exp(-(math.pi**2) * t) * torch.sin(math.pi * x),
    )
    polish = optim.Polish(3, features=150, slope=6.0, activation="sin", seed=0)
    network = net()
    torch.nn.init.zeros_(network[-1].weight)
    torch.nn.init.zeros_(network[-1].bias)
    solution = pinn.march(problem, network, [polish], windows=2, sampler=pinn.Sobol(600), progress=False)
    assert solution.summary()["relative_l2"] < 1e-6
    other = dataclasses.replace(problem, extent=pinn.Box(x=(-1.0, 1.0), t=(0.0, 0.3)))
    with pytest.raises(ProblemError, match="other times"):
        pinn.march(other, net(), [polish], windows=2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pinn.Symmetry("skew", x=0.0), "skew"),
        (lambda: pinn.Symmetry("odd"), "one end of one coordinate"),
        (lambda: pinn.Symmetry("odd", x=0.0, t=0.0), "one end of one coordinate"),
        (lambda: pinn.Symmetry("odd", x=(0.0, 1.0)), "one end of one coordinate"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(NtangentError, match=words):
        make()


def test_statements_that_contradict_themselves():
    def stated(*conditions, **changes):
        own = {
            "domain": pinn.Box(x=(0.0, 1.0), t=(0.0, 1.0)), "equations": [lambda u: u.t - u.xx],
            "conditions": conditions,
        }  # fmt: skip
        return pinn.Problem(**{**own, **changes})

    with pytest.raises(ProblemError, match="one side of it"):
        stated(pinn.Symmetry("odd", x=0.5)).built_in()
    fields = {"fields": ("u", "v"), "equations": [lambda u, v: u.t - v.xx]}
    with pytest.raises(ProblemError, match="1 of 2 components"):
        stated(pinn.Symmetry("odd", x=0.0, field="u"), **fields).built_in()
    with pytest.raises(ProblemError, match="carries the field to -1"):
        stated(pinn.Symmetry("odd", x=0.0), extent=pinn.Box(x=(-2.0, 1.0), t=(0.0, 1.0))).built_in()
    with pytest.raises(ProblemError, match="contradict"):
        stated(pinn.Symmetry("odd", x=0.0), pinn.Initial(lambda x: torch.cos(x), hard=True)).built_in()


def test_it_names_itself():
    condition = pinn.Symmetry("odd", x=0.0, field="u")
    assert repr(condition) == "Symmetry('odd', x=0.0, field='u')"
    assert repr(eval(repr(condition), {"Symmetry": pinn.Symmetry})) == repr(condition)
