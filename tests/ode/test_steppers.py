"""Every method of the catalogue: its order, its stability function, its exact derivatives."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from ntangent import ode

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
    coarse = 20 if name in ("bdf5", "bdf6") else coarse
    coarse = min(coarse, 4 if order > 2 else 8) if name.startswith(("pade", "taylor")) else coarse
    f = Coupled(parameters(grad=False))
    errors = [
        float((ode.odeint(f, Y0, ENDS, method=name, options=steps(n))[-1] - truth).norm())
        for n in (coarse, 2 * coarse)
    ]
    observed = math.log2(errors[0] / errors[1])
    # A method may happen to do better on one problem; it may not do worse.
    assert order - 0.35 < observed < order + 1.1, (observed, errors)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("bdf")])
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


def stiff(t: Tensor, y: Tensor) -> Tensor:
    """Prothero and Robinson: the solution is cos t, whatever the rate."""
    return -1e6 * (y - torch.cos(t)) - torch.sin(t)


@pytest.mark.parametrize(
    ("name", "order"),
    [("radau5", 3), ("backward_euler", 1), ("gauss2", 2), ("lobatto_iiic3", 2), ("trapezoid", 2)],
)
def test_stiff_order_on_prothero_robinson(name: str, order: int) -> None:
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    errors = [
        abs(float(ode.odeint(stiff, one, t, method=name, options=steps(n))[-1]) - math.cos(1))
        for n in (8, 16)
    ]
    # Errors of order h^(stage order) or h^(stage order + 1)/λ; they may not be of a lower order.
    assert math.log2(errors[0] / errors[1]) > order - 0.5 or errors[1] < 1e-9, errors
