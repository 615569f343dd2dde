import mpmath
import pytest
import torch
from mpmath import mp, mpf

from ntangent._base.precision import tolerance
from ntangent.jet import activations as table
from ntangent.jet.activations import ACTIVATIONS, Activation, elu, leaky_relu, power, relu_power, softplus
from ntangent.jet.api import variable
from ntangent.jet.flow import solve_rows
from ntangent.testing import check_activation
from ntangent.testing.oracles import DEFINITIONS, kink, polygon, taylor

F64 = torch.float64


def test_every_row_has_a_definition() -> None:
    assert set(ACTIVATIONS) == set(DEFINITIONS)


@pytest.mark.parametrize("name", sorted(DEFINITIONS))
def test_row_against_fifty_digits(name: str) -> None:
    check_activation(ACTIVATIONS[name], order=12)


@pytest.mark.parametrize(
    ("row", "definition"),
    [
        (softplus(2.5), lambda x: mp.log1p(mp.exp(mpf(2.5) * x)) / mpf(2.5)),
        (leaky_relu(0.3), kink(lambda x: mpf(0.3) * x, lambda x: 1 * x)),
        (elu(0.7, 1.0), kink(lambda x: mpf(0.7) * mp.expm1(x), lambda x: 1 * x)),
        (relu_power(5), kink(lambda x: 0 * x, lambda x: x**5)),
        (power(-3), lambda x: x**-3),
        (power(0.25), lambda x: x ** mpf(0.25)),
        (power(7), lambda x: x**7),
        (power(0), lambda x: mpf(1) + 0 * x),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_parametric_rows(row: Activation, definition: object) -> None:
    check_activation(row, definition, order=8, points=5)


def test_high_order_and_normalised_coefficients_do_not_overflow() -> None:
    rows = torch.zeros(61, 1, dtype=torch.float32)
    rows[0], rows[1] = 0.5, 1.0
    y, _ = solve_rows(table.TANH, rows, 1, 60)
    exact = taylor(DEFINITIONS["tanh"], 0.5, 62)
    sizes = polygon(exact)
    for k in range(61):
        assert abs(mpf(y[k, 0].item()) - exact[k]) <= tolerance(torch.float32, k) * sizes[k], k


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "logsigmoid", "silu"])
@pytest.mark.parametrize("x0", [-40.0, -20.0, -8.0, 8.0, 20.0, 40.0])
def test_saturation_keeps_relative_accuracy(name: str, x0: float, dtype: torch.dtype) -> None:
    """Coefficients of 1e-35 are right in their leading digits, not only small."""
    rows = torch.tensor([[x0], [1.0]], dtype=dtype)
    series = solve_rows(ACTIVATIONS[name], rows, 1, 6)[0][:, 0]
    with mp.workdps(80):
        point = mpf(x0)
        exact = mpmath.taylor(DEFINITIONS[name](point), point, 8)
    sizes = polygon(exact)
    for k in range(7):
        if sizes[k] > torch.finfo(dtype).tiny / torch.finfo(dtype).eps:
            error = abs(mpf(series[k].item()) - exact[k])
            # An argument is known to one rounding: exp(x0) is then known to |x0| of them.
            assert error <= (1 + abs(x0)) * tolerance(dtype, k) * sizes[k], (k, series[k].item(), exact[k])


UNBOUNDED = {"exp", "expm1", "sinh", "cosh", "tan"}
EVERYWHERE = sorted(n for n, row in ACTIVATIONS.items() if row.sample[0] <= -1.0 and n not in UNBOUNDED)


@pytest.mark.parametrize("name", EVERYWHERE)
def test_far_arguments_stay_finite(name: str) -> None:
    rows = torch.tensor([[-200.0, 200.0], [1.0, 1.0]], dtype=F64)
    y, s = solve_rows(ACTIVATIONS[name], rows, 1, 5)
    assert bool(torch.isfinite(y).all())
    assert bool(torch.isfinite(s).all())


@pytest.mark.parametrize(
    ("row", "at", "expected"),
    [
        (table.RELU, 0.0, [0.0, 0.0, 0.0]),
        (table.ABS, 0.0, [0.0, 0.0, 0.0]),
        (leaky_relu(0.25), 0.0, [0.0, 0.25, 0.0]),
        (elu(), 0.0, [0.0, 1.0, 0.5]),
        (elu(0.5), 0.0, [0.0, 0.5, 0.25]),
        (relu_power(2), 0.0, [0.0, 0.0, 0.0]),
        (relu_power(3), 0.0, [0.0, 0.0, 0.0]),
        (table.RELU6, 0.0, [0.0, 0.0, 0.0]),
        (table.RELU6, 6.0, [6.0, 0.0, 0.0]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_kink_takes_the_left_branch(row: Activation, at: float, expected: list[float]) -> None:
    rows = torch.tensor([[at], [1.0]], dtype=F64)
    y, s = solve_rows(row, rows, 1, 2)
    got = y[:, 0].tolist() + [0.0] * (3 - len(y))
    assert got == expected
    assert s[0, 0].item() == expected[1]


@pytest.mark.parametrize(
    "function",
    [
        torch.relu,
        torch.abs,
        torch.nn.functional.leaky_relu,
        torch.nn.functional.elu,
        torch.nn.functional.relu6,
        torch.selu,
    ],
)
@pytest.mark.parametrize("at", [0.0, 6.0])
def test_kink_convention_is_that_of_torch(function: object, at: float) -> None:
    x = torch.tensor([at], dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(function(x), x)
    series = function(variable(x.detach()[:, None], 1))
    assert series.coefficient(1).item() == slope.item()


def test_tanhshrink_near_zero_is_as_accurate_as_torch() -> None:
    x = torch.tensor([[1e-3], [1.0]], dtype=F64)
    y, _ = solve_rows(table.TANHSHRINK, x, 1, 3)
    assert y[0, 0] == torch.nn.functional.tanhshrink(x[0])[0]
    exact = taylor(DEFINITIONS["tanhshrink"], 1e-3, 3)
    assert abs(y[3, 0].item() - float(exact[3])) <= tolerance(F64, 3)


def test_derivative_row_is_a_row() -> None:
    """σ'' from the row of σ' agrees with the second derivative polynomial of σ."""
    for name, row in ACTIVATIONS.items():
        low, high = row.sample
        x = torch.linspace(low, high, 6, dtype=F64)
        via_row = row.derivative.raw_derivatives(x, 3)
        direct = row.raw_derivatives(x, 4)[1:]
        for a, b in zip(via_row, direct, strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance(F64, 4), atol=tolerance(F64, 4), msg=name)
