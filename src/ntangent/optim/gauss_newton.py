"""Gauss-Newton with a line search: the natural gradient of a sum of squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_choice, check_order, check_positive
from ntangent._base.errors import DtypeError
from ntangent._base.protocols import MatrixFree, Objective, State
from ntangent.optim._damped import choose, factorise, smallest_damping
from ntangent.optim._descent import Point, WolfeSettings, descend, first_point, stuck
from ntangent.optim._products import Gram, conjugate_gradients, largest, sketch
from ntangent.optim._stage import check_tolerance, check_wolfe, norm, verdict

SOLVERS = ("auto", "dense", "cg", "sketch")
# "auto" forms the Jacobian while its smaller side and its number of entries stay below these.
DENSE_SIDE, DENSE_ENTRIES = 3000, 40_000_000


@dataclass(frozen=True)
class _Direction:
    """A direction, shape (P,), with what it cost and what is reported of it."""

    step: Tensor
    products: int
    info: dict[str, float]


@dataclass(frozen=True)
class GaussNewton:
    """Gauss-Newton for loss = |r|² with a strong-Wolfe line search; also called the natural gradient.

    The direction is d = -(J'J + μ)⁻¹ J'r. The damping is relative, μ = δ·λ with λ the largest eigenvalue
    of J'J. δ follows the line search: divided by 4 after a full step, multiplied by 4 after a shorter
    one and by 16 after a restart with the steepest descent, and never below rounding.

    Solvers, with k = min(M, P):

    - "dense" forms J and factorises the smaller of J'J and J J' (with fewer residuals than parameters
      that is the Woodbury form), or J itself where the damping is too small for a Gram matrix.
    - "cg" only multiplies by J and J', with conjugate gradients in the space of k numbers, a
      randomised Nyström sketch of rank ``sketch`` as preconditioner. A step costs 2·sketch products and
      two more an inner iteration.
    - "sketch" takes the sketch for the matrix: 2·sketch products, no inner iterations. Cheaper, less
      exact; directions outside the sketch get the step of a gradient method.
    - "auto" is "dense" while k <= 3000 and J has at most 4e7 entries, and "cg" beyond (for an
      objective without products it stays "dense").

    Levenberg-Marquardt, which decides by trials and accelerates, goes further on small problems; this
    stage is for the large ones. ``scipy.optimize.least_squares`` is a trust-region method that needs
    a sparse or dense Jacobian, in numpy, and cannot be cut between two iterations.

    Source: Müller & Zeinhofer, arXiv 2302.13163 (2023); Guzmán-Cordero et al., arXiv 2505.12149 (2025),
    for the Woodbury form and the sketch; Nocedal & Wright (2006), section 10.3.

    Args:
        iterations: budget.
        damping: first δ.
        solver: "auto", "dense", "cg" or "sketch".
        sketch: rank of the sketch; 0 (with "cg" only) for none.
        accuracy: relative residual at which conjugate gradients stop.
        products: largest number of inner iterations of one step.
        tolerance: stop when the loss is not above it (in the units of the loss).
        armijo: sufficient-decrease constant of the line search.
        curvature: slope constant of the line search.
        max_evaluations: budget of one line search.
        seed: seed of the sketches; that of iteration i is drawn from seed + i.
    """

    iterations: int
    damping: float = 1e-4
    solver: str = "auto"
    sketch: int = 50
    accuracy: float = 1e-2
    products: int = 100
    tolerance: float = 0.0
    armijo: float = 1e-4
    curvature: float = 0.9
    max_evaluations: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "products", "max_evaluations"):
            check_positive(getattr(self, name), name, integer=True)
        for name in ("damping", "accuracy"):
            check_positive(getattr(self, name), name)
        check_choice(self.solver, SOLVERS, "solver")
        check_order(self.sketch, "sketch")
        if self.solver == "sketch":
            check_positive(self.sketch, "sketch", integer=True)
        check_order(self.seed, "seed")
        check_tolerance(self.tolerance)
        check_wolfe(self.armijo, self.curvature)

    def begin(self, objective: Objective, theta: Tensor) -> State:
        """Return the state before the first iteration; here "auto" is decided."""
        point = first_point(objective, theta)
        size = norm(point.gradient)
        memory = {
            "gradient": point.gradient,
            "damping": self.damping,
            "solver": self._choose(objective, point.theta),
            "evaluations": 1,
            "products": 0,
        }
        stop = verdict(point.loss, size, self.tolerance, 0, self.iterations)
        return State(
            point.theta,
            point.loss,
            memory=memory,
            info={"gradient_norm": size, "evaluations": 1.0},
            stop=stop,
        )

    def step(self, objective: Objective, state: State) -> State:
        """Find the direction and search along it; a finished state is returned as is."""
        if state.stop is not None:
            return state
        memory = state.memory
        point = Point(state.theta, state.loss, memory["gradient"])
        found = self._direction(objective, state)
        settings = WolfeSettings(self.armijo, self.curvature, self.max_evaluations)
        move = descend(objective, point, found.step, 1.0, settings)
        evaluations = memory["evaluations"] + move.evaluations + 1
        products = memory["products"] + found.products
        if move.point is None:
            return stuck(state, evaluations)
        new, done = move.point, state.iteration + 1
        factor = 16.0 if move.restarted else 0.25 if move.step >= 1 else 4.0
        floor = float(torch.finfo(state.theta.dtype).eps) ** (1 if memory["solver"] != "dense" else 2)
        size = norm(new.gradient)
        info = {
            **found.info,
            "gradient_norm": size,
            "step_length": norm(new.theta - point.theta),
            "step": move.step,
            "damping": memory["damping"],
            "restarted": float(move.restarted),
            "wolfe": float(move.outcome == "wolfe"),
            "evaluations": float(evaluations),
            "products": float(products),
            "accepted": 1.0,
        }
        kept = {
            "gradient": new.gradient,
            "damping": min(1.0, max(memory["damping"] * factor, floor)),
            "solver": memory["solver"],
            "evaluations": evaluations,
            "products": products,
        }
        stop = verdict(new.loss, size, self.tolerance, done, self.iterations)
        return State(new.theta, new.loss, done, kept, info, stop)

    def _choose(self, objective: Objective, theta: Tensor) -> str:
        able = isinstance(objective, MatrixFree)
        if self.solver in ("cg", "sketch") and not able:
            raise DtypeError(
                f"{type(objective).__name__} has no products with its Jacobian",
                f"the solver {self.solver!r} needs its method linearise",
                'GaussNewton(..., solver="dense")',
            )
        if self.solver != "auto":
            return self.solver
        rows, columns = len(objective.residuals(theta)), len(theta)
        small = min(rows, columns) <= DENSE_SIDE and rows * columns <= DENSE_ENTRIES
        return "dense" if small or not able else "cg"

    def _direction(self, objective: Objective, state: State) -> _Direction:
        if state.memory["solver"] == "dense":
            return self._dense(objective, state)
        return self._matrix_free(objective, state)

    def _dense(self, objective: Objective, state: State) -> _Direction:
        r, jacobian = objective.residuals_and_jacobian(state.theta)
        size, eps = norm(jacobian), float(torch.finfo(jacobian.dtype).eps)
        if size == 0:
            return _Direction(torch.zeros_like(state.theta), 0, {})
        # |J| (Frobenius) bounds the largest singular value, within the root of the rank.
        mu = max(state.memory["damping"] * size * size, smallest_damping("svd", size, eps))
        kind = choose(mu, size, eps, min(jacobian.shape))
        factor = factorise(jacobian, kind)
        step = factor.solve(factor.coefficients(r), mu)
        info = {"orthogonal": float(kind in ("qr", "svd"))}
        return _Direction(step, 0, info if factor.rank is None else {"rank": float(factor.rank), **info})

    def _matrix_free(self, objective: Any, state: State) -> _Direction:
        gram = Gram(objective.linearise(state.theta), len(state.theta))
        b, seed = gram.right, self.seed + state.iteration
        products = 1
        found = None
        if self.sketch:
            found = sketch(gram, b, self.sketch, seed)
            products += 2 * min(self.sketch, gram.size)
            top = float(found.values[0])
        else:
            top = largest(gram, b, seed)
        mu = state.memory["damping"] * top
        if not mu > 0:
            return _Direction(torch.zeros_like(state.theta), products, {})
        if state.memory["solver"] == "sketch":
            assert found is not None
            return _Direction(gram.step(found.solve(b, mu)), products, {"rank": float(len(found.values))})

        def precondition(v: Tensor) -> Tensor:
            return v if found is None else found.precondition(v, mu)

        solved = conjugate_gradients(gram, b, mu, precondition, accuracy=self.accuracy, budget=self.products)
        info = {"inner_iterations": float(solved.products), "inner_residual": solved.residual}
        return _Direction(gram.step(solved.y), products + 2 * solved.products, info)
