"""Rooted trees and order conditions (Butcher; Hairer, Nørsett & Wanner I, II.2; Hairer & Wanner II, IV.7).

A tree is a colour and a sorted tuple of subtrees. It is written with brackets: ``τ`` is the single
node, ``[τ,τ]`` a root with two leaves; colours other than the first carry a letter.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

Tree = tuple[int, tuple[Any, ...]]
Weights = Callable[[Tree], Sequence[Any]]

LETTERS = "τσ"
TIME = 1  # the colour of the node t' = 1 in a system made autonomous; such a node has no children


@functools.cache
def trees(order: int, colours: int = 1) -> tuple[Tree, ...]:
    """Return all rooted trees with ``order`` nodes, each in one of ``colours`` colours."""
    return tuple((c, forest) for c in range(colours) for forest in _forests(order - 1, colours))


@functools.cache
def _forests(nodes: int, colours: int) -> tuple[tuple[Tree, ...], ...]:
    def build(left: int, largest: Tree | None) -> Iterator[tuple[Tree, ...]]:
        if left == 0:
            yield ()
            return
        for size in range(1, left + 1):
            for tree in trees(size, colours):
                if largest is None or _key(tree) <= _key(largest):
                    for rest in build(left - size, tree):
                        yield (tree, *rest)

    return tuple(build(nodes, None))


@functools.cache
def _key(tree: Tree) -> tuple[int, str]:
    return order_of(tree), written(tree)


@functools.cache
def order_of(tree: Tree) -> int:
    """Return the number of nodes."""
    return 1 + sum(order_of(child) for child in tree[1])


@functools.cache
def density(tree: Tree) -> int:
    """Return γ(t): the exact solution has the weight 1 / γ(t)."""
    product = order_of(tree)
    for child in tree[1]:
        product *= density(child)
    return product


@functools.cache
def written(tree: Tree) -> str:
    """Return the tree in brackets."""
    letter = LETTERS[tree[0]] if tree[0] < len(LETTERS) else f"τ{tree[0]}"
    if not tree[1]:
        return letter
    inner = ",".join(written(child) for child in tree[1])
    return f"[{inner}]" + (letter if tree[0] else "")


@functools.cache
def timed_trees(order: int) -> tuple[Tree, ...]:
    """Return the trees of non-autonomous systems: leaves that are not the root may be the time."""

    def allowed(tree: Tree, root: bool) -> bool:
        if tree[0] == TIME:
            return not root and not tree[1]
        return all(allowed(child, False) for child in tree[1])

    return tuple(tree for tree in trees(order, 2) if allowed(tree, True) and "σ" in written(tree))


def times(matrix: Sequence[Sequence[Any]], vector: Sequence[Any]) -> list[Any]:
    """Return matrix · vector, skipping zeros."""
    return [sum((a * x for a, x in zip(row, vector, strict=True) if a), 0 * vector[0]) for row in matrix]


def elementwise(factors: Sequence[Sequence[Any]], one: Any, size: int) -> list[Any]:
    """Return the elementwise product of vectors; ones if there are none."""
    product = [one] * size
    for factor in factors:
        product = [x * y for x, y in zip(product, factor, strict=True)]
    return product


def runge_kutta_weights(
    matrices: Sequence[Sequence[Sequence[Any]]], one: Any, nodes: Sequence[Any] | None = None
) -> Weights:
    """Return t ↦ Φ(t), the vector of stage weights of a (additive) Runge-Kutta method.

    Args:
        matrices: A for each colour.
        one: the number 1.
        nodes: c; if given, the colour ``TIME`` is the time, whose stages are c.
    """
    size = len(matrices[0])

    @functools.cache
    def below(tree: Tree) -> tuple[Any, ...]:
        if nodes is not None and tree[0] == TIME:
            return tuple(nodes)
        return tuple(times(matrices[tree[0]], weights(tree)))

    def weights(tree: Tree) -> list[Any]:
        return elementwise([below(child) for child in tree[1]], one, size)

    return weights


def rosenbrock_weights(alpha: Sequence[Sequence[Any]], beta: Sequence[Sequence[Any]], one: Any) -> Weights:
    """Return t ↦ Φ(t) of a Rosenbrock method: β = α + γ below a node with one child, α elsewhere."""
    size = len(alpha)

    @functools.cache
    def below(tree: Tree, single: bool) -> tuple[Any, ...]:
        return tuple(times(beta if single else alpha, weights(tree)))

    def weights(tree: Tree) -> list[Any]:
        single = len(tree[1]) == 1
        return elementwise([below(child, single) for child in tree[1]], one, size)

    return weights


def first_failure(
    weights: Weights,
    b: Callable[[Tree], Sequence[Any]],
    order: int,
    tolerance: Any,
    *,
    family: Callable[[int], Sequence[Tree]] = trees,
) -> tuple[Tree, Any] | None:
    """Return the first tree whose condition Σ b_i Φ_i(t) = 1 / γ(t) fails, with the residual.

    Args:
        weights: t ↦ Φ(t).
        b: t ↦ the weights b that belong to the colour of the root.
        order: trees with up to this many nodes are tried.
        tolerance: bound on residuals that counts as zero.
        family: the trees of one order.
    """
    for size in range(1, order + 1):
        for tree in family(size):
            phi = weights(tree)
            total = sum((x * y for x, y in zip(b(tree), phi, strict=True) if x), 0 * phi[0])
            residual = total - type_like(phi[0], Fraction(1, density(tree)))
            if abs(residual) > tolerance:
                return tree, residual
    return None


def type_like(sample: Any, value: Fraction) -> Any:
    """Return ``value`` as a number that mixes with ``sample``."""
    if isinstance(sample, float) or type(sample).__name__ == "Decimal":
        return type(sample)(value.numerator) / type(sample)(value.denominator)
    return value
