"""Symmetry about an end of a coordinate."""

from __future__ import annotations

from typing import Any

import torch

from ntangent._base.check import check_choice
from ntangent._base.errors import ProblemError
from ntangent.pinn.equation import Block

PARITIES = ("odd", "even")


class Symmetry:
    """The field is odd or even about an end of the domain: ``Symmetry("odd", x=0.0)``.

    The problem is stated on one side alone, which spares the network, and the points, the other. It is
    built into the field: points beyond the end are mirrored, and at the end the field is 0 if odd, its
    slope 0 if even. The field is then known on both sides; ``Problem(extent=...)`` names the whole for
    errors and figures. That the equation and the other conditions have the symmetry is not checked, and the
    higher derivatives that it makes vanish at the end (u'' of an odd field) follow from the equation only.

    Args:
        parity: "odd", u(a - s) = -u(a + s), or "even", u(a - s) = u(a + s).
        field: name of the field, if there are several.
        component: of a vector field; all by default. Every component of a network needs a parity.
        coordinates: one coordinate and its end a.

    Cost:
        Odd: none. Even: a second evaluation of the network, at the end (as a hard ``Neumann``).
    """

    hard = True

    def __init__(
        self, parity: str, *, field: str | None = None, component: int | None = None, **coordinates: Any
    ) -> None:
        self.parity = check_choice(parity, PARITIES, "parity")
        self.field, self.component = field, component
        given = next(iter(coordinates.values()), None)
        if len(coordinates) != 1 or isinstance(given, bool) or not isinstance(given, int | float):
            raise ProblemError(
                f"Symmetry is given {coordinates or 'no coordinate'}",
                "it is about one end of one coordinate",
                'Symmetry("odd", x=0.0)',
            )
        self.coordinates, self.on = coordinates, None

    def __repr__(self) -> str:
        ((name, end),) = self.coordinates.items()
        extra = {"field": self.field, "component": self.component}
        given = [f"{key}={value!r}" for key, value in extra.items() if value is not None]
        return f"Symmetry({', '.join([repr(self.parity), f'{name}={end!r}', *given])})"

    def blocks(self, problem: Any, dtype: torch.dtype, device: torch.device) -> list[Block]:  # noqa: ARG002
        """Return none: the condition is built into the field."""
        return []
