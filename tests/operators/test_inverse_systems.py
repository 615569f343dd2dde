"""The exact side: inverse systems, product tables, polarisation, plans. No tensors, no rounding."""

import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntangent._base.errors import ArgumentError, UnknownNameError
from ntangent.jet.algebra import Algebra
from ntangent.operators import Operator, make_plan
from ntangent.operators.directions import directional_plan, polarise
from ntangent.operators.inverse_system import InverseSystem, inverse_system
from ntangent.operators.symbol import degree, differentiate, factorial, monomial, splits, times

coefficients = st.fractions(-3, 3, max_denominator=4)
exponents = st.tuples(*[st.integers(0, 2)] * 3)
symbols = st.dictionaries(exponents.map(monomial), coefficients, min_size=1, max_size=4).filter(
    lambda p: any(p.values())
)
EXACT = settings(max_examples=25, deadline=None)


def system_of(*operators: Operator) -> InverseSystem:
    return inverse_system([symbol for operator in operators for symbol in operator.symbols])


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_rows_of_known_operators(d):
    assert len(system_of(Operator.laplacian(d)).pivots) == d + 2
    assert len(system_of(Operator.laplacian(d, range(1, d + 1))).pivots) == d + 2
    assert len(system_of(Operator.biharmonic(d)).pivots) == 2 + 2 * d + d * (d + 1) // 2
    assert len(system_of(Operator.partial(*[1] * d)).pivots) == 2**d


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_rows_along_a_line(n):
    system = system_of(Operator.partial(n))
    assert len(system.pivots) == n + 1
    # Rows are normalised Taylor coefficients: a plain Cauchy product.
    assert sorted(system.table) == sorted((j, k - j, k, 1) for k in range(n + 1) for j in range(k + 1))


def test_mixed_partials_and_shared_rows():
    assert len(system_of(Operator.partial(3, 1)).pivots) == 8
    assert len(system_of(Operator.partial(0, 3, 0, 1)).pivots) == 8
    shared = system_of(Operator.laplacian(3), Operator.partial(2, 0, 0), Operator.partial(1, 0, 0))
    assert len(shared.pivots) == 6
    # A sum of powers of one direction is a line: (ξ1 + ξ2)^3.
    assert len(system_of(Operator({(1, 0): 1, (0, 1): 1}) ** 3).pivots) == 4
    assert len(system_of(Operator({}, dimension=2)).pivots) == 1


def contains(system: InverseSystem, p) -> bool:
    total: dict = {}
    for b, c in system.coordinates(p).items():
        for m, e in system.basis[b].items():
            total[m] = total.get(m, Fraction(0)) + c * e
    return {m: c for m, c in total.items() if c} == {m: c for m, c in p.items() if c}


@EXACT
@given(st.lists(symbols, min_size=1, max_size=2))
def test_the_system_contains_the_operators_and_is_closed(given_symbols):
    system = inverse_system(given_symbols)
    assert all(contains(system, p) for p in given_symbols)
    for row, i in itertools.product(system.basis, range(3)):
        assert contains(system, differentiate(row, i))
    assert list(system.grades) == sorted(system.grades)
    assert system.pivots[0] == ()
    for b, pivot in enumerate(system.pivots):
        assert [row.get(pivot, 0) for row in system.basis] == [
            Fraction(int(c == b), factorial(pivot)) for c in range(len(system.basis))
        ]


@EXACT
@given(symbols)
def test_the_system_is_the_smallest(p):
    """Its dimension is the rank of all derivatives of all homogeneous parts, by elimination from scratch."""
    parts: dict = {}
    for m, c in p.items():
        parts.setdefault(degree(m), {})[m] = c
    rows, new = [], [part for part in parts.values() if any(part.values())]
    while new:
        rows += new
        new = [q for r in new for i in range(3) if (q := differentiate(r, i))]
    rows.append({(): Fraction(1)})
    rank, pending = 0, [dict(r) for r in rows]
    while pending:
        row = {m: c for m, c in pending.pop().items() if c}
        if row:
            rank += 1
            lead, value = next(iter(row.items()))
            for other in pending:
                if factor := other.get(lead, Fraction(0)) / value:
                    for m, c in row.items():
                        other[m] = other.get(m, Fraction(0)) - factor * c
    assert len(inverse_system([p]).pivots) == rank


def multiply(table, a, b):
    out = [Fraction(0)] * len(a)
    for c, d, target, weight in table:
        out[target] += weight * a[c] * b[d]
    return out


@EXACT
@given(symbols, st.randoms(use_true_random=False))
def test_the_product_is_commutative_and_associative(p, random):
    system = inverse_system([p])
    a, b, c = ([Fraction(random.randint(-9, 9), 5) for _ in system.pivots] for _ in range(3))
    product = lambda u, v: multiply(system.table, u, v)  # noqa: E731
    assert product(a, b) == product(b, a)
    assert product(product(a, b), c) == product(a, product(b, c))
    one = [Fraction(int(i == 0)) for i in range(len(a))]
    assert product(a, one) == a


@EXACT
@given(symbols, symbols, symbols)
def test_the_table_multiplies_polynomials(p, f, g):
    """Rows are q(∂) at 0; those of a product of polynomials are the table's product of the rows."""
    system = inverse_system([p])

    def rows(poly):
        return [sum(e * factorial(m) * poly.get(m, 0) for m, e in row.items()) for row in system.basis]

    product: dict = {}
    for m, c in f.items():
        for n, e in g.items():
            product[times(m, n)] = product.get(times(m, n), Fraction(0)) + c * e
    assert multiply(system.table, rows(f), rows(g)) == rows(product)


@EXACT
@given(exponents.map(monomial))
def test_polarisation_is_an_identity(m):
    n, total = degree(m), {}
    lines = polarise(m) if n else {(): Fraction(1)}
    for line, weight in lines.items():
        power = {(): Fraction(1)}
        for _ in range(n):
            power = {
                key: sum(
                    (power[q] * c for q in power for i, c in line if times(q, ((i, 1),)) == key), Fraction(0)
                )
                for key in {times(q, ((i, 1),)) for q in power for i, _ in line}
            }
        for key, c in power.items():
            total[key] = total.get(key, Fraction(0)) + weight * c
    assert {key: c for key, c in total.items() if c} == {m: 1}


def test_directions_are_shared():
    orders, _ = directional_plan([s for n in (1, 2, 4) for s in Operator.partial(n, 0).symbols])
    assert orders == {((0, Fraction(1)),): 4}
    orders, _ = directional_plan(Operator.partial(1, 1).symbols)
    assert len(orders) == 2


def test_splits_are_the_binomial_expansion():
    m = monomial((2, 0, 3))
    found = list(splits(m))
    assert len(found) == len({(left, right) for left, right, _ in found}) == 12
    assert sum(count for _, _, count in found) == 2**5
    assert all(times(left, right) == m for left, right, _ in found)


def test_plans_are_cached_and_explained():
    plan = make_plan(Operator.laplacian(3).symbols, 3)
    assert plan is make_plan(Operator.laplacian(3).symbols, 3)
    assert plan is not make_plan(Operator.laplacian(3).symbols, 3, "directions")
    assert plan.rows == 5
    text = plan.explain()
    assert "5 rows per point, by algebra" in text
    assert "smallest set of Taylor functionals" in text
    assert "directional jets 7" in text
    line = make_plan(Operator.partial(0, 4).symbols, 2)
    assert line.method == "directions"
    assert "a single line" in line.explain()
    forced = make_plan(Operator.laplacian(3).symbols, 3, "directions")
    assert "as asked for" in forced.explain()
    assert forced.rows == 7
    with pytest.raises(UnknownNameError, match="unknown method"):
        make_plan(Operator.laplacian(3).symbols, 3, "algebras")


@pytest.mark.parametrize("d", [1, 2, 4])
def test_the_algebra_never_carries_more_rows(d):
    for operator in (Operator.laplacian(d), Operator.biharmonic(d), Operator.partial(*[2] * d)):
        counts = dict(make_plan(operator.symbols, d).alternatives)
        assert counts["inverse system"] <= counts["directional jets"]


def test_a_product_table_becomes_few_operations():
    algebra = make_plan(Operator.laplacian(50).symbols, 50).algebra
    assert len(algebra.table) == 153
    assert [len(blocks) for blocks in algebra._groups.values()] == [1]


@pytest.mark.parametrize(
    "operator",
    [Operator.laplacian(3), Operator.biharmonic(3), Operator.partial(2, 2, 1), Operator.partial(4)],
)
def test_products_of_tensors_follow_the_table(operator):
    system = system_of(operator)
    algebra = make_plan(operator.symbols, operator.dimension, "algebra").algebra
    size = len(system.pivots)
    a, b, g = (torch.rand(size, 2, dtype=torch.float64) for _ in range(3))
    table = torch.zeros(size, size, size, dtype=torch.float64)
    for c, d, target, weight in system.table:
        table[c, d, target] = float(weight)
    for degree_a, degree_b in itertools.product(range(algebra.order + 1), repeat=2):
        short_a, short_b = a[: algebra.rows(degree_a)], b[: algebra.rows(degree_b)]
        for top in range(algebra.order + 1):
            expected = torch.einsum("cdb,cn,dn->bn", table[: len(short_a), : len(short_b)], short_a, short_b)
            got = algebra.product(short_a, short_b, top)
            torch.testing.assert_close(got, expected[: algebra.rows(top)])
        # ⟨a·b, g⟩ = ⟨b, a ⋆ g⟩
        adjoint = algebra.correlate(short_a, g, degree_b)
        product = algebra.product(short_a, short_b, algebra.order)
        torch.testing.assert_close((product * g).sum(0), (short_b * adjoint).sum(0))
    for k in range(algebra.order + 1):
        out, square = torch.ones_like(a), torch.ones_like(a)
        algebra.product_grade(out, a, b, k, scale=-0.5, add=True)
        algebra.product_grade(square, a, a, k, scale=3.0)
        rows = algebra.grade_rows(k)
        torch.testing.assert_close(out[rows], 1 - 0.5 * algebra.product(a, b, algebra.order)[rows])
        torch.testing.assert_close(square[rows], 3 * algebra.product(a, a, algebra.order)[rows])


@pytest.mark.parametrize("grades", [(), (1, 2), (0, 2, 1), (0, 0, 1)])
def test_grades_that_no_algebra_has(grades):
    with pytest.raises(ArgumentError, match="the value comes first"):
        Algebra(grades, ())
