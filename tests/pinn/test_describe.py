"""Descriptions: equal in two processes for the same problem, different for another one."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

import ntangent as nt
from ntangent._base.describe import describe
from ntangent.pinn import Box, Dirichlet, Problem, Unknown, odd, plain

SCRIPT = """
import functools, json
import numpy as np, torch
import ntangent as nt
from ntangent._base.describe import describe
from ntangent.pinn import Box, Dirichlet, PointData, Problem, Unknown, odd
from ntangent.problems import BurgersProfile

NU = {nu}
TABLE = {{"a": 1.0, "b": {{2, 3, 5, 7, 11}}}}

def source(x, scale={scale}, *, shift={shift}):
    kinds = x in {{"left", "right", "top", "bottom", "front"}}
    return [(lambda y: y * {nested})(scale) for _ in range(3)], kinds

def flux(u, k, words):
    return k * u.x + NU * u + source(u)[0][0] + TABLE["a"]

class Law:
    __slots__ = ("k", "names")
    def __init__(self, k):
        self.k, self.names = k, frozenset(("one", "two", "three", "four"))
    def __call__(self, u, p):
        return self.k * u.xx + p.k * u
    def first(self, u):
        return u.x

class Wave(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.omega = {omega}
        self.layer = torch.nn.Linear(1, 1)
        self.register_buffer("frequencies", torch.arange(3.0) * {buffer})
    def forward(self, x):
        return self.layer(torch.sin(self.omega * x)){forward}

level = {level}
data = torch.tensor({data}, dtype=torch.float64)
problem = Problem(
    Box(x=(0, 1)),
    [lambda u: u.x + level * u - data.sum(), Law({law}), Law(1.0).first,
     functools.partial(flux, k={partial}, words={{"p", "q", "r", "s"}})],
    [Dirichlet(x=0, value=lambda x: torch.{function}(x)), PointData([0.5], data)],
    unknowns={{"k": Unknown(1.0)}},
    ansatz=odd,
    reference=np.{ufunc},
)
generator = torch.Generator()
print(json.dumps([describe(problem), describe(Wave()), describe(BurgersProfile()), describe(generator),
                  describe(BurgersProfile().problem()), describe({{"s": {{"x", "y", "z", "w"}}}})]))
"""
PLAIN = {
    "nu": 0.1, "scale": 2.0, "shift": 0.0, "nested": 3.0, "omega": 1.0, "buffer": 1.0, "forward": "",
    "level": 4.0, "data": [1.0], "law": 5.0, "partial": 6.0, "function": "sin", "ufunc": "sin",
}  # fmt: skip


def run(seed, **changes):
    environment = os.environ | {"PYTHONHASHSEED": str(seed)}
    code = textwrap.dedent(SCRIPT.format(**(PLAIN | changes)))
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_equal_in_processes_with_other_hash_seeds():
    assert run(1) == run(2) == run(3)


# Each value is one change of the script above; the description must notice every one of them.
CHANGES = {
    "nu": 0.2, "scale": 2.5, "shift": 0.1, "nested": 3.5, "omega": 1.5, "buffer": 2.0, "forward": " * 2",
    "level": 4.5, "data": [1.5], "law": 5.5, "partial": 6.5, "function": "cos", "ufunc": "cos",
}  # fmt: skip


def test_every_change_is_noticed_in_process():
    # In one process: exec gives each variant its own module globals.
    def text(**changes):
        code = SCRIPT.format(**(PLAIN | changes)).replace("print(json.dumps(", "result = (json.dumps(")
        space = {"__name__": "user_script"}
        exec(compile(code, "user_script.py", "exec"), space)
        return space["result"]

    base = text()
    assert base == text()
    blind = [name for name, value in CHANGES.items() if text(**{name: value}) == base]
    assert not blind


def closure(k, table=None):
    return lambda u: (lambda v: v * k)(u.x) + (table or 0)


def nested(k):
    def outer(u):
        def inner(v):
            return v * k

        return inner(u)

    return outer


def recursive():
    def f(n):
        return f(n - 1) if n else 0

    return f


def unset():
    def f():
        return later

    if f is None:
        later = 1
    return f


class Counter:
    def __init__(self, n):
        self.n, self.me = n, self

    def method(self, u):
        return self.n * u


PAIRS = [
    (closure(1.0), closure(2.0)),
    (closure(1.0, [1, 2]), closure(1.0, [1, 3])),
    (closure(1), closure(1.0)),
    (nested(1.0), nested(2.0)),
    (lambda u: u.x + 1.0, lambda u: u.x + 2.0),
    (lambda u: u.x, lambda u: u.y),
    (lambda u: (lambda: 1)(), lambda u: (lambda: 2)()),
    (lambda u, k=1: u, lambda u, k=2: u),
    (lambda u, *, k=1: u, lambda u, *, k=2: u),
    (lambda u: u in {1, 2}, lambda u: u in {1, 3}),
    (functools.partial(closure, 1), functools.partial(closure, 2)),
    (functools.partial(closure, k=1), functools.partial(closure, k=2)),
    (Counter(1).method, Counter(2).method),
    (Counter(1), Counter(2)),
    (torch.sin, torch.cos),
    (np.sin, np.cos),
    (torch.nn.functional.gelu, torch.nn.functional.silu),
    (odd, plain),
    (nn.Tanh, nn.ReLU),
    (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
    (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
    (torch.zeros(2), torch.zeros(1, 2)),
    (torch.zeros(2), torch.tensor([0.0, 1e-300], dtype=torch.float64)),
    (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
    (torch.eye(3)[:, 0], torch.eye(3)[:, 1]),
    (np.array([1, "a"], dtype=object), np.array([1, "b"], dtype=object)),
    (Unknown(1.0), Unknown(1.0, bounds=(0.0, 2.0))),
    (Box(x=(0, 1)), Box(y=(0, 1))),
    (Dirichlet(x=0), Dirichlet(x=0, value=1.0)),
    (nt.MLP(1, 1, activation="sin"), nt.MLP(1, 1, activation="cos")),
    (nt.MLP(1, 1, width=3), nt.MLP(1, 1, width=4)),
    (nn.GELU(), nn.GELU(approximate="tanh")),
    ({1, 2}, {1, 3}),
    (1, 1.0),
    (True, 1),
]


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_things_that_differ_are_described_differently(a, b):
    # As text: 1 == 1.0 == True in Python but not in a configuration.
    assert repr(describe(a)) != repr(describe(b))


@pytest.mark.parametrize(
    "make",
    [
        lambda: closure(1.0),
        recursive,
        unset,
        lambda: Counter(3),
        lambda: torch.Generator(),
        lambda: object(),
        lambda: Counter(3).method,
        lambda: nt.MLP(1, 1, generator=0),
        lambda: {"b", "a"},
    ],
)
def test_the_same_thing_made_twice_is_described_alike(make):
    assert describe(make()) == describe(make())


def test_trained_parameters_do_not_belong_to_a_configuration_but_frozen_ones_do():
    a, b = (nt.MLP(1, 1, generator=seed) for seed in (0, 1))
    assert describe(a) == describe(b)
    assert describe(a.requires_grad_(False)) != describe(b.requires_grad_(False))


def test_a_problem_is_plain_data():
    import json

    problem = Problem(Box(x=(0, 1)), [closure(2.0)], [Dirichlet(x=0)], unknowns={"k": Unknown(1.0)})
    assert json.loads(json.dumps(describe(problem))) == describe(problem)
