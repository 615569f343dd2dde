"""Unbiased estimates of operators in many dimensions, each with its standard error.

Directions and terms are drawn once and shared by all points, so the errors of different points
are correlated: the standard error is that of one point's estimate. It is computed from the same
samples. Values are differentiable, standard errors are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ntangent._base.check import check_choice, check_points, check_positive
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError
from ntangent.jet.api import jet
from ntangent.operators.apply import evaluate
from ntangent.operators.operator import Operator
from ntangent.operators.symbol import Monomial

Function = Callable[[Any], Any]
Seed = int | torch.Generator | None


@dataclass(frozen=True)
class Estimate:
    """A random value whose expectation is the exact one.

    Args:
        value: mean over the samples, shape (N, out).
        standard_error: estimated standard deviation of ``value``, shape (N, out).
        samples: how many samples were averaged.
    """

    value: Tensor
    standard_error: Tensor
    samples: int


LAPLACIAN_LAWS = ("rademacher", "gaussian", "sphere", "coordinate")
BIHARMONIC_LAWS = ("gaussian", "sphere")


def laplacian_estimate(
    f: Function,
    x: Float[Tensor, "point dimension"],
    samples: int,
    distribution: str = "rademacher",
    weights: Sequence[float] | None = None,
    generator: Seed = None,
    chunk: int | None = None,
) -> Estimate:
    """Estimate Σ_i w_i ∂²f/∂x_i² by second derivatives along random directions.

    With A = W^½ H W^½, H the Hessian and W = diag(w), every law has E[v vᵀ] = I, so vᵀAv has the
    expectation tr A. Its variance, one sample:

        rademacher  v_i = ±1                   2 Σ_{i≠j} A_ij²
        gaussian    v_i normal                 2 Σ_ij A_ij²
        sphere      |v|² = d uniformly         (2d Σ_ij A_ij² - 2 (tr A)²) / (d + 2)
        coordinate  v = √d e_i, i uniform      d Σ_i A_ii² - (tr A)²

    The variance of the mean is that over ``samples``. Coordinates are drawn without replacement
    while samples <= d: it then is smaller by the factor (d - samples) / (d - 1), and the standard
    error carries the finite-population factor √(1 - samples/d); samples = d is exact.
    Hutchinson (1990), A stochastic estimator of the trace; coordinates: Hu, Shukla, Karniadakis &
    Kawaguchi (2024), Tackling the curse of dimensionality with physics-informed neural networks.

    Args:
        f: maps (N, d) to (N, out).
        x: points, shape (N, d).
        samples: number of directions, at least 2; they share the computation of the value.
        distribution: "rademacher", "gaussian", "sphere" or "coordinate".
        weights: one w_i >= 0 per coordinate, 1 by default ("coordinate" takes any sign).
        generator: source of randomness, a generator or a seed; torch's own by default.
        chunk: carry this many directions at a time; bounds the memory of a pass without gradients.

    Raises:
        UnknownNameError, ArgumentError, ShapeError, DtypeError: on arguments that cannot be used.

    Cost:
        1 + 2·samples rows per point, whatever d.
    """
    x, samples = check_points(x), _check_samples(samples)
    check_choice(distribution, LAPLACIAN_LAWS, "distribution")
    d = x.shape[1]
    w = _check_weights(weights, d, distribution)
    if distribution != "coordinate":
        directions = _directions(distribution, samples, x, generator) * w.sqrt().to(x)
        return _mean(_along(f, x, directions, 2, chunk))
    if samples <= d:
        drawn = torch.randperm(d, **_source(generator))[:samples]
    else:
        drawn = torch.randint(d, (samples,), **_source(generator))
    unit = torch.nn.functional.one_hot(drawn, d).to(x)
    scale = (d * w[drawn.cpu()]).to(x)
    return _mean(_along(f, x, unit, 2, chunk) * scale[:, None, None], d if samples <= d else None)


def biharmonic_estimate(
    f: Function,
    x: Float[Tensor, "point dimension"],
    samples: int,
    distribution: str = "sphere",
    generator: Seed = None,
    chunk: int | None = None,
) -> Estimate:
    """Estimate ΔΔf by fourth derivatives along random directions.

    For a normal vector v the moments E[v_i v_j v_k v_l] are δ_ij δ_kl + δ_ik δ_jl + δ_il δ_jk, so
    E[(v·∇)⁴f] = 3 ΔΔf. Its length is independent of its direction and E|v|⁴ = d(d + 2), so for
    directions uniform on |v|² = d the expectation of (v·∇)⁴f is 3d/(d + 2) ΔΔf. That estimator is
    the normal one averaged over the length: its variance is never larger. (Signs ±1 would not do:
    E[v_i⁴] = 1 where 3 is needed.) The variance is that of the samples: (m₂ - m₁²) / samples, with
    m₁ and m₂ the moments of (v·∇)⁴f / 3, or times (d + 2)/d on the sphere.

    Arguments and errors as for :func:`laplacian_estimate`; the laws are "sphere" and "gaussian".

    Cost:
        1 + 4·samples rows per point.
    """
    x, samples = check_points(x), _check_samples(samples)
    check_choice(distribution, BIHARMONIC_LAWS, "distribution")
    d = x.shape[1]
    factor = (d + 2) / (3 * d) if distribution == "sphere" else 1 / 3
    return _mean(_along(f, x, _directions(distribution, samples, x, generator), 4, chunk) * factor)


def estimate(
    operator: Operator,
    f: Function,
    x: Float[Tensor, "point dimension"],
    samples: int,
    generator: Seed = None,
    chunk: int | None = None,
) -> Estimate:
    """Estimate any operator with constant coefficients by sampling its terms.

    For Σ_α c_α ∂^α with Z = Σ|c_α|, terms are drawn with probability |c_α|/Z and the values
    Z sign(c_α) ∂^α f are averaged. The variance of one sample is Z Σ|c_α| (∂^α f)² - (Σ c_α ∂^α f)²,
    over ``samples`` for the mean. The distinct terms that were drawn are evaluated in one pass.
    Hu, Shi, Karniadakis & Kawaguchi (2024), Stochastic Taylor derivative estimator, arXiv 2412.00088.

    Args:
        operator: an operator with constant coefficients in d dimensions.
        f: maps (N, d) to (N, out).
        x: points, shape (N, d).
        samples: number of draws, at least 2. With as many draws as the operator has terms the
            exact :func:`ntangent.operators.evaluate` is usually cheaper.
        generator: source of randomness, a generator or a seed; torch's own by default.
        chunk: evaluate this many points at a time.

    Raises:
        ArgumentError: if the operator has variable coefficients or no terms.
        ShapeError, DtypeError: on arguments that cannot be used.

    Cost:
        The rows of the plan of the distinct terms.
    """
    x, samples = check_points(x), _check_samples(samples)
    if not isinstance(operator, Operator):
        raise DtypeError(f"operator is {type(operator).__name__}", "", "Operator.laplacian(d)")
    if any(term.factor is not None for term in operator.terms):
        raise ArgumentError(
            "the operator has variable coefficients",
            "terms are drawn with probabilities that are the same at all points",
            "estimate its constant-coefficient parts and multiply by the coefficients",
        )
    if not operator.terms:
        raise ArgumentError(
            "the operator has no terms", "there is nothing to draw", "evaluate(f, x, [operator])"
        )
    ((symbol, _),) = [(term.symbol, term.factor) for term in operator.terms]
    sizes = torch.tensor([abs(float(c)) for _, c in symbol], dtype=torch.float64)
    total = float(sizes.sum())
    source = _source(generator)
    uniform = torch.rand(samples, dtype=torch.float64, **source).cpu()
    edges = torch.cumsum(sizes, 0) / total
    drawn = torch.searchsorted(edges, uniform, right=True).clamp_max(len(symbol) - 1)
    kept, times = torch.unique(drawn, return_counts=True)
    terms = [_single(symbol[int(k)][0], operator.dimension) for k in kept]
    values = torch.stack(evaluate(f, x, terms, chunk=chunk))
    signs = torch.tensor([math.copysign(total, symbol[int(k)][1]) for k in kept], dtype=x.dtype)
    values = values * signs.to(x.device)[:, None, None]
    counts = times.to(x)[:, None, None]
    mean = (values * counts).sum(0) / samples
    spread = ((values.detach() - mean.detach()) ** 2 * counts).sum(0) / (samples - 1)
    return Estimate(mean, (spread / samples).sqrt(), samples)


def _single(m: Monomial, dimension: int) -> Operator:
    index = [0] * dimension
    for i, power in m:
        index[i] = power
    return Operator.partial(*index)


def _check_samples(samples: int) -> int:
    if check_positive(samples, "samples", integer=True) < 2:
        raise ArgumentError("samples is 1", "one sample says nothing about its own error", "samples=2")
    return samples


def _check_weights(weights: Sequence[float] | None, d: int, distribution: str) -> Tensor:
    w = torch.ones(d, dtype=torch.float64)
    if weights is not None:
        w = torch.as_tensor(weights, dtype=torch.float64).detach().cpu()
    if w.shape != (d,):
        raise ShapeError(f"weights of shape {tuple(w.shape)} in {d} dimensions", "", f"weights=[1.0] * {d}")
    if not bool(torch.isfinite(w).all()):
        raise ArgumentError("the weights are not finite", "", "weights=[1.0] * d")
    if distribution != "coordinate" and bool((w < 0).any()):
        raise ArgumentError(
            "a weight is negative",
            "directions are scaled by the root of the weights",
            'distribution="coordinate", or estimate(Operator.laplacian(d, weights), f, x, samples)',
        )
    return w


def _source(generator: Seed) -> dict[str, Any]:
    """Return the arguments that make torch draw from this source."""
    if isinstance(generator, bool) or not isinstance(generator, int | torch.Generator | None):
        raise DtypeError(f"generator is {type(generator).__name__}", "", "generator=0")
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)
    return {} if generator is None else {"generator": generator, "device": generator.device}


def _directions(law: str, samples: int, x: Tensor, generator: Seed) -> Tensor:
    """Return random directions with E[v vᵀ] = I, shape (samples, d)."""
    shape, source = (samples, x.shape[1]), _source(generator)
    if law == "rademacher":
        return (2 * torch.randint(2, shape, **source) - 1).to(x)
    v = torch.randn(shape, dtype=torch.float64, **source)
    if law == "sphere":
        v = v * (shape[1] ** 0.5 / v.norm(dim=1, keepdim=True))
    return v.to(x)


def _along(f: Function, x: Tensor, directions: Tensor, order: int, chunk: int | None) -> Tensor:
    """Return the derivatives of one order along every direction, shape (samples, N, out)."""
    size = len(directions) if chunk is None else check_positive(chunk, "chunk", integer=True)
    return torch.cat([jet(f, x, order, direction=part).derivative(order) for part in directions.split(size)])


def _mean(values: Tensor, population: int | None = None) -> Estimate:
    samples = len(values)
    mean = values.mean(0)
    variance = ((values - mean).detach() ** 2).sum(0) / (samples * (samples - 1))
    if population is not None:
        variance = variance * (1 - samples / population)
    return Estimate(mean, variance.sqrt(), samples)
