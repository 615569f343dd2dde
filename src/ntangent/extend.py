"""The one door for extenders: activations, Taylor rules of torch functions, tableaux of ODE methods.

An extension is registered once, when the module that defines it is imported, and then serves
every network, order and backend that runs on rules. Check it with one call of
``ntangent.testing``: ``check_activation(row, definition)`` or ``check_rule(function, *inputs)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.overrides
from torch import Tensor

from ntangent._base.check import check_order
from ntangent._base.errors import ArgumentError
from ntangent.jet import layers
from ntangent.jet.activations import ACTIVATIONS, Activation, States, evaluate
from ntangent.jet.dispatch import name_of
from ntangent.jet.dispatch import rule as rule
from ntangent.jet.layers import activation_rule, linear_rule
from ntangent.jet.layers import rules as rules
from ntangent.jet.polynomial import Polynomial, variables
from ntangent.jet.series import Jet
from ntangent.ode import methods

__all__ = ["activation", "as_function", "bilinear", "linear", "rule", "rules", "tableau"]


def activation(
    name: str,
    states: int,
    write: Callable[..., tuple[Sequence[Polynomial], Polynomial]],
    initial: Callable[[Tensor], States],
    functions: Sequence[Any] = (),
    *,
    slope: Callable[[Tensor], States] | None = None,
    sample: tuple[float, float] = (-2.0, 2.0),
) -> Activation:
    """Register an activation, written as a polynomial differential equation.

    Args:
        name: unique name of the row.
        states: number of states z1..zm.
        write: maps the polynomials x, z1, ..., zm to (flow, output): dz_i/dx and the activation,
            as polynomials.
        initial: maps a tensor x0 to the tuple of states z(x0), elementwise.
        functions: torch functions that compute this activation; each gets this row as its rule.
        slope: values of the flow at x0 where evaluating its polynomials would lose digits.
        sample: an interval inside the domain, from which tests draw arguments.

    Returns:
        The row. :func:`as_function` makes a function of it where torch has none.

    Raises:
        ArgumentError: if the name or a function is taken, or the equation and ``states`` disagree.

    Example:
        The normal distribution function Φ' = φ, φ' = -x φ, which torch calls ``special.ndtr``:

        >>> import math, torch, ntangent as nt
        >>> row = nt.extend.activation(
        ...     "ndtr", 2, lambda x, p, g: ([g, -x * g], p),
        ...     initial=lambda x: (torch.special.ndtr(x), torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)),
        ...     functions=[torch.special.ndtr],
        ... )
        >>> x = torch.zeros(1, 1, dtype=torch.float64)
        >>> round(nt.jet(torch.special.ndtr, x, order=3).derivative(3).item() * math.sqrt(2 * math.pi), 12)
        -1.0
    """
    states = check_order(states, "states")
    flow, output = write(*variables(states))
    if len(flow) != states or any(p.arity != states + 1 for p in (*flow, output)):
        raise ArgumentError(
            f"the activation {name!r} has {states} state(s) and {len(flow)} equation(s)",
            "every state needs the polynomial of its derivative",
            "activation(name, 1, lambda x, y: ([1 - y**2], y), ...)",
        )
    taken = [f for f in functions if f in rules()]
    if taken:
        raise ArgumentError(
            f"{name_of(taken[0])} already has a Taylor rule",
            "two rules would make the result depend on import order",
            f"ntangent.extend.rules().pop({name_of(taken[0])}) first",
        )
    row = ACTIVATIONS.add(name, Activation(name, initial, tuple(flow), output, slope, (), sample))
    activation_rule(lambda: row, *functions)
    return row


def as_function(row: Activation) -> Callable[[Tensor], Tensor]:
    """Return an activation as a function of tensors and of series, for use in networks.

    On tensors it evaluates the states and the output of the row; on series it is the row.

    Example:
        A Gaussian bump of width one half:

        >>> import torch, ntangent as nt
        >>> row = nt.extend.activation(
        ...     "bump", 1, lambda x, y: ([-8 * x * y], y), initial=lambda x: (torch.exp(-4 * x * x),)
        ... )
        >>> bump = nt.extend.as_function(row)
        >>> x = torch.zeros(1, 1, dtype=torch.float64)
        >>> bump(x).item(), nt.jet(bump, x, order=2).derivative(2).item()
        (1.0, -8.0)
    """

    def apply(x: Any) -> Any:
        if torch.overrides.has_torch_function_unary(x):
            return torch.overrides.handle_torch_function(apply, (x,), x)
        return evaluate(row.output, (x, *row.initial(x)))

    apply.__name__ = apply.__qualname__ = row.name
    activation_rule(lambda: row, apply)
    return apply


def linear(*functions: Any, arguments: int = 1) -> None:
    """Register torch functions that are linear in their first ``arguments`` arguments jointly.

    Linear means f(a + b) = f(a) + f(b) and f(λa) = λ f(a): no constant term, no bias. The other
    arguments must be constants. An argument that is a list of tensors counts as one.

    Raises:
        ArgumentError: if a function has a rule already.

    Example:
        >>> import torch, ntangent as nt
        >>> nt.extend.linear(torch.trapezoid)
        >>> x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2)
        >>> series = nt.jet(lambda x: torch.trapezoid(x**2, dim=1)[:, None], x, order=2, direction=0)
        >>> series.derivative(2).flatten().tolist()
        [1.0, 1.0, 1.0]
    """
    linear_rule(*functions, arguments=arguments)


def bilinear(*functions: Any) -> None:
    """Register torch functions of two tensors that are linear in each of them.

    Either or both may be series; further arguments are constants and are passed on.

    Raises:
        ArgumentError: if a function has a rule already.

    Example:
        >>> import torch, ntangent as nt
        >>> nt.extend.bilinear(torch.kron)
        >>> x = torch.tensor([[3.0]], dtype=torch.float64)
        >>> nt.jet(lambda x: torch.kron(x, x), x, order=2).derivative(1).item()
        6.0
    """
    for function in functions:
        rule(function)(_lift_bilinear(function))


def tableau(method: methods.Method) -> methods.Method:
    """Prove a method for ordinary differential equations and put it into the catalogue.

    The coefficients are exact: ints, Fractions, strings such as ``"1/3"``, or algebraic numbers such as
    ``ntangent.ode.algebraic.square_root(3)``. Stability, decay and signs of its gradients follow.

    Args:
        method: a ``RungeKutta``, ``Rosenbrock``, ``AdditiveRungeKutta``, ... of ``ntangent.ode.methods``.

    Returns:
        The same method; solvers find it under its name and its aliases.

    Raises:
        ArgumentError: if a name is taken, or naming the rooted tree whose order condition fails.

    Example:
        Ralston's third-order method:

        >>> import ntangent as nt
        >>> from ntangent.ode.methods import RungeKutta, matrix, vector
        >>> ralston = nt.extend.tableau(RungeKutta(
        ...     name="ralston3", family="explicit", source="Ralston 1962", order=3,
        ...     A=matrix([[], ["1/2"], [0, "3/4"]], 3), b=vector(["2/9", "1/3", "4/9"]),
        ... ))
        >>> ralston.order_proved, ralston.is_a_stable
        (3, False)
    """
    return methods.register(method)


def _lift_bilinear(function: Any) -> Callable[..., Jet]:
    def apply(a: Any, b: Any, *rest: Any, **options: Any) -> Jet:
        def on_values(u: Tensor, v: Tensor) -> Tensor:
            return function(u, v, *rest, **options)  # type: ignore[no-any-return]

        if isinstance(a, Jet) and isinstance(b, Jet):
            return layers.bilinear(on_values, a, b)
        if isinstance(a, Jet):
            return a.map_rows(torch.func.vmap(lambda u: on_values(u, b)))
        return b.map_rows(torch.func.vmap(lambda v: on_values(a, v)))  # type: ignore[no-any-return]

    return apply
