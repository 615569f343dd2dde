"""Which Taylor rule a torch function has: the table, the call, and the error when there is none.

Rules come in few kinds. A *linear* one acts on every coefficient alike; a *bilinear* one is a
truncated product; a *flow* is a row of the activation table; anything else is a function of jets
built from the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.overrides

from ntangent._base.errors import ArgumentError, MissingRule

Rule = Callable[..., Any]
RuleT = TypeVar("RuleT", bound=Callable[..., Any])
RULES: dict[Any, Rule] = {}
# Functions that only read facts about the value: its shape and type, comparisons for masks.
READS = frozenset({"size", "dim", "numel", "is_floating_point", "is_complex", "isnan", "isinf", "isfinite"})
READS |= {"eq", "ne", "lt", "le", "gt", "ge", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"}


def rule(*functions: Any) -> Callable[[RuleT], RuleT]:
    """Register a function of jets as the rule of one or several torch functions."""

    def register(f: RuleT) -> RuleT:
        for function in functions:
            if function in RULES:
                raise ArgumentError(
                    f"{name_of(function)} already has a Taylor rule",
                    "two rules would make the result depend on import order",
                    f"ntangent.extend.rules().pop({name_of(function)}) first",
                )
            RULES[function] = f
        return f

    return register


def name_of(function: Any) -> str:
    """Return the public name of a torch function, as one writes it in code."""
    public = torch.overrides.resolve_name(function)
    if public is not None:
        return str(public)
    name = getattr(function, "__name__", str(function))
    return f"{getattr(function, '__module__', None) or 'torch'}.{name}"


def _caller() -> str:
    """Return file and line of the user's call, outside torch and ntangent."""
    packages = (Path(__file__).parent.parent, Path(torch.__file__).parent)
    inside = tuple(f"{package}{os.sep}" for package in packages)
    frame = sys._getframe(1)
    while frame is not None:
        if not frame.f_code.co_filename.startswith(inside):
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "an unknown place"


def dispatch(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Apply the Taylor rule of a torch function to arguments among which are jets.

    Raises:
        MissingRule: if the function has none.
    """
    found = RULES.get(function)
    if found is not None:
        return found(*args, **kwargs)
    if getattr(function, "__name__", "") in READS:
        return function(*(getattr(a, "value", a) for a in args), **kwargs)
    name = name_of(function)
    raise MissingRule(
        f"no Taylor rule for {name} (called from {_caller()})",
        "its series cannot be derived from its name",
        f"if it is linear: ntangent.extend.linear({name}); "
        'or differentiate by nested autograd: jet(..., backend="autograd")',
    )
