"""``ode.fit``: train the right-hand side of a differential equation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ntangent._base.check import check_choice
from ntangent._base.describe import describe
from ntangent._base.errors import ArgumentError, DtypeError, SolverError
from ntangent._base.protocols import Objective, Stage
from ntangent.ode.fitting.collocation import Collocation
from ntangent.ode.fitting.data import Data
from ntangent.ode.fitting.mitigations import Preconditioned, check_adam
from ntangent.ode.fitting.objective import FitObjective, Shooting, Trajectory
from ntangent.ode.integration import Integration
from ntangent.ode.methods.base import Method
from ntangent.ode.solve import odeint
from ntangent.ode.trust.check import TrustReport
from ntangent.run import Callback, Outcome, Progress, RunFolder, run_config, train
from ntangent.run.callbacks import check_callbacks


@runtime_checkable
class Loss(Protocol):
    """What makes an objective: :class:`Trajectory`, :class:`Collocation`, :class:`Shooting`."""

    def objective(self, model: nn.Module, data: Data) -> FitObjective:
        """Return the objective."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class FitResult:
    """A fitted model.

    Args:
        model: the model, with the fitted parameters.
        data: the observations.
        outcome: what the training reached: theta, loss, history, reasons, seconds.
        integration: how predictions are made.
        predictions: states at the times of the data from the initial states, in the shape of data.y;
            None where the solver fails with the fitted parameters.
        misfit: root mean square of (prediction - data) / size over the observed entries.
        trust: whether the gradient at the end can be trusted; None where there is no prediction.
        folder: the run's folder, or None.
    """

    model: nn.Module
    data: Data
    outcome: Outcome
    integration: Integration
    predictions: Tensor | None
    misfit: float
    trust: TrustReport | None
    folder: RunFolder | None

    @property
    def loss(self) -> float:
        """Loss at the end of the training."""
        return self.outcome.loss

    @property
    def history(self) -> list[Any]:
        """The recorded iterations."""
        return self.outcome.history

    @property
    def iterations(self) -> int:
        """Iterations of all stages."""
        return self.outcome.history[-1].step if self.outcome.history else 0

    def predict(self, t: Tensor, y0: Tensor) -> Tensor:
        """Return the states (T, *y0.shape) from y0; a batch (B, n) is solved row by row."""
        return _predict(self.model, t, y0, self.integration)

    def __repr__(self) -> str:
        trust = "no prediction" if self.trust is None else "trusted" if self.trust.ok else "NOT trusted"
        return (
            f"<FitResult: {self.iterations} iterations, loss {self.loss:.3e}, relative misfit of the "
            f"trajectory {self.misfit:.3e}, gradient {trust}>"
        )


def fit(
    model: nn.Module,
    data: Data,
    stages: Sequence[Stage],
    *,
    loss: str | Loss = "trajectory",
    method: str | Method | Integration = "radau5",
    run_dir: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    precondition: bool = False,
    callbacks: Sequence[Callback] = (),
    progress: bool = False,
) -> FitResult:
    """Fit the right-hand side ``model(t, y)`` to observed trajectories.

    Any stage of ``ntangent.optim`` serves: residual Jacobians come from forward sensitivities, gradients
    from the discrete adjoint. At the end the trajectory is predicted and its gradient checked.

    Args:
        model: an nn.Module: a network (:class:`NeuralField`), known structure plus a network
            (:class:`Closure`), a polynomial (:class:`PolynomialField`), or any function with parameters
            (rates as :class:`LogRate`). Shooting, collocation and several trajectories call it with
            y of shape (B, n) and t of (B, 1).
        data: the observations.
        stages: the optimisers, in order.
        loss: "trajectory", "collocation" or "shooting", or :class:`Trajectory`, :class:`Collocation`,
            :class:`Shooting` with their own settings.
        method: the scheme, or an :class:`Integration` with tolerances or a mesh.
        run_dir: folder for configuration, metrics and checkpoints.
        resume: continue the run in that folder, to the same bits.
        overwrite: replace the run in that folder.
        precondition: train in coordinates of equal sensitivity, see :class:`Preconditioned`.
        callbacks: who watches, e.g. :class:`TrustMonitor`.
        progress: whether to show progress.

    Returns:
        The result; the model is trained in place.

    Raises:
        ArgumentError, DtypeError, ShapeError: if the arguments do not fit together.
        RunFolderError, CheckpointError: if the folder is taken, missing or another run's.
        ConvergenceError: if there is no finite loss at the start.
    """
    how = method if isinstance(method, Integration) else Integration(method)
    chosen = _loss(loss, how)
    _check(model, data, stages, run_dir, resume)
    base = chosen.objective(model, data)
    start = base.start()
    objective: Objective = base
    check_adam(stages, base.value_and_gradient(start)[1], _entries(base))
    if precondition:
        objective, theta = (scaled := Preconditioned(base, start)), scaled.start()
    else:
        theta = start
    folder = None
    if run_dir is not None:
        config = run_config(
            problem="ode.fit",
            options={"precondition": precondition},
            stages=stages,
            seed=0,
            dtype=start.dtype,
            model=describe(model),
            data=describe(data),
            loss=describe(chosen),
            start=describe(start),
            prediction=describe(how),
        )
        folder = RunFolder.resume(run_dir, config) if resume else RunFolder.create(run_dir, config, overwrite)
    shown = [*check_callbacks(callbacks), Progress(stages, quiet=not progress)]
    outcome = train(stages, objective, theta, folder=folder, resume=resume, callbacks=shown)
    base.finish(objective.theta(outcome.theta) if isinstance(objective, Preconditioned) else outcome.theta)
    return _result(model, data, outcome, how, folder)


def _loss(loss: str | Loss, how: Integration) -> Loss:
    if isinstance(loss, str):
        check_choice(loss, ["trajectory", "collocation", "shooting"], "loss")
        table: dict[str, Loss] = {
            "trajectory": Trajectory(how),
            "collocation": Collocation(),
            "shooting": Shooting(how),
        }
        return table[loss]
    if not isinstance(loss, Loss):
        raise DtypeError(f"loss is {loss!r}", "it has no method `objective`", 'loss="trajectory"')
    return loss


def _check(model: Any, data: Any, stages: Any, run_dir: Any, resume: bool) -> None:
    if not isinstance(model, nn.Module):
        raise DtypeError(
            f"model is {type(model).__name__}, not a torch.nn.Module", "its parameters are trained", "LogRate"
        )
    if not isinstance(data, Data):
        raise DtypeError(f"data is {type(data).__name__}", "it is an ode.Data", "ode.Data(t, y)")
    if not stages or not all(isinstance(stage, Stage) for stage in stages):
        raise ArgumentError(
            f"stages is {stages!r}", "it lists optimisers", "stages=[optim.LevenbergMarquardt(50)]"
        )
    if resume and run_dir is None:
        raise ArgumentError("resume needs a run folder", "checkpoints live there", 'run_dir="runs/name"')


def _entries(base: FitObjective) -> list[str]:
    found = base.parameters
    return [
        name if size == 1 else f"{name}[{j}]"
        for name, size in zip(found.names, found.sizes, strict=True)
        for j in range(size)
    ]


def _predict(model: nn.Module, t: Tensor, y0: Tensor, how: Integration) -> Tensor:
    times = t if how.mesh is None else how.mesh.knots(t)
    options = how.options if how.mesh is None else {"steps": 1}
    atol = torch.tensor(how.atol, dtype=y0.dtype) if isinstance(how.atol, tuple) else how.atol
    with torch.no_grad():
        states: Tensor = odeint(
            model,
            y0,
            times,
            method=how.scheme,
            rtol=how.rtol,
            atol=atol,
            options=options,
            batched=y0.ndim == 2,
        )
    return states if how.mesh is None else states[torch.searchsorted(times, t.double())]


def _result(
    model: nn.Module, data: Data, outcome: Outcome, how: Integration, folder: RunFolder | None
) -> FitResult:
    predictions: Tensor | None = None
    trust: TrustReport | None = None
    misfit = float("inf")
    checked = Trajectory(how).objective(model, data)
    try:
        predictions = _predict(model, data.t, data.start, how)
        gap = (predictions.reshape(data.rows.shape) - data.rows) / data.sizes
        misfit = float(gap[data.seen].square().mean().sqrt())
        trust = checked.trust(checked.start())
    except SolverError:
        pass
    result = FitResult(model, data, outcome, how, predictions, misfit, trust, folder)
    if folder is not None:
        arrays = {name: p.detach().cpu().numpy() for name, p in model.named_parameters()}
        if predictions is not None:
            arrays |= {
                "t": data.t.numpy(),
                "prediction": predictions.cpu().numpy(),
                "data": data.y.cpu().numpy(),
            }
        folder.write_evaluation(arrays)
        folder.write_result(
            {
                "loss": outcome.loss,
                "misfit": misfit,
                "iterations": result.iterations,
                "seconds": outcome.seconds,
                "reasons": list(outcome.reasons),
                "trusted": None if trust is None else trust.ok,
                "alarms": [] if trust is None else [str(alarm) for alarm in trust.alarms],
            }
        )
    return result
