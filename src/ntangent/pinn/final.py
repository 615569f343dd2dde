"""What a diagnosis needs to know of a finished training, measured once at its end.

Every entry costs a few evaluations of the residual at most, the spectrum one singular value decomposition
of bounded size. What cannot be measured is left out, with the reason under "missing".
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ntangent._base.errors import NtangentError, ProblemError
from ntangent.diagnose import gradient_flow_loss, measures
from ntangent.pinn.correction import Corrected
from ntangent.pinn.evaluation import handed
from ntangent.pinn.field import Parameters
from ntangent.pinn.monitoring import networks, snapshot
from ntangent.pinn.objective import PinnObjective

# Multiply-adds of a singular value decomposition that the end of a training may cost: about a second.
LARGEST = 1e9
FLAT = 1e-2  # slope of an activation below which a unit passes no gradient at a point
STEADY = 0.95  # share of the points at which a saturated unit is flat
SOME = 512  # points at which activations are looked at

Facts = dict[str, Any]


def final_facts(objective: PinnObjective, theta: Tensor) -> Facts:
    """Return the facts by name; "seconds" is what they cost."""
    start = time.perf_counter()
    facts: Facts = {}
    missing: dict[str, str] = {}
    for name, fact in FACTS.items():
        try:
            facts[name] = fact(objective, theta)
        except NtangentError as error:
            missing[name] = str(error).splitlines()[0]
    objective.load(theta)
    return {**facts, "missing": missing, "seconds": time.perf_counter() - start}


def _terms(objective: PinnObjective, theta: Tensor) -> Facts:
    """Mean squares without weights: of the fields found, and of fields that vanish."""
    found = {name: rows.square().mean(1).max() for name, rows in objective.rows(theta).items()}
    zero = _derived(objective, theta, lambda data: torch.zeros_like(data))[0]
    return {name: {"mean_square": float(value), "of_zero": zero.get(name)} for name, value in found.items()}


def _gradients(objective: PinnObjective, theta: Tensor) -> Facts:
    """Norms and cosines of the gradients of the terms, and the norm of their sum."""
    names = [block.name for block in objective.blocks]
    rows = torch.stack([objective.term(name).value_and_gradient(theta)[1] for name in names]).double()
    norms = torch.linalg.vector_norm(rows, dim=1)
    unit = rows / norms.clamp_min(torch.finfo(torch.float64).tiny)[:, None]
    return {
        "names": names,
        "norms": norms.tolist(),
        "cosines": (unit @ unit.T).tolist(),
        "sum": float(rows.sum(0).norm()),
    }


def _spectrum(objective: PinnObjective, theta: Tensor) -> Facts:
    """Singular values of the Jacobian, and what is left of the residual along each."""
    rows, columns = sum(len(b.weights) * b.count for b in objective.blocks), len(theta)
    if rows * columns * min(rows, columns) > LARGEST:
        raise ProblemError(f"the Jacobian, {rows} x {columns}, is too large for a look in passing", "", "")
    r, jacobian = objective.residuals_and_jacobian(theta)
    flow = gradient_flow_loss(jacobian, r)
    return {"values": flow.rates.sqrt().tolist(), "modes": flow.modes.tolist(), "rest": flow.rest}


def _layers(objective: PinnObjective, theta: Tensor) -> Facts:
    """Share of units of every hidden layer whose activation is flat at nearly all points."""
    objective.load(theta)
    found = {}
    for prefix, net, points in networks(objective):
        chosen = points[:: max(1, len(points) // SOME)]
        for name, slopes in _slopes(net, chosen).items():
            flat = (slopes.abs() < FLAT).double().mean(0) >= STEADY
            found[f"{prefix}{name}"] = float(flat.double().mean())
    if not found:
        raise ProblemError("no linear layers in a row were met", "", "")
    return found


def _slopes(net: nn.Module, points: Tensor) -> dict[str, Tensor]:
    """Return the derivative of each hidden activation in its argument, shape (N, width), by layer."""
    calls: list[tuple[str, Tensor, Tensor]] = []

    def hook(name: str) -> Callable[..., None]:
        def keep(_: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                calls.append((name, inputs[0], output))

        return keep

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch.enable_grad():
            net(points)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for (name, _, before), (_, after, _) in itertools.pairwise(calls):
        if before.shape == after.shape and before.requires_grad and after.requires_grad:
            (slope,) = torch.autograd.grad(after.sum(), before, retain_graph=True, allow_unused=True)
            if slope is not None:
                found[name] = slope
    return found


def _unknowns(objective: PinnObjective, theta: Tensor) -> Facts:
    """How far a change of an unknown by its own size moves the residual, beside the residual that is left."""
    unknowns = objective.problem.unknowns
    size = float(objective.residuals(theta).norm())
    found = {}
    for i, (name, unknown) in enumerate(unknowns.items()):
        place = len(theta) - len(unknowns) + i
        step = torch.finfo(theta.dtype).eps ** (1 / 3) * max(1.0, abs(float(theta[place])))
        ends, values = [], []
        for sign in (1, -1):
            moved = theta.clone()
            moved[place] += sign * step
            ends.append(objective.residuals(moved))
            values.append(float(unknown.value(moved[place])))
        change = abs(values[0] - values[1])
        slope = float((ends[0] - ends[1]).norm()) / change if change else 0.0
        now = float(unknown.value(theta[place]))
        reach = slope * max(abs(now), abs(unknown.start))
        found[name] = {"reach": reach, "residual": size, "value": now, "start": unknown.start}
    return found


def _noise(objective: PinnObjective, theta: Tensor) -> Facts:
    """Change of each term's residual when the parameters change by their own rounding."""
    generator = torch.Generator().manual_seed(0)
    draw = torch.rand(len(theta), generator=generator, dtype=torch.float64).to(theta)
    moved = theta * (1 + torch.finfo(theta.dtype).eps * (2 * draw - 1))
    here, there = objective.rows(theta.clone()), objective.rows(moved)
    return {
        name: {
            "noise": float((there[name] - rows).square().mean().sqrt()),
            "residual": float(rows.square().mean().sqrt()),
        }
        for name, rows in here.items()
    }


def _rates(objective: PinnObjective, theta: Tensor) -> Facts:
    """Rates at which equations make their field decay or grow, in one coordinate or in time.

    R(u, u_t, ...) = 0 relaxes with λ = (∂R/∂u) / (∂R/∂u_t); the median over the points is kept, with how
    many points lie within 3/λ of the start.
    """
    problem = objective.problem
    names = problem.domain.names
    coordinate = names[0] if len(names) == 1 else "t"
    if coordinate not in names:
        raise ProblemError("there is no time among several coordinates", "", "")
    low, high = problem.interval(coordinate)
    place = names.index(coordinate)
    zero = (0,) * len(names)
    first = tuple(int(i == place) for i in range(len(names)))
    slopes = _derived(objective, theta, lambda data: data)[1]
    found = {}
    for name, by_field in slopes.items():
        for field, parts in by_field.items():
            if (
                zero not in parts
                or first not in parts
                or any(sum(b) > 1 and b[place] == sum(b) for b in parts)
            ):
                continue
            use = parts[first].abs() > 0
            rate = parts[zero][use] / parts[first][use]
            if not len(rate):
                continue
            middle = float(rate.median())
            distance = (objective.points[:, place] - low).double()
            near = int((distance.unique() <= 3 / middle).sum()) if middle > 0 else len(distance)
            found[f"{name} in {field}"] = {"rate": middle, "length": high - low, "points": near}
    return found


def _derived(
    objective: PinnObjective, theta: Tensor, change: Callable[[Tensor], Tensor]
) -> tuple[dict[str, float | None], dict[str, dict[str, dict[tuple[int, ...], Tensor]]]]:
    """Evaluate the equations and conditions on changed series of the fields.

    Returns:
        The mean square by term; and by term, for scalar fields at collocation points, the derivative of
        the residual in each coefficient of the series, shape (N,).
    """
    raw, problem = objective.load(theta), objective.problem
    values = {name: unknown.value(raw[i]) for i, (name, unknown) in enumerate(problem.unknowns.items())}
    squares: dict[str, float | None] = {}
    slopes: dict[str, dict[str, dict[tuple[int, ...], Tensor]]] = {}
    moving = set(objective.movable())
    for one in objective.passes:
        with torch.no_grad():
            rows = {n: (change(data), over) for n, (data, over) in one.evaluation(objective.net).items()}
        for part in one.parts:
            block, where = part.block, part.points if part.points is not None else slice(None)
            own = {
                n: (data[:, where].detach().clone().requires_grad_(), over)
                for n, (data, over) in rows.items()
                if n in block.demand.fields
            }
            with torch.enable_grad():
                fields = handed(own, part.within, block.demand)
                r = block.rows(fields, Parameters(values), part.coordinates)
            squares[block.name] = float(r.detach().square().mean())
            if block.name not in moving or not r.requires_grad:
                continue
            leaves = {n: data for n, (data, _) in own.items() if data.shape[-1] == 1}
            grads = torch.autograd.grad(r[0].sum(), list(leaves.values()), allow_unused=True)
            slopes[block.name] = {
                n: {b: g[k, :, 0] for k, b in enumerate(own[n][1].members)}
                for n, g in zip(leaves, grads, strict=True)
                if g is not None
            }
    if any(getattr(condition, "hard", False) for condition in problem.conditions):
        squares = dict.fromkeys(squares)  # fields that vanish are not among those that can be had
    return squares, slopes


def _snr(objective: PinnObjective, theta: Tensor) -> Facts:
    """The signal-to-noise ratio of the gradient at the end."""
    if len(objective.points) < 4 or not objective.movable():
        raise ProblemError("there are no collocation points to make batches of", "", "")
    parts = [part for part in objective.net.modules() if isinstance(part, Corrected)]
    if parts and all(part.linear for part in parts):
        raise ProblemError("the weights of a linear correction were solved for, not descended", "", "")
    values = measures["snr"](snapshot(objective, 1, theta))
    return {name: v for name, v in values.items() if isinstance(v, float) and math.isfinite(v)}


FACTS: dict[str, Callable[[PinnObjective, Tensor], Facts]] = {
    "terms": _terms,
    "gradients": _gradients,
    "spectrum": _spectrum,
    "layers": _layers,
    "unknowns": _unknowns,
    "noise": _noise,
    "rates": _rates,
    "snr": _snr,
}
