"""Exponential methods: exact for y' = Ly."""

from __future__ import annotations

from fractions import Fraction

from ntangent.ode.methods.base import vector
from ntangent.ode.methods.catalogue import add
from ntangent.ode.methods.kinds import Exponential

ONE = Fraction(1)

ETD1 = add(
    Exponential(
        name="etd1",
        family="exponential",
        source="Certaine 1960; Hochbruck & Ostermann, Acta Numerica 19 (2010) 209",
        order=1,
        aliases=("exponential_euler",),
        kind="etd1",
        rosenbrock=False,
        c=vector([0]),
        a=((),),
        b=(((1, ONE),),),
        stiff_order=1,
    )
)

INTEGRATING_FACTOR_EULER = add(
    Exponential(
        name="integrating_factor_euler",
        family="exponential",
        source="Lawson, SIAM J. Numer. Anal. 4 (1967) 372",
        order=1,
        aliases=("if_euler", "lawson_euler"),
        kind="integrating-factor-euler",
        rosenbrock=False,
        c=vector([0]),
        a=((),),
        b=(((0, ONE),),),
    )
)

EXPONENTIAL_ROSENBROCK_EULER = add(
    Exponential(
        name="exponential_rosenbrock_euler",
        family="exponential",
        source="Pope, Comm. ACM 6 (1963) 491; Hochbruck, Ostermann & Schweitzer, SINUM 47 (2009) 786",
        order=2,
        aliases=("exprb2",),
        kind="exponential-rosenbrock-euler",
        rosenbrock=True,
        c=vector([0]),
        a=((),),
        b=(((1, ONE),),),
        stiff_order=2,
    )
)

EXPRB32 = add(
    Exponential(
        name="exprb32",
        family="exponential",
        source="Hochbruck, Ostermann & Schweitzer, SINUM 47 (2009) 786",
        order=3,
        embedded_order=2,
        kind="exprb32",
        rosenbrock=True,
        c=vector([0, 1]),
        a=((), (((1, ONE),),)),
        b=(((1, ONE), (3, Fraction(-2))), ((3, Fraction(2)),)),
        b_error=(((1, ONE),), ()),
        stiff_order=3,
    )
)
