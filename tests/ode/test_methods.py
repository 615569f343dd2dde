"""The catalogue against mpmath, sympy and scipy; wrong tableaux must be refused by name."""

import dataclasses
import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.integrate
import sympy
import torch
from scipy.integrate._ivp import radau as scipy_radau

from ntangent._base.errors import ArgumentError, UnknownNameError
from ntangent.ode import methods
from ntangent.ode.algebraic import approximate
from ntangent.ode.methods import (
    METHODS,
    AdditiveRungeKutta,
    Exponential,
    Multistep,
    Rosenbrock,
    RungeKutta,
    Taylor,
    get,
    matrix,
    vector,
)
from ntangent.ode.trees import density, order_of, timed_trees, trees, written

TABLEAUX = [
    m.name
    for m in dict(METHODS.items()).values()
    if isinstance(m, RungeKutta | Rosenbrock | AdditiveRungeKutta)
]
RUNGE_KUTTA = [m.name for m in dict(METHODS.items()).values() if isinstance(m, RungeKutta)]
EVERY = list(METHODS)


def linear_part(method: Any) -> tuple[Any, Any]:
    """Return (A, b) of the method on linear problems."""
    if isinstance(method, Rosenbrock):
        return method.beta, method.b
    part = method.implicit_part if isinstance(method, AdditiveRungeKutta) else method
    return part.A, part.b


def mp(x: Any) -> mpmath.mpf:
    value = approximate(x, 60)
    return mpmath.mpf(value.numerator) / value.denominator


# The trees.


def test_the_number_of_rooted_trees() -> None:
    assert [len(trees(n)) for n in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]
    assert [len(trees(n, 2)) for n in range(1, 6)] == [2, 4, 14, 52, 214]
    assert all(order_of(t) == 5 for t in trees(5))


def test_densities_of_the_trees_of_order_four() -> None:
    assert {written(t): density(t) for t in trees(4)} == {
        "[τ,τ,τ]": 4, "[[τ],τ]": 8, "[[τ,τ]]": 12, "[[[τ]]]": 24,
    }  # fmt: skip


def test_the_time_is_a_leaf_and_never_the_root() -> None:
    assert [written(t) for t in timed_trees(2)] == ["[σ]"]
    assert {written(t) for t in timed_trees(3)} == {"[σ,σ]", "[τ,σ]", "[[σ]]"}


# Every method proves itself, and claims neither too much nor too little.


@pytest.mark.parametrize("name", EVERY)
def test_every_method_has_the_order_it_claims(name: str) -> None:
    assert get(name).order_proved == METHODS[name].order
    assert get(name) is METHODS[name]


@pytest.mark.parametrize("name", [n for n in TABLEAUX if METHODS[n].order < 8])
def test_no_tableau_has_a_higher_order_than_it_claims(name: str) -> None:
    method = METHODS[name]
    parts = {"explicit_part", "implicit_part"} & {f.name for f in dataclasses.fields(method)}
    higher = {part: dataclasses.replace(getattr(method, part), order=method.order + 1) for part in parts}
    with pytest.raises(ArgumentError, match="of the tree"):
        dataclasses.replace(method, order=method.order + 1, **higher).prove()


@pytest.mark.parametrize("name", [n for n in TABLEAUX if METHODS[n].embedded_order is not None])
def test_no_embedded_solution_has_a_higher_order_than_it_claims(name: str) -> None:
    method = METHODS[name]
    with pytest.raises(ArgumentError, match="embedded"):
        dataclasses.replace(method, embedded_order=method.embedded_order + 1).prove()


@pytest.mark.parametrize("name", [n for n in RUNGE_KUTTA if METHODS[n].order > 1])
def test_every_wrong_coefficient_is_refused(name: str) -> None:
    method = METHODS[name]
    wrong = 1 + Fraction(1, 10**8)
    for i in range(method.stages):
        for j in range(method.stages):
            # A stage that only the embedded solution uses does not touch the order.
            if method.A[i][j] and method.b[i]:
                a = [list(row) for row in method.A]
                a[i][j] = a[i][j] * wrong
                with pytest.raises(ArgumentError, match=r"tree t = "):
                    dataclasses.replace(method, A=tuple(map(tuple, a)), c=()).prove()
    b = [x * wrong if i == 0 else x for i, x in enumerate(method.b)]
    if method.b[0]:
        with pytest.raises(ArgumentError, match=r"tree t = τ"):
            dataclasses.replace(method, b=tuple(b)).prove()


def test_the_failing_tree_is_named() -> None:
    # Σ b c² = 1/2 for Heun's method, where order 3 needs 1/3.
    with pytest.raises(ArgumentError, match=r"1/3 of the tree t = \[τ,τ\] by 0.167"):
        dataclasses.replace(METHODS["heun2"], order=3).prove()
    # Simpson's weights at the right nodes: quadrature of order 4, but Σ b A c = 0 where order 3 needs 1/6.
    simpson = {"A": matrix([[], ["1/2"], [1, 0]], 3), "b": vector(["1/6", "2/3", "1/6"])}
    with pytest.raises(ArgumentError, match=r"1/6 of the tree t = \[\[τ\]\] by -0.167"):
        RungeKutta(name="simpson", family="", source="", order=4, **simpson).prove()


def test_wrong_nodes_are_refused_though_autonomous_problems_would_not_notice() -> None:
    # Both nodes of a Gauss method at the first one: still order 4 on y' = f(y), order 1 on y' = f(t, y).
    gauss = METHODS["gauss2"]
    with pytest.raises(ArgumentError, match=r"1/2 of the tree t = \[σ\]"):
        dataclasses.replace(gauss, c=(gauss.c[0], gauss.c[0])).prove()


def test_nodes_need_not_be_row_sums() -> None:
    # Lobatto IIIB of two stages: c = (0, 1) and row sums (1/2, 1/2), of order 2 all the same.
    method = get("lobatto_iiib2")
    assert method.c == (0, 1) and methods.base.row_sums(method.A) == (Fraction(1, 2), Fraction(1, 2))
    assert method.stage_order == 0


def test_a_misprint_in_the_thirteenth_digit_is_found() -> None:
    # 7827059040719 for 7827059040749 in one denominator of ARK5(4)8L[2]SA, as one library has it.
    pair = METHODS["kencarp5"]
    a = [list(row) for row in pair.implicit_part.A]
    assert a[6][5] == Fraction(-4269925059573, 7827059040749)
    a[6][5] = Fraction(-4269925059573, 7827059040719)
    wrong = dataclasses.replace(pair.implicit_part, A=tuple(map(tuple, a)), c=())
    with pytest.raises(ArgumentError, match="of the tree"):
        dataclasses.replace(pair, implicit_part=wrong).prove()


def test_coupling_conditions_are_checked() -> None:
    # Lobatto IIIA and IIIB of three stages, alone and as a pair, have order 4 (a symplectic pair)...
    first, second = METHODS["lobatto_iiia3"], METHODS["lobatto_iiib3"]
    pair = AdditiveRungeKutta(
        name="pair", family="", source="", order=4, explicit_part=first, implicit_part=second
    )
    pair.prove()
    # ... Lobatto IIIA and Simpson's nodes in another order share b and c no more: 4 and 4 make 2.
    order = (1, 0, 2)
    swapped = dataclasses.replace(
        first,
        A=tuple(tuple(first.A[i][j] for j in order) for i in order),
        b=tuple(first.b[i] for i in order),
        c=(),
        b_error=None,
        embedded_order=None,
        dense=None,
    )
    swapped.prove()
    with pytest.raises(ArgumentError, match="of the tree"):
        dataclasses.replace(pair, implicit_part=swapped).prove()


@pytest.mark.parametrize("name", ["rodas4", "rodas5p", "ros2", "ros2_plus"])
def test_rosenbrock_coefficients_matter(name: str) -> None:
    method = METHODS[name]
    for part in ("alpha", "gamma"):
        rows = [list(row) for row in getattr(method, part)]
        rows[1][0] = rows[1][0] * (1 + Fraction(1, 10**6))
        with pytest.raises(ArgumentError, match="of the tree"):
            dataclasses.replace(method, **{part: tuple(map(tuple, rows))}).prove()


def test_rodas_nodes_are_those_of_the_codes() -> None:
    assert np.allclose([float(x) for x in get("rodas4").alpha_sums], [0, 0.386, 0.21, 0.63, 1, 1], atol=1e-13)
    # d_i of the code RODAS are the sums of γ.
    assert np.allclose([float(x) for x in get("rodas4").gamma_sums[:2]], [0.25, -0.1043], atol=1e-13)
    assert get("rodas4").stiffly_accurate and get("rodas5p").stiffly_accurate


def test_seven_step_bdf_is_refused() -> None:
    with pytest.raises(ArgumentError, match="root condition"):
        Multistep(name="bdf7", family="BDF", source="", order=7).prove()


def test_exponential_conditions() -> None:
    method = METHODS["exprb32"]
    assert isinstance(method, Exponential)
    with pytest.raises(ArgumentError, match=r"2 φ_3"):
        dataclasses.replace(method, b=(((1, Fraction(1)), (3, Fraction(-1))), ((3, Fraction(1)),))).prove()
    with pytest.raises(ArgumentError, match="stiff order"):
        dataclasses.replace(METHODS["integrating_factor_euler"], stiff_order=1).prove()


# Tableaux against their defining equations and other sources.


def test_butcher_assumptions() -> None:
    # Hairer & Wanner II, table IV.5.13: B(p), C(η), D(ζ).
    expected = {
        "gauss2": (4, 2, 2), "gauss3": (6, 3, 3),
        "radau_ia2": (3, 1, 2), "radau_ia3": (5, 2, 3), "radau_iia2": (3, 2, 1), "radau_iia3": (5, 3, 2),
        "lobatto_iiia3": (4, 3, 1), "lobatto_iiia4": (6, 4, 2), "lobatto_iiib3": (4, 1, 3),
        "lobatto_iiib4": (6, 2, 4), "lobatto_iiic3": (4, 2, 2), "lobatto_iiic4": (6, 3, 3),
    }  # fmt: skip
    assert {name: get(name).simplifying for name in expected} == expected


def test_stage_orders_and_structure() -> None:
    orders = {"radau5": 3, "sdirk4": 1, "kvaerno5": 2, "trbdf2": 2, "dopri5": 1, "backward_euler": 1}
    assert {name: get(name).stage_order for name in orders} == orders
    shapes = {"radau5": "full", "sdirk4": "dirk", "rk4": "explicit", "trapezoid": "dirk", "euler": "explicit"}
    assert {name: get(name).structure for name in shapes} == shapes
    assert get("sdirk4").singly and get("kvaerno5").singly and not get("lobatto_iiib2").singly
    stiffly = {"radau5": True, "gauss2": False, "lobatto_iiic4": True, "radau_ia3": False, "kvaerno4": True}
    assert {name: get(name).stiffly_accurate for name in stiffly} == stiffly
    reused = [name for name in RUNGE_KUTTA if METHODS[name].first_same_as_last]
    assert reused == (
        ["trapezoid", "lobatto_iiia3", "lobatto_iiia4", "bosh3", "dopri5", "trbdf2", "kvaerno3", "kvaerno4"]
        + ["kvaerno5", "tsit5"]
    )
    assert all(METHODS[f"kencarp{k}"].implicit_part.first_same_as_last for k in (3, 4, 5))


def test_radau5_is_scipys() -> None:
    method = get("radau5")
    a, _, c, b_error = method.tensors()
    assert np.allclose(c, scipy_radau.C, rtol=1e-15)
    # scipy has the eigenvalues of A^-1, and the estimate γ0 (f0 + E·(A k)) in terms of z = h A k.
    assert np.allclose(
        np.linalg.eigvals(np.linalg.inv(a.numpy())).real.max(), scipy_radau.MU_REAL, rtol=1e-13
    )
    gamma = float(method.b_error_initial)
    assert math.isclose(gamma, 1 / scipy_radau.MU_REAL, rel_tol=1e-14)
    difference = b_error.numpy() - np.array([float(x) for x in method.b])
    assert np.allclose(difference, gamma * (scipy_radau.E @ a.numpy()), atol=1e-14)
    # Dense output: scipy's P acts on z.
    assert np.allclose(method.dense_tensor().numpy(), (a.numpy().T @ scipy_radau.P), atol=1e-13)


@pytest.mark.parametrize(
    ("name", "other"), [("dopri5", scipy.integrate.RK45), ("bosh3", scipy.integrate.RK23)]
)
def test_explicit_pairs_are_scipys(name: str, other: Any) -> None:
    method = get(name)
    a, b, c, b_error = (x.numpy() for x in method.tensors())
    s = other.n_stages
    assert np.allclose(a[:s, :s], np.pad(other.A, ((0, 0), (0, s - other.A.shape[1]))), atol=1e-15)
    assert np.allclose(b[:s], other.B, atol=1e-15) and np.allclose(c[:s], other.C, atol=1e-15)
    assert np.allclose(np.abs(b - b_error), np.abs(other.E), atol=1e-15)
    assert np.allclose(
        method.dense_tensor().numpy(), other.P[:, : method.dense_tensor().shape[1]], atol=1e-14
    )


def test_alexanders_gamma_is_the_root_that_he_gives() -> None:
    x = sympy.symbols("x")
    root = next(r for r in sympy.Poly(6 * x**3 - 18 * x**2 + 9 * x - 1, x).nroots(n=50) if 0.4 < r < 0.5)
    for name in ("sdirk3", "kvaerno3"):
        assert abs(mpmath.mpf(str(root)) - mp(get(name).A[1][1])) < mpmath.mpf(10) ** -14
    fourth = next(
        r for r in sympy.Poly(24 * x**4 - 96 * x**3 + 72 * x**2 - 16 * x + 1, x).nroots() if 0.5 < r < 1
    )
    assert math.isclose(float(fourth), float(get("kvaerno4").A[1][1]), rel_tol=1e-14)


def test_taylor_weights_are_obreschkoffs() -> None:
    method = get("pade1_2")
    assert isinstance(method, Taylor) and method.order == 3
    start, end = method.weights
    assert start == (1, Fraction(1, 3)) and end == (1, Fraction(2, 3), Fraction(1, 6))


# Names.


def test_names_of_torchdiffeq_are_known() -> None:
    known = (
        "dopri8 dopri5 tsit5 bosh3 fehlberg2 adaptive_heun euler midpoint heun2 heun3 rk4 implicit_euler "
        "implicit_midpoint trapezoid radauIIA3 gl4 radauIIA5 gl6 sdirk2 trbdf2 explicit_adams implicit_adams "
        "fixed_adams"
    )
    orders = {name: get(name).order for name in known.split()}
    assert orders["gl4"] == 4 and orders["gl6"] == 6 and orders["radauIIA5"] == 5 and orders["dopri8"] == 8


def test_rk4_is_the_three_eighths_rule() -> None:
    assert get("rk4").b == tuple(Fraction(x, 8) for x in (1, 3, 3, 1))
    assert get("rk4_classic").b == tuple(Fraction(x, 6) for x in (1, 2, 2, 1))


def test_case_and_dashes_do_not_matter() -> None:
    spellings = {
        "Dopri5": "dopri5", "RADAU5": "radau_iia3", "backward-euler": "backward_euler",
        "radauiia3": "radau_iia2", "Lobatto IIIC3": "lobatto_iiic3", "TR-BDF2": None, "Taylor-4": None,
        "TAYLOR11": "taylor11", "Pade4-5": "pade4_5", " adams-bashforth4 ": "adams_bashforth4",
        "AB4": "adams_bashforth4",
    }  # fmt: skip
    for spelling, name in spellings.items():
        if name is None:
            with pytest.raises(UnknownNameError, match="did you mean"):
                get(spelling)
        else:
            assert get(spelling) is get(name)
    # torchdiffeq numbers Radau methods by order, others by stages: the two spellings stay apart.
    assert get("radauIIA3").order == 3 and get("radau_IIA3").order == 5
    with pytest.raises(ArgumentError, match="already registered"):
        methods.register(dataclasses.replace(METHODS["euler"], name="Dopri-5".replace("-", ""), aliases=()))


def test_unknown_and_taken_names() -> None:
    with pytest.raises(UnknownNameError, match="radau"):
        get("radua5")
    with pytest.raises(ArgumentError, match="already registered"):
        methods.register(dataclasses.replace(METHODS["euler"], name="radau5", aliases=()))
    with pytest.raises(ArgumentError, match="order 0"):
        get("taylor0")


def test_any_taylor_method_is_made_on_demand_and_not_listed() -> None:
    before = list(METHODS)
    assert get("taylor11").order == 11 and get("taylor11") is get("taylor11")
    assert get("pade4_5").order == 9 and get("pade4_5").is_l_stable
    assert list(METHODS) == before


def test_tensors_have_the_dtype_asked_for() -> None:
    a, b, c, e = get("radau5").tensors(torch.float32)
    assert {x.dtype for x in (a, b, c, e)} == {torch.float32}
    assert torch.equal(a, get("radau5").tensors()[0].float())


def test_a_ragged_tableau_is_refused() -> None:
    with pytest.raises(ArgumentError, match="lengths"):
        RungeKutta(name="x", family="", source="", order=1, A=matrix([[0]]), b=vector([1, 0]))


def test_repr_rebuilds() -> None:
    assert eval(repr(get("radau5")), {"methods": methods}) is get("radau5")


# One step.


@pytest.mark.parametrize("name", [n for n in RUNGE_KUTTA if METHODS[n].b_error is not None])
def test_embedded_solutions_converge_at_their_order(name: str) -> None:
    # One step of y' = y: the exact local errors of both solutions, by mpmath.
    method = METHODS[name]
    with mpmath.workdps(50):
        a = mpmath.matrix([[mp(x) for x in row] for row in method.A])
        one = mpmath.ones(method.stages, 1)
        errors = []
        # Small where a leading constant is small, large where the error would drown in published digits.
        start = mpmath.mpf(2) ** {1: -14, 2: -12, 7: -2}.get(method.embedded_order, -6)
        for h in (start, start / 2):
            k = mpmath.lu_solve(mpmath.eye(method.stages) - h * a, one)
            b = mpmath.matrix([[mp(x) for x in method.b_error]])
            value = 1 + h * (mp(method.b_error_initial) + (b * k)[0])
            errors.append(abs(value - mpmath.exp(h)))
        order = float(mpmath.log(errors[0] / errors[1], 2)) - 1
    assert abs(order - method.embedded_order) < 0.2


def one_step(method: Any, h: Any) -> Any:
    """Take one step of y' = t - y² + sin(y), y(0) = 1, in mpmath; the second part is the implicit one."""

    def explicit(t: Any, y: Any) -> Any:
        return t + mpmath.sin(y)

    def implicit(t: Any, y: Any) -> Any:
        return -(y**2)

    def f(t: Any, y: Any) -> Any:
        return explicit(t, y) + implicit(t, y)

    y, size, slope = mpmath.mpf(1), method.stages, mpmath.cos(1) - 2
    if isinstance(method, Rosenbrock):
        k: list[Any] = []
        for i in range(size):
            inner = sum((mp(method.alpha[i][j]) * k[j] for j in range(i)), mpmath.mpf(0))
            past = sum((mp(method.gamma[i][j]) * k[j] for j in range(i)), mpmath.mpf(0))
            right = (
                f(mp(method.alpha_sums[i]) * h, y + h * inner)
                + h * slope * past
                + h * mp(method.gamma_sums[i])
            )
            k.append(right / (1 - h * mp(method.diagonal) * slope))
        return y + h * sum(mp(b) * x for b, x in zip(method.b, k, strict=True))
    if isinstance(method, AdditiveRungeKutta):
        parts = (method.explicit, method.implicit_part)
        functions = (explicit, implicit)
    else:
        parts, functions = (method,), (f,)
    a = [[[mp(x) for x in row] for row in part.A] for part in parts]
    stages = [y] * size
    for _ in range(60):  # fixed point iteration: h is small and the problem is not stiff
        k2 = [
            [g(mp(c) * h, s) for c, s in zip(part.c, stages, strict=True)]
            for g, part in zip(functions, parts, strict=True)
        ]
        stages = [
            y
            + h
            * sum(x * v for m, values in zip(a, k2, strict=True) for x, v in zip(m[i], values, strict=True))
            for i in range(size)
        ]
    weights = [[mp(x) for x in part.b] for part in parts]
    return y + h * sum(
        x * v for w, values in zip(weights, k2, strict=True) for x, v in zip(w, values, strict=True)
    )


STEPPED = "rodas4 rodas5p ros2 kencarp3 kencarp4 kencarp5 kvaerno5 radau_ia3 lobatto_iiib3 dopri5 tsit5"


@pytest.mark.parametrize("name", STEPPED.split())
def test_the_order_shows_on_a_nonautonomous_problem(name: str) -> None:
    method = METHODS[name]
    with mpmath.workdps(40):
        exact = mpmath.odefun(
            lambda t, y: t - y**2 + mpmath.sin(y), 0, mpmath.mpf(1), tol=mpmath.mpf(10) ** -25
        )
        h = mpmath.mpf(1) / 16
        errors = [abs(one_step(method, step) - exact(step)) for step in (h, h / 2)]
        order = float(mpmath.log(errors[0] / errors[1], 2)) - 1
    assert order > method.order - 0.35


@pytest.mark.parametrize("name", [n for n in RUNGE_KUTTA if METHODS[n].dense is not None])
def test_wrong_dense_output_is_refused(name: str) -> None:
    method = METHODS[name]
    rows = [list(row) for row in method.dense]
    i = next(i for i, row in enumerate(rows) if any(row))
    for j, change in ((0, 1), (-1, -1)) if len(rows[i]) > 1 else ((0, 1),):
        rows[i][j] = rows[i][j] + Fraction(change, 10**6)  # b_i(1) stays, b_i(θ) does not
    with pytest.raises(ArgumentError, match=r"dense|b_i"):
        dataclasses.replace(method, dense=tuple(map(tuple, rows))).prove()
    with pytest.raises(ArgumentError, match="dense condition"):
        dataclasses.replace(method, dense_order=method.dense_order + 1).prove()
