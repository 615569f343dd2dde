"""Conformance suites: one call for whoever adds a row, a rule or a backend.

Each function returns None and raises AssertionError with the case, the order and the size of the
error. A tolerance is ``ntangent._base.precision.tolerance`` times the size of the terms that are
summed, never a literal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from mpmath import mp, mpf
from torch import Tensor

from ntangent._base.precision import tolerance
from ntangent.jet.activations import Activation
from ntangent.jet.api import derivatives, jet
from ntangent.jet.dispatch import dispatch
from ntangent.jet.flow import flow
from ntangent.jet.mlp import FUNCTIONS, MLP, MODULES
from ntangent.jet.polynomial import Polynomial, variables
from ntangent.jet.reference import nested_autograd
from ntangent.jet.series import Jet
from ntangent.jet.solver import solve_rows
from ntangent.testing import oracles
from ntangent.testing.oracles import Branches, compose_series, derived, nested_reverse, polygon, taylor

FLOATS = (torch.float64, torch.float32)


def check_close(got: Tensor, expected: Tensor, allowed: float | Tensor, case: str) -> None:
    """Raise AssertionError where |got - expected| exceeds ``allowed`` or is not a number."""
    if got.shape != expected.shape:
        raise AssertionError(f"{case}: shape {tuple(got.shape)}, expected {tuple(expected.shape)}")
    got, expected = got.detach(), expected.detach()
    error = (got.double() - expected.double()).abs()
    bad = ~(error <= allowed)
    if bool(bad.any()):
        where = tuple(int(i) for i in bad.nonzero()[0])
        bound = float(torch.as_tensor(allowed).expand(error.shape)[where])
        raise AssertionError(
            f"{case}: at {where} got {float(got[where])!r}, expected {float(expected[where])!r}: "
            f"error {float(error[where]):.3g}, allowed {bound:.3g} ({int(bad.sum())} of {bad.numel()} wrong)"
        )


def check_series(got: Tensor, expected: Tensor, case: str, terms: int = 1) -> None:
    """Compare coefficient rows (order, *shape), each order relative to its size over all points.

    The size of an order is read off the Newton polygon of the largest entries, so an order that
    vanishes by accident is held to the accuracy of its neighbours.
    """
    if got.shape != expected.shape:
        raise AssertionError(f"{case}: shape {tuple(got.shape)}, expected {tuple(expected.shape)}")
    got, expected = got.detach(), expected.detach()
    largest = [float(row.abs().max()) if row.numel() else 0.0 for row in expected]
    sizes = [float(size) for size in polygon([mpf(v) for v in largest])]
    for k, size in enumerate(sizes):
        allowed = tolerance(got.dtype, k, terms) * size
        check_close(got[k], expected[k], allowed, f"{case}, order {k}")


# --- activations -------------------------------------------------------------------------------


def sample_series(row: Activation, order: int, points: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Return argument series a(t), shape (order + 1, points), that start inside the sample interval.

    The values are float32 numbers in both precisions, so one oracle serves both.
    """
    generator = torch.Generator().manual_seed(seed)
    low, high = row.sample
    rows = torch.randn(order + 1, points, generator=generator)
    rows[0] = torch.linspace(low, high, points)
    return rows.to(dtype)


def check_activation(
    row: Activation,
    definition: Branches | Callable[[Any], Any] | None = None,
    *,
    order: int = 12,
    points: int = 7,
    dtypes: Sequence[torch.dtype] = FLOATS,
) -> None:
    """Check one row of the activation table against its definition at 50 digits.

    Checked are the series of σ(a) and σ'(a) along random curves a(t) and along a line, the raw
    derivatives, truncation, several directions, and first and second derivatives of the flow.

    Args:
        row: the row.
        definition: the function in mpmath, or a function of x0 that returns the one of the branch
            (see ``ntangent.testing.oracles.kink``). Not needed for rows of the package.
        order: highest order.
        points: number of arguments, spread over ``row.sample``.
        dtypes: precisions.

    Raises:
        AssertionError: if the row and the definition disagree.
    """
    if definition is None:
        if row.name not in oracles.DEFINITIONS:
            raise AssertionError(
                f"no definition of {row.name!r}: pass check_activation(row, definition=mpmath_function)"
            )
        definition = oracles.DEFINITIONS[row.name]
    branches = definition
    if not callable(definition(mpf(sum(row.sample)) / 2)):
        branches = oracles.smooth(definition)
    for dtype in dtypes:
        _check_coefficients(row, branches, order, points, dtype)
        _check_raw_derivatives(row, branches, order, points, dtype)
    _check_structure(row, min(order, 6))
    _check_flow_derivatives(row)


def _term_sizes(row: Activation, polynomial: Polynomial, a: Tensor, order: int) -> Tensor:
    """Return the sums of absolute terms of a polynomial in the states along a(t), shape (order + 1, points).

    Where the output of a row is a difference (x - tanh x), its rounding errors have this size.
    """
    units = variables(len(row.flow))
    series = [_full(solve_rows(replace(row, output=unit), a, 1, order)[0], order).abs() for unit in units]
    total = torch.zeros_like(series[0])
    for exponents, coefficient in polynomial.terms:
        term = torch.zeros_like(total)
        term[0] = abs(float(coefficient))
        for factor in (z for z, e in zip(series, exponents, strict=True) for _ in range(e)):
            term = torch.stack(
                [sum((term[j] * factor[k - j] for j in range(k + 1)), 0 * term[0]) for k in range(order + 1)]
            )
        total = total + term
    return total


def _check_coefficients(
    row: Activation, branches: Branches, order: int, points: int, dtype: torch.dtype
) -> None:
    a = sample_series(row, order, points, dtype)
    line = a[:2].clone()
    line[1] = 1
    for label, argument in (("curve", a), ("line", line)):
        results = solve_rows(row, argument, 1, order)
        added = [_term_sizes(row, r.output, argument, order) for r in (row, row.derivative)]
        for i in range(points):
            case = f"{row.name}, {dtype}, x0={a[0, i].item()!r}, along a {label}"
            with mp.workdps(oracles.DIGITS):
                outer = taylor(branches, a[0, i].item(), order + 3)
                sizes = polygon(outer)
                inner = [mpf(c) for c in argument[:, i].tolist()] + [mpf(0)] * (order + 1 - len(argument))
                lengths = [abs(c) for c in inner]
                for n, name in enumerate(("σ", "σ'")):
                    exact = compose_series(derived(outer, n)[: order + 1], inner)
                    whole = compose_series(derived(sizes, n)[: order + 1], lengths)
                    scale = [s + mpf(t) for s, t in zip(whole, added[n][:, i].tolist(), strict=True)]
                    _check_scalars(results[n][:, i], exact, scale, f"{case}, {name}")


def _check_raw_derivatives(
    row: Activation, branches: Branches, order: int, points: int, dtype: torch.dtype
) -> None:
    x = sample_series(row, 0, points, dtype)
    values = torch.stack(row.raw_derivatives(x[0], order))
    polynomial, sizes = row.output, []
    for _ in range(order + 1):
        sizes.append(_term_sizes(row, polynomial, x, 0)[0])
        polynomial = polynomial.along(row.flow)
    for i, x0 in enumerate(x[0].tolist()):
        with mp.workdps(oracles.DIGITS):
            exact = [mp.factorial(k) * c for k, c in enumerate(taylor(branches, x0, order))]
            scale = [mpf(size[i].item()) for size in sizes]
            _check_scalars(values[:, i], exact, scale, f"{row.name}, {dtype}, x0={x0!r}, raw derivatives")


def _check_scalars(got: Tensor, exact: list[Any], scale: list[Any], case: str) -> None:
    values = [mpf(v) for v in got.tolist()] + [mpf(0)] * (len(exact) - len(got))
    for k, (value, wanted, size) in enumerate(zip(values, exact, scale, strict=True)):
        allowed = tolerance(got.dtype, k) * size
        if not abs(value - wanted) <= allowed:
            raise AssertionError(
                f"{case}, order {k}: got {mp.nstr(value, 17)}, expected {mp.nstr(wanted, 17)}: "
                f"error {mp.nstr(abs(value - wanted), 3)}, allowed {mp.nstr(allowed, 3)}"
            )


def _full(rows: Tensor, order: int) -> Tensor:
    return torch.cat([rows, rows.new_zeros(order + 1 - rows.shape[0], *rows.shape[1:])])


def _check_structure(row: Activation, order: int) -> None:
    """Truncation restricts, directions do not mix, an empty batch stays empty."""
    a, b = (sample_series(row, order, 5, torch.float64, seed) for seed in (1, 2))
    whole, other = (_full(flow(rows, row, 1, order), order) for rows in (a, b))
    for low in range(order + 1):
        part = _full(flow(a[: low + 1].contiguous(), row, 1, low), low)
        check_series(part, whole[: low + 1], f"{row.name}, truncated at {low}")
    both = torch.stack([a, b], 1).flatten(0, 1)[1:].contiguous()
    together = flow(both, row, 2, order)
    expected = torch.stack([whole, other], 1).flatten(0, 1)[1:]
    rest = expected.shape[0] - together.shape[0]
    together = torch.cat([together, together.new_zeros(rest, *together.shape[1:])])
    for d, name in enumerate(("first", "second")):
        rows = torch.cat([together[:1], together[1 + d :: 2]])
        exact = torch.cat([expected[:1], expected[1 + d :: 2]])
        check_series(rows, exact, f"{row.name}, {name} of two directions")
    if flow(a[:, :0].contiguous(), row, 1, order).shape[1:] != (0,):
        raise AssertionError(f"{row.name}: an empty batch does not stay empty")


def _check_flow_derivatives(row: Activation, order: int = 3) -> None:
    a = sample_series(row, order, 4, torch.float64, seed=3).requires_grad_(True)
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        try:
            check(lambda rows: flow(rows, row, 1, order), (a,))
        except RuntimeError as error:
            raise AssertionError(f"{row.name}: {check.__name__} of the flow fails: {error}") from error


# --- rules ---------------------------------------------------------------------------------------


def check_rule(function: Callable[..., Any], *inputs: Any, order: int = 4, **options: Any) -> None:
    """Check the Taylor rule of a torch function on example inputs.

    Every float64 tensor among ``inputs`` (also inside a list) in turn, and then all of them
    together, becomes a random curve; the series of the result is compared with nested reverse-mode
    differentiation of the function itself, which uses no rule. Then: the same series from two
    directions at once, first derivatives with respect to the coefficients, float32.

    Args:
        function: the torch function.
        inputs: its arguments; tensors that must not be series are given in another dtype or in
            ``options``.
        order: highest order.
        options: keyword arguments, passed on unchanged.

    Raises:
        AssertionError: if the series is wrong for any choice of arguments that the rule accepts,
            or if the rule accepts none.
        MissingRule: if the function has no rule.
    """
    flat, rebuild = _flatten(inputs)
    moving = [i for i, v in enumerate(flat) if isinstance(v, Tensor) and v.dtype == torch.float64]
    name = getattr(function, "__name__", str(function))
    if not moving:
        raise AssertionError(f"{name}: give at least one float64 tensor")
    choices = [[i] for i in moving] if len(moving) < 2 else [*([i] for i in moving), moving]
    accepted, refusals = 0, []
    for choice in choices:
        try:
            _check_choice(function, flat, rebuild, choice, order, options, name)
            accepted += 1
        except NotImplementedError as error:  # MissingRule: refusing is honest, a wrong number is not
            refusals.append(error)
    if not accepted:
        raise refusals[0]


def _flatten(inputs: tuple[Any, ...]) -> tuple[list[Any], Callable[[list[Any]], list[Any]]]:
    flat: list[Any] = []
    for value in inputs:
        flat.extend(value if isinstance(value, list) else [value])

    def rebuild(values: list[Any]) -> list[Any]:
        left, arguments = list(values), []
        for value in inputs:
            n = len(value) if isinstance(value, list) else 1
            taken, left = left[:n], left[n:]
            arguments.append(taken if isinstance(value, list) else taken[0])
        return arguments

    return flat, rebuild


def _check_choice(
    function: Callable[..., Any],
    flat: list[Any],
    rebuild: Callable[[list[Any]], list[Any]],
    choice: list[int],
    order: int,
    options: dict[str, Any],
    name: str,
) -> None:
    generator = torch.Generator().manual_seed(len(flat))
    case = f"{name}, series in input(s) {choice}"
    tails = {
        i: 0.5 * torch.randn(2, order, *flat[i].shape, generator=generator, dtype=torch.float64)
        for i in choice
    }

    def along(d: int) -> Callable[[Tensor], Tensor]:
        def curve(t: Tensor) -> Tensor:
            values = list(flat)
            for i in choice:
                values[i] = flat[i] + sum(c * t**k for k, c in enumerate(tails[i][d], 1))
            return function(*rebuild(values), **options)  # type: ignore[no-any-return]

        return curve

    def apply(rows: Sequence[Tensor], directions: int | None) -> Jet:
        values = list(flat)
        for i, data in zip(choice, rows, strict=True):
            values[i] = Jet(data, order, directions)
        if rows[0].dtype != torch.float64:
            values = [_cast(v, rows[0].dtype) for v in values]
        # An unbound method refuses a Jet before it asks for a rule; jet.method() does not pass there.
        method = getattr(function, "__objclass__", None) is not None
        arguments = rebuild(values)
        result = dispatch(function, tuple(arguments), options) if method else function(*arguments, **options)
        if not isinstance(result, Jet):
            raise AssertionError(f"{case}: returned {type(result).__name__}, not a Jet")
        return result

    single = [torch.cat([flat[i][None], tails[i][0]]) for i in choice]
    double = [torch.cat([flat[i][None], tails[i].transpose(0, 1).flatten(0, 1)]) for i in choice]
    expected = [torch.stack(nested_reverse(along(d), order)) for d in (0, 1)]
    got, both = apply(single, None), apply(double, 2)
    if got.order != order:
        raise AssertionError(f"{case}: order {got.order}, expected {order}")
    terms = max([1, *(v.numel() for v in flat if isinstance(v, Tensor))])
    check_series(_coefficients(got), expected[0], case, terms)
    for d in (0, 1):
        rows = torch.stack([both.coefficient(k)[d] for k in range(order + 1)])
        check_series(rows, expected[d], f"{case}, direction {d} of two", terms)
    low = apply([rows.float() for rows in single], None)
    if low.dtype != torch.float32:
        raise AssertionError(f"{case}: float32 became {low.dtype}")
    check_series(_coefficients(low), expected[0], f"{case}, float32", terms)
    leaves = tuple(rows.clone().requires_grad_(True) for rows in single)
    try:
        torch.autograd.gradcheck(lambda *rows: _coefficients(apply(rows, None)), leaves)
    except RuntimeError as error:
        raise AssertionError(f"{case}: gradcheck fails: {error}") from error


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.dtype == torch.float64 else value


def _coefficients(series: Jet) -> Tensor:
    return torch.stack([series.coefficient(k) for k in range(series.order + 1)])


# --- backends --------------------------------------------------------------------------------------


def check_backend(name: str, *, order: int = 4, activations: Sequence[str] | None = None) -> None:
    """Check that a backend computes jets of dense networks, and their gradients.

    The reference is nested autograd in float64. Checked for every activation of :func:`MLP`:
    values, gradients in the parameters, the points and the directions, one and several
    directions, no bias, float32, orders 0 and up, and batches of 0, 1 and several points.

    Raises:
        AssertionError: if a number is wrong.
        BackendError: if the backend cannot serve on this machine.
    """
    for activation in activations or [*MODULES, *FUNCTIONS]:
        for inputs, width, bias in ((1, 5, True), (3, 8, False)):
            net = MLP(
                inputs, 2, width=width, depth=2, activation=activation, bias=bias, dtype=torch.float64,
                generator=width,
            )  # fmt: skip
            generator = torch.Generator().manual_seed(inputs)
            x = torch.rand(6, inputs, generator=generator, dtype=torch.float64) * 4 - 2
            directions = torch.randn(2, inputs, generator=generator, dtype=torch.float64)
            case = f"backend {name!r}, {activation}, {inputs} input(s)"
            _check_network(net, x, directions, order, name, case)


def _check_network(
    net: torch.nn.Sequential, x: Tensor, directions: Tensor, order: int, backend: str, case: str
) -> None:
    width = max(p.shape[0] for p in net.parameters())
    for n in sorted({0, 1, order}):
        for points in (x[:0], x[:1], x):
            for direction in (directions[0], directions):
                label = f"{case}, order {n}, {len(points)} point(s), directions {tuple(direction.shape)}"
                got = jet(net, points, n, direction, backend)
                if direction.ndim == 2 and got.directions != len(direction):
                    raise AssertionError(f"{label}: the jet has directions={got.directions}")
                rows = nested_autograd(net, points, directions[: got.width], n)
                expected = Jet(rows, n, got.directions)
                check_series(_coefficients(got), _coefficients(expected), label, width)
    raw = derivatives(net, x, 2, directions[0], backend)
    check_series(raw, derivatives(net, x, 2, directions[0], "autograd"), f"{case}, derivatives()", width)
    ours, exact = (_gradients(net, x, directions, min(order, 3), which) for which in (backend, "autograd"))
    for label, g, e in zip(("x", "directions", *dict(net.named_parameters())), ours, exact, strict=True):
        check_series(g[None], e[None], f"{case}, gradient in {label}", width * len(x))
    low = net.to(torch.float32)
    single = jet(low, x.float(), order, directions[0].float(), backend)
    if single.dtype != torch.float32:
        raise AssertionError(f"{case}: float32 became {single.dtype}")
    double = jet(low.to(torch.float64), x.float().double(), order, directions[0].float().double(), "autograd")
    check_series(_coefficients(single), _coefficients(double), f"{case}, float32", width)


def _gradients(
    net: torch.nn.Module, x: Tensor, directions: Tensor, order: int, backend: str
) -> tuple[Tensor, ...]:
    x, directions = (v.clone().requires_grad_(True) for v in (x, directions))
    series = jet(net, x, order, directions, backend)
    rows = torch.stack([series.coefficient(k) for k in range(order + 1)])
    weights = torch.randn(rows.shape, generator=torch.Generator().manual_seed(1), dtype=rows.dtype)
    leaves = (x, directions, *net.parameters())
    found = torch.autograd.grad((weights * rows).sum(), leaves, allow_unused=True)
    return tuple(torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True))
