"""Explicit Runge-Kutta methods."""

from __future__ import annotations

from fractions import Fraction

from ntangent.ode.methods.base import Entry, Matrix, RungeKutta, Vector, matrix, vector
from ntangent.ode.methods.catalogue import add

HNW = "Hairer, Nørsett & Wanner, Solving ODEs I"


def hermite(b: Vector) -> Matrix:
    """Return the cubic Hermite extension of a method whose first and last stages are f at both ends.

    y(θ) = y + h [θ - 2θ² + θ³] k_first + h [3θ² - 2θ³] Σ b_i k_i + h [θ³ - θ²] k_last.
    """
    rows = [[Fraction(0) * x, 3 * x, -2 * x] for x in b]
    rows[0] = [x + y for x, y in zip(rows[0], (1, -2, 1), strict=True)]
    rows[-1] = [x + y for x, y in zip(rows[-1], (0, -1, 1), strict=True)]
    return tuple(tuple(row) for row in rows)


EULER = add(
    RungeKutta(
        name="euler",
        family="explicit",
        source=f"{HNW}, II.1",
        order=1,
        aliases=("forward_euler", "explicit_euler"),
        A=matrix([[0]]),
        b=vector([1]),
        dense=matrix([[1]]),
        dense_order=1,
    )
)

MIDPOINT = add(
    RungeKutta(
        name="midpoint",
        family="explicit",
        source=f"{HNW}, II.1",
        order=2,
        aliases=("explicit_midpoint",),
        A=matrix([[], ["1/2"]], 2),
        b=vector([0, 1]),
    )
)

HEUN2 = add(
    RungeKutta(
        name="heun2",
        family="explicit",
        source=f"{HNW}, II.1; the embedded solution is Euler's",
        order=2,
        embedded_order=1,
        aliases=("heun", "adaptive_heun", "explicit_trapezoid"),
        A=matrix([[], [1]], 2),
        b=vector(["1/2", "1/2"]),
        b_error=vector([1, 0]),
    )
)

FEHLBERG2 = add(
    RungeKutta(
        name="fehlberg2",
        family="explicit",
        source="Fehlberg, NASA TR R-315 (1969), RKF1(2)",
        order=2,
        embedded_order=1,
        A=matrix([[], ["1/2"], ["1/256", "255/256"]], 3),
        b=vector(["1/512", "255/256", "1/512"]),
        b_error=vector(["1/256", "255/256", 0]),
    )
)

HEUN3 = add(
    RungeKutta(
        name="heun3",
        family="explicit",
        source=f"{HNW}, II.1",
        order=3,
        A=matrix([[], ["1/3"], [0, "2/3"]], 3),
        b=vector(["1/4", 0, "3/4"]),
    )
)

_BOSH3_B = vector(["2/9", "1/3", "4/9", 0])

BOSH3 = add(
    RungeKutta(
        name="bosh3",
        family="explicit",
        source="Bogacki & Shampine, Appl. Math. Lett. 2 (1989) 321",
        order=3,
        embedded_order=2,
        aliases=("bs32",),
        A=matrix([[], ["1/2"], [0, "3/4"], ["2/9", "1/3", "4/9"]], 4),
        b=_BOSH3_B,
        b_error=vector(["7/24", "1/4", "1/3", "1/8"]),
        dense=hermite(_BOSH3_B),
        dense_order=3,
    )
)

# torchdiffeq's `rk4` is the 3/8 rule: the name keeps its numbers. R is the same for both.
RK4 = add(
    RungeKutta(
        name="rk4",
        family="explicit",
        source=f"Kutta 1901, the 3/8 rule; {HNW}, table II.1.2",
        order=4,
        aliases=("rk4_38",),
        A=matrix([[], ["1/3"], ["-1/3", 1], [1, -1, 1]], 4),
        b=vector(["1/8", "3/8", "3/8", "1/8"]),
    )
)

RK4_CLASSIC = add(
    RungeKutta(
        name="rk4_classic",
        family="explicit",
        source=f"Kutta 1901; {HNW}, table II.1.2",
        order=4,
        aliases=("classical_rk4",),
        A=matrix([[], ["1/2"], [0, "1/2"], [0, 0, 1]], 4),
        b=vector(["1/6", "1/3", "1/3", "1/6"]),
    )
)

_DOPRI5_B: list[Entry] = ["35/384", 0, "500/1113", "125/192", "-2187/6784", "11/84"]

_DOPRI5_DENSE: list[list[Entry]] = [
    [1, "-8048581381/2820520608", "8663915743/2820520608", "-12715105075/11282082432"],
    [0, 0, 0, 0],
    [0, "131558114200/32700410799", "-68118460800/10900136933", "87487479700/32700410799"],
    [0, "-1754552775/470086768", "14199869525/1410260304", "-10690763975/1880347072"],
    [0, "127303824393/49829197408", "-318862633887/49829197408", "701980252875/199316789632"],
    [0, "-282668133/205662961", "2019193451/616988883", "-1453857185/822651844"],
    [0, "40617522/29380423", "-110615467/29380423", "69997945/29380423"],
]

DOPRI5 = add(
    RungeKutta(
        name="dopri5",
        family="explicit",
        source=f"Dormand & Prince, J. Comput. Appl. Math. 6 (1980) 19; {HNW}, table II.5.2; dense (II.6.12)",
        order=5,
        embedded_order=4,
        aliases=("rk45",),
        A=matrix(
            [
                [],
                ["1/5"],
                ["3/40", "9/40"],
                ["44/45", "-56/15", "32/9"],
                ["19372/6561", "-25360/2187", "64448/6561", "-212/729"],
                ["9017/3168", "-355/33", "46732/5247", "49/176", "-5103/18656"],
                _DOPRI5_B,
            ],
            7,
        ),
        b=(*vector(_DOPRI5_B), Fraction(0)),
        b_error=vector(["5179/57600", 0, "7571/16695", "393/640", "-92097/339200", "187/2100", "1/40"]),
        dense=tuple(vector(row) for row in _DOPRI5_DENSE),
        dense_order=4,
    )
)
