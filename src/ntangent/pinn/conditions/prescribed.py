"""Values and normal derivatives on boundaries: Dirichlet, Neumann, Robin."""

from __future__ import annotations

from typing import Any

import torch

from ntangent._base.check import check_positive
from ntangent._base.errors import ProblemError
from ntangent.pinn.conditions.base import (
    Located,
    Place,
    Terms,
    chosen,
    coefficient,
    described,
    linear_block,
    target_of,
    unit,
)
from ntangent.pinn.equation import Block


class Prescribed(Located):
    """A combination of the field and its normal derivative takes a value.

    Args:
        value: number, tensor of one value per point, or function of the coordinates, by name.
        weight: weight of the mean square.
        on: a part of a boundary, or points of shape (N, d), instead of coordinates.
        n: points on each face or part; 64 by default.
        sampler: draws the points of each face in its free coordinates, instead of ``n``.
        seed: of the points.
        field: name of the field, if there are several.
        component: of a vector field; all by default.
        hard: build the condition into the field instead, where a construction is known.
        coordinates: where, by coordinate: a number or several. Those not named are sampled.
    """

    def __init__(
        self, value: Any = 0.0, weight: float = 1.0, *, on: Any = None, n: int | None = None,
        sampler: Any = None, seed: int = 0, field: str | None = None, component: int | None = None,
        hard: bool = False, **coordinates: Any,
    ) -> None:  # fmt: skip
        Located.__init__(self, on, n, sampler, seed, coordinates)
        self.value, self.field, self.component, self.hard = value, field, component, bool(hard)
        self.weight = float(check_positive(weight, "weight"))

    def __repr__(self) -> str:
        extra = {"n": self.n, "sampler": self.sampler, "field": self.field, "component": self.component}
        given = [f"{name}={v!r}" for name, v in extra.items() if v is not None]
        given += [f"seed={self.seed}"] if self.seed else []
        given += ["hard=True"] if self.hard else []
        listed = [
            self.where(),
            *self._settings(),
            f"value={described(self.value)}",
            f"weight={self.weight!r}",
        ]
        return f"{type(self).__name__}({', '.join([*listed, *given])})"

    def _settings(self) -> list[str]:
        return []

    def terms(self, problem: Any, place: Place) -> Terms:
        """Return the derivatives with their factors."""
        raise NotImplementedError

    def blocks(self, problem: Any, dtype: torch.dtype, device: torch.device) -> list[Block]:
        """Return one block with a row for each component; none where the condition is built in."""
        if self.hard:
            return []
        field, components = chosen(problem, self.field, self.component)
        place = self.place(problem, dtype, device)
        target = target_of(self.value, problem, place, components)
        label = type(self).__name__.lower()
        terms = self.terms(problem, place)
        return [linear_block(label, place, field, components, terms, target, self.weight)]


def normal_terms(condition: Any, problem: Any, place: Place, scale: Any = 1.0) -> Terms:
    """Return the outward normal derivative.

    Raises:
        ProblemError: if the place is no boundary.
    """
    if place.normals is None:
        name = problem.domain.names[0]
        raise ProblemError(
            f"{condition!r} does not lie on the boundary",
            "a normal derivative needs an outward normal, which the ends of a coordinate have",
            f"{type(condition).__name__}({name}={problem.interval(name)[1]}), or for a derivative inside "
            f"Operator(lambda u: u.{name}, {name}=0.5)",
        )
    terms = []
    for i, name in enumerate(problem.domain.names):
        factor = place.normals[:, i]
        if bool((factor != 0).any()):
            whole = bool((factor == 1).all()) and scale == 1.0 if isinstance(scale, float) else False
            terms.append((unit(problem, name), 1.0 if whole else factor * scale))
    return terms


class Dirichlet(Prescribed):
    """The field takes a value: ``Dirichlet(x=(-1, 1), value=0)``."""

    def terms(self, problem: Any, place: Place) -> Terms:  # noqa: ARG002
        """Return the value itself."""
        return [((0,) * problem.domain.dimension, 1.0)]


class Neumann(Prescribed):
    """The outward normal derivative takes a value: ``Neumann(x=1, value=0)``.

    At the lower end of a coordinate it is -∂u/∂x, in one dimension too.
    """

    def terms(self, problem: Any, place: Place) -> Terms:
        """Return the normal derivative."""
        return normal_terms(self, problem, place)


class Robin(Prescribed):
    """a·u + b·∂u/∂n takes a value: ``Robin(1.0, 0.5, x=1, value=0)``, with the outward normal.

    Args:
        a: factor of the field: number or function of the coordinates.
        b: factor of its outward normal derivative.
        value: prescribed value.
        options: as for :class:`Dirichlet`.
    """

    def __init__(self, a: Any, b: Any, value: Any = 0.0, **options: Any) -> None:
        super().__init__(value, **options)
        self.a, self.b = a, b

    def _settings(self) -> list[str]:
        return [f"a={described(self.a)}", f"b={described(self.b)}"]

    def terms(self, problem: Any, place: Place) -> Terms:
        """Return both terms."""
        a, b = (coefficient(v, problem, place.points) for v in (self.a, self.b))
        return [((0,) * problem.domain.dimension, a), *normal_terms(self, problem, place, b)]
