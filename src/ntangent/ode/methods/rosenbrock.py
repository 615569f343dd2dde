"""Rosenbrock methods."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from ntangent.ode.algebraic import Number, square_root
from ntangent.ode.methods.base import Entry, Matrix, Vector, matrix, vector
from ntangent.ode.methods.catalogue import add
from ntangent.ode.methods.kinds import Rosenbrock

R2 = square_root(2)


def from_codes(
    gamma: Number, a: Sequence[Sequence[Entry]], c: Sequence[Sequence[Entry]], m: Vector
) -> tuple[Matrix, Matrix, Vector]:
    """Return α, γ, b from the form of the codes (Hairer & Wanner II, (IV.7.25)).

    There u = Γk, A = αΓ⁻¹, C = diag(1/γ) - Γ⁻¹, m = bΓ⁻¹; so Γ is the inverse of diag(1/γ) - C.
    """
    size = len(m)
    lower = [
        [(1 / Fraction(gamma) if i == j else Fraction(0)) - x for j, x in enumerate(row)]  # type: ignore[arg-type]
        for i, row in enumerate(matrix(c, size))
    ]
    inverse: list[list[Number]] = [[Fraction(0)] * size for _ in range(size)]
    for j in range(size):
        for i in range(j, size):
            known = sum((lower[i][k] * inverse[k][j] for k in range(j, i)), Fraction(0))
            inverse[i][j] = (int(i == j) - known) / lower[i][i]
    columns = list(zip(*inverse, strict=True))

    def product(row: Vector) -> Vector:
        return tuple(
            sum((x * y for x, y in zip(row, column, strict=True) if x), Fraction(0)) for column in columns
        )

    full = matrix(a, size)
    return tuple(product(row) for row in full), tuple(tuple(row) for row in inverse), product(m)


def _ros2(name: str, g: Number) -> Rosenbrock:
    return Rosenbrock(
        name=name,
        family="Rosenbrock",
        source="Verwer, Spee, Blom & Hundsdorfer, SIAM J. Sci. Comput. 20 (1999) 1456",
        order=2,
        embedded_order=1,
        alpha=matrix([[], [1]], 2),
        gamma=matrix([[g], [-2 * g, g]], 2),
        b=vector(["1/2", "1/2"]),
        b_error=vector([1, 0]),
    )


def _code(
    name: str,
    source: str,
    order: int,
    gamma: str,
    a: Sequence[Sequence[Entry]],
    c: Sequence[Sequence[Entry]],
) -> Rosenbrock:
    """Build a method whose last argument of f plus its last increment is the solution.

    In the form of the codes m is the last row of A with a one behind it, and the embedded solution
    lacks that one.
    """
    size = len(c)
    last = [*vector(a[-1]), Fraction(1)]
    alpha, lower, b = from_codes(Fraction(gamma), a, c, tuple(last))
    b_error = from_codes(Fraction(gamma), a, c, (*last[:-1], Fraction(0)))[2]
    assert size == len(last)
    return Rosenbrock(
        name=name,
        family="Rosenbrock",
        source=source,
        order=order,
        embedded_order=order - 1,
        rounding=Fraction(1, 10**13),
        alpha=alpha,
        gamma=lower,
        b=b,
        b_error=b_error,
    )


_RODAS4_END: list[Entry] = [
    "1.221224509226641", "6.019134481288629", "12.53708332932087", "-0.6878860361058950",
]  # fmt: skip
_RODAS4_A: list[list[Entry]] = [
    [],
    ["1.544"],
    ["0.9466785280815826", "0.2557011698983284"],
    ["3.314825187068521", "2.896124015972201", "0.9986419139977817"],
    _RODAS4_END,
    [*_RODAS4_END, 1],
]
_RODAS4_C: list[list[Entry]] = [
    [],
    ["-5.6688"],
    ["-2.430093356833875", "-0.2063599157091915"],
    ["-0.1073529058151375", "-9.594562251023355", "-20.47028614809616"],
    ["7.496443313967647", "-10.24680431464352", "-33.99990352819905", "11.70890893206160"],
    [
        "8.083246795921522",
        "-7.981132988064893",
        "-31.52159432874371",
        "16.31930543123136",
        "-6.058818238834054",
    ],
]

_RODAS5P_END: list[Entry] = [
    "-7.502846399306121", "2.561846144803919", "-11.627539656261098", "-0.18268767659942256",
    "0.030198172008377946",
]  # fmt: skip
_RODAS5P_A: list[list[Entry]] = [
    [],
    [3],
    ["2.849394379747939", "0.45842242204463923"],
    ["-6.954028509809101", "2.489845061869568", "-10.358996098473584"],
    ["2.8029986275628964", "0.5072464736228206", "-0.3988312541770524", "-0.04721187230404641"],
    _RODAS5P_END,
    [*_RODAS5P_END, 1],
    [*_RODAS5P_END, 1, 1],
]
_RODAS5P_C: list[list[Entry]] = [
    [],
    ["-14.155112264123755"],
    ["-17.97296035885952", "-2.859693295451294"],
    ["147.12150275711716", "-1.41221402718213", "71.68940251302358"],
    ["165.43517024871676", "-0.4592823456491126", "42.90938336958603", "-5.961986721573306"],
    ["24.854864614690072", "-3.0009227002832186", "47.4931110020768", "5.5814197821558125",
     "-0.6610691825249471"],
    ["30.91273214028599", "-3.1208243349937974", "77.79954646070892", "34.28646028294783",
     "-19.097331116725623", "-28.087943162872662"],
    ["37.80277123390563", "-3.2571969029072276", "112.26918849496327", "66.9347231244047",
     "-40.06618937091002", "-54.66780262877968", "-9.48861652309627"],
]  # fmt: skip

ROS2 = add(_ros2("ros2", 1 - R2 / 2))
ROS2_PLUS = add(_ros2("ros2_plus", 1 + R2 / 2))
RODAS4 = add(
    _code(
        "rodas4", "Hairer & Wanner, Solving ODEs II, IV.10 (the code RODAS)", 4, "1/4", _RODAS4_A, _RODAS4_C
    )
)
RODAS5P = add(
    _code("rodas5p", "Steinebach, BIT 63 (2023) 27", 5, "0.21193756319429014", _RODAS5P_A, _RODAS5P_C)
)
