"""What a monitor sees of the training of a problem."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ntangent._base.errors import DtypeError, NoEffectWarning
from ntangent._base.protocols import State
from ntangent.diagnose import Block, Layer, Monitor, Reading, Snapshot, layers_of, record_activations
from ntangent.jet.jacobian import grouped_gradients
from ntangent.pinn.objective import PinnObjective
from ntangent.pinn.passes import Pass
from ntangent.run import Outcome, Record
from ntangent.run.callbacks import MONITOR

COST = f"{MONITOR}seconds"


def snapshot(
    objective: PinnObjective, step: int, theta: Tensor, memory: Mapping[str, Any] | None = None
) -> Snapshot:
    """Return a training at one moment, as the measures see it.

    Args:
        objective: what is trained, as it is now.
        step: iterations done.
        theta: parameters, shape (P,).
        memory: what the optimiser carries, where it has moments.
    """
    names = list(objective.problem.unknowns)
    split = len(theta) - len(names)
    unknowns = [Layer(name, split + i, split + i + 1, False) for i, name in enumerate(names)]
    return Snapshot(
        step,
        theta,
        (*layers_of(objective.net), *unknowns),
        objective,
        blocks_of(objective),
        tuple(objective.problem.interval(name) for name in objective.problem.domain.names),
        lambda: activations(objective, theta),
        memory,
        lambda batches: batch_gradients(objective, theta, batches),
    )


def blocks_of(objective: PinnObjective) -> tuple[Block, ...]:
    """Return what the rows of the residual are; equations are batched, conditions shared by all batches."""
    moving, blocks, start = set(objective.movable()), [], 0
    for block in objective.blocks:
        stop = start + len(block.weights) * block.count
        factor = objective.factor(block.name)
        per_point = factor is not None and factor.shape == (block.count,)
        weights = factor.sqrt() if factor is not None and per_point else None
        points = block.points if block.fold == 1 and len(block.points) == block.count else None
        blocks.append(
            Block(block.name, start, stop, points, weights, block.name in moving, len(block.weights))
        )
        start = stop
    if not moving:
        return tuple(replace(block, batched=True) for block in blocks)
    return tuple(blocks)


def activations(objective: PinnObjective, theta: Tensor) -> dict[str, Tensor]:
    """Return the hidden activations at the collocation points by layer, shape (N, width) each."""
    objective.load(theta)
    found: dict[str, Tensor] = {}
    for prefix, net, points in networks(objective):
        found |= {f"{prefix}{name}": value for name, value in record_activations(net, points).items()}
    return found


def networks(objective: PinnObjective) -> list[tuple[str, nn.Module, Tensor]]:
    """Return every network with the prefix of its layers and its own inputs."""
    net, names = objective.net, objective.problem.domain.names
    if not isinstance(net, nn.ModuleDict):
        return [("", net, objective.points)]
    return [
        (f"{field}.", one, objective.points[:, [names.index(n) for n in objective.problem.inputs(field)]])
        for field, one in net.items()
    ]


def batch_gradients(objective: PinnObjective, theta: Tensor, batches: int) -> Tensor:
    """Return the gradients of the losses of several batches, shape (B, P).

    A batch is a consecutive slice of the collocation points with the whole of all conditions.

    Cost:
        One forward and one backward pass where the network is a chain of linear layers over points;
        B of them over N/B points each otherwise.
    """
    if objective.structured(theta):
        total = theta.new_zeros((batches, len(theta)))
        for one in objective.passes:
            total += _of_pass(objective, theta, one, batches)
        return total
    chosen = torch.arange(len(objective.points), device=theta.device).tensor_split(batches)
    if not objective.movable():
        return objective.value_and_gradient(theta)[1].expand(batches, -1)
    return torch.stack([objective.part(part).value_and_gradient(theta)[1] for part in chosen])


def _of_pass(objective: PinnObjective, theta: Tensor, one: Pass, batches: int) -> Tensor:
    """Return what the blocks of one pass contribute to the gradient of each batch, shape (B, P)."""
    moving = set(objective.movable())
    groups: list[Tensor] = []
    owner: list[tuple[int | None, float]] = []
    start, seen = 0, -1
    for part in one.parts:
        if part.segment == seen:
            continue
        seen, block = part.segment, objective.blocks[part.index]
        here = torch.arange(part.columns.start, part.columns.stop, device=theta.device)
        if block.name in moving:
            for k, chosen in enumerate(torch.arange(block.count, device=theta.device).tensor_split(batches)):
                inside = here[(here >= chosen[0]) & (here <= chosen[-1])]
                if len(inside):
                    groups.append(start + inside - part.columns.start)
                    owner.append((k, block.count / len(chosen)))
        else:
            groups.append(start + torch.arange(len(part.block.points), device=theta.device))
            owner.append((None, 1.0))
        start += len(part.block.points)
    leaves = [q.detach().expand(len(one.points), 1).clone().requires_grad_() for q in objective.load(theta)]
    found = grouped_gradients(objective.matrix(one, leaves), objective.parameters, groups, leaves)
    assert found is not None, "the structure was checked"
    total = found.new_zeros((batches, len(theta)))
    for (batch, factor), gradient in zip(owner, found, strict=True):
        if batch is None:
            total += gradient
        else:
            total[batch] += factor * gradient
    return total


class Watch:
    """Puts the readings of a monitor into the records of a training.

    Args:
        objective: what is trained.
        monitor: the monitor; None watches nothing, at no cost.
    """

    def __init__(self, objective: PinnObjective, monitor: Monitor | None) -> None:
        if monitor is not None and not isinstance(monitor, Monitor):
            raise DtypeError(
                f"monitor is {monitor!r}",
                "it is a Monitor or None",
                'monitor=diagnose.Monitor(measures=["snr"])',
            )
        self.objective, self.monitor = objective, monitor

    def measure(self, step: int, state: State) -> dict[str, float]:
        """Return the numbers of a reading with what it cost, where one is due."""
        if self.monitor is None or not self.monitor.due(step):
            return {}
        start = time.perf_counter()
        memory = state.memory if "first" in state.memory and "second" in state.memory else None
        if memory is not None:
            memory = {**memory, "iteration": state.iteration}
        # A stage may have put another objective in its place.
        taken = snapshot(self.objective.latest.whole(), step, state.theta, memory)
        reading = self.monitor.read(taken, time.perf_counter() - start, partial=True)
        numbers = {f"{MONITOR}{name}": value for name, value in reading.numbers.items()}
        return {**numbers, COST: reading.seconds}

    def finish(self, outcome: Outcome) -> dict[str, Any]:
        """Give the monitor the readings of before a resume; return what watching has cost, for the result."""
        if self.monitor is None:
            return {}
        monitor = self.monitor
        monitor.on_end(outcome)
        first = monitor.iterations[0] if monitor.readings else math.inf
        older = [record for record in outcome.history if COST in record.info and record.step < first]
        monitor.readings[:0] = [_reading(record) for record in older]
        read = {name.partition(".")[0] for reading in monitor.readings for name in reading.values}
        for measure in monitor.measures:
            if monitor.readings and measure.name not in read:
                needs = " and ".join(measure.needs)
                text = f"the measure {measure.name!r} read nothing: no stage had its {needs}"
                warnings.warn(text, NoEffectWarning, stacklevel=3)
        share = monitor.seconds / outcome.seconds if outcome.seconds else 0.0
        return {"monitor": {"readings": len(monitor.readings), "seconds": monitor.seconds, "share": share}}


def _reading(record: Record) -> Reading:
    found = {
        k.removeprefix(MONITOR): v for k, v in record.info.items() if k.startswith(MONITOR) and k != COST
    }
    return Reading(record.step, dict(found), record.info[COST])
