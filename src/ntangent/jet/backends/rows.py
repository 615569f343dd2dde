"""What the compiled kernels need to know about a row of the activation table."""

from __future__ import annotations

import hashlib
from functools import cache

from ntangent.jet.activations import Activation


def static_states(row: Activation) -> tuple[int, ...]:
    """Return the states (counted from 1) that do not move: branches of piecewise functions."""
    return tuple(i + 1 for i, flow in enumerate(row.flow) if not flow.terms)


@cache
def keeps(row: Activation) -> int:
    """Return what backward needs of the forward pass beside the output.

    0: only the slope at order 0; its series is a polynomial of the output's. 1: only the slope at
    order 0; it does not move (piecewise linear functions). 2: the whole series of the slope.
    """
    slope = row.output.along(row.flow)
    moving = set(range(slope.arity)) - set(static_states(row))
    if not any(exponents[i] for exponents, _ in slope.terms for i in moving):
        return 1
    is_output = row.output.terms == (((0, 1), 1),)
    if len(row.flow) == 1 and is_output and not any(exponents[0] for exponents, _ in slope.terms):
        return 0
    return 2


@cache
def signature(row: Activation) -> str:
    """Return a name that two rows share only when they state the same function."""
    terms = [[(e, float(c)) for e, c in p.terms] for p in (*row.flow, row.output)]
    text = repr((row.kernel, row.parameters, row.slope is not None, terms))
    return f"{row.name}#{hashlib.sha1(text.encode()).hexdigest()[:12]}"
