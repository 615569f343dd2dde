"""What an equation may look like, how its order is counted, and what a problem refuses."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch

from ntangent._base.errors import (
    ArgumentError,
    DtypeError,
    NtangentError,
    ProblemError,
    ShapeError,
    UnknownNameError,
)
from ntangent.jet import variable
from ntangent.pinn import Box, Dirichlet, Output, Problem, Unknown
from ntangent.pinn.equation import residual_block
from ntangent.pinn.field import Field, Parameters
from ntangent.pinn.passes import plan

F64 = torch.float64
X = torch.linspace(0.2, 1.4, 5, dtype=F64)[:, None]


def problem(*equations, **more):
    return Problem(Box(x=(0.0, 2.0)), equations, **more)


def order_of(equation, **more):
    return problem(equation, **more).equation(0).order


def sine(order, name="x"):
    return Field(torch.sin(variable(X, order)), name)


class Oscillator:
    """An equation as an object."""

    def __init__(self, stiffness: float) -> None:
        self.stiffness = stiffness

    def __call__(self, u, p):
        return u.xx + self.stiffness * u

    def method(self, u, p, x):
        return u.xxx * x


def stiff(k, u, p):
    return u.x + k * u


@pytest.mark.parametrize(
    ("equation", "order"),
    [
        (lambda u: u**2, 0),
        (lambda u: u.xxx * u.x, 3),
        (lambda u: u.x * u.xxx, 3),
        (lambda u: u.d(x=5), 5),
        (lambda u: u.x.x.d(x=2), 4),
        (lambda u: ((1 + u * u) * u.x).x, 2),
        (lambda u: (-u.x).x + abs(u), 2),
        (lambda u: torch.exp(u.xx).x, 3),
        (lambda u: u.sin().x, 1),
        (lambda u: u.d(x=0), 0),
        (lambda u, p, x: x * u.x, 1),
        (lambda u, x: x * u.xx, 2),
        (lambda x, u: x * u.xx, 2),
        (lambda u, *, p: u.x * 2, 1),
        (functools.partial(lambda u, k, x: u.xx * x * k, k=2.0), 2),
        (lambda u, p=None, x=None: u.x, 1),
        (lambda u, *, k=2.0: u.x * k, 1),
        (lambda *a: a[0].xx + a[2], 2),
        (Oscillator(2.0), 2),
        (Oscillator(2.0).method, 3),
        (functools.partial(stiff, 3.0), 1),
        (functools.partial(lambda u, k: u.xx * k, k=2.0), 2),
        (lambda u: u.d(x=8), 8),
        (lambda u: u.d(x=9), 9),
        (lambda u: u.d(x=33) * u.x, 33),
        (lambda u: u.d(x=170), 170),
    ],
)
def test_the_order_of_an_equation(equation, order):
    assert order_of(equation) == order


def test_orders_out_of_range_are_refused():
    with pytest.raises(ArgumentError, match="171"):
        order_of(lambda u: u.d(x=171))


@pytest.mark.parametrize(
    ("equation", "error", "words"),
    [
        (lambda u: 1.0, DtypeError, "float"),
        (lambda u: u.value, DtypeError, "Tensor"),
        (lambda u: None, DtypeError, "NoneType"),
        (lambda u: u.sin, DtypeError, "function"),
        (lambda u: u.y, AttributeError, "u.x"),
        (lambda u: u.T, AttributeError, "u.x"),
        (lambda u: u.d(y=1), UnknownNameError, "coordinate 'y'"),
        (lambda u: u.d(x=-1), ArgumentError, "negative"),
        (lambda u: u.d(x=1.5), DtypeError, "1.5"),
        (lambda u, p: p.nu * u, UnknownNameError, "declares none"),
        (lambda u, p, x: x * 1.0, ProblemError, "uses no field"),
        (lambda: 1.0, ProblemError, "0 argument"),
        (lambda u, p, x, y: u, ProblemError, "4 argument"),
        (lambda u, *, k: u, ProblemError, "'k' is none of u, p, x"),
        ("u.x", ProblemError, "'u.x'"),
    ],
)
def test_equations_that_cannot_be_used(equation, error, words):
    with pytest.raises(error, match=words):
        order_of(equation)


def test_a_misspelt_unknown_is_pointed_out():
    with pytest.raises(UnknownNameError, match="did you mean viscosity"):
        order_of(lambda u, p: u * p.viscosty, unknowns={"viscosity": Unknown(1.0)})
    parameters = Parameters({"k": torch.ones(())})
    assert not hasattr(parameters, "__deepcopy__")


@pytest.mark.parametrize("name", ["x", "X", "t", "T", "mT", "real", "H", "grad", "sum", "time", "m", "to_x"])
def test_every_admitted_coordinate_name_means_the_derivative(name):
    box = Box(**{name: (0.0, 2.0)})
    assert box.names == (name,)
    u = sine(4, name)
    assert torch.allclose(getattr(u, name).value, torch.cos(X))
    assert torch.allclose(getattr(getattr(u, name), name).value, -torch.sin(X))
    if len(name) == 1:
        assert torch.equal(getattr(u, 3 * name).value, u.derivative(3))
    assert torch.equal(u.d(**{name: 2}).value, u.derivative(2))
    assert torch.allclose(u.derivative(2), -torch.sin(X))


@pytest.mark.parametrize("name", [n for n in dir(sine(1)) if not n.startswith("__")])
def test_names_that_would_hide_a_derivative_are_refused(name):
    # Every attribute that a field really has; `x` itself is found by __getattr__ and not listed.
    with pytest.raises(ArgumentError, match=name):
        Box(**{name: (0, 1)})


@pytest.mark.parametrize(
    "name", ["data", "order", "value", "shape", "d", "weight", "lambda", "a b", "_x", ""]
)
def test_names_that_cannot_be_written_are_refused(name):
    with pytest.raises(ArgumentError, match="cannot name a coordinate"):
        Box(**{name: (0, 1)})


@pytest.mark.parametrize(
    "ends",
    [
        (1, 1),
        (2, 1),
        (0, math.inf),
        (-math.inf, 0),
        (0, math.nan),
        3,
        (1,),
        (1, 2, 3),
        ("a", "b"),
        None,
        "ab",
    ],
)
def test_intervals_that_are_none(ends):
    with pytest.raises(ArgumentError, match="interval of x") as caught:
        Box(x=ends)
    repaired = eval(caught.value.fix, {"Box": Box})  # the fix must be one
    assert repaired.names == ("x",)


def test_a_box_needs_a_coordinate_and_knows_its_ends():
    with pytest.raises(ProblemError):
        Box()
    with pytest.raises(UnknownNameError, match="'y'"):
        Box(x=(0, 1)).interval("y")
    assert Box(x=(0, 1)).holds("x", 1.0)
    assert not Box(x=(0, 1)).holds("x", 1.001)
    assert eval(repr(Box(x=(0, 1), y=(-1, 2))), {"Box": Box}) == Box(x=(0, 1), y=(-1, 2))


@pytest.mark.parametrize(
    "expression",
    [
        lambda u: u * u,
        lambda u: -u,
        lambda u: u - 1,
        lambda u: 1 - u,
        lambda u: 2 / u,
        lambda u: 2**u,
        lambda u: u**3,
        lambda u: np.float64(2) * u,
        lambda u: u / np.float32(2),
        lambda u: torch.tensor(2.0, dtype=F64) * u,
        lambda u: torch.log(u),
        lambda u: u.tanh(),
        lambda u: torch.cat([u, u], 1)[:, 1:],
        lambda u: u.differentiate(1),
        lambda u: u.x,
        lambda u: torch.stack([u, u])[0],
    ],
)
def test_what_is_computed_from_a_field_can_be_differentiated(expression):
    result = expression(sine(4))
    assert isinstance(result, Field)
    expected = result.derivative(1)
    assert torch.equal(result.x.value, expected)
    assert result.order >= 3
    # The series itself, against a shifted evaluation of the same expression.
    h = 1e-5
    ahead, behind = (expression(Field(torch.sin(variable(X + s, 4)), "x")).value.detach() for s in (h, -h))
    assert torch.allclose(expected, (ahead - behind) / (2 * h), rtol=1e-8, atol=1e-8)


def test_a_field_reads_like_a_tensor_where_no_series_is_made():
    u = sine(2)
    assert u.size() == (5, 1)
    assert u.numel() == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"equations": lambda u: u}, "equations is"),
        ({"equations": []}, "nothing to solve"),
        ({"conditions": Dirichlet(x=0)}, "conditions is"),
        ({"conditions": ["u = 0"]}, "not a condition"),
        ({"unknowns": {"k": 1.0}}, "'k' is 1.0"),
        ({"unknowns": {"_k": Unknown(1.0)}}, "_k"),
        ({"unknowns": {"a b": Unknown(1.0)}}, "a b"),
        ({"unknowns": ["k"]}, "unknowns is"),
        ({"expected": {"k": 1.0}}, "'k'"),
        ({"ansatz": None}, "ansatz is None"),
        ({"domain": (0, 1)}, "domain is"),
        ({"fields": "u"}, "fields is"),
        ({"fields": ()}, "fields is"),
        ({"fields": ("u", "x")}, "like a coordinate"),
        ({"fields": ("u", "p")}, "like a coordinate"),
        ({"fields": ("u", "u")}, "used once"),
        ({"fields": ("a b",)}, "cannot name a field"),
        ({"fields": {"u": Output(1, coordinates=("y",))}}, "depends on"),
        ({"extent": Box(y=(0, 1))}, "extent"),
        ({"extent": Box(x=(0.5, 3))}, "does not contain"),
    ],
)
def test_statements_that_contradict_themselves(change, words):
    given = {"domain": Box(x=(0, 1)), "equations": [lambda u: u.x]} | change
    with pytest.raises(ProblemError, match=words):
        Problem(**given)


def test_an_equation_that_does_not_exist():
    for index in (1, -1):
        with pytest.raises(ProblemError, match="no equation"):
            problem(lambda u: u).equation(index)


@pytest.mark.parametrize(
    ("ansatz", "words"),
    [
        (lambda net, x: net(x.value), "Tensor"),
        (lambda net, x: torch.cat([net(x), net(x)], 1), r"\(5, 2\)"),
        (lambda net, x: net(x).sum(), r"\(\)"),
        (lambda net, x: net(x)[:3], r"\(3, 1\)"),
    ],
)
def test_an_ansatz_returns_one_field(ansatz, words):
    with pytest.raises(ProblemError, match=words):
        problem(lambda u: u, ansatz=ansatz).field(torch.sin, X, 2)


@pytest.mark.parametrize(
    ("bounds", "start"),
    [
        (None, -3.0),
        ((0.0, 1.0), 0.01),
        ((-2.0, 5.0), 4.99),
        ((0.0, None), 1e-6),
        ((0.0, None), 700.0),
        ((None, 2.0), 1.5),
        ((None, None), 4.0),
        ((0.0, math.inf), 2.0),
        ((1 / 3, 1.0), 2 / 3),
    ],
)
def test_an_unknown_starts_at_its_start_and_stays_inside(bounds, start):
    unknown = Unknown(start, bounds)
    raw = torch.tensor(unknown.raw_start, dtype=F64, requires_grad=True)
    assert float(unknown.value(raw.detach())) == pytest.approx(start, rel=1e-13)
    (slope,) = torch.autograd.grad(unknown.value(raw), raw)
    h = 1e-6
    ahead, behind = (unknown.value(raw.detach() + s) for s in (h, -h))
    assert float(slope) == pytest.approx(float(ahead - behind) / (2 * h), rel=1e-4, abs=1e-12)
    assert slope != 0
    low, high = (-math.inf if bounds is None or bounds[0] is None else bounds[0]), math.inf
    if bounds is not None and bounds[1] is not None:
        high = bounds[1]
    values = unknown.value(torch.linspace(-30, 30, 61, dtype=F64))
    assert bool((values >= low).all())
    assert bool((values <= high).all())


@pytest.mark.parametrize(
    ("start", "bounds"),
    [
        (0.0, (0.0, 1.0)),
        (1.0, (0.0, 1.0)),
        (2.0, (0.0, 1.0)),
        (1.0, (2.0, None)),
        (3.0, (None, 2.0)),
        (1.0, (2.0, 0.0)),
        (math.nan, None),
        (math.inf, None),
        (1.0, (math.nan, 2.0)),
        ("1", None),
        (True, None),
        (1.0, 5),
        (1.0, (1,)),
        (1.0, ("a", "b")),
    ],
)
def test_unknowns_that_cannot_start(start, bounds):
    with pytest.raises(NtangentError) as caught:
        Unknown(start, bounds)
    eval(caught.value.fix, {"Unknown": Unknown})  # the fix must be one


def test_residuals_of_another_shape_name_their_equation():
    for equation, shape in ((lambda u: torch.cat([u, u.x], 1), r"\(5, 2\)"), (lambda u: u.mean(), r"\(\)")):
        block = residual_block("equation[0]", problem(equation).equation(0), X, 1.0)
        with pytest.raises(ShapeError, match=rf"equation\[0\] has shape {shape}"):
            block.rows({"u": sine(3)}, Parameters({}), {})


def test_arguments_that_are_taken_and_not_used_do_no_harm():
    box = Box(x=(0.0, 1.0), t=(0.0, 1.0))
    net = functools.partial(
        torch.nn.functional.linear, weight=torch.tensor([[2.0, 3.0], [5.0, 7.0]], dtype=F64)
    )
    points = torch.tensor([[0.25, 0.5], [0.75, 0.125]], dtype=F64)
    for equation in (lambda u, v, p, x, t: u.t * x, lambda *given: given[0].t * given[3]):
        stated = Problem(box, [equation], fields=("u", "v"))
        block = residual_block("equation", stated.equation(0), points, 1.0)
        ((_, rows),) = plan(stated, [block])[0].rows(net, lambda _: Parameters({}))
        assert torch.equal(rows, 3.0 * points[None, :, 0])
