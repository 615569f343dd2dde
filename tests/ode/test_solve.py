"""odeint, solve, sensitivity and the calls of torchdiffeq, against closed forms and scipy."""

import math
import time

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from ntangent import ode
from ntangent._base.errors import (
    ArgumentError,
    DtypeError,
    NoEffectWarning,
    ShapeError,
    SolverError,
    UnknownNameError,
)

F64 = torch.float64


def decay(t: Tensor, y: Tensor) -> Tensor:
    return -y


def network(seed: int = 0, width: int = 8, n: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(n, width), nn.Tanh(), nn.Linear(width, n)).to(F64)


class Stiff(nn.Module):
    """A stiff linear part and a network, on rows."""

    def __init__(self, n: int = 3) -> None:
        super().__init__()
        self.net, self.rates = network(n=n), torch.logspace(0, 4, n, dtype=F64)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return -self.rates * y + self.net(y)


def grid(*t: float) -> Tensor:
    return torch.tensor(t, dtype=F64)


# --- stiff problems against references ------------------------------------------------------------


def robertson_reference(end: float, k: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solution and sensitivities to log k by scipy on the variational equations."""

    def f(t: float, z: np.ndarray) -> np.ndarray:
        (a, b, c), s = z[:3], z[3:].reshape(3, 3)
        r = np.array([k[0] * a, k[1] * b * b, k[2] * b * c])
        jac = np.array(
            [
                [-k[0], k[2] * c, k[2] * b],
                [k[0], -2 * k[1] * b - k[2] * c, -k[2] * b],
                [0, 2 * k[1] * b, 0],
            ]
        )
        source = np.array([[-r[0], 0, r[2]], [r[0], -r[1], -r[2]], [0, r[1], 0]])
        return np.concatenate([[r[2] - r[0], r[0] - r[1] - r[2], r[1]], (jac @ s + source).ravel()])

    start = np.concatenate([[1.0, 0, 0], np.zeros(9)])
    found = solve_ivp(f, (0, end), start, method="Radau", t_eval=times, rtol=1e-10, atol=1e-15)
    return found.y[:3].T, found.y[3:].T.reshape(-1, 3, 3)


class Robertson(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.log_k = nn.Parameter(torch.log(grid(0.04, 3e7, 1e4)))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        k = torch.exp(self.log_k)
        a, b, c = y.unbind(-1)
        first, second, third = k[0] * a, k[1] * b * b, k[2] * b * c
        return torch.stack([third - first, first - second - third, second], -1)


def test_robertson_to_1e5_has_the_gradient_of_the_variational_equations() -> None:
    times = np.concatenate([[0.0], np.logspace(-5, 5, 41)])
    model, weights = Robertson(), grid(1.0, 1e4, 1.0)
    started = time.process_time()
    y = ode.odeint(model, grid(1.0, 0.0, 0.0), torch.from_numpy(times), rtol=1e-6, atol=1e-10)
    ((y - 0.5) * weights).square().mean().backward()
    assert time.process_time() - started < 5  # 0.3 s where nothing else runs
    states, slopes = robertson_reference(1e5, model.log_k.detach().exp().numpy(), times)
    w = weights.numpy()
    expected = 2 * np.einsum("ti,tip->p", (states - 0.5) * w**2, slopes) / states.size
    np.testing.assert_allclose(model.log_k.grad, expected, rtol=1e-6)


def test_linear_decay_over_six_decades_of_rates() -> None:
    """torchdiffeq's radauIIA5 returned a gradient of 1e21 here."""
    log_k = torch.log(grid(1.0, 1e3, 1e6)).requires_grad_()
    t = torch.linspace(0, 1, 101, dtype=F64)

    def f(t: Tensor, y: Tensor) -> Tensor:
        return -log_k.exp() * y

    y = ode.odeint(f, torch.ones(3, dtype=F64), t, method="radauIIA5", options={"steps": 1})
    (grad,) = torch.autograd.grad(y[-1].sum(), log_k)
    assert float(grad[0]) == pytest.approx(-math.exp(-1), rel=1e-8)
    assert grad[1:].abs().max() < 1e-100


def test_van_der_pol_through_the_jump() -> None:
    log_mu = torch.tensor(math.log(1000.0), dtype=F64, requires_grad=True)

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[1], log_mu.exp() * (1 - y[0] ** 2) * y[1] - y[0]])

    def variational(t: float, z: np.ndarray) -> list[float]:
        x, y, a, b = z
        mu = 1000.0
        return [y, mu * (1 - x * x) * y - x, b, mu * (1 - x * x) * (y + b) - 2 * mu * x * y * a - a]

    t = torch.linspace(0, 1000, 11, dtype=F64)
    y = ode.odeint(f, grid(2.0, 0.0), t, rtol=1e-7, atol=1e-10)
    (grad,) = torch.autograd.grad(y[:, 0].square().sum(), log_mu)
    ref = solve_ivp(
        variational, (0, 1000), [2.0, 0, 0, 0], method="Radau", rtol=1e-10, atol=1e-12, t_eval=t.numpy()
    )
    assert float(grad) == pytest.approx(2 * (ref.y[0] * ref.y[2]).sum(), rel=1e-4)


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["radau5", "kvaerno3", "dopri5", "rodas4", "bdf2"])
def test_a_batch_is_its_rows(method: str) -> None:
    model, t = Stiff(), grid(0.0, 0.01, 0.05)
    y0 = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    y0[2] *= 50  # its steps are others
    settings = {"method": method, "rtol": 1e-5, "atol": 1e-8}
    together = ode.odeint(model, y0, t, batched=True, **settings)
    grad = torch.autograd.grad(together.square().sum(), list(model.parameters()))
    apart = torch.stack([ode.odeint(model, y, t, **settings) for y in y0], dim=1)
    expected = torch.autograd.grad(apart.square().sum(), list(model.parameters()))
    # Rows share the age of the Jacobian, so stages agree to the tolerance of the iteration.
    torch.testing.assert_close(together, apart, rtol=2e-4, atol=1e-6)
    for a, b in zip(grad, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=1e-4)


def test_fixed_steps_of_a_batch_are_those_of_its_rows_to_rounding() -> None:
    model, t = Stiff(), grid(0.0, 0.5, 1.0)
    y0 = torch.randn(5, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    settings = {"method": "backward_euler", "options": {"steps": 4}}
    together = ode.odeint(model, y0, t, batched=True, **settings)
    apart = torch.stack([ode.odeint(model, y, t, **settings) for y in y0], dim=1)
    torch.testing.assert_close(together, apart, rtol=1e-9, atol=1e-12)
    grads = [torch.autograd.grad(y.square().sum(), list(model.parameters())) for y in (together, apart)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)


def test_batched_sensitivity_is_that_of_the_rows() -> None:
    model, t = Stiff(), grid(0.0, 1.0)
    y0 = torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    settings = {"method": "radau5", "options": {"steps": 3}}
    _, together = ode.sensitivity(model, y0, t, batched=True, **settings)
    for i, y in enumerate(y0):
        torch.testing.assert_close(together[:, i], ode.sensitivity(model, y, t, **settings)[1])


def test_time_has_an_axis_for_the_rows_of_a_batch() -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        assert t.shape[-1] == 1 and y.ndim == 2
        return torch.cos(t) * y

    y = ode.odeint(f, torch.ones(3, 2, dtype=F64), grid(0.0, 1.0), batched=True)
    torch.testing.assert_close(y[-1], torch.full((3, 2), math.exp(math.sin(1)), dtype=F64))


# --- states, times, dtypes ------------------------------------------------------------------------


def test_tuples_and_shapes() -> None:
    y0 = (torch.ones(2, 3, dtype=F64), torch.ones((), dtype=F64))
    one, two = ode.odeint(lambda t, y: (-y[0], y[1] * 0.5), y0, grid(0.0, 0.5, 1.0))
    assert one.shape == (3, 2, 3) and two.shape == (3,)
    torch.testing.assert_close(two[-1], torch.tensor(math.exp(0.5), dtype=F64))


def test_time_runs_backwards_too() -> None:
    k = torch.tensor(0.7, dtype=F64, requires_grad=True)
    y = ode.odeint(lambda t, y: -k * y, torch.ones(1, dtype=F64), grid(1.0, 0.0), rtol=1e-9, atol=1e-12)
    (grad,) = torch.autograd.grad(y[-1, 0], k)
    assert float(y.detach()[-1]) == pytest.approx(math.exp(0.7), rel=1e-8)
    assert float(grad) == pytest.approx(math.exp(0.7), rel=1e-7)


def test_gradient_for_the_times() -> None:
    t = grid(0.2, 0.7, 1.1).requires_grad_()
    y0 = torch.ones(1, dtype=F64)

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.cos(3 * t) * y

    y = ode.odeint(f, y0, t, rtol=1e-10, atol=1e-12)
    weights = grid(1.0, 2.0, -3.0)
    (grad,) = torch.autograd.grad((weights * y[:, 0]).sum(), t)
    exact = torch.exp((torch.sin(3 * t) - torch.sin(3 * t[0])) / 3)
    (expected,) = torch.autograd.grad((weights * exact).sum(), t)
    torch.testing.assert_close(grad, expected, rtol=1e-7, atol=1e-9)


def test_float32_stays_float32_and_is_as_accurate_as_it_can_be() -> None:
    y0 = torch.ones(2)
    y = ode.odeint(decay, y0, torch.tensor([0.0, 1.0]), rtol=1e-4, atol=1e-6)
    assert y.dtype == torch.float32
    assert float((y[-1] - math.exp(-1)).abs().max()) < 1e-4


def test_tensors_in_a_closure_get_their_gradients_computed_ones_too() -> None:
    leaf = torch.tensor(0.3, dtype=F64, requires_grad=True)
    k = leaf.exp()  # not a leaf: its tape is walked through for every step
    y = ode.odeint(lambda t, y: -k * y, torch.ones(1, dtype=F64), grid(0.0, 1.0), rtol=1e-9, atol=1e-12)
    (through,) = torch.autograd.grad(y[-1, 0], leaf, retain_graph=True)
    z = ode.odeint(
        lambda t, y: -k * y, torch.ones(1, dtype=F64), grid(0.0, 1.0), rtol=1e-9, atol=1e-12, params=[k]
    )
    (explicit,) = torch.autograd.grad(z[-1, 0], leaf)
    exact = -math.exp(0.3) * math.exp(-math.exp(0.3))
    assert float(through) == pytest.approx(exact, rel=1e-7)
    assert float(explicit) == pytest.approx(exact, rel=1e-7)


def test_func_that_cannot_be_vmapped() -> None:
    k = torch.tensor(2.0, dtype=F64, requires_grad=True)

    def f(t: Tensor, y: Tensor) -> Tensor:
        return -k * y if float(t) <= 0.5 else -2 * k * y

    y = ode.odeint(f, torch.ones(1, dtype=F64), grid(0.0, 0.5, 1.0), method="radau5", options={"steps": 20})
    (grad,) = torch.autograd.grad(y[-1, 0], k)
    assert float(grad) == pytest.approx(-1.5 * math.exp(-3), rel=1e-5)


@pytest.mark.parametrize("method", ["radau5", "dopri5", "bdf3", "kencarp3_implicit", "rodas4"])
def test_checkpoints_change_memory_and_not_gradients(method: str) -> None:
    if method not in ode.methods.METHODS:
        method = "kvaerno3"
    model, t = Stiff(), grid(0.0, 0.02)
    y0 = torch.ones(3, dtype=F64)
    grads = []
    for checkpoint in (None, 3):
        y = ode.odeint(model, y0, t, method=method, options={"steps": 10}, checkpoint=checkpoint)
        grads.append(torch.autograd.grad(y.square().sum(), list(model.parameters())))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_many_unknowns_take_the_path_without_jacobians() -> None:
    net = network(n=40)
    y0 = torch.randn(40, dtype=F64, generator=torch.Generator().manual_seed(2))
    y = ode.odeint(lambda t, y: net(y), y0, grid(0.0, 1.0), method="dopri5", options={"steps": 3})
    grads = torch.autograd.grad(y[-1].square().sum(), list(net.parameters()))
    expected = unrolled_rk(net, y0)
    for a, b in zip(grads, torch.autograd.grad(expected.square().sum(), list(net.parameters())), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def unrolled_rk(net: nn.Module, y: Tensor) -> Tensor:
    """Three steps of dopri5 with the tape of torch."""
    a, b, _, _ = ode.methods.get("dopri5").tensors()
    for _ in range(3):
        slopes: list[Tensor] = []
        for row in a:
            slopes.append(net(y + sum((w * k for w, k in zip(row, slopes, strict=False)), 0 * y) / 3))
        y = y + sum(w * k for w, k in zip(b, slopes, strict=True)) / 3
    return y


def test_a_given_jacobian_is_used() -> None:
    calls = []

    def jacobian(t: Tensor, y: Tensor) -> Tensor:
        calls.append(1)
        return -torch.eye(2, dtype=F64)

    y = ode.odeint(decay, torch.ones(2, dtype=F64), grid(0.0, 1.0), jacobian=jacobian)
    assert calls
    torch.testing.assert_close(y[-1], torch.full((2,), math.exp(-1), dtype=F64), rtol=1e-6, atol=0)


def test_parameters_changed_before_the_way_back_are_noticed() -> None:
    model = Stiff()
    y = ode.odeint(model, torch.ones(3, dtype=F64), grid(0.0, 0.1))
    with torch.no_grad():
        next(model.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_second_derivatives_are_refused() -> None:
    k = torch.tensor(1.0, dtype=F64, requires_grad=True)
    y = ode.odeint(lambda t, y: -k * y, torch.ones(1, dtype=F64), grid(0.0, 1.0))
    (grad,) = torch.autograd.grad(y[-1, 0], k, create_graph=True)
    with pytest.raises(ArgumentError, match="second derivatives"):
        torch.autograd.grad(grad, k)


# --- solve, dense output, events ------------------------------------------------------------------


@pytest.mark.parametrize("method", ["radau5", "dopri5", "kvaerno5", "rodas4", "gauss3", "bdf4"])
def test_the_solution_is_a_function_of_time(method: str) -> None:
    f = lambda t, y: torch.stack([y[1], -y[0]])  # noqa: E731
    solution = ode.solve(f, grid(0.0, 1.0), grid(0.0, 1.0, 3.0), method=method, rtol=1e-8, atol=1e-10)
    assert solution.success and solution.accepted > 3 and solution.n_f > 0
    times = torch.linspace(0, 3, 57, dtype=F64)
    torch.testing.assert_close(solution(times)[:, 0], torch.sin(times), rtol=0, atol=2e-6)
    torch.testing.assert_close(solution.y[:, 0], torch.sin(solution.t), rtol=0, atol=2e-6)
    assert solution(3.5).isnan().all()


def test_events_are_located() -> None:
    f = lambda t, y: torch.stack([y[1], -y[0]])  # noqa: E731
    crossing = ode.Event(lambda t, y: y[0])
    last = ode.Event(lambda t, y: y[1] + 0.5, terminal=True)
    t = grid(0.0, 20.0)
    solution = ode.solve(f, grid(1.0, 0.0), t, rtol=1e-9, atol=1e-11, events=[crossing, last])
    assert float(solution.events[1][0]) == pytest.approx(math.asin(0.5), abs=1e-7)
    assert len(solution.events[0]) == 0 and solution.status == "stopped by an event"
    free = ode.solve(f, grid(1.0, 0.0), t, rtol=1e-9, atol=1e-11, events=[crossing])
    expected = math.pi * (torch.arange(6, dtype=F64) + 0.5)
    torch.testing.assert_close(free.events[0], expected, rtol=0, atol=1e-6)


# --- torchdiffeq's calls --------------------------------------------------------------------------


class Lambda(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([[-0.1, 2.0], [-2.0, -0.1]]))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.mm(y**3, self.a)


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "bosh3", "adaptive_heun", "fehlberg2"])
def test_calls_of_torchdiffeq_adaptive(method: str) -> None:
    func, y0, t = Lambda(), torch.tensor([[2.0, 0.0]]), torch.linspace(0.0, 1.0, 20)
    y = ode.odeint(func, y0, t, rtol=1e-4, atol=1e-5, method=method)
    assert y.shape == (20, 1, 2)
    y = ode.odeint_adjoint(func, y0, t, rtol=1e-4, atol=1e-5, method=method, adjoint_params=func.parameters())
    y.abs().mean().backward()
    assert func.a.grad is not None and bool(torch.isfinite(func.a.grad).all())


FIXED = ["euler", "midpoint", "rk4", "heun3", "implicit_euler", "implicit_midpoint", "radauIIA3", "gl4"]


@pytest.mark.parametrize("method", [*FIXED, "radauIIA5", "gl6", "sdirk2", "trbdf2", "trapezoid"])
def test_calls_of_torchdiffeq_fixed(method: str) -> None:
    y = ode.odeint(decay, torch.ones(2), torch.linspace(0, 1, 5), method=method, options=dict(step_size=0.05))
    assert float((y[-1] - math.exp(-1)).abs().max()) < 0.02


def test_adjoint_options_without_a_meaning_warn() -> None:
    y0, t = torch.ones(1), torch.tensor([0.0, 1.0])
    with pytest.warns(NoEffectWarning, match="adjoint_rtol"):
        ode.odeint_adjoint(decay, y0, t, adjoint_rtol=1e-3)
    with pytest.warns(NoEffectWarning, match="perturb"):
        ode.odeint(decay, y0, t, method="rk4", options={"perturb": True})
    with pytest.raises(UnknownNameError, match="step_size"):
        ode.odeint(decay, y0, t, options={"stepsize": 0.1})


def test_odeint_event_has_the_gradient_of_the_event_time() -> None:
    """A falling ball: the time is sqrt(2 h / g)."""
    gravity = torch.tensor(9.8, dtype=F64, requires_grad=True)
    height = torch.tensor(10.0, dtype=F64, requires_grad=True)

    def f(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return state[1], -gravity * torch.ones_like(state[1])

    y0 = (height[None], torch.zeros(1, dtype=F64))
    stop, (position, _) = ode.odeint_event(
        f, y0, torch.zeros((), dtype=F64), event_fn=lambda t, y: y[0], method="dopri5"
    )
    expected = torch.sqrt(2 * height / gravity)
    grads = torch.autograd.grad(stop, [gravity, height], retain_graph=True)
    exact = torch.autograd.grad(expected, [gravity, height])
    assert float(stop.detach()) == pytest.approx(float(expected.detach()), rel=1e-8)
    torch.testing.assert_close(torch.stack(grads), torch.stack(exact), rtol=1e-7, atol=0)
    rest = torch.autograd.grad(position[-1, 0], [gravity, height])  # the event is where it is zero
    assert torch.stack(rest).abs().max() < 1e-7


# --- failures -------------------------------------------------------------------------------------


def test_failures_say_where_and_what_to_do() -> None:
    blow_up = lambda t, y: y**2  # noqa: E731
    y0, t = torch.ones(1, dtype=F64), grid(0.0, 2.0)
    with pytest.raises(SolverError, match=r"at t = (0\.99|1)"):
        ode.odeint(blow_up, y0, t)
    with pytest.raises(SolverError, match="too many steps") as caught:
        ode.solve(lambda t, y: -1e6 * y, y0, t, method="dopri5", options={"max_num_steps": 50})
    assert "radau5" in caught.value.fix
    assert isinstance(caught.value.solution, ode.Solution) and not caught.value.solution.success
    part = ode.solve(blow_up, y0, grid(0.0, 0.5, 2.0), failure="return")
    assert not part.success and float(part.y[1]) == pytest.approx(2.0, rel=1e-4)
    assert bool(part.y[2].isnan().all())
    with pytest.raises(SolverError, match=r"non-finite|underflow"):
        ode.odeint(lambda t, y: torch.log(-y), y0, t)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"y0": [1.0]}, DtypeError),
        ({"y0": torch.ones(2, dtype=torch.int64)}, DtypeError),
        ({"y0": torch.full((2,), torch.nan)}, ArgumentError),
        ({"t": torch.tensor([0.0, 1.0, 0.5])}, ArgumentError),
        ({"t": torch.tensor(1.0)}, ShapeError),
        ({"func": lambda t, y: y[:1]}, ShapeError),
        ({"func": lambda t, y: y.double()}, DtypeError),
        ({"func": 3}, DtypeError),
        ({"method": "radauu"}, UnknownNameError),
        ({"rtol": -1.0}, ArgumentError),
        ({"options": {"step_size": -1.0}}, ArgumentError),
        ({"batched": True}, ShapeError),
        ({"method": "kencarp3"}, ArgumentError),
        ({"method": "etd1"}, ArgumentError),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], error: type[Exception]) -> None:
    good = {"func": decay, "y0": torch.ones(2), "t": torch.tensor([0.0, 1.0])}
    with pytest.raises(error):
        ode.odeint(**{**good, **arguments})  # type: ignore[arg-type]


def test_solve_refuses_to_choose_steps_without_an_estimate() -> None:
    with pytest.raises(ArgumentError, match="no error estimate"):
        ode.solve(decay, torch.ones(1), torch.tensor([0.0, 1.0]), method="rk4")
