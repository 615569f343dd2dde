"""torch.func and torch.compile over jets."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vmap

import ntangent as nt
from ntangent.jet import activations as table
from ntangent.jet.arithmetic import correlate, product
from ntangent.jet.flow import flow

F64 = torch.float64
NET = nt.MLP(2, 2, width=4, depth=2, dtype=F64, generator=0)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


X, V = randn(3, 2), randn(2, seed=1)


def rows(
    x: torch.Tensor, v: torch.Tensor = V, f: Callable[..., object] = NET, backend: str = "eager", n: int = 3
) -> torch.Tensor:
    series = nt.jet(f, x, n, v, backend=backend)
    return torch.stack([series.coefficient(k) for k in range(n + 1)])


def reference(x: torch.Tensor, v: torch.Tensor = V) -> torch.Tensor:
    return rows(x, v, backend="autograd")


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(
    ("p", "q", "degree"), [(3, 3, 3), (1, 3, 3), (3, 1, 2), (2, 2, 4), (0, 2, 2), (2, 3, 0)]
)
def test_product_and_correlate_have_exact_derivatives(p: int, q: int, degree: int, directions: int) -> None:
    a, b = (randn(1 + k * directions, 2, seed=k + s).requires_grad_() for s, k in enumerate((p, q)))
    g = randn(1 + degree * directions, 2, seed=9).requires_grad_()
    for f, leaves in (
        (lambda a, b: product(a, b, directions, degree), (a, b)),
        (lambda s, g: correlate(s, g, directions, q), (a, g)),
    ):
        assert torch.autograd.gradcheck(f, leaves, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(f, leaves)


def test_correlate_is_the_adjoint_of_the_product() -> None:
    s, x, g = randn(5, 3), randn(4, 3, seed=1), randn(7, 3, seed=2)
    for degree in (3, 6):
        left = (product(s, x, 1, degree) * g[: degree + 1]).sum()
        right = (x * correlate(s, g[: degree + 1].contiguous(), 1, 3)).sum()
        torch.testing.assert_close(left, right, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    "row", [table.TANH, table.GELU, table.EXP, table.LOGSIGMOID, table.SQUARE], ids=lambda row: row.name
)
def test_flow_has_exact_derivatives_in_both_modes(row: table.Activation) -> None:
    a = randn(7, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: flow(a, row, 2, 3), (a,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda a: flow(a, row, 2, 3), (a,))


def test_jet_gradcheck_in_points_direction_and_parameters() -> None:
    net = nt.MLP(2, 1, width=3, depth=1, dtype=F64, generator=4)
    names = [name for name, _ in net.named_parameters()]

    def f(x: torch.Tensor, v: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return rows(x, v, lambda z: functional_call(net, dict(zip(names, values, strict=True)), (z,)))

    leaves = tuple(t.detach().clone().requires_grad_() for t in (X[:2], V, *net.parameters()))
    assert torch.autograd.gradcheck(f, leaves)
    assert torch.autograd.gradgradcheck(f, leaves)


def test_forward_mode_and_forward_over_forward() -> None:
    t = randn(3, 2, seed=5)
    exact = torch.autograd.functional.jvp(reference, (X, V), (t, V))[1]
    close(jvp(rows, (X, V), (t, V))[1], exact)

    def once(f: Callable[..., torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: torch.autograd.functional.jvp(f, (x,), (t,), create_graph=True)[1]

    close(jvp(lambda x: jvp(rows, (x,), (t,))[1], (X,), (t,))[1], once(once(reference))(X))


def test_vmap_over_points_and_directions() -> None:
    xs, vs = randn(4, 3, 2), randn(4, 2, seed=3)
    close(vmap(rows)(xs, vs), torch.stack([rows(x, v) for x, v in zip(xs, vs, strict=True)]))
    close(vmap(rows, (None, 0))(X, vs), torch.stack([rows(X, v) for v in vs]))
    close(vmap(rows, (2, None), 1)(xs.movedim(0, 2), V), torch.stack([rows(x) for x in xs], 1))


@pytest.mark.parametrize("only", ["all", "0.bias", "2.weight"])
def test_vmap_over_an_ensemble_of_parameters(only: str) -> None:
    nets = [nt.MLP(2, 2, width=4, depth=2, dtype=F64, generator=i) for i in range(3)]
    stacked, _ = stack_module_state(nets)
    chosen = stacked if only == "all" else {only: stacked[only]}
    fixed = dict(nets[0].named_parameters())

    def f(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return rows(X, f=lambda z: functional_call(nets[0], {**fixed, **parameters}, (z,)))

    close(vmap(f)(chosen), torch.stack([f({k: v[i] for k, v in chosen.items()}) for i in range(3)]))


def test_jacobians_and_hessians() -> None:
    exact = torch.autograd.functional.jacobian(reference, X)
    close(jacrev(rows)(X), exact)
    close(jacfwd(rows)(X), exact)

    def energy(f: Callable[..., torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: f(x).square().sum()

    second = torch.autograd.functional.hessian(energy(reference), X)
    close(hessian(energy(rows))(X), second)
    close(jacrev(jacrev(energy(rows)))(X), second)
    close(jacrev(jacfwd(energy(rows)))(X), second)


def test_per_point_gradients() -> None:
    per_point = vmap(grad(lambda x: rows(x[None]).square().sum()))(X)
    close(per_point, grad(lambda x: rows(x).square().sum())(X))


def test_functional_call_gradient_is_that_of_the_module() -> None:
    parameters = dict(NET.named_parameters())
    found = grad(lambda p: rows(X, f=lambda z: functional_call(NET, p, (z,))).square().sum())(parameters)
    exact = torch.autograd.grad(reference(X).square().sum(), list(parameters.values()), allow_unused=True)
    for (name, g), e in zip(found.items(), exact, strict=True):
        assert name in parameters
        close(g, e)


def test_no_grad_and_inference_mode() -> None:
    exact = rows(X)
    assert exact.requires_grad
    with torch.no_grad():
        plain = rows(X)
        assert not reference(X).requires_grad
    with torch.inference_mode():
        inferred = rows(X)
    assert not plain.requires_grad
    assert torch.equal(plain, exact.detach())
    assert torch.equal(inferred.clone(), exact.detach())


COMPILED = """
import torch, ntangent as nt
net = nt.MLP(2, 2, width=4, depth=2, dtype=torch.float64, generator=0)
x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2)
got = torch.compile(lambda x: nt.jet(net, x, 2, 0).data, backend="aot_eager")(x)
expected = nt.jet(net, x, 2, 0).data
torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)
leaves = list(net.parameters())
grads = [torch.autograd.grad(y.square().sum(), leaves) for y in (got, expected)]
for a, b in zip(*grads, strict=True):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
"""


def test_compiled_jet_agrees() -> None:
    """The graph breaks at the custom derivatives (dynamo has no rule for their jvp) but is right.

    In a process of its own: dynamo cannot trace the runtime type checks that pytest switches on.
    """
    root = Path(nt.__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False, cwd=root
    )
    assert result.returncode == 0, result.stderr
