"""Evaluation without a graph: the same bits as with one, and refused where it would not serve."""

import copy
import math

import pytest
import torch

import ntangent as nt
from ntangent import pinn
from ntangent._base.errors import NoEffectWarning, NotRepeatable
from ntangent.jet import execute
from ntangent.jet.replay import recorded
from ntangent.pinn.objective import PinnObjective


@pytest.fixture(params=["as installed", "without kernels"], autouse=True)
def executor(request, monkeypatch):
    """Everything here holds with the compiled kernels and without them."""
    if request.param == "without kernels":
        monkeypatch.setattr(execute.native, "available", lambda: False)


LINE, SQUARE = pinn.Box(x=(0.0, 1.0)), pinn.Box(x=(0.0, 1.0), y=(0.0, 1.0))


def wave(x, y):
    return torch.sin(x) * torch.exp(y)


def laplace(u, x, y):
    return u.xx + u.yy + torch.sin(math.pi * x) * y


def poisson(*conditions, equation=laplace, domain=SQUARE, **options):
    return pinn.Problem(domain, [equation], conditions=conditions, **options)


PROBLEMS = {
    "soft": (poisson(pinn.Dirichlet(x=[0.0, 1.0]), pinn.Neumann(y=0.0)), {}),
    "hard": (poisson(*[pinn.Dirichlet(hard=True, **{c: e}) for c in "xy" for e in (0.0, 1.0)]), {}),
    "data": (poisson(*[pinn.Dirichlet(wave, hard=True, **{c: e}) for c in "xy" for e in (0.0, 1.0)]), {}),
    "neumann": (
        poisson(
            pinn.Neumann(lambda x, y: -torch.exp(y), hard=True, x=0.0),
            *[pinn.Dirichlet(wave, hard=True, **c) for c in ({"x": 1.0}, {"y": 0.0}, {"y": 1.0})],
        ),
        {},
    ),
    "beam": (
        poisson(
            pinn.Dirichlet(x=0.0),
            pinn.Operator(lambda u: u.xxx, x=1.0),
            equation=lambda u: u.xxxx + 1,
            domain=LINE,
        ),
        {"sobolev": [1.0, 0.1]},
    ),
    "unknown": (
        poisson(
            pinn.Dirichlet(x=0.0),
            equation=lambda u, p, x: u.xx + p.k * u * u.x - p.c * torch.cos(x),
            domain=LINE,
            unknowns={"k": pinn.Unknown(1.5), "c": pinn.Unknown(0.5, bounds=(0.1, 2.0))},
        ),
        {},
    ),
    "flux": (
        poisson(pinn.Dirichlet(x=0.0), equation=lambda u, x: ((1 + u * u) * u.x).x + x, domain=LINE),
        {},
    ),
    "odd": (
        poisson(
            pinn.Dirichlet(1.0, x=1.0), equation=lambda u: u.xx + u**3, domain=LINE, ansatz=pinn.odd
        ),
        {},
    ),
    "integral": (
        poisson(pinn.Integral(lambda u: u, 1.0), pinn.Dirichlet(x=0.0), equation=lambda u: u.xx, domain=LINE),
        {},
    ),
}  # fmt: skip


def objective_of(name, dtype=torch.float64, count=40, **options):
    problem, given = PROBLEMS[name]
    net = nt.MLP(problem.domain.dimension, 1, width=9, depth=2, dtype=dtype, generator=3)
    points = pinn.Uniform(count, 1).points(problem.domain, dtype, torch.device("cpu"))
    return PinnObjective(problem, net, points, **given, **options)


def ready(objective):
    """Evaluate often enough that the next evaluation is the recorded one."""
    for _ in range(2):
        objective.value_and_gradient(objective.start())
    return objective


def thetas(objective, count=3):
    generator = torch.Generator().manual_seed(5)
    start = objective.start()
    return [start + 0.3 * torch.randn(len(start), generator=generator).to(start) for _ in range(count)]


def with_graph(objective, theta):
    other = copy.copy(objective)  # a copy has no recording
    return other.value_and_gradient(theta), other.rows(theta)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PROBLEMS)
def test_same_bits_as_with_a_graph(name, dtype):
    objective = ready(objective_of(name, dtype))
    assert objective._direct is not None
    for theta in thetas(objective):
        (loss, gradient), rows = with_graph(objective, theta)
        found = objective.value_and_gradient(theta)
        assert torch.equal(found[0], loss)
        assert torch.equal(found[1], gradient)
        assert all(torch.equal(objective.rows(theta)[n], r) for n, r in rows.items())


def test_a_layer_used_twice_has_both_gradients():
    layer = torch.nn.Linear(4, 4, dtype=torch.float64)
    ends = [torch.nn.Linear(a, b, dtype=torch.float64) for a, b in ((1, 4), (4, 1))]
    bend = torch.nn.Tanh()
    net = torch.nn.Sequential(ends[0], bend, layer, bend, layer, bend, ends[1])
    problem = poisson(pinn.Dirichlet(x=0.0), equation=lambda u: u.xx + 1, domain=LINE)
    objective = ready(PinnObjective(problem, net, torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]))
    theta = thetas(objective)[0]
    assert torch.equal(objective.value_and_gradient(theta)[1], with_graph(objective, theta)[0][1])


def test_terms_are_those_of_the_rows():
    objective = ready(objective_of("soft"))
    theta = thetas(objective)[0]
    loss, _ = objective.value_and_gradient(theta)
    known, afresh = objective.terms(theta), objective.terms(theta.clone())
    assert known == afresh  # or a resumed run would write other numbers
    assert sum(known.values()) == pytest.approx(float(loss), rel=1e-13)


def test_factors_and_points_may_change():
    objective = ready(objective_of("data"))
    theta = thetas(objective)[0]
    objective.set_factors({objective.blocks[0].name: torch.linspace(0, 2, 40, dtype=torch.float64)})
    weighted = objective.value_and_gradient(theta)
    assert torch.equal(weighted[1], with_graph(objective, theta)[0][1])
    new = pinn.Uniform(31, 8).points(SQUARE, torch.float64, torch.device("cpu"))
    objective.set_points(new)
    fresh = objective_of("data", count=31)
    fresh.set_points(new)
    expected = fresh.value_and_gradient(theta)
    for _ in range(3):
        found = objective.value_and_gradient(theta)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
    assert not torch.equal(weighted[1], found[1])


BESIDE = nt.MLP(1, 1, width=5, dtype=torch.float64, generator=0)
REFUSED = {
    "random": (lambda u: u.xx + torch.rand(1, dtype=torch.float64), pinn.plain),
    "a branch on values": (lambda u: u.xx if float(u.value.detach().sum()) > 0 else u.xx + 1, pinn.plain),
    "a parameter beside the network": (lambda u: u.xx, lambda n, x: n(x) * BESIDE[0].weight.sum()),
    "a network of the network": (lambda u: u.xx, lambda n, x: n(n(x))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_repeated_keeps_its_graph(name):
    equation, ansatz = REFUSED[name]
    problem = pinn.Problem(LINE, [equation], ansatz=ansatz)
    points = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    objective = ready(PinnObjective(problem, BESIDE, points))
    assert objective._direct is None
    assert torch.isfinite(objective.value_and_gradient(objective.start())[1]).all()


def test_a_function_that_changes_is_noticed():
    slope = [1.0]
    problem = pinn.Problem(LINE, [lambda u: u.x - slope[0]])
    net = nt.MLP(1, 1, width=5, dtype=torch.float64, generator=0)
    points = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    objective = ready(PinnObjective(problem, net, points))
    theta = objective.start()
    assert objective._direct is not None
    slope[0] = 2.0
    while objective._direct._count < 9:
        objective.value_and_gradient(theta)
    with pytest.warns(NoEffectWarning, match="returns other values"):
        found = objective.value_and_gradient(theta)
    expected = PinnObjective(problem, net, points).value_and_gradient(theta)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert torch.equal(objective.value_and_gradient(theta)[0], expected[0])


def test_an_objective_with_a_recording_can_be_copied():
    objective = ready(objective_of("unknown"))
    theta = thetas(objective)[0]
    for other in (copy.copy(objective), copy.deepcopy(objective)):
        assert torch.equal(other.value_and_gradient(theta)[1], objective.value_and_gradient(theta)[1])


# --- recorded ---------------------------------------------------------------------------------------


def test_constants_are_computed_once():
    calls = []

    def constant(x):
        calls.append(1)
        return x.sin()

    weight = torch.linspace(0, 1, 4)
    repeat = recorded(lambda a: [a * constant(weight)], [torch.ones(4)])
    assert torch.equal(repeat(torch.full((4,), 3.0))[0], 3.0 * weight.sin())
    assert len(calls) == 1


def test_memory_filled_in_place():
    def fill(a):
        out = torch.zeros(5)
        out[0] = 7.0
        out[1:3] = a
        torch.mul(a, a, out=out[3:])
        return [out, out[1:].sum()]

    repeat = recorded(fill, [torch.ones(2)])
    for a in (torch.tensor([2.0, 3.0]), torch.tensor([-1.0, 0.5])):
        assert all(torch.equal(x, y) for x, y in zip(repeat(a), fill(a), strict=True))


def test_a_gradient_is_repeated():
    def gradient(a, b):
        with torch.enable_grad():
            return torch.autograd.grad((a.sin() * b).sum() ** 2, a)

    repeat = recorded(gradient, [torch.ones(3, requires_grad=True), torch.ones(3)])
    a, b = torch.tensor([0.1, 0.2, 0.3], requires_grad=True), torch.tensor([1.0, -1.0, 2.0])
    assert torch.equal(repeat(a.detach(), b)[0], gradient(a, b)[0])


KEPT = torch.zeros(2)


@pytest.mark.parametrize(
    "function",
    [
        lambda a: [a + torch.rand(2)],
        lambda a: [a * float(a.sum())],
        lambda a: [a[a > 0]],
        lambda a: [KEPT.add_(a)],
    ],
)
def test_refused(function):
    with pytest.raises(NotRepeatable):
        recorded(function, [torch.ones(2)])
