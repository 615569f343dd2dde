"""Hard conditions hold for random networks, and their derivatives are those of nested autograd."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import ntangent as nt
from ntangent import pinn
from ntangent._base.errors import NtangentError, ProblemError
from ntangent.jet import variable
from ntangent.optim import LevenbergMarquardt
from ntangent.pinn.domains import Ball, Box, Disc, Interval, Polygon, Shell
from ntangent.pinn.hard import Trace, clamped, compose, dirichlet, initial, neumann, robin
from ntangent.pinn.hard.along import along, plain
from ntangent.pinn.hard.data import Data
from ntangent.pinn.hard.line import End, Line

F64 = torch.float64
BOX = Box(x=(-1, 2), t=(0, 1.5))
CUBE = Box(x=(0, 1), y=(-1, 1), t=(0, 2))
DISC = Disc((0.2, 0.1), 1.5)
POLYGON = Polygon([(0, 0), (2, 0), (2, 2), (1, 0.5), (0, 2)])
HOLED = Box(x=(-1, 1), y=(-1, 1)) - Disc(radius=0.5)
CYLINDER = Disc() * Box(t=(0, 1))
BEAM = Interval(x=(0, 2))


def wave(x, t):
    return torch.sin(x) * torch.exp(-t)


def slope(x, t):
    return torch.cos(x) * torch.exp(-t)


def mixed(x, y):
    return torch.sin(x) * y


# name: domain, conditions
CASES = {
    "ode": (BEAM, initial(Interval(t=(0, 2)), [1.0, -2.0, 0.5]), Interval(t=(0, 2))),
    "interval": (BEAM, dirichlet(BEAM.face(x=0), 1.0) + dirichlet(BEAM.face(x=2), -3.0)),
    "cantilever": (
        BEAM,
        [
            *clamped(BEAM.face(x=0), 1.0, 0.5),
            Trace(BEAM.face(x=2), ((2, 1.0),)),
            Trace(BEAM.face(x=2), ((3, 1.0),), 0.5),
        ],
    ),
    "free ends": (BEAM, neumann(BEAM.boundary, 0.0)),
    "all faces": (BOX, dirichlet(BOX.boundary, wave)),
    "all faces of a cube": (CUBE, dirichlet(CUBE.boundary, lambda x, y, t: torch.sin(x * y) + t)),
    "two faces": (BOX, dirichlet(BOX.face(x=-1), 1.0) + dirichlet(BOX.face(x=2), lambda t: 2 + t)),
    "hot wall": (
        BOX,
        dirichlet(BOX.face(x=(-1, 2)), lambda x: torch.sin(x)) + initial(BOX, [lambda x: torch.sin(x)]),
    ),
    "neumann": (
        BOX,
        neumann(BOX.face(x=2), slope) + neumann(BOX.face(x=-1), lambda x, t: -slope(x, t)),
    ),
    "all neumann": (
        BOX,
        neumann(BOX.face(x=2), slope)
        + neumann(BOX.face(x=-1), lambda x, t: -slope(x, t))
        + neumann(BOX.face(t=0), wave)
        + neumann(BOX.face(t=1.5), lambda x, t: -wave(x, t)),
    ),
    "mixed with two initial": (
        BOX,
        neumann(BOX.face(x=2), slope)
        + dirichlet(BOX.face(x=-1), wave)
        + initial(BOX, [lambda x: torch.sin(x), lambda x: -torch.sin(x)]),
    ),
    "robin": (
        BOX,
        robin(BOX.face(x=2), 2.0, 3.0, lambda x, t: 2 * wave(x, t) + 3 * slope(x, t))
        + neumann(BOX.face(t=0), wave)
        + dirichlet(BOX.face(t=1.5), wave),
    ),
    "plate": (BOX, clamped(BOX.boundary)),
    "disc": (DISC, dirichlet(DISC.boundary, mixed)),
    "clamped disc": (DISC, clamped(DISC.boundary, mixed, lambda x, y: x * y)),
    "disc neumann": (DISC, neumann(DISC.boundary, mixed)),
    "disc robin": (DISC, robin(DISC.boundary, 1.0, -2.0, mixed)),
    "ball": (Ball(), dirichlet(Ball().boundary, lambda x, y, z: x * y + z)),
    "annulus": (
        Shell(),
        dirichlet(Shell().boundary["inner"], 1.0) + dirichlet(Shell().boundary["outer"], lambda x, y: x),
    ),
    "polygon": (POLYGON, dirichlet(POLYGON.boundary, mixed)),
    "two edges": (
        POLYGON,
        dirichlet(POLYGON.boundary["edge 0"], 1.0) + dirichlet(POLYGON.boundary["edge 3"], lambda x, y: x),
    ),
    "holed": (
        HOLED,
        dirichlet(HOLED.boundary["circle"], 1.0) + dirichlet(HOLED.face(x=(-1, 1)), lambda x, y: y),
    ),
    "cylinder": (
        CYLINDER,
        dirichlet(CYLINDER.boundary["circle"], lambda x, y, t: x * torch.exp(-t))
        + initial(CYLINDER, [lambda x, y: x]),
    ),
    "cylinder neumann": (
        CYLINDER,
        neumann(CYLINDER.boundary["circle"], lambda x, y, t: x * torch.exp(-t))
        + initial(CYLINDER, [lambda x, y: x]),
    ),
}
PARAMS = [pytest.param(row[-1] if len(row) == 3 else row[0], row[1], id=n) for n, row in CASES.items()]


def network(domain, outputs=1, seed=0):
    return nt.MLP(domain.dimension, outputs, width=8, depth=2, dtype=F64, generator=seed)


def draw(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return lambda n, d: torch.rand(n, d, generator=generator, dtype=F64)


def missed(ansatz, net, trace, count=60):
    """How far a condition is missed, its normal derivatives by nested autograd on tensors."""
    points, normals = trace.where.sample(count, draw())
    wanted = Data(trace.value, ansatz.domain.names)(plain(points)).value[:, 0]
    s = torch.zeros(len(points), 1, dtype=F64, requires_grad=True)
    value = ansatz(net, points + s * normals)[:, trace.component : trace.component + 1]
    terms, total = dict(trace.terms), torch.zeros_like(wanted)
    for k in range(max(terms) + 1):
        total = total + terms.get(k, 0.0) * value[:, 0]
        if k < max(terms):
            (value,) = torch.autograd.grad(value.sum(), s, create_graph=True)
    return float((total - wanted).detach().abs().max())


@pytest.mark.parametrize(("domain", "traces"), PARAMS)
def test_conditions_hold_for_random_networks(domain, traces):
    ansatz = compose(domain, traces)
    net = network(domain)
    for trace in traces:
        assert missed(ansatz, net, trace) < 1e-13


@pytest.mark.parametrize(("domain", "traces"), PARAMS)
def test_derivatives_in_the_domain_are_those_of_nested_autograd(domain, traces):
    ansatz, net = compose(domain, traces), network(domain)
    points = domain.sample(20, draw())
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(domain.dimension, generator=generator, dtype=F64)
    direction /= direction.norm()
    series = ansatz(net, variable(points, 2, direction))
    s = torch.zeros(len(points), 1, dtype=F64, requires_grad=True)
    value = ansatz(net, points + s * direction)
    assert value.shape == (20, 1)
    for k in range(3):
        # Near corners the distance functions have large derivatives; errors are relative to those.
        assert torch.allclose(series.derivative(k), value, rtol=1e-9, atol=1e-9)
        (value,) = torch.autograd.grad(value.sum(), s, create_graph=True)


@pytest.mark.parametrize(("domain", "traces"), PARAMS)
def test_the_network_still_counts(domain, traces):
    """The field is no function of the data alone: two networks give two fields, gradients flow."""
    ansatz, net = compose(domain, traces), network(domain)
    points = domain.sample(20, draw())
    value = ansatz(net, points)
    assert float((value - ansatz(network(domain, seed=1), points)).detach().abs().min()) > 1e-9
    value.square().sum().backward()
    assert all(float(p.grad.abs().max()) > 0 for name, p in net.named_parameters() if "weight" in name)


def test_corners_of_compatible_data_are_exact():
    ansatz = compose(BOX, dirichlet(BOX.boundary, wave))
    corners = torch.tensor([[-1, 0], [-1, 1.5], [2, 0], [2, 1.5]], dtype=F64)
    value = ansatz(network(BOX), corners)
    assert torch.allclose(value, wave(corners[:, :1], corners[:, 1:]), rtol=0, atol=1e-15)


def test_components_have_their_own_conditions():
    traces = dirichlet(BOX.face(x=2), wave, 0) + neumann(BOX.face(x=2), slope, 2)
    ansatz, net = compose(BOX, traces), network(BOX, 3)
    points = BOX.sample(9, draw())
    value = ansatz(net, points)
    assert value.shape == (9, 3) and torch.equal(value[:, 1], net(points)[:, 1])
    assert all(missed(ansatz, net, trace) < 1e-13 for trace in traces)
    with pytest.raises(ProblemError, match="component 2"):
        ansatz.check(network(BOX, 2), F64)


def test_periodic_coordinates():
    periodic = Box(x=(-1, 1), t=(0, 1))
    traces = initial(periodic, [lambda x: torch.sin(math.pi * x)])
    ansatz = compose(periodic, traces, periodic=["x"])
    embedding = nt.nn.PeriodicEmbedding([2.0, None])
    net = nn.Sequential(embedding, nt.MLP(embedding.features, 1, width=8, depth=2, dtype=F64))
    ansatz.check(net, F64)
    assert missed(ansatz, net, traces[0]) < 1e-13
    left, right = (torch.tensor([[x, 0.3]], dtype=F64) for x in (-1.0, 1.0))
    for k in range(4):
        values = [ansatz(net, variable(p, 3, 0)).derivative(k) for p in (left, right)]
        assert torch.allclose(*values, rtol=1e-12, atol=1e-13)
    with pytest.raises(ProblemError, match=r"PeriodicEmbedding\(\[2.0, None\]\)"):
        ansatz.check(network(periodic), F64)
    with pytest.raises(ProblemError, match="not periodic in x"):
        compose(periodic, initial(periodic, [lambda x: x]), periodic=["x"])
    with pytest.raises(ProblemError, match="no end"):
        compose(periodic, dirichlet(periodic.face(x=1)), periodic=["x"])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: compose(BOX, dirichlet(BOX.face(x=-1), 1.0) + initial(BOX, [0.0])), "contradict"),
        (lambda: compose(BOX, 2 * dirichlet(BOX.face(x=-1), 1.0)), "depend on each other"),
        (lambda: compose(DISC, dirichlet(DISC.boundary) + robin(DISC.boundary, 1, 1)), "no hard"),
        (
            lambda: compose(
                POLYGON, neumann(POLYGON.boundary["edge 0"]) + dirichlet(POLYGON.boundary["edge 1"])
            ),
            "no",
        ),
        (lambda: compose(BOX, dirichlet(BOX.boundary.where(lambda x, t: x < 0))), "no distance function"),
        (lambda: compose(BOX, dirichlet(BOX.boundary, torch.rand(7))), "continued"),
        (lambda: compose(BOX, dirichlet(BOX.boundary, float("nan"))), "finite"),
        (lambda: compose(BOX, dirichlet(BOX.boundary, lambda x, z: x)), "no coordinates"),
        (lambda: Trace(BOX.boundary, ()), "without terms"),
        (lambda: compose(BOX, [], periodic=["y"]), "coordinate"),
    ],
)
def test_refusals(make, match):
    with pytest.raises(NtangentError, match=match) as caught:
        make()
    assert caught.value.fix or caught.value.why


@given(
    low=st.floats(-5, 5),
    size=st.floats(0.1, 10),
    ends=st.sets(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_cardinal_polynomials(low, size, ends):
    """ℓ_i(p_j) = δ_ij, with derivatives by numpy's polynomials."""
    import numpy as np

    line = Line("x", 0, low, low + size, tuple(End(upper, ((k, 1.0),)) for upper, k in sorted(ends)))
    length = line.high - line.low
    for j, coefficients in enumerate(line.cardinals):
        for i, end in enumerate(line.ends):
            ((k, _),) = end.terms
            value = np.polynomial.Polynomial(coefficients).deriv(k)(float(end.upper)) / length**k
            scale = max(abs(c) * math.perm(m, k) for m, c in enumerate(coefficients)) / length**k
            assert value == pytest.approx(float(i == j), abs=1e-13 * max(1.0, scale))


def test_derivatives_along_a_direction_commute_with_the_series():
    """along(f) on a jet is the jet of the directional derivative: mixed derivatives of a known function."""

    def f(x):
        return torch.sin(2 * x[:, :1]) * torch.exp(x[:, 1:2])

    points = torch.rand(9, 2, dtype=F64)
    moved = along(
        f, variable(points, 4, torch.tensor([0.0, 1.0], dtype=F64)), torch.tensor([[1.0, 0.0]]).to(points), 3
    )
    x, y = points[:, :1], points[:, 1:]
    exact = [torch.sin(2 * x), 2 * torch.cos(2 * x), -4 * torch.sin(2 * x), -8 * torch.cos(2 * x)]
    for k, jet in enumerate(moved):
        assert jet.order == 4
        for m in range(5):
            assert torch.allclose(jet.derivative(m), exact[k] * torch.exp(y), rtol=1e-13, atol=1e-13)


def test_hard_conditions_of_a_problem():
    """Neumann walls and an initial state built in: the trained field of a heat equation keeps both."""
    problem = pinn.Problem(
        BOX,
        [lambda u: u.t - u.xx],
        [
            pinn.Neumann(x=(-1, 2), hard=True),
            pinn.Initial(lambda x: torch.cos(math.pi / 3 * (x + 1)), hard=True),
        ],
    )
    net = network(BOX)
    solution = pinn.solve(problem, net, [LevenbergMarquardt(5)], sampler=pinn.Sobol(64), progress=False)
    assert 0 < solution.loss < 1
    for trace in problem.built_in().traces:
        assert missed(problem.built_in(), net, trace) < 1e-13
    assert sum(len(c.blocks(problem, F64, torch.device("cpu"))) for c in problem.conditions) == 0


def test_hard_conditions_of_several_fields():
    where = {"x": -1, "hard": True}
    conditions = [
        pinn.Dirichlet(value=2.0, field="v", **where),
        pinn.Dirichlet(value=1.0, field="u", **where),
    ]
    problem = pinn.Problem(BOX, [lambda u, v: u.x + v.t], conditions, fields=("u", "v"))
    points = torch.tensor([[-1.0, 0.3], [-1.0, 1.2]], dtype=F64)
    together = problem.field(network(BOX, 2), points)
    nets = nn.ModuleDict({"u": network(BOX), "v": network(BOX, seed=1)})
    apart = problem.field(nets, points)
    for fields in (together, apart):
        assert torch.equal(fields["u"].value, torch.ones(2, 1, dtype=F64))
        assert torch.equal(fields["v"].value, 2 * torch.ones(2, 1, dtype=F64))


def test_a_problem_checks_the_period_of_its_network():
    problem = pinn.Problem(BOX, [lambda u: u.t + u.x], [pinn.Periodic("x", hard=True)])
    with pytest.raises(ProblemError, match="PeriodicEmbedding"):
        pinn.solve(problem, network(BOX), [LevenbergMarquardt(1)], progress=False)


@pytest.mark.parametrize(
    ("condition", "match"),
    [
        (pinn.Dirichlet(on=torch.tensor([[0.0, 0.5]]), hard=True), "holds at points"),
        (pinn.Robin(lambda x: x, 1.0, x=2, hard=True), "is a function"),
        (pinn.Dirichlet(x=0.5, hard=True), "no face"),
    ],
)
def test_problems_refuse_what_has_no_construction(condition, match):
    problem = pinn.Problem(BOX, [lambda u: u.t + u.x], [condition])
    with pytest.raises(ProblemError, match=match):
        problem.built_in()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_follows_the_input(dtype):
    ansatz = compose(BOX, CASES["robin"][1])
    net = nt.MLP(2, 1, width=8, depth=2, dtype=dtype, generator=0)
    points = BOX.sample(5, draw()).to(dtype)
    assert ansatz(net, points).dtype == dtype
    assert ansatz(net, variable(points, 2, 0)).dtype == dtype
