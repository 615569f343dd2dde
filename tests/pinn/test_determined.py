"""A forgotten condition is named before the training; what is complete is left alone."""

import warnings

import pytest
import torch

import ntangent as nt
from ntangent import optim, pinn
from ntangent._base.errors import UndeterminedWarning

PLANE = pinn.Box(x=(0.0, 1.0), t=(0.0, 1.0))
WALLS, START = pinn.Dirichlet(x=(0.0, 1.0)), pinn.Initial(lambda x: torch.sin(torch.pi * x))


def solve(conditions, domain=PLANE, equation=lambda u: u.t - u.xx, **more):
    problem = pinn.Problem(domain=domain, equations=[equation], conditions=conditions, **more)
    net = nt.MLP(domain.dimension, 1, width=4, depth=1, dtype=torch.float64, generator=0)
    return pinn.solve(problem, net, [optim.LevenbergMarquardt(1)], sampler=pinn.Sobol(16), progress=False)


@pytest.mark.parametrize(
    ("conditions", "silent"),
    [([WALLS], "of t,"), ([START], "of x,"), ([], "of x or t,"), ([pinn.Periodic("x")], "of t,")],
)
def test_a_forgotten_condition_is_named(conditions, silent):
    with pytest.warns(UndeterminedWarning, match=silent):
        solve(conditions)


@pytest.mark.parametrize(
    "case",
    [
        {"conditions": [WALLS, START]},
        {"conditions": [pinn.Periodic("x"), START]},
        {"conditions": [pinn.Symmetry("odd", x=0.0), pinn.Dirichlet(x=1.0), START]},
        {"conditions": [pinn.PointData({"x": [0.5], "t": [0.5]}, [1.0])]},
        {"conditions": [], "ansatz": lambda net, x: x[:, 1:2] * net(x)},
        {"conditions": [START], "equation": lambda u: u.t + u},  # x is a parameter
        {
            "conditions": [pinn.Dirichlet(on=pinn.Disc().boundary)],
            "domain": pinn.Disc(),
            "equation": lambda u: u.xx + u.yy + 1,
        },
    ],
)
def test_complete_problems_are_left_alone(case):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(**case)
