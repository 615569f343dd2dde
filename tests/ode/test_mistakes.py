"""Right-hand sides that reuse or change memory, and tolerances that do not fit: closed forms as oracles."""

import math
import warnings

import pytest
import torch

from ntangent import ode
from ntangent._base.errors import ArgumentError, NoEffectWarning, ShapeError

F64 = torch.float64
ONE, SPAN = torch.ones(2, dtype=F64), torch.tensor([0.0, 1.0], dtype=F64)


@pytest.mark.parametrize("method", ["dopri5", "radau5", "rk4", "adams_bashforth4", "rodas5p"])
def test_a_function_may_return_the_same_memory_each_time(method):
    memory = torch.empty(2, dtype=F64)

    def decay(t, y):
        return memory.copy_(-y.detach())

    exact = {"jacobian": lambda t, y: -torch.eye(2, dtype=F64)} if method in ("radau5", "rodas5p") else {}
    options = {"step_size": 0.01} if method in ("rk4", "adams_bashforth4") else None
    y = ode.odeint(decay, ONE, SPAN, method=method, options=options, **exact)
    assert (y[-1] - math.exp(-1)).abs().max() < 1e-6


@pytest.mark.parametrize("method", ["dopri5", "radau5", "rk4"])
def test_a_function_that_changes_its_state_is_refused(method):
    start = ONE.clone()
    with pytest.raises(ArgumentError, match="changes the state"):
        ode.odeint(lambda t, y: y.mul_(-1), start, SPAN, method=method)
    assert torch.equal(start, ONE)


def test_tolerances_have_one_number_for_each_unknown():
    with pytest.raises(ShapeError, match="atol has 3 numbers for 2"):
        ode.odeint(lambda t, y: -y, ONE, SPAN, atol=torch.full((3,), 1e-9, dtype=F64))
    y = ode.odeint(lambda t, y: -y, ONE, SPAN, atol=torch.full((2,), 1e-9, dtype=F64))
    assert (y[-1] - math.exp(-1)).abs().max() < 1e-6


@pytest.mark.parametrize("method", ["dopri5", "radau5"])
def test_parameters_that_matter_later_are_found(method):
    """y' = -a y, from t = 1/2 on -b y: y(1) = exp(-(a + b)/2)."""
    a, b = (torch.tensor(v, dtype=F64, requires_grad=True) for v in (1.0, 2.0))
    t = torch.tensor([0.0, 0.5, 1.0], dtype=F64)
    y = ode.odeint(lambda t, y: -a * y if t < 0.5 else -b * y, ONE, t, method=method, rtol=1e-8)
    found = torch.autograd.grad(y[-1, 0], (a, b))
    for g in found:
        assert abs(g.item() + math.exp(-1.5) / 2) < 1e-4


@pytest.mark.parametrize("method", ["exprb32", "taylor8"])
def test_long_steps_are_right_between_their_ends(method):
    """sin and cos: a method that is exact on linear equations takes steps of a period."""
    start, span = torch.tensor([0.0, 1.0], dtype=F64), torch.tensor([0.0, 6.0], dtype=F64)
    for sign in (1, -1):
        solution = ode.solve(
            lambda t, y: torch.stack([y[1], -y[0]]), start, sign * span, method=method, rtol=1e-8, atol=1e-8,
            events=[lambda t, y: y[0]],
        )  # fmt: skip
        t = sign * torch.linspace(0.0, 6.0, 61, dtype=F64)
        assert (solution(t)[:, 0] - t.sin()).abs().max() < 1e-5
        assert abs(solution.events[0].item() - sign * math.pi) < 1e-5


def test_a_tolerance_that_nothing_keeps_is_named():
    """One step of rk4 from 0 to 1: rtol says nothing of it, as the error of 8e-3 shows."""
    y0, t = torch.ones(1, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    with pytest.warns(NoEffectWarning, match="rk4 has no error estimate"):
        states = ode.odeint(lambda t, y: -y, y0, t, method="rk4", rtol=1e-10)
    assert abs(float(states[-1, 0]) - math.exp(-1)) > 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ode.odeint(lambda t, y: -y, y0, t, method="rk4")
        ode.odeint(lambda t, y: -y, y0, t, method="rk4", rtol=1e-10, options={"step_size": 0.1})
        ode.odeint(lambda t, y: -y, y0, t, method="dopri5", rtol=1e-10)
