"""Plain-data descriptions that are equal in two processes exactly when the things are.

A run's configuration is compared on resume; functions and modules take part in it by what they
compute, not by where they sit in memory.
"""

from __future__ import annotations

import dataclasses
import hashlib
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn


def describe(value: Any) -> Any:
    """Return a description made of dicts, lists, strings and numbers.

    Functions are named and carry a digest of their code, constants and captured values; modules
    are their printed form; tensors and arrays a digest of their content.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        return describe(value.detach().cpu().numpy())
    if isinstance(value, np.ndarray):
        return f"array{value.shape} {_digest(value.tobytes())}"
    if isinstance(value, nn.Module):
        return " ".join(str(value).split())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, types.FunctionType):
        return f"{value.__qualname__} {_digest(repr(_function(value)).encode())}"
    if isinstance(value, list | tuple | set | frozenset | range):
        return [describe(item) for item in value]
    if hasattr(value, "__dict__"):
        return {"type": type(value).__name__, **{k: describe(v) for k, v in sorted(vars(value).items())}}
    return type(value).__name__ if callable(value) else str(value)


def _function(function: types.FunctionType) -> Any:
    captured = [describe(cell.cell_contents) for cell in function.__closure__ or ()]
    return [_code(function.__code__), describe(function.__defaults__), captured]


def _code(code: types.CodeType) -> list[Any]:
    constants = [_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return [code.co_code.hex(), constants, code.co_names]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
