"""What a solved problem offers: values, derivatives, unknowns, errors, a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError, RunFolderError, ShapeError
from ntangent.pinn.arguments import numbers
from ntangent.pinn.conditions.base import check_names, point_rows
from ntangent.pinn.equation import Demand, residual_block
from ntangent.pinn.evaluation import Evaluation, handed
from ntangent.pinn.field import Parameters
from ntangent.pinn.indices import MultiIndex, indices
from ntangent.pinn.objective import PinnObjective
from ntangent.pinn.passes import Pass
from ntangent.pinn.problem import Problem
from ntangent.pinn.reference import exact, exact_fields, gives_derivatives

if TYPE_CHECKING:
    from pathlib import Path

    from ntangent.run import Outcome, RunFolder

Arrays = dict[str, np.ndarray[Any, Any]]
GRID = 40_000  # points of an evaluation grid in several coordinates


class Solution:
    """The trained fields with the unknowns found beside them.

    Args:
        objective: the problem and the network, with the final parameters.
        outcome: what the training reported.
        folder: the run folder, if there is one.
        chunk: points evaluated together.
    """

    def __init__(
        self, objective: PinnObjective, outcome: Outcome, folder: RunFolder | None, chunk: int = 16_384
    ) -> None:
        self.objective, self.outcome, self.folder, self.chunk = objective, outcome, folder, chunk
        self.problem: Problem = objective.problem
        self.net = objective.net
        objective.load(outcome.theta)
        self.unknowns = objective.unknowns(outcome.theta)
        self.notes: dict[str, Any] = {}

    @property
    def loss(self) -> float:
        """The final loss."""
        return self.outcome.loss

    # --- values ----------------------------------------------------------------------------------------

    def __call__(self, points: Any = None, **coordinates: Any) -> Any:
        """Return the field at points.

        Args:
            points: shape (N, d); N numbers in one coordinate.
            coordinates: instead of ``points``: every coordinate by name, of shapes that broadcast.

        Returns:
            Shape (N,), or (N, c) for a vector field, or the common shape of the coordinates in
            the place of N; a mapping by name for several fields.
        """
        at, shape = self._points(points, coordinates)
        zero = (0,) * self.problem.domain.dimension
        values = self._values(at, {name: zero for name in self.problem.components})
        shaped = {name: _shaped(value, shape) for name, value in values.items()}
        return shaped if len(shaped) > 1 else next(iter(shaped.values()))

    def derivative(
        self, by: str | Mapping[str, int], points: Any = None, *, field: str | None = None, **coordinates: Any
    ) -> Tensor:
        """Return a partial derivative at points: ``solution.derivative("xt", points)``.

        Args:
            by: names of the coordinates, a letter for each derivative, or orders by name,
                ``{"x": 1, "time": 1}``.
            points: as for a call of the solution.
            field: which one, if there are several.
            coordinates: as for a call of the solution.
        """
        names = self.problem.domain.names
        orders = {by: 1} if isinstance(by, str) and by in names else by
        if isinstance(orders, str):
            orders = {name: orders.count(name) for name in names if len(name) == 1}
            if sum(orders.values()) != len(by):
                raise ArgumentError(
                    f"there is no derivative {by!r}",
                    f"the coordinates are {', '.join(names)}",
                    repr(names[0]),
                )
        strangers = [name for name in orders if name not in names]
        if strangers:
            raise ArgumentError(
                f"there is no coordinate {strangers[0]!r}", f"they are {', '.join(names)}", repr(names[0])
            )
        fields = list(self.problem.components)
        if (field is None and len(fields) > 1) or (field is not None and field not in fields):
            raise ArgumentError(
                f"field is {field!r}", f"the fields are {', '.join(fields)}", f'"{fields[0]}"'
            )
        chosen = field or fields[0]
        at, shape = self._points(points, coordinates)
        index = tuple(orders.get(name, 0) for name in names)
        return _shaped(self._values(at, {chosen: index})[chosen], shape)

    def derivatives(self, x: Any, order: int) -> Tensor:
        """Return a field of one coordinate with its derivatives at N points, shape (order+1, N)."""
        if self.problem.domain.dimension != 1 or list(self.problem.components.values()) != [1]:
            raise ArgumentError(
                "all derivatives as rows exist for one scalar field of one coordinate",
                "in several coordinates they have names",
                'solution.derivative("xx", points)',
            )
        points, _ = self._points(x, {})
        with torch.no_grad():
            parts = [self.problem.field(self.net, part, order) for part in points.split(self.chunk)]
            columns = [_all_orders(next(iter(part.values())).series()[..., 0]) for part in parts]
            return torch.cat(columns, 1)

    def residuals(self, points: Any = None, **coordinates: Any) -> Tensor:
        """Return the unweighted residual of every equation at N points, shape (E, N)."""
        at, _ = self._points(points, coordinates)
        values = {name: at.new_tensor(value) for name, value in self.unknowns.items()}
        equations = [self.problem.equation(i) for i in range(len(self.problem.equations))]
        if not equations:
            return at.new_zeros((0, len(at)))
        columns = []
        with torch.no_grad():
            for part in at.split(self.chunk):
                blocks = [residual_block(e.name, e, part, 1.0) for e in equations]
                one = Pass(self.problem, [[(i, b, slice(0, len(part))) for i, b in enumerate(blocks)]])
                columns.append(torch.cat([r for _, r in one.rows(self.net, lambda _: Parameters(values))]))
        return torch.cat(columns, 1)

    def _values(self, points: Tensor, wanted: Mapping[str, MultiIndex]) -> dict[str, Tensor]:
        """Return one derivative of each field, shape (N, c)."""
        demand = Demand({name: frozenset([b]) for name, b in wanted.items()})
        over = indices(self.problem.domain.names, ())
        pieces: dict[str, list[Tensor]] = {name: [] for name in wanted}
        with torch.no_grad():
            for part in points.split(self.chunk):
                rows = Evaluation(self.problem, part, [demand])(self.net)
                for name, u in handed(rows, over).items():
                    pieces[name].append(u.partial(wanted[name]).value)
        return {name: torch.cat(found) for name, found in pieces.items()}

    def _points(self, points: Any, coordinates: Mapping[str, Any]) -> tuple[Tensor, torch.Size]:
        """Return points (N, d), and the shape that stands for N in results."""
        dtype, device = self.objective.dtype, self.objective.device
        names = self.problem.domain.names
        if points is not None and coordinates:
            raise ArgumentError("points are given twice", "as rows and by name", "solution(points)")
        if points is None:
            check_names(coordinates, names, "the points")
            columns = [numbers(coordinates[name], name, dtype, device) for name in names]
            try:
                columns = list(torch.broadcast_tensors(*columns))
            except RuntimeError:
                shapes = ", ".join(f"{n}: {tuple(c.shape)}" for n, c in zip(names, columns, strict=True))
                raise ShapeError(f"the coordinates have shapes {shapes}", "they must broadcast", "") from None
            return torch.stack([c.reshape(-1) for c in columns], 1), columns[0].shape
        fix = "solution(" + ", ".join(f"{name}=0.5" for name in names) + ")"
        tensor = point_rows(points, names, dtype, device, fix)
        return tensor, tensor.shape[:1]

    # --- the whole domain ------------------------------------------------------------------------------

    def evaluate(self, order: int | None = None, points: int | None = None) -> Arrays:
        """Return the solution on an equidistant grid, as arrays for figures and errors.

        Args:
            order: highest derivative, for one scalar field of one coordinate; as many as the
                conditions used when None.
            points: points of the grid in each coordinate; 4001 in one, about 40 000 together in
                several when None.

        Returns:
            For one scalar field of one coordinate ``x`` (N,), ``derivatives`` (order+1, N),
            ``residuals`` (E, N), and ``exact`` (order+1, N) where the problem has a reference with
            derivatives. Otherwise ``axis_NAME`` for each coordinate, ``field_NAME`` for each field
            (one axis for each coordinate, and one for components where there are several),
            ``residuals`` (E, ...), ``exact_NAME`` where known, and ``inside`` where the domain is
            no box.
        """
        problem = self.problem
        where = problem.extent or problem.domain
        box = getattr(where, "box", where)
        line = problem.domain.dimension == 1 and list(problem.components.values()) == [1]
        if line and (problem.reference is None or gives_derivatives(problem)):
            order = self.objective.order if order is None else order
            (_, low, high), *_ = box.intervals
            x = torch.linspace(
                low, high, points or 4001, dtype=self.objective.dtype, device=self.objective.device
            )
            arrays = {"x": x, "derivatives": self.derivatives(x, order), "residuals": self.residuals(x)}
            if problem.reference is not None:
                arrays["exact"] = exact(problem, x, order)
            return {name: tensor.cpu().numpy() for name, tensor in arrays.items()}
        if order is not None:
            raise ArgumentError("order counts derivatives of one field of one coordinate", "", "evaluate()")
        count = points or (4001 if len(box.names) == 1 else max(2, int(GRID ** (1 / len(box.names)) + 1e-9)))
        axes = [
            torch.linspace(low, high, count, dtype=self.objective.dtype, device=self.objective.device)
            for _, low, high in box.intervals
        ]
        grid = torch.stack([g.flatten() for g in torch.meshgrid(*axes, indexing="ij")], 1)
        shape = (count,) * len(axes)
        arrays = {f"axis_{name}": axis for name, axis in zip(box.names, axes, strict=True)}
        zero = (0,) * len(axes)
        values = self._values(grid, dict.fromkeys(problem.components, zero))
        arrays |= {f"field_{name}": _shaped(v, torch.Size(shape)) for name, v in values.items()}
        arrays["residuals"] = self.residuals(grid).reshape(-1, *shape)
        if problem.reference is not None:
            known = exact_fields(problem, grid)
            arrays |= {f"exact_{name}": _shaped(v, torch.Size(shape)) for name, v in known.items()}
        if not hasattr(where, "intervals"):
            arrays["inside"] = where.contains(grid).reshape(shape)
        return {name: tensor.cpu().numpy() for name, tensor in arrays.items()}

    def summary(self, arrays: Arrays | None = None) -> dict[str, Any]:
        """Return the numbers worth keeping: unknowns, errors where truth is known, residual, effort.

        Args:
            arrays: what :meth:`evaluate` returned, to spare a second evaluation.
        """
        arrays = arrays or self.evaluate()
        numbers: dict[str, Any] = {"unknowns": dict(self.unknowns)}
        expected = self.problem.expected
        if expected:
            numbers["expected"] = dict(expected)
            numbers["unknown_errors"] = {n: abs(self.unknowns[n] - v) for n, v in expected.items()}
        numbers |= self._errors(arrays)
        residuals = arrays["residuals"]
        if "inside" in arrays:
            residuals = residuals[:, arrays["inside"]]
        if residuals.size:
            numbers["max_residual"] = float(np.abs(residuals).max())
        numbers["loss"] = self.loss
        numbers["terms"] = self.objective.terms(self.outcome.theta)
        numbers["seconds"] = self.outcome.seconds
        numbers["reasons"] = list(self.outcome.reasons)
        numbers["coordinate"] = self.problem.coordinate
        numbers["coordinates"] = list(self.problem.domain.names)
        return numbers | self.notes

    def _errors(self, arrays: Arrays) -> dict[str, Any]:
        """Return the errors against the reference: relative L2 and maximum, per field."""
        first = next(iter(self.problem.components))
        if "exact" in arrays:
            error = np.abs(arrays["derivatives"] - arrays["exact"])
            line = {first: (arrays["derivatives"][0], arrays["exact"][0])}
            return {"max_errors": error.max(1).tolist(), **_relative(line)}
        both: dict[str, Any] = {}
        for name in self.problem.components:
            if f"exact_{name}" in arrays:
                pair = arrays[f"field_{name}"], arrays[f"exact_{name}"]
                both[name] = tuple(a[arrays["inside"]] for a in pair) if "inside" in arrays else pair
        if not both:
            return {}
        return _relative(both)

    def report(self) -> Path:
        """Write figures and the self-contained page ``report.html`` into the run folder.

        Raises:
            RunFolderError: if the problem was solved without a run folder.
            MissingExtraError: if matplotlib or jinja2 is not installed.
        """
        if self.folder is None:
            raise RunFolderError(
                "this solution has no run folder",
                "a report is made from a run's files",
                'solve(..., run_dir="runs/name")',
            )
        from ntangent.report import write_report

        path: Path = write_report(self.folder.path)
        return path


def _relative(both: Mapping[str, Any]) -> dict[str, Any]:
    """Return relative L2 errors and maxima: of each field, and of the worst one."""
    errors = {}
    for name, (u, v) in both.items():
        size = float(np.linalg.norm(v))
        distance = float(np.linalg.norm(u - v))
        errors[name] = {
            "relative_l2": distance / size if size else distance,
            "max": float(np.abs(u - v).max()),
        }
    return {"relative_l2": max(e["relative_l2"] for e in errors.values()), "errors": errors}


def _all_orders(coefficients: Tensor) -> Tensor:
    factors = [1.0]
    for k in range(1, len(coefficients)):
        factors.append(factors[-1] * k)
    return coefficients * coefficients.new_tensor(factors)[:, None]


def _shaped(values: Tensor, shape: torch.Size) -> Tensor:
    """Return (N, c) with N in its shape, without the axis of a single component."""
    return values.reshape(shape if values.shape[1] == 1 else (*shape, values.shape[1]))
