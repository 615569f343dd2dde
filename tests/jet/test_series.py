import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import ntangent as nt
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError
from ntangent.jet import Jet, compose, variable

F64 = torch.float64


def points(n: int = 4, d: int = 1) -> torch.Tensor:
    return torch.linspace(0.5, 1.5, n * d, dtype=F64).reshape(n, d)


def exp_jet(order: int = 5) -> Jet:
    return nt.jet(torch.exp, points(), order)


def test_coefficients_and_derivatives_of_exp() -> None:
    series, value = exp_jet(), torch.exp(points())
    assert torch.equal(series.value, value)
    for k in range(6):
        torch.testing.assert_close(series.coefficient(k), value / math.factorial(k))
        torch.testing.assert_close(series.derivative(k), value)


def test_shapes_with_and_without_a_direction_axis() -> None:
    x = points(3, 2)
    net = nt.MLP(2, 4, width=3, depth=1, dtype=F64, generator=0)
    several = torch.eye(2, dtype=F64)
    one = nt.jet(net, x, 3, several[0])
    assert (one.directions, one.shape, one.coefficient(2).shape) == (None, (3, 4), (3, 4))
    two = nt.jet(net, x, 3, several)
    assert (two.directions, two.coefficient(0).shape, two.coefficient(3).shape) == (2, (2, 3, 4), (2, 3, 4))
    axis = nt.jet(net, x, 3, several[:1])
    assert (axis.directions, axis.coefficient(1).shape) == (1, (1, 3, 4))
    torch.testing.assert_close(two.coefficient(2)[0], one.coefficient(2))
    torch.testing.assert_close(nt.jet(net, x, 3, -1).data, nt.jet(net, x, 3, several[1]).data)
    assert nt.derivatives(net, x, 3, several).shape == (4, 2, 3, 4)
    assert nt.derivatives(net, x, 3, 0).shape == (4, 3, 4)
    series = nt.jet(net, x, 3, several)
    assert torch.equal(series.derivatives(), torch.stack([series.derivative(k) for k in range(4)]))
    assert nt.derivatives(lambda v: v, x, 3, 0)[2:].eq(0).all()  # rows that are not stored


def test_variable_is_stored_with_two_rows() -> None:
    x = variable(points(), 9)
    assert (x.order, x.degree, x.data.shape) == (9, 1, (2, 4, 1))
    assert torch.equal(x.coefficient(7), torch.zeros(4, 1, dtype=F64))
    assert variable(points(), 0).data.shape == (1, 4, 1)


def test_truncate() -> None:
    series = exp_jet()
    assert torch.equal(series.truncate(2).data, series.data[:3])
    assert series.truncate(0).order == 0
    assert variable(points(), 5).truncate(3).order == 3
    with pytest.raises(ArgumentError, match=r"order 5 to the higher order 6"):
        series.truncate(6)


def test_differentiate_shifts_the_coefficients() -> None:
    series = nt.jet(lambda x: x**5 - 2 * x**2, points(), 7)
    torch.testing.assert_close(series.differentiate().value, 5 * points() ** 4 - 4 * points())
    second = series.differentiate(2)
    assert second.order == 5
    for k in range(6):
        torch.testing.assert_close(second.derivative(k), series.derivative(k + 2))
    assert torch.equal(series.differentiate(7).value, torch.zeros_like(points()))
    assert series.differentiate(0) is series
    with pytest.raises(ArgumentError, match="no derivative of order 8"):
        series.differentiate(8)
    with pytest.raises(ArgumentError, match="2 directions cannot be differentiated"):
        nt.jet(lambda x: x.sum(1, keepdim=True), points(2, 2), 3, torch.eye(2, dtype=F64)).differentiate()


@pytest.mark.parametrize(("dtype", "last"), [(torch.float32, 34), (torch.float64, 170)])
def test_derivative_refuses_a_factorial_that_overflows(dtype: torch.dtype, last: int) -> None:
    series = nt.jet(torch.sin, torch.ones(1, 1, dtype=dtype), last + 1)
    assert bool(torch.isfinite(series.coefficient(last + 1)))
    assert bool(torch.isfinite(series.derivative(min(last, 30))).all())
    series.derivative(last)
    with pytest.raises(ArgumentError, match=rf"{last + 1}! does not fit into {dtype}"):
        series.derivative(last + 1)


def test_coefficient_past_the_order() -> None:
    with pytest.raises(ArgumentError, match=r"up to order 5, not 6") as caught:
        exp_jet().coefficient(6)
    assert "order=6" in caught.value.fix


SCALARS = [2, 2.0, np.float64(2), np.float32(2), np.int64(2), True, torch.tensor(2.0)]


@pytest.mark.parametrize("scalar", SCALARS)
def test_scalars_of_every_kind_on_either_side(scalar: Any) -> None:
    x, number = variable(points(), 3), float(scalar)
    expected = {
        "+": (x.data + torch.tensor([number, 0.0], dtype=F64).view(2, 1, 1), lambda a, b: a + b),
        "*": (x.data * number, lambda a, b: a * b),
    }
    for rows, operation in expected.values():
        for result in (operation(x, scalar), operation(scalar, x)):
            assert isinstance(result, Jet)
            torch.testing.assert_close(result.data, rows)
    torch.testing.assert_close((x / scalar).data, x.data / number)
    torch.testing.assert_close((scalar / x).coefficient(1), -number / points() ** 2)
    torch.testing.assert_close((scalar - x).coefficient(1), -torch.ones_like(points()))
    torch.testing.assert_close((x - scalar).value, points() - number)
    if not isinstance(scalar, bool):
        torch.testing.assert_close((x**scalar).coefficient(1), number * points() ** (number - 1))
        torch.testing.assert_close((scalar**x).coefficient(1), math.log(number) * number ** points())


@pytest.mark.parametrize("kind", ["tensor", "numpy"])
def test_array_constants_broadcast_on_either_side(kind: str) -> None:
    constant = torch.tensor([1.0, 2.0, 3.0], dtype=F64)
    other: Any = constant if kind == "tensor" else constant.numpy()
    x = variable(points(), 4)
    for a, b in ((x + other, other + x), (x * other, other * x)):
        assert a.shape == b.shape == (4, 3)
        assert torch.equal(a.data, b.data)
    assert torch.equal((x * other).coefficient(1), constant.expand(4, 3))
    torch.testing.assert_close((x - other).data, -(other - x).data)
    torch.testing.assert_close((x / other).coefficient(1), (1 / constant).expand(4, 3))
    torch.testing.assert_close((other / x).coefficient(2), constant / points() ** 3)


def test_product_broadcasts_series_of_different_shapes() -> None:
    narrow = nt.jet(torch.exp, points(), 4)
    wide = nt.jet(lambda x: torch.sin(x * torch.tensor([1.0, 2.0, 3.0], dtype=F64)), points(), 4)
    got = narrow * wide
    assert got.shape == (4, 3)
    for j in range(3):
        column = narrow * wide[:, j : j + 1]
        torch.testing.assert_close(got.data[..., j : j + 1], column.data)


def test_lower_order_wins_and_directions_must_agree() -> None:
    assert (nt.jet(torch.exp, points(), 5) * nt.jet(torch.sin, points(), 3)).order == 3
    assert (variable(points(), 5) + variable(points(), 2)).order == 2
    with pytest.raises(ShapeError, match="different numbers of directions"):
        variable(points(2, 2), 2, torch.eye(2, dtype=F64)) * variable(points(2, 2), 2, 0)


def test_cat_and_stack_lift_constants() -> None:
    x = nt.jet(torch.exp, points(), 3)
    joined = torch.cat([x, torch.ones(4, 2, dtype=F64), variable(points(), 3)], 1)
    assert joined.shape == (4, 4)
    assert torch.equal(joined.coefficient(0)[:, 1:3], torch.ones(4, 2, dtype=F64))
    assert torch.equal(joined.coefficient(2)[:, 1:], torch.zeros(4, 3, dtype=F64))
    torch.testing.assert_close(joined.coefficient(2)[:, :1], x.coefficient(2))
    assert torch.stack([x, torch.zeros(4, 1, dtype=F64)], -1).shape == (4, 1, 2)


def test_methods_of_tensors_are_methods_of_jets() -> None:
    x = variable(points(), 3)
    torch.testing.assert_close(x.sin().data, torch.sin(x).data)
    assert x.exp().sum().shape == ()
    assert x.exp().mean(0, keepdim=True).shape == (1, 1)
    assert x.reshape(2, 2).shape == (2, 2)
    assert (x.size(0), x.dim(), x.numel(), len(x), x.ndim) == (4, 2, 4, 4, 2)
    with pytest.raises(AttributeError, match="no attribute 'sine'"):
        x.sine()
    with pytest.raises(AttributeError):
        _ = x.grad_fn
    assert torch.equal(x.T.data[0], x.value.T)


def test_constant_function_is_a_series_of_degree_zero() -> None:
    series = nt.jet(lambda x: torch.ones(len(x), 2, dtype=F64), points(), 3)
    assert (series.order, series.degree) == (3, 0)
    assert torch.equal(series.derivative(2), torch.zeros(4, 2, dtype=F64))


def test_comparisons_read_the_value() -> None:
    x = variable(points(), 3)
    assert torch.equal(x > 1, points() > 1)
    assert torch.equal(x < points(), torch.zeros(4, 1, dtype=torch.bool))
    assert torch.equal(points() > x, torch.zeros(4, 1, dtype=torch.bool))
    assert torch.equal(x != 0.5, points() != 0.5)
    assert torch.equal(x == x, torch.ones(4, 1, dtype=torch.bool))
    assert torch.equal(x.ge(variable(points(), 3)), torch.ones(4, 1, dtype=torch.bool))
    assert torch.equal(torch.le(x, 1), points() <= 1)
    assert not torch.isnan(x).any()


def test_truth_value_is_refused_with_a_fix() -> None:
    with pytest.raises(DtypeError, match="no truth value") as caught:
        bool(variable(points(), 1))
    assert "torch.where(x > 0" in caught.value.fix
    x, a, b = variable(points(), 1), variable(points(), 1), -variable(points(), 1)
    fixed = eval(caught.value.fix.partition(" instead")[0], {"torch": torch, "x": x, "a": a, "b": b})
    assert torch.equal(fixed.data, a.data)


def test_rows_must_fit_the_order() -> None:
    with pytest.raises(ShapeError, match="4 rows cannot hold a series of order 2"):
        Jet(torch.zeros(4, 2), 2)
    with pytest.raises(ShapeError, match="4 rows cannot hold a series of order 3 in 2 direction"):
        Jet(torch.zeros(4, 2), 3, 2)


def test_copies_casts_and_representation() -> None:
    series = exp_jet(2)
    for twin in (copy.deepcopy(series), pickle.loads(pickle.dumps(series)), series.clone()):
        assert torch.equal(twin.data, series.data)
        assert (twin.order, twin.directions) == (2, None)
    assert series.to(torch.float32).dtype == torch.float32
    assert repr(series) == "Jet(shape=(4, 1), order=2, directions=None, dtype=torch.float64)"
    assert not (series * torch.ones(1, dtype=F64, requires_grad=True)).detach().data.requires_grad


@pytest.mark.parametrize("axis", [None, 1])
def test_compose_with_and_without_a_direction_axis(axis: int | None) -> None:
    inner = nt.jet(torch.sin, points(), 4)
    outer = nt.jet(torch.exp, inner.value, 4)
    got = compose(Jet(outer.data, 4, axis), inner)
    torch.testing.assert_close(got.data, nt.jet(lambda x: torch.exp(torch.sin(x)), points(), 4).data)
    with pytest.raises(ArgumentError, match="one direction"):
        compose(Jet(torch.zeros(3, 4, 1, dtype=F64), 1, 2), inner)
