"""Residual small but solution off: which modes of the error the residual does not see."""

from __future__ import annotations

from typing import Any

import numpy as np

from ntangent.report.data import RunData
from ntangent.report.diagnosis.base import (
    RULES,
    Answer,
    Rule,
    brief,
    fact,
    fields,
    fine,
    holds,
    remaining,
    unknown,
)
from ntangent.report.diagnosis.pictures import bars
from ntangent.report.style import Palette

ERROR, SMALL, MODES = 0.1, 1e-3, 12


def modes(error: Any) -> dict[str, float]:
    """Return the shares of an error in the lowest cosine modes of its first two axes, the largest first."""
    error = np.nan_to_num(np.asarray(error, dtype=float))
    while error.ndim > 2:
        error = error[..., error.shape[-1] // 2]
    bases = []
    for n in error.shape:
        k, x = np.arange(MODES), (np.arange(n) + 0.5) / n
        basis = np.cos(np.pi * k[:, None] * x[None, :])
        bases.append(basis / np.linalg.norm(basis, axis=1, keepdims=True))
    found = bases[0] @ error if error.ndim == 1 else bases[0] @ error @ bases[1].T
    total = max(float(np.square(error).sum()), 1e-300)
    shares = np.square(found) / total
    best = sorted(np.ndindex(shares.shape), key=lambda index: -shares[index])[:8]
    return {", ".join(map(str, index)): float(shares[index]) for index in best}


def check(data: RunData) -> Answer:
    """Compare the field with the exact one where the residual says that all is well."""
    both = {name: pair for name, pair in fields(data).items() if pair[1] is not None}
    if not both:
        return unknown("no exact solution is known")
    errors = {}
    for name, (u, exact) in both.items():
        errors[name] = float(np.sqrt(np.nansum((u - exact) ** 2) / max(np.nansum(exact**2), 1e-300)))
    worst = max(errors, key=lambda name: errors[name])
    if errors[worst] < ERROR or not remaining(data) < SMALL:
        return fine(relative_l2=errors)
    u, exact = both[worst]
    shares = modes(u - exact)
    first = next(iter(shares))
    text = (
        f"{worst} is off by {errors[worst]:.0%} in the mean square, while the loss is down to "
        f"{brief(remaining(data))} of where it began. {shares[first]:.0%} of the error is the cosine mode "
        f"{first} "
        "(half waves along each axis)."
    )
    spectrum = fact(data, "spectrum")
    evidence = {"relative_l2": errors[worst], "modes": shares, "loss_left": remaining(data)}
    if spectrum:
        values = np.array(spectrum["values"])
        weak = int((values < 1e-3 * values[0]).sum())
        text += (
            f" {weak} of {len(values)} directions move the residual less than a thousandth of the strongest."
        )
        evidence["weak_directions"] = weak
    return holds(text, **evidence)


def draw(_: RunData, palette: Palette, answer: Answer) -> Any:
    """Draw the shares of the error's modes."""
    return bars(answer.evidence["modes"], palette, "Share of the error in its cosine modes (half waves)")


RULES.add(
    "residual-small-solution-off",
    Rule(
        "residual-small-solution-off",
        "The residual is small, the solution is off",
        f"relative L2 error above {ERROR}, with less than {SMALL} of the loss at the start left",
        "small eigenvalues of the operator: De Ryck & Mishra 2022 (arXiv 2205.12109); spectral bias: arXiv "
        "2007.14527",
        (
            "larger weights on the conditions: modes that the equation does not see are fixed by them",
            "sobolev=1, which counts derivatives of the residual too",
            "a second-order method (LevenbergMarquardt, SSBroyden), which is not blind to weak directions",
        ),
        check,
        draw,
    ),
)
