"""Two fields that meet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.errors import ProblemError
from ntangent.pinn.conditions.base import Located, Place, chosen, coefficient, target_of, unit
from ntangent.pinn.equation import Block, Demand, Fields
from ntangent.pinn.field import Parameters


class Interface(Located):
    """Two fields meet on a surface: u1 - u2 = jump, and k1·∂u1/∂n - k2·∂u2/∂n = flux jump.

    Args:
        first: name of the field on one side.
        second: name of the field on the other side; the normal points from the first to it.
        jump: of the value, number or function of the coordinates.
        conductivity: (k1, k2), numbers or functions of the coordinates; None leaves the flux free.
        flux_jump: of the flux.
        weight: weight of each mean square.
        on: the surface, with normals, or points (N, d).
        n: points on the surface; 64 by default.
        sampler: draws them in the free coordinates, instead of ``n``.
        seed: of the points.
        coordinates: the surface by one coordinate, ``x=0.5``.
    """

    def __init__(
        self, first: str, second: str, *, jump: Any = 0.0, conductivity: Any = (1.0, 1.0),
        flux_jump: Any = 0.0, weight: float = 1.0, on: Any = None, n: int | None = None,
        sampler: Any = None, seed: int = 0, **coordinates: Any,
    ) -> None:  # fmt: skip
        super().__init__(on, n, sampler, seed, coordinates)
        self.first, self.second, self.jump = first, second, jump
        self.conductivity, self.flux_jump = conductivity, flux_jump
        self.weight = float(check_positive(weight, "weight"))

    def __repr__(self) -> str:
        return (
            f"Interface({self.first!r}, {self.second!r}, {self.where()}, jump={self.jump!r}, "
            f"conductivity={self.conductivity!r}, flux_jump={self.flux_jump!r}, weight={self.weight!r})"
        )

    def _normals(self, problem: Any, place: Place) -> Tensor:
        if place.normals is not None and self.on is not None:
            return place.normals
        if len(self.coordinates) != 1:
            raise ProblemError(
                f"{self!r} has no normal", "a surface is given by one coordinate", "Interface(..., x=0.5)"
            )
        normals = torch.zeros_like(place.points)
        normals[:, problem.domain.names.index(next(iter(self.coordinates)))] = 1.0
        return normals

    def blocks(self, problem: Any, dtype: torch.dtype, device: torch.device) -> list[Block]:
        """Return one block: rows for the value, then for the flux, of each component."""
        (first, components), (second, others) = (chosen(problem, f, None) for f in (self.first, self.second))
        if len(components) != len(others):
            raise ProblemError(
                f"{first!r} has {len(components)} component(s), {second!r} {len(others)}", "they meet", ""
            )
        place = self.place(problem, dtype, device)
        targets = [target_of(self.jump, problem, place, components)]
        zero = (0,) * problem.domain.dimension
        needs, terms = [zero], []
        if self.conductivity is not None:
            k1, k2 = (coefficient(k, problem, place.points) for k in self.conductivity)
            normals = self._normals(problem, place)
            targets.append(target_of(self.flux_jump, problem, place, components))
            for i, name in enumerate(problem.domain.names):
                if bool((normals[:, i] != 0).any()):
                    terms.append((unit(problem, name), normals[:, i] * k1, normals[:, i] * k2))
                    needs.append(unit(problem, name))
        target = torch.cat(targets)

        def rows(fields: Fields, _p: Parameters, _x: Fields) -> Tensor:
            u, v = fields[first], fields[second]
            parts = [(u.data[0] - v.data[0]).T]
            flux: Tensor | None = None
            for b, f1, f2 in terms:
                part = u.partial(b).data[0].T * f1 - v.partial(b).data[0].T * f2
                flux = part if flux is None else flux + part
            return torch.cat(parts if flux is None else [*parts, flux]) - target

        demand = Demand(dict.fromkeys((first, second), frozenset(needs)), frozenset([zero]))
        weights = place.points.new_full((len(target),), self.weight)
        return [Block("interface", place.points, demand, rows, weights, normals=place.normals)]
