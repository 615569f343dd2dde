"""Equations in several coordinates and fields against residuals written out with nested autograd."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from pinn.oracle import rows_of_jacobian, trainable, weighted
from torch import Tensor, nn

import ntangent as nt
from ntangent._base.errors import ArgumentError, NtangentError, ProblemError, ShapeError, UnknownNameError
from ntangent.pinn import (
    Box,
    Chebyshev,
    Dirichlet,
    Initial,
    Integral,
    Interface,
    Neumann,
    Operator,
    Output,
    Periodic,
    PointData,
    Problem,
    Robin,
    Uniform,
    Unknown,
)
from ntangent.pinn.objective import PinnObjective

F64, CPU = torch.float64, torch.device("cpu")
SQUARE = Box(x=(-1.0, 1.0), t=(0.0, 1.0))


class Nested:
    """Functions of points with their derivatives by nested autograd."""

    def __init__(self, call: Callable[[Tensor], Tensor], points: Tensor) -> None:
        self.points = points.detach().clone().requires_grad_()
        self.columns = [self.points[:, i : i + 1] for i in range(points.shape[1])]
        self.values = call(self.points)

    def d(self, value: Tensor, *axes: int) -> Tensor:
        for axis in axes:
            if not value.requires_grad:
                return torch.zeros_like(self.points[:, :1])
            (g,) = torch.autograd.grad(value.sum(), self.points, create_graph=True, allow_unused=True)
            value = torch.zeros_like(self.points[:, :1]) if g is None else g[:, axis : axis + 1]
        return value


@dataclass(frozen=True)
class Case:
    """Equations, and the same written out: (nested, components, raw unknowns) -> residuals."""

    domain: Box
    equations: Sequence[Callable[..., Any]]
    written: Callable[[Nested, list[Tensor], Tensor], list[Tensor]]
    fields: Any = ("u",)
    unknowns: dict[str, Unknown] = field(default_factory=dict)


def burgers(n, u, q):
    (v,) = u
    return [n.d(v, 1) + v * n.d(v, 0) - q[0] * n.d(v, 0, 0)]


def kdv(n, u, q):
    (v,) = u
    return [n.d(v, 1) + 6 * v * n.d(v, 0) + n.d(v, 0, 0, 0)]


def biharmonic(n, u, q):
    (v,) = u
    x, y = n.columns
    return [n.d(v, 0, 0, 0, 0) + 2 * n.d(v, 0, 0, 1, 1) + n.d(v, 1, 1, 1, 1) - torch.sin(x) * y]


def cavity(n, u, q):
    (s,) = u
    w = n.d(s, 0, 0) + n.d(s, 1, 1)
    return [n.d(s, 1) * n.d(w, 0) - n.d(s, 0) * n.d(w, 1) - 0.01 * (n.d(w, 0, 0) + n.d(w, 1, 1))]


def schroedinger(n, u, q):
    a, b = u
    size = a**2 + b**2
    return [n.d(a, 1) + 0.5 * n.d(b, 0, 0) + size * b, n.d(b, 1) - 0.5 * n.d(a, 0, 0) - size * a]


def flux(n, u, q):
    (v,) = u
    x, t = n.columns
    return [n.d(v, 1) - n.d((1 + x**2 * v**2) * n.d(v, 0), 0) + n.d(torch.exp(v) * t, 1)]


def vector(n, u, q):
    a, b, p = u
    return [n.d(a, 0) + n.d(b, 1), a * n.d(a, 0) + b * n.d(a, 1) + n.d(p, 0)]


def family(n, u, q):
    (v,) = u
    x, _, k = n.columns
    return [n.d(v, 1) - k * n.d(v, 0, 0) + x]


CASES = {
    "burgers": Case(
        SQUARE,
        [lambda u, p: u.t + u * u.x - p.nu * u.xx],
        burgers,
        unknowns={"nu": Unknown(0.3)},
    ),
    "kdv": Case(SQUARE, [lambda u: u.t + 6 * u * u.x + u.xxx], kdv),
    "biharmonic": Case(
        Box(x=(0, 1), y=(0, 1)),
        [lambda y, u, x: u.xxxx + 2 * u.d(x=2, y=2) + u.yyyy - torch.sin(x) * y],
        biharmonic,
    ),
    "stream": Case(
        Box(x=(0, 1), y=(0, 1)),
        [lambda s: s.y * s.laplacian().x - s.x * s.laplacian().y - 0.01 * s.laplacian().laplacian("x", "y")],
        cavity,
        fields=("s",),
    ),
    "schroedinger": Case(
        SQUARE,
        [
            lambda a, b: a.t + 0.5 * b.xx + (a**2 + b**2) * b,
            lambda b, a: b.t - 0.5 * a.xx - (a**2 + b**2) * a,
        ],
        schroedinger,
        fields=("a", "b"),
    ),
    "flux": Case(
        SQUARE,
        [lambda u, x, t: u.t - ((1 + x**2 * u**2) * u.x).x + (torch.exp(u) * t).t],
        flux,
    ),
    "vector": Case(
        Box(x=(0, 1), y=(0, 1)),
        [
            lambda w: w[..., 0].x + w[:, 1].y,
            lambda w, q: w[..., 0] * w.x[..., 0] + w[..., 1] * w[..., 0].y + q.x,
        ],
        vector,
        fields={"w": 2, "q": 1},
    ),
    "family": Case(
        Box(x=(0, 1), t=(0, 1), k=(0.1, 1)),
        [lambda u, x, k: u.t - k * u.xx + x],
        family,
    ),
}


def objective_of(case, sobolev=(), conditions=(), **more):
    problem = Problem(case.domain, case.equations, conditions, unknowns=case.unknowns, fields=case.fields)
    d, c = case.domain.dimension, sum(problem.components.values())
    net = nt.MLP(d, c, width=5, depth=2, dtype=F64, generator=2)
    points = Uniform(7, seed=3).points(case.domain, F64, CPU)
    return PinnObjective(problem, net, points, sobolev, **more)


def written(case, objective, q, sobolev):
    n = Nested(objective.net, objective.points)
    rows, weights = [], []
    for residual in case.written(n, list(n.values.split(1, 1)), q):
        d = case.domain.dimension
        rows.append(residual)
        weights.append(1.0)
        for order, weight in enumerate(sobolev, 1):
            for b in sorted((b for b in _indices(d, order)), key=lambda b: tuple(-k for k in b)):
                rows.append(n.d(residual, *[i for i, k in enumerate(b) for _ in range(k)]))
                weights.append(weight)
    return weighted(rows, weights)


def _indices(d, order):
    if d == 1:
        return [(order,)]
    return [(k, *rest) for k in range(order + 1) for rest in _indices(d - 1, order - k)]


def close(a, b, tolerance=1e-11):
    return bool((a - b).norm() <= tolerance * b.norm())


@pytest.mark.parametrize("sobolev", [[], [0.5], [1.0, 0.25]], ids=["plain", "one", "two"])
@pytest.mark.parametrize("name", CASES)
def test_residuals_gradients_and_jacobians_are_those_written_out(name, sobolev):
    case = CASES[name]
    objective = objective_of(case, sobolev)
    theta = objective.start()
    q = theta[len(theta) - len(case.unknowns) :].clone().requires_grad_()
    truth = written(case, objective, q, sobolev)
    inputs = [*trainable(objective.net), q]
    jacobian_true = rows_of_jacobian(truth, inputs)
    r, jacobian = objective.residuals_and_jacobian(theta)
    loss, gradient = objective.value_and_gradient(theta)
    assert objective._structured
    assert close(r, truth.detach())
    assert close(jacobian, jacobian_true)
    assert close(gradient, 2 * jacobian_true.T @ truth.detach())
    assert float(loss) == pytest.approx(float(truth.detach() @ truth.detach()), rel=1e-12)


@pytest.mark.parametrize("name", ["burgers", "flux", "vector"])
def test_only_what_is_needed_is_carried(name):
    (one,) = objective_of(CASES[name]).passes
    assert {"burgers": 4, "flux": 4, "vector": 3}[name] == one.evaluation.rows
    if name == "burgers":
        assert one.parts[0].within.trivial


def test_equations_on_the_same_points_share_one_evaluation():
    calls = []
    net = nt.MLP(2, 2, width=4, depth=1, dtype=F64, generator=0)
    problem = Problem(
        SQUARE,
        [lambda a, b: a.t + b.x, lambda a, b: b.t - a.xx],
        [Dirichlet(x=(-1, 1), field="a"), Dirichlet(x=(-1, 1), field="b"), Initial(0.0, field="a")],
        fields=("a", "b"),
        ansatz=lambda net, x: calls.append(len(x)) or net(x),
    )
    objective = PinnObjective(problem, net, Chebyshev(8).points(SQUARE, F64, CPU))
    calls.clear()
    objective.value_and_gradient(objective.start())
    assert len(calls) <= 3


# --- conditions ------------------------------------------------------------------------------------


def rows_of(conditions, domain=SQUARE, fields=("u",), unknowns=None):
    problem = Problem(domain, [], conditions, fields=fields, unknowns=unknowns or {})
    net = nt.MLP(domain.dimension, sum(problem.components.values()), width=4, depth=1, dtype=F64, generator=1)
    objective = PinnObjective(problem, net, Chebyshev(3).points(domain, F64, CPU))
    theta = objective.start()
    r, jacobian = objective.residuals_and_jacobian(theta)
    raw = theta[objective._split() :].clone().requires_grad_()
    truth = rows_of_jacobian(objective._vector(list(raw)), [*trainable(net), raw])
    assert close(jacobian, truth)
    assert objective._structured
    rows = objective.rows(theta)
    assert close(torch.cat([v.reshape(-1) * v.shape[1] ** -0.5 for v in rows.values()]), r)
    return objective, rows


def test_faces_are_sampled_and_keep_their_values():
    objective, rows = rows_of([Dirichlet(x=(-1, 1), value=lambda x, t: x * t, n=5)])
    (block,) = objective.blocks
    assert block.points.shape == (10, 2)
    assert sorted(set(block.points[:, 0].tolist())) == [-1.0, 1.0]
    assert len(set(block.points[:, 1].tolist())) == 5
    truth = objective.net(block.points) - block.points[:, :1] * block.points[:, 1:]
    assert close(rows["dirichlet"], truth.T.detach())
    assert torch.equal(block.normals[:, 0], block.points[:, 0])


def test_neumann_and_robin_are_outward():
    objective, rows = rows_of([Neumann(x=(-1, 1), n=4, value=0.5), Robin(2.0, lambda t: 1 + t, t=1, n=4)])
    neumann, robin = objective.blocks
    n = Nested(objective.net, neumann.points)
    truth = n.d(n.values, 0) * neumann.points[:, :1] - 0.5
    assert close(rows["neumann"], truth.T.detach())
    n = Nested(objective.net, robin.points)
    truth = 2 * n.values + 2 * n.d(n.values, 1)
    assert close(rows["robin"], truth.T.detach())


def test_initial_values_and_velocity():
    objective, rows = rows_of([Initial(lambda x: torch.sin(x), 0.25, n=6)])
    (block,) = objective.blocks
    assert not block.points[:, 1].any()
    n = Nested(objective.net, block.points)
    truth = torch.cat([n.values - torch.sin(n.columns[0]), n.d(n.values, 1) - 0.25], 1)
    assert close(rows["initial"], truth.T.detach())


def test_periodic_pairs():
    objective, rows = rows_of([Periodic("x", (0, 1, 2), n=4)])
    left, right = (Nested(objective.net, part) for part in objective.blocks[0].points.split(4))
    assert torch.equal(left.columns[1], right.columns[1])
    truth = [left.d(left.values, *[0] * k) - right.d(right.values, *[0] * k) for k in (0, 1, 2)]
    assert close(rows["periodic"], torch.cat(truth, 1).T.detach())


def test_two_fields_meet_at_an_interface():
    objective, rows = rows_of(
        [Interface("u", "v", x=0.25, n=5, jump=0.1, conductivity=(2.0, lambda x, t: 3 + t))],
        fields=("u", "v"),
    )
    n = Nested(objective.net, objective.blocks[0].points)
    u, v = n.values.split(1, 1)
    truth = [u - v - 0.1, 2 * n.d(u, 0) - (3 + n.columns[1]) * n.d(v, 0)]
    assert close(rows["interface"], torch.cat(truth, 1).T.detach())


def test_integrals_against_a_fine_rule():
    objective, rows = rows_of(
        [
            Integral(lambda u, p: u**2 + p.c, value=0.5),
            Integral(lambda u: u.x, over="x", at=3, value=lambda t: t),
        ],
        unknowns={"c": Unknown(0.1)},
    )
    fine = torch.cartesian_prod(*[(torch.arange(400, dtype=F64) + 0.5) / 400] * 2)
    fine = torch.stack([2 * fine[:, 0] - 1, fine[:, 1]], 1)
    with torch.no_grad():
        truth = 2 * (objective.net(fine).square().mean() + 0.1) - 0.5
        assert float(rows["integral[0]"][0, 0]) == pytest.approx(float(truth), rel=1e-4)
        t = (torch.arange(3, dtype=F64) + 0.5) / 3
        ends = [objective.net(torch.stack([torch.full_like(t, x), t], 1))[:, 0] for x in (-1.0, 1.0)]
    assert torch.allclose(rows["integral[1]"][0], ends[1] - ends[0] - t, rtol=1e-12, atol=1e-14)


def test_operators_hold_on_a_part():
    objective, rows = rows_of([Operator(lambda u, t: u.x + t * u.t, x=0.5, n=4)])
    n = Nested(objective.net, objective.blocks[0].points)
    truth = n.d(n.values, 0) + n.columns[1] * n.d(n.values, 1)
    assert close(rows["operator"], truth.T.detach())
    part = Box(x=(0.0, 0.5), t=(0.5, 1.0))
    objective, _ = rows_of([Operator(lambda u: u.x, on=part, sampler=Chebyshev(3))])
    assert float(objective.points[:, 0].min()) < 0 <= float(objective.blocks[0].points[:, 0].min())


def test_data_of_several_fields_and_components():
    points = torch.tensor([[0.1, 0.2], [0.3, 0.4], [-0.5, 1.0]], dtype=F64)
    values = {"w": torch.arange(6, dtype=F64).reshape(3, 2), "v": [1.0, 2.0, 3.0]}
    objective, rows = rows_of([PointData(points, values)], fields={"w": 2, "v": 1})
    y = objective.net(points).detach()
    assert close(rows["data[0]"], (y[:, :2] - values["w"]).T)
    assert close(rows["data[1]"], (y[:, 2:] - torch.tensor([[1.0], [2.0], [3.0]], dtype=F64)).T)
    objective, rows = rows_of(
        [PointData({"x": 0.5, "t": [0.0, 1.0]}, [1.0, 2.0], component=1)], fields={"w": 2}
    )
    assert torch.equal(objective.blocks[0].points, torch.tensor([[0.5, 0.0], [0.5, 1.0]], dtype=F64))


def test_vector_fields_take_values_by_component():
    objective, rows = rows_of(
        [Dirichlet(t=0, n=3, value=(1.0, 2.0)), Dirichlet(t=1, n=3, component=1, value=lambda x: x)],
        fields={"w": 2},
    )
    first, second = objective.blocks
    y = [objective.net(block.points).detach() for block in (first, second)]
    assert close(rows["dirichlet[0]"], (y[0] - torch.tensor([1.0, 2.0], dtype=F64)).T)
    assert close(rows["dirichlet[1]"], (y[1][:, 1:] - second.points[:, :1]).T)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (lambda: Dirichlet(y=0), "coordinate"),
        (lambda: Dirichlet(x=3), "outside"),
        (lambda: Dirichlet(), "coordinate"),
        (lambda: Neumann(x=0.5), "boundary"),
        (lambda: Dirichlet(x=1, field="v"), "'v'"),
        (lambda: Dirichlet(x=1, component=1), "component 1"),
        (lambda: Dirichlet(x=1, n=4, value=torch.zeros(5)), r"\(5,\) at 4"),
        (lambda: Dirichlet(x=1, value=lambda y, z, w: y), "takes y"),
        (lambda: Dirichlet(x=(), n=3), "no points"),
        (lambda: Initial(), "no values"),
        (lambda: Initial(0.0, time="s"), "'s'"),
        (lambda: Periodic("y"), "coordinate 'y'"),
        (lambda: Interface("u", "v", x=0.0), "'v'"),
        (lambda: Integral(lambda u: u, over="z"), "'z'"),
        (lambda: PointData([[0.0, 0.0, 0.0]], [1.0]), r"\(1, 3\)"),
        (lambda: PointData([[0.0, 5.0]], [1.0]), "outside"),
        (lambda: PointData({"x": [0.0]}, [1.0]), "name the coordinate"),
        (lambda: Operator(lambda u: u.y, x=1), "'y'"),
        (lambda: Dirichlet(x=1, n=0), "n must be"),
        (lambda: Dirichlet(x=1, n=3, sampler=Chebyshev(3)), "both"),
        (lambda: Dirichlet(on=[[0.0, 0.0]], x=1), "one of them"),
    ],
)
def test_conditions_that_cannot_hold(condition, words):
    with pytest.raises((NtangentError, AttributeError), match=words):
        rows_of([condition()])


def test_initial_asks_which_coordinate_is_the_time():
    with pytest.raises(ProblemError, match="time"):
        rows_of([Initial(0.0)], Box(x=(0, 1), y=(0, 1)))
    rows_of([Initial(0.0, time="y", n=3)], Box(x=(0, 1), y=(0, 1)))


# --- networks, chunks, factors -----------------------------------------------------------------------


def unknown_field():
    problem = Problem(
        SQUARE,
        [lambda u, k: u.t - (k * u.x).x],
        [Dirichlet(x=(-1, 1), n=4, field="u")],
        fields={"u": 1, "k": Output(1, coordinates=("x",))},
    )
    nets = nn.ModuleDict(
        {name: nt.MLP(d, 1, width=4, depth=1, dtype=F64, generator=d) for name, d in (("u", 2), ("k", 1))}
    )
    return problem, nets


def test_a_coefficient_field_has_its_own_network():
    problem, nets = unknown_field()
    points = Uniform(6).points(SQUARE, F64, CPU)
    objective = PinnObjective(problem, nets, points)
    r, jacobian = objective.residuals_and_jacobian(objective.start())
    n = Nested(nets["u"], points)
    k = nets["k"](n.points[:, :1])
    residual = n.d(n.values, 1) - n.d(k * n.d(n.values, 0), 0)
    bound = nets["u"](objective.blocks[1].points)
    truth = weighted([residual, bound], [1.0, 1.0])
    assert close(r, truth.detach())
    assert close(jacobian, rows_of_jacobian(truth, trainable(nets)))


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("name", ["burgers", "schroedinger"])
def test_chunks_change_nothing_but_rounding(name, chunk):
    case = CASES[name]
    condition = [Dirichlet(x=(-1, 1), n=4, field=name) for name in case.fields]
    whole, cut = (objective_of(case, [0.5], condition, chunk=c) for c in (None, chunk))
    theta = whole.start() + 0.1
    for a, b in zip(whole.value_and_gradient(theta), cut.value_and_gradient(theta), strict=True):
        assert close(b, a, 1e-13)
    for a, b in zip(whole.residuals_and_jacobian(theta), cut.residuals_and_jacobian(theta), strict=True):
        assert close(b, a, 1e-13)
    assert close(cut.residuals(theta), whole.residuals(theta), 1e-13)
    assert max(len(one.points) for one in cut.passes) <= max(chunk, 8 * len(condition))


def test_factors_weigh_squared_residuals():
    objective = objective_of(CASES["burgers"], conditions=[Dirichlet(x=1, n=3)])
    theta = objective.start()
    rows, before = objective.rows(theta), objective.version
    objective.set_factors({"equation[0]": torch.arange(7.0), "dirichlet": 4.0})
    assert objective.version == before + 1
    expected = (torch.arange(7.0, dtype=F64) * rows["equation[0]"].square()).mean()
    expected += 4 * rows["dirichlet"].square().mean()
    loss, gradient = objective.value_and_gradient(theta)
    assert float(loss) == pytest.approx(float(expected), rel=1e-12)
    r, jacobian = objective.residuals_and_jacobian(theta)
    assert close(gradient, 2 * jacobian.T @ r)
    with pytest.raises(UnknownNameError, match="dirichlet"):
        objective.set_factors({"dirichlets": 1.0})
    for wrong, error in ((torch.ones(6), ShapeError), (-1.0, ArgumentError), (math.nan, ArgumentError)):
        with pytest.raises(error):
            objective.set_factors({"equation[0]": wrong})


def test_new_points_are_those_of_the_equations():
    objective = objective_of(CASES["schroedinger"], conditions=[Dirichlet(x=1, n=3, field="a")])
    points = Uniform(4, seed=9).points(SQUARE, F64, CPU)
    objective.set_factors({"equation[1]": torch.arange(7.0)})
    objective.set_points(points)
    fresh = PinnObjective(objective.problem, objective.net, points)
    theta = objective.start()
    assert torch.equal(objective.residuals(theta), fresh.residuals(theta))
    assert objective.blocks[0].points is objective.points
    assert objective.version == 2
    with pytest.raises(ShapeError):
        objective.set_points(points[:, :1])


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 1), (1, 1), (2, 2)])
def test_networks_of_the_wrong_width_are_named(inputs, outputs):
    problem = Problem(SQUARE, [lambda u: u.t - u.xx])
    net = nt.MLP(inputs, outputs, width=4, depth=1, dtype=F64)
    with pytest.raises((ProblemError, ShapeError), match=r"MLP\(2, 1\)"):
        PinnObjective(problem, net, Uniform(5).points(SQUARE, F64, CPU))
