"""Collocation and its relatives: Gauss, Radau and Lobatto methods.

All follow from their nodes. With the moments B(s), C(s) or D(s) of Butcher's simplifying assumptions
as linear systems, A is solved for exactly (Hairer & Wanner II, IV.5):
Gauss, Radau IIA, Lobatto IIIA by C(s); Radau IA by D(s); Lobatto IIIB by D(s); Lobatto IIIC by C(s - 1)
and a_i1 = b_1.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from ntangent.ode.algebraic import Field, Number, square_root
from ntangent.ode.methods.base import Entry, Matrix, RungeKutta, Vector, vector
from ntangent.ode.methods.catalogue import add

HW = "Hairer & Wanner, Solving ODEs II, IV.5"


def solve(rows: Sequence[Sequence[Number]], right: Sequence[Number]) -> Vector:
    """Solve a small linear system exactly."""
    size = len(rows)
    m = [[*row, value] for row, value in zip(rows, right, strict=True)]
    for i in range(size):
        pivot = next(k for k in range(i, size) if m[k][i])
        m[i], m[pivot] = m[pivot], m[i]
        m[i] = [x / m[i][i] for x in m[i]]
        for k in range(size):
            if k != i and m[k][i]:
                m[k] = [x - m[k][i] * y for x, y in zip(m[k], m[i], strict=True)]
    return tuple(row[-1] for row in m)


def powers(c: Vector, count: int) -> list[list[Number]]:
    """Return the rows c^0, c^1, ..., c^(count - 1)."""
    rows: list[list[Number]] = [[Fraction(1) for _ in c]]
    for _ in range(count - 1):
        rows.append([x * y for x, y in zip(rows[-1], c, strict=True)])
    return rows


def quadrature(c: Vector) -> Vector:
    """Return the interpolatory weights b of the nodes c: B(s)."""
    return solve(powers(c, len(c)), [Fraction(1, k) for k in range(1, len(c) + 1)])


def by_c(c: Vector) -> Matrix:
    """Return the A of collocation at c: C(s)."""
    rows = powers(c, len(c))
    return tuple(
        solve(rows, [row[i] * x * Fraction(1, k) for k, row in enumerate(rows, 1)]) for i, x in enumerate(c)
    )


def by_d(c: Vector) -> Matrix:
    """Return the A with D(s): Σ_i b_i c_i^(k-1) a_ij = b_j (1 - c_j^k) / k."""
    b, rows = quadrature(c), powers(c, len(c) + 1)
    left = [[x * y for x, y in zip(b, row, strict=True)] for row in rows[:-1]]
    columns = [
        solve(left, [b[j] * (1 - rows[k][j]) * Fraction(1, k) for k in range(1, len(c) + 1)])
        for j in range(len(c))
    ]
    return tuple(tuple(column[i] for column in columns) for i in range(len(c)))


def by_c_and_first_column(c: Vector) -> Matrix:
    """Return the A with C(s - 1) and a_i1 = b_1 (Lobatto IIIC)."""
    b, rows = quadrature(c), powers(c, len(c) - 1)
    first = [Fraction(1), *[Fraction(0)] * (len(c) - 1)]
    return tuple(
        solve([*rows, first], [*(row[i] * x * Fraction(1, k) for k, row in enumerate(rows, 1)), b[0]])
        for i, x in enumerate(c)
    )


def interpolant(c: Vector) -> Matrix:
    """Return the collocation polynomial: b_i(θ) = ∫_0^θ of the i-th Lagrange polynomial."""
    size, rows = len(c), powers(c, len(c))
    columns = [
        solve(rows, [Fraction(1, m) if k == m else Fraction(0) for k in range(1, size + 1)])
        for m in range(1, size + 1)
    ]
    return tuple(tuple(column[i] for column in columns) for i in range(size))


def _add(
    name: str,
    family: str,
    order: int,
    c: Sequence[Entry],
    a: Matrix,
    *,
    aliases: tuple[str, ...] = (),
    embedded: tuple[int, Sequence[Entry]] | None = None,
    collocation: bool = False,
) -> RungeKutta:
    nodes = vector(c)
    method = RungeKutta(
        name=name,
        family=family,
        source=HW,
        order=order,
        embedded_order=None if embedded is None else embedded[0],
        aliases=aliases,
        A=a,
        b=quadrature(nodes),
        c=nodes,
        b_error=None if embedded is None else vector(embedded[1]),
        dense=interpolant(nodes) if collocation else None,
        dense_order=len(nodes) if collocation else None,
    )
    add(method)
    return method


R3, R5, R6, R15 = square_root(3), square_root(5), square_root(6), square_root(15)
HALF = Fraction(1, 2)

GAUSS1 = vector(["1/2"])
GAUSS2: Vector = (HALF - R3 / 6, HALF + R3 / 6)
GAUSS3: Vector = (HALF - R15 / 10, HALF, HALF + R15 / 10)
RADAU_LEFT2 = vector([0, "2/3"])
RADAU_LEFT3: Vector = (Fraction(0), (6 - R6) / 10, (6 + R6) / 10)
RADAU_RIGHT2 = vector(["1/3", 1])
RADAU_RIGHT3: Vector = ((4 - R6) / 10, (4 + R6) / 10, Fraction(1))
LOBATTO2 = vector([0, 1])
LOBATTO3 = vector([0, "1/2", 1])
LOBATTO4: Vector = (Fraction(0), HALF - R5 / 10, HALF + R5 / 10, Fraction(1))

_add("backward_euler", "Radau IIA", 1, [1], by_c(vector([1])), aliases=("implicit_euler", "radau_iia1"),
     collocation=True)  # fmt: skip
_add("implicit_midpoint", "Gauss", 2, GAUSS1, by_c(GAUSS1), aliases=("gauss1", "gl2"), collocation=True)
_add("gauss2", "Gauss", 4, GAUSS2, by_c(GAUSS2), aliases=("gl4", "gauss_legendre4"), collocation=True,
     embedded=(1, (HALF + R3 / 2, HALF - R3 / 2)))  # fmt: skip
_add("gauss3", "Gauss", 6, GAUSS3, by_c(GAUSS3), aliases=("gl6", "gauss_legendre6"), collocation=True,
     embedded=(2, ("-5/6", "8/3", "-5/6")))  # fmt: skip

_add("radau_ia2", "Radau IA", 3, RADAU_LEFT2, by_d(RADAU_LEFT2), aliases=("radauIA3",))
_add("radau_ia3", "Radau IA", 5, RADAU_LEFT3, by_d(RADAU_LEFT3), aliases=("radauIA5",))
_add("radau_iia2", "Radau IIA", 3, RADAU_RIGHT2, by_c(RADAU_RIGHT2), aliases=("radauIIA3", "radau3"),
     collocation=True)  # fmt: skip


def _radau5() -> RungeKutta:
    """Build Radau IIA of three stages with the embedded solution of Hairer & Wanner II, IV.8.

    The estimate shares the real eigenvalue γ0 of A: ŷ = y + h (γ0 f(t, y) + Σ b̂_i k_i) with b̂ by the
    moments of order 3. They are linear in γ0, so they hold exactly for its 60 digits.
    """
    field = Field("γ0", vector(["-1/60", "3/20", "-3/5", 1]), Fraction(1, 4), Fraction(1, 3))  # type: ignore[arg-type]
    initial = sum(field.enclosure(Fraction(1, 10**60)), Fraction(0)) / 2
    error = solve(powers(RADAU_RIGHT3, 3), [1 - initial, HALF, Fraction(1, 3)])
    return RungeKutta(
        name="radau_iia3",
        family="Radau IIA",
        source=f"{HW} and IV.8 (the code RADAU5)",
        order=5,
        embedded_order=3,
        aliases=("radau5", "radauIIA5", "radau"),
        A=by_c(RADAU_RIGHT3),
        b=quadrature(RADAU_RIGHT3),
        c=RADAU_RIGHT3,
        b_error=error,
        b_error_initial=initial,
        dense=interpolant(RADAU_RIGHT3),
        dense_order=3,
    )


RADAU5 = add(_radau5())

_add("trapezoid", "Lobatto IIIA", 2, LOBATTO2, by_c(LOBATTO2), aliases=("lobatto_iiia2", "crank_nicolson"),
     embedded=(1, (1, 0)), collocation=True)  # fmt: skip
_add("lobatto_iiia3", "Lobatto IIIA", 4, LOBATTO3, by_c(LOBATTO3), embedded=(2, ("-1/2", 2, "-1/2")),
     collocation=True)  # fmt: skip
_add("lobatto_iiia4", "Lobatto IIIA", 6, LOBATTO4, by_c(LOBATTO4), collocation=True)
_add("lobatto_iiib2", "Lobatto IIIB", 2, LOBATTO2, by_d(LOBATTO2))
_add("lobatto_iiib3", "Lobatto IIIB", 4, LOBATTO3, by_d(LOBATTO3))
_add("lobatto_iiib4", "Lobatto IIIB", 6, LOBATTO4, by_d(LOBATTO4))
_add("lobatto_iiic2", "Lobatto IIIC", 2, LOBATTO2, by_c_and_first_column(LOBATTO2), embedded=(1, (1, 0)))
_add("lobatto_iiic3", "Lobatto IIIC", 4, LOBATTO3, by_c_and_first_column(LOBATTO3),
     embedded=(2, ("-1/2", 2, "-1/2")))  # fmt: skip
_add("lobatto_iiic4", "Lobatto IIIC", 6, LOBATTO4, by_c_and_first_column(LOBATTO4))
