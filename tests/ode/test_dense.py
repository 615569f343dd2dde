"""The continuous extension made from order conditions: its order, its ends, its price."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ntangent import ode
from ntangent._base.errors import ArgumentError
from ntangent.ode import methods
from ntangent.ode.methods.continuation import bootstrap

F64 = torch.float64
DOPRI8 = methods.get("dopri8")


def coupled(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([y[1] * torch.cos(t), torch.sin(2 * t) * y[0] * y[1] - y[0]])


Y0 = torch.tensor([1.0, 0.2], dtype=F64)
ENDS = torch.tensor([0.0, 2.0], dtype=F64)


def test_the_error_between_steps_of_dopri8_is_of_order_seven() -> None:
    times = torch.linspace(0, 2, 41, dtype=F64)
    truth = ode.odeint(coupled, Y0, times, method="dopri8", rtol=1e-13, atol=1e-15)  # by steps alone
    errors = []
    for n in (3, 6, 12):
        solution = ode.solve(coupled, Y0, ENDS, method="dopri8", options={"steps": n})
        errors.append(float((solution(times) - truth).abs().max()))
    # An extension of order 6 is locally of order 7, and errors of different steps do not add up.
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) > 6.4, errors
    assert errors[-1] < 3e-9


def test_one_step_follows_polynomials_up_to_degree_six() -> None:
    times = torch.linspace(0, 1, 11, dtype=F64)
    for degree in range(9):
        solution = ode.solve(
            lambda t, y, m=degree: (m * t ** max(m - 1, 0)).expand(1), torch.zeros(1, dtype=F64),
            ENDS / 2, method="dopri8", options={"steps": 1},
        )  # fmt: skip
        gap = float((solution(times)[:, 0] - (times**degree if degree else 0 * times)).abs().max())
        assert (gap < 1e-12) == (degree <= 6), (degree, gap)


def test_value_and_slope_are_continuous() -> None:
    weights = DOPRI8.continuation.weights
    powers = np.arange(1, weights.shape[1] + 1)
    b = np.array([float(x) for x in DOPRI8.b])
    np.testing.assert_allclose(weights.sum(1), [*b, 0, 0], atol=1e-12)
    np.testing.assert_allclose(weights[:, 0], np.eye(15)[0], atol=1e-12)
    np.testing.assert_allclose(
        weights @ powers, np.eye(15)[13], atol=1e-11
    )  # the slope at the end of the step


@pytest.mark.parametrize(("rtol", "most"), [(1e-6, 3e-6), (1e-9, 3e-9), (1e-12, 3e-11)])
def test_events_are_as_exact_as_the_steps(rtol: float, most: float) -> None:
    f = lambda t, y: torch.stack([y[1], -y[0]])  # noqa: E731
    solution = ode.solve(
        f, torch.tensor([1.0, 0.0], dtype=F64), torch.tensor([0.0, 20.0], dtype=F64), method="dopri8",
        rtol=rtol, atol=rtol / 100, events=[ode.Event(lambda t, y: y[0])],
    )  # fmt: skip
    expected = math.pi * (torch.arange(6, dtype=F64) + 0.5)
    assert float((solution.events[0] - expected).abs().max()) < most


def test_calls_of_f_are_made_only_where_a_value_is_asked_for() -> None:
    calls = [0]

    def counted(t: Tensor, y: Tensor) -> Tensor:
        calls[0] += 1
        return coupled(t, y)

    solution = ode.solve(counted, Y0, ENDS, method="dopri8", options={"steps": 4})
    before = calls[0]
    solution(0.6), solution(0.7), solution(solution.knots[1])
    assert calls[0] - before == 13 + 2  # of the second step, once; a knot is a state that is there
    solution(0.2)
    assert calls[0] - before == 2 * 15
    assert before == 4 * 13 + 1  # and one that looks for parameters


def test_an_order_that_the_slopes_do_not_give_is_refused() -> None:
    a, b, _, _ = (x.numpy() if x is not None else None for x in DOPRI8.tensors())
    with pytest.raises(ArgumentError, match="do not suffice"):
        bootstrap("dopri8", a, b, (0.4,), 7)
    with pytest.raises(ArgumentError, match="do not suffice"):
        bootstrap("dopri8", a, b, (), 6)
    assert bootstrap("dopri8", a, b, (), 5).order == 5
