"""Products with a per-point Jacobian that is never formed.

The Jacobian of one residual component at point i is, for each linear layer, the sum over rows k of
g[k, i, :] ⊗ y[k, i, :] (see ``jacobian``). The factors take rows · points · width numbers where the
Jacobian takes points · parameters, and a product with them costs about one pass through the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ntangent.jet.activations import IDENTITY
from ntangent.jet.arithmetic import row_count
from ntangent.jet.backends import differentiable, stacked
from ntangent.jet.backends.calls import spread
from ntangent.jet.dense import Pass
from ntangent.jet.jacobian import Rows, _columns, _Linear, _Network, _Tape
from ntangent.jet.layers import TAPE


@dataclass(frozen=True)
class _Factor:
    """One layer's part of the Jacobian of one component.

    Args:
        weight, bias: its columns in θ, or None where it is not trained.
        shape: of the weight.
        input: y, shape (K, N, in).
        cotangent: g, shape (K, N, out).
    """

    weight: slice | None
    bias: slice | None
    shape: tuple[int, int]
    input: Tensor
    cotangent: Tensor

    def push(self, v: Tensor) -> Tensor:
        """Return this part of J v, shape (N,)."""
        result = v.new_zeros(self.input.shape[1])
        if self.weight is not None:
            result = result + ((self.input @ v[self.weight].view(self.shape).T) * self.cotangent).sum((0, 2))
        if self.bias is not None:
            result = result + self.cotangent[0] @ v[self.bias]
        return result

    def pull(self, w: Tensor, out: Tensor) -> None:
        """Add this part of J' w to ``out``, shape (P,)."""
        g = self.cotangent * w[None, :, None]
        if self.weight is not None:
            out[self.weight] += (g.flatten(0, 1).T @ self.input.flatten(0, 1)).reshape(-1)
        if self.bias is not None:
            out[self.bias] += g[0].sum(0)


@dataclass(frozen=True)
class ImplicitJacobian:
    """J of C components at N points, shape (C·N, P), as factors.

    Args:
        rows: the residuals, shape (C, N).
        factors: for each component, the parts of its layers.
        scalars: for each component, the columns of the scalar leaves, shape (N, S); they come last.
        parameters: P without the scalars.
    """

    rows: Tensor
    factors: tuple[tuple[_Factor, ...], ...]
    scalars: tuple[Tensor, ...]
    parameters: int

    def push(self, v: Tensor) -> Tensor:
        """Return J v, shape (C·N,), for v of shape (P,)."""
        tail = v[self.parameters :]
        parts = []
        for factors, scalars in zip(self.factors, self.scalars, strict=True):
            total = scalars @ tail
            for factor in factors:
                total = total + factor.push(v)
            parts.append(total)
        return torch.cat(parts)

    def pull(self, w: Tensor) -> Tensor:
        """Return J' w, shape (P,), for w of shape (C·N,)."""
        components, points = self.rows.shape
        out = w.new_zeros(self.parameters + self.scalars[0].shape[1])
        for c, part in enumerate(w.view(components, points)):
            out[self.parameters :] += self.scalars[c].T @ part
            for factor in self.factors[c]:
                factor.pull(part, out)
        return out


def implicit_jacobian(
    rows: Rows, parameters: Sequence[Tensor], scalars: Sequence[Tensor] = ()
) -> ImplicitJacobian | None:
    """Return residual rows with their Jacobian as factors, or None where it has not that structure.

    Arguments as for :func:`ntangent.jet.jacobian.per_point_jacobian`.

    Cost:
        One forward pass and, for each component, a backward pass by torch operations; memory two
        numbers for each component, stored order, point and neuron.
    """
    tape = _Tape()
    token = TAPE.set(tape)
    try:
        with torch.enable_grad():
            values = rows()
    finally:
        TAPE.reset(token)
    points, columns = values.shape[1], _columns(parameters)
    covered = {id(p) for call in tape.calls for p in call.parameters}
    shapes_fit = all(call.output.ndim == 3 and call.output.shape[1] == points for call in tape.calls)
    if not shapes_fit or any(id(p) not in covered and p.numel() for p in parameters):
        return None
    targets = [call.output for call in tape.calls] + list(scalars)
    layers = [_layers(call, columns) for call in tape.calls]
    factors, tails = [], []
    for component in values:
        found: list[_Factor] = []
        tail = values.new_zeros((points, len(scalars)))
        if component.requires_grad:
            grads = torch.autograd.grad(component.sum(), targets, retain_graph=True, allow_unused=True)
            for parts, g in zip(layers, grads, strict=False):
                if g is not None and parts is not None:
                    found.extend(parts.factors(g, columns))
            for i, g in enumerate(grads[len(tape.calls) :]):
                if g is not None:
                    tail[:, i] = g[:, 0]
        factors.append(tuple(found))
        tails.append(tail)
    total = sum(p.numel() for p in parameters)
    return ImplicitJacobian(values.detach(), tuple(factors), tuple(tails), total)


@dataclass(frozen=True)
class _Layers:
    """The affine maps inside one call: of each its parameters, its input and its output rows."""

    maps: list[_Linear]
    end: Tensor

    def factors(self, g: Tensor, columns: dict[int, slice]) -> list[_Factor]:
        """Return the factors for the cotangent of the call's output."""
        outputs = [m.output for m in self.maps]
        grads = torch.autograd.grad(self.end, outputs, g, retain_graph=True, allow_unused=True)
        return [
            _Factor(
                columns.get(id(m.weight)),
                None if m.bias is None else columns.get(id(m.bias)),
                (m.weight.shape[0], m.weight.shape[1]),
                m.input.detach(),
                h.detach(),
            )
            for m, h in zip(self.maps, grads, strict=True)
            if h is not None and (id(m.weight) in columns or id(m.bias) in columns)
        ]


@dataclass(frozen=True)
class _Stack:
    """The same of a pass by torch operations that left all inputs behind."""

    made: Pass

    def factors(self, g: Tensor, columns: dict[int, slice]) -> list[_Factor]:
        """Return the factors for the cotangent of the call's output."""
        net, (layout, kept) = self.made.net, self.made.stacked
        params = [None if p is None else p.detach() for p in net.interleaved]
        found = []
        for layer, h in stacked.cotangents(layout, kept, params, g.contiguous()):
            weight, bias = net.weights[layer], net.biases[layer]
            if id(weight) in columns or id(bias) in columns:
                places = columns.get(id(weight)), None if bias is None else columns.get(id(bias))
                shape = weight.shape[0], weight.shape[1]
                found.append(_Factor(*places, shape, kept.inputs[layer], h))
        return found


def _layers(call: _Linear | _Network, columns: dict[int, slice]) -> _Layers | _Stack | None:
    """Return the layers of a call; a network of the compiled kernels is evaluated again by torch.

    None where none of its parameters is trained.
    """
    if not any(id(p) in columns for p in call.parameters):
        return None
    if isinstance(call, _Linear):
        return _Layers([call], call.output)
    maps: list[_Linear] = []
    made = call.call
    if made.stacked is not None and made.stacked[1] is not None:
        return _Stack(made)
    given, net = made.input, made.net
    given = given.detach() if isinstance(given, Tensor) else spread(given[0].detach(), given[1].detach())
    y = given if made.collapsed else differentiable.fill_rows(given, row_count(made.structure, made.order))
    with torch.enable_grad():
        for weight, bias, row in zip(net.weights, net.biases, net.activations, strict=True):
            z = y @ weight.detach().mT
            if bias is not None:
                z = torch.cat([z[:1] + bias.detach(), z[1:]])
            if not z.requires_grad:
                z.requires_grad_()
            maps.append(_Linear(weight, bias, y, z))
            y = z
            if row is not IDENTITY:
                y = differentiable.activation(z, row, made.order, made.structure, made.collapsed)
    return _Layers(maps, y)
