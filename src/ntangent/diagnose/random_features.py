"""Random feature models: fixed random inner weights, and the matrices of their linear least squares.

A model u = Σ a_j s(w_j·x + b_j) with frozen w, b is linear in a; a differential equation with its
boundary conditions becomes rows A a = f. The rows are exact (jets) or finite differences, and the
difference between the two spectra is what Chen, Yang, Xiang & Hao (2025) study.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from ntangent._base.check import check_choice, check_points, check_positive
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError
from ntangent._base.extras import require_extra
from ntangent._base.registry import Registry
from ntangent._base.stencil import Differences, Powers, product_stencil
from ntangent.jet.api import jet

METHODS = ("jet", "fd")
Symbol = Mapping[tuple[int, ...], float]


@dataclass(frozen=True)
class FeatureFunction:
    """An activation of random features.

    Args:
        function: on tensors and jets.
        precise: the same on mpmath numbers, given the module: ``lambda mp, z: mp.tanh(z)``.
    """

    function: Callable[[Any], Any]
    precise: Callable[[Any, Any], Any]


feature_functions: Registry[FeatureFunction] = Registry("feature function")
feature_functions.add("tanh", FeatureFunction(torch.tanh, lambda mp, z: mp.tanh(z)))
feature_functions.add("sin", FeatureFunction(torch.sin, lambda mp, z: mp.sin(z)))
feature_functions.add("cos", FeatureFunction(torch.cos, lambda mp, z: mp.cos(z)))
feature_functions.add("sigmoid", FeatureFunction(torch.sigmoid, lambda mp, z: 1 / (1 + mp.exp(-z))))
feature_functions.add("gaussian", FeatureFunction(lambda z: torch.exp(-z * z), lambda mp, z: mp.exp(-z * z)))
feature_functions.add(
    "relu3", FeatureFunction(lambda z: torch.relu(z) ** 3, lambda mp, z: max(z, mp.mpf(0)) ** 3)
)
feature_functions.add(
    "relu5", FeatureFunction(lambda z: torch.relu(z) ** 5, lambda mp, z: max(z, mp.mpf(0)) ** 5)
)


class RandomFeatures(nn.Module):
    """The features φ_j(x) = s(w_j·x + b_j): a module from (N, d) to (N, M) without trainable parameters.

    Args:
        weights: w, shape (M, d).
        biases: b, shape (M,).
        activation: a name of ``feature_functions``.
    """

    weights: Tensor
    biases: Tensor

    def __init__(self, weights: Tensor, biases: Tensor, activation: str = "tanh") -> None:
        super().__init__()
        check_points(weights, "weights")
        if biases.shape != weights.shape[:1] or biases.dtype != weights.dtype:
            raise ShapeError(
                f"weights {tuple(weights.shape)} and biases {tuple(biases.shape)}, "
                f"{weights.dtype} and {biases.dtype}",
                "each feature has a vector and a number",
                "weights (M, d), biases (M,)",
            )
        self.row = feature_functions[activation]
        self.activation = activation
        self.register_buffer("weights", weights.detach().clone())
        self.register_buffer("biases", biases.detach().clone())

    @classmethod
    def draw(
        cls,
        count: int,
        dimension: int = 1,
        radius: float = 1.0,
        activation: str = "tanh",
        *,
        law: str = "uniform",
        generator: torch.Generator | int = 0,
        dtype: torch.dtype = torch.float64,
    ) -> RandomFeatures:
        """Return features with random weights and biases.

        Args:
            count: M.
            dimension: d.
            radius: R; weights and biases are uniform in (-R, R), or normal with standard deviation R.
            activation: a name of ``feature_functions``.
            law: "uniform" or "normal".
            generator: source of randomness, a generator or a seed.
            dtype: precision; the draw is made in float64, so that it is the same in both.
        """
        check_choice(law, ("uniform", "normal"), "law")
        size = (
            check_positive(count, "count", integer=True),
            check_positive(dimension, "dimension", integer=True) + 1,
        )
        check_positive(radius, "radius")
        if isinstance(generator, int):
            generator = torch.Generator().manual_seed(generator)
        if law == "uniform":
            drawn = 2 * torch.rand(size, generator=generator, dtype=torch.float64) - 1
        else:
            drawn = torch.randn(size, generator=generator, dtype=torch.float64)
        drawn = (radius * drawn).to(dtype)
        return cls(drawn[:, :-1], drawn[:, -1], activation)

    def extra_repr(self) -> str:
        """Return the sizes for ``repr``."""
        count, dimension = self.weights.shape
        return f"{count} features in {dimension} dimension(s), {self.activation}"

    def forward(self, x: Any) -> Any:
        """Return the features, shape (N, M)."""
        return self.row.function(nn.functional.linear(x, self.weights, self.biases))

    def partial(self, x: Tensor, index: Sequence[int]) -> Tensor:
        """Return ∂^index φ exactly: s^(n) by a jet of one variable, times Π w_i^index_i; shape (N, M)."""
        order = sum(index)
        z = nn.functional.linear(x, self.weights, self.biases)
        slope = jet(self.row.function, z.reshape(-1, 1), order).derivative(order).reshape(z.shape)
        for i, power in enumerate(index):
            if power:
                slope = slope * self.weights[:, i] ** power
        return slope


@dataclass(frozen=True)
class Rows:
    """Rows of a system matrix: an operator at points.

    Args:
        points: shape (N, d).
        operator: {multi-index: coefficient}, ``{(2,): -1.0}`` for -u''; or a function (f, x) -> (N, M)
            that applies any operator to the features, used as it is: ``nt.laplacian``.
        weight: factor of the rows, the root of a weight in the loss.
        exact: never take finite differences here (boundary conditions).
    """

    points: Tensor
    operator: Symbol | Callable[[Any, Tensor], Tensor]
    weight: float = 1.0
    exact: bool = False


def system_matrix(
    features: nn.Module,
    rows: Sequence[Rows],
    method: str = "jet",
    *,
    step: float | Sequence[float] | None = None,
    accuracy: int = 2,
    scheme: str = "central",
) -> Tensor:
    """Return the matrix A of the least-squares problem A a = f, one block of rows after the other.

    Args:
        features: maps (N, d) to (N, M). Multi-indices with "jet" need :class:`RandomFeatures`; for
            other modules give operators as functions.
        rows: equations and boundary conditions.
        method: "jet" for exact derivatives or "fd" for finite differences at x ± h.
        step: h of the differences; None takes eps^(1/(order + accuracy)).
        accuracy: power of h in their error.
        scheme: "central", "forward" or "backward".

    Returns:
        Shape (total number of points, M), detached.

    Raises:
        ShapeError, DtypeError, ArgumentError: on arguments that cannot be used.

    Cost:
        One jet of the activation per block; or one evaluation at every stencil point.
    """
    check_choice(method, METHODS, "method")
    check_rows_given(rows)
    differences = Differences(tuple(step) if isinstance(step, Sequence) else step, accuracy, scheme)
    blocks = []
    with torch.no_grad():
        for row in rows:
            x = check_points(row.points, "points")
            if callable(row.operator):
                block = row.operator(features, x)
            elif method == "fd" and not row.exact:
                block = differences.apply(features, x, [_symbol(row.operator)])[0]
            else:
                block = _exact(features, x, row.operator)
            blocks.append(float(row.weight) * block.detach())
    return torch.cat(blocks)


def check_rows_given(rows: Sequence[Rows]) -> None:
    """Raise unless there are rows, and every multi-index fits its points."""
    if not rows:
        raise ArgumentError("rows is empty", "a matrix needs rows", "[Rows(x, {(2,): -1.0})]")
    for row in rows:
        if callable(row.operator):
            continue
        for index in row.operator:
            if len(index) != row.points.shape[-1] or min(index) < 0:
                raise ShapeError(
                    f"the multi-index {index} at points of shape {tuple(row.points.shape)}",
                    "each coordinate has one order",
                    str((2,) + (0,) * (row.points.shape[-1] - 1)),
                )


def _exact(features: nn.Module, x: Tensor, operator: Symbol) -> Tensor:
    if not isinstance(features, RandomFeatures):
        raise DtypeError(
            f"features are {type(features).__name__}",
            "multi-indices are applied exactly to RandomFeatures",
            "Rows(x, nt.laplacian)",
        )
    parts = [float(c) * features.partial(x, index) for index, c in operator.items()]
    return sum(parts[1:], start=parts[0])


def _symbol(operator: Symbol) -> dict[Powers, Fraction]:
    return {_powers(index): Fraction(c) for index, c in operator.items()}


def _powers(index: Sequence[int]) -> Powers:
    return tuple((i, power) for i, power in enumerate(index) if power)


def precise_system_matrix(
    features: RandomFeatures,
    rows: Sequence[Rows],
    method: str = "jet",
    *,
    digits: int = 60,
    step: float | None = None,
    accuracy: int = 2,
    scheme: str = "central",
) -> Any:
    """Return the system matrix as an ``mpmath.matrix`` with that many digits: what no rounding can explain.

    Weights, biases, points and the step are taken as the float64 numbers they are. Operators are given by
    multi-indices. Needs mpmath (extra ``diagnose``).

    Cost:
        About 0.2 ms per entry and derivative for finite differences, 1 ms for exact ones.
    """
    check_choice(method, METHODS, "method")
    check_rows_given(rows)
    require_extra("diagnose", "a matrix with many digits")
    import mpmath as mp

    if method == "fd":
        check_positive(step, "step")
    w, b = features.weights.double().tolist(), features.biases.double().tolist()
    with mp.workdps(digits):
        inner = [([mp.mpf(v) for v in weights], mp.mpf(bias)) for weights, bias in zip(w, b, strict=True)]
        entry = _Entry(mp, features.row.precise, None if step is None else mp.mpf(step), accuracy, scheme)
        lines = []
        for row in rows:
            if callable(row.operator):
                raise DtypeError("an operator is a function", "digits need multi-indices", "{(2,): -1.0}")
            value = entry.exact if method == "jet" or row.exact else entry.difference
            for x in row.points.double().tolist():
                lines.append(
                    [
                        mp.mpf(row.weight)
                        * mp.fsum([mp.mpf(c) * value(v, bias, x, index) for index, c in row.operator.items()])
                        for v, bias in inner
                    ]
                )
        return mp.matrix(lines)


@dataclass(frozen=True)
class _Entry:
    """∂^index s(w·x + b) in mpmath numbers."""

    mp: Any
    rule: Callable[[Any, Any], Any]
    step: Any
    accuracy: int
    scheme: str

    def _argument(self, w: Sequence[Any], b: Any, x: Sequence[float]) -> Any:
        return self.mp.fsum([b, *(v * self.mp.mpf(c) for v, c in zip(w, x, strict=True))])

    def exact(self, w: Sequence[Any], b: Any, x: Sequence[float], index: Sequence[int]) -> Any:
        slope = self.mp.diff(lambda z: self.rule(self.mp, z), self._argument(w, b, x), sum(index))
        return self.mp.fprod([slope, *(v**k for v, k in zip(w, index, strict=True))])

    def difference(self, w: Sequence[Any], b: Any, x: Sequence[float], index: Sequence[int]) -> Any:
        mp, z, terms = self.mp, self._argument(w, b, x), []
        for offset, weight in product_stencil(_powers(index), self.accuracy, self.scheme).items():
            shifted = z + mp.fsum([w[i] * k * self.step for i, k in offset])
            terms.append(mp.mpf(weight.numerator) / weight.denominator * self.rule(mp, shifted))
        return mp.fsum(terms) / self.step ** sum(index)
