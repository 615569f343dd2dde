"""Conditions and samplers: what they prescribe, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch

from ntangent._base.errors import (
    ArgumentError,
    DtypeError,
    NonFiniteError,
    NtangentError,
    ProblemError,
    ShapeError,
)
from ntangent.jet import MLP, variable
from ntangent.pinn import (
    Box,
    Chebyshev,
    Dirichlet,
    Disc,
    Grid,
    Initial,
    Integral,
    Neumann,
    Operator,
    PointData,
    Problem,
    TaylorResidual,
    Uniform,
)
from ntangent.pinn.evaluation import handed
from ntangent.pinn.field import Parameters
from ntangent.pinn.indices import indices
from ntangent.pinn.objective import PinnObjective

F64, CPU = torch.float64, torch.device("cpu")
PROBLEM = Problem(Box(x=(0.0, 2.0)), [lambda u: u.x - u])


def rows(condition, function=torch.sin, problem=PROBLEM, dtype=F64):
    (block,) = condition.blocks(problem, dtype, CPU)
    over = indices(("x",), block.demand.fields["u"])
    x = variable(block.points, over.order)
    rows = function(x).data, over
    within = indices(("x",), block.demand.within)
    return block.rows(handed({"u": rows}, within), Parameters({}), handed({"x": (x.data, over)}, within))


@pytest.mark.parametrize(
    "value", [0.25, [0.25, 0.25], torch.tensor([[0.25], [0.25]]), lambda x: 0 * x + 0.25]
)
def test_values_may_be_numbers_lists_tensors_and_functions(value):
    got = rows(Dirichlet(x=(0.5, 1.0), value=value))
    assert torch.allclose(got, torch.sin(torch.tensor([[0.5, 1.0]], dtype=F64)) - 0.25)
    got = rows(Neumann(x=(0.0, 2.0), value=value))  # outward: to the left at the lower end
    assert torch.allclose(got, torch.tensor([[-1.0, math.cos(2.0)]], dtype=F64) - 0.25)


def test_initial_prescribes_derivatives_at_the_lower_end():
    got = rows(Initial((1.0, 2.0, 3.0)), torch.exp)
    assert torch.allclose(got, torch.tensor([[0.0], [-1.0], [-2.0]], dtype=F64))
    assert rows(Initial(1), torch.exp).shape == (1, 1)
    assert rows(Initial(torch.tensor(1.0)), torch.exp).shape == (1, 1)


def test_taylor_rows_are_coefficients():
    # R = u' - u = cos - sin; its coefficients are derivatives over factorials.
    at = torch.tensor([0.1, 0.7], dtype=F64)
    got = rows(TaylorResidual(at, [0, 3, 5]))
    cycle = [torch.cos(at) - torch.sin(at), None, None, torch.sin(at) + torch.cos(at), None]
    cycle.append(-torch.sin(at) - torch.cos(at))
    for row, j in zip(got, (0, 3, 5), strict=True):
        sign = torch.cos(at + j * math.pi / 2) - torch.sin(at + j * math.pi / 2)
        assert torch.allclose(row, sign / math.factorial(j), rtol=1e-13, atol=1e-15)


def test_prescribed_values_leave_the_graph():
    target = torch.ones(1, dtype=F64, requires_grad=True)
    assert not rows(Dirichlet(x=0.0, value=target)).requires_grad
    assert not rows(Dirichlet(x=0.0, value=lambda x: x * target)).requires_grad


@pytest.mark.parametrize(
    ("condition", "error", "words"),
    [
        (lambda: Dirichlet(x=2.5), ProblemError, "outside"),
        (lambda: Dirichlet(x=(0.0, -1.0)), ProblemError, "outside"),
        (lambda: Dirichlet(y=0.0), ProblemError, "coordinate"),
        (lambda: Dirichlet(), ProblemError, "none"),
        (lambda: Dirichlet(x=0.0, y=0.0), ProblemError, "x, y"),
        (lambda: Neumann(x=0.5), ProblemError, "boundary"),
        (lambda: Dirichlet(x=()), ShapeError, "no points"),
        (lambda: Dirichlet(x=math.nan), NonFiniteError, "points"),
        (lambda: Dirichlet(x="left"), DtypeError, "left"),
        (lambda: Dirichlet(x=torch.zeros(2, 2)), ShapeError, r"\(2, 2\)"),
        (lambda: Dirichlet(x=(0, 1), value=[1.0, 2.0, 3.0]), ShapeError, r"\(3,\) at 2"),
        (lambda: Dirichlet(x=(0, 1), value=torch.zeros(2, 2)), ShapeError, r"\(2, 2\)"),
        (lambda: Dirichlet(x=(0, 1), value=torch.zeros(1, 2)), ShapeError, r"\(1, 2\)"),
        (lambda: Dirichlet(x=(0, 1), value=lambda x: x.T), ShapeError, r"\(1, 2\)"),
        (lambda: Dirichlet(x=0, value=math.nan), NonFiniteError, "value"),
        (lambda: Dirichlet(x=0, value="one"), DtypeError, "one"),
        (lambda: Dirichlet(x=0, value=1j), DtypeError, "1j"),
        (lambda: Dirichlet(x=0, value=torch.zeros(1, dtype=torch.complex64)), DtypeError, "complex|tensor"),
        (lambda: Dirichlet(x=0, weight=0.0), ArgumentError, "weight"),
        (lambda: Dirichlet(x=0, weight=-1.0), ArgumentError, "weight"),
        (lambda: Dirichlet(x=0, weight="a"), DtypeError, "weight"),
        (lambda: Initial(()), ShapeError, "no values"),
        (lambda: Initial((1.0, math.inf)), NonFiniteError, "values"),
        (lambda: Initial(1.0, weight=0.0), ArgumentError, "weight"),
        (lambda: PointData([], []), ShapeError, "no points"),
        (lambda: PointData([0.0, 1.0], [1.0]), ShapeError, "2 points and 1 values"),
        (lambda: PointData([0.0, 3.0], [1.0, 1.0]), ProblemError, "3.0"),
        (lambda: PointData([0.0], [math.nan]), NonFiniteError, "values"),
        (lambda: PointData([0.0], [1.0], weight=-1.0), ArgumentError, "weight"),
        (lambda: TaylorResidual([], [0]), ShapeError, "no points"),
        (lambda: TaylorResidual([5.0], [0]), ProblemError, "5.0"),
        (lambda: TaylorResidual([0.0], []), ArgumentError, "at least one order"),
        (lambda: TaylorResidual([0.0], 3), DtypeError, "orders"),
        (lambda: TaylorResidual([0.0], [-1]), ArgumentError, "negative"),
        (lambda: TaylorResidual([0.0], [0.5]), DtypeError, "0.5"),
        (lambda: TaylorResidual([0.0], [0], weight=0), ArgumentError, "weight"),
        (lambda: TaylorResidual([0.0], [0], equation=1), ProblemError, "no equation 1"),
    ],
)
def test_conditions_that_cannot_hold(condition, error, words):
    with pytest.raises(error, match=words):
        rows(condition())


def test_a_symmetry_carries_conditions_beyond_the_domain():
    wide = Problem(Box(x=(0.0, 2.0)), [lambda u: u.x], extent=Box(x=(-2.0, 2.0)))
    assert rows(Dirichlet(x=-2.0), problem=wide).shape == (1, 1)
    assert rows(PointData([-1.0], [0.0]), problem=wide).shape == (1, 1)
    with pytest.raises(ProblemError):
        rows(Dirichlet(x=-2.5), problem=wide)


def test_ends_survive_rounding_to_float32():
    narrow = Problem(Box(x=(0.1, 0.3)), [lambda u: u.x])
    for point in (0.1, 0.3, 0.1 + 0.2, torch.tensor(0.3), torch.tensor([0.1])):
        assert rows(Dirichlet(x=point), problem=narrow, dtype=torch.float32).shape == (1, 1)


BOXES = [Box(x=(0, 1)), Box(x=(-0.1, 0.3)), Box(x=(1e-3, 1e3)), Box(x=(0.1, 0.7), y=(-1, 3))]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("box", BOXES, ids=repr)
@pytest.mark.parametrize("sampler", [Grid(7), Chebyshev(7), Uniform(7), Uniform(7, seed=3)], ids=repr)
def test_samplers_stay_inside_and_repeat_themselves(sampler, box, dtype):
    points = sampler.points(box, dtype, CPU)
    count = 7 if isinstance(sampler, Uniform) else 7**box.dimension
    assert points.shape == (count, box.dimension)
    assert points.dtype == dtype
    assert torch.equal(points, sampler.points(box, dtype, CPU))
    assert len(points.unique(dim=0)) == count
    for column, (_, low, high) in zip(points.T, box.intervals, strict=True):
        ends = torch.tensor([low, high], dtype=dtype)
        assert column.min() >= ends[0]
        assert column.max() <= ends[1]
        if isinstance(sampler, Grid):
            assert column.min() == ends[0]
            assert column.max() == ends[1]
            gaps = column.unique().diff()
            assert torch.allclose(gaps, gaps.mean(), rtol=1e-3 if dtype == torch.float32 else 1e-10)


def test_chebyshev_points_are_the_zeros():
    points = Chebyshev(5).points(Box(x=(-1, 1)), F64, CPU)[:, 0]
    assert torch.allclose(torch.cos(5 * torch.acos(points)), torch.zeros(5, dtype=F64), atol=1e-14)


def test_uniform_points_depend_on_the_seed_alone():
    box = Box(x=(0, 1))
    torch.manual_seed(0)
    a = Uniform(50, seed=1).points(box, F64, CPU)
    torch.rand(3)
    assert torch.equal(a, Uniform(50, seed=1).points(box, F64, CPU))
    assert not torch.equal(a, Uniform(50, seed=2).points(box, F64, CPU))
    assert 0.3 < float(a.mean()) < 0.7


@pytest.mark.parametrize(
    "make",
    [
        lambda: Grid(1),
        lambda: Grid(0),
        lambda: Grid(2.5),
        lambda: Chebyshev(0),
        lambda: Chebyshev(-1),
        lambda: Uniform(0),
        lambda: Uniform(3, seed="a"),
        lambda: Uniform(3, seed=-1),
    ],
)
def test_samplers_refuse_counts_that_are_none(make):
    with pytest.raises(NtangentError, match="fix:"):
        make()


PLATE = Box(x=(-1.0, 1.0), y=(-1.0, 1.0)) - Disc(radius=0.4)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(
    ("domain", "on", "words"),
    [
        (PLATE * Box(t=(0.0, 1.0)), PLATE.boundary["circle"], "coordinates x, y, the domain has x, y, t"),
        (Box(x=(0.0, 1.0), y=(0.0, 2.0)), Box(y=(0.0, 2.0), x=(0.0, 1.0)).boundary, "coordinates y, x"),
        (PLATE, Disc(radius=3.0).boundary, "lies outside"),
    ],
)
def test_a_place_of_another_space_is_refused(domain, on, words, hard):
    """Its points would be read in the wrong order, or ask for the field where it is not trained."""
    net = MLP(domain.dimension, 1, dtype=F64)

    def state():
        condition = Dirichlet(on=on, hard=hard)
        problem = Problem(domain, [lambda u: u.laplacian()], [condition])
        condition.blocks(problem, F64, CPU)
        problem.check_network(net, F64, CPU)

    with pytest.raises(ProblemError, match=words) as caught:
        state()
    if "boundary[" in caught.value.fix:
        name = caught.value.fix.split("boundary[")[1].split("]")[0].strip("'")
        blocks = Dirichlet(on=domain.boundary[name]).blocks(Problem(domain, [lambda u: u.x]), F64, CPU)
        assert blocks[0].points.shape == (64, domain.dimension)


def test_a_condition_holds_in_a_sub_domain():
    part = Disc((0.7, 0.7), radius=0.1)
    (block,) = Operator(lambda u: u, on=part, n=50).blocks(
        Problem(PLATE, [lambda u: u.laplacian()]), F64, CPU
    )
    assert block.points.shape == (50, 2) and bool(part.contains(block.points).all())


def test_all_unknowns_at_once_are_no_number():
    with pytest.raises(ProblemError, match="all unknowns at once"):
        Problem(Box(x=(0.0, 1.0)), [lambda u, k: u.x - k * u]).equation(0)
    with pytest.raises(ProblemError, match="all unknowns at once"):
        Problem(Box(x=(0.0, 1.0)), [lambda u, k: k * u.x]).equation(0)


def test_a_function_of_no_coordinate_is_told_their_names():
    with pytest.raises(ShapeError, match="coordinates by name") as caught:
        Initial(lambda y: torch.sin(y)).blocks(Problem(Box(x=(0, 1), t=(0, 1)), [lambda u: u.t]), F64, CPU)
    assert "lambda x, t: torch.sin(x)" in caught.value.fix


def test_an_integral_over_a_domain_that_is_no_box_is_right_to_a_thousandth():
    """∫ x² + y² over the square without a disc: 8/3 - π r⁴/2."""
    exact = 8 / 3 - math.pi * 0.4**4 / 2
    condition = Integral(lambda u, x, y: 0 * u + x**2 + y**2, value=exact)
    problem = Problem(PLATE, [lambda u: u.laplacian()], [condition])
    objective = PinnObjective(problem, MLP(2, 1, dtype=F64), torch.rand(4, 2, dtype=F64))
    gap = objective.rows(objective.start())["integral"]
    assert abs(gap.item()) < 1e-3 * exact
