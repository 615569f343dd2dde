"""What a weighting is: factors on the squared residuals that follow the training, as plain state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError, DtypeError, UnknownNameError
from ntangent._base.registry import Registry, nearest_names

Memory = dict[str, Any]


@dataclass(frozen=True)
class Term:
    """One term of the loss: residual rows that share their points.

    Args:
        name: its name in the metrics.
        points: shape (N, d).
        weights: the user's weight of each row, shape (C,).
        size: residuals in a row; N but for terms that sum over their points.
    """

    name: str
    points: Tensor
    weights: Tensor
    size: int

    @property
    def relative(self) -> Tensor:
        """Weights of the rows beside each other, shape (C,), the largest being 1.

        Balancing schemes compare terms without the user's weights. A weight then keeps its meaning, an
        emphasis, where a comparison of weighted terms would divide it out again.
        """
        largest = self.weights.max()
        return self.weights / largest if bool(largest > 0) else torch.ones_like(self.weights)


@dataclass(frozen=True)
class Layout:
    """The terms of a loss and the box they live in.

    Args:
        terms: in the order of the loss.
        intervals: coordinate name -> lower and upper end, in the order of the points' columns.
    """

    terms: tuple[Term, ...]
    intervals: Mapping[str, tuple[float, float]]

    @property
    def names(self) -> list[str]:
        """Names of the terms."""
        return [term.name for term in self.terms]

    def __getitem__(self, name: str) -> Term:
        return next(term for term in self.terms if term.name == name)

    def select(self, names: Sequence[str] | None) -> list[Term]:
        """Return the terms with one of these names; "equation" also means every "equation[i]".

        Raises:
            UnknownNameError: if a name fits no term.
        """
        if names is None:
            return list(self.terms)
        for name in names:
            if not any(fits(name, term.name) for term in self.terms):
                raise UnknownNameError(
                    f"the loss has no term {name!r}",
                    "a weighting can only act on terms that exist",
                    nearest_names(name, self.names),
                )
        return [term for term in self.terms if any(fits(name, term.name) for name in names)]


def fits(name: str, term: str) -> bool:
    """Return whether ``name`` means ``term``: its full name, or the part before the bracket."""
    return name in (term, term.partition("[")[0])


@dataclass(frozen=True)
class View:
    """What a weighting sees of the training.

    Args:
        iteration: iterations done since the run began, over all stages.
        layout: the terms.
        rows: residuals of each term without any weight, shape (C, size), detached.
        generator: source of randomness; its state belongs to the checkpoint.
        term_gradient: maps a term's name and factors that broadcast to (C, size) to the gradient in
            θ of sum over rows of relative weight · mean(factor · residual²), shape (P,).
        row_squares: maps a term's name to |dr/dθ|² of each residual, shape (C, size).
        settle: iterations that the running optimiser wants between two changes of its objective.
        outer: factors of the per-point weightings this one is multiplied with.
    """

    iteration: int
    layout: Layout
    rows: Mapping[str, Tensor]
    generator: torch.Generator
    term_gradient: Callable[[str, Tensor], Tensor]
    row_squares: Callable[[str], Tensor]
    settle: int = 1
    outer: Mapping[str, Tensor] = field(default_factory=dict)

    def factor(self, name: str) -> Tensor:
        """Return the outer factors of a term, broadcasting to (C, size)."""
        return self.outer.get(name, self.rows[name].new_ones(()))

    def mean(self, name: str, squares: Tensor) -> Tensor:
        """Return the mean of outer factor · squares in each row, added with the relative weights."""
        rows = (self.factor(name) * squares).expand_as(self.rows[name])
        return self.layout[name].relative @ rows.mean(dim=1)

    def loss(self, name: str) -> float:
        """Return a term of the loss without the user's weight."""
        return float(self.mean(name, self.rows[name].square()))

    def gradient(self, name: str) -> Tensor:
        """Return the gradient of :meth:`loss` in θ, shape (P,). Cost: one backward pass."""
        return self.term_gradient(name, self.factor(name))


class Weighting:
    """Factors f on the squared residuals: loss = sum of weight · mean(f · residual²) over the terms.

    A weighting is a frozen configuration; what it learns is in a state of tensors and plain values,
    so that a checkpoint holds it. No gradient runs through the factors. Weightings multiply:
    ``RBA() * Causal()``. In a product the schemes that balance whole terms (``GradNorm``, ``NTK``,
    ``ReLoBRaLo``, ``SoftAdapt``) see each term with the factors of the others on its points.

    Subclasses are dataclasses with a field ``every``: iterations between two updates; None is what
    suits the scheme, but never more often than the running optimiser can follow.
    """

    every: int | None
    usual: ClassVar[int] = 1  # iterations between updates, where the optimiser can follow
    balancing: ClassVar[bool] = False  # compares whole terms, and so does nothing to a single one

    def start(self, layout: Layout, generator: torch.Generator) -> Memory:
        """Return the state before the first update."""
        raise NotImplementedError

    def update(self, state: Memory, view: View) -> Memory:
        """Return the state after an update; ``state`` itself is left as it is."""
        raise NotImplementedError

    def factors(self, state: Memory) -> dict[str, Tensor]:
        """Return the factors of the terms it acts on, each broadcasting to (C, size)."""
        raise NotImplementedError

    def moved(self, state: Memory, layout: Layout, origin: Mapping[str, Tensor]) -> Memory:  # noqa: ARG002
        """Return the state for other points.

        Args:
            state: for the old points.
            layout: with the new points.
            origin: for each term whose points changed, the index of each new point among the old
                ones, -1 where it is none of them, shape (N,).
        """
        return state

    def due(self, iteration: int, settle: int) -> bool:
        """Return whether an update belongs after ``iteration`` iterations."""
        return iteration % (self.every or max(self.usual, settle)) == 0

    def idle(self, layout: Layout) -> str | None:
        """Return why this weighting has no effect on such a loss, or None."""
        if self.balancing and len(layout.terms) < 2:
            return f"{type(self).__name__} balances terms and the loss has one: it has no effect"
        return None

    def describe(self, state: Memory) -> dict[str, float]:
        """Return numbers for the metrics: the mean factor of each term."""
        return {f"weight {name}": float(f.mean()) for name, f in self.factors(state).items()}

    def __mul__(self, other: Weighting) -> Product:
        if not isinstance(other, Weighting):
            return NotImplemented
        return Product((*_parts(self), *_parts(other)))


@dataclass(frozen=True)
class Product(Weighting):
    """Weightings whose factors multiply; per-point ones are updated first, balancing ones see them.

    Args:
        parts: the weightings.
    """

    parts: tuple[Weighting, ...]
    every: ClassVar[int | None] = None  # type: ignore[misc] # each part has its own

    def __post_init__(self) -> None:
        if len(self.parts) < 2 or not all(isinstance(part, Weighting) for part in self.parts):
            raise ArgumentError(
                f"a product of weightings is made of at least two, got {self.parts!r}", "", "RBA() * Causal()"
            )

    def __repr__(self) -> str:
        return " * ".join(map(repr, self.parts))

    def start(self, layout: Layout, generator: torch.Generator) -> Memory:
        """Return the states of the parts."""
        return {"parts": [part.start(layout, generator) for part in self.parts]}

    def update(self, state: Memory, view: View) -> Memory:
        """Update the parts that are due."""
        states = list(state["parts"])
        for balancing in (False, True):
            if balancing:
                view = replace(view, outer=self._merged(states, points=True))
            for i, part in enumerate(self.parts):
                if part.balancing is balancing and part.due(view.iteration, view.settle):
                    states[i] = part.update(states[i], view)
        return {"parts": states}

    def _merged(self, states: Sequence[Memory], points: bool) -> dict[str, Tensor]:
        merged: dict[str, Tensor] = {}
        for part, state in zip(self.parts, states, strict=True):
            if points and part.balancing:
                continue
            for name, factor in part.factors(state).items():
                merged[name] = merged[name] * factor if name in merged else factor
        return merged

    def factors(self, state: Memory) -> dict[str, Tensor]:
        """Return the products of the factors."""
        return self._merged(state["parts"], points=False)

    def moved(self, state: Memory, layout: Layout, origin: Mapping[str, Tensor]) -> Memory:
        """Move the states of the parts."""
        pairs = zip(self.parts, state["parts"], strict=True)
        return {"parts": [part.moved(own, layout, origin) for part, own in pairs]}

    def due(self, iteration: int, settle: int) -> bool:
        """Return whether any part is due."""
        return any(part.due(iteration, settle) for part in self.parts)

    def idle(self, layout: Layout) -> str | None:
        """Return the first part's reason, or None."""
        return next((why for part in self.parts if (why := part.idle(layout)) is not None), None)


def _parts(weighting: Weighting) -> tuple[Weighting, ...]:
    return weighting.parts if isinstance(weighting, Product) else (weighting,)


def carried(values: Tensor, origin: Tensor, fresh: float | None = None) -> Tensor:
    """Return per-point values for other points: kept where the point was kept.

    Args:
        values: of the old points, shape (N,).
        origin: index of each new point among the old ones, -1 for a new one, shape (M,).
        fresh: value of a new point; None gives it the mean of the old values, so that points that
            come and go leave the size of the loss alone.
    """
    new = values.mean() if fresh is None else values.new_tensor(fresh)
    origin = origin.to(values.device)
    return torch.where(origin >= 0, values[origin.clamp_min(0)], new)


def check_common(weighting: Any) -> None:
    """Check the fields ``every``, ``terms`` and ``reference`` that weightings share."""
    if weighting.every is not None:
        check_positive(weighting.every, "every", integer=True)
    for name in ("terms", "reference"):
        terms = getattr(weighting, name, None)
        if terms is None:
            continue
        terms = (terms,) if isinstance(terms, str) else terms
        if not isinstance(terms, Sequence) or not all(isinstance(term, str) for term in terms) or not terms:
            raise DtypeError(
                f"{name} must name terms of the loss, got {terms!r}", "", f'{name}=("equation", "dirichlet")'
            )
        object.__setattr__(weighting, name, tuple(terms))


def check_fraction(value: Any, name: str, *, one: bool = False) -> float:
    """Return ``value`` if it lies in [0, 1), or in [0, 1] with ``one``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DtypeError(f"{name} must be a number, got {value!r}", "", f"{name}=0.9")
    if not (0 <= value < 1 or (one and value == 1)):
        raise ArgumentError(
            f"{name} must lie in [0, 1{']' if one else ')'}, got {value!r}",
            "it is the share of the old value in the new one",
            f"{name}=0.9",
        )
    return value


def averaged(old: Tensor, new: Tensor, momentum: float) -> Tensor:
    """Return momentum · old + (1 - momentum) · new; old where new is not finite and positive."""
    good = torch.isfinite(new) & (new > 0)
    return torch.where(good, momentum * old + (1 - momentum) * new, old)


WEIGHTINGS: Registry[type[Weighting]] = Registry("weighting")
