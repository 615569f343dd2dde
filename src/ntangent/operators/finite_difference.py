"""The finite-difference twin of every exact operator: ``nt.fd.laplacian(f, x, step=1e-3)``.

The network itself is evaluated at the stencil points, so every collocation point has its own stencil
and the results stay differentiable in the parameters: a residual built from them can be trained. Of
use for comparison; the exact operators cost less and have no step. Total error: C₁ h^accuracy +
C₂ eps / h^order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_order, check_points
from ntangent._base.stencil import Differences as Differences
from ntangent._base.stencil import stencil as stencil
from ntangent.jet.api import check_network, variable
from ntangent.jet.series import Jet
from ntangent.operators import apply as exact
from ntangent.operators.operator import Operator

Function = Callable[[Any], Any]
Step = float | Sequence[float] | None


def _options(step: Step, accuracy: int, scheme: str, options: dict[str, Any]) -> dict[str, Any]:
    chosen = tuple(step) if isinstance(step, Sequence) else step
    return {"method": Differences(chosen, accuracy, scheme), **options}


def evaluate(
    f: Function,
    x: Tensor,
    operators: Sequence[Operator],
    *,
    step: Step = None,
    accuracy: int = 2,
    scheme: str = "central",
    chunk: int | None = None,
) -> list[Tensor]:
    """Apply several operators by finite differences; all stencil points go through f in one batch.

    Args:
        f: maps (n, d) to (n, out), each row on its own; no Taylor rules are needed.
        x: points, shape (N, d).
        operators: operators in d dimensions; mixed derivatives are products of stencils.
        step: h, one number or one for each coordinate; None takes eps^(1/(order + accuracy)).
        accuracy: power of h in the truncation error; even for the central scheme.
        scheme: "central", "forward" or "backward".
        chunk: evaluate this many points at a time.

    Returns:
        One tensor of shape (N, out) per operator.

    Raises:
        ShapeError, DtypeError, NonFiniteError, ArgumentError: on arguments that cannot be used.

    Cost:
        One evaluation of f at N times the number of different stencil points.

    Source:
        Fornberg (1988) for the weights, which are exact fractions.
    """
    return exact.evaluate(f, x, operators, **_options(step, accuracy, scheme, {"chunk": chunk}))


def apply(
    operator: Operator,
    f: Function,
    x: Tensor,
    *,
    step: Step = None,
    accuracy: int = 2,
    scheme: str = "central",
    **options: Any,
) -> Tensor:
    """Apply one operator, shape (N, out); arguments as for :func:`evaluate`."""
    return exact.apply(operator, f, x, **_options(step, accuracy, scheme, options))


def _twin(name: str) -> Callable[..., Tensor]:
    of = getattr(exact, name)

    def twin(
        f: Function,
        x: Tensor,
        *arguments: Any,
        step: Step = None,
        accuracy: int = 2,
        scheme: str = "central",
        **options: Any,
    ) -> Tensor:
        found: Tensor = of(f, x, *arguments, **_options(step, accuracy, scheme, options))
        return found

    twin.__name__ = twin.__qualname__ = name
    twin.__module__ = __name__
    twin.__doc__ = (
        f"Finite-difference twin of :func:`ntangent.operators.{name}`: the same arguments, and step, "
        "accuracy, scheme\n    as for :func:`evaluate`."
    )
    return twin


partial = _twin("partial")
laplacian = _twin("laplacian")
biharmonic = _twin("biharmonic")
polyharmonic = _twin("polyharmonic")
jacobian = _twin("jacobian")
gradient = _twin("gradient")
hessian = _twin("hessian")
divergence = _twin("divergence")
curl = _twin("curl")
material_derivative = _twin("material_derivative")


def taylor_polynomial(
    f: Function,
    x: Tensor,
    order: int,
    *,
    step: Step = None,
    accuracy: int = 2,
    scheme: str = "central",
    **options: Any,
) -> dict[tuple[int, ...], Tensor]:
    """Return the differences for all multi-indices of total order up to ``order``."""
    return exact.taylor_polynomial(f, x, order, **_options(step, accuracy, scheme, options))


def jet(
    f: Function,
    x: Tensor,
    order: int,
    direction: Tensor | int | None = None,
    *,
    step: float | None = None,
    accuracy: int = 2,
    scheme: str = "central",
) -> Jet:
    """Return a Jet whose coefficients are finite differences: what takes a jet can be fed with it.

    Args:
        f: maps (n, d) to (n, out), each row on its own.
        x: points, shape (N, d).
        order: n >= 0.
        direction: the line, as for :func:`ntangent.jet`.
        step: the same h for all orders, in units of the direction; None takes the best one for the
            highest order, eps^(1/(order + accuracy)).
        accuracy: power of h in the truncation error; even for the central scheme.
        scheme: "central", "forward" or "backward".

    Returns:
        A :class:`ntangent.Jet`, differentiable in x and in the parameters of f.

    Raises:
        ShapeError, DtypeError, NonFiniteError, ArgumentError: on arguments that cannot be used.

    Cost:
        One evaluation of f at N (1 + D (order + accuracy)) points at most.
    """
    x, order = check_points(x), check_order(order)
    check_network(f, x)
    line = variable(x, 1, direction)
    tangents = line.data[1:, 0, :] if len(x) else x.new_zeros((line.width, x.shape[1]))
    found = Differences(step, accuracy, scheme).along(f, x, order, tangents)
    rows = [found[0][None]] + [values / math.factorial(k) for k, values in enumerate(found[1:], start=1)]
    return Jet(torch.cat(rows), order, line.directions)


def derivatives(
    f: Function, x: Tensor, n: int, direction: Tensor | int | None = None, **options: Any
) -> Tensor:
    """Return the differences of order 0..n, shape (n+1, N, out) or (n+1, D, N, out); see :func:`jet`."""
    return jet(f, x, n, direction, **options).derivatives()
