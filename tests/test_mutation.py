"""The tests are tested: a wrong sign, a lost term or a shifted index must turn the suites red."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from ntangent.jet import arithmetic, layers, solver
from ntangent.jet.activations import ACTIVATIONS, Activation
from ntangent.jet.polynomial import Polynomial, variables
from ntangent.testing import check_activation, check_backend, check_rule

F64 = torch.float64
ROWS = ["tanh", "sin", "softplus", "gelu", "atan", "mish", "log", "power[2.5]", "gelu_tanh", "elu[1.0,1.0]"]


def mutate(p: Polynomial, how: str) -> Polynomial:
    (exponents, coefficient), rest = p.terms[-1], p.terms[:-1]
    if how == "sign":
        return Polynomial.collect([*rest, (exponents, -coefficient)], p.arity)
    if how == "drop":
        return Polynomial.collect(rest, p.arity)
    if how == "coefficient":
        return Polynomial.collect([*rest, (exponents, coefficient * (1 + 1e-9))], p.arity)
    shifted = (exponents[0] + 1, *exponents[1:])
    return Polynomial.collect([*rest, (shifted, coefficient)], p.arity)


def red(row: Activation) -> None:
    with pytest.raises(AssertionError):
        check_activation(row, None, order=4, points=4, dtypes=(F64,))


@pytest.mark.parametrize("how", ["sign", "drop", "exponent", "coefficient"])
@pytest.mark.parametrize("name", ROWS)
def test_a_wrong_flow_is_noticed(name: str, how: str) -> None:
    row = ACTIVATIONS[name]
    for i, velocity in enumerate(row.flow):
        if velocity.terms:
            wrong = (*row.flow[:i], mutate(velocity, how), *row.flow[i + 1 :])
            red(replace(row, flow=wrong))


@pytest.mark.parametrize("how", ["sign", "drop", "exponent", "coefficient"])
@pytest.mark.parametrize("name", [*ROWS, "relu", "relu6", "power[3]", "identity"])
def test_a_wrong_output_is_noticed(name: str, how: str) -> None:
    row = ACTIVATIONS[name]
    red(replace(row, output=mutate(row.output, how)))


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "expm1"])
def test_a_wrong_slope_is_noticed(name: str) -> None:
    row = ACTIVATIONS[name]
    assert row.slope is not None
    right = row.slope
    red(replace(row, slope=lambda x: tuple(s * (1 + 1e-12) for s in right(x))))


@pytest.mark.parametrize("name", ROWS)
def test_wrong_initial_values_are_noticed(name: str) -> None:
    row = ACTIVATIONS[name]
    for i in range(len(row.flow)):

        def start(x: torch.Tensor, i: int = i) -> tuple[torch.Tensor, ...]:
            return tuple(z * (1 + 1e-12 * (i == j)) for j, z in enumerate(row.initial(x)))

        red(replace(row, initial=start))


def test_the_unchanged_rows_pass() -> None:
    for name in ROWS:
        row = ACTIVATIONS[name]
        check_activation(replace(row, flow=tuple(row.flow)), order=4, points=4, dtypes=(F64,))
    x, y = variables(1)
    same = replace(ACTIVATIONS["tanh"], flow=(-(y**2) + 1 + 0 * x,))
    check_activation(same, order=4, points=4, dtypes=(F64,))


def mutants() -> list[tuple[str, Any, str, Callable[..., Any]]]:
    """Name, owner, attribute, and the wrong version of it."""
    lines, table = solver.LineSolver, solver.AlgebraSolver
    pass_on, advance = lines._pass_on, lines._advance_product
    fill, product = table._fill_rate, table._product
    correlate_rows, product_rows = arithmetic.correlate_rows, arithmetic.product_rows
    return [
        ("index shifted in the flow", lines, "_pass_on",
         lambda s, z, a, p, k: pass_on(s, z, a, p, max(k - 1, 0))),
        ("last order of a monomial skipped", lines, "_advance_product",
         lambda s, t, left, right, k: None if k == s.degree else advance(s, t, left, right, k)),
        ("index shifted in a polynomial of the flow", table, "_fill_rate",
         lambda s, rate, i, k: fill(s, rate, i, max(k - 1, 0))),
        ("last grade of a product skipped", table, "_product",
         lambda s, target, left, right, k, scale, add:
             None if k == s.degree else product(s, target, left, right, k, scale, add)),
        ("adjoint shifted by one order", arithmetic, "correlate_rows",
         lambda s, g, d, n: correlate_rows(s, torch.cat([g[:1], g[1:].roll(1, 0)]), d, n)),
        ("product truncated one order early", arithmetic, "product_rows",
         lambda a, b, d, n: torch.cat([product_rows(a, b, d, n - 1), 0 * b[:d]]) if n else a * b),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "name", "mutant"), [m[1:] for m in mutants()], ids=[m[0] for m in mutants()]
)
def test_a_wrong_engine_is_noticed(
    where: Any, name: str, mutant: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.linspace(0.5, 1.0, 3, dtype=F64)

    def both() -> None:
        for order in (4, 8):  # a table of products serves low orders along lines, another engine high ones
            check_activation(ACTIVATIONS["tanh"], order=order, points=4, dtypes=(F64,))
        check_rule(torch.mul, x, x + 1)

    both()
    monkeypatch.setattr(where, name, mutant)
    with pytest.raises(AssertionError):
        both()


def test_a_lost_bias_or_direction_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    rules, right = layers.RULES, layers.linear
    functional = torch.nn.functional.linear
    monkeypatch.setitem(rules, functional, lambda x, w, b=None: right(x, w, None if b is None else 0 * b))
    with pytest.raises(AssertionError, match="order 0"):
        check_backend("eager", order=2, activations=["tanh"])
    monkeypatch.setitem(rules, functional, lambda x, w, b=None: right(x, w, b).map_rows(lambda r: r + 1e-9))
    with pytest.raises(AssertionError):
        check_backend("eager", order=2, activations=["tanh"])


@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        (torch.sub, layers.add),
        (torch.div, lambda a, b: a * b),
        (torch.cumsum, lambda a, dim: a + 0 * dim),
        (torch.matmul, lambda a, b: layers.matmul(a, b) * (1 + 1e-11)),
        (torch.where, lambda m, a, b: layers.where(~m, a, b)),
    ],
)
def test_a_wrong_rule_is_noticed(
    function: Any, wrong: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(layers.RULES, function, wrong)
    a, b = torch.linspace(0.5, 1.5, 18, dtype=F64).reshape(2, 3, 3)
    mask = torch.tensor([True, False, True])
    inputs = {torch.cumsum: (a, 0), torch.where: (mask, a, b)}.get(function, (a, b))
    with pytest.raises(AssertionError):
        check_rule(function, *inputs)
