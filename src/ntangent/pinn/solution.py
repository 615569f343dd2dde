"""What a solved problem offers: values, derivatives, unknowns, errors, a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ntangent._base.errors import RunFolderError, ShapeError
from ntangent.pinn.conditions import column, residual_block
from ntangent.pinn.field import Parameters
from ntangent.pinn.objective import PinnObjective
from ntangent.pinn.problem import Problem

if TYPE_CHECKING:
    from pathlib import Path

    from ntangent.run import Outcome, RunFolder


def exact(problem: Problem, x: Tensor, order: int) -> Tensor:
    """Return the reference and its derivatives, shape (order+1, N).

    Raises:
        ShapeError: if the reference returns anything else.
    """
    assert problem.reference is not None
    values = torch.as_tensor(problem.reference(x, order), dtype=x.dtype, device=x.device).detach()
    if values.shape != (order + 1, len(x)):
        raise ShapeError(
            f"the reference has shape {tuple(values.shape)} for {len(x)} points and order {order}",
            f"it returns the derivatives of order 0..order as rows: shape {(order + 1, len(x))}",
            "lambda x, order: torch.stack([torch.sin(x + k * torch.pi / 2) for k in range(order + 1)])",
        )
    return values


class Solution:
    """A trained field with the unknowns found beside it.

    Args:
        objective: the problem and the network, with the final parameters.
        outcome: what the training reported.
        folder: the run folder, if there is one.
    """

    def __init__(self, objective: PinnObjective, outcome: Outcome, folder: RunFolder | None) -> None:
        self.objective, self.outcome, self.folder = objective, outcome, folder
        self.problem: Problem = objective.problem
        self.net = objective.net
        objective.load(outcome.theta)
        self.unknowns = objective.unknowns(outcome.theta)

    @property
    def loss(self) -> float:
        """The final loss."""
        return self.outcome.loss

    def __call__(self, x: Any) -> Tensor:
        """Return the field at N points, shape (N,)."""
        return self.derivatives(x, 0)[0]

    def _points(self, x: Any) -> Tensor:
        return column(x, self.objective.dtype, self.objective.device)

    def derivatives(self, x: Any, order: int) -> Tensor:
        """Return the field and its derivatives at N points, shape (order+1, N)."""
        with torch.no_grad():
            u, _ = self.problem.field(self.net, self._points(x), order)
            return u.derivatives()[..., 0]

    def residuals(self, x: Any) -> Tensor:
        """Return the unweighted residual of every equation at N points, shape (E, N)."""
        points = self._points(x)
        values = {name: points.new_tensor(value) for name, value in self.unknowns.items()}
        rows = []
        with torch.no_grad():
            for i in range(len(self.problem.equations)):
                equation, need = self.problem.equation(i)
                u, coordinate = self.problem.field(self.net, points, need)
                block = residual_block("", equation, need, points, 1.0, ())
                rows.append(block.rows(u, Parameters(values), coordinate)[0])
        return torch.stack(rows) if rows else points.new_zeros((0, len(points)))

    def evaluate(self, order: int | None = None, points: int = 4001) -> dict[str, np.ndarray[Any, Any]]:
        """Return the solution on an equidistant grid, as arrays for figures and errors.

        Args:
            order: highest derivative; as many as the conditions used when None.
            points: size of the grid.

        Returns:
            ``x`` (N,), ``derivatives`` (order+1, N), ``residuals`` (E, N), and ``exact``
            (order+1, N) where the problem has a reference.
        """
        if order is None:
            order = self.objective.order
        (_, low, high), *_ = (self.problem.extent or self.problem.domain).intervals
        x = torch.linspace(low, high, points, dtype=self.objective.dtype, device=self.objective.device)
        arrays = {"x": x, "derivatives": self.derivatives(x, order), "residuals": self.residuals(x)}
        if self.problem.reference is not None:
            arrays["exact"] = exact(self.problem, x, order)
        return {name: tensor.cpu().numpy() for name, tensor in arrays.items()}

    def summary(self, arrays: dict[str, np.ndarray[Any, Any]] | None = None) -> dict[str, Any]:
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
        if "exact" in arrays:
            error = np.abs(arrays["derivatives"] - arrays["exact"])
            numbers["max_errors"] = error.max(1).tolist()
            size = np.linalg.norm(arrays["exact"][0])
            numbers["relative_l2"] = (
                float(np.linalg.norm(error[0]) / size) if size else float(np.linalg.norm(error[0]))
            )
        if arrays["residuals"].size:
            numbers["max_residual"] = float(np.abs(arrays["residuals"]).max())
        numbers["loss"] = self.loss
        numbers["terms"] = self.objective.terms(self.outcome.theta)
        numbers["seconds"] = self.outcome.seconds
        numbers["reasons"] = list(self.outcome.reasons)
        numbers["coordinate"] = self.problem.coordinate
        return numbers

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
