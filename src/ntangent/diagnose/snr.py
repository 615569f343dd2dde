"""Signal-to-noise ratios of gradients over batches, of Adam's moments, and of residuals over the domain.

After Anagnostopoulos, Toscano, Stergiopulos & Karniadakis (arXiv 2403.18494; Neural Networks 2025),
which tells the phases of training apart by them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_finite, check_points, check_positive
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError
from ntangent.diagnose.snapshot import Block, Layer, Measure, Snapshot, check_layers, measures

Batches = int | Sequence[Tensor | Sequence[int]]
BATCHES = 100


@dataclass(frozen=True)
class SignalToNoise:
    """How much the batches agree on a gradient.

    With the elementwise mean m, population standard deviation s and root mean square over the batches,
    and norms over all entries:

    Args:
        snr: ‖m‖/‖s‖; infinite where all batches agree, NaN where all gradients vanish.
        order: ‖m‖/‖rms‖ = snr/√(1 + snr²), between 0 and 1: the gradient order parameter.
        mean: ‖m‖.
        noise: ‖s‖.
        batches: their number.
    """

    snr: float
    order: float
    mean: float
    noise: float
    batches: int


def gradient_snr(gradients: Tensor, entries: Tensor | slice | None = None) -> SignalToNoise:
    """Return the signal-to-noise ratio of the gradients of several batches.

    Args:
        gradients: shape (B, P), B >= 2, see :func:`batch_gradients` and :func:`gradients_of_batches`.
        entries: the columns that count, an index or a mask of shape (P,); all of them by default. The
            paper takes weight matrices only: :func:`weight_entries`.

    Raises:
        ShapeError, NonFiniteError: on gradients that cannot be used.

    Cost:
        O(B P).
    """
    g = _check_gradients(gradients)
    g = g if entries is None else g[:, entries]
    # float64: squares of small float32 gradients underflow.
    mean, centred = g.mean(0), g - g.mean(0)
    signal = float(torch.linalg.vector_norm(mean))
    noise = float(torch.linalg.vector_norm(centred)) / math.sqrt(len(g))
    return signal_to_noise(signal, noise, len(g))


def signal_to_noise(signal: float, noise: float, batches: int) -> SignalToNoise:
    """Return the ratio and the order parameter of two norms."""
    if signal == 0 and noise == 0:
        return SignalToNoise(math.nan, math.nan, signal, noise, batches)
    snr = signal / noise if noise else math.inf
    return SignalToNoise(snr, signal / math.hypot(signal, noise), signal, noise, batches)


def gradient_order_parameter(gradients: Tensor, entries: Tensor | slice | None = None) -> float:
    """Return φ = ‖m‖/‖rms‖ of the gradients of several batches, equal to SNR/√(1 + SNR²)."""
    return gradient_snr(gradients, entries).order


def layer_snr(gradients: Tensor, layers: Sequence[Layer]) -> dict[str, SignalToNoise]:
    """Return the signal-to-noise ratio of every layer of a flat gradient."""
    g = _check_gradients(gradients)
    return {layer.name: gradient_snr(g, layer.entries) for layer in check_layers(layers, g.shape[1])}


def weight_entries(layers: Sequence[Layer], size: int) -> Tensor:
    """Return the mask of the weight matrices in θ, shape (size,)."""
    mask = torch.zeros(size, dtype=torch.bool)
    for layer in check_layers(layers, size):
        if layer.is_weight:
            mask[layer.entries] = True
    return mask


def _check_gradients(gradients: Any) -> Tensor:
    if not isinstance(gradients, Tensor) or not gradients.is_floating_point():
        raise DtypeError(f"gradients are {type(gradients).__name__}", "", "a float tensor of shape (B, P)")
    if gradients.ndim != 2 or len(gradients) < 2 or not gradients.shape[1]:
        raise ShapeError(
            f"gradients have shape {tuple(gradients.shape)}", "noise needs two batches or more", "(B, P)"
        )
    return check_finite(gradients.detach(), "gradients").double()


def batch_gradients(
    residuals: Tensor, jacobian: Tensor, batches: Batches = BATCHES, blocks: Sequence[Block] = ()
) -> Tensor:
    """Return the gradients of batch losses as combinations of Jacobian rows, without a backward pass.

    The loss of batch b is (N/|b|) Σ r_i² over its points in every batched block, plus the whole of the
    blocks that are not batched: for r scaled by 1/√N that is the batch's mean square, and the mean over
    batches of equal size is the full gradient of |r|².

    Args:
        residuals: r, shape (M,).
        jacobian: dr/dθ, shape (M, P).
        batches: a number B, of consecutive slices of the points as in the paper; or B index sets.
        blocks: what the rows are; all of them one component of one batched block by default.

    Returns:
        Shape (B, P).

    Cost:
        2 M P multiply-adds, given the Jacobian; its memory, M P numbers, is the price.
        :func:`gradients_of_batches` has none.
    """
    r, j = residuals.detach(), jacobian.detach()
    if r.ndim != 1 or j.ndim != 2 or len(j) != len(r):
        raise ShapeError(f"{tuple(r.shape)} residuals, Jacobian {tuple(j.shape)}", "", "(M,) and (M, P)")
    blocks = tuple(blocks) or (Block("residual", 0, len(r)),)
    if not any(block.batched for block in blocks):
        raise ArgumentError(
            "no block is batched", "all batches would be the same", "Block(..., batched=True)"
        )
    shared = j.new_zeros(j.shape[1])
    total: Tensor | None = None
    for block in blocks:
        rows, slopes = r[block.rows].reshape(-1, block.count), j[block.rows]
        if not block.batched:
            shared += 2 * (rows.reshape(-1) @ slopes)
            continue
        slopes = slopes.reshape(len(rows), block.count, -1)
        parts = [
            2 * block.count / len(chosen) * torch.tensordot(rows[:, chosen], slopes[:, chosen], 2)
            for chosen in _index_sets(batches, block.count, r.device)
        ]
        found = torch.stack(parts)
        total = found if total is None else total + found
    assert total is not None
    return total + shared


def _index_sets(batches: Batches, count: int, device: torch.device) -> list[Tensor]:
    if isinstance(batches, int):
        check_positive(batches, "batches", integer=True)
        if batches < 2 or batches > count:
            raise ArgumentError(
                f"{batches} batches of {count} points",
                "each has at least one, and noise needs two",
                "batches=2",
            )
        return list(torch.arange(count, device=device).tensor_split(batches))
    sets = [torch.as_tensor(chosen, device=device) for chosen in batches]
    if len(sets) < 2 or any(not len(chosen) for chosen in sets):
        raise ArgumentError(f"{len(sets)} batches, or an empty one", "noise needs two", "batches=100")
    return sets


def gradients_of_batches(
    loss: Callable[[int], Tensor],
    parameters: Sequence[Tensor],
    batches: int,
    shared: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Return the gradients of batch losses by one small backward pass each.

    Args:
        loss: maps the number of a batch to its loss, a scalar.
        parameters: tensors to differentiate in.
        batches: B.
        shared: a part of the loss that all batches have; differentiated once.

    Returns:
        Shape (B, P), the parameters flattened in their order.

    Cost:
        B passes over N/B points are one pass over all points, and B times the fixed cost of a call.
    """
    check_positive(batches, "batches", integer=True)
    leaves = list(parameters)

    def gradient(value: Tensor) -> Tensor:
        grads = torch.autograd.grad(value, leaves, allow_unused=True)
        return torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).reshape(-1)
                for p, g in zip(leaves, grads, strict=True)
            ]
        )

    with torch.enable_grad():
        found = torch.stack([gradient(loss(k)) for k in range(batches)])
        return found if shared is None else found + gradient(shared())


@dataclass(frozen=True)
class AdamSignal:
    """The signal-to-noise ratio that Adam itself sees.

    Args:
        snr: ‖m̂‖/‖√v̂ + eps‖ of the bias-corrected moments.
        effective_step: mean of |m̂|/(√v̂ + eps), the step of a parameter in units of the learning rate.
    """

    snr: float
    effective_step: float


def adam_snr(
    first: Tensor,
    second: Tensor,
    iteration: int,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> AdamSignal:
    """Return Adam's signal-to-noise ratio from its moments.

    Args:
        first: first moment, any shape, without bias correction.
        second: second moment, the same shape.
        iteration: steps done, at least 1.
        betas: decay rates.
        eps: added to the root.
    """
    check_positive(iteration, "iteration", integer=True)
    if first.shape != second.shape or not first.numel():
        raise ShapeError(f"moments of shapes {tuple(first.shape)} and {tuple(second.shape)}", "", "(P,)")
    m = check_finite(first.detach(), "first").double() / (1 - betas[0] ** iteration)
    v = check_finite(second.detach(), "second").double() / (1 - betas[1] ** iteration)
    if bool((v < 0).any()):
        raise ArgumentError("the second moment is negative", "it is a mean of squares", "second=...")
    root = v.sqrt() + eps
    return AdamSignal(float(m.norm() / root.norm()), float((m.abs() / root).mean()))


def adam_moments(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the moments of a ``torch.optim.Adam`` or ``AdamW`` in the form of a snapshot's memory.

    Raises:
        ArgumentError: if the optimiser has made no step or has no such moments.
    """
    states = [optimizer.state.get(p, {}) for group in optimizer.param_groups for p in group["params"]]
    states = [state for state in states if "exp_avg" in state]
    if not states:
        raise ArgumentError("the optimiser has no moments", "Adam has them after a step", "optimizer.step()")
    return {
        "first": torch.cat([state["exp_avg"].reshape(-1) for state in states]),
        "second": torch.cat([state["exp_avg_sq"].reshape(-1) for state in states]),
        "iteration": int(states[0]["step"]),
        "betas": tuple(float(beta) for beta in optimizer.param_groups[0]["betas"]),
        "eps": float(optimizer.param_groups[0]["eps"]),
    }


def residual_order(
    weights: Tensor, points: Tensor, extent: Sequence[tuple[float, float]] | None = None, bins: int = 10
) -> float:
    """Return the residual order parameter φ = mean_b w_b / √(mean_b w_b²) over spatial bins.

    w_b is the mean weight in bin b; bins without points do not count. 1 means homogeneous.

    Args:
        weights: one number >= 0 per point, shape (N,): residual-based weights, or |r|.
        points: shape (N, d).
        extent: lower and upper end of each coordinate of the domain; that of the points by default.
        bins: per coordinate; the paper has 10.

    Raises:
        ShapeError, ArgumentError, NonFiniteError: on arguments that cannot be used.

    Returns:
        A number in (0, 1]; NaN where all weights are zero.
    """
    x = check_points(points, "points").detach()
    w = check_finite(weights.detach(), "weights").double().reshape(-1)
    if len(w) != len(x) or not len(w):
        raise ShapeError(f"{len(w)} weights for {len(x)} points", "one for each point", "(N,)")
    if bool((w < 0).any()):
        raise ArgumentError("a weight is negative", "the order parameter is one of magnitudes", "r.abs()")
    check_positive(bins, "bins", integer=True)
    cell = _bin_numbers(x, extent, bins)
    _, place = cell.unique(return_inverse=True)
    counts = torch.bincount(place).double()
    means = torch.bincount(place, weights=w) / counts
    return _homogeneity(means)


def _bin_numbers(x: Tensor, extent: Sequence[tuple[float, float]] | None, bins: int) -> Tensor:
    if extent is None:
        low, high = x.min(0).values, x.max(0).values
    else:
        if len(extent) != x.shape[1]:
            raise ShapeError(f"{len(extent)} intervals in {x.shape[1]} dimensions", "", "[(-1, 1), (0, 1)]")
        low, high = (x.new_tensor([ends[k] for ends in extent]) for k in (0, 1))
        slack = 1e-6 * (high - low)
        if bool(((x < low - slack) | (x > high + slack)).any()) or bool((high <= low).any()):
            raise ArgumentError("points lie outside the extent", "bins cover the domain", "extent=None")
    width = torch.where(high > low, high - low, torch.ones_like(high))
    along = ((x - low) / width * bins).floor().long().clamp(0, bins - 1)
    number = along[:, 0]
    for i in range(1, x.shape[1]):
        # Only occupied cells are numbered on, so that many dimensions do not overflow.
        number = number.unique(return_inverse=True)[1] * bins + along[:, i]
    return number


def _homogeneity(values: Tensor) -> float:
    square = float(values.square().mean())
    return float(values.mean()) / math.sqrt(square) if square else math.nan


def residual_homogeneity(
    residuals: Tensor,
    points: Tensor | None = None,
    extent: Sequence[tuple[float, float]] | None = None,
    bins: int = 10,
) -> float:
    """Return mean|r| / √(mean r²): over the points, or of bin means as :func:`residual_order` has it.

    Args:
        residuals: shape (N,) or (C, N); the components of a point are joined in quadrature.
        points: shape (N, d); without them every point is a bin of its own.
        extent: of the domain.
        bins: per coordinate.

    Returns:
        A number in (0, 1], 1 where |r| is the same everywhere; NaN where r vanishes.
    """
    r = check_finite(residuals.detach(), "residuals").double()
    size = torch.linalg.vector_norm(r.reshape(-1, r.shape[-1]), dim=0)
    return _homogeneity(size) if points is None else residual_order(size, points, extent, bins)


# --- measures --------------------------------------------------------------------------------


def snr_measure(batches: int = BATCHES, name: str = "snr") -> Measure:
    """Return the measure of the gradient's signal-to-noise ratio with a number of batches.

    Its values: "snr" and "order" over weight matrices (all parameters where no layers are known),
    "snr_all" and "order_all" over all parameters, "mean" and "noise" for smoothing, "snr/LAYER".
    """

    def compute(snapshot: Snapshot) -> dict[str, float | Tensor]:
        fewest = min((b.count for b in snapshot.blocks if b.batched), default=batches)
        if snapshot.batch_gradients is not None:
            gradients = snapshot.batch_gradients(min(batches, fewest))
        else:
            r, jacobian = snapshot.residuals_and_jacobian
            number = min(batches, fewest, len(r))
            gradients = batch_gradients(r, jacobian, number, snapshot.blocks)
        every = gradient_snr(gradients)
        layers = snapshot.layers
        mask = weight_entries(layers, gradients.shape[1]) if layers else None
        weights = gradient_snr(gradients, mask) if mask is not None and bool(mask.any()) else every
        values: dict[str, float | Tensor] = {
            "snr": weights.snr,
            "order": weights.order,
            "mean": weights.mean,
            "noise": weights.noise,
            "snr_all": every.snr,
            "order_all": every.order,
        }
        return values | {f"snr/{k}": found.snr for k, found in layer_snr(gradients, layers).items()}

    cost = "one backward pass, or the Jacobian and 2 M P multiply-adds"
    return Measure(name, cost, (), compute)


def _adam(snapshot: Snapshot) -> dict[str, float | Tensor]:
    memory: Mapping[str, Any] = snapshot.memory or {}
    if "first" not in memory or "second" not in memory:
        raise ArgumentError("the optimiser's memory has no moments", "Adam has them", 'memory={"first": ...}')
    iteration = int(memory.get("iteration", snapshot.iteration))
    found = adam_snr(
        memory["first"],
        memory["second"],
        iteration,
        tuple(memory.get("betas", (0.9, 0.999))),
        float(memory.get("eps", 1e-8)),
    )
    return {"snr": found.snr, "effective_step": found.effective_step}


def _spatial(snapshot: Snapshot) -> dict[str, float | Tensor]:
    values: dict[str, float | Tensor] = {}
    for block, rows in zip(snapshot.blocks, snapshot.residual_by_block().values(), strict=True):
        values[f"points/{block.name}"] = residual_homogeneity(rows)
        if block.points is not None:
            places = (block.points, snapshot.extent)
            values[f"bins/{block.name}"] = residual_homogeneity(rows, *places)
            if block.weights is not None:
                values[f"order/{block.name}"] = residual_order(block.weights, *places)
    return values


SNR = measures.add("snr", snr_measure())
ADAM = measures.add("adam", Measure("adam", "O(P)", ("memory",), _adam))
HOMOGENEITY = measures.add(
    "homogeneity",
    Measure(
        "homogeneity", "the residuals, and sorting their points into bins", ("objective", "blocks"), _spatial
    ),
)
