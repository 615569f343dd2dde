"""Information in hidden activations by joint binning, and the saturation of neurons.

The network is deterministic, so the mutual information of input and layer, I(X; T), is the entropy of
the binned layer, H(T). It is estimated by counting joint states of all neurons of a layer, which N
samples bound by log₂ N bits: a value near the bound says that almost every sample has a state of its own,
not how much information there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ntangent._base.check import check_choice, check_finite, check_positive
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError
from ntangent.diagnose.snapshot import Measure, Snapshot, measures

BINNINGS = ("width", "population")


@dataclass(frozen=True)
class LayerInformation:
    """What binning says about a layer.

    Args:
        information: plug-in estimate of H(T) in bits; too low by about (states - 1)/(2 N ln 2).
        corrected: with that Miller-Madow term added, and not above the bound.
        bound: log₂ N, the largest value N samples can show.
        states: joint states that occur.
        samples: N.
        saturation: mean over neurons of the fraction of samples in their first or last bin.
    """

    information: float
    corrected: float
    bound: float
    states: int
    samples: int
    saturation: float


def bin_activations(activations: Tensor, bins: int = 30, binning: str = "width") -> tuple[Tensor, Tensor]:
    """Return the bin of every activation, and the number of bins of every neuron.

    Args:
        activations: shape (N, width).
        bins: for "width", bins of a neuron with the average range; for "population", of every neuron.
        binning: "width": all neurons of the layer share one bin width, mean range / ``bins``; a neuron
            gets int(range/width) bins between its ends, one at least, so that neurons that hardly move
            carry one state (the paper's rule). "population": bins with equally many samples.

    Returns:
        Bin numbers, shape (N, width), int64, from 0; and bins per neuron, shape (width,).
    """
    a = _check_activations(activations)
    check_choice(binning, BINNINGS, "binning")
    check_positive(bins, "bins", integer=True)
    if binning == "population":
        return _equal_population(a, bins)
    low, high = a.min(0).values, a.max(0).values
    extent = high - low
    width = extent.mean() / bins
    # A layer that is constant has one state; width 0 would divide by zero.
    counts = (extent / width).long().clamp_min(1) if float(width) else torch.ones_like(extent).long()
    # The upper edge lies a little above the maximum, which falls into the last bin.
    place = ((a - low) / (extent + 1e-6) * counts).floor().long()
    return place.clamp_min(0).minimum(counts - 1), counts


def _equal_population(a: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    ranks = torch.empty(a.shape, dtype=torch.long, device=a.device)
    for v in range(a.shape[1]):
        # Equal values share the lowest rank of their group: a tie is never torn apart.
        _, inverse, counts = a[:, v].unique(return_inverse=True, return_counts=True)
        first = torch.cat([counts.new_zeros(1), counts.cumsum(0)[:-1]])
        ranks[:, v] = first[inverse]
    place = (ranks * bins).div(len(a), rounding_mode="floor")
    return place, torch.full((a.shape[1],), bins, device=a.device)


def _check_activations(activations: Any) -> Tensor:
    if not isinstance(activations, Tensor) or not activations.is_floating_point():
        raise DtypeError(f"activations are {type(activations).__name__}", "", "a float tensor (N, width)")
    if activations.ndim != 2 or not activations.numel():
        raise ShapeError(
            f"activations have shape {tuple(activations.shape)}", "one row for each sample", "(N, width)"
        )
    return check_finite(activations.detach(), "activations").double()


def joint_entropy(codes: Tensor, correction: str = "none") -> float:
    """Return the entropy in bits of the rows of an integer tensor.

    Args:
        codes: shape (N, width).
        correction: "none" for the plug-in estimate -Σ p log₂ p, whose bias is about
            -(K - 1)/(2 N ln 2) for K states; "miller-madow" adds that term with the K that occur.
    """
    check_choice(correction, ("none", "miller-madow"), "correction")
    counts = _state_counts(codes)
    samples = float(counts.sum())
    p = counts / samples
    plain = max(0.0, -float((p * np.log2(p)).sum()))
    return plain + (len(counts) - 1) / (2 * samples * math.log(2)) if correction != "none" else plain


def _state_counts(codes: Tensor) -> Any:
    if codes.ndim != 2 or not len(codes) or codes.is_floating_point():
        raise ShapeError(f"codes have shape {tuple(codes.shape)}, {codes.dtype}", "", "integers, (N, width)")
    rows = np.ascontiguousarray(codes.detach().cpu().numpy())
    # Rows are compared as blocks of bytes: exact, and far faster than column by column.
    blocks = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)
    return np.unique(blocks, return_counts=True)[1].astype(float)


def saturation(activations: Tensor, bins: int = 30, binning: str = "width") -> float:
    """Return the mean over neurons of the fraction of samples in their first or last bin, in [0, 1].

    A neuron with a single bin counts as saturated.
    """
    return _saturation(*bin_activations(activations, bins, binning))


def _saturation(codes: Tensor, counts: Tensor) -> float:
    return float(((codes == 0) | (codes == counts - 1)).double().mean())


def activation_information(
    activations: Tensor | Mapping[str, Tensor], bins: int = 30, binning: str = "width"
) -> dict[str, LayerInformation]:
    """Return the information and the saturation of every layer.

    Args:
        activations: by layer, shape (N, width) each, see :func:`record_activations`; a single tensor is
            the layer "layer".
        bins: see :func:`bin_activations`.
        binning: see :func:`bin_activations`.

    Returns:
        One :class:`LayerInformation` per layer, in their order.

    Cost:
        O(N width log N) per layer.

    Source:
        Anagnostopoulos et al. (arXiv 2403.18494) for "width"; Miller (1955) for the correction.
    """
    named = activations if isinstance(activations, Mapping) else {"layer": activations}
    if not named:
        raise ArgumentError("no layer was recorded", "", "record_activations(net, x)")
    found = {}
    for name, a in named.items():
        codes, counts = bin_activations(a, bins, binning)
        small = codes.to(torch.int16) if bins <= 1000 and int(counts.max()) < 2**15 else codes
        plain, samples = joint_entropy(small), len(codes)
        states = len(_state_counts(small))
        bound = math.log2(samples)
        corrected = min(bound, plain + (states - 1) / (2 * samples * math.log(2)))
        found[name] = LayerInformation(plain, corrected, bound, states, samples, _saturation(codes, counts))
    return found


def record_activations(
    net: Callable[[Tensor], Any], x: Tensor, layers: Mapping[str, nn.Module] | None = None
) -> dict[str, Tensor]:
    """Return the hidden activations of a network at points.

    Args:
        net: any module that maps (N, d) to (N, out).
        x: shape (N, d).
        layers: name -> module whose output is recorded. Without it: what enters each ``nn.Linear``
            after another ``nn.Linear`` has been passed, named by the module it enters. These are the
            hidden activations of any dense network, however it calls its activations.

    Returns:
        By layer, shape (N, width) each, detached, in the order of the forward pass.

    Cost:
        One forward pass and the memory of what is recorded.
    """
    if not isinstance(net, nn.Module):
        raise DtypeError(f"net is {type(net).__name__}", "hooks are put on modules", "an nn.Module")
    recorder = _Recorder()
    handles = []
    try:
        if layers is not None:
            for name, module in layers.items():
                handles.append(module.register_forward_hook(recorder.output(name)))
        else:
            for name, module in net.named_modules():
                if isinstance(module, nn.Linear):
                    handles.append(module.register_forward_pre_hook(recorder.input(name)))
        with torch.no_grad():
            net(x)
    finally:
        for handle in handles:
            handle.remove()
    if not recorder.found:
        raise ArgumentError(
            "no hidden activation was met",
            "the network has fewer than two nn.Linear in a row, or calls them otherwise",
            'record_activations(net, x, layers={"hidden": net.some_module})',
        )
    return recorder.found


class _Recorder:
    """Hooks that keep what passes."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}
        self._first: Tensor | None = None
        self._seen: list[Tensor] = []

    def output(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._keep(name, output)

        return hook

    def input(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: Any) -> None:
            value = inputs[0]
            if self._first is None:
                self._first = value
            # Several layers may read one tensor (encoders read x; gates read the same activation).
            elif value is not self._first and all(value is not seen for seen in self._seen):
                self._seen.append(value)
                self._keep(name, value)

        return hook

    def _keep(self, name: str, value: Any) -> None:
        if not isinstance(value, Tensor) or value.ndim != 2:
            raise ShapeError(
                f"the activation at {name!r} is no tensor of shape (N, width)", "", "layers={...}"
            )
        number, unique = 2, name
        while unique in self.found:  # a module that is passed several times
            unique, number = f"{name}#{number}", number + 1
        self.found[unique] = value.detach().clone()


def information_measure(bins: int = 30, binning: str = "width", name: str = "information") -> Measure:
    """Return the measure of activation information and saturation with its settings."""

    def compute(snapshot: Snapshot) -> dict[str, float | Tensor]:
        values: dict[str, float | Tensor] = {}
        for layer, found in activation_information(snapshot.recorded, bins, binning).items():
            values[f"information/{layer}"] = found.information
            values[f"corrected/{layer}"] = found.corrected
            values[f"saturation/{layer}"] = found.saturation
            values["bound"] = found.bound
        return values

    return Measure(name, "a forward pass and O(N width log N) per layer", ("activations",), compute)


INFORMATION = measures.add("information", information_measure())
