"""What rules refuse, that none is untested, the nested fallback, and what an error says."""

import contextvars
from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
import torch.nn.functional as F
from rulecases import CASES
from rulecheck import LAPLACIAN, variables
from torch import Tensor, nn

import ntangent as nt
from ntangent._base.errors import ArgumentError, BackendError, MissingRule, ShapeError
from ntangent.jet import dispatch
from ntangent.jet.api import variable
from ntangent.jet.series import Jet
from ntangent.pinn.field import Field

X = torch.linspace(0.2, 1.4, 12, dtype=torch.float64).reshape(4, 3)


def series(order: int = 3) -> Jet:
    return variable(X, order, direction=torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64))


# --- every rule has a case -----------------------------------------------------------------------

WITHOUT_CASE: dict[str, str] = {
    "torch.nn.functional.tanh": "calls the method of its argument, so torch never asks for it",
    "torch.nn.functional.sigmoid": "calls the method of its argument, so torch never asks for it",
}


class Recorder(dict):
    """The table of rules, noting which were looked up."""

    def __init__(self, rules: dict[Any, Any]) -> None:
        super().__init__(rules)
        self.used: set[Any] = set()

    def get(self, key: Any, default: Any = None) -> Any:
        self.used.add(key)
        return super().get(key, default)


def test_every_rule_has_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(dispatch.RULES)
    monkeypatch.setattr(dispatch, "RULES", recorder)
    for case in (c for group in CASES.values() for c in group):
        able = range(len(case.shapes)) if case.series is None else case.series
        for choice in {tuple(able), tuple(able)[:1], tuple(able)[-1:]}:
            operands = case.operands()
            moved = [
                Jet(torch.stack([o, torch.ones_like(o)]), 1) if i in choice else o
                for i, o in enumerate(operands)
            ]
            case.call(*moved)
    for call in DIRECT:
        call(series(1))
    missing = {dispatch.name_of(f) for f in set(dispatch.RULES) - recorder.used}
    # Rules that other test modules register are theirs to test.
    ours = {n for n in missing if n.startswith(("torch.", "Tensor.")) or "torch" in n}
    assert not ours - set(WITHOUT_CASE), sorted(ours - set(WITHOUT_CASE))
    assert not set(WITHOUT_CASE) - missing, "these have a case by now"


def both_ways(name: str) -> list[Callable[[Jet], Any]]:
    function = getattr(torch.Tensor, name)
    return [lambda x: dispatch.dispatch(function, (x, x), {})]


STEPS = ("sign", "sgn", "floor", "ceil", "trunc", "fix", "round")
# Functions that Python's operators reach only through a tensor on the left, and steps.
DIRECT: list[Callable[[Jet], Any]] = [
    *both_ways("__add__"), *both_ways("__radd__"), *both_ways("__sub__"), *both_ways("__rsub__"),
    *both_ways("__mul__"), *both_ways("__rmul__"), *both_ways("__truediv__"), *both_ways("__rtruediv__"),
    *both_ways("__pow__"), *both_ways("__rpow__"), *both_ways("__mod__"),
    lambda x: dispatch.dispatch(torch.Tensor.__matmul__, (X, x.T), {}), lambda x: X.T.__rmatmul__(x),
    lambda x: [getattr(torch, n)(x) for n in (*STEPS, "detach")],
    lambda x: [dispatch.dispatch(getattr(torch.Tensor, n), (x,), {}) for n in (*STEPS, "detach", "float")],
]  # fmt: skip


def test_steps_are_constants() -> None:
    x = series()
    for name in STEPS:
        for jet in (getattr(torch, name)(x), getattr(x, name)()):
            assert jet.degree == 0
            assert torch.equal(jet.value, getattr(torch, name)(X))


def test_reads_are_plain_tensors() -> None:
    x = series()
    assert torch.equal(x > 0.5, X > 0.5)
    assert torch.equal(torch.zeros_like(x), torch.zeros_like(X))
    assert torch.equal(torch.full_like(x, 2.0), torch.full_like(X, 2.0))
    assert x.new_zeros((2, 2)).dtype == torch.float64
    assert torch.equal(torch.argmax(x, dim=1), X.argmax(dim=1))
    assert (x.size(-1), x.dim(), x.numel(), x.is_nested, x.requires_grad) == (3, 2, 12, False, False)


def test_detached_values_are_constants_inside_a_function() -> None:
    got = nt.jet(lambda x: x * x.detach(), X[:, :1], 2)
    exact = nt.jet(lambda x: x * x.detach(), X[:, :1], 2, backend="autograd")
    assert torch.equal(got.derivative(1), exact.derivative(1))
    assert not got.derivative(2).any()
    kept = series().detach()
    assert kept.degree == 1


# --- refusals ------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[Jet], Any], type[Exception]]] = {
    "out": (lambda x: torch.exp(x, out=torch.empty(4, 3)), ArgumentError),
    "out of sum": (lambda x: torch.sum(x, 0, out=torch.empty(3)), ArgumentError),
    "inplace relu": (lambda x: F.relu(x, inplace=True), ArgumentError),
    "inplace module": (lambda x: nn.Sequential(nn.SiLU(inplace=True))(x), ArgumentError),
    "relu_": (lambda x: torch.relu_(x), ArgumentError),
    "add_": (lambda x: x.add_(1.0), ArgumentError),
    "setitem": (lambda x: x.__setitem__(0, 1.0), ArgumentError),
    "tensor setitem": (lambda x: X.clone().__setitem__(0, x[0]), ArgumentError),
    "tensor iadd": (lambda x: X.clone().__iadd__(x), ArgumentError),
    "integer sum": (lambda x: x.sum(dtype=torch.int64), ArgumentError),
    "integers": (lambda x: x.to(torch.int64), ArgumentError),
    "long": (lambda x: x.long(), MissingRule),
    "truth": (lambda x: bool(x), TypeError),
    "item": (lambda x: x[0, 0].item(), MissingRule),
    "numpy": (lambda x: x.numpy(), MissingRule),
    "unknown keyword": (lambda x: dispatch.dispatch(torch.sum, (x,), {"bogus": 1}), MissingRule),
    "unknown keyword of an activation": (lambda x: dispatch.dispatch(F.elu, (x,), {"beta": 1}), MissingRule),
    "axis out of range": (lambda x: x.sum(-3), ShapeError),
    "axis twice": (lambda x: x.sum((0, -2)), ShapeError),
    "unsqueeze out of range": (lambda x: x.unsqueeze(-4), ShapeError),
    "softmax without dim": (lambda x: F.softmax(x), MissingRule),
    "batch norm training": (lambda x: nn.BatchNorm1d(3, dtype=torch.float64)(x), MissingRule),
    "batch norm without statistics": (
        lambda x: nn.BatchNorm1d(3, track_running_stats=False, dtype=torch.float64).eval()(x), MissingRule,
    ),
    "instance norm statistics": (
        lambda x: F.instance_norm(x[None], torch.zeros(4), torch.ones(4)), MissingRule,
    ),
    "group norm": (lambda x: F.group_norm(x, 2), ShapeError),
    "layer norm": (lambda x: F.layer_norm(x, (4,)), ShapeError),
    "dropout": (lambda x: F.dropout(x, 0.5), MissingRule),
    "rrelu": (lambda x: F.rrelu(x, training=True), MissingRule),
    "matrix 2-norm": (lambda x: torch.linalg.norm(x, 2), MissingRule),
    "nuclear norm": (lambda x: torch.norm(x, "nuc"), MissingRule),
    "norm of order 0": (lambda x: torch.linalg.vector_norm(x, 0), MissingRule),
    "rounded quotient": (lambda x: torch.div(x, 2.0, rounding_mode="floor"), MissingRule),
    "series as a mask": (lambda x: torch.where(x, x, 0.0), MissingRule),
    "series as an index": (lambda x: x.index_select(0, x), MissingRule),
    "series as a kernel": (lambda x: F.conv1d(torch.ones(1, 1, 9).double(), x[None, :1]), MissingRule),
    "cross without dim": (lambda x: torch.cross(x, x), MissingRule),
    "einsum with lists": (lambda x: torch.einsum(x, [0, 1], [0]), TypeError),
    "einsum of another rank": (lambda x: torch.einsum("ijk->i", x), ShapeError),
    "view as bits": (lambda x: x.view(torch.int64), MissingRule),
    "clamp without bounds": (lambda x: x.clamp(), MissingRule),
    "glu of an odd size": (lambda x: F.glu(x), MissingRule),
    "attention dropout": (lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1), MissingRule),
    "attention two masks": (
        lambda x: F.scaled_dot_product_attention(x, x, x, torch.ones(4, 4), is_causal=True), MissingRule,
    ),
    "attention extra keys": (
        lambda x: nn.MultiheadAttention(3, 1, add_zero_attn=True, dtype=torch.float64)(x, x, x), MissingRule,
    ),
    "attention dropout in training": (
        lambda x: nn.MultiheadAttention(3, 1, dropout=0.1, dtype=torch.float64)(x, x, x), MissingRule,
    ),
    "mse with old arguments": (lambda x: F.mse_loss(x, X, size_average=True), MissingRule),
    "var twice": (lambda x: x.var(0, unbiased=True, correction=1), MissingRule),
    "entropy at 0": (lambda x: torch.special.entr(x - 1), MissingRule),
    "expand an unknown axis": (lambda x: x.expand(-1, 4, 3), ShapeError),
    "pad too much": (lambda x: F.pad(x, (1,) * 6), ShapeError),
    "pool of a vector": (lambda x: F.avg_pool1d(x[0], 2), ShapeError),
    "random": (lambda x: torch.bernoulli(x), MissingRule),
    "determinant": (lambda x: torch.linalg.det(x[:3]), MissingRule),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    call, error = REFUSED[name]
    before = X.clone()
    with pytest.raises(error):
        call(series())
    assert torch.equal(X, before)


@pytest.mark.parametrize("operator", ["__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__"])
def test_operators_in_place_are_refused(operator: str) -> None:
    x = series()
    with pytest.raises(ArgumentError, match="in place"):
        getattr(x, operator)(2.0)


# --- nested differentiation ----------------------------------------------------------------------


def unusual(x: Any) -> Any:
    """Operations without a rule: a determinant, a solution, a decomposition with two results."""
    a = torch.stack(
        [torch.stack([x[:, 0], 1 + x[:, 1]], -1), torch.stack([2 + x[:, 2], x[:, 0] + 5], -1)], -1
    )
    _, logarithm = torch.linalg.slogdet(a)
    solution = torch.linalg.solve(a, x[:, :2])
    return torch.stack([torch.linalg.det(a) * logarithm, torch.digamma(x[:, 0] + 2), solution[:, 0]], -1)


@pytest.mark.parametrize("several", [False, True])
def test_nested_operations_are_exact(several: bool) -> None:
    directions = torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.4, -0.7]], dtype=torch.float64)
    direction = directions if several else directions[0]
    x = X.clone().requires_grad_()
    got = nt.jet(unusual, x, 4, direction, missing="nested")
    exact = nt.jet(unusual, x, 4, direction, backend="autograd")
    torch.testing.assert_close(got.data, exact.data, rtol=1e-9, atol=1e-9)
    weights = torch.randn(exact.data.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grads = [torch.autograd.grad((weights * j.data).sum(), x)[0] for j in (got, exact)]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-8, atol=1e-8)
    with torch.no_grad():
        assert not nt.jet(unusual, X, 2, direction, missing="nested").data.requires_grad


def test_nested_needs_to_be_asked_for_and_leaves_nothing_behind() -> None:
    x = X[:, :1]
    nt.jet(torch.digamma, x, 2, missing="nested")
    with pytest.raises(MissingRule, match="digamma"):
        nt.jet(torch.digamma, x, 2)
    with pytest.raises(ZeroDivisionError):
        nt.jet(lambda x: x[1 // 0], x, 2, missing="nested")
    with pytest.raises(MissingRule):
        nt.jet(torch.digamma, x, 2)
    assert dispatch.expansion() is None
    assert contextvars.copy_context().run(dispatch.expansion) is None
    with pytest.raises(ArgumentError, match="missing"):
        nt.jet(torch.digamma, x, 2, missing="ignore")


def test_nested_serves_refused_combinations_but_not_random_or_in_place_ones() -> None:
    def spectral(x: Any) -> Any:
        matrices = x[:, None, :] * torch.ones(2, 1).double() + torch.eye(2, 3).double()
        return torch.linalg.norm(matrices, 2, (1, 2))[:, None]

    got = nt.jet(spectral, X, 3, direction=0, missing="nested")
    exact = nt.jet(spectral, X, 3, direction=0, backend="autograd")
    torch.testing.assert_close(got.data, exact.data)
    directions = torch.eye(3, dtype=torch.float64)
    with pytest.raises(MissingRule, match="random"):
        nt.jet(lambda x: F.feature_alpha_dropout(x, 0.5, True), X, 2, directions, missing="nested")
    with pytest.raises(ArgumentError, match="in place"):
        nt.jet(lambda x: x.add_(1), X, 2, direction=0, missing="nested")


def test_nested_refuses_an_algebra() -> None:
    x, _ = variables(3, LAPLACIAN, 2)
    with dispatch.expanding("nested"), pytest.raises(BackendError, match="lines only"):
        torch.digamma(x + 2)


# --- messages ------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = Special()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class Special(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.digamma(x)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Tanh(), nn.Tanh(), Block()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def test_a_missing_rule_says_where() -> None:
    with pytest.raises(MissingRule) as caught:
        nt.jet(Model(), X, 2, direction=0)
    text = str(caught.value)
    assert "torch.digamma" in text
    assert "test_rules_refused.py:" in text
    assert "model.blocks[2].norm" in text
    assert "Special" in text
    assert 'missing="nested"' in text
    with pytest.raises(MissingRule) as caught:
        nt.jet(torch.digamma, X, 2, direction=0)
    assert "model" not in str(caught.value)


# --- accuracy where formulas change --------------------------------------------------------------


@pytest.mark.parametrize("order", [4, 12])
def test_sinc_to_rounding(order: int) -> None:
    points = [0.0, 1e-9, 1e-3, 0.3, 1.0, (order + 1) / 3.14159, (order + 1) / 3.1416, 7.7]
    x = torch.tensor(points, dtype=torch.float64)[:, None]
    got = nt.jet(torch.sinc, x, order)
    with mpmath.workdps(40):
        for i, p in enumerate(points):
            exact = mpmath.taylor(lambda u: mpmath.sincpi(u), mpmath.mpf(p), order)
            scale = max(abs(c) for c in exact)
            for k in range(order + 1):
                assert (
                    abs(got.coefficient(k)[i, 0].item() - exact[k]) < 1e-13 * scale * 2**k / (1 + k) + 1e-14
                )


def test_ties_are_shared_like_torch_gradients() -> None:
    a = torch.tensor([[1.0, 2.0, 2.0]], dtype=torch.float64)
    rows = torch.stack([a, torch.tensor([[1.0, 3.0, 5.0]], dtype=torch.float64)])
    jet = Jet(rows, 1)
    assert jet.amax(1).coefficient(1).item() == 4.0
    assert jet.max().coefficient(1).item() == 4.0
    values, indices = jet.max(1)
    assert values.coefficient(1).item() == rows[1, 0, indices.item()].item()
    assert torch.maximum(jet[:, 1], jet[:, 2]).coefficient(1).item() == 4.0
    clamped = jet.clamp(max=2.0).coefficient(1)
    assert clamped.tolist() == [[1.0, 3.0, 5.0]]


def test_angle_on_the_axes() -> None:
    for x, y in ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -2.0), (-1.0, -1.0)):
        t = torch.tensor([[0.0]], dtype=torch.float64)

        def angle(t: Any, x: float = x, y: float = y) -> Any:
            return torch.atan2(y + 2 * t, x - 3 * t * t + t)

        got, exact = (nt.jet(angle, t, 4, backend=b) for b in ("eager", "autograd"))
        torch.testing.assert_close(got.data, exact.data, rtol=1e-12, atol=1e-12)


def test_a_field_stays_a_field_and_knows_facts() -> None:
    u = Field(variable(X[:, :1], 3), "x")
    assert isinstance(u % 0.5, Field)
    assert isinstance(torch.softmax(u, 1), Field)
    assert u.is_nested is False
    with pytest.raises(AttributeError, match=r"u\.x"):
        u.T  # noqa: B018
