"""How a Taylor rule is checked: against nested reverse-mode differentiation, which uses no rule."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ntangent.jet.algebra import Algebra
from ntangent.jet.series import Jet, padded
from ntangent.operators.inverse_system import InverseSystem, inverse_system

TOLERANCE = 1e-9


@dataclass(frozen=True)
class Case:
    """A call of torch functions on some operands, any non-empty choice of which may be series.

    Args:
        name: shown in the test's id.
        call: maps operands (tensors or jets) to a result or several.
        shapes: of the operands.
        domain: interval of the operands' values.
        series: which operands may be series; all by default.
        order: highest order along a line.
        tags: "slow" leaves out the fourth-order algebra.
        parameters: further leaves whose gradients are compared.
        oracle: the same function in elementary operations, where torch's own derivatives fail.
    """

    name: str
    call: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    domain: tuple[float, float] = (-1.5, 1.5)
    series: tuple[int, ...] | None = None
    order: int = 4
    tags: frozenset[str] = field(default_factory=frozenset)
    oracle: Callable[..., Any] | None = None
    parameters: tuple[Tensor, ...] = ()

    def choices(self) -> list[tuple[int, ...]]:
        able = tuple(range(len(self.shapes))) if self.series is None else self.series
        return [able] if len(able) == 1 else [able, *((i,) for i in able)]

    def operands(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(sum(map(ord, self.name)))
        low, high = self.domain
        return [
            (low + (high - low) * torch.rand(s, generator=generator, dtype=torch.float64))
            for s in self.shapes
        ]


def parts(result: Any) -> list[Any]:
    """Return the floating results and series among one or several results."""
    several = result if isinstance(result, tuple | list) else (result,)
    return [r for r in several if isinstance(r, Jet) or (isinstance(r, Tensor) and r.is_floating_point())]


def partials(
    f: Callable[[Tensor], Sequence[Tensor]], d: int, monomials: Sequence[tuple[int, ...]]
) -> list[dict[tuple[int, ...], Tensor]]:
    """Return the partial derivatives at 0 of each result of f: R^d -> tensors, with their graph.

    A pass differentiates w·f(s) in s for a symbolic cotangent w; the result is linear in w, and its
    gradient in w is the derivative of f, whatever the shape of f. ``monomials`` are index tuples.
    """
    s = torch.zeros(d, dtype=torch.float64, requires_grad=True)
    found = []
    for y in f(s):
        w = torch.zeros_like(y, requires_grad=True)
        pairings = {(): (w * y).sum()}
        rows = {}
        for monomial in sorted(set(monomials), key=len):
            for k in range(1, len(monomial) + 1):
                if monomial[:k] not in pairings:
                    (slope,) = torch.autograd.grad(
                        pairings[monomial[: k - 1]], s, create_graph=True, allow_unused=True
                    )
                    zero = (0 * w).sum()
                    for i in range(d):
                        pairings[(*monomial[: k - 1], i)] = zero if slope is None else slope[i] + zero
            (row,) = torch.autograd.grad(pairings[monomial], w, create_graph=True, allow_unused=True)
            rows[monomial] = torch.zeros_like(y) if row is None else row
        found.append(rows)
    return found


def algebra_of(system: InverseSystem) -> Algebra:
    return Algebra(system.grades, tuple((c, d, b, float(w)) for c, d, b, w in system.table))


def indices(monomial: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    return tuple(itertools.chain.from_iterable([i] * k for i, k in monomial))


LAPLACIAN = inverse_system([{((i, 2),): Fraction(1) for i in range(3)}])
MIXED = inverse_system([{((0, 3), (1, 1)): Fraction(1)}])


def variables(
    d: int, structure: int | InverseSystem | None, order: int
) -> tuple[Jet, list[dict[Any, float]]]:
    """Return the series of the point s = 0 in R^d, and its rows as {index tuple: weight of the partial}.

    Along D lines the lines are the coordinate axes, so d = D (or 1).
    """
    s = torch.zeros(d, dtype=torch.float64)
    if isinstance(structure, InverseSystem):
        algebra = algebra_of(structure)
        functionals = [{indices(m): float(c) for m, c in row.items()} for row in structure.basis]
        rows = s.new_zeros(algebra.rows(1), d)
        for b in range(1, len(rows)):
            for m, c in functionals[b].items():
                rows[b, m[0]] = c
        return Jet(rows, algebra.order, algebra), functionals
    functionals = [{(): 1.0}]
    for k in range(1, order + 1):
        functionals += [{(i,) * k: 1 / math.factorial(k)} for i in range(d)]
    return Jet(torch.cat([s[None], torch.eye(d, dtype=torch.float64)]), order, structure), functionals


def check_structure(
    case: Case, choice: tuple[int, ...], d: int, structure: int | InverseSystem | None, order: int
) -> None:
    """Compare all rows, and the gradient of a random combination of them in the operands' values."""
    bases = [operand.requires_grad_() for operand in case.operands()]
    generator = torch.Generator().manual_seed(d)
    slopes = [0.4 * torch.randn(*s, d, generator=generator, dtype=torch.float64) for s in case.shapes]

    def operands(s: Any) -> list[Any]:
        moved = []
        for i, (base, slope) in enumerate(zip(bases, slopes, strict=True)):
            step = torch.matmul(slope.reshape(-1, d), s).reshape(base.shape) if i in choice else 0
            moved.append(base + step + 0.5 * step * step if i in choice else base)
        return moved

    argument, functionals = variables(d, structure, order)
    order = argument.order
    got = parts(case.call(*operands(argument)))
    wanted = {m for row in functionals for m in row}
    oracle = case.oracle or case.call
    # Fused attention has no second derivative.
    with sdpa_kernel(SDPBackend.MATH):
        exact = partials(lambda s: parts(oracle(*operands(s))), d, list(wanted))
    assert len(got) == len(exact), "number of results"
    total_got, total_exact = 0.0, 0.0
    for jet, derivatives in zip(got, exact, strict=True):
        if not isinstance(jet, Jet):  # a result that no series enters
            jet = Jet(jet[None], order, argument.directions)
        rows = padded(jet, order)
        expected = torch.stack(
            [sum((c * derivatives[m] for m, c in row.items()), 0 * derivatives[()]) for row in functionals]
        )
        assert rows.shape == expected.shape, f"shape {tuple(rows.shape)}, expected {tuple(expected.shape)}"
        scale = max(1.0, expected.detach().abs().max().item()) if expected.numel() else 1.0
        torch.testing.assert_close(rows, expected, rtol=TOLERANCE, atol=TOLERANCE * scale)
        weights = torch.randn(rows.shape, generator=generator, dtype=torch.float64)
        total_got = total_got + (weights * rows).sum()
        total_exact = total_exact + (weights * expected).sum()
    bases += case.parameters
    grads = [
        torch.autograd.grad(t, bases, allow_unused=True)
        if isinstance(t, Tensor) and t.requires_grad
        else [None] * len(bases)
        for t in (total_got, total_exact)
    ]
    for base, g, e in zip(bases, *grads, strict=True):
        g, e = (torch.zeros_like(base) if v is None else v for v in (g, e))
        scale = max(1.0, e.abs().max().item()) if e.numel() else 1.0
        torch.testing.assert_close(g, e, rtol=TOLERANCE * 10, atol=TOLERANCE * 10 * scale)


def check_case(case: Case) -> None:
    """Check a rule along one and three lines, for the Laplacian in space and for u_xxxy."""
    choices = case.choices()
    check_structure(case, choices[0], 1, None, case.order)
    for choice in choices[1:]:
        check_structure(case, choice, 1, None, 3)
    check_structure(case, choices[0], 3, 3, 2)
    check_structure(case, choices[0], 3, LAPLACIAN, 2)
    if "slow" not in case.tags:
        check_structure(case, choices[0], 2, MIXED, 4)
