"""The type checker that pytest runs over the package: shapes and dtypes of tensors, nothing else.

Plain annotations are mypy's business. Checking them at run time as well would turn every test of
our own error messages for wrong types into a test of the checker's.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from beartype import BeartypeConf, beartype

F = TypeVar("F", bound=Callable[..., Any])
SHAPED = ("Float[", "Float32[", "Float64[", "Int[", "Bool[", "Shaped[", "Num[")
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def only_shapes(function: F) -> F:
    """Check a function's arguments and result where their annotation states a shape."""
    stated = {
        name: annotation
        for name, annotation in getattr(function, "__annotations__", {}).items()
        if "jaxtyping" in str(annotation) or any(mark in str(annotation) for mark in SHAPED)
    }
    function.__annotations__ = stated
    return _check(function) if stated else function
