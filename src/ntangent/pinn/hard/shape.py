"""Conditions on the curved or slanted boundary of a general domain, through distance functions.

With φ the smooth approximate distance to the parts (0 there, with inward slope 1):
value g:          u = g + φ N, g blended from several parts by inverse distances;
value and slope:  u = g - φ (h + ∇φ·∇g) + φ² N;
a u + b ∂u/∂n:    u = N - φ (h - a N + b ∇φ·∇N) / b.
Rvachev & Sheiko (1995), Appl. Mech. Rev. 48; Sukumar & Srivastava (2022), Comput. Methods Appl.
Mech. Eng. 389, 114333, sections 4 and 5. φ has no derivatives at corners: its second ones grow
without bound towards them, so collocation points keep off the corners.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ntangent._base.errors import ProblemError
from ntangent.jet import Jet
from ntangent.pinn.domains.base import Joined, Part
from ntangent.pinn.hard.along import Function, along
from ntangent.pinn.hard.data import Data
from ntangent.pinn.hard.line import Terms


@dataclass(frozen=True)
class Shape:
    """The conditions on the parts of a general boundary.

    Args:
        rows: part, functional in normal derivatives, and data of each condition.
    """

    rows: tuple[tuple[Part, Terms, Data], ...]

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The parts, once each."""
        return tuple(dict.fromkeys(part for part, _, _ in self.rows))

    @cached_property
    def kind(self) -> str:
        """What is prescribed: "value", "slope" (both) or "flux" (one functional of first order).

        Raises:
            ProblemError: if the conditions are of none of these kinds.
        """
        by_part = [sorted((t for p, t, _ in self.rows if p == part)) for part in self.parts]
        orders = {tuple(tuple(k for k, _ in terms) for terms in own) for own in by_part}
        data = [{d for p, _, d in self.rows if p == part} for part in self.parts]
        alike = all(own == by_part[0] for own in by_part) and all(own == data[0] for own in data)
        if orders == {((0,),)}:
            return "value"
        if orders == {((0,), (1,))} and alike:
            return "slope"
        if orders in ({((1,),)}, {((0, 1),)}) and alike:
            return "flux"
        names = ", ".join(part.name for part in self.parts)
        raise ProblemError(
            f"no hard construction for these conditions together on {names}",
            "on a boundary that is no face of a box: values on any parts; value and normal derivative, or "
            "one Neumann or Robin condition, the same on all of the parts named",
            "leave out hard=True on one of them: a soft condition combines with everything",
        )

    def distance(self, x: Jet) -> Jet:
        """Return φ, shape (N, 1)."""
        return Joined(self.parts).distance(x)  # type: ignore[no-any-return]

    def _gradient(self, x: Jet) -> Any:
        """Return ∇φ as a jet, shape (N, d); one evaluation of φ for each coordinate."""
        axes = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        parts: Any = [along(self.distance, x, axis[None], 1)[1] for axis in axes]
        return torch.cat(parts, 1)

    def _coefficients(self) -> tuple[float, float]:
        terms = dict(self.rows[0][1])
        return terms.get(0, 0.0), terms[1]

    def lift(self, x: Jet) -> Jet:
        """Return a function of the data alone that satisfies the conditions, shape (N, 1)."""
        if self.kind == "value":
            return self._blend(x)
        if self.kind == "flux":
            return self.distance(x) * self.rows[0][2](x) * (-1 / self._coefficients()[1])
        (g, a), (h, b) = (
            (data, terms[0][1]) for _, terms, data in sorted(self.rows, key=_order)[:: len(self.parts)]
        )
        value, slope = along(g, x, self._gradient(x), 1)
        return value * (1 / a) - self.distance(x) * (h(x) * (1 / b) + slope * (1 / a))

    def _blend(self, x: Jet) -> Jet:
        """Return the values blended by inverse distances; of one function for all, that function."""
        pairs = {(data, terms[0][1]) for _, terms, data in self.rows}
        values = [data(x) * (1 / terms[0][1]) for _, terms, data in self.rows]
        if len(pairs) == 1:
            return values[0]
        spans = [part.span(x) for part, _, _ in self.rows]
        weights: list[Any] = [
            math.prod((s for j, s in enumerate(spans) if j != i), start=1.0) for i in range(len(spans))
        ]
        total = sum(weights[1:], weights[0])
        terms = [w * v for w, v in zip(weights, values, strict=True)]
        blend: Jet = sum(terms[1:], terms[0]) / total
        return blend

    def homogeneous(self, f: Function) -> Function:
        """Return a function that satisfies the conditions with data 0, from any f."""
        if self.kind == "value":
            return lambda x: self.distance(x) * f(x)
        if self.kind == "slope":
            return lambda x: (phi := self.distance(x)) * phi * f(x)
        a, b = self._coefficients()

        def corrected(x: Jet) -> Jet:
            value, slope = along(f, x, self._gradient(x), 1)
            return value - self.distance(x) * (slope - value * (a / b))

        return corrected


def _order(row: tuple[Part, Terms, Data]) -> int:
    return row[1][0][0]
