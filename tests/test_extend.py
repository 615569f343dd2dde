import doctest
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mpmath
import pytest
import torch
from mpmath import mp

import ntangent as nt
from ntangent._base.errors import ArgumentError
from ntangent.jet.activations import ACTIVATIONS
from ntangent.jet.dense import as_dense
from ntangent.testing import check_activation, check_rule

F64 = torch.float64


@pytest.fixture(autouse=True)
def tables_as_before() -> Iterator[None]:
    torch.manual_seed(0)
    rules, rows = nt.extend.rules(), ACTIVATIONS._rows
    before, names = dict(rules), dict(rows)
    yield
    for table, old in ((rules, before), (rows, names)):
        table.clear()
        table.update(old)


def test_docstring_examples() -> None:
    result = doctest.testmod(nt.extend)
    assert result.attempted > 10
    assert result.failed == 0


def test_a_row_serves_every_backend_and_passes_the_suite() -> None:
    row = nt.extend.activation(
        "student", 1, lambda x, w: ([-2 * x * w**2], w), initial=lambda x: (1 / (1 + x * x),)
    )
    check_activation(row, lambda x: 1 / (1 + x * x), order=8)
    student = nt.extend.as_function(row)

    class Student(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return student(x)

    net = torch.nn.Sequential(torch.nn.Linear(1, 5), Student(), torch.nn.Linear(5, 1)).double()
    assert as_dense(net) is not None
    x = torch.linspace(-1, 1, 4, dtype=F64)[:, None]
    assert torch.equal(student(x), 1 / (1 + x * x))
    expected = nt.derivatives(net, x, 6, backend="autograd")
    for backend in ("eager", "faa-di-bruno"):
        torch.testing.assert_close(nt.derivatives(net, x, 6, backend=backend), expected)
    assert torch.autograd.gradcheck(student, (x.requires_grad_(),))


def test_a_torch_function_gets_the_row_as_its_rule() -> None:
    row = nt.extend.activation(
        "ndtr", 2, lambda x, p, g: ([g, -x * g], p), functions=[torch.special.ndtr],
        initial=lambda x: (torch.special.ndtr(x), torch.exp(-x * x / 2) / (2 * torch.pi) ** 0.5),
    )  # fmt: skip
    check_activation(row, mpmath.ncdf, order=6, points=5)
    check_rule(torch.special.ndtr, torch.linspace(-1, 1, 3, dtype=F64))


def test_a_definition_may_choose_branches() -> None:
    row = nt.extend.activation(
        "ramp", 1, lambda x, m: ([0 * x], m * x**2), initial=lambda x: ((x > 0).to(x.dtype),)
    )
    check_activation(row, lambda x0: (lambda x: x**2) if x0 > 0 else (lambda x: 0 * x), order=4)


def test_linear_bilinear_and_plain_rules() -> None:
    a, b = torch.rand(2, 2, 1, dtype=F64), torch.rand(2, 1, 2, dtype=F64)
    for known in (torch.roll, torch.triu, torch.bmm, torch.cross, torch.lerp, torch.hypot):
        nt.extend.rules().pop(known)
    nt.extend.linear(torch.roll, torch.triu)
    check_rule(torch.roll, a, 1, 0)
    check_rule(torch.triu, a)
    nt.extend.bilinear(torch.bmm, torch.cross)
    check_rule(torch.bmm, a, b)
    check_rule(torch.cross, torch.rand(1, 3, dtype=F64), torch.rand(2, 3, dtype=F64), dim=1)
    nt.extend.linear(torch.lerp, arguments=2)
    check_rule(torch.lerp, a, a + 1, 0.25)

    @nt.extend.rule(torch.hypot)
    def _hypot(a: nt.Jet, b: nt.Jet) -> nt.Jet:
        return torch.sqrt(a * a + b * b)

    check_rule(torch.hypot, torch.rand(3, dtype=F64) + 1, torch.rand(3, dtype=F64) + 1)


def test_wrong_declarations_are_noticed() -> None:
    nt.extend.linear(torch.special.i0)
    with pytest.raises(AssertionError, match=r"special_i0, series in input.*order"):
        check_rule(torch.special.i0, torch.rand(3, dtype=F64))
    with pytest.raises(AssertionError, match=r"wrong, torch.float64, x0=.*order 0: got"):
        check_activation(replace(ACTIVATIONS["tanh"], name="wrong"), mp.sin)
    with pytest.raises(AssertionError, match="no definition of 'unheard'"):
        check_activation(nt.extend.activation("unheard", 0, lambda x: ([], x), initial=lambda _: ()))


def test_duplicates_and_contradictions_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"torch.tanh already has a Taylor rule") as caught:
        nt.extend.linear(torch.tanh)
    exec(caught.value.fix.removesuffix(" first"), {"ntangent": nt, "torch": torch})
    nt.extend.linear(torch.tanh)
    rows = len(ACTIVATIONS)
    with pytest.raises(ArgumentError, match=r"torch.sin already has a Taylor rule"):
        nt.extend.activation("mine", 0, lambda x: ([], x), initial=lambda _: (), functions=[torch.sin])
    with pytest.raises(ArgumentError, match="'exp' is already registered"):
        nt.extend.activation("exp", 0, lambda x: ([], x), initial=lambda _: ())
    with pytest.raises(ArgumentError, match=r"2 state\(s\) and 1 equation\(s\)"):
        nt.extend.activation("mine", 2, lambda _, y, z: ([y], z), initial=lambda x: (x, x))
    assert len(ACTIVATIONS) == rows


def test_importing_the_door_is_light() -> None:
    heavy = "{'scipy', 'mpmath', 'hypothesis', 'rich', 'click', 'matplotlib'}"
    script = f"import sys, ntangent; ntangent.extend; print({heavy} & set(sys.modules))"
    root = Path(nt.__file__).parents[1]
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert result.stdout.strip() == "set()"
