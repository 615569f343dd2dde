"""R'(z) of every method of the catalogue: decay along rays, bounds, wrong signs."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from experiments._common.lines import Line
from experiments._common.paper import Options

from ntangent.ode import methods
from ntangent.ode.methods import Method

RAYS = (0, 45, 80)  # degrees between a ray and the negative real axis
SIZES = np.geomspace(1e-2, 1e6, 321)
TAIL = np.geomspace(1e4, 1e6, 21)  # where slopes are fitted
FAR = 1e7  # end of the scan


def derivative(method: Method, sizes: np.ndarray[Any, Any], angle: float) -> np.ndarray[Any, Any]:
    """Return R'(z) at z = |z| e^{i(π - a)}, complex."""
    z = torch.from_numpy(sizes * np.exp(1j * (math.pi - math.radians(angle))))
    found: np.ndarray[Any, Any] = method.stability_derivative(z).numpy()
    return found


def slope(sizes: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> float | None:
    """Return the least-squares slope in logarithms; None where values underflow."""
    if not (np.isfinite(values).all() and (values > 0).all()):
        return None
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def decay_line(cell: Mapping[str, Any]) -> Line:
    """Return what is known of a method, and |R'| along rays."""
    method = methods.get(cell["method"])
    rays = {str(a): np.abs(derivative(method, SIZES, a)) for a in RAYS}
    return {
        **cell,
        "family": method.family,
        "implicit": method.implicit,
        "a_stable": method.is_a_stable,
        "l_stable": method.is_l_stable,
        "multistep": isinstance(method, methods.Multistep),
        "order": method.decay_order,
        "constant": method.decay_constant,
        "slopes": {str(a): slope(TAIL, np.abs(derivative(method, TAIL, a))) for a in RAYS},
        "sector": {  # 1 is the bound |R'| <= 1/(2 |z| cos a)
            a: float(np.max(values * 2 * SIZES * math.cos(math.radians(float(a)))))
            for a, values in rays.items()
        },
        "schwarz_pick": schwarz_pick(method),
        "at_30": float(np.abs(derivative(method, np.array([30.0]), 0))[0] / math.exp(-30)),
        "rays": {a: [float(f"{v:.5g}") for v in values] for a, values in rays.items()},
    }


def schwarz_pick(method: Method) -> float:
    """Return the largest |R'| 2|Re z| / (1 - |R|²) on the rays, 0.1 <= |z| <= 1000: at most 1 if A-stable."""
    worst, sizes = 0.0, SIZES[(SIZES >= 0.1) & (SIZES <= 1e3)]
    for angle in RAYS:
        z = torch.from_numpy(sizes * np.exp(1j * (math.pi - math.radians(angle))))
        room = 1 - np.abs(method.stability(z).numpy()) ** 2
        with np.errstate(divide="ignore"):
            ratio = np.abs(derivative(method, sizes, angle)) * 2 * np.abs(z.real.numpy()) / room
        worst = max(worst, float(np.max(np.where(room > 0, ratio, math.inf))))
    return worst


def sign_line(cell: Mapping[str, Any]) -> Line:
    """Return where R' < 0 on the negative axis: as the catalogue has it, and as a scan finds it."""
    method = methods.get(cell["method"])
    exact = [list(interval) for interval in method.wrong_sign_intervals]
    found = scan(method)
    gap = math.inf
    if len(found) == len(exact):
        ends = [(x, y) for a, b in zip(found, exact, strict=True) for x, y in zip(a, b, strict=True)]
        gap = max((abs(x - y) / abs(y) if math.isfinite(y) else float(x != y) for x, y in ends), default=0.0)
    return {**cell, "a_stable": method.is_a_stable, "implicit": method.implicit, "exact": exact,
            "scan": found, "gap": gap}  # fmt: skip


def scan(method: Method) -> list[list[float]]:
    """Return the intervals of [-1e7, -1e-3] with R' < 0: sign changes on a fine mesh, then bisection.

    An interval that reaches the end of the mesh is taken to go on to -∞. Where R is not real it has no sign.
    """
    sizes = np.geomspace(FAR, 1e-3, 20_001)
    value = method.stability_derivative(torch.from_numpy(-sizes))
    negative = np.zeros(len(sizes), bool) if value.is_complex() else (value < 0).numpy()
    found: list[list[float]] = [[-math.inf]] if negative[0] else []
    for k in np.flatnonzero(negative[1:] != negative[:-1]):
        end = bisect(method, -float(sizes[k]), -float(sizes[k + 1]))
        if negative[k]:
            found[-1].append(end)
        else:
            found.append([end])
    return found


def bisect(method: Method, low: float, high: float) -> float:
    """Return the zero of R' between two points with different signs."""
    sign = method.stability_derivative(low) < 0
    for _ in range(60):
        middle = (low + high) / 2
        if (method.stability_derivative(middle) < 0) == sign:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def every_method(_options: Options) -> Iterator[Line]:
    """All methods of the catalogue."""
    for name in methods.names():
        yield {"method": name}


def slowest_possible(sizes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return |R'(-x)| of R = cos(log(1 - z)) / cosh(π/2): |R| ≤ 1 on the left half-plane, no scheme.

    |R'| = |sin(log(1 + x))| / ((1 + x) cosh(π/2)) touches 0.4 / |z| in every factor of e^π.
    """
    x = np.asarray(sizes)
    return np.abs(np.sin(np.log1p(x))) / ((1 + x) * math.cosh(math.pi / 2))


def envelope() -> float:
    """Return the order of the maxima of :func:`slowest_possible` over five decades."""
    edges = 1e3 * np.exp(math.pi * np.arange(5))  # the same phase of log|z| in every window
    peaks = [float(slowest_possible(np.geomspace(a, a * math.exp(math.pi), 4001)).max()) for a in edges]
    found = slope(edges, np.array(peaks))
    assert found is not None
    return -found
