"""Plain-data descriptions that are equal in two processes exactly when the things are.

A run's configuration is compared on resume; functions and modules take part in it by what they
compute, not by where they sit in memory.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def describe(value: Any) -> Any:
    """Return a description made of dicts, lists, strings and numbers.

    Functions are named and carry a digest of their code, constants, captured values and the global
    values they read; modules are their printed form, their settings and a digest of what training
    leaves alone (buffers, frozen parameters); tensors and arrays a digest of their content.
    Functions and classes of other files are described by their names.
    """
    return _describe(value, ())


def _describe(value: Any, above: tuple[int, ...]) -> Any:
    """Describe a value inside the values ``above``; one that contains itself ends at its name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if id(value) in above:
        return f"within itself: {type(value).__name__}"
    above = (*above, id(value))
    if isinstance(value, Tensor | np.ndarray):
        return _array(value, above)
    if isinstance(value, nn.Module):
        return _module(value, above)
    if callable(value) and (found := _callable(value, above)) is not None:
        return found
    if isinstance(value, Mapping):
        return {str(key): _describe(item, above) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_describe(item, above) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_describe(item, above) for item in value), key=repr)
    return _instance(value, above)


def _array(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        content, kind = flat.view(torch.uint8).numpy().tobytes(), str(value.dtype).removeprefix("torch.")
    elif value.dtype.hasobject:
        return _describe(value.tolist(), above)
    else:
        content, kind = value.tobytes(), str(value.dtype)
    return f"array{tuple(value.shape)} {kind} {_digest(content)}"


def _module(module: nn.Module, above: tuple[int, ...]) -> dict[str, Any]:
    """Describe what the printed form of a module leaves out as well."""
    frozen = [(name, p) for name, p in module.named_parameters() if not p.requires_grad]
    fixed = dict([*frozen, *module.named_buffers()])
    settings: dict[str, Any] = {}
    for name, child in module.named_modules():
        for key, item in vars(child).items():
            if not key.startswith("_") and key != "training" and not isinstance(item, nn.Module):
                settings[f"{name}.{key}".lstrip(".")] = item
        if not type(child).__module__.startswith("torch."):
            settings[f"{name}.forward".lstrip(".")] = type(child).forward
    return {
        "module": " ".join(str(module).split()),
        "fixed": _describe(fixed, above),
        "settings": _digest(repr(_describe(settings, above)).encode()),
    }


def _callable(value: Any, above: tuple[int, ...]) -> Any:
    """Describe a function by what it computes; None for an object that happens to be callable."""
    if isinstance(value, types.FunctionType):
        return f"{value.__qualname__} {_digest(repr(_function(value, above)).encode())}"
    if isinstance(value, functools.partial):
        parts = [value.func, value.args, value.keywords]
        return {"partial": [_describe(part, above) for part in parts]}
    if isinstance(value, types.MethodType):
        return {"method": _describe(value.__func__, above), "of": _describe(value.__self__, above)}
    if isinstance(value, type | types.BuiltinFunctionType | np.ufunc) or not hasattr(type(value), "__dict__"):
        return _name(value)
    return None


def _name(value: Any) -> str:
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", type(value).__qualname__)
    return f"{getattr(value, '__module__', None) or ''}.{name}".lstrip(".")


def _instance(value: Any, above: tuple[int, ...]) -> Any:
    """Describe an object by its type and attributes, or by its text where it has none."""
    kind = type(value)
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value)]
    else:
        slots = [base.__dict__.get("__slots__", ()) for base in kind.__mro__]
        listed = [name for slot in slots for name in ([slot] if isinstance(slot, str) else slot)]
        names = sorted({*getattr(value, "__dict__", {}), *listed} - {"__dict__", "__weakref__"})
    if not names and not callable(value):
        text = str(value)
        # The default text is an address, which another process does not share.
        return kind.__qualname__ if " at 0x" in text else text
    fields = {name: _describe(getattr(value, name), above) for name in names if hasattr(value, name)}
    call = kind.__dict__.get("__call__")
    return {"type": kind.__qualname__, **fields, **({"call": _describe(call, above)} if call else {})}


def _function(function: types.FunctionType, above: tuple[int, ...]) -> Any:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    captured = {name: _describe(_content(cell), above) for name, cell in cells}
    values = function.__globals__
    read = {
        name: _global(values[name], function, above) for name in _reads(function.__code__) if name in values
    }
    defaults = [_describe(function.__defaults__, above), _describe(function.__kwdefaults__, above)]
    return [_code(function.__code__), defaults, captured, read]


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "not set yet"


def _global(value: Any, function: types.FunctionType, above: tuple[int, ...]) -> Any:
    """Describe a global that a function reads; what was imported counts by its name."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    if callable(value) and getattr(value, "__module__", None) != function.__module__:
        return _name(value)
    return _describe(value, above)


def _reads(code: types.CodeType) -> list[str]:
    """Return the names of the globals that code reads, in nested functions as well."""
    names = {
        step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(_reads(constant))
    return sorted(names)


def _code(code: types.CodeType) -> list[Any]:
    return [code.co_code.hex(), [_constant(c) for c in code.co_consts], code.co_names]


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _code(value)
    if isinstance(value, tuple):
        return [_constant(item) for item in value]
    # The order in which a set prints depends on the hash seed of the process.
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
