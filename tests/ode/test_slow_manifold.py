"""Sensitivities on the slow manifold: tiny, and right where the scheme damps what is fast."""

import pytest
import torch
from torch import Tensor

from ntangent import ode
from ntangent.ode import problems

T = torch.cat([torch.zeros(1), torch.linspace(0.1, 2, 20)]).double()


def relative_error(k: float, method: str, rtol: float, *, adjoint: bool = False) -> float:
    """Of the sensitivity of the slaved variable to log k, at all outputs, against the closed form."""
    problem = problems.get("slow_data", k=k, start=None)
    log_k = problem.parameters().log().requires_grad_()

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([-log_k.exp()[0] * (y[0] - y[1]), -y[1]])

    exact = torch.autograd.functional.jacobian(lambda p: problem.exact(T, p.exp())[1:, 0], log_k)[:, 0]
    if adjoint:
        y = ode.odeint(f, problem.initial(), T, method=method, rtol=rtol, atol=1e-3 * rtol)
        found = torch.stack([torch.autograd.grad(x, log_k, retain_graph=True)[0][0] for x in y[1:, 0]])
    else:
        slopes = ode.sensitivity(
            f, problem.initial(), T, [log_k], method=method, rtol=rtol, atol=1e-3 * rtol
        )[1]
        found = slopes[1:, 0, 0]
    assert float(exact.abs().max()) < 2 / k
    return float(((found - exact) / exact).abs().max())


@pytest.mark.parametrize(
    "method", ["radau5", "kvaerno5", "kvaerno3", "rodas5p", "lobatto_iiic4", "trbdf2", "bdf4"]
)
def test_sensitivity_at_1e5_is_within_a_thousandth(method: str) -> None:
    assert relative_error(1e5, method, 1e-6) < 1e-3


def test_the_adjoint_has_the_same_digits() -> None:
    assert relative_error(1e5, "radau5", 1e-6, adjoint=True) < 1e-6


def test_a_scheme_that_damps_nothing_is_wrong_at_any_tolerance() -> None:
    """Gauss has R(∞) = -1: the state is exact to rounding and its sensitivity is not."""
    assert relative_error(1e5, "gauss3", 1e-6) > 0.1
