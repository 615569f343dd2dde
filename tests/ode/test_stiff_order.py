"""Orders on Prothero and Robinson's problem y' = λ(y - φ(t)) + φ'(t) for h|λ| → ∞: every implicit method.

The expected orders are those of Hairer & Wanner II, table IV.15.1, for methods at large: with stage
order q an error of h^(q+1), of h^q/λ where the method is stiffly accurate; one power less where errors
add up because R(∞) = 1. φ is a polynomial of the first degree that a method does not follow exactly,
with a zero where the error is read: what is left is the leading term, and far above rounding.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ntangent import ode
from ntangent.ode import methods
from ntangent.ode.methods import Adams, AdditiveRungeKutta, Method, Multistep, Rosenbrock, RungeKutta, Taylor

F64 = torch.float64
EPS = 2.2e-16
IMPLICIT = [m for m in map(methods.get, methods.names()) if m.implicit]
ONE_STEP = [m for m in IMPLICIT if not isinstance(m, Multistep | Adams)]
GROWING = [m for m in IMPLICIT if isinstance(m, Adams)]
DAMPED = [m for m in IMPLICIT if not isinstance(m, Adams) and abs(m.at_infinity) < 1]
CARRIED = [m for m in ONE_STEP if abs(m.at_infinity) == 1 and not isinstance(m, Taylor)]

# Rosenbrock methods: two stages that are not stiffly accurate, one of stage order 1 that is, and the one
# made to follow cubic φ exactly (Steinebach 2023).
ROSENBROCK = {"ros2": (2, 2), "ros2_plus": (2, 2), "rodas4": (2, 1), "rodas5p": (4, 3)}


def first_degree(method: Method) -> int:
    """The first degree of φ that the method does not follow in the limit."""
    if isinstance(method, Rosenbrock):
        return ROSENBROCK[method.name][0]
    if isinstance(method, AdditiveRungeKutta):
        # φ' is in the explicit part. Implicit stages have no error in the limit, and the step adds
        # h Σ (b_i - a_si) φ'(c_i h) of the explicit tableau to the last of them.
        part = method.explicit_part
        gaps = [b - a for b, a in zip(part.b, part.A[-1], strict=True)]
        for k in range(1, 9):
            if abs(float(sum(g * c ** (k - 1) for g, c in zip(gaps, part.c, strict=True)))) > 1e-9:
                return k
    return (method.order if isinstance(method, Taylor | Multistep) else method.stage_order) + 1


def local_order(method: Method) -> int:
    """The power of h in the error of one step."""
    if isinstance(method, Rosenbrock):
        return ROSENBROCK[method.name][1]
    if isinstance(method, AdditiveRungeKutta):
        return first_degree(method)
    if isinstance(method, Taylor):  # Q(z) e = const h^(k+l+1), Q ~ z^l
        return method.numerator + 1
    if isinstance(method, Multistep):
        return method.order
    assert isinstance(method, RungeKutta)
    if method.family == "Lobatto IIIB":
        return method.stages
    return method.stage_order + (not method.stiffly_accurate)


Function = Callable[[Tensor], Tensor]


def end_error(method: Method, curve: tuple[Function, Function], rate: float, end: float, steps: int) -> float:
    """|y - φ| at the end of equal steps from y(0) = φ(0); the curve is φ and φ'."""
    phi, slope = curve

    def f(t: Tensor, y: Tensor) -> Tensor:
        return f.implicit(t, y) + slope(t)  # type: ignore[attr-defined, no-any-return]

    f.implicit = lambda t, y: rate * (y - phi(t))  # type: ignore[attr-defined]
    f.explicit = lambda t, y: slope(t) + 0 * y  # type: ignore[attr-defined]
    t = torch.tensor([0.0, end], dtype=F64)
    y0 = phi(t[:1])
    y = ode.odeint(f, y0, t, method=method, atol=1e-40, options={"steps": steps})
    return abs(float(y[-1] - phi(t[1])))


def power(degree: int, zero: float) -> tuple[Function, Function]:
    return lambda t: (t - zero) ** degree, lambda t: degree * (t - zero) ** (degree - 1)


@pytest.mark.parametrize("method", ONE_STEP, ids=lambda m: m.name)
def test_one_step_has_its_stiff_order(method: Method) -> None:
    k = first_degree(method)
    rate = -1e4 if isinstance(method, Taylor) else -1e6
    errors = {}
    for h in (1 / 8, 1 / 16):
        errors[h] = end_error(method, power(k, h), rate, h, 1)
        assert errors[h] > 100 * EPS * abs(float(method.stability(h * rate))) * h**k
    observed = math.log2(errors[1 / 8] / errors[1 / 16])
    # The next term is a few 1/z smaller.
    assert observed == pytest.approx(local_order(method), abs=0.1), errors


@pytest.mark.parametrize("method", DAMPED, ids=lambda m: m.name)
def test_many_steps_have_the_order_of_one_where_errors_are_damped(method: Method) -> None:
    k = first_degree(method)
    rate, coarse = (-1e3, 2) if isinstance(method, Taylor) else (-1e6, 16)
    errors = [end_error(method, power(k, 1.0), rate, 1.0, n) for n in (coarse, 2 * coarse)]
    h = 1 / (2 * coarse)
    assert errors[1] > 100 * EPS * abs(float(torch.as_tensor(method.stability(h * rate)).abs())) * h**k
    assert math.log2(errors[0] / errors[1]) == pytest.approx(local_order(method), abs=0.1), errors


@pytest.mark.parametrize("method", CARRIED, ids=lambda m: m.name)
def test_errors_that_are_carried_along_cancel_or_add_up(method: Method) -> None:
    """R(∞) = -1: neighbouring errors cancel but for one more power; R(∞) = 1: they add up to one less."""
    curve = lambda t: torch.exp(2 * t), lambda t: 2 * torch.exp(2 * t)
    errors = [end_error(method, curve, -1e6, 1.0, n) for n in (8, 16)]
    assert errors[1] > 100 * EPS * math.exp(2)
    lost = 1 if method.at_infinity == 1 else 0
    assert math.log2(errors[0] / errors[1]) == pytest.approx(local_order(method) - lost, abs=0.1), errors


@pytest.mark.filterwarnings("ignore::ntangent._base.errors.InstabilityWarning")
@pytest.mark.parametrize("method", GROWING, ids=lambda m: m.name)
def test_adams_moulton_beyond_the_trapezoidal_rule_has_no_stiff_order(method: Adams) -> None:
    """Errors are multiplied by ζ(z), which is below -1 from some z on and stays so at infinity."""
    z = -50.0
    assert method.at_infinity < -1 and method.stability(z) < -1
    f = lambda t, y: z * (y - torch.cos(t)) - torch.sin(t)  # noqa: E731
    t = torch.arange(101, dtype=F64)
    y = ode.odeint(f, torch.ones(1, dtype=F64), t, method=method)[:, 0] - torch.cos(t)
    assert abs(float(y[-1])) > 1e9
    assert float(y[-1] / y[-2]) == pytest.approx(float(method.stability(z)), rel=1e-6)


def test_every_implicit_method_is_in_one_of_the_tests() -> None:
    names = {m.name for m in (*ONE_STEP, *DAMPED, *CARRIED, *GROWING)}
    assert names == {m.name for m in IMPLICIT} and len(names) > 40
