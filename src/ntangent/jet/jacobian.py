"""Per-point Jacobians: one backward pass for a whole column block of residuals.

Collocation points do not influence each other, so the backward pass of sum_i r_i delivers, at the
output of every linear layer, the cotangent of each r_i in the rows of point i. Together with the
layer's input that is the whole Jacobian:
    dr_i/dW[o, j] = sum over rows k of g[k, i, o] · y[k, i, j].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ntangent._base.errors import ShapeError
from ntangent.jet.layers import LINEAR_TAPE

Rows = Callable[[], Tensor]
Call = tuple[Tensor, Tensor | None, Tensor, Tensor]


class _Tape:
    """Collects the linear layers that a function of jets passes through."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __call__(self, weight: Tensor, bias: Tensor | None, y: Tensor, out: Tensor) -> Tensor:
        if not out.requires_grad:
            out.requires_grad_()
        self.calls.append((weight, bias, y, out))
        return out


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
    tape = _Tape()
    LINEAR_TAPE.append(tape)
    try:
        with torch.enable_grad():
            values = rows()
    finally:
        LINEAR_TAPE.pop()
    points = values.shape[1]
    columns = _columns(parameters)
    covered = {id(p) for call in tape.calls for p in call[:2] if p is not None}
    shapes_fit = all(call[3].ndim == 3 and call[3].shape[1] == points for call in tape.calls)
    if not shapes_fit or any(id(p) not in covered and p.numel() for p in parameters):
        return None
    total = sum(p.numel() for p in parameters)
    jacobian = values.new_zeros((values.shape[0], points, total + len(scalars)))
    targets = [call[3] for call in tape.calls] + list(scalars)
    for c, component in enumerate(values):
        if not component.requires_grad:
            continue
        grads = torch.autograd.grad(component.sum(), targets, retain_graph=True, allow_unused=True)
        for (weight, bias, y, _), g in zip(tape.calls, grads, strict=False):
            if g is not None:
                _accumulate(jacobian[c], columns, weight, bias, y.detach(), g)
        for i, g in enumerate(grads[len(tape.calls) :]):
            if g is not None:
                jacobian[c, :, total + i] = g[:, 0]
    return values.detach(), jacobian


def _columns(parameters: Sequence[Tensor]) -> dict[int, slice]:
    columns, start = {}, 0
    for p in parameters:
        columns[id(p)] = slice(start, start + p.numel())
        start += p.numel()
    return columns


def _accumulate(
    block: Tensor, columns: dict[int, slice], weight: Tensor, bias: Tensor | None, y: Tensor, g: Tensor
) -> None:
    """Add one linear layer's part of the Jacobian of one component, shape (N, P)."""
    if id(weight) in columns:
        product = torch.bmm(g.permute(1, 2, 0), y.permute(1, 0, 2))
        block[:, columns[id(weight)]] += product.flatten(1)
    if bias is not None and id(bias) in columns:
        block[:, columns[id(bias)]] += g[0]


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
    return torch.cat([block.reshape(len(values), -1) for block in columns], 1)
