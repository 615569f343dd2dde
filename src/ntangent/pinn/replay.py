"""A computation recorded once and repeated without Python in between.

The operations on tensors that depend on the inputs are recorded below automatic differentiation, so
those of a backward pass are among them. Whatever does not depend on the inputs is computed while
recording and kept. Repeating runs the same operations in the same order: the results have the same
bits, but there is no graph, and no equation, series or module is walked through again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ntangent._base.errors import NotRepeatable

aten = torch.ops.aten


# The same kernels by a shorter way than through the operator table.
_SHORT: dict[Any, Any] = {
    aten.add.Tensor: torch.add,
    aten.cat.default: torch.cat,
    aten.dot.default: torch.dot,
    aten.mul.Tensor: torch.mul,
    aten.neg.default: torch.neg,
    aten.pow.Tensor_Scalar: torch.pow,
    aten.sub.Tensor: torch.sub,
    aten.view.default: Tensor.view,
    aten.sum.default: torch.sum,
    aten.select.int: torch.select,
    aten.unsqueeze.default: torch.unsqueeze,
    aten.squeeze.dim: torch.squeeze,
    aten.expand.default: Tensor.expand,
    aten.t.default: torch.t,
    aten.transpose.int: torch.transpose,
    aten.split_with_sizes.default: torch.split_with_sizes,
    aten.mm.default: torch.mm,
    aten.div.Tensor: torch.div,
    aten.sin.default: torch.sin,
    aten.cos.default: torch.cos,
    aten.exp.default: torch.exp,
}


# What makes a tensor that is filled afterwards.
_EMPTY = {aten.empty.memory_format, aten.new_empty.default, aten.new_zeros.default, aten.zeros.default}

_Operation = tuple[Any, Any, dict[str, Any], Any]


class _Recorder(TorchDispatchMode):
    """Notes each operation with an argument that depends on the inputs."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: list[Any] = list(inputs)  # so that no id is used twice
        self.names = {id(t): f"v{i}" for i, t in enumerate(inputs)}
        self.constants: dict[str, Any] = {}
        self.steps: list[tuple[list[str], str, list[str], bool]] = []
        # Memory that was made here -> what was done to it, as long as that is constant.
        self.made: dict[int, list[_Operation]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or a second goes by in importing a compiler that is not used

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise NotRepeatable(f"{func} is random")
        result = func(*args, **kwargs)
        self.alive.append(result)
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        written = _written(func, args, kwargs)
        if not any(id(t) in self.names for t in given):
            for t in written or tree_leaves(result):
                self._keep(t, (func, args, kwargs, result))
            return result
        if torch.Tag.data_dependent_output in func.tags or _sized_by_values(func, args):
            raise NotRepeatable(f"{func} depends on values")
        for t in written:
            if id(t) not in self.names:
                self._promote(t)
        self._note(func, args, kwargs, result)
        return result

    def _keep(self, t: Any, operation: _Operation) -> None:
        """Remember a constant operation on memory that may receive something else later."""
        if isinstance(t, Tensor):
            place = t.untyped_storage()._cdata
            if operation[0] in _EMPTY:
                self.made[place] = []
            if place in self.made:
                self.made[place].append(operation)

    def _promote(self, t: Tensor) -> None:
        """Note after all what has been done to memory that is now written to."""
        for operation in self.made.pop(t.untyped_storage()._cdata, ()):
            self._note(*operation)
        if id(t) not in self.names:
            raise NotRepeatable("an operation writes into a constant")

    def _note(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        written = _written(func, args, kwargs)
        targets: list[str] = []
        if func is aten.detach.default:
            self.names[id(result)] = self.names[id(args[0])]
            return
        if not written:
            single = isinstance(result, Tensor)
            for t in [result] if single else list(result):
                if not isinstance(t, Tensor):
                    raise NotRepeatable(f"{func} returns no tensor")
                targets.append(self.names.setdefault(id(t), f"w{len(self.names)}"))
            if not single:
                targets.append("")  # a trailing comma: several, even if it is one
        call = self._constant((None if kwargs else _SHORT.get(func)) or func._op)
        used: list[str] = []
        text = [self._text(a, used) for a in args] + [f"{k}={self._text(v, used)}" for k, v in kwargs.items()]
        self.steps.append((targets, f"{call}({', '.join(text)})", used, bool(written)))

    def _constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def _text(self, value: Any, used: list[str]) -> str:
        if isinstance(value, Tensor):
            name = self.names.get(id(value))
            if name is None:
                return self._constant(value.detach())
            used.append(name)
            return name
        if isinstance(value, list | tuple):
            inner = "".join(self._text(v, used) + ", " for v in value)
            return f"[{inner}]" if isinstance(value, list) else f"({inner})"
        if value is None or isinstance(value, bool | int):
            return repr(value)
        return self._constant(value)


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the arguments into which an operation writes."""
    found = []
    if func._schema.is_mutable:
        for i, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                found.append(args[i] if i < len(args) else kwargs.get(argument.name))
    return [t for t in tree_leaves(found) if isinstance(t, Tensor)]


def _sized_by_values(func: Any, args: Any) -> bool:
    """Return whether the shape of the result depends on values; by places, an index does not do that."""
    if torch.Tag.dynamic_output_shape not in func.tags:
        return False
    places = [t for t in tree_leaves(args[1:]) if isinstance(t, Tensor)]
    return func is not aten.index.Tensor or any(t.dtype in (torch.bool, torch.uint8) for t in places)


def recorded(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]
) -> Callable[..., Sequence[Tensor]]:
    """Return a function of the inputs' values that repeats what ``function`` does with them.

    Args:
        function: of the inputs; may differentiate, and returns tensors.
        inputs: any that are differentiated in require gradients already.

    Raises:
        NotRepeatable: if it draws random numbers, reads a number from a tensor that depends on the
            inputs, or writes into one that does not.

    What the function does by other means than operations on tensors is not seen. Compare the result
    with the function at other values of the inputs before it is trusted.
    """
    recorder = _Recorder(inputs)
    with recorder:
        results = list(function(*inputs))
    outputs = [recorder._text(t, []) for t in results]
    needed = set(outputs)
    lines: list[str] = []
    for targets, call, used, changes in reversed(recorder.steps):
        if changes or not needed.isdisjoint(targets):
            needed.update(used)
            lines.append(call if changes else f"{', '.join(targets).rstrip()} = {call}")
    head = f"def repeat({', '.join(f'v{i}' for i in range(len(inputs)))}):"
    source = "\n    ".join([head, *reversed(lines), f"return [{', '.join(outputs)}]"])
    scope: dict[str, Any] = dict(recorder.constants)
    exec(source, scope)  # of names and numbers written above, nothing from outside
    repeat: Callable[..., Sequence[Tensor]] = scope["repeat"]
    return repeat
