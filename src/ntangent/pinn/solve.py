"""``solve``: a problem, a network and a list of stages in, a solution out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ntangent._base.check import FLOATS, check_order, check_points
from ntangent._base.describe import describe
from ntangent._base.errors import ArgumentError, DtypeError, ProblemError, ShapeError
from ntangent._base.protocols import Stage
from ntangent.diagnose import Monitor
from ntangent.pinn.determined import warn_undetermined
from ntangent.pinn.final import final_facts
from ntangent.pinn.held_out import HeldOut, other_sampler
from ntangent.pinn.monitoring import Watch
from ntangent.pinn.objective import PinnObjective, check_weights
from ntangent.pinn.problem import Problem
from ntangent.pinn.reference import exact, exact_fields, gives_derivatives
from ntangent.pinn.revision import Refine, Revision, check_revision, warn_without_effect
from ntangent.pinn.sampling import Chebyshev, Resampler, Sampler, denser
from ntangent.pinn.sharded import ShardedObjective, follow, led, sharded
from ntangent.pinn.solution import Solution
from ntangent.pinn.weighting import Weighting
from ntangent.run import Callback, Outcome, Progress, RunFolder, distribution, run_config, train
from ntangent.run.callbacks import check_callbacks


def solve(
    problem: Problem,
    net: nn.Module | Mapping[str, nn.Module],
    stages: Sequence[Stage],
    *,
    sampler: Sampler | None = None,
    sobolev: int | Sequence[float] = 0,
    equation_weights: Sequence[float] | None = None,
    chunk: int | None = None,
    weighting: Weighting | None = None,
    resample: Resampler | None = None,
    refine: Refine | str | None = None,
    monitor: Monitor | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    checkpoint_every: float = 10.0,
    recipe: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Solution:
    """Train a network until its field solves a problem.

    Inside an initialised ``torch.distributed`` process group all ranks call it with the same
    arguments: they share the points, rank 0 decides and writes, and each returns the solution.

    Args:
        problem: equations, conditions, unknowns.
        net: maps (N, d) to the fields side by side, (N, 1) for one; or one network for each field,
            by name. Its dtype and device are those of the whole computation.
        stages: optimisers, run one after the other.
        sampler: collocation points; Chebyshev points by default, 128 in one coordinate, 32 x 32 in
            two.
        sobolev: m, to add the mean squares of all partial derivatives of the residual of total
            order 1..m with weight 1, or m weights by order. They come from the same series as the
            residual.
        equation_weights: weight of each equation, 1 by default.
        chunk: how many collocation points are evaluated together; bounds the memory.
        weighting: how much each term and each point counts, for example ``RBA()``.
        resample: how the collocation points move during the training.
        refine: "auto" or a ``Refine`` to add points when the residual on held-out points leaves that
            on the training points; None keeps their number.
        monitor: reads diagnostics during the training into the metrics, under "monitor/"; their share of
            the time is in the result.
        run_dir: folder for configuration, metrics, checkpoints and report; None keeps the run in
            memory.
        resume: continue the run of ``run_dir`` from its newest checkpoint, to the same bits.
        overwrite: replace a run that is already in ``run_dir``.
        callbacks: objects told of every step.
        progress: show a line of progress on standard error.
        checkpoint_every: seconds between checkpoints.
        recipe: name and options that rebuild the problem, kept in the configuration.
        seed: of mini-batches, weighting and resampling; the randomness of network and sampler is theirs.

    Returns:
        The solution; its network is ``net``, trained in place, or, after a stage that corrects the
        field, a module that holds a copy of ``net``.

    Raises:
        ProblemError, ArgumentError, DtypeError: if the arguments do not fit together.
        RunFolderError, CheckpointError: if the folder is taken, missing or another run's.
        ConvergenceError: if the loss becomes non-finite.
        DistributedError: if another process of the group was lost.
    """
    net = as_module(net)
    dtype, device = home(net)
    _check_options(stages, run_dir, resume, overwrite)
    check_order(seed, "seed")
    callbacks = check_callbacks(callbacks)
    _check_networks(problem, net)
    sampler = default_sampler(problem) if sampler is None else sampler
    weights = _sobolev_weights(sobolev)
    points = _collocation(sampler, problem.domain, dtype, device)
    problem.check_network(net, dtype, device)
    rule = check_revision(weighting, resample, refine)
    team = distribution.current()
    if team is None:
        objective = PinnObjective(problem, net, points, weights, equation_weights, chunk)
    else:
        objective = sharded(team, problem, net, points, (weights, equation_weights, chunk))
    objective.seed = seed
    objective.denser = lambda times: _collocation(
        denser(sampler, times, problem.domain.dimension), problem.domain, dtype, device
    )
    _check_reference(problem, points, objective.order)
    if isinstance(objective, ShardedObjective) and not objective.crew.team.leads:
        reached = follow(objective)
        return Solution(objective.latest.whole(), reached, None)
    with led(objective) as handed:
        others = other_sampler(sampler, len(points)).points(problem.domain, dtype, device)
        held_out = HeldOut(objective, others)
        revision = Revision(
            objective, weighting=weighting, resample=resample, refine=rule, held_out=others, seed=seed
        )
        warn_without_effect(revision, stages, sampler)
        warn_undetermined(objective)
        watch = Watch(objective, monitor)
        folder = None
        if run_dir is not None:
            given = dict(recipe or {"problem": "python", "options": {}})
            config = run_config(
                problem=given["problem"], options=given["options"], stages=stages, seed=seed, dtype=dtype,
                statement=describe(problem), network=describe(net), sampler=describe(sampler),
                sobolev=weights, equation_weights=equation_weights, chunk=chunk,
                weighting=describe(weighting), resample=describe(resample), refine=describe(rule),
                **({} if monitor is None else {"monitor": describe(monitor.settings)}),
            )  # fmt: skip
            folder = _folder(run_dir, config, resume, overwrite)
        outcome = train(
            stages, objective, objective.start(), folder=folder, resume=resume,
            callbacks=[*callbacks, Progress(stages, quiet=not progress)],
            checkpoint_every=checkpoint_every, describe=objective.unknowns,
            measure=lambda step, state: {
                **held_out.measure(step, state.theta), **revision.measure(step, state.theta),
                **watch.measure(step, state),
            },
            extra=revision.state_dict, restore=revision.load_state_dict, revise=revision,
        )  # fmt: skip
        held_out.measure(0, outcome.theta, last=True)
        handed.append(outcome)
    # A stage may have put another objective in its place, with a network that holds ``net``.
    return finish(objective.latest.whole(), outcome, folder, held_out, watch)


def _folder(run_dir: str | Path, config: Mapping[str, Any], resume: bool, overwrite: bool) -> RunFolder:
    if resume:
        return RunFolder.resume(run_dir, config)
    return RunFolder.create(run_dir, config, overwrite=overwrite)


def _check_reference(problem: Problem, points: Tensor, order: int) -> None:
    """Evaluate the reference at a few points: a wrong shape found after the training would lose it."""
    if problem.reference is None:
        return
    if gives_derivatives(problem):
        exact(problem, points[:3, 0], order)
    else:
        exact_fields(problem, points[:3])


def finish(
    objective: PinnObjective,
    outcome: Outcome,
    folder: RunFolder | None,
    held_out: HeldOut | None = None,
    watch: Watch | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Solution:
    """Return the solution of a finished training, with its evaluation written into the folder."""
    solution = Solution(objective, outcome, folder)
    solution.notes |= notes or {}
    if held_out is not None:
        solution.notes |= held_out.last
    if isinstance(objective, ShardedObjective):
        solution.notes["ranks"] = objective.crew.team.size
    if watch is not None:
        solution.notes |= watch.finish(outcome)
    if folder is not None:
        folder.write_final(final_facts(objective, outcome.theta))
        arrays = solution.evaluate()
        folder.write_evaluation(arrays)
        folder.write_result(solution.summary(arrays))
    return solution


def _check_options(stages: Any, run_dir: Any, resume: bool, overwrite: bool) -> None:
    if not isinstance(stages, Sequence) or not all(isinstance(stage, Stage) for stage in stages):
        raise ArgumentError(
            f"stages is {stages!r}", "it lists optimisers", "stages=[optim.LevenbergMarquardt(200)]"
        )
    if not stages:
        raise ArgumentError(
            "there are no stages", "nothing would be trained", "stages=[optim.LevenbergMarquardt(200)]"
        )
    if resume and run_dir is None:
        raise ArgumentError(
            "resume needs a run folder",
            "checkpoints live there",
            'solve(..., run_dir="runs/name", resume=True)',
        )
    if resume and overwrite:
        raise ArgumentError(
            "resume and overwrite exclude each other",
            "one keeps the run, the other replaces it",
            "resume=True",
        )


def _sobolev_weights(sobolev: Any) -> list[float]:
    if isinstance(sobolev, Sequence) and not isinstance(sobolev, str):
        return check_weights(sobolev, "sobolev")
    return [1.0] * check_order(sobolev, "sobolev")


def default_sampler(problem: Problem) -> Sampler:
    """Return Chebyshev points: 128 in one coordinate, about a thousand in several."""
    dimension = problem.domain.dimension
    return Chebyshev(128 if dimension == 1 else max(4, round(1024 ** (1 / dimension))))


def _collocation(sampler: Sampler, domain: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a sampler's points if they are points of the domain."""
    if not hasattr(sampler, "points"):
        raise ArgumentError(f"sampler is {sampler!r}", "it has no method `points`", "sampler=Chebyshev(128)")
    points = check_points(sampler.points(domain, dtype, device), "the sampler's points")
    if points.shape[1] != domain.dimension or len(points) == 0:
        raise ShapeError(
            f"the sampler's points have shape {tuple(points.shape)}",
            f"at least one point with {domain.dimension} coordinate(s) is expected",
            "Chebyshev(128)",
        )
    if (points.dtype, points.device) != (dtype, device):
        raise DtypeError(
            f"the sampler's points are {points.dtype} on {points.device}",
            f"the network is {dtype} on {device}",
            "points.to(dtype=dtype, device=device)",
        )
    box = getattr(domain, "box", domain)
    for name, values in zip(box.names, points.T, strict=True):
        ends = float(values.min()), float(values.max())
        if not all(box.holds(name, end) for end in ends):
            raise ProblemError(
                f"the sampler's points reach from {ends[0]} to {ends[1]} in {name}",
                f"they lie outside {domain}",
                "Chebyshev(128)",
            )
    return points


def as_module(net: nn.Module | Mapping[str, nn.Module]) -> nn.Module:
    """Return a network as it is, and networks by name as one module."""
    if not isinstance(net, Mapping) or isinstance(net, nn.ModuleDict):
        return net
    wrong = [name for name, own in net.items() if not isinstance(own, nn.Module)]
    if wrong:
        raise DtypeError(
            f"the network of {wrong[0]!r} is {type(net[wrong[0]]).__name__}",
            "each field has a torch.nn.Module",
            'net={"u": nt.MLP(2, 1), "k": nt.MLP(1, 1)}',
        )
    return nn.ModuleDict(dict(net))


def _check_networks(problem: Problem, net: Any) -> None:
    """Raise unless the networks are those of the fields."""
    fields, names = list(problem.components), problem.domain.names
    if isinstance(net, nn.ModuleDict):
        if set(net) != set(fields):
            raise ProblemError(
                f"networks are given for {', '.join(net) or 'nothing'}, the fields are {', '.join(fields)}",
                "each field has its own",
                "net={" + ", ".join(f'"{name}": ...' for name in fields) + "}",
            )
        return
    partial = [name for name in fields if problem.inputs(name) != names]
    if partial:
        raise ProblemError(
            f"the field {partial[0]!r} depends on {', '.join(problem.inputs(partial[0]))} only",
            "one network for all fields takes all coordinates",
            "net={" + ", ".join(f'"{n}": nt.MLP({len(problem.inputs(n))}, 1)' for n in fields) + "}",
        )


def home(net: Any) -> tuple[torch.dtype, torch.device]:
    """Return dtype and device of a network's parameters."""
    if not isinstance(net, nn.Module):
        raise DtypeError(
            f"net is {type(net).__name__}, not a torch.nn.Module",
            "its parameters are trained",
            "nt.MLP(1, 1)",
        )
    kinds = {(p.dtype, p.device) for p in net.parameters()}
    if len(kinds) != 1:
        raise DtypeError(
            f"the network's parameters have {len(kinds)} kinds of dtype and device"
            if kinds
            else "the network has no parameter",
            "one flat vector holds all parameters",
            "net.to(torch.float64)",
        )
    dtype, device = kinds.pop()
    if dtype not in FLOATS:
        raise DtypeError(
            f"the network is {dtype}", "training runs in float32 or float64", "net.to(torch.float64)"
        )
    return dtype, device
