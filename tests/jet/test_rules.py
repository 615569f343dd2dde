from typing import Any

import numpy
import pytest
import torch
import torch.nn.functional as F

import ntangent as nt
from ntangent._base.errors import DtypeError
from ntangent.jet.api import variable
from ntangent.jet.layers import ActivationRule
from ntangent.testing import check_rule

T = torch.Tensor


def sample(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.3 + 0.6 * torch.rand(*shape, generator=generator, dtype=torch.float64)


ARITHMETIC = [
    torch.add, T.add, T.__add__, T.__radd__,
    torch.sub, T.sub, T.__sub__, torch.subtract, T.subtract, T.__rsub__, torch.rsub,
    torch.mul, T.mul, T.__mul__, T.__rmul__, torch.multiply, T.multiply,
    torch.div, T.div, T.__truediv__, T.__rtruediv__, torch.divide, T.divide, torch.true_divide, T.true_divide,
    torch.pow, T.pow, T.__pow__, T.__rpow__,
]  # fmt: skip
PRODUCTS = [torch.matmul, T.matmul, T.__matmul__, torch.mm, T.mm]
INDICES = [
    0, -1, slice(None, None, 2), (slice(None), 0), (Ellipsis, 0), None, (0, 1), [1, 0],
    torch.tensor([1, 0]), torch.tensor([True, False]), (torch.tensor([1, 0]), 0), (0, torch.tensor([1, 0])),
    (torch.tensor([0, 1]), slice(None), torch.tensor([1, 0])), (slice(None), torch.tensor([0, 1]), [1, 0]),
]  # fmt: skip

CASES: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    *((f, (sample(3, 1), sample(2, seed=1)), {}) for f in ARITHMETIC),
    *((f, (sample(2), sample(2, 1, 2, seed=1)), {}) for f in (torch.add, torch.mul, torch.div, torch.pow)),
    (torch.add, (sample(3), sample(3, seed=1)), {"alpha": 2.5}),
    (torch.sub, (sample(3), sample(3, seed=1)), {"alpha": -2}),
    (torch.rsub, (sample(3), sample(3, seed=1)), {"alpha": 3}),
    (torch.pow, (sample(3, 1) - 0.6, torch.tensor([0, 1, 2, 5])), {}),
    *((torch.pow, (sample(3), e), {}) for e in (0, 1, 2, 7, -1, -3, 0.5, 1.5, -0.5)),
    (torch.pow, (2.5, sample(3)), {}),
    *((f, (sample(2, 3), sample(3, 2, seed=1)), {}) for f in PRODUCTS),
    (T.__rmatmul__, (sample(3, 2), sample(2, 3, seed=1)), {}),
    (torch.matmul, (sample(4, 2, 3), sample(3, seed=1)), {}),
    (torch.matmul, (sample(3), sample(2, 3, 2, seed=1)), {}),
    (F.linear, (sample(2, 3), sample(4, 3, seed=1), sample(4, seed=2)), {}),
    (F.linear, (sample(2, 3), sample(4, 3, seed=1)), {}),
    (F.linear, (sample(3), sample(3, seed=1)), {}),
    *((f, (sample(2, 3),), {}) for f in (torch.sum, T.sum, torch.mean, T.mean, torch.flatten, T.flatten)),
    *((f, (sample(2, 3, 2), (0, -1)), {}) for f in (torch.sum, T.sum, torch.mean, T.mean)),
    *((f, (sample(2, 3),), {"dim": [0], "keepdim": True}) for f in (torch.sum, T.sum, torch.mean, T.mean)),
    *((f, (sample(2, 3), s), {}) for f in (torch.reshape, T.reshape, T.view) for s in ((3, 2), (-1,))),
    *((f, (sample(2, 3, 2), 1), {}) for f in (torch.flatten, T.flatten)),
    *((f, (sample(2, 3), d), {}) for f in (torch.unsqueeze, T.unsqueeze) for d in (0, -1)),
    *((f, (sample(2, 1, 3), d), {}) for f in (torch.squeeze, T.squeeze) for d in (1, -2)),
    *((f, (sample(2, 3, 2), 0, 2), {}) for f in (torch.transpose, T.transpose, torch.movedim, T.movedim)),
    *((f, (sample(2, 3, 2), (2, 0, 1)), {}) for f in (torch.permute, T.permute)),
    *((f, (sample(2, 3),), {}) for f in (torch.t, T.t)),
    *((f, (sample(2, 3), d), {}) for f in (torch.cumsum, T.cumsum) for d in (0, -1)),
    *((f, (sample(2, 3), (0, 1)), {}) for f in (torch.flip, T.flip)),
    (T.expand, (sample(2, 1), 2, 3), {}),
    (T.expand, (sample(2, 1), 4, 2, 3), {}),
    *((f, ([sample(2, 3), sample(2, 1, seed=1)], 1), {}) for f in (torch.cat, torch.concat)),
    (torch.stack, ([sample(2, 3), sample(2, 3, seed=1)], -1), {}),
    *((f, (sample(2, 3),), {}) for f in (torch.clone, T.clone, T.contiguous)),
    *((f, (sample(2, 3),), {}) for f in (torch.neg, T.neg, torch.negative, T.negative)),
    (F.dropout, (sample(2, 3),), {"training": False}),
    (F.dropout, (sample(2, 3),), {"p": 0.0}),
    *((T.__getitem__, (sample(2, 3, 2), index), {}) for index in INDICES),
    (torch.where, (torch.tensor([True, False, True]), sample(2, 3), sample(3, seed=1)), {}),
    (T.where, (sample(2, 3), torch.tensor([True, False, True]), sample(3, seed=1)), {}),
    (F.gelu, (sample(3),), {"approximate": "tanh"}),
    (F.leaky_relu, (sample(3) - 0.6,), {"negative_slope": 0.3}),
    (F.elu, (sample(3) - 0.6,), {"alpha": 0.4}),
    (F.softplus, (sample(3) - 0.6,), {"beta": 2.5}),
]  # fmt: skip


def label(case: tuple[Any, tuple[Any, ...], dict[str, Any]]) -> str:
    function, inputs, options = case
    shapes = [tuple(v.shape) if isinstance(v, torch.Tensor) else v for v in inputs]
    return f"{function.__name__}-{shapes}-{options}"


@pytest.mark.parametrize(("function", "inputs", "options"), CASES, ids=[label(case) for case in CASES])
def test_rule_against_nested_autograd(function: Any, inputs: Any, options: Any) -> None:
    check_rule(function, *inputs, order=3, **options)


# Those that need arguments, or that torch cannot differentiate twice, have cases of their own.
APART = {F.threshold, torch.threshold, F.hardsigmoid}


def activation_functions() -> list[Any]:
    found = nt.extend.rules().items()
    return [f for f, rule in found if isinstance(rule, ActivationRule) and f not in APART]


@pytest.mark.parametrize("function", activation_functions(), ids=lambda f: f.__name__)
def test_activation_function_against_nested_autograd(function: Any) -> None:
    low, high = nt.extend.rules()[function].select().sample
    unit = (sample(2, 3) - 0.3) / 0.6
    check_rule(function, low + (high - low) * unit, order=3)


def test_methods_have_the_rules_of_their_functions() -> None:
    rules = nt.extend.rules()
    names = [name for name in dir(torch) if callable(getattr(torch, name)) and hasattr(T, name)]
    missing = [name for name in names if getattr(torch, name) in rules and getattr(T, name) not in rules]
    assert missing == []


def test_softplus_is_exact_past_the_threshold_of_torch() -> None:
    x = torch.tensor([[30.0]], dtype=torch.float64)
    series = F.softplus(variable(x, 2))
    assert series.coefficient(2).item() == pytest.approx(torch.exp(-x).item() / 2, rel=1e-12)


@pytest.mark.parametrize("exponent", [2.0, 2.5])
def test_exponent_that_is_a_parameter_gets_its_gradient(exponent: float) -> None:
    x = sample(4, 1)
    p = torch.tensor(exponent, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(nt.jet(lambda x: x**p, x, 3).coefficient(3).sum(), p)
    # Nested autograd is no oracle here: at p = 2 torch drops the third derivative's gradient in p.
    e = exponent
    outer = (3 * e**2 - 6 * e + 2) / 6 + e * (e - 1) * (e - 2) / 6 * torch.log(x)
    torch.testing.assert_close(grad, (outer * x ** (e - 3)).sum())


def test_negative_base_of_a_series_power_is_nan_as_in_torch() -> None:
    series = (-2.0) ** variable(sample(3, 1), 2)
    assert bool(series.value.isnan().all())


def test_constant_division_is_exact() -> None:
    x = sample(50, 1)
    assert torch.equal((variable(x, 2) / 3).value, x / 3)
    assert torch.equal((variable(x, 2) / torch.tensor(3.0, dtype=torch.float64)).value, x / 3)


def test_where_chooses_by_the_value() -> None:
    def ramp(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x**2, torch.sin(x))

    x = torch.tensor([[-1.0], [2.0]], dtype=torch.float64)
    for k in range(4):
        expected = nt.jet(ramp, x, 3, backend="autograd").derivative(k)
        torch.testing.assert_close(nt.jet(ramp, x, 3).derivative(k), expected)


@pytest.mark.parametrize("exponent", [1.5, 2.5, 3.25])
def test_powers_at_zero_have_the_derivatives_that_exist(exponent):
    """Those of order below the exponent are 0; nested differentiation as the oracle at the other point."""
    x = torch.tensor([[0.0], [0.5]], dtype=torch.float64, requires_grad=True)
    expected, order = x**exponent, int(exponent)
    for k in range(order + 1):
        found = nt.jet(lambda z: z**exponent, x, order).derivative(k)
        assert torch.allclose(found, expected, rtol=1e-12, atol=0.0)
        (expected,) = torch.autograd.grad(expected.sum(), x, create_graph=True)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (1j * x).abs(),
        lambda x: x * torch.tensor(1j),
        lambda x: x + 1j,
        lambda x: x * numpy.array(1j),
    ],
)
def test_complex_constants_are_refused_and_not_cut(function):
    with pytest.raises(DtypeError, match="complex"):
        nt.jet(function, torch.ones(2, 1, dtype=torch.float64), 2)
