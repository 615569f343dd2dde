"""A computation recorded once and repeated in the same memory, without Python in between.

The operations on tensors that depend on the inputs are recorded below automatic differentiation, so
those of a backward pass are among them. Whatever does not depend on the inputs is computed while
recording and kept. Repeating runs the same operations in the same order, each into the tensor that it
filled while recording: the results have the same bits, but there is no graph, nothing is allocated, a
view is never made again, and no equation, series or module is walked through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ntangent._base.errors import NotRepeatable

aten = torch.ops.aten

# Bytes of all intermediate results together, up to which they are kept. Beyond that an operation takes
# so long that what stands around it does not matter.
KEPT = 2**28

# The same kernels by a shorter way than through the operator table; all take ``out``.
_SHORT: dict[Any, Any] = {
    aten.add.Tensor: torch.add,
    aten.addcmul.default: torch.addcmul,
    aten.bmm.default: torch.bmm,
    aten.cat.default: torch.cat,
    aten.cos.default: torch.cos,
    aten.cosh.default: torch.cosh,
    aten.div.Tensor: torch.div,
    aten.dot.default: torch.dot,
    aten.exp.default: torch.exp,
    aten.mm.default: torch.mm,
    aten.mul.Tensor: torch.mul,
    aten.neg.default: torch.neg,
    aten.pow.Tensor_Scalar: torch.pow,
    aten.sigmoid.default: torch.sigmoid,
    aten.sin.default: torch.sin,
    aten.sub.Tensor: torch.sub,
    aten.sum.dim_IntList: torch.sum,
    aten.tanh.default: torch.tanh,
}
_IN_PLACE: dict[Any, Any] = {
    aten.add_.Tensor: Tensor.add_,
    aten.addcmul_.default: Tensor.addcmul_,
    aten.copy_.default: Tensor.copy_,
    aten.mul_.Tensor: Tensor.mul_,
    aten.zero_.default: Tensor.zero_,
}

# What makes a tensor that is filled afterwards, and whether zeros are in it at first.
_EMPTY = {
    aten.empty.memory_format: False,
    aten.empty_like.default: False,
    aten.new_empty.default: False,
    aten.new_zeros.default: True,
    aten.zeros.default: True,
    aten.zeros_like.default: True,
}
# What reads no more than a shape.
_SHAPED = {
    *_EMPTY,
    aten.full_like.default,
    aten.new_full.default,
    aten.new_ones.default,
    aten.ones_like.default,
}
# Adjoints of views: zeros with the argument in a part of them.
_PLACED: dict[Any, Any] = {
    aten.select_backward.default: torch.select,
    aten.slice_backward.default: aten.slice.Tensor,
}

_Operation = tuple[Any, Any, dict[str, Any], Any]


@dataclass
class _Step:
    """One call: what it reads and writes, as memory, and the result that it fills, if it is not in place."""

    call: Any
    args: Any
    kwargs: dict[str, Any]
    result: Tensor | None
    reads: set[int]
    writes: set[int]


def _memory(t: Tensor) -> int:
    return int(t.untyped_storage()._cdata)


def _tensors(value: Any) -> list[Tensor]:
    return [t for t in tree_leaves(value) if isinstance(t, Tensor)]


class _Recorder(TorchDispatchMode):
    """Notes each operation with an argument that depends on the inputs."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: list[Any] = list(inputs)  # so that no memory is used twice
        self.given = {_memory(t) for t in inputs}
        self.moving = set(self.given)  # memory with what depends on the inputs
        self.steps: list[_Step] = []
        # Memory that was made here -> what was done to it, as long as that is constant.
        self.made: dict[int, list[_Operation]] = {}
        self.bytes = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or a second goes by in importing a compiler that is not used

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise NotRepeatable(f"{func} is random")
        result = func(*args, **kwargs)
        self.alive.append(result)
        written = _written(func, args, kwargs)
        if torch.Tag.inplace_view in func.tags:
            return result  # everything is noted as it looked at its time
        if func in _SHAPED or not any(_memory(t) in self.moving for t in _tensors((args, kwargs))):
            for t in written or _tensors(result):
                self._keep(t, (func, args, kwargs, result))
            return result
        if torch.Tag.data_dependent_output in func.tags or _sized_by_values(func, args):
            raise NotRepeatable(f"{func} depends on values")
        for t in written:
            self._promote(_memory(t))
        self._note(func, args, kwargs, result)
        return result

    def _keep(self, t: Tensor, operation: _Operation) -> None:
        """Remember a constant operation on memory that may receive something else later."""
        place = _memory(t)
        if operation[0] in _EMPTY:
            self.made[place] = []
        if place in self.made:
            self.made[place].append(operation)

    def _promote(self, place: int) -> None:
        """Note after all what has been done to memory that is now written to."""
        if place in self.given:
            raise NotRepeatable("an operation writes into what it is given")
        if place in self.moving:
            return
        if place not in self.made:
            raise NotRepeatable("an operation writes into a constant")
        self.moving.add(place)
        for func, args, kwargs, result in self.made.pop(place):
            if func not in _EMPTY:
                self._note(func, args, kwargs, result)
            elif _EMPTY[func]:
                self._add(Tensor.zero_, (result,))

    def _note(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        args, kwargs = tree_map(_as_it_is, (args, kwargs))
        if func._schema.is_mutable:
            self._add(_IN_PLACE.get(func) or _OUT.get(func) or func._op, args, kwargs)
            self._mark(_written(func, args, kwargs))
            return
        results = tree_map(_as_it_is, [result] if isinstance(result, Tensor) else list(result))
        if not all(isinstance(t, Tensor) for t in results):
            raise NotRepeatable(f"{func} returns no tensor")
        own = {_memory(t) for t in _tensors((args, kwargs))}
        if all(_memory(t) in own for t in results):
            return  # views, of memory in which everything stays where it is
        self.bytes += sum(t.numel() * t.element_size() for t in results)
        if self.bytes > KEPT:
            raise NotRepeatable("the operations are on large tensors")
        call = (None if kwargs else _SHORT.get(func)) or _into(func)
        if func is aten.clone.default:
            self._add(Tensor.copy_, (results[0], args[0]))
        elif func in _PLACED:
            self._add(Tensor.zero_, (results[0],))
            self._add(Tensor.copy_, (_PLACED[func](results[0], *args[2:]), args[0]))
        elif len(results) == 1 and call is not None:
            self._add(call, args, kwargs, results[0])
        else:
            self._add(_filled, (func._op, results, args, kwargs))
            self._mark(results)

    def _add(self, call: Any, args: Any, kwargs: Any = None, result: Tensor | None = None) -> None:
        step = _Step(call, args, kwargs or {}, result, {_memory(t) for t in _tensors((args, kwargs))}, set())
        self.steps.append(step)
        in_place = call in (Tensor.copy_, Tensor.zero_)
        self._mark([args[0]] if in_place else [] if result is None else [result])

    def _mark(self, written: Sequence[Tensor]) -> None:
        """Say into what the last step writes."""
        places = {_memory(t) for t in written}
        self.steps[-1].writes |= places
        self.moving |= places


def _as_it_is(value: Any) -> Any:
    """Return a tensor that keeps its shape when the other is given another one in place."""
    return value.detach() if isinstance(value, Tensor) else value


def _filled(call: Any, results: Sequence[Tensor], args: Any, kwargs: dict[str, Any]) -> None:
    """Call an operation that cannot be told where its results go."""
    found = call(*args, **kwargs)
    for t, value in zip(results, [found] if isinstance(found, Tensor) else found, strict=True):
        t.copy_(value)


def _into(func: Any) -> Any:
    """Return the variant of an operation that writes into ``out``, or None."""
    found = _out_overload(func)
    return None if found is None else found._op


def _out_overload(func: Any) -> Any:
    own = [(a.name, str(a.type)) for a in func._schema.arguments]
    packet = func._overloadpacket
    for name in packet.overloads():
        arguments = getattr(packet, name)._schema.arguments
        writes = bool(arguments) and arguments[-1].name == "out" and arguments[-1].is_out
        if writes and [(a.name, str(a.type)) for a in arguments[:-1]] == own:
            return getattr(packet, name)
    return None


_OUT = {_out_overload(func): short for func, short in _SHORT.items()}


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the arguments into which an operation writes."""
    found = []
    if func._schema.is_mutable:
        for i, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                found.append(args[i] if i < len(args) else kwargs.get(argument.name))
    return _tensors(found)


def _sized_by_values(func: Any, args: Any) -> bool:
    """Return whether the shape of the result depends on values; by places, an index does not do that."""
    if torch.Tag.dynamic_output_shape not in func.tags:
        return False
    places = _tensors(args[1:])
    return func is not aten.index.Tensor or any(t.dtype in (torch.bool, torch.uint8) for t in places)


def _needed(steps: Sequence[_Step], results: Sequence[Tensor]) -> list[_Step]:
    """Return the steps on which the results depend."""
    needed, kept = {_memory(t) for t in results}, []
    for step in reversed(steps):
        if not needed.isdisjoint(step.writes):
            needed |= step.reads
            kept.append(step)
    return kept[::-1]


def _zeroed_once(steps: Sequence[_Step]) -> list[_Step]:
    """Zero memory now and never again, where all that is written is always the same part of it."""
    writers: dict[int, int] = {}
    for step in steps:
        for place in step.writes:
            writers[place] = writers.get(place, 0) + 1
    kept = []
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        again = following is not None and following.call is Tensor.copy_ and following.writes == step.writes
        if step.call is Tensor.zero_ and again and all(writers[place] == 2 for place in step.writes):
            step.args[0].zero_()
        else:
            kept.append(step)
    return kept


def _without_copies(steps: list[_Step], results: Sequence[Tensor]) -> list[_Step]:
    """Let an operation whose result is only copied into a place write there at once."""
    readers: dict[int, int] = {}
    for step in steps:
        for place in step.reads:
            readers[place] = readers.get(place, 0) + 1
    for t in results:
        readers[_memory(t)] = 2
    made: dict[int, int] = {}
    kept: list[_Step | None] = list(steps)
    for k, step in enumerate(steps):
        if step.result is not None:
            made[_memory(step.result)] = k
        if step.call is not Tensor.copy_ or len(step.args) < 2 or not isinstance(step.args[1], Tensor):
            continue
        target, source = step.args[:2]
        j = made.get(_memory(source))
        if j is None or readers[_memory(source)] != 1 or source.shape != target.shape:
            continue
        first = steps[j]
        same = source.dtype == target.dtype and source.stride() == target.stride()
        between = any(not step.writes.isdisjoint(s.reads | s.writes) for s in steps[j:k] if s is not step)
        whole = first.result is not None and first.result.shape == source.shape
        if same and whole and not between:
            kept[j] = _Step(first.call, first.args, first.kwargs, target, first.reads, step.writes)
            kept[k] = None
            steps = [*steps[:j], kept[j], *steps[j + 1 :]]  # type: ignore[list-item]
    return [step for step in kept if step is not None]


class Repeat:
    """Repeats what was recorded.

    Args:
        inputs: the memory from which it reads; write into it, or pass other tensors to be copied there.
        outputs: the memory in which the results are; the next repetition overwrites them.
        run: runs the operations.
        operations: how many there are.
    """

    def __init__(
        self, inputs: list[Tensor], outputs: list[Tensor], run: Callable[[], None], operations: int
    ) -> None:
        self.inputs, self.outputs, self.operations = inputs, outputs, operations
        self._run = run

    def again(self) -> Sequence[Tensor]:
        """Return the results for what the memory of the inputs holds, in the memory of the outputs."""
        self._run()
        return self.outputs

    def __call__(self, *values: Tensor) -> Sequence[Tensor]:
        """Return the results for these values of the inputs, in the memory of the outputs."""
        for place, value in zip(self.inputs, values, strict=True):
            if value.data_ptr() != place.data_ptr():
                place.copy_(value)
        return self.again()


class _Writer:
    """Writes the steps down as a function; tensors and anything but plain numbers are its constants."""

    def __init__(self) -> None:
        self.constants: dict[str, Any] = {}
        self.names: dict[int, str] = {}

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def text(self, value: Any) -> str:
        if isinstance(value, Tensor):
            if id(value) not in self.names:
                self.names[id(value)] = self.constant(value.detach())
            return self.names[id(value)]
        if isinstance(value, list | tuple):
            inner = "".join(self.text(v) + ", " for v in value)
            return f"[{inner}]" if isinstance(value, list) else f"({inner})"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k!r}: {self.text(v)}" for k, v in value.items()) + "}"
        if value is None or isinstance(value, bool | int):
            return repr(value)
        if callable(value) and value.__hash__ is not None:
            if id(value) not in self.names:
                self.names[id(value)] = self.constant(value)
            return self.names[id(value)]
        return self.constant(value)

    def line(self, step: _Step) -> str:
        text = [self.text(a) for a in step.args] + [f"{k}={self.text(v)}" for k, v in step.kwargs.items()]
        if step.result is not None:
            text.append(f"out={self.text(step.result)}")
        return f"{self.text(step.call)}({', '.join(text)})"


def recorded(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> Repeat:
    """Return a function of the inputs' values that repeats what ``function`` does with them.

    Args:
        function: of the inputs; may differentiate, and returns tensors.
        inputs: any that are differentiated in require gradients already. Their memory is that from
            which every repetition reads.

    Raises:
        NotRepeatable: if it draws random numbers, reads a number from a tensor that depends on the
            inputs, writes into one that does not, or makes more intermediate results than are kept.

    What the function does by other means than operations on tensors is not seen. Compare the result
    with the function at other values of the inputs before it is trusted.
    """
    recorder = _Recorder(inputs)
    with recorder:
        results = list(function(*inputs))
    steps = _without_copies(_zeroed_once(_needed(recorder.steps, results)), results)
    writer = _Writer()
    body = "\n    ".join(["def run():", *[writer.line(step) for step in steps], "return None"])
    scope: dict[str, Any] = dict(writer.constants)
    exec(body, scope)  # of names and numbers written above, nothing from outside
    return Repeat([t.detach() for t in inputs], [t.detach() for t in results], scope["run"], len(steps))
