"""Weightings against answers computed by hand on a loss of two terms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntangent._base.errors import ArgumentError, DtypeError, ProblemError, UnknownNameError
from ntangent.pinn.weighting import (
    NTK,
    RBA,
    WEIGHTINGS,
    Causal,
    Fixed,
    GradNorm,
    Layout,
    Product,
    ReLoBRaLo,
    SelfAdaptive,
    SoftAdapt,
    Term,
    View,
)

F64 = torch.float64
T = torch.tensor([0.1, 0.3, 0.6, 0.9], dtype=F64)
EQUATION = Term("equation[0]", T[:, None], torch.ones(1, dtype=F64), 4)
VALUE = Term("dirichlet", torch.zeros(2, 1, dtype=F64), torch.full((1,), 100.0, dtype=F64), 2)
LAYOUT = Layout((EQUATION, VALUE), {"t": (0.0, 1.0)})
ROWS = {"equation[0]": [[1.0, -2.0, 4.0, 0.5]], "dirichlet": [[3.0, 1.0]]}
# The toy: residual j of a term is linear in two parameters, with gradients (g_j, 0) or (0, h_j).
GRADIENTS = {"equation[0]": [[2.0, 0.0]] * 4, "dirichlet": [[0.0, 5.0], [1.0, 0.0]]}


def vector(values):
    return torch.tensor(values, dtype=F64)


def view(rows=ROWS, iteration=0, seed=0, layout=LAYOUT, gradients=GRADIENTS):
    tensors = {name: vector(value) for name, value in rows.items()}

    def gradient(name, factor):
        r = (factor * tensors[name]).expand_as(tensors[name])[0]
        return 2 / len(r) * (r[:, None] * vector(gradients[name])).sum(dim=0)

    def squares(name):
        return vector(gradients[name]).square().sum(dim=1)[None]

    return View(iteration, layout, tensors, torch.Generator().manual_seed(seed), gradient, squares)


def begin(weighting, layout=LAYOUT, seed=0):
    return weighting.start(layout, torch.Generator().manual_seed(seed))


def after(weighting, *views):
    state = begin(weighting)
    for seen in views:
        state = weighting.update(state, seen)
    return weighting.factors(state)


def close(found, expected, rtol=1e-14):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=F64), rtol=rtol, atol=0)


def test_fixed():
    weighting = Fixed({"equation": 0.5, "equation[0]": 0.25})
    assert after(weighting) == {"equation[0]": 0.25}  # the full name goes first
    assert not any(weighting.due(i, 1) for i in range(5))
    with pytest.raises(UnknownNameError, match="dirichlet"):
        begin(Fixed({"dirichle": 1.0}))


def test_rba_max():
    weighting = RBA(eta=0.1, gamma=0.9)
    expected = [0.9 + 0.1 * r / 4 for r in (1, 2, 4, 0.5)]
    close(after(weighting, view())["equation[0]"], [x**2 for x in expected])
    again = [0.9 * x + 0.1 * r / 4 for x, r in zip(expected, (1, 2, 4, 0.5), strict=True)]
    close(after(weighting, view(), view())["equation[0]"], [x**2 for x in again])
    assert "dirichlet" not in after(weighting, view())


def test_rba_min_max_and_its_beginnings():
    spread = [(r - 0.5) / 3.5 for r in (1, 2, 4, 0.5)]
    zero = RBA(eta=0.1, gamma=0.9, normalisation="min-max", init="zero", power=1)
    close(after(zero, view())["equation[0]"], [0.1 * x for x in spread])
    first = RBA(eta=0.1, gamma=0.9, normalisation="min-max", init="first", power=1)
    close(after(first, view())["equation[0]"], spread)
    close(after(first, view(), view())["equation[0]"], [0.9 * x + 0.1 * x for x in spread])


def test_rba_is_bounded_by_eta_over_one_minus_gamma():
    weighting = RBA(eta=0.02, gamma=0.99, init="zero", power=1)
    state = begin(weighting)
    for _ in range(3000):
        state = weighting.update(state, view())
    factor = weighting.factors(state)["equation[0]"]
    close(factor, [2.0 * r / 4 for r in (1, 2, 4, 0.5)], rtol=1e-12)  # γ^3000 = 8e-14


def test_rba_adds_the_rows_of_a_term():
    term = Term("equation[0]", T[:2, None], vector([2.0, 0.5]), 2)
    layout = Layout((term,), {"t": (0.0, 1.0)})
    weighting = RBA(eta=1.0, gamma=0.0, power=1)
    rows = {"equation[0]": [[1.0, -1.0], [2.0, 0.0]]}  # 1 + 2 sqrt(0.5/2) = 2 and 1
    state = weighting.update(begin(weighting, layout), view(rows, layout=layout))
    close(weighting.factors(state)["equation[0]"], [1.0, 0.5])


@pytest.mark.parametrize("normalisation", ["max", "min-max"])
@pytest.mark.parametrize("residual", [0.0, 1e-300, 2.0])
def test_rba_of_equal_residuals_is_finite(normalisation, residual):
    rows = {"equation[0]": [[residual] * 4], "dirichlet": [[0.0, 0.0]]}
    factor = after(RBA(eta=0.1, gamma=0.9, normalisation=normalisation, power=1), view(rows))["equation[0]"]
    close(factor, [1.0 if residual else 0.9] * 4)


@pytest.mark.parametrize(
    ("mask", "m", "slope"),
    [("square", lambda x: x * x, lambda x: 2 * x), ("linear", lambda x: x, lambda x: 1.0),
     ("sigmoid", lambda x: 1 / (1 + math.exp(-x)), lambda x: math.exp(-x) / (1 + math.exp(-x)) ** 2)],
)  # fmt: skip
def test_self_adaptive_is_adam_uphill(mask, m, slope):
    weighting = SelfAdaptive(lr=0.1, mask=mask, init={"dirichlet": 3.0}, random=False)
    lam = torch.nn.Parameter(vector([3.0, 3.0]))
    adam = torch.optim.Adam([lam], lr=0.1, maximize=True)
    state = begin(weighting)
    for _ in range(5):
        lam.grad = vector(
            [slope(float(x)) * 100 * r**2 / 2 for x, r in zip(lam.detach(), (3.0, 1.0), strict=True)]
        )
        adam.step()
        state = weighting.update(state, view())
    close(state["lambda"]["dirichlet"], lam.detach(), rtol=1e-13)
    close(weighting.factors(state)["dirichlet"], [m(float(x)) for x in lam.detach()], rtol=1e-13)


def test_self_adaptive_starts_at_random_and_only_grows():
    weighting = SelfAdaptive(init={"equation": 1.0, "dirichlet": 100.0})
    state = begin(weighting, seed=4)
    assert torch.equal(state["lambda"]["dirichlet"], begin(weighting, seed=4)["lambda"]["dirichlet"])
    assert not torch.equal(state["lambda"]["dirichlet"], begin(weighting, seed=5)["lambda"]["dirichlet"])
    assert 0 < float(state["lambda"]["equation[0]"].min()) <= float(state["lambda"]["equation[0]"].max()) <= 1
    new = weighting.update(state, view())
    for name in LAYOUT.names:
        assert bool((new["lambda"][name] > state["lambda"][name]).all())


def test_grad_norm():
    # ∇L = 2 mean(r g): equation 2/4 · 3.5 · (2, 0) = (3.5, 0); dirichlet (2/2)(3·(0,5) + 1·(1,0)) = (1, 15).
    norms = [3.5, math.sqrt(226)]
    factors = after(GradNorm(momentum=0.75), view())
    for name, size in zip(LAYOUT.names, norms, strict=True):
        close(factors[name], 0.75 + 0.25 * sum(norms) / size)
    settled = after(GradNorm(momentum=0.0), view())
    close(settled["equation[0]"] * norms[0], settled["dirichlet"] * norms[1])  # equally long


def test_learning_rate_annealing():
    factors = after(GradNorm("annealing", momentum=0.9), view())
    close(factors["equation[0]"], 1.0)
    close(factors["dirichlet"], 0.9 + 0.1 * 3.5 / 8.0)  # max (3.5, 0) over mean (1, 15)


@pytest.mark.parametrize(("trace", "size"), [("mean", (1, 1)), ("sum", (4, 2))])
def test_ntk(trace, size):
    traces = [4.0 * size[0], (25 + 1) / 2 * size[1]]
    factors = after(NTK(trace, momentum=0.0), view())
    close(factors["equation[0]"], sum(traces) / traces[0])
    close(factors["dirichlet"], sum(traces) / traces[1])
    close(factors["equation[0]"] * traces[0], factors["dirichlet"] * traces[1])


def test_a_term_without_gradient_keeps_its_factor():
    gradients = GRADIENTS | {"dirichlet": [[0.0, 0.0], [0.0, 0.0]]}
    for weighting in (GradNorm(), GradNorm("annealing"), NTK()):
        assert float(after(weighting, view(gradients=gradients))["dirichlet"]) == 1.0


def scaled(equation, dirichlet):
    return {"equation[0]": [[math.sqrt(equation)] * 4], "dirichlet": [[math.sqrt(dirichlet)] * 2]}


def softmax(*scores):
    total = sum(math.exp(s) for s in scores)
    return [len(scores) * math.exp(s) / total for s in scores]


def test_relobralo():
    steps = [view(scaled(4, 1)), view(scaled(2, 1)), view(scaled(2, 0.25))]
    kept = ReLoBRaLo(alpha=0.5, rho=1.0, temperature=2.0)
    one = [0.5 + 0.5 * b for b in softmax(0.25, 0.5)]  # (2/4, 1/1) / 2
    two = [0.5 * x + 0.5 * b for x, b in zip(one, softmax(0.5, 0.125), strict=True)]
    assert [float(f) for f in after(kept, steps[0]).values()] == [1.0, 1.0]
    close(torch.stack(list(after(kept, *steps[:2]).values())), one)
    close(torch.stack(list(after(kept, *steps).values())), two)
    back = ReLoBRaLo(alpha=0.5, rho=0.0, temperature=2.0)
    first, last = softmax(0.25, 0.125), softmax(0.5, 0.125)
    close(
        torch.stack(list(after(back, *steps).values())),
        [(a + b) / 2 for a, b in zip(first, last, strict=True)],
    )


def test_relobralo_tosses_the_coin_with_the_given_generator():
    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        later = [replace(view(scaled(2 / k, 1)), generator=generator) for k in range(1, 12)]
        return after(ReLoBRaLo(alpha=0.5, rho=0.5), view(scaled(4, 1)), *later)["equation[0]"]

    assert torch.equal(run(1), run(1))
    assert len({float(run(seed)) for seed in range(8)}) > 1


def test_softadapt():
    steps = view(scaled(4, 1)), view(scaled(1, 2))  # changes -3 and 1, sizes 4
    close(torch.stack(list(after(SoftAdapt(beta=2.0), *steps).values())), softmax(-1.5, 0.5))
    weighted = [1 * math.exp(-1.5), 2 * math.exp(0.5)]
    found = torch.stack(list(after(SoftAdapt(beta=2.0, loss_weighted=True), *steps).values()))
    close(found, [2 * w / sum(weighted) for w in weighted])


def test_causal():
    weighting = Causal(chunks=2, schedule=(0.1, 1.0), delta=0.5)
    first = math.exp(-0.1 * (1 + 4) / 2)
    state = weighting.update(begin(weighting), view())
    close(weighting.factors(state)["equation[0]"], [1.0, 1.0, first, first])
    assert state["stage"] == 1  # 0.78 > 0.5: the next ε
    second = math.exp(-1.0 * 2.5)
    state = weighting.update(state, view())
    close(weighting.factors(state)["equation[0]"], [1.0, 1.0, second, second])
    assert state["stage"] == 1  # 0.08: not yet, and there is none left
    assert weighting.describe(state) == {"causal weight": second, "causal ε": 1.0}


def test_causal_never_gives_zero():
    rows = ROWS | {"equation[0]": [[1e4] * 4]}
    factor = after(Causal(chunks=4, schedule=(100.0,)), view(rows))["equation[0]"]
    assert bool((factor > 0).all())


def test_causal_needs_its_coordinate_and_points():
    with pytest.raises(UnknownNameError, match="'s'"):
        begin(Causal(time="s"))
    integral = Layout((Term("equation[0]", T[:, None], torch.ones(1), 1),), {"t": (0.0, 1.0)})
    with pytest.raises(ProblemError, match="1 residuals and 4 points"):
        begin(Causal(), integral)


def test_products_multiply_and_show_points_to_balancers():
    rba, causal = RBA(eta=0.1, gamma=0.9), Causal(chunks=2)
    product = rba * causal
    both = after(product, view())
    close(both["equation[0]"], after(rba, view())["equation[0]"] * after(causal, view())["equation[0]"])
    # The balance is of the terms as RBA has weighted them: 2/4 · sum f r · 2.
    balanced = after(GradNorm(momentum=0.0) * rba, view())
    f = after(rba, view())["equation[0]"]
    size = abs(float(f @ vector(ROWS["equation[0]"][0])))
    close(balanced["equation[0]"], f * (size + math.sqrt(226)) / size, rtol=1e-13)
    assert isinstance(product * GradNorm(), Product)
    assert len((product * GradNorm()).parts) == 3
    assert eval(repr(product * Fixed({"dirichlet": 2.0}))) == product * Fixed({"dirichlet": 2.0})


def test_every_part_keeps_its_own_pace():
    product = RBA(every=2) * GradNorm(every=3)
    assert [i for i in range(7) if product.due(i, 1)] == [0, 2, 3, 4, 6]
    start = begin(product)
    new = product.update(start, view(iteration=3))
    assert new["parts"][0] is start["parts"][0]
    assert new["parts"][1] is not start["parts"][1]
    # Left to itself a scheme follows the optimiser.
    assert [i for i in range(41) if RBA().due(i, 20)] == [0, 20, 40]
    assert not GradNorm().due(20, 20)


def test_points_that_stay_keep_their_weight():
    moved = Term("equation[0]", T[:3, None], torch.ones(1, dtype=F64), 3)
    layout = Layout((moved, VALUE), LAYOUT.intervals)
    origin = {"equation[0]": torch.tensor([2, -1, 0])}
    rba = RBA(eta=0.1, gamma=0.9)
    state = rba.update(begin(rba), view())
    old = state["lambda"]["equation[0]"]
    new = rba.moved(state, layout, origin)["lambda"]["equation[0]"]
    close(new, torch.stack([old[2], old.mean(), old[0]]))
    adaptive = SelfAdaptive(random=False)
    state = adaptive.update(begin(adaptive), view())
    kept = adaptive.moved(state, layout, origin)
    close(
        kept["first"]["equation[0]"],
        [float(state["first"]["equation[0]"][2]), 0.0, float(state["first"]["equation[0]"][0])],
    )
    assert torch.equal(kept["lambda"]["dirichlet"], state["lambda"]["dirichlet"])
    causal = Causal(chunks=2) * rba
    places = causal.moved(begin(causal), layout, origin)["parts"][0]["places"]["equation[0]"]
    assert places.tolist() == [0, 0, 1]


ALL = [
    Fixed({"equation": 2.0}),
    RBA(),
    RBA(normalisation="min-max"),
    SelfAdaptive(),
    SelfAdaptive(mask="sigmoid"),
    GradNorm(),
    GradNorm("annealing"),
    NTK(),
    NTK("sum"),
    ReLoBRaLo(),
    SoftAdapt(loss_weighted=True),
    Causal(),
    RBA() * Causal() * GradNorm(),
]
SIZES = st.floats(-1e8, 1e8).map(lambda x: x if abs(x) > 1e-12 else 0.0)


def test_every_registered_weighting_is_among_those_tested():
    assert {type(w) for w in ALL} - {Product} == {row for _, row in WEIGHTINGS.items()}


@pytest.mark.parametrize("weighting", ALL, ids=repr)
@given(numbers=st.lists(st.lists(SIZES, min_size=6, max_size=6), min_size=1, max_size=3))
@settings(max_examples=15, deadline=None)
def test_factors_are_positive_finite_and_outside_any_graph(weighting, numbers):
    state = begin(weighting)
    for i, values in enumerate(numbers):
        rows = {"equation[0]": [values[:4]], "dirichlet": [values[4:]]}
        state = weighting.update(state, view(rows, iteration=600 * i))
    for name, factor in weighting.factors(state).items():
        assert name in LAYOUT.names
        assert factor.dtype == F64 and not factor.requires_grad
        assert bool(torch.isfinite(factor).all())
        assert bool((factor > 0).all())
    assert all(math.isfinite(value) for value in weighting.describe(state).values())
    assert eval(repr(weighting)) == weighting


@pytest.mark.parametrize("weighting", [GradNorm(), NTK(), ReLoBRaLo(), SoftAdapt(), RBA() * NTK()], ids=repr)
def test_a_balance_of_one_term_is_idle(weighting):
    assert "has one" in weighting.idle(Layout((EQUATION,), {"t": (0.0, 1.0)}))
    assert weighting.idle(LAYOUT) is None


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: RBA(eta=0.0), ArgumentError),
        (lambda: RBA(gamma=1.0), ArgumentError),
        (lambda: RBA(normalisation="mean"), UnknownNameError),
        (lambda: RBA(power=3), ArgumentError),
        (lambda: RBA(every=0), ArgumentError),
        (lambda: RBA(terms=()), DtypeError),
        (lambda: SelfAdaptive(init={"a": -1.0}), ArgumentError),
        (lambda: SelfAdaptive(random=1), DtypeError),
        (lambda: GradNorm("max"), UnknownNameError),
        (lambda: NTK(momentum=-0.1), ArgumentError),
        (lambda: ReLoBRaLo(temperature=0.0), ArgumentError),
        (lambda: Causal(schedule=()), DtypeError),
        (lambda: Causal(delta="0.9"), DtypeError),
        (lambda: Fixed({}), DtypeError),
        (lambda: Fixed({"equation": float("nan")}), ArgumentError),
        (lambda: Product((RBA(),)), ArgumentError),
    ],
)
def test_what_cannot_be_is_refused(make, error):
    with pytest.raises(error):
        make()
    with pytest.raises(TypeError):
        RBA() * 2
