"""Gradients through N steps against closed forms; singular values of trajectories' Jacobians."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from experiments._common.lines import Line
from experiments._common.paper import SMOKE, Options
from torch import Tensor

from ntangent import ode
from ntangent.ode import methods
from ntangent.ode.methods import Adams, AdditiveRungeKutta, Exponential, Method, Multistep, RungeKutta

N, H = 5, 0.2
LINEAR = (-0.5, -5.0, -50.0, -500.0)
SINE = (-0.5, -5.0, -50.0)


class Decay:
    """y' = λ y, or λ (y + sin(y)/4)."""

    def __init__(self, rate: Tensor, sine: bool) -> None:
        self.rate, self.sine = rate, sine

    def __call__(self, _: Tensor, y: Tensor) -> Tensor:
        return self.rate * (y + torch.sin(y) / 4) if self.sine else self.rate * y

    @property
    def linear(self) -> Tensor:
        """L of the exponential methods."""
        return self.rate.reshape(1, 1)


def nothing(_: Tensor, y: Tensor) -> Tensor:
    """The explicit part."""
    return torch.zeros_like(y)


def gradient(method: Method, z: float, sine: bool) -> float:
    """Return dy_N/dλ by the adjoint of :func:`ode.odeint` with N fixed steps."""
    rate = torch.tensor([z / H], dtype=torch.float64, requires_grad=True)
    func: Any = Decay(rate, sine)
    if isinstance(method, AdditiveRungeKutta):
        func = (nothing, func)
    times = torch.linspace(0, N * H, N + 1, dtype=torch.float64)
    start = torch.ones(1, dtype=torch.float64)
    y = ode.odeint(func, start, times, method=method, options={"steps": 1}, params=[rate])
    return float(torch.autograd.grad(y[-1].sum(), rate)[0])


def closed_form(method: Method, z: float) -> float:
    """Return N h R^(N-1) R' for y' = λy, y(0) = 1; for BDF its recurrence, differentiated."""
    if not isinstance(method, Multistep):
        return float(N * H * method.stability(z) ** (N - 1) * method.stability_derivative(z))
    first = methods.get(
        "radau_iia3"
    )  # the catalogue's starting steps, one less than the steps of the formula
    r, slope = first.stability(z), first.stability_derivative(z)
    y = [(r**n, n * r ** (n - 1) * slope if n else 0.0) for n in range(method.order)]
    alpha = [float(a) for a in method.alpha]
    for n in range(method.order, N + 1):
        past = [y[n - j] for j in range(1, method.order + 1)]
        value = -sum(a * p[0] for a, p in zip(alpha[1:], past, strict=True)) / (alpha[0] - z)
        rise = -sum(a * p[1] for a, p in zip(alpha[1:], past, strict=True))
        y.append((value, (rise + value) / (alpha[0] - z)))
    return H * y[N][1]


def by_complex_step(tableau: RungeKutta, z: float) -> float:
    """Return dy_N/dλ for y' = λ(y + sin(y)/4) by an own Newton iteration at λ + 1e-30i: exact."""
    a, b = (x.numpy() for x in tableau.tensors()[:2])
    y, tiny = 1.0 + 0j, 1e-30
    for _ in range(N):
        stages = np.full(len(b), y)
        for part in np.geomspace(0.02, 1, 16):  # Newton from the solution of a milder equation
            w = part * z + 1j * tiny * H * part
            for _ in range(12):
                rest = stages - y - w * a @ (stages + np.sin(stages) / 4)
                matrix = np.eye(len(b)) - w * a * (1 + np.cos(stages) / 4)
                stages = stages - np.linalg.solve(matrix, rest)
        y = y + (z + 1j * tiny * H) * (b @ (stages + np.sin(stages) / 4))
    return float(y.imag / tiny)


def steps_line(cell: Mapping[str, Any]) -> Line:
    """Return gradients through N steps and what they should be."""
    method, sine = methods.get(cell["method"]), cell["equation"] == "sine"
    zs = SINE if sine else LINEAR
    ours: list[float | None] = []
    for z in zs:
        try:
            ours.append(gradient(method, z, sine))
        except ArithmeticError:
            ours.append(None)
    tableau = method.implicit_part if isinstance(method, AdditiveRungeKutta) else method
    if sine:
        assert isinstance(tableau, RungeKutta)
        wanted = [by_complex_step(tableau, z) for z in zs]
    else:
        wanted = [closed_form(method, z) for z in zs]
    errors = [
        None if x is None else abs(x - y) / max(abs(y), 1e-100) for x, y in zip(ours, wanted, strict=True)
    ]
    exact = [N * H * math.exp(N * z) for z in zs]
    return {**cell, "z": zs, "ours": ours, "wanted": wanted, "exact": exact, "errors": errors}


def steps_cells(_options: Options) -> Iterator[Line]:
    """The linear equation for implicit and exponential methods, the other one for stages of Newton."""
    for name in methods.names():
        method = methods.get(name)
        if isinstance(method, Adams):
            continue  # damps no fast mode: the study has nothing to ask of it
        if method.implicit or isinstance(method, Exponential):
            yield {"method": name, "equation": "linear"}
    for name in methods.names():
        method = methods.get(name)
        if method.implicit and isinstance(method, RungeKutta | AdditiveRungeKutta):
            yield {"method": name, "equation": "sine"}


# --- singular values ---------------------------------------------------------------------------------

SCHEMES = ("backward_euler", "trapezoid", "gauss2", "radau_iia3", "lobatto_iiic4")


def singular_line(cell: Mapping[str, Any]) -> Line:
    """Return the singular values of d(trajectory / scales)/d(log parameters)."""
    stiff = {"fast": cell["fast"]} if cell["problem"] == "two_scale" else {}
    problem = ode.problems.get(cell["problem"], **stiff)
    times = problem.times(20, first=1e-6 if cell["outputs"] == "geometric" else None)
    p, start = problem.parameters().requires_grad_(), problem.initial()
    if cell["problem"] == "robertson" and cell["outputs"] == "even":
        start = problem.reference(torch.tensor([0.0, 1.0]))[
            -1
        ]  # Newton does not take one long step from (1, 0, 0)
    if cell["method"] == "exact":
        assert problem.exact is not None
        matrix = torch.func.jacrev(lambda q: problem.exact(times, q))(p.detach())
    else:
        adaptive = cell["method"] == "adaptive"
        how: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-13} if adaptive else {"options": {"steps": 1}}
        matrix = ode.sensitivity(
            problem.func(p), start, times, [p],
            method="radau5" if adaptive else cell["method"], jacobian=problem.jacobian(), **how,
        )[1]  # fmt: skip
    scaled = (matrix.detach() * p.detach() / problem.scales()[:, None]).reshape(-1, len(p))
    columns = scaled.norm(dim=0).tolist()
    return {**cell, "values": torch.linalg.svdvals(scaled).tolist(), "columns": columns}


def singular_cells(options: Options) -> Iterator[Line]:
    """A fast mode of growing rate, and Robertson's reaction; times that see the transient or do not."""
    powers = (1, 3, 5) if options.size == SMOKE else (1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5)
    for power in powers:
        for outputs in ("even", "geometric"):
            for method in ("exact", *SCHEMES):
                yield {"problem": "two_scale", "fast": 10.0**power, "outputs": outputs, "method": method}
    for outputs in ("even", "geometric"):
        for method in ("adaptive", *SCHEMES):
            yield {"problem": "robertson", "fast": None, "outputs": outputs, "method": method}
