"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.errors import ConvergenceError, ShapeError
from ntangent._base.protocols import Objective, Shaped, State
from ntangent.optim._damped import LinAlgError
from ntangent.optim._moments import begun, check_batch, check_betas, check_rate, evaluated, halted, part
from ntangent.optim._stage import check_theta, check_tolerance, is_finite, norm, verdict
from ntangent.optim.schedules import Schedule


@dataclass(frozen=True)
class SOAP:
    """Adam run in slowly rotating coordinates: the eigenvectors of the averages of G G' and G' G.

    Each weight matrix W with gradient G has its own rotation; vectors and scalars, and sides longer
    than ``largest``, are not rotated, so there it is Adam. The shapes are asked of the objective
    (``shapes``); one that has none is treated as one vector.

    The rotations are refreshed every ``frequency`` iterations by one step of orthogonal iteration, and
    the second moments are kept in the rotated coordinates in between. The method is equivariant: with
    full rotations, W -> U W V with orthogonal U and V commutes with it, which is not so for Adam.

    Cost of an iteration beside the gradient: for an m by n matrix 4 m n (m + n) multiplications for
    the rotations, 2 m n (m + n) for the averages, and every ``frequency`` iterations a QR factorisation
    of either side. State: two moments and four square matrices. torch has no such optimiser.

    Source: Vyas et al., SOAP, arXiv 2409.11321 (2024), algorithm 3; for physics-informed networks Wang et
    al., arXiv 2502.00604 (2025). Unlike their code the first gradient is used for a step, too.

    Args:
        iterations: budget.
        lr: learning rate.
        betas: decay rates of the two moments, each in [0, 1).
        shampoo_beta: decay rate of the averages of G G' and G' G; the second of ``betas`` when None.
        eps: added to the root of the second moment.
        frequency: iterations between two refreshments of the rotations.
        largest: longest side that is rotated.
        schedule: factor on ``lr`` by iteration, e.g. ``Cosine()``; None keeps it constant.
        tolerance: stop when the loss is not above it (in the units of the loss).
        batch: collocation points of each iteration, drawn anew in every one, so that an epoch goes
            through all of them; None takes all. The loss of an iteration is that of its batch.
    """

    iterations: int
    lr: float = 3e-3
    betas: tuple[float, float] = (0.95, 0.95)
    shampoo_beta: float | None = None
    eps: float = 1e-8
    frequency: int = 10
    largest: int = 2048
    schedule: Schedule | None = None
    tolerance: float = 0.0
    batch: int | None = None
    settle: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("iterations", "frequency", "largest"):
            check_positive(getattr(self, name), name, integer=True)
        check_batch(self.batch)
        check_rate(self.lr, self.schedule)
        check_positive(self.eps, "eps")
        check_tolerance(self.tolerance)
        more = [] if self.shampoo_beta is None else [self.shampoo_beta]
        object.__setattr__(self, "betas", check_betas(self.betas, (0.95, 0.95), more))

    def begin(self, objective: Objective, theta: Tensor) -> State:
        """Return the state before the first iteration: zero moments, rotations of the first gradient."""
        theta = check_theta(theta)
        loss, gradient = evaluated(part(objective, self.batch, 0, "SOAP"), theta)
        shapes = _shapes(objective, theta)
        averages = [self._averages(g) for g in _parts(gradient, shapes)]
        memory = {
            "gradient": gradient,
            "averages": averages,
            "bases": [[_eigenvectors(a) for a in pair] for pair in averages],
            "shapes": [list(shape) for shape in shapes],
        }
        return begun(theta, loss, memory, self.tolerance, self.iterations)

    def step(self, objective: Objective, state: State) -> State:
        """Move along the gradient at θ, then evaluate at the new θ; a finished state is returned as is."""
        if state.stop is not None:
            return state
        memory, done = state.memory, state.iteration
        shapes = [tuple(shape) for shape in memory["shapes"]]
        bases = memory["bases"]
        beta1, beta2 = self.betas
        gradient = memory["gradient"]
        first = memory["first"].lerp(gradient, 1 - beta1)
        rotated = _turn(gradient, shapes, bases)
        second = (memory["second"] * beta2).addcmul_(rotated, rotated, value=1 - beta2)
        root = (second.sqrt() / (1 - beta2 ** (done + 1)) ** 0.5).add_(self.eps)
        lr = self.lr if self.schedule is None else self.lr * self.schedule.factor(done, self.iterations)
        direction = _turn(_turn(first, shapes, bases) / root, shapes, bases, back=True)
        theta = state.theta - (lr / (1 - beta1 ** (done + 1))) * direction
        loss, new = part(objective, self.batch, done + 1, "SOAP").value_and_gradient(theta)
        evaluations = memory["evaluations"] + 1
        if not (math.isfinite(float(loss)) and is_finite(new)):
            return halted(state, evaluations, lr)
        averages, bases = self._refresh(memory, gradient, shapes, done)
        size = norm(new)
        kept = {
            "gradient": new,
            "first": first,
            "second": second,
            "averages": averages,
            "bases": bases,
            "shapes": memory["shapes"],
            "evaluations": evaluations,
        }
        info = {
            "gradient_norm": size,
            "step_length": norm(theta - state.theta),
            "learning_rate": lr,
            "evaluations": float(evaluations),
        }
        stop = verdict(float(loss), size, self.tolerance, done + 1, self.iterations)
        return State(theta, float(loss), done + 1, kept, info, stop)

    def refresh(self, objective: Objective, state: State) -> State:  # noqa: ARG002
        """Return the state as it is; its gradient at θ is of the old objective, as for Adam."""
        return state

    def _averages(self, g: Tensor) -> list[Tensor | None]:
        """Return G G' and G' G, each None where that side is not rotated."""
        if g.ndim != 2:
            return [None, None]
        m, n = g.shape
        return [g @ g.T if 1 < m <= self.largest else None, g.T @ g if 1 < n <= self.largest else None]

    def _refresh(
        self, memory: dict[str, Any], gradient: Tensor, shapes: list[tuple[int, ...]], done: int
    ) -> tuple[list[list[Tensor | None]], list[list[Tensor | None]]]:
        """Return the averages with the gradient in them, and the rotations for the next iteration."""
        beta = self.betas[1] if self.shampoo_beta is None else self.shampoo_beta
        averages: list[list[Tensor | None]] = []
        for g, old in zip(_parts(gradient, shapes), memory["averages"], strict=True):
            pairs = zip(old, self._averages(g), strict=True)
            averages.append([None if a is None or b is None else a.lerp(b, 1 - beta) for a, b in pairs])
        if (done + 1) % self.frequency:
            return averages, memory["bases"]
        bases = [
            [None if a is None else torch.linalg.qr(a @ q)[0] for a, q in zip(pair, old, strict=True)]
            for pair, old in zip(averages, memory["bases"], strict=True)
        ]
        return averages, bases


def _shapes(objective: Objective, theta: Tensor) -> list[tuple[int, ...]]:
    shapes = objective.shapes if isinstance(objective, Shaped) else [tuple(theta.shape)]
    if sum(math.prod(shape) for shape in shapes) != theta.numel():
        raise ShapeError(
            f"the objective's shapes {shapes} do not make up {theta.numel()} parameters",
            "they list the tensors in the order in which θ holds them",
            f"shapes = [({theta.numel()},)]",
        )
    return shapes


def _parts(flat: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """Return the tensors of a flat vector; those of more than two axes as matrices."""
    parts = flat.split([math.prod(shape) for shape in shapes])
    return [p.reshape(shape[0], -1) if len(shape) > 1 else p for p, shape in zip(parts, shapes, strict=True)]


def _turn(flat: Tensor, shapes: list[tuple[int, ...]], bases: Any, back: bool = False) -> Tensor:
    """Return L' G R for every matrix G of a flat vector, or L G R' when going back."""
    turned = []
    for g, (left, right) in zip(_parts(flat, shapes), bases, strict=True):
        if left is not None:
            g = (left if back else left.T) @ g
        if right is not None:
            g = g @ (right.T if back else right)
        turned.append(g.reshape(-1))
    return torch.cat(turned)


def _eigenvectors(a: Tensor | None) -> Tensor | None:
    """Return the eigenvectors of a symmetric matrix, largest eigenvalue first."""
    if a is None:
        return None
    try:
        vectors: Tensor = torch.linalg.eigh(a)[1].flip(1)
    except LinAlgError as error:
        raise ConvergenceError(
            f"the eigenvectors of a gradient's average could not be found: {error}",
            "its entries are finite but too badly scaled",
            "SOAP(largest=1)  # which is Adam",
        ) from error
    return vectors
