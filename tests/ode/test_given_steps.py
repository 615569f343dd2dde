"""Given steps that Newton's iteration finds hard: right, or refused, never silently wrong."""

import pytest
import torch

from ntangent import ode


@pytest.mark.parametrize("method", ["radau_iia3", "radau_iia2", "gauss3", "gauss2", "lobatto_iiic3"])
def test_long_steps_after_a_fast_decay_move_the_state(method: str) -> None:
    """The extrapolated start of the second step leads to where the cube overwhelms everything."""

    def last(rate: torch.Tensor) -> torch.Tensor:
        grid = torch.linspace(0, 1, 6, dtype=torch.float64)
        start = torch.ones(1, dtype=torch.float64)
        return ode.odeint(
            lambda _, y: rate * (y + y**3 / 4),
            start,
            grid,
            method=method,
            options={"steps": 1},
            params=[rate],
        )[:, 0]

    rate = torch.tensor(-250.0, dtype=torch.float64, requires_grad=True)
    values = last(rate)
    values[-1].backward()
    # Where |y| is small, a step multiplies by R(-50).
    factor = float(ode.methods.get(method).stability(-50.0).real)
    small = values.detach().abs() < 0.1
    for i in range(1, len(values) - 1):
        if bool(small[i]):
            assert float(values.detach()[i + 1] / values.detach()[i]) == pytest.approx(factor, rel=2e-2)
    with torch.no_grad():
        ahead, behind = last(torch.tensor(-250.25).double()), last(torch.tensor(-249.75).double())
    assert float(rate.grad) == pytest.approx(float(behind[-1] - ahead[-1]) / 0.5, rel=1e-3)
