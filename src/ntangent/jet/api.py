"""``jet`` and its relatives: the derivatives of a function at points, in one pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ntangent._base.check import check_choice, check_finite, check_order, check_points, under_transform
from ntangent._base.errors import BackendError, DtypeError, ShapeError
from ntangent.jet.dense import as_dense, module_dtype
from ntangent.jet.execute import EXECUTORS, run_along
from ntangent.jet.reference import check_output, faa_di_bruno, nested_autograd
from ntangent.jet.series import Jet

Field = Callable[[Any], Any]
BACKENDS = (*EXECUTORS, "faa-di-bruno", "autograd")


def variable(x: Tensor, order: int, direction: Tensor | int | None = None) -> Jet:
    """Return the series x + t v itself: the argument from which jets are computed.

    Args:
        x: points, shape (N, d).
        order: order of truncation.
        direction: as for :func:`jet`.

    Returns:
        A jet of degree min(order, 1), shape (N, d).
    """
    directions, several = _directions(x, direction)
    if order == 0:
        return Jet(x[None], 0, len(directions) if several else None)
    tangents = directions[:, None, :].expand(-1, *x.shape)
    return Jet(torch.cat([x[None], tangents]), order, len(directions) if several else None)


@lru_cache(maxsize=16)
def _one(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the only direction in one dimension; not an inference tensor, so that it serves everywhere."""
    with torch.inference_mode(False):
        return torch.ones((1, 1), dtype=dtype, device=device)


def _directions(x: Tensor, direction: Any) -> tuple[Tensor, bool]:
    """Return the directions as a (D, d) tensor and whether the result has a direction axis."""
    d = x.shape[1]
    if direction is None:
        if d != 1:
            raise ShapeError(
                f"a direction is needed in {d} dimensions",
                "derivatives of a function of several variables are taken along a line",
                "jet(f, x, order, direction=0)  # along the first coordinate",
            )
        # Found once, but not where tensors stand for others (compilers, transforms).
        plain = type(x) is Tensor and not torch.compiler.is_compiling() and not under_transform(x)
        return (_one if plain else _one.__wrapped__)(x.dtype, x.device), False
    if isinstance(direction, bool) or not isinstance(direction, int | Tensor):
        raise DtypeError(
            f"direction must be None, an int or a tensor, got {direction!r}",
            "",
            "direction=torch.tensor([1.0, 0.0])",
        )
    if isinstance(direction, int):
        if not -d <= direction < d:
            raise ShapeError(
                f"there is no coordinate {direction} in {d} dimension(s)",
                "",
                f"direction={d - 1}  # the last one",
            )
        return torch.eye(d, dtype=x.dtype, device=x.device)[direction][None], False
    if direction.ndim not in (1, 2) or direction.shape[-1] != d or direction.shape[0] == 0:
        raise ShapeError(
            f"direction has shape {tuple(direction.shape)}",
            f"the points have {d} coordinate(s)",
            f"one direction: shape ({d},); several: shape (D, {d})",
        )
    if direction.dtype != x.dtype:
        raise DtypeError(
            f"direction has dtype {direction.dtype}, the points {x.dtype}", "", f"direction.to({x.dtype})"
        )
    check_finite(direction, "direction")
    return (direction, True) if direction.ndim == 2 else (direction[None], False)


def jet(
    f: Field,
    x: Float[Tensor, "point dimension"],
    order: int,
    direction: Tensor | int | None = None,
    backend: str = "auto",
    missing: str = "raise",
) -> Jet:
    """Return f(x + t v) as a Taylor series in t up to ``order``, at every point, in one pass.

    The result is differentiable any number of times in the parameters of f, in x, and in the
    direction.

    Args:
        f: a module or a function of tensors that maps (N, d) to (N, out). Its operations need
            Taylor rules, except with backend "autograd".
        x: points, shape (N, d), float32 or float64; N may be 0.
        order: n >= 0.
        direction: the line: None where d = 1, the index of a coordinate, a vector of shape (d,),
            or D of them, shape (D, d). Several directions share the value's computation.
        backend: "auto" picks the fastest; "native" the compiled kernels (dense networks on the
            CPU); "eager" the rules of the operations in f, one after the other;
            "faa-di-bruno" the algorithm of the n-TangentProp paper (dense networks);
            "autograd" nested reverse mode (any function whose points are independent).
        missing: what an operation without a Taylor rule does: "raise", or "nested": that one
            operation is differentiated by nested reverse mode, exactly, at a cost that grows
            about 2.5-fold with each order.

    Returns:
        A :class:`Jet`; ``.derivative(k)`` has shape (N, out), or (D, N, out) for several directions.

    Raises:
        ShapeError, DtypeError, NonFiniteError, ArgumentError: on arguments that cannot be used.
        MissingRule: if an operation of f has no Taylor rule.
        BackendError: if the chosen backend cannot serve f.

    Cost:
        A dense layer is one matrix product over (1 + n·D)·N rows, an activation O(n²) multiply-adds
        per neuron; nested autograd grows exponentially in n.

    Example:
        >>> import torch, ntangent as nt
        >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
        >>> nt.jet(torch.sin, x, order=3).derivative(3).allclose(-torch.cos(x))
        True
    """
    x, order = check_points(x), check_order(order)
    check_choice(backend, BACKENDS, "backend")
    check_choice(missing, ("raise", "nested"), "missing")
    check_network(f, x)
    if backend in EXECUTORS:
        tangents, several = _directions(x, direction)
        y = run_along(f, x, tangents, order, len(tangents) if several else None, backend, missing)
        check_output(y, x)
        return y
    directions, several = _directions(x, direction)
    if backend == "autograd":
        rows = nested_autograd(f, x, directions, order)
    else:
        net = as_dense(f)
        if net is None:
            raise BackendError(
                "the Faà di Bruno backend serves dense networks only",
                "f does something else than affine maps and activations",
                'jet(..., backend="eager")',
            )
        rows = faa_di_bruno(net, x, directions, order)
    return Jet(rows, order, len(directions) if several else None)


def check_network(f: Field, x: Tensor) -> None:
    """Raise unless ``f`` can be called and its parameters have the points' dtype."""
    if not callable(f):
        raise DtypeError(f"f is {type(f).__name__}, not a function or module", "", "nt.jet(net, x, order)")
    dtype = module_dtype(f)
    if dtype is not None and dtype != x.dtype:
        raise DtypeError(
            f"the network's parameters are {dtype}, the points {x.dtype}",
            "a silent cast would lose digits or speed",
            f"net.to({x.dtype})" if x.dtype == torch.float64 else f"x.to({dtype})",
        )


def derivatives(
    f: Field,
    x: Float[Tensor, "point dimension"],
    n: int,
    direction: Tensor | int | None = None,
    backend: str = "auto",
) -> Float[Tensor, "order *rest"]:
    """Return the raw derivatives of order 0..n, shape (n+1, N, out) or (n+1, D, N, out).

    Arguments, errors and cost as for :func:`jet`. The factorials are applied at the end, so the
    result may overflow where the coefficients of the jet do not.
    """
    return jet(f, x, n, direction, backend).derivatives()
