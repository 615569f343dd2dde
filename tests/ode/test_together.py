"""Many given steps solved at once: the same steps, the same solution, the same failures as one by one."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ntangent import ode
from ntangent._base.errors import SolverError
from ntangent.ode.ahead import FEWEST, Ahead, Mesh
from ntangent.ode.controller import Control
from ntangent.ode.methods.base import RungeKutta
from ntangent.ode.steppers.implicit import ImplicitStepper
from ntangent.ode.steppers.together import Leap, Together

F64 = torch.float64
IMPLICIT = [
    name
    for name in ode.methods.names()
    if isinstance(ode.methods.get(name), RungeKutta) and ode.methods.get(name).implicit
]
EPS = torch.finfo(F64).eps


class Recorded:
    """Counts how many steps were taken at once, and how often that failed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[int] = []
        self.failed: list[int] = []
        solve = Together.solve

        def watched(this: Together, t: Tensor, h: Tensor, y: Tensor) -> Leap | None:
            found = solve(this, t, h, y)
            (self.failed if found is None else self.steps).append(len(h))
            return found

        monkeypatch.setattr(Together, "solve", watched)


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off what this file is about."""
    monkeypatch.setattr(ImplicitStepper, "longest_leap", lambda this, state: 1)


def net() -> tuple[torch.nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    """Return a non-autonomous stiff field of three unknowns, coupled, and its weights."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    rates = torch.tensor([1.0, 50.0, 2000.0], dtype=F64)

    def func(t: Tensor, y: Tensor) -> Tensor:
        clock = t.sin().expand_as(y[..., :1])
        return -rates * (y - clock) + module(torch.cat([y, clock], dim=-1))

    return module, func


def solved(name: str, t: Tensor, batched: bool, checkpoint: int | None = None) -> list[Tensor]:
    """Return states, and the gradients for y0 and the weights."""
    module, func = net()
    y0 = torch.linspace(-1, 1, 12, dtype=F64).reshape(4, 3)
    y0 = (y0 if batched else y0[0]).clone().requires_grad_()
    y = ode.odeint(
        func, y0, t, method=name, options={"step_size": 0.013}, batched=batched, checkpoint=checkpoint,
        params=list(module.parameters()),
    )  # fmt: skip
    weights = torch.linspace(-1, 2, y.numel(), dtype=F64).reshape(y.shape)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [y0, *module.parameters()])]


def close(found: list[Tensor], wanted: list[Tensor]) -> None:
    """Both solve each stage to 20 rounding errors of |y| + atol / rtol; 100 steps carry that on."""
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).abs().max() <= 1e5 * EPS * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize(
    ("name", "batched"), [*((name, True) for name in IMPLICIT), ("trapezoid", False), ("radau_iia3", False)]
)
def test_same_solution_and_gradient_as_one_by_one(
    name: str, batched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = torch.tensor([0.0, 0.12, 0.125, 0.4], dtype=F64)
    watched = Recorded(monkeypatch)
    together = solved(name, t, batched)
    if name not in ("lobatto_iiib2", "lobatto_iiib3", "lobatto_iiib4"):  # y₁ does not follow from stages
        assert max(watched.steps) >= 10 and not watched.failed
    one_by_one(monkeypatch)
    close(together, solved(name, t, batched))


def test_backwards_in_time_and_with_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    t = torch.tensor([0.05, 0.04, 0.0], dtype=F64)
    watched = Recorded(monkeypatch)
    backwards = solved("gauss2", t, True)
    forwards = solved("radau_iia2", -t, True)
    before = len(watched.steps)
    assert before >= 2
    kept = solved("radau_iia2", -t, True, checkpoint=3)
    assert len(watched.steps) > before + 1  # the stages were found again at once, too
    close(kept, forwards)
    one_by_one(monkeypatch)
    close(backwards, solved("gauss2", t, True))


def test_steps_are_those_of_the_loop_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    _, func = net()
    t = torch.tensor([0.0, 0.1, 0.27, 0.271, 0.4], dtype=F64)
    y0 = torch.ones(2, 3, dtype=F64)

    def knots() -> tuple[Tensor, Tensor, Tensor]:
        found = ode.solve(func, y0, t, method="sdirk2", options={"step_size": 0.007}, batched=True)
        return found.dense.t, found.dense.h, found.y

    first = knots()
    one_by_one(monkeypatch)
    second = knots()
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    close([first[2]], [second[2]])


def test_a_function_that_branches_on_values_is_stepped_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def func(t: Tensor, y: Tensor) -> Tensor:
        return -5 * y if float(t) < 0.5 else -50 * (y - 1)

    watched = Recorded(monkeypatch)
    y = ode.odeint(
        func, torch.ones(1, dtype=F64), torch.tensor([0.0, 1.0], dtype=F64),
        method="backward_euler", options={"steps": 100},
    )  # fmt: skip
    assert not watched.steps
    # The step from t to t + h takes f at t + h.
    start = (1 + 0.05) ** -49
    assert float(y[-1]) == pytest.approx(1 + (start - 1) * 1.5**-51, rel=1e-12)


def test_where_it_does_not_contract_shorter_runs_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Van der Pol through a jump: what is solved at once must be what single steps find."""

    def func(t: Tensor, y: Tensor) -> Tensor:
        u, v = y.unbind(-1)
        return torch.stack([v, 100 * ((1 - u**2) * v - u)], dim=-1)

    y0, t = torch.tensor([2.0, -0.66], dtype=F64), torch.tensor([0.0, 1.0, 2.0], dtype=F64)

    def run() -> Tensor:
        states: Tensor = ode.odeint(func, y0, t, method="radau_iia2", options={"steps": 150})
        return states

    watched = Recorded(monkeypatch)
    together = run()
    assert watched.failed and watched.steps
    one_by_one(monkeypatch)
    # The jump multiplies differences in time of the single steps' rounding.
    torch.testing.assert_close(together, run(), rtol=1e-8, atol=1e-8)


def test_failures_are_those_of_single_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """y' = y² has no solution past t = 1, and its stage equation none near it."""

    def fail(**options: float) -> str:
        with pytest.raises(SolverError) as caught:
            ode.odeint(
                lambda t, y: y**2, torch.ones(1, dtype=F64), torch.tensor([0.0, 2.0], dtype=F64),
                method="backward_euler", options={"steps": 40, **options},
            )  # fmt: skip
        return str(caught.value)

    together, few = fail(), fail(max_num_steps=7)
    assert "7 steps accepted" in few and "too many steps" in few
    one_by_one(monkeypatch)
    assert together == fail() and few == fail(max_num_steps=7)


def test_a_jacobian_that_is_given_and_takes_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked point by point then."""

    def jacobian(t: Tensor, y: Tensor) -> Tensor:
        assert math.isfinite(float(y[0]))
        return torch.tensor([[-3.0 * float(y[0]) ** 2]], dtype=F64)

    y0, t = torch.ones(1, dtype=F64), torch.tensor([0.0, 1.0], dtype=F64)

    def run(given: Callable[[Tensor, Tensor], Tensor] | None) -> Tensor:
        states: Tensor = ode.odeint(
            lambda t, y: -(y**3), y0, t, method="trapezoid", options={"steps": 60}, jacobian=given
        )
        return states

    torch.testing.assert_close(run(jacobian), run(None), rtol=1e-13, atol=0)


def test_how_many_steps_are_tried() -> None:
    times = torch.linspace(0, 1, 3, dtype=F64)
    ahead = Ahead(times, Control(steps=100), 64)
    lengths = []
    for solved_it in (False, False, False, True, True):
        mesh = ahead.mesh(Mesh(0.0, ahead.size(1), 1), 1000)
        lengths.append(0 if mesh is None else len(mesh.h))
        if mesh is not None:
            ahead.learn(len(mesh.h), solved=solved_it)
    # After a failure with the fewest, one single step, and then the same again.
    assert lengths == [64, 16, FEWEST, 0, FEWEST]
    last = ahead.mesh(Mesh(0.99, ahead.size(2), 2), 1000)
    assert last is None or math.isclose(last.end, 1.0)
