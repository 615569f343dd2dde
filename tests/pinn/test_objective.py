"""The objective against losses written out with nested autograd: values, gradients, Jacobians."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from pinn.oracle import derivatives, leaf, rows_of_jacobian, slope, trainable, weighted
from torch import Tensor, nn

import ntangent as nt
from ntangent._base.errors import ArgumentError, ProblemError
from ntangent.pinn import (
    Box,
    Chebyshev,
    Dirichlet,
    Initial,
    Neumann,
    PointData,
    Problem,
    TaylorResidual,
    Unknown,
    even,
    odd,
)
from ntangent.pinn.objective import PinnObjective

F64 = torch.float64
POINTS = 9


@dataclass(frozen=True)
class Case:
    """A problem, and its weighted residual vector written out: (U, q, x, sobolev) -> r."""

    problem: Problem
    residuals: Callable[[Callable[[Tensor], Tensor], Tensor, Tensor, list[float]], Tensor]
    symmetry: int = 0


def expanded(residual: Tensor, x: Tensor, sobolev: list[float], weight: float = 1.0) -> Tensor:
    rows = [residual]
    for _ in sobolev:
        rows.append(slope(rows[-1], x))
    return weighted(rows, [weight, *[weight * w for w in sobolev]])


def first_order(u, q, x, sobolev):
    k = 0.5 + 2.5 / (1 + torch.exp(-q[0]))
    value, first = derivatives(u, x, 1)
    start = u(leaf([0.25]))
    return torch.cat([expanded(first + k * value, x, sobolev), weighted([start - 1.0], [2.0])])


def second_order(u, q, x, sobolev):
    value, _, second = derivatives(u, x, 2)
    ends = leaf([-1.0, 2.0])
    flux = derivatives(u, ends, 1)[1] * leaf([-1.0, 1.0]) - 0.1 * ends  # outward
    return torch.cat(
        [
            expanded(second + value, x, sobolev),
            weighted([u(leaf([-1.0])) - 0.5], [3.0]),
            weighted([flux], [1.0]),
        ]
    )


def explicit_coordinate(u, q, x, sobolev):
    value, first = derivatives(u, x, 1)
    residual = x * first - torch.cos(x) * value**2 + torch.sin(2 * x)
    at = leaf([0.3, 0.7, 1.1])
    data = u(at) - torch.tensor([[1.0], [2.0], [-1.0]], dtype=F64)
    return torch.cat([expanded(residual, x, sobolev), weighted([data], [0.7])])


def initial_derivatives(u, q, x, sobolev):
    residual = derivatives(u, x, 3)[3] * u(x) - q[0] * x
    rows = derivatives(u, leaf([-0.5]), 2)
    start = [row - v for row, v in zip(rows, (1.0, 0.0, -2.0), strict=True)]
    return torch.cat([expanded(residual, x, sobolev), weighted(start, [0.5] * 3)])


def taylor_rows(u, q, x, sobolev):
    def residual(s):
        value, first = derivatives(u, s, 1)
        return first - value * torch.exp(s)

    near = leaf([0.1, 0.2])
    series = [residual(near)]
    for _ in range(4):
        series.append(slope(series[-1], near))
    picked = [series[j] / math.factorial(j) for j in (0, 2, 4)]
    return torch.cat([expanded(residual(x), x, sobolev), weighted(picked, [0.3] * 3)])


def two_equations(u, q, x, sobolev):
    a, b = q[0], 2.0 - F.softplus(q[1])
    value, first, second = derivatives(u, x, 2)
    return torch.cat(
        [
            expanded(a * first - torch.tanh(value), x, sobolev),
            expanded(second * value + b, x, sobolev),
            weighted([u(leaf([0.5])) - 0.25], [1.0]),
            weighted([u(leaf([1.0])) - 1.0], [1.0]),
        ]
    )


CASES = {
    "first-order": Case(
        Problem(
            Box(x=(0.25, 1.5)),
            [lambda u, p: u.x + p.k * u],
            [Initial(1.0, weight=2.0)],
            unknowns={"k": Unknown(1.2, bounds=(0.5, 3.0))},
        ),
        first_order,
    ),
    "second-order": Case(
        Problem(
            Box(s=(-1.0, 2.0)),
            [lambda u: u.ss + u],
            [Dirichlet(s=-1, value=0.5, weight=3.0), Neumann(s=(-1, 2), value=lambda s: 0.1 * s)],
        ),
        second_order,
    ),
    "coordinate": Case(
        Problem(
            Box(x=(0.2, 1.2)),
            [lambda u, p, x: x * u.x - torch.cos(x) * u**2 + torch.sin(2 * x)],
            [PointData([0.3, 0.7, 1.1], [1.0, 2.0, -1.0], weight=0.7)],
        ),
        explicit_coordinate,
    ),
    "initial": Case(
        Problem(
            Box(time=(-0.5, 1.0)),
            [lambda u, p, time: u.d(time=3) * u - p.a * time],
            [Initial((1.0, 0.0, -2.0), weight=0.5)],
            unknowns={"a": Unknown(0.3)},
        ),
        initial_derivatives,
    ),
    "taylor": Case(
        Problem(
            Box(x=(0.0, 1.0)),
            [lambda u, p, x: u.x - u * torch.exp(x)],
            [TaylorResidual([0.1, 0.2], (0, 2, 4), weight=0.3)],
        ),
        taylor_rows,
    ),
    "two-odd": Case(
        Problem(
            Box(x=(0.0, 1.0)),
            [lambda u, p: p.a * u.x - torch.tanh(u), lambda u, p: u.xx * u + p.b],
            [Dirichlet(x=0.5, value=0.25), Dirichlet(x=1.0, value=[1.0])],
            unknowns={"a": Unknown(1.5), "b": Unknown(0.4, bounds=(None, 2.0))},
            ansatz=odd,
        ),
        two_equations,
        symmetry=-1,
    ),
    "two-even": Case(
        Problem(
            Box(x=(0.0, 1.0)),
            [lambda u, p: p.a * u.x - torch.tanh(u), lambda u, p: u.xx * u + p.b],
            [Dirichlet(x=0.5, value=0.25), Dirichlet(x=1.0, value=[1.0])],
            unknowns={"a": Unknown(1.5), "b": Unknown(0.4, bounds=(None, 2.0))},
            ansatz=even,
        ),
        two_equations,
        symmetry=1,
    ),
}


def mlp(activation="tanh", **options):
    return nt.MLP(1, 1, width=4, depth=2, activation=activation, dtype=F64, generator=3, **options)


def partly_frozen():
    net = mlp()
    net[2].weight.requires_grad_(False)
    net[0].bias.requires_grad_(False)
    return net


STRUCTURED = {
    "tanh": mlp,
    "gelu": lambda: mlp("gelu"),
    "softplus": lambda: mlp("softplus"),
    "no-bias": lambda: mlp(bias=False),
    "frozen": partly_frozen,
}


class Scaled(nn.Module):
    """A parameter outside every linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.scale = mlp(), nn.Parameter(torch.tensor([1.3], dtype=F64))

    def forward(self, x):
        return self.net(x) * self.scale


class Shared(nn.Module):
    """A weight used by a linear layer and by a plain matrix product; the last layer may be zero."""

    def __init__(self, last: float) -> None:
        super().__init__()
        self.first, self.hidden, self.last = (nn.Linear(a, b, dtype=F64) for a, b in ((1, 4), (4, 4), (4, 1)))
        torch.manual_seed(1)
        for p in self.parameters():
            nn.init.normal_(p)
        with torch.no_grad():
            self.last.weight *= last

    def forward(self, x):
        y = torch.tanh(self.first(x))
        return self.last(torch.tanh(self.hidden(y)) + torch.sin(y @ self.hidden.weight))


class Mixing(nn.Module):
    """Points that see each other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = mlp()[:2], nn.Linear(4, 1, dtype=F64)
        nn.init.zeros_(self.last.weight)

    def forward(self, x):
        y = self.first(x)
        return self.last(y - y.mean(0, keepdim=True))


def weight_norm():
    net = mlp()
    nn.utils.parametrizations.weight_norm(net[2])
    return net


GENERAL = {
    "scaled": Scaled,
    "shared": lambda: Shared(1.0),
    "shared behind zeros": lambda: Shared(0.0),
    "weight norm": weight_norm,
}


def setup(case, make, sobolev):
    net = make()
    points = Chebyshev(POINTS).points(case.problem.domain, F64, torch.device("cpu"))
    objective = PinnObjective(case.problem, net, points, sobolev)
    theta = objective.start()
    if case.problem.unknowns:
        theta[-len(case.problem.unknowns) :] += 0.1
    return net, points, objective, theta


def expected(case, net, points, theta, sobolev):
    """Return the oracle's residuals and their Jacobian, the network holding theta already."""
    q = theta[len(theta) - len(case.problem.unknowns) :].clone().requires_grad_()
    sign = case.symmetry

    def u(x):
        return net(x) if sign == 0 else 0.5 * (net(x) + sign * net(-x))

    r = case.residuals(u, q, leaf(points), sobolev)
    return r.detach(), rows_of_jacobian(r, [*trainable(net), q])


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> bool:
    return bool((a - b).norm() <= tolerance * b.norm())


@pytest.mark.parametrize("sobolev", [[], [1.0], [0.5, 2.0, 0.1]], ids=["plain", "one", "three"])
@pytest.mark.parametrize("name", CASES)
def test_loss_gradient_and_jacobian_are_those_written_out(name, sobolev):
    case = CASES[name]
    net, points, objective, theta = setup(case, mlp, sobolev)
    loss, gradient = objective.value_and_gradient(theta)
    r, jacobian = objective.residuals_and_jacobian(theta)
    r_true, jacobian_true = expected(case, net, points, theta, sobolev)
    assert objective._structured
    assert close(loss, r_true @ r_true)
    assert close(gradient, 2 * jacobian_true.T @ r_true)
    assert close(r, r_true)
    assert close(jacobian, jacobian_true)
    assert torch.equal(objective.residuals(theta), r)
    assert close(objective.residuals(theta).square().sum(), loss, 1e-14)
    assert sum(objective.terms(theta).values()) == pytest.approx(float(loss), rel=1e-12)


# The backward pass of torch's own weight norm has no batched form; torch says so and loops.
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", ["first-order", "two-odd", "taylor"])
@pytest.mark.parametrize("network", {**STRUCTURED, **GENERAL})
def test_jacobian_for_every_kind_of_network(network, name):
    case, make = CASES[name], {**STRUCTURED, **GENERAL}[network]
    net, points, objective, theta = setup(case, make, [0.5])
    r, jacobian = objective.residuals_and_jacobian(theta)
    assert objective._structured == (network in STRUCTURED)
    r_true, jacobian_true = expected(case, net, points, theta, [0.5])
    assert close(r, r_true)
    assert close(jacobian, jacobian_true)


def test_points_that_see_each_other_need_the_general_method():
    case = CASES["first-order"]
    net, _, objective, theta = setup(case, Mixing, [])
    objective.residuals_and_jacobian(theta)
    assert objective._structured is False
    objective.load(theta + 0.3)
    raw = (theta[-1:] + 0.3).clone().requires_grad_()
    truth = rows_of_jacobian(objective._vector(list(raw)), [*trainable(net), raw])
    assert close(objective.residuals_and_jacobian(theta + 0.3)[1], truth)


def test_sobolev_terms_are_derivatives_of_the_residual():
    case = CASES["coordinate"]
    net, points, objective, theta = setup(case, mlp, [1.0, 1.0, 1.0])
    residuals = objective.residuals(theta)
    x = leaf(points)
    value, first = derivatives(net, x, 1)
    row = x * first - torch.cos(x) * value**2 + torch.sin(2 * x)
    for k in range(4):
        got = residuals[k * POINTS : (k + 1) * POINTS] * POINTS**0.5
        assert close(got, row[:, 0], 1e-12), k
        row = slope(row, x)


def test_frozen_network_with_an_unknown():
    case = CASES["first-order"]
    net, points, objective, theta = setup(case, lambda: mlp().requires_grad_(False), [])
    assert len(theta) == 1
    r, jacobian = objective.residuals_and_jacobian(theta)
    r_true, jacobian_true = expected(case, net, points, theta, [])
    assert close(r, r_true)
    assert close(jacobian, jacobian_true)
    assert close(objective.value_and_gradient(theta)[1], 2 * jacobian_true.T @ r_true)


def test_unknowns_are_reported_inside_their_bounds():
    _, _, objective, _ = setup(CASES["two-odd"], mlp, [])
    found = objective.unknowns(objective.start())
    assert found == pytest.approx({"a": 1.5, "b": 0.4}, rel=1e-14)
    assert list(found) == ["a", "b"]


def test_loading_copies_theta():
    net, _, objective, theta = setup(CASES["first-order"], mlp, [])
    before = theta.clone()
    objective.load(theta)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1.0)
    assert torch.equal(theta, before)


def test_terms_keep_conditions_of_one_kind_apart():
    _, _, objective, theta = setup(CASES["two-odd"], mlp, [])
    terms = objective.terms(theta)
    assert list(terms) == ["equation[0]", "equation[1]", "dirichlet[0]", "dirichlet[1]"]
    assert len(set(terms.values())) == 4


def test_equation_weights_multiply_the_mean_squares():
    problem, net = CASES["two-odd"].problem, mlp()
    points = Chebyshev(POINTS).points(problem.domain, F64, torch.device("cpu"))
    plain = PinnObjective(problem, net, points)
    heavy = PinnObjective(problem, net, points, equation_weights=(2.0, 0.0))
    theta = plain.start()
    a, b = plain.terms(theta), heavy.terms(theta)
    assert b["equation[0]"] == pytest.approx(2 * a["equation[0]"], rel=1e-13)
    assert b["equation[1]"] == 0
    for wrong in ([1.0], [1.0, -1.0], [1.0, math.nan], []):
        with pytest.raises(ArgumentError, match="weight"):
            PinnObjective(problem, net, points, equation_weights=wrong)


def objective_of(equations, unknowns=None, net=None, **more):
    problem = Problem(Box(x=(0, 1)), equations, unknowns=unknowns or {}, **more)
    return PinnObjective(problem, net or mlp(), Chebyshev(4).points(problem.domain, F64, torch.device("cpu")))


def test_an_unknown_that_nothing_depends_on_is_refused():
    with pytest.raises(ProblemError, match=r"unknown\(s\) m\b"):
        objective_of([lambda u, p: u.x + p.k * u], {"k": Unknown(1.0), "m": Unknown(1.0)})
    with pytest.raises(ProblemError, match="k"):
        objective_of([lambda u, p: u.x + p.k.item() * u], {"k": Unknown(1.0)})


def test_an_unknown_may_live_in_a_condition_only():
    class Level:
        def blocks(self, problem, dtype, device):
            (block,) = Dirichlet(x=0.0).blocks(problem, dtype, device)
            rows = block.rows
            object.__setattr__(block, "rows", lambda u, p, x: rows(u, p, x) - p.k)
            return [block]

    objective = objective_of([lambda u: u.x], {"k": Unknown(1.0)}, conditions=[Level()])
    assert objective.value_and_gradient(objective.start())[1][-1] != 0


def test_a_foreign_tensor_that_wants_training_is_refused():
    k = nn.Parameter(torch.ones((), dtype=F64))
    for equation in (lambda u: u.x + k * u, lambda u: u.x + torch.tanh(k.exp()) * u):
        with pytest.raises(ProblemError, match=r"Unknown|detach"):
            objective_of([equation])
    objective_of([lambda u: u.x + k.detach() * u])


class Nested(nn.Module):
    """A network whose series is computed by nested reverse mode, which makes leaves of its own."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return nt.jet(self.net, x.value, x.order, backend="autograd")


def test_a_network_may_differentiate_itself():
    net, points = mlp(), Chebyshev(7).points(Box(x=(0.0, 1.0)), F64, torch.device("cpu"))
    problem = Problem(domain=Box(x=(0.0, 1.0)), equations=[lambda u: u.xxx + u * u.x])
    pairs = []
    for network in (net, Nested(net)):
        objective = PinnObjective(problem, network, points, [1.0])
        pairs.append(objective.value_and_gradient(objective.start()))
    assert close(pairs[1][0], pairs[0][0])
    assert close(pairs[1][1], pairs[0][1])


def test_nothing_to_train_is_refused():
    with pytest.raises(ProblemError, match="nothing to train"):
        objective_of([lambda u: u.x], net=mlp().requires_grad_(False))


def test_parameters_may_have_any_memory_layout():
    """A transposed weight is not contiguous: the same network, parameters in another layout."""
    net, other = (nt.MLP(1, 1, width=4, depth=2, dtype=torch.float64, generator=0) for _ in range(2))
    other[2].weight = torch.nn.Parameter(other[2].weight.detach().T.contiguous().T)
    assert not other[2].weight.is_contiguous()
    problem = Problem(Box(x=(0.0, 1.0)), [lambda u: u.xx + u], [Dirichlet(x=0.0, value=1.0)])
    points = torch.linspace(0.0, 1.0, 7, dtype=torch.float64)[:, None]
    a, b = (PinnObjective(problem, f, points) for f in (net, other))
    theta = a.start()
    assert torch.equal(theta, b.start())
    for _ in range(3):
        for left, right in zip(a.value_and_gradient(theta), b.value_and_gradient(theta), strict=True):
            assert torch.allclose(left, right, rtol=1e-12, atol=1e-14)
        theta = theta + 0.1
