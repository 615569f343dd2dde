"""Per-point Jacobians: one backward pass for a whole column block of residuals.

Collocation points do not influence each other, so the backward pass of sum_i r_i delivers, at the
output of every linear layer, the cotangent of each r_i in the rows of point i. Together with the
layer's input that is the whole Jacobian:
    dr_i/dW[o, j] = sum over rows k of g[k, i, o] · y[k, i, j].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ntangent._base.errors import ShapeError
from ntangent.jet.backends import native
from ntangent.jet.dense import Pass
from ntangent.jet.execute import pass_jacobian
from ntangent.jet.layers import TAPE

Rows = Callable[[], Tensor]


@dataclass(frozen=True)
class _Linear:
    """An affine map that was passed: its parameters, its input rows, its output rows."""

    weight: Tensor
    bias: Tensor | None
    input: Tensor
    output: Tensor

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def add(self, block: Tensor, columns: dict[int, slice], g: Tensor) -> None:
        """Add this layer's part of the Jacobian of one component, shape (N, P)."""
        if id(self.weight) in columns:
            product = torch.bmm(g.permute(1, 2, 0), self.input.detach().permute(1, 0, 2))
            block[:, columns[id(self.weight)]] += product.flatten(1)
        if self.bias is not None and id(self.bias) in columns:
            block[:, columns[id(self.bias)]] += g[0]

    def add_sum(self, row: Tensor, columns: dict[int, slice], g: Tensor, points: Tensor) -> None:
        """Add the sum over some points of this layer's part, shape (P,)."""
        part = g[:, points]
        if id(self.weight) in columns:
            inputs = self.input.detach()[:, points]
            row[columns[id(self.weight)]] += (part.flatten(0, 1).T @ inputs.flatten(0, 1)).flatten()
        if self.bias is not None and id(self.bias) in columns:
            row[columns[id(self.bias)]] += part[0].sum(0)


@dataclass(frozen=True)
class _Network:
    """A dense network that was passed as a whole."""

    call: Pass
    output: Tensor

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        return self.call.net.parameters

    def add(self, block: Tensor, columns: dict[int, slice], g: Tensor) -> None:
        """Add the network's part of the Jacobian of one component, shape (N, P)."""
        part = pass_jacobian(self.call, self.call.input, g)
        start = 0
        for p in self.parameters:
            if id(p) in columns:
                block[:, columns[id(p)]] += part[:, start : start + p.numel()]
            start += p.numel()

    def add_sum(self, row: Tensor, columns: dict[int, slice], g: Tensor, points: Tensor) -> None:
        """Add the sum over some points of the network's part, shape (P,)."""
        given: native.Argument = self.call.input
        if isinstance(given, Tensor):
            given = given.detach()[:, points].contiguous()
        else:
            given = given[0].detach()[points], given[1]
        total = pass_jacobian(self.call, given, g[:, points]).sum(0)
        start = 0
        for p in self.parameters:
            if id(p) in columns:
                row[columns[id(p)]] += total[start : start + p.numel()]
            start += p.numel()


class _Tape:
    """Collects the layers that a function of jets passes through."""

    def __init__(self) -> None:
        self.calls: list[_Linear | _Network] = []

    def _note(self, call: _Linear | _Network) -> Tensor:
        if not call.output.requires_grad:
            call.output.requires_grad_()
        self.calls.append(call)
        return call.output

    def linear(self, weight: Tensor, bias: Tensor | None, input: Tensor, output: Tensor) -> Tensor:
        return self._note(_Linear(weight, bias, input, output))

    def dense(self, call: Pass, output: Tensor) -> Tensor:
        return self._note(_Network(call, output))


def per_point_jacobian(
    rows: Rows, parameters: Sequence[Tensor], scalars: Sequence[Tensor] = ()
) -> tuple[Float[Tensor, "component point"], Float[Tensor, "component point parameter"]] | None:
    """Return residual rows and their Jacobian, or None where its structure does not hold.

    Args:
        rows: evaluates the residual components, shape (C, N); component c at point i may depend
            on point i only.
        parameters: tensors to differentiate in, all of them weights or biases of linear layers.
        scalars: further leaves of shape (N, 1), one value per point (unknown parameters expanded
            over the points); one column each, after those of the parameters.

    Returns:
        The rows, shape (C, N), and the Jacobian, shape (C, N, P + len(scalars)), with the
        parameters flattened in order; None if a parameter enters by another way than a linear
        layer over points, so that a general method is needed.

    Cost:
        One forward pass, C backward passes that skip the parameters, and C·N·P multiply-adds per
        stored order.
    """
    values, tape = _taped(rows)
    points = values.shape[1]
    columns = _columns(parameters)
    if not _covers(tape, points, parameters):
        return None
    total = sum(p.numel() for p in parameters)
    jacobian = values.new_zeros((values.shape[0], points, total + len(scalars)))
    targets = [call.output for call in tape.calls] + list(scalars)
    for c, component in enumerate(values):
        if not component.requires_grad:
            continue
        grads = torch.autograd.grad(component.sum(), targets, retain_graph=True, allow_unused=True)
        for call, g in zip(tape.calls, grads, strict=False):
            if g is not None:
                if not _fits(call, points):  # calls at other points may only pass by
                    return None
                call.add(jacobian[c], columns, g)
        for i, g in enumerate(grads[len(tape.calls) :]):
            if g is not None:
                jacobian[c, :, total + i] = g[:, 0]
    return values.detach(), jacobian


def grouped_gradients(
    rows: Rows, parameters: Sequence[Tensor], groups: Sequence[Tensor], scalars: Sequence[Tensor] = ()
) -> Float[Tensor, "group parameter"] | None:
    """Return the gradient of the sum of squares over each of several groups of points.

    Args:
        rows: evaluates the residual components, shape (C, N); component c at point i may depend
            on point i only.
        parameters: tensors to differentiate in, all of them weights or biases of linear layers.
        groups: indices of the points of each group.
        scalars: further leaves of shape (N, 1), as for :func:`per_point_jacobian`; one column each,
            after those of the parameters.

    Returns:
        Shape (G, P + len(scalars)): d/dθ of the sum of r_ci² over c and over the points i of the group;
        None where the structure does not hold, as for :func:`per_point_jacobian`.

    Cost:
        One forward and one backward pass for all groups together; no Jacobian is stored beyond that
        of one group.
    """
    values, tape = _taped(rows)
    if not _covers(tape, values.shape[1], parameters):
        return None
    columns = _columns(parameters)
    own = sum(p.numel() for p in parameters)
    found = values.new_zeros((len(groups), own + len(scalars))).detach()
    targets = [call.output for call in tape.calls] + list(scalars)
    grads = torch.autograd.grad(values.square().sum(), targets, allow_unused=True)
    for i, g in enumerate(grads[len(tape.calls) :]):
        if g is not None:
            found[:, own + i] = torch.stack([g[points, 0].sum() for points in groups])
    for call, g in zip(tape.calls, grads, strict=False):
        if g is not None:
            if not _fits(call, values.shape[1]):
                return None
            for row, points in zip(found, groups, strict=True):
                call.add_sum(row, columns, g, points)
    return found


def _taped(rows: Rows) -> tuple[Tensor, _Tape]:
    tape = _Tape()
    token = TAPE.set(tape)
    try:
        with torch.enable_grad():
            return rows(), tape
    finally:
        TAPE.reset(token)


def _covers(tape: _Tape, points: int, parameters: Sequence[Tensor]) -> bool:
    covered = {id(p) for call in tape.calls if _fits(call, points) for p in call.parameters}
    return all(id(p) in covered or not p.numel() for p in parameters)


def _fits(call: _Linear | _Network, points: int) -> bool:
    return call.output.ndim == 3 and call.output.shape[1] == points


def _columns(parameters: Sequence[Tensor]) -> dict[int, slice]:
    columns, start = {}, 0
    for p in parameters:
        columns[id(p)] = slice(start, start + p.numel())
        start += p.numel()
    return columns


def batched_jacobian(values: Tensor, inputs: Sequence[Tensor], chunk: int = 64) -> Tensor:
    """Return d values / d inputs for any graph, by vectorised backward passes.

    Args:
        values: shape (M,).
        inputs: leaves, P numbers together.
        chunk: how many rows are differentiated at once; memory grows with it.

    Returns:
        Shape (M, P).

    Cost:
        M backward passes in groups of ``chunk``.
    """
    if values.ndim != 1:
        raise ShapeError(f"values have shape {tuple(values.shape)}", "one row per value", "values.flatten()")
    leaves = list(inputs)

    def pull_back(seed: Tensor) -> tuple[Tensor, ...]:
        grads = torch.autograd.grad(values, leaves, grad_outputs=seed, retain_graph=True, allow_unused=True)
        return tuple(torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True))

    seeds = torch.eye(len(values), dtype=values.dtype, device=values.device)
    columns = torch.func.vmap(pull_back, chunk_size=chunk)(seeds)
    return torch.cat([block.detach().reshape(len(values), -1) for block in columns], 1)
