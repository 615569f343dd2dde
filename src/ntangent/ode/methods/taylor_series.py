"""Taylor methods of any order; the catalogue lists a few, ``get`` makes the others."""

from __future__ import annotations

from ntangent.ode.methods.catalogue import add, pade_taylor, taylor

TAYLOR = tuple(add(taylor(n)) for n in (2, 4, 8))
PADE = tuple(
    add(pade_taylor(k, m)) for k, m in ((1, 1), (1, 2), (2, 2), (2, 3), (2, 4), (3, 3), (0, 2), (0, 3))
)
