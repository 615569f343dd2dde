"""Fitting: Jacobians and gradients against differences, recovery of rates, models, runs that resume."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ntangent import ode, optim
from ntangent._base.errors import ArgumentError, DtypeError
from ntangent.jet import MLP
from ntangent.ode import problems
from ntangent.ode.fitting.collocation import Collocation, derivative_weights
from ntangent.ode.fitting.objective import FitObjective, Shooting, Trajectory

TIGHT = ode.Integration(rtol=1e-9, atol=1e-12)


def small() -> tuple[nn.Module, ode.Data]:
    problem = problems.get("slow_data", k=20.0)
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    return problem.model([12.0]), ode.Data(t, problem.reference(t))


def objectives() -> list[FitObjective]:
    model, data = small()
    curve = MLP(1, 2, width=3, depth=1, dtype=torch.float64)
    losses = [
        Trajectory(TIGHT),
        Shooting(TIGHT),
        Shooting(TIGHT, nodes="free"),
        Collocation(),
        Collocation(curve),
    ]
    return [loss.objective(model, data) for loss in losses]


@pytest.mark.parametrize("index", range(5), ids=["trajectory", "shooting", "nodes", "collocation", "curve"])
def test_jacobians_and_gradients_against_differences(index: int) -> None:
    objective = objectives()[index]
    generator = torch.Generator().manual_seed(0)
    theta = objective.start()
    theta = theta + 0.05 * torch.rand(theta.shape, dtype=theta.dtype, generator=generator)
    r, jacobian = objective.residuals_and_jacobian(theta)
    torch.testing.assert_close(r, objective.residuals(theta))
    loss, gradient = objective.value_and_gradient(theta)
    torch.testing.assert_close(loss, r @ r)
    torch.testing.assert_close(gradient, 2 * jacobian.T @ r, rtol=1e-7, atol=1e-10)
    direction = torch.rand(theta.shape, dtype=theta.dtype, generator=generator) - 0.5
    e = 1e-4
    slope = (objective.residuals(theta + e * direction) - objective.residuals(theta - e * direction)) / (
        2 * e
    )
    # Differences: e² from truncation, the solver's tolerance over e from the steps that are chosen anew.
    torch.testing.assert_close(jacobian @ direction, slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factor", [1 / 30, 30.0])
@pytest.mark.parametrize("k", [1e3, 1e5])
def test_the_rate_is_recovered_from_slow_data(k: float, factor: float) -> None:
    problem = problems.get("slow_data", k=k)
    t = torch.cat([torch.zeros(1), torch.linspace(0.1, 2, 20)]).double()
    model = problem.model([factor * k])
    how = ode.Integration("lobatto_iiic4", mesh=ode.Graded())
    result = ode.fit(model, ode.Data(t, problem.reference(t)), [optim.LevenbergMarquardt(40)], method=how)
    assert model.values().item() == pytest.approx(k, rel=1e-2)
    assert result.trust is not None
    assert result.trust.ok, str(result.trust)


@pytest.mark.parametrize("factors", [(3.0, 3.0, 1 / 3), (1 / 3, 3.0, 1 / 3), (1 / 3, 1 / 3, 3.0)])
def test_the_rates_of_robertson_are_recovered(factors: tuple[float, ...]) -> None:
    problem = problems.get("robertson")
    t = problem.times(15, first=1e-5)
    model = problem.model(problem.parameters() * torch.tensor(factors))
    how = ode.Integration(rtol=1e-7, atol=tuple((1e-9 * problem.scales()).tolist()))
    data = ode.Data(t, problem.reference(t), scale=problem.scales())
    ode.fit(model, data, [optim.LevenbergMarquardt(29, tolerance=1e-17)], method=how)
    torch.testing.assert_close(model.values().detach(), problem.parameters(), rtol=1e-6, atol=0)


def test_polynomial_and_closure_by_collocation() -> None:
    problem = problems.get("van_der_pol", mu=1.0)
    t = torch.linspace(0, 8, 401, dtype=torch.float64)
    y = ode.odeint(problem.func(), problem.initial(), t, rtol=1e-10, atol=1e-12)
    field = ode.PolynomialField(2, 3)
    ode.fit(field, ode.Data(t, y), [optim.LevenbergMarquardt(10)], loss="collocation")
    truth = {(1,): (1.0, 1.0), (0,): (0.0, -1.0), (0, 0, 1): (0.0, -1.0)}
    for column, monomial in enumerate(field.monomials):
        expected = torch.tensor(truth.get(monomial, (0.0, 0.0))).double()
        torch.testing.assert_close(field.coefficients[:, column].detach(), expected, rtol=0, atol=1e-4)
    x = torch.rand(3, 2, dtype=torch.float64)
    closed = ode.Closure(problem.func(), ode.NeuralField(2, width=4, depth=1))
    torch.testing.assert_close(closed(t[:1], x), problem.func()(t[:1], x) + closed.learned(t[:1], x))


def test_derivative_weights_are_exact_for_polynomials() -> None:
    t = torch.tensor([0.0, 0.1, 0.15, 0.4, 1.0, 1.1, 3.0], dtype=torch.float64)
    index, weights = derivative_weights(t)
    for power in range(5):
        torch.testing.assert_close((weights * t[index] ** power).sum(1), power * t ** max(power - 1, 0))


def test_quasi_steady_state_recovers_the_rate_without_a_stiff_solve() -> None:
    problem = problems.get("slow_data", k=1e3, start=None)
    k = torch.tensor(700.0, dtype=torch.float64, requires_grad=True)
    reduced = ode.QuasiSteady(problem.func(k[None]), fast=[0], size=2)
    s = torch.tensor([0.7], dtype=torch.float64)
    whole = reduced.complete(torch.zeros(()).double(), s)
    # x = s (1 + 1/k) to the first order in 1/k.
    torch.testing.assert_close(
        whole.detach(), torch.tensor([0.7 * (1 + 1 / 700), 0.7], dtype=torch.float64), rtol=1e-12, atol=0
    )
    slope = torch.autograd.grad(whole[0], k)[0]
    assert slope.item() == pytest.approx(-0.7 / 700**2, rel=1e-10)
    reduced.check(torch.zeros(()).double(), s)


def test_log_rates() -> None:
    class Decay(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k = nn.Parameter(torch.tensor([2.0, 5.0]))

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return -self.k * y

    model = ode.log_rates(Decay(), "k")
    torch.testing.assert_close(model(torch.zeros(()), torch.ones(2)), torch.tensor([-2.0, -5.0]))
    (parameter,) = model.parameters()
    torch.testing.assert_close(parameter.detach(), torch.tensor([2.0, 5.0]).log())
    with pytest.raises(ArgumentError, match="must be positive"):
        ode.LogRate([1.0, 0.0])


def test_preconditioned_columns_have_norm_one() -> None:
    model, data = small()
    base = Trajectory(TIGHT).objective(model, data)
    scaled = ode.Preconditioned(base, base.start())
    jacobian = scaled.residuals_and_jacobian(scaled.start())[1]
    torch.testing.assert_close(jacobian.norm(dim=0), torch.ones(1).double())
    loss, gradient = scaled.value_and_gradient(scaled.start())
    torch.testing.assert_close(loss, base.value_and_gradient(base.start())[0])
    torch.testing.assert_close(
        gradient, 2 * jacobian.T @ scaled.residuals(scaled.start()), rtol=1e-6, atol=1e-9
    )


def test_adam_with_a_large_epsilon_is_warned_of() -> None:
    problem = problems.get("slow_data", k=1e5)
    t = torch.linspace(0, 2, 5, dtype=torch.float64)
    data = ode.Data(t, problem.reference(t))
    how = ode.Integration(mesh=ode.Graded())
    with pytest.warns(UserWarning, match="will hardly move"):
        ode.fit(problem.model([3e6]), data, [optim.Adam(1)], method=how)


def test_continuation_starts_from_the_last_solution() -> None:
    problem = problems.get("slow_data", k=20.0)

    def horizon(end: float) -> FitObjective:
        t = torch.linspace(0, end, 4, dtype=torch.float64)
        return Trajectory(TIGHT).objective(problem.model([5.0]), ode.Data(t, problem.reference(t)))

    stages, start = [optim.LevenbergMarquardt(3)], horizon(0.1).start()
    first, second = ode.continuation(horizon, [0.1, 1.0], stages, start)
    assert second.history[0].loss <= float(horizon(1.0).value_and_gradient(first.theta)[0])


def test_a_killed_fit_resumes_to_the_same_bits(tmp_path: Path) -> None:
    class Stop:
        def on_step(self, record: object) -> str | None:
            return "enough" if record.step == 3 else None  # type: ignore[attr-defined]

        def on_stage(self, record: object) -> None: ...

        def on_end(self, outcome: object) -> None: ...

    def run(folder: Path, resume: bool = False, stop: bool = False) -> Tensor:
        model, data = small()
        result = ode.fit(
            model,
            data,
            [optim.Adam(6, lr=0.05)],
            run_dir=folder,
            resume=resume,
            callbacks=[Stop()] if stop else (),
        )
        return result.outcome.theta

    whole = run(tmp_path / "whole")
    assert not torch.equal(run(tmp_path / "parts", stop=True), whole)
    assert torch.equal(run(tmp_path / "parts", resume=True), whole)
    assert (tmp_path / "parts" / "result.json").exists()


def test_a_monitor_can_end_the_training() -> None:
    problem = problems.get("slow_data", k=1e3)
    t = problem.times(20)
    model, data = problem.model([900.0]), ode.Data(t, problem.reference(t))
    coarse = ode.Integration(options={"steps": 1})
    monitor = ode.TrustMonitor(Trajectory(coarse).objective(model, data).trust, every=1, stop=True)
    result = ode.fit(model, data, [optim.Adam(5, eps=1e-16)], method=coarse, callbacks=[monitor])
    assert result.outcome.stopped is not None
    assert "not to be trusted" in result.outcome.stopped


def test_mistakes_are_explained() -> None:
    model, data = small()
    with pytest.raises(DtypeError, match=r"not a torch\.nn\.Module"):
        ode.fit(lambda t, y: -y, data, [optim.Adam(1)])  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="run folder"):
        ode.fit(model, data, [optim.Adam(1)], resume=True)
    with pytest.raises(ArgumentError, match="increasing"):
        ode.Data(torch.tensor([0.0, 2.0, 1.0]), torch.ones(3, 1))
    with pytest.raises(ArgumentError, match="initial state"):
        ode.Data(torch.tensor([0.0, 1.0]), torch.tensor([[torch.nan], [1.0]]))


@pytest.mark.slow
def test_van_der_pol_at_mu_1000_as_a_polynomial_neural_ode() -> None:
    # From states alone, where an adaptive solver stepped: measured 5e-5 on [0, 500], 7e-4 through the jump.
    problem = problems.get("van_der_pol", mu=1000.0)
    atol = torch.tensor([1e-7, 1e-5], dtype=torch.float64)
    ends = torch.tensor(problem.span, dtype=torch.float64)
    knots = ode.solve(problem.func(), problem.initial(), ends, rtol=1e-5, atol=atol).knots
    data = ode.Data(knots, problem.reference(knots), scale=torch.tensor([2.0, 1300.0]))
    field = ode.PolynomialField(2, 3, size=[2.0, 1300.0], rate=[1300.0, 1e6])
    how = ode.Integration(rtol=1e-7, atol=(1e-9, 1e-6))
    ode.fit(field, data, [optim.LevenbergMarquardt(20)], loss="collocation", method=how)
    for end, error in ((500.0, 1e-3), (2000.0, 1e-2)):
        times = torch.linspace(0, end, 201, dtype=torch.float64)
        u = ode.odeint(field, problem.initial(), times, rtol=1e-8, atol=1e-8).detach()[:, 0]
        exact = problem.reference(times)[:, 0]
        assert (u - exact).norm() < error * exact.norm()
