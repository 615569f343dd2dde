"""Every method of the catalogue: its order, its stability function, its exact derivatives."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from ntangent import ode
from ntangent._base.errors import InstabilityWarning

NAMES = list(ode.methods.names())
P = (1.3, 0.7)


class Coupled:
    """A nonlinear, non-autonomous system with every form that some family asks for."""

    def __init__(self, p: Tensor) -> None:
        self.p = p

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        a, b = y.unbind(-1)
        first = -self.p[0] * a * b + torch.sin(3 * t)
        return torch.stack([first, self.p[1] * a * torch.cos(t) - b * b / 2], -1)

    def explicit(self, t: Tensor, y: Tensor) -> Tensor:
        a, _ = y.unbind(-1)
        return torch.stack([torch.sin(3 * t) + 0 * a, self.p[1] * a * torch.cos(t)], -1)

    def implicit(self, t: Tensor, y: Tensor) -> Tensor:
        a, b = y.unbind(-1)
        return torch.stack([-self.p[0] * a * b, -b * b / 2], -1)

    def linear(self) -> Tensor:
        return torch.stack([torch.stack([-self.p[0], self.p[1]]), torch.stack([self.p[1], -self.p[0]])])


def parameters(grad: bool = True) -> Tensor:
    return torch.tensor(P, dtype=torch.float64, requires_grad=grad)


Y0 = torch.tensor([1.0, 0.5], dtype=torch.float64)
ENDS = torch.tensor([0.0, 1.0], dtype=torch.float64)
THREE = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def truth() -> Tensor:
    def f(t: float, y: np.ndarray) -> list[float]:
        return [-P[0] * y[0] * y[1] + math.sin(3 * t), P[1] * y[0] * math.cos(t) - y[1] ** 2 / 2]

    found = solve_ivp(f, (0, 1), [1.0, 0.5], method="DOP853", rtol=1e-13, atol=1e-14)
    return torch.from_numpy(found.y[:, -1])


def steps(n: int) -> dict[str, int]:
    return {"steps": n}


@pytest.mark.parametrize("name", NAMES)
def test_order_on_a_nonlinear_non_autonomous_problem(name: str, truth: Tensor) -> None:
    order = ode.methods.get(name).order
    # Fine enough for the leading term, coarse enough that order 8 stays above rounding.
    coarse = 16 if order <= 3 else 10 if order <= 4 else 5
    coarse = 20 if name in ("bdf5", "bdf6") or name.startswith("adams") else coarse
    coarse = {"explicit_adams": 400, "implicit_adams": 40}.get(name, coarse)  # twelve slopes need short steps
    coarse = min(coarse, 4 if order > 2 else 8) if name.startswith(("pade", "taylor")) else coarse
    f = Coupled(parameters(grad=False))
    errors = [
        float((ode.odeint(f, Y0, ENDS, method=name, options=steps(n))[-1] - truth).norm())
        for n in (coarse, 2 * coarse)
    ]
    observed = math.log2(errors[0] / errors[1])
    # A method may happen to do better on one problem; it may not do worse.
    assert order - 0.35 < observed < order + 1.1, (observed, errors)


MULTISTEP = {
    name for name in NAMES if isinstance(ode.methods.get(name), ode.methods.Multistep | ode.methods.Adams)
}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in MULTISTEP])
@pytest.mark.parametrize("z", [-0.7, -4.0])
def test_one_step_on_dahlquists_equation_is_the_stability_function(name: str, z: float) -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return z * y

    f.linear = torch.full((1, 1), z, dtype=torch.float64)  # type: ignore[attr-defined]
    f.explicit = lambda t, y: 0 * y  # type: ignore[attr-defined]
    f.implicit = f  # type: ignore[attr-defined]
    method = ode.methods.get(name)
    one = torch.ones(1, dtype=torch.float64)
    found = float(ode.odeint(f, one, ENDS, method=name, options=steps(1))[-1])
    # The published decimals of a tableau carry 1e-12 or better, rounding grows with the stages' sizes.
    terms = float(method.rounding) + 64 * 2.2e-16 * max(1.0, abs(z)) ** method.stages
    assert found == pytest.approx(float(method.stability(z)), abs=terms)


@pytest.mark.parametrize("name", sorted(MULTISTEP))
@pytest.mark.parametrize("z", [-0.7, -4.0, -0.3 + 1.1j, -5 + 20j])
def test_steps_on_dahlquists_equation_satisfy_the_recurrence(name: str, z: complex) -> None:
    """Σ α_j y_{n-j} = z Σ β_j y_{n-j} to rounding; a complex z is a block of two unknowns."""
    method = ode.methods.get(name)
    if isinstance(method, ode.methods.Adams):
        alpha, beta = [1.0, -1.0], [float(b) for b in method.weights]
    else:
        assert isinstance(method, ode.methods.Multistep)
        alpha, beta = [float(a) for a in method.alpha], [1.0]
    k = max(len(alpha), len(beta)) - 1
    a, b = complex(z).real, complex(z).imag
    block = (
        torch.tensor([[a, -b], [b, a]], dtype=torch.float64)
        if b
        else torch.tensor([[a]], dtype=torch.float64)
    )
    start = torch.tensor([1.0, 0.3], dtype=torch.float64)[: len(block)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InstabilityWarning)
        y = ode.odeint(
            lambda t, y: block @ y, start, torch.arange(k + 4).double(), method=name, options=steps(1)
        )
    values = torch.complex(y[:, 0], y[:, 1] if b else torch.zeros_like(y[:, 0]))
    for n in range(k, k + 4):
        terms = [c * values[n - j] for j, c in enumerate(alpha)]
        terms += [-z * c * values[n - j] for j, c in enumerate(beta)]
        size = sum(float(term.abs()) for term in terms)
        assert abs(complex(sum(terms))) < 16 * 2.2e-16 * size, n


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name: str) -> None:
    f = Coupled(parameters())
    jets = name.startswith(("pade", "taylor"))  # one long step: each costs a hundred times a Runge-Kutta one
    t = ENDS if jets else THREE

    def states(y0: Tensor, p: Tensor) -> Tensor:
        f.p = p
        return ode.odeint(f, y0, t, method=name, options=steps(1 if jets else 2))

    inputs = (Y0.clone().requires_grad_(), f.p)
    assert torch.autograd.gradcheck(states, inputs, eps=1e-6, atol=1e-7, rtol=1e-6, fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_tangent_is_the_transpose_of_the_adjoint(name: str) -> None:
    f, y0 = Coupled(parameters()), Y0.clone().requires_grad_()
    states = ode.odeint(f, y0, THREE, method=name, options=steps(2))
    weights = torch.randn(states.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grads = torch.cat(torch.autograd.grad((states * weights).sum(), [f.p, y0]))
    y, slopes = ode.sensitivity(f, Y0, THREE, [f.p], method=name, options=steps(2), initial=True)
    assert torch.equal(y, states.detach())
    assert slopes.shape == (3, 2, 4)
    torch.testing.assert_close(torch.einsum("ti,tip->p", weights, slopes), grads, rtol=1e-11, atol=1e-13)


ADAPTIVE = ["radau5", "gauss3", "lobatto_iiic4", "kvaerno5", "sdirk4", "rodas5p", "bdf4", "dopri5", "tsit5"]


@pytest.mark.parametrize("name", [*ADAPTIVE, "kencarp4", "exprb32", "taylor8", "trbdf2", "radau_ia3"])
def test_adaptive_steps_meet_the_tolerance(name: str, truth: Tensor) -> None:
    f = Coupled(parameters(grad=False))
    error = float((ode.odeint(f, Y0, ENDS, method=name, rtol=1e-6, atol=1e-8)[-1] - truth).norm())
    # Local tolerances add up over the steps of an interval of length one.
    assert error < 1e-4 if name in ("bdf4", "trbdf2") else error < 3e-6


@pytest.mark.parametrize("name", ["radau5", "kvaerno5", "rodas4", "bdf3", "dopri5", "backward_euler"])
def test_the_adjoint_of_an_adaptive_solve_is_that_of_its_mesh(name: str) -> None:
    """Against the same steps taken once more, one by one, as fixed ones."""
    f, y0 = Coupled(parameters()), Y0.clone().requires_grad_()
    states = ode.odeint(f, y0, ENDS, method=name, rtol=1e-4, atol=1e-6)
    found = torch.autograd.grad(states[-1].sum(), [f.p, y0])
    _, slopes = ode.sensitivity(f, Y0, ENDS, [f.p], method=name, rtol=1e-4, atol=1e-6, initial=True)
    torch.testing.assert_close(slopes[-1].sum(0), torch.cat(found), rtol=1e-9, atol=1e-12)
    fine = ode.sensitivity(f, Y0, ENDS, [f.p], method="radau5", rtol=1e-10, atol=1e-12, initial=True)[1]
    torch.testing.assert_close(slopes[-1], fine[-1], rtol=3e-2, atol=3e-3)
