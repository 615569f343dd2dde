"""Adams methods against backward differences, a second implementation and closed forms."""

import dataclasses
import math
import warnings
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ntangent import ode
from ntangent._base.errors import ArgumentError, InstabilityWarning, NoEffectWarning
from ntangent.ode import methods
from ntangent.ode.methods import Adams
from ntangent.ode.methods.adams import BASHFORTH, MOULTON, equal_weights, unequal_weights

F64 = torch.float64
FAMILY = [*BASHFORTH, *MOULTON, methods.get("explicit_adams"), methods.get("implicit_adams")]


def by_differences(slopes: int, implicit: bool) -> list[Fraction]:
    """β from the series of backward differences, whose generating function is -t / ((1-t) ln(1-t))."""
    count = slopes + implicit
    gamma: list[Fraction] = []
    for m in range(count):
        rest = sum((g / (m + 1 - i) for i, g in enumerate(gamma)), Fraction(0))
        gamma.append((Fraction(not implicit) if m else Fraction(1)) - rest)
    return [
        sum((gamma[m] * (-1) ** j * math.comb(m, j) for m in range(j, count)), Fraction(0))
        for j in range(count)
    ]


@pytest.mark.parametrize("implicit", [False, True])
def test_coefficients_are_those_of_backward_differences(implicit: bool) -> None:
    for k in range(1, 13):
        assert list(equal_weights(k, implicit=implicit)) == by_differences(k, implicit)
    assert [24 * b for b in equal_weights(4, implicit=False)] == [55, -59, 37, -9]  # Bashforth's own


@pytest.mark.parametrize("implicit", [False, True])
def test_unequal_coefficients_integrate_polynomials(implicit: bool) -> None:
    nodes = [0.0, -0.7, -1.1, -2.6, -3.0]
    found = unequal_weights(nodes, implicit=implicit)
    x = np.array([1.0, *nodes] if implicit else nodes)
    for m in range(len(x)):
        assert math.isclose(float(np.dot(found, x**m)), 1 / (m + 1), rel_tol=1e-12)
    assert not math.isclose(float(np.dot(found, x ** len(x))), 1 / (len(x) + 1), rel_tol=1e-3)


@pytest.mark.parametrize("method", FAMILY, ids=lambda m: m.name)
def test_no_method_has_another_order_than_it_claims(method: Adams) -> None:
    for order in (method.order - 1, method.order + 1):
        with pytest.raises(ArgumentError, match="order"):
            dataclasses.replace(method, order=order).prove()


def test_ends_of_the_intervals_of_stability() -> None:
    # Hairer & Wanner II, V.1: where a root reaches the unit circle at ζ = -1.
    ends = {"ab2": -1, "ab3": -6 / 11, "ab4": -3 / 10, "ab5": -90 / 551, "ab6": -5 / 57,
            "am3": -6, "am4": -3, "am5": -90 / 49, "am6": -45 / 38}  # fmt: skip
    for name, end in ends.items():
        method = methods.get(name)
        for z, stable in ((end * 0.999, True), (end * 1.001, False)):
            assert (abs(method.stability(complex(z))) < 1) == stable, (name, z)


@pytest.mark.parametrize("method", FAMILY, ids=lambda m: m.name)
def test_dominant_roots_by_mpmath(method: Adams) -> None:
    beta = [mpmath.mpf(b.numerator) / b.denominator for b in method.weights]
    for z in (-0.002, -0.9, -50.0, -0.3 + 2j):
        with mpmath.workdps(30):
            poly = [-z * b for b in beta]
            poly[0] += 1
            poly[1] -= 1
            roots = mpmath.polyroots(poly, maxsteps=500, extraprec=300)
            largest = max(abs(r) for r in roots)
        value = complex(method.stability(complex(z)))
        assert math.isclose(abs(value), largest, rel_tol=1e-12)
        assert min(abs(value - r) for r in roots) < 1e-11 * largest
        step = 1e-6 * abs(z)
        slope = (method.stability(z + step + 0j) - method.stability(z - step + 0j)) / (2 * step)
        assert abs(method.stability_derivative(complex(z)) - slope) < 1e-6 * abs(slope)
    far = -1e9
    assert float(method.stability(far)) / (far if not method.moulton else 1) == pytest.approx(
        method.decay_constant if not method.moulton else method.at_infinity, rel=1e-7
    )
    assert float(method.stability_derivative(-1e6)) * (1e12 if method.moulton else 1) == pytest.approx(
        method.decay_constant, rel=1e-4
    )


# Against a second implementation of what torchdiffeq documents: two steps of the 3/8 rule, then as
# many slopes as there are.


class Net(nn.Module):
    def __init__(self, n: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.a = nn.Parameter(torch.randn(n, n, dtype=F64, generator=generator) / n**0.5)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(y @ self.a) + torch.sin(2 * t)


def rising(f: nn.Module, y: Tensor, h: float, steps: int, most: int, implicit: bool) -> Tensor:
    """Unrolled on the tape of torch; the implicit equation by 40 substitutions."""
    slopes: list[Tensor] = []
    for i in range(steps):
        t = torch.tensor(i * h, dtype=F64)
        slopes = [f(t, y), *slopes][: most - 1]
        if len(slopes) < 3:
            k1 = slopes[0]
            k2 = f(t + h / 3, y + h * k1 / 3)
            k3 = f(t + h * 2 / 3, y + h * (k2 - k1 / 3))
            k4 = f(t + h, y + h * (k1 - k2 + k3))
            y = y + h * (k1 + 3 * k2 + 3 * k3 + k4) / 8
            continue
        beta = by_differences(len(slopes), implicit)
        later = beta[1:] if implicit else beta
        known = y + h * sum(float(b) * s for b, s in zip(later, slopes, strict=True))
        y = y + h * slopes[0]
        if implicit:
            for _ in range(40):
                y = known + h * float(beta[0]) * f(t + h, y)
        else:
            y = known
    return y


@pytest.mark.parametrize("n", [3, 40])
@pytest.mark.parametrize(
    ("name", "most"), [("explicit_adams", 5), ("explicit_adams", 12), ("implicit_adams", 12)]
)
def test_values_and_gradients_are_those_of_the_unrolled_formula(name: str, most: int, n: int) -> None:
    f, y0 = Net(n), torch.linspace(-1, 1, n, dtype=F64).requires_grad_()
    h, steps = 0.02, 16
    t = torch.linspace(0, h * steps, steps + 1, dtype=F64)
    y = ode.odeint(f, y0, t, method=name, options={"max_order": most})[-1]
    expected = rising(f, y0, h, steps, most, name == "implicit_adams")
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-13)
    found = torch.autograd.grad(y.square().sum(), [y0, f.a])
    for a, b in zip(found, torch.autograd.grad(expected.square().sum(), [y0, f.a]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    if n == 40:
        slopes = ode.sensitivity(f, y0, t, [f.a], method=name, options={"max_order": most}, initial=True)[1]
        together = torch.cat([found[1].flatten(), found[0]])
        torch.testing.assert_close(2 * y.detach() @ slopes[-1], together, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["ab4", "am4", "ab5"])
def test_the_order_is_kept_on_unequal_steps(name: str) -> None:
    def error(n: int) -> float:
        lengths = 1 + 0.5 * torch.sin(2.0 * torch.arange(n, dtype=F64))
        t = torch.cat([torch.zeros(1, dtype=F64), lengths.cumsum(0) / lengths.sum()])
        y = ode.odeint(lambda t, y: y * torch.cos(3 * t), torch.ones(1, dtype=F64), t, method=name)
        return float((y[:, 0] - torch.exp(torch.sin(3 * t) / 3)).abs().max())

    order = methods.get(name).order
    assert math.log2(error(64) / error(256)) / 2 > order - 0.3


def test_outputs_between_steps_change_the_mesh_and_not_the_accuracy() -> None:
    t = torch.tensor([0.0, 0.31, 0.5, 1.27], dtype=F64)
    y = ode.odeint(
        lambda t, y: -y, torch.ones(2, dtype=F64), t, method="adams_moulton5", options={"step_size": 0.02}
    )
    torch.testing.assert_close(y[:, 0], torch.exp(-t), rtol=0, atol=1e-9)


def test_rows_of_a_batch_and_backwards_in_time() -> None:
    f, t = Net(), torch.linspace(1.0, 0.0, 21, dtype=F64)
    y0 = torch.linspace(-1, 1, 6, dtype=F64).reshape(2, 3)
    both = ode.odeint(f, y0, t, method="implicit_adams", batched=True)
    for i in range(2):
        alone = ode.odeint(f, y0[i], t, method="implicit_adams")
        torch.testing.assert_close(both[:, i], alone, rtol=1e-12, atol=1e-13)
    forth = ode.odeint(f, both[-1, 0], t.flip(0), method="implicit_adams")
    torch.testing.assert_close(forth[-1], y0[0], rtol=0, atol=5e-6)


# Options.


def test_calls_of_torchdiffeq() -> None:
    func, y0, t = Net(), torch.ones(3, dtype=F64), torch.linspace(0, 1, 11, dtype=F64)
    calls: list[dict[str, object]] = [
        {"method": "explicit_adams", "options": {"step_size": 0.01, "perturb": False, "max_order": 5}},
        {"method": "implicit_adams", "options": {"step_size": 0.05, "max_iters": 6, "max_order": 8}},
        {"method": "fixed_adams", "rtol": 1e-5, "atol": 1e-7, "options": {"step_size": 0.05}},
        {
            "method": "implicit_adams",
            "options": {"grid_constructor": lambda f, y, t: torch.linspace(0, 1, 41).to(t)},
        },
    ]
    truth = ode.odeint(func, y0, t, method="dopri8", rtol=1e-11, atol=1e-12)
    for call in calls:
        for solver in (ode.odeint, ode.odeint_adjoint):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                y = solver(func, y0, t, **call)
            torch.testing.assert_close(y, truth, rtol=0, atol=1e-5)
            y.sum().backward()
    stop, states = ode.odeint(
        lambda t, y: -y, torch.ones(1, dtype=F64), t[:2], method="explicit_adams",
        options={"step_size": 0.01, "max_order": 5}, event_fn=lambda t, y: y - 0.5,
    )  # fmt: skip
    assert float(stop.detach()) == pytest.approx(math.log(2), abs=1e-7) and states.shape == (2, 1)


def test_max_order() -> None:
    y0, t = torch.ones(2, dtype=F64), torch.linspace(0, 1, 9, dtype=F64)

    def run(name: str, **options: object) -> Tensor:
        return ode.odeint(lambda t, y: -y * y, y0, t, method=name, options=options)

    with pytest.warns(NoEffectWarning, match="'rk4'"):
        assert torch.equal(run("explicit_adams", max_order=3), run("rk4"))
    with pytest.warns(NoEffectWarning, match="max_order"):
        run("rk4", max_order=5)
    with pytest.warns(NoEffectWarning, match="max_order"):
        run("adams_bashforth4", max_order=5)
    with pytest.warns(NoEffectWarning, match="max_iters"):
        run("adams_bashforth4", max_iters=5)
    for wrong in (13, 0, 4.5):
        with pytest.raises(ArgumentError, match="max_order"):
            run("implicit_adams", max_order=wrong)
    with pytest.raises(ArgumentError, match="max_iters"):
        run("implicit_adams", max_iters=0)


def test_fixed_point_iterations_need_no_jacobian_and_newton_takes_over() -> None:
    t = torch.linspace(0, 1, 21, dtype=F64)
    mild = lambda t, y: -y * y  # noqa: E731
    easy = ode.solve(mild, torch.ones(1, dtype=F64), t, method="am4", options={"steps": 1, "max_iters": 40})
    assert easy.n_jac == 0
    assert ode.solve(mild, torch.ones(1, dtype=F64), t, method="am4", options={"steps": 1}).n_jac > 0
    # h|λ| = 2.5: substitution diverges (β_0 h|λ| = 0.94 contracts too slowly), the formula is stable.
    stiff = lambda t, y: -50.0 * (y - torch.cos(t))  # noqa: E731
    y = ode.solve(stiff, torch.ones(1, dtype=F64), t, method="am4", options={"steps": 1, "max_iters": 4})
    exact = 50 * (50 * math.cos(1) + math.sin(1)) / (50**2 + 1)
    assert y.n_jac > 0 and float(y.y[-1]) == pytest.approx(exact, abs=2e-3)


def test_the_mesh_of_a_grid_constructor() -> None:
    seen: list[Tensor] = []

    def constructor(func: object, y0: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return t[0] + (t[-1] - t[0]) * torch.linspace(0, 1, 11, dtype=t.dtype) ** 2

    t = torch.tensor([0.0, 0.5, 1.0], dtype=F64, requires_grad=True)
    k = torch.tensor(1.5, dtype=F64, requires_grad=True)
    f = lambda t, y: -k * y  # noqa: E731
    y = ode.odeint(f, torch.ones(1, dtype=F64), t, method="rk4", options={"grid_constructor": constructor})
    mesh = torch.cat([torch.linspace(0, 1, 11, dtype=F64) ** 2, torch.tensor([0.5], dtype=F64)]).sort().values
    direct = ode.odeint(f, torch.ones(1, dtype=F64), mesh, method="rk4")
    assert torch.equal(y, direct[[0, 8, 11]])
    a = torch.autograd.grad(y.sum(), [k, t])
    assert torch.equal(a[0], torch.autograd.grad(direct[[0, 8, 11]].sum(), k)[0])
    torch.testing.assert_close(a[1][1:], (-k * y[1:, 0]).detach(), rtol=1e-12, atol=0)
    assert (
        ode.solve(
            f, torch.ones(1, dtype=F64), t.detach(), method="rk4", options={"grid_constructor": constructor}
        ).accepted
        == 11
    )
    slopes = ode.sensitivity(
        f, torch.ones(1, dtype=F64), t.detach(), [k], method="rk4", options={"grid_constructor": constructor}
    )[1]
    torch.testing.assert_close(slopes.sum(), a[0], rtol=1e-12, atol=0)
    down = ode.odeint(
        f,
        torch.ones(1, dtype=F64),
        t.detach().flip(0),
        method="rk4",
        options={"grid_constructor": constructor},
    )
    assert float(down[-1].detach()) == pytest.approx(math.exp(1.5), rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"grid_constructor": lambda f, y, t: torch.linspace(0, 2, 5), "step_size": 0.1},
        {"grid_constructor": lambda f, y, t: torch.linspace(0, 2, 5)},
        {"grid_constructor": lambda f, y, t: torch.tensor([0.0, 0.7, 0.3, 1.0])},
        {"grid_constructor": lambda f, y, t: [0.0, 1.0]},
    ],
)
def test_wrong_grids_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ArgumentError, match="grid_constructor"):
        ode.odeint(lambda t, y: -y, torch.ones(1), torch.tensor([0.0, 1.0]), method="rk4", options=options)


def test_twelve_slopes_on_long_steps_are_not_silent() -> None:
    """The default order of torchdiffeq: a smooth problem, 64 steps, an error of the size of y."""
    f = lambda t, y: -1.3 * y + torch.sin(3 * t)  # noqa: E731
    y0, t = torch.ones(1, dtype=F64), torch.linspace(0, 2, 65, dtype=F64)
    truth = ode.odeint(f, y0, t, method="dopri8", rtol=1e-11, atol=1e-12)
    with pytest.warns(InstabilityWarning, match="adams_bashforth4"):
        y = ode.odeint(f, y0, t, method="explicit_adams")
    assert float((y - truth).abs().max()) > 1e-2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, options in (("explicit_adams", {"max_order": 6}), ("implicit_adams", {}), ("ab6", {})):
            y = ode.odeint(f, y0, t, method=name, options=options)
            assert float((y - truth).abs().max()) < 1e-4
