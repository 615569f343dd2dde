"""Singular values in every precision, entropies and cut-offs with known values, the random feature table."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ntangent as nt
from ntangent import diagnose, fd
from ntangent._base import extras
from ntangent._base.errors import (
    ArgumentError,
    DtypeError,
    MissingExtraError,
    NonFiniteError,
    ShapeError,
    UnknownNameError,
)
from ntangent.diagnose import RandomFeatures, Rows

EPS = 2.0**-52
ENDS = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def orthogonal(n, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=g))[0]


def with_values(values, rows=None):
    """A matrix with these singular values, up to rounding."""
    n = len(values)
    u = orthogonal(rows or n, 1)[:, :n]
    return u @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ orthogonal(n, 2)


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["lapack", "float64", "double-double", 30])
@pytest.mark.parametrize("rows", [6, 9])
def test_planted_singular_values_are_found(precision, rows):
    values = [9.0, 4.0, 1.0, 0.25, 1e-3, 1e-6]
    a = with_values(values, rows)
    for matrix in (a, a.T.contiguous()):
        found = diagnose.singular_values(matrix, precision)
        # The matrix itself carries rounding errors of about eps times its largest value.
        torch.testing.assert_close(found, f64(values), rtol=0, atol=9 * 16 * EPS)


def test_higher_precisions_see_below_round_off():
    # An upper triangular matrix whose smallest value is known: for [[1, t], [0, d]] the product of both is d.
    t, d = 3.0, 2.0**-70
    a = torch.tensor([[1.0, t], [0.0, d]], dtype=torch.float64)
    largest = math.sqrt(1 + t * t)
    for precision in ("double-double", 50):
        found = diagnose.singular_values(a, precision)
        torch.testing.assert_close(found, f64([largest, d / largest]), rtol=4 * EPS, atol=0)


def test_double_double_agrees_with_mpmath_on_a_hilbert_matrix():
    n = 14  # condition 1e19: float64 has no digit of the last values
    a = torch.tensor([[1 / (i + j + 1) for j in range(n)] for i in range(n)], dtype=torch.float64)
    exact, found = diagnose.singular_values(a, 60), diagnose.singular_values(a, "double-double")
    torch.testing.assert_close(found, exact, rtol=4 * EPS, atol=1e-31 * n)
    assert float(exact[-1]) < 1e-17


def test_scale_and_degenerate_matrices_in_double_double():
    a = with_values([3.0, 2.0, 1e-9], 4)
    one = diagnose.singular_values(a, "double-double")
    torch.testing.assert_close(
        diagnose.singular_values(a * 2.0**300, "double-double"), one * 2.0**300, rtol=0, atol=0
    )
    assert not diagnose.singular_values(torch.zeros(3, 2).double(), "double-double").any()
    column = torch.tensor([[3.0], [4.0]], dtype=torch.float64)
    assert diagnose.singular_values(column, "double-double").tolist() == [5.0]
    rank_one = torch.ones(4, 5, dtype=torch.float64)
    found = diagnose.singular_values(rank_one, "double-double")
    torch.testing.assert_close(found, f64([math.sqrt(20), 0, 0, 0]), rtol=2 * EPS, atol=1e-30)


@pytest.mark.parametrize("method", ["lanczos", "randomised"])
def test_leading_values_of_matrices_and_of_products(method):
    a = with_values([2.0 ** (3 - k) for k in range(40)], 60)
    expected = diagnose.singular_values(a)[:5]
    by_matrix = diagnose.leading_singular_values(a, 5, method)
    by_product = diagnose.leading_singular_values((lambda v: a @ v, lambda u: a.T @ u, (60, 40)), 5, method)
    # Three products with a spectrum that halves: (1/2)^(10·5) is far below rounding.
    for found in (by_matrix, by_product):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_marchenko_pastur():
    # Entries of variance 1/N: the values fill (1 - √c, 1 + √c), and the mean of their squares is 1.
    n, m = 1200, 300
    a = torch.randn(n, m, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / math.sqrt(n)
    found = diagnose.spectrum(a, 1e-12)
    root = math.sqrt(m / n)
    assert found.values[0] == pytest.approx(1 + root, abs=0.03)
    assert found.values[-1] == pytest.approx(1 - root, abs=0.03)
    assert found.stable_rank == pytest.approx(m / (1 + root) ** 2, rel=0.05)
    assert found.condition == pytest.approx((1 + root) / (1 - root), rel=0.1)
    assert found.cutoff == m
    # The entropy against the density of the law, by quadrature.
    s = np.linspace(1 - root, 1 + root, 20001)[1:-1]
    density = np.sqrt((s**2 - (1 - root) ** 2) * ((1 + root) ** 2 - s**2)) / (np.pi * (m / n) * s)
    mean = np.trapezoid(density * s, s)
    entropy = math.log(m) - np.trapezoid(density * s / mean * np.log(s / mean), s)
    assert found.entropy == pytest.approx(entropy, abs=0.01)


# --- entropies, ranks ----------------------------------------------------------------------------


def test_entropies_by_hand():
    values = torch.tensor([4.0, 2.0, 1.0, 1.0, 1e-9])
    plain = 0.5 * math.log(2) + 0.25 * math.log(4) + 2 * 0.125 * math.log(8)
    entropy = diagnose.truncated_entropy
    assert diagnose.effective_cutoff(values, 0.5) == 4
    assert diagnose.effective_cutoff(values, 0.5, relative=True) == 2
    assert entropy(values, 0.5) == pytest.approx(plain)
    assert entropy(values, 0.5, "exponential") == pytest.approx(math.exp(plain))
    assert entropy(values, 0.5, "normalised") == pytest.approx(plain / math.log(4))
    # One more value without mass: only the normalised entropy sees it.
    assert entropy(values, 1e-10) == pytest.approx(plain, rel=1e-7)
    assert entropy(values, 1e-10, "normalised") == pytest.approx(plain / math.log(5), rel=1e-7)
    assert diagnose.stable_rank(values) == pytest.approx(22 / 16)
    assert diagnose.condition_number(values) == pytest.approx(4e9)
    assert diagnose.condition_number(torch.tensor([1.0, 0.0])) == math.inf
    assert math.isnan(entropy(values, 5.0)) and math.isnan(entropy(values, 3.0, "normalised"))
    assert entropy(values, 3.0) == 0.0


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=20), st.floats(1e-3, 1e3), st.randoms())
@settings(deadline=None, max_examples=50)
def test_laws_of_entropy(values, scale, random):
    a = torch.tensor(values, dtype=torch.float64)
    shuffled = values.copy()
    random.shuffle(shuffled)
    for kind in ("plain", "exponential", "normalised"):
        h = diagnose.truncated_entropy(a, 1e-9, kind)
        assert diagnose.truncated_entropy(a * scale, 1e-9 * scale, kind) == pytest.approx(h, rel=1e-9)
        assert diagnose.truncated_entropy(f64(shuffled), 1e-9, kind) == pytest.approx(h, rel=1e-9)
    assert -1e-12 <= diagnose.truncated_entropy(a, 1e-9) <= math.log(len(values)) * (1 + 1e-12)
    assert 1 <= diagnose.stable_rank(a) * (1 + 1e-12) <= len(values) * (1 + 1e-9)
    equal = torch.full((len(values),), scale, dtype=torch.float64)
    assert diagnose.truncated_entropy(equal, scale / 2, "normalised") == pytest.approx(1)


def test_orthogonal_factors_change_nothing():
    a = with_values([5.0, 2.0, 0.5, 1e-3])
    one, other = diagnose.spectrum(a), diagnose.spectrum(orthogonal(4, 5) @ a @ orthogonal(4, 6))
    for name, number in one.numbers().items():
        assert other.numbers()[name] == pytest.approx(number, rel=1e-10), name


def test_predicted_loss_is_that_of_gradient_descent():
    g = torch.Generator().manual_seed(3)
    j = torch.randn(9, 5, dtype=torch.float64, generator=g)
    r = torch.randn(9, dtype=torch.float64, generator=g)
    step = 0.5 / float(torch.linalg.matrix_norm(j, 2)) ** 2
    flow = diagnose.gradient_flow_loss(j, r)
    theta, losses = torch.zeros(5, dtype=torch.float64), []
    for _ in range(31):
        residual = r + j @ theta
        losses.append(float(residual @ residual))
        theta = theta - step * j.T @ residual
    times = torch.arange(31)
    torch.testing.assert_close(flow.loss(times, step), f64(losses))
    kernel = diagnose.gradient_flow_loss(diagnose.training_kernel(j), r, of="kernel")
    torch.testing.assert_close(kernel.loss(times, step), flow.loss(times, step))
    # The flow itself: r(t) = exp(-K t) r.
    moved = torch.linalg.matrix_exp(-0.3 * j @ j.T) @ r
    torch.testing.assert_close(flow.loss(0.3), moved @ moved)
    assert flow.loss_per_mode(torch.tensor([0.0, 1.0])).shape == (2, 5)
    assert flow.rest == pytest.approx(
        float((r - j @ torch.linalg.lstsq(j, r[:, None]).solution[:, 0]).square().sum())
    )


# --- random features ---------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", list(diagnose.feature_functions))
@pytest.mark.parametrize("index", [(0, 0), (1, 0), (2, 0), (1, 2), (0, 4)])
def test_exact_rows_are_derivatives(activation, index):
    features = RandomFeatures.draw(5, 2, 1.5, activation, generator=1)
    x = 2 * torch.rand(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) - 1
    found = diagnose.system_matrix(features, [Rows(x, {index: 2.0}, weight=3.0)])
    by_jets = 6 * nt.partial(features, x, index)
    torch.testing.assert_close(found, by_jets, rtol=1e-10, atol=1e-10)
    reference = 6 * nested(features, x, index)
    torch.testing.assert_close(found, reference, rtol=1e-9, atol=1e-9)


def nested(f, x, index):
    """Mixed derivatives of every output by nested reverse mode."""
    x = x.clone().requires_grad_()
    columns = []
    for column in f(x).unbind(1):
        for i, power in enumerate(index):
            for _ in range(power):
                (g,) = torch.autograd.grad(column.sum(), x, create_graph=True)
                column = g[:, i]
        columns.append(column.detach())
    return torch.stack(columns, 1)


def test_differences_and_functions_make_the_same_rows():
    features = RandomFeatures.draw(6, 2, 1.0, "sin")
    x = torch.rand(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    laplacian = {(2, 0): 1.0, (0, 2): 1.0}
    rows = [Rows(x, laplacian), Rows(x[:2], {(0, 0): 1.0}, exact=True)]
    found = diagnose.system_matrix(features, rows, "fd", step=1e-2)
    torch.testing.assert_close(found[:5], fd.laplacian(features, x, step=1e-2), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[5:], features(x[:2]))
    exact = diagnose.system_matrix(features, [Rows(x, nt.laplacian)])
    torch.testing.assert_close(
        exact, diagnose.system_matrix(features, [Rows(x, laplacian)]), rtol=1e-12, atol=1e-12
    )


def test_sine_features_shrink_by_a_known_factor():
    # sin(w(x + h)) - 2 sin(wx) + sin(w(x - h)) = -4 sin²(wh/2) sin(wx): exact for every h.
    features, h = RandomFeatures.draw(8, 1, 5.0, "sin"), 0.1
    x = torch.linspace(-1, 1, 11, dtype=torch.float64)[:, None]
    exact, differenced = (
        diagnose.system_matrix(features, [Rows(x, {(2,): -1.0})], method, step=h) for method in ("jet", "fd")
    )
    factor = torch.sinc(features.weights[:, 0] * h / (2 * math.pi)).square()
    torch.testing.assert_close(differenced, exact * factor, rtol=1e-11, atol=1e-11)


def table_features(count=100):
    g = np.random.default_rng(0)
    w, b = g.uniform(-1, 1, count), g.uniform(-1, 1, count)
    return RandomFeatures(torch.from_numpy(w)[:, None], torch.from_numpy(b))


def poisson(points):
    x = torch.linspace(-1, 1, points + 2, dtype=torch.float64)[1:-1, None]
    return [Rows(x, {(2,): -1.0}), Rows(ENDS, {(0,): 1.0}, exact=True)]


# step: σ_1, σ_10, σ_20, n(1e-10), H, normalised H. Values that rounding decides are left out (None):
# they depend on the order of additions.
TABLE = {
    None: (22.49, 8.85e-3, 2.65e-9, 22, 1.4666, 0.4745),
    1e-1: (22.45, 8.61e-3, 2.28e-9, 21, 1.4652, 0.4813),
    1e-2: (22.49, 8.84e-3, 2.64e-9, 22, 1.4666, 0.4745),
    1e-3: (22.49, 8.85e-3, None, None, 1.4666, None),
    1e-4: (22.49, 8.85e-3, None, 100, 1.4666, 0.3185),
}


@pytest.mark.parametrize("step", list(TABLE))
def test_table_of_exact_and_difference_matrices(step):
    matrix = diagnose.system_matrix(
        table_features(), poisson(100), "jet" if step is None else "fd", step=step
    )
    found = diagnose.spectrum(matrix, 1e-10)
    values = [float(found.values[k]) for k in (0, 9, 19)]
    ours = [*(f"{v:.3g}" for v in values), found.cutoff, found.entropy, found.normalised_entropy]
    ours[0] = f"{values[0]:.2f}"
    for mine, paper in zip(ours, TABLE[step], strict=True):
        if isinstance(mine, str) and paper is not None:
            assert float(mine) == paper
        elif paper is not None:
            assert mine == pytest.approx(paper, abs=5e-5)
    if step == 1e-3:
        assert 85 <= found.cutoff <= 95 and 0.32 < found.normalised_entropy < 0.33


def test_noise_floor_of_differences_follows_its_law():
    # eps max|φ| √(NM) / h^p, times a constant that does not depend on h.
    features, rows = table_features(), poisson(100)
    levels = {}
    for h in (1e-1, 1e-2, 1e-3):
        values = diagnose.singular_values(diagnose.system_matrix(features, rows, "fd", step=h))
        levels[h] = float(values[59]) / (EPS * 100 / h**2)
    assert max(levels.values()) / min(levels.values()) < 2
    assert 0.01 < levels[1e-2] < 1


def test_the_excess_is_rounding_alone():
    features, rows = table_features(24), poisson(24)[:1]
    exact, differenced = (
        diagnose.singular_values(
            diagnose.precise_system_matrix(features, rows, method, digits=60, step=1e-3), 60
        )
        for method in ("jet", "fd")
    )
    # Four digits at every index, down to the last one.
    torch.testing.assert_close(differenced, exact, rtol=5e-5, atol=0)
    assert f"{float(exact[-1]):.3e}" == f"{float(differenced[-1]):.3e}" == "1.061e-22"
    rounded = diagnose.singular_values(diagnose.system_matrix(features, rows, "fd", step=1e-3))
    assert float(rounded[-1]) > 1e9 * float(exact[-1])
    # With more digits for the same rounded matrix the excess stays: it is in the entries.
    precise = diagnose.singular_values(
        diagnose.system_matrix(features, rows, "fd", step=1e-3), "double-double"
    )
    torch.testing.assert_close(precise[-3:], rounded[-3:], rtol=1e-3, atol=0)


def test_precise_rows_agree_with_float64():
    features = RandomFeatures.draw(4, 2, 1.0, "sigmoid")
    x = torch.rand(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = [Rows(x, {(2, 1): 1.5, (0, 0): -1.0}, weight=2.0)]
    for method in ("jet", "fd"):
        precise = diagnose.precise_system_matrix(features, rows, method, digits=30, step=0.1)
        found = diagnose.system_matrix(features, rows, method, step=0.1)
        torch.testing.assert_close(
            found, torch.tensor(precise.tolist(), dtype=torch.float64), rtol=1e-11, atol=1e-11
        )


def test_draws_repeat_and_have_their_law():
    one, two = RandomFeatures.draw(4000, 1, 3.0), RandomFeatures.draw(4000, 1, 3.0)
    assert torch.equal(one.weights, two.weights) and float(one.weights.abs().max()) <= 3.0
    normal = RandomFeatures.draw(4000, 1, 3.0, law="normal", dtype=torch.float32)
    assert (
        float(normal.biases.std()) == pytest.approx(3.0, rel=0.05) and normal.weights.dtype == torch.float32
    )
    assert "4000 features" in repr(one)


# --- refusals ------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused():
    a = with_values([2.0, 1.0])
    with pytest.raises(UnknownNameError):
        diagnose.singular_values(a, "quadruple")
    with pytest.raises(ShapeError):
        diagnose.singular_values(a[0])
    with pytest.raises(DtypeError):
        diagnose.singular_values(a.long())
    with pytest.raises(NonFiniteError):
        diagnose.singular_values(a * math.nan)
    with pytest.raises(DtypeError):
        diagnose.singular_values([[1.0]], 30)
    with pytest.raises(ArgumentError, match="fewer than all"):
        diagnose.leading_singular_values(a, 2)
    with pytest.raises(ArgumentError, match=">= 0"):
        diagnose.stable_rank(torch.tensor([-1.0]))
    with pytest.raises(ShapeError):
        diagnose.gradient_flow_loss(a, torch.ones(3))
    with pytest.raises(ShapeError, match="multi-index"):
        diagnose.system_matrix(table_features(3), [Rows(ENDS, {(2, 0): 1.0})])
    with pytest.raises(ArgumentError, match="rows is empty"):
        diagnose.system_matrix(table_features(3), [])
    with pytest.raises(DtypeError, match="RandomFeatures"):
        diagnose.system_matrix(torch.nn.Identity(), [Rows(ENDS, {(2,): 1.0})])


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "diagnose", ("a_package_nobody_has",))
    with pytest.raises(MissingExtraError, match=r"ntangent\[diagnose\]"):
        diagnose.singular_values(with_values([2.0, 1.0]), 30)
