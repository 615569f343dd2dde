"""Alarms for gradients: silent where they hold, loud where they do not; modes against closed forms."""

import math

import pytest
import torch

from ntangent import ode
from ntangent._base.errors import ArgumentError
from ntangent.ode import methods, problems

HEALTHY = [
    ("two_scale", {}), ("linear_decay", {}), ("prothero_robinson", {}), ("slow_data", {}), ("hires", {}),
    ("van_der_pol", {"mu": 1.0}), ("van_der_pol", {"mu": 10.0}), ("van_der_pol", {"mu": 100.0}),
    ("van_der_pol", {"mu": 1000.0}), ("robertson", {}), ("orego", {"end": 30.0}), ("pollu", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), HEALTHY, ids=lambda x: str(x))
def test_no_alarm_on_healthy_problems(name: str, options: dict[str, float]) -> None:
    problem = problems.get(name, **options)
    p = problem.parameters().requires_grad_()
    first = 1e-3 if name in ("robertson", "pollu", "hires") else None
    times, atol = problem.times(5, first=first), tuple((1e-7 * problem.scales()).tolist())
    report = ode.check_gradient(
        problem.func(p), problem.initial(), times, jacobian=problem.jacobian(), atol=atol, suggest=False
    )
    assert report.ok, str(report)


def test_explicit_method_on_robertson_raises_the_alarm() -> None:
    problem = problems.get("robertson")
    p = (problem.parameters() * torch.tensor([1.0, 2.0, 1.0])).requires_grad_()
    times = torch.cat([torch.zeros(1), torch.logspace(-5, math.log10(6.0), 10)]).double()
    report = ode.check_gradient(
        problem.func(p),
        problem.initial(),
        times,
        jacobian=problem.jacobian(p),
        method="dopri5",
        rtol=1e-5,
        atol=1e-8,
    )
    growth = next(alarm for alarm in report.alarms if alarm.kind == "growth")
    # The loss is right, the gradient is not, and the alarm names the mode that left the stable region.
    assert abs(report.loss - report.refined_loss) < 1e-2 * abs(report.loss)
    assert growth.mode is not None
    assert growth.mode.real < -1e3
    assert abs(methods.get("dopri5").stability(growth.z)) > 1
    assert "radau5" in growth.remedy


@pytest.mark.slow
def test_explicit_method_on_robertson_to_the_end() -> None:
    problem = problems.get("robertson")
    p = (problem.parameters() * torch.tensor([1.0, 2.0, 1.0])).requires_grad_()
    report = ode.check_gradient(
        problem.func(p), problem.initial(), problem.times(40, first=1e-5), jacobian=problem.jacobian(p),
        method="dopri5", rtol=1e-5, atol=1e-8, suggest=False,
    )  # fmt: skip
    assert float(report.gradient.abs().max()) > 1e50
    assert {alarm.kind for alarm in report.alarms} == {"growth", "mesh"}


@pytest.mark.parametrize("method", ["radau5", "backward_euler", "gauss2", "trapezoid", "lobatto_iiic4"])
def test_coarse_mesh_over_a_fast_transient_raises_the_alarm(method: str) -> None:
    problem = problems.get("slow_data", k=1e3)
    p = problem.parameters().requires_grad_()
    report = ode.check_gradient(
        problem.func(p), problem.initial(), problem.times(20), method=method, options={"steps": 1}
    )
    assert [alarm.kind for alarm in report.alarms] == ["mesh"]
    assert report.alarms[0].mode == pytest.approx(-1e3)
    assert report.alarms[0].z == pytest.approx(-100.0)
    assert "mesh=Graded" in report.alarms[0].remedy


def test_the_gradient_in_the_report_is_that_of_the_closed_form() -> None:
    problem = problems.get("slow_data", k=50.0)
    p = problem.parameters().requires_grad_()
    times = problem.times(7)

    def loss(y: torch.Tensor) -> torch.Tensor:
        return y[:, 0].square().sum()

    assert problem.exact is not None
    exact = torch.autograd.grad(loss(problem.exact(times, p)), p)[0] * p.detach()
    report = ode.check_gradient(problem.func(p), problem.initial(), times, loss, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(report.gradient, exact, rtol=1e-6, atol=0)


def test_unfinished_newton_is_seen() -> None:
    problem = problems.get("van_der_pol", mu=10.0, end=2.0)
    p = problem.parameters().requires_grad_()
    from ntangent.ode.field import Field
    from ntangent.ode.integration import Integration, Question, trace
    from ntangent.ode.trust.probe import newton_rest

    traced = trace(Question(problem.func(p), problem.initial(), problem.times(3)), Integration())
    plain = Field(problem.func(), traced.problem.packing, ())
    scale = torch.full((2,), 1e-6, dtype=torch.float64)
    assert newton_rest(plain, traced.tape, methods.get("radau5"), scale)[0] < 1e-3
    step = traced.tape.steps[3]
    assert step.stages is not None
    step.stages = step.stages + 1e-5  # ten tolerances off
    rest, when = newton_rest(plain, traced.tape, methods.get("radau5"), scale)
    assert rest > 1
    assert when == float(step.t[0])


@pytest.mark.parametrize("method", ["radau5", "gauss2", "lobatto_iiic4", "etd1", "rodas4"])
def test_decay_of_a_linear_system_is_that_of_its_scheme(method: str) -> None:
    p = torch.tensor([2.0, 80.0], dtype=torch.float64, requires_grad=True)
    h = 0.1
    result = ode.gradient_decay(lambda t, y: -p * y, torch.ones(2).double(), h, method, [p])
    torch.testing.assert_close(result.eigenvalues.real, torch.tensor([[-80.0, -2.0]]).double())
    scheme = methods.get(method)
    for column, z in enumerate((-8.0, -0.2)):
        assert result.numerical[0, column].real.item() == pytest.approx(
            scheme.stability_derivative(z), rel=1e-10
        )
        assert result.intrinsic[0, column].real.item() == pytest.approx(math.exp(z), rel=1e-12)
        wrong = any(low < z < high for low, high in scheme.wrong_sign_intervals)
        assert bool(result.wrong_sign[0, column]) is wrong
    # Each mode is set by its own rate, in proportion.
    assert result.controls is not None
    torch.testing.assert_close(result.controls[0], torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double())
    assert "λ" in str(result)


def test_decay_of_many_steps_against_differences() -> None:
    scheme, h, steps = methods.get("radau5"), 0.1, 7
    result = ode.gradient_decay(lambda t, y: -30.0 * y, torch.ones(1).double(), h, "radau5", steps=steps)
    e = 1e-5
    slope = (scheme.stability(-3.0 + e) ** steps - scheme.stability(-3.0 - e) ** steps) / (2 * e)
    assert result.numerical[0, 0].real.item() == pytest.approx(slope, rel=1e-6)


def test_decay_along_a_solution() -> None:
    problem = problems.get("robertson")
    solution = ode.solve(problem.func(), problem.initial(), torch.tensor([0.0, 40.0]).double())
    result = ode.gradient_decay(solution)
    assert result.z.shape == (solution.accepted, 3)
    torch.testing.assert_close(result.t, solution.knots[:-1])


def test_mistakes_are_explained() -> None:
    with pytest.raises(ArgumentError, match="h is missing"):
        ode.gradient_decay(lambda t, y: -y, torch.ones(1))
    with pytest.raises(ArgumentError, match="requires_grad"):
        ode.check_gradient(lambda t, y: -y, torch.ones(1).double(), torch.linspace(0, 1, 3).double())
