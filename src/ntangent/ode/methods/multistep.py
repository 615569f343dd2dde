"""Backward differentiation formulas."""

from __future__ import annotations

from ntangent.ode.methods.catalogue import add
from ntangent.ode.methods.kinds import Multistep

BDF = tuple(
    add(
        Multistep(
            name=f"bdf{k}",
            family="BDF",
            source="Curtiss & Hirschfelder 1952; Hairer & Wanner, Solving ODEs II, V.1",
            order=k,
        )
    )
    for k in range(1, 7)
)
