"""Runs a function on a series by the fastest means that serve it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_choice
from ntangent._base.errors import BackendError, DtypeError
from ntangent.jet.algebra import Algebra
from ntangent.jet.arithmetic import Structure
from ntangent.jet.backends import native, stacked
from ntangent.jet.backends.calls import spread
from ntangent.jet.dense import Dense, Pass, as_dense
from ntangent.jet.dispatch import expanding
from ntangent.jet.layers import TAPE
from ntangent.jet.series import Jet, lift

Field = Callable[[Any], Any]
# Those that evaluate a function on a series; the other backends of `jet` start from points.
EXECUTORS = ("auto", "native", "eager")


def run(f: Field, argument: Jet, backend: str = "auto", missing: str = "raise") -> Jet:
    """Return f of a series.

    Args:
        f: a module or function of tensors.
        argument: the series it is applied to.
        backend: "native" for the compiled kernels, which serve dense networks on the CPU; "eager"
            for the rules of the operations in f; "auto" for the kernels where they serve, else dense
            networks as one operation with a backward pass of its own, else the rules.
        missing: what an operation without a rule does, "raise" or "nested"; see :func:`jet`.

    Raises:
        MissingRule: if an operation of f has no Taylor rule.
        BackendError: if "native" is asked for and cannot serve f; it says why.
    """
    check_choice(backend, EXECUTORS, "backend")
    if backend != "eager":
        net, obstacle = native_network(f, argument.data[0], argument.structure, argument.order)
        if net is not None:
            call = Pass(net, argument.data.contiguous(), argument.structure, argument.order)
            return Jet(native_pass(call), argument.order, argument.directions)
        if backend == "native":
            raise BackendError("the native backend cannot serve this call", obstacle, 'backend="eager"')
        rows = stacked_pass(f, argument)
        if rows is not None:
            return Jet(rows, argument.order, argument.directions)
    with expanding(missing):
        y = f(argument)
    if isinstance(y, Tensor):
        y = lift(y, argument)
    if not isinstance(y, Jet):
        raise DtypeError(f"f returned {type(y).__name__}", "it must return one tensor", "lambda x: f(x)[0]")
    return y


def native_network(f: Field, x: Tensor, structure: Structure, order: int = 1) -> tuple[Dense | None, str]:
    """Return the dense network that the compiled kernels would run, or None and the reason.

    Args:
        f: the function.
        x: the points, shape (N, d).
        structure: number of lines, or the algebra of the rows.
        order: of truncation.
    """
    if not native.available():
        return None, native.reason()
    if order > native.order_limit():
        return None, f"the native kernels stop at order {native.order_limit()}, got {order}"
    if not x.is_cpu:
        return None, f"the kernels run on the CPU, the points are on {x.device}"
    if x.ndim != 2:
        return None, "the kernels take values of shape (points, dimension)"
    if isinstance(structure, Algebra) and (obstacle := native.obstacle(structure)):
        return None, obstacle
    net = as_dense(f)
    if net is None:
        return None, "f does something else than affine maps and activations"
    unserved = [row.name for row in net.activations if not native.serves(row)]
    if unserved:
        return None, f"the kernels were built without {', '.join(unserved)}"
    return net, ""


def run_along(
    f: Field,
    x: Tensor,
    tangents: Tensor,
    order: int,
    directions: int | Algebra | None = None,
    backend: str = "auto",
    missing: str = "raise",
) -> Jet:
    """Return f of the series at points that all have the same tangents.

    Args:
        f: a module or function of tensors.
        x: points, shape (N, d).
        tangents: the rows of order 1, shape (L, d).
        order: order of truncation.
        directions: as for :class:`Jet`: L or None for lines, or the algebra of the rows.
        backend: as for :func:`run`.
        missing: as for :func:`run`.

    Raises:
        MissingRule, BackendError: as for :func:`run`.
    """
    if order and backend != "eager":
        check_choice(backend, EXECUTORS, "backend")
        net, _ = native_network(f, x, directions or 1, order)
        if net is not None:
            return Jet(native_pass(Pass(net, (x, tangents), directions or 1, order)), order, directions)
    rows = spread(x, tangents) if order else x[None]
    return run(f, Jet(rows, order, directions), backend, missing)


def native_pass(call: Pass) -> Tensor:
    """Return the rows of a dense network by the compiled kernels."""
    tape, net = TAPE.get(), call.net
    weights, biases = net.weights, net.biases
    if tape is not None:  # which differentiates in the parameters by itself
        weights = tuple(w.detach() for w in weights)
        biases = tuple(None if b is None else b.detach() for b in biases)
    out = native.dense_jet(
        call.input, call.structure, call.order, weights, biases, net.activations, collapsed=call.collapsed
    )
    return out if tape is None else tape.dense(call, out)


def stacked_pass(f: Field, argument: Jet) -> Tensor | None:
    """Return the rows of a dense network as one operation on any device; None where that does not serve."""
    x = argument.data
    net = as_dense(f) if x.ndim == 3 and stacked.usable(x) else None
    if net is None or any(p.dtype != x.dtype or p.device != x.device for p in net.parameters):
        return None
    if any(w.ndim != 2 for w in net.weights) or net.weights[0].shape[1] != x.shape[2]:
        return None
    params = net.interleaved
    if not all(p is None or stacked.usable(p) for p in params):
        return None
    layout = stacked.layout_of(net.activations, argument.order, argument.structure)
    tape = TAPE.get()
    if tape is None:
        return stacked.network(layout, x, params)
    fixed = [None if p is None else p.detach() for p in params]  # the tape differentiates in them by itself
    if x.requires_grad:
        out, kept = stacked.network(layout, x, fixed), None
    else:
        out, kept = stacked.forward(layout, x.contiguous(), fixed)
    return tape.dense(Pass(net, x, argument.structure, argument.order, stacked=(layout, kept)), out)


def pass_jacobian(call: Pass, input: native.Argument, g: Tensor) -> Tensor:
    """Return the gradient of every point's <g, output of a pass> in all parameters, shape (N, P).

    Args:
        call: the pass.
        input: of the pass, or what of it belongs to some of the points.
        g: cotangent of the rows at these points, shape (rows, N, c).
    """
    net = call.net
    with torch.no_grad():
        if call.stacked is None:
            return native.dense_jacobian(
                input, call.structure, call.order, net.weights, net.biases, net.activations,
                g.contiguous(), collapsed=call.collapsed,
            )  # fmt: skip
        layout, kept = call.stacked
        params = net.interleaved
        if kept is None or input is not call.input:
            assert isinstance(input, Tensor)
            kept = stacked.forward(layout, input.detach().contiguous(), params)[1]
        return stacked.jacobian(layout, kept, params, g)
