"""Which Taylor rule a torch function has: the table, the call, and the error when there is none.

Rules come in few kinds. A *linear* one acts on every coefficient alike; a *bilinear* one is a
truncated product; a *flow* is a row of the activation table; anything else is a function of jets
built from the others.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import jaxtyping
import torch
import torch.overrides

from ntangent._base.errors import ArgumentError, MissingRule

Rule = Callable[..., Any]
RuleT = TypeVar("RuleT", bound=Callable[..., Any])
RULES: dict[Any, Rule] = {}
# Functions that only read facts about the value: its shape and type, comparisons for masks.
READS = frozenset({"size", "dim", "numel", "is_floating_point", "is_complex", "isnan", "isinf", "isfinite"})
READS |= {"eq", "ne", "lt", "le", "gt", "ge", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"}
READS |= {"argmax", "argmin", "argsort", "signbit", "isclose", "allclose", "equal", "isposinf", "isneginf"}
READS |= {"greater", "greater_equal", "less", "less_equal", "not_equal", "nelement", "stride", "get_device"}
READS |= {"zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full"}
READS |= {"new_empty", "new_tensor", "is_contiguous", "is_same_size", "result_type"}

# What happens to a function without a rule while a function is being expanded; None outside of one.
_EXPANDING: ContextVar[str | None] = ContextVar("expanding", default=None)


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
    """Return the user's call, outside torch and ntangent: file and line, and the module it is in.

    The module is named by its path from the outermost one, ``model.blocks[2].norm``. It is read
    off the frames of the call, which costs nothing until an error is raised.
    """
    # The last two wrap our functions where annotations are checked at runtime.
    packages = (Path(__file__).parent.parent, Path(torch.__file__).parent, Path(jaxtyping.__file__).parent)
    inside = (*(f"{package}{os.sep}" for package in packages), "<@beartype")
    place, modules = "an unknown place", list[torch.nn.Module]()
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if place == "an unknown place" and not code.co_filename.startswith(inside):
            place = f"{Path(code.co_filename).name}:{frame.f_lineno}"
        owner = frame.f_locals.get("self") if code.co_name in ("forward", "_call_impl") else None
        if isinstance(owner, torch.nn.Module) and (not modules or modules[-1] is not owner):
            modules.append(owner)
        if frame.f_back is None:
            break
        frame = frame.f_back
    if not modules:
        return place
    root, inner = modules[-1], modules[0]
    path = next((name for name, module in root.named_modules() if module is inner), type(inner).__name__)
    steps = "".join(f"[{step}]" if step.isdigit() else f".{step}" for step in path.split(".") if step)
    return f"{place}, in model{steps}, a {type(inner).__name__}"


@contextmanager
def expanding(missing: str) -> Iterator[None]:
    """Mark the time in which a function is called on a series, and say what a missing rule does.

    The mark is a context variable: it belongs to this thread or task and goes with the block, also
    when that is left by an exception. The compiler cannot trace one; compiled code has "raise".
    """
    if torch.compiler.is_compiling():
        yield
        return
    token = _EXPANDING.set(missing)
    try:
        yield
    finally:
        _EXPANDING.reset(token)


def expansion() -> str | None:
    """Return "raise" or "nested" inside a function that is being expanded, None outside."""
    return None if torch.compiler.is_compiling() else _EXPANDING.get()


def settle(function: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments without those that say nothing: inplace=False, out=None.

    Raises:
        ArgumentError: for what no rule takes: results in given places, types that hold no series.
    """
    short = getattr(function, "__name__", "")
    in_place = short.endswith("_") and not short.endswith("__")
    in_place = in_place or short == "__setitem__" or (short.startswith("__i") and short in _IN_PLACE)
    if in_place or kwargs.get("inplace"):
        raise ArgumentError(
            f"{name_of(function)} would change a series in place (called from {_caller()})",
            "views of it, and what was computed from it, would silently keep the old one",
            "x = x + y instead of x += y; nn.ReLU() instead of nn.ReLU(inplace=True); torch.where, torch.cat",
        )
    if kwargs.get("out") is not None:
        raise ArgumentError(
            f"{name_of(function)} cannot write a series to out=", "a tensor holds one row", "y = f(x)"
        )
    dtype = kwargs.get("dtype")
    if isinstance(dtype, torch.dtype) and not dtype.is_floating_point and short not in READS:
        raise ArgumentError(
            f"{name_of(function)} got dtype={dtype}", "a series has floating coefficients", "x.value"
        )
    if not kwargs:
        return kwargs
    # torch takes numpy's names for these two.
    names = {"axis": "dim", "keepdims": "keepdim"}
    return {names.get(k, k): v for k, v in kwargs.items() if k not in ("inplace", "out")}


_OPERATORS = ("add", "sub", "mul", "div", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")
_IN_PLACE = frozenset(f"__i{operator}__" for operator in _OPERATORS)


def dispatch(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Apply the Taylor rule of a torch function to arguments among which are jets.

    Raises:
        MissingRule: if the function has none, or none for these arguments, and the expansion does
            not ask for nested differentiation in its place.
        ArgumentError: if the function would work in place.
    """
    kwargs = settle(function, kwargs)
    found = RULES.get(function)
    if found is None and getattr(function, "__name__", "") in READS:
        return function(
            *(getattr(a, "value", a) for a in args), **{k: getattr(v, "value", v) for k, v in kwargs.items()}
        )
    nested = expansion() == "nested"
    if found is not None:
        try:
            return found(*args, **kwargs)
        except MissingRule:
            if not nested:
                raise
        except TypeError as error:
            problem = _unfit(found, args, kwargs)
            if problem is None:
                raise
            if not nested:
                raise MissingRule(
                    f"no Taylor rule for these arguments of {name_of(function)} (called from {_caller()})",
                    problem,
                    'jet(..., missing="nested")',
                ) from error
    if nested:
        return FALLBACK[-1](function, args, kwargs)
    name = name_of(function)
    raise MissingRule(
        f"no Taylor rule for {name} (called from {_caller()})",
        "its series cannot be derived from its name",
        f"if it is linear: ntangent.extend.linear({name}); "
        'or differentiate this one operation by nested autograd: jet(..., missing="nested")',
    )


# Differentiates one operation without a rule; `jet.nested` puts it here when it is imported.
FALLBACK: list[Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]] = []


def _unfit(found: Rule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Return why a rule cannot be called with these arguments, None if it can."""
    select = getattr(found, "select", None)
    if select is not None:
        found, args = select, args[1:]
    try:
        inspect.signature(found).bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return None
