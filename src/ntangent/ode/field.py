"""The right-hand side as the solvers see it: rows of flat vectors, its parameters, its derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ntangent._base.check import FLOATS, under_transform
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError
from ntangent.jet.series import Jet

# Values of f, counted once for each cotangent, that are differentiated in one call; more of them
# leave the cache.
MOST_SEEDED = 2**15

Func = Callable[[Any, Any], Any]
Jacobian = Callable[[Any, Any], Tensor]


class Sum:
    """A right-hand side in two parts, for implicit-explicit methods.

    Args:
        explicit: the part that is not stiff.
        implicit: the stiff part.
    """

    def __init__(self, explicit: Func, implicit: Func) -> None:
        self.explicit, self.implicit = explicit, implicit

    def __call__(self, t: Any, y: Any) -> Any:
        """Return the sum of both parts."""
        first, second = self.explicit(t, y), self.implicit(t, y)
        if isinstance(first, tuple):
            return tuple(a + b for a, b in zip(first, second, strict=True))
        return first + second

    def parameters(self) -> list[Tensor]:
        """Return the parameters of the parts that are modules."""
        parts = [part for part in (self.explicit, self.implicit) if isinstance(part, nn.Module)]
        return [p for part in parts for p in part.parameters()]


class Packing:
    """Turns a state of any shape, or a tuple of tensors, into rows of flat vectors and back.

    Args:
        y0: the initial state.
        batched: whether the first axis of every tensor counts independent samples.
    """

    def __init__(self, y0: Tensor | tuple[Tensor, ...], batched: bool) -> None:
        self.several = isinstance(y0, tuple | list)
        parts: list[Any] = list(y0) if isinstance(y0, tuple | list) else [y0]
        for part in parts:
            if not isinstance(part, Tensor):
                raise DtypeError(
                    f"y0 must be a tensor or a tuple of tensors, got {type(part).__name__}",
                    "",
                    "y0 = torch.as_tensor(y0)",
                )
            if part.dtype not in FLOATS or part.dtype != parts[0].dtype:
                raise DtypeError(
                    f"y0 has dtype {part.dtype}",
                    "the state is integrated in float32 or float64, one dtype for all of its parts",
                    "y0 = y0.to(torch.float64)",
                )
        if not parts or any(part.numel() == 0 for part in parts):
            raise ShapeError("y0 is empty", "there is nothing to integrate", "y0 = torch.ones(1)")
        self.batched = batched
        if batched and any(part.ndim < 2 or len(part) != len(parts[0]) for part in parts):
            raise ShapeError(
                f"batched=True needs y0 of shape (samples, ...), got {[tuple(p.shape) for p in parts]}",
                "the first axis counts samples that are solved on their own",
                "y0 = y0[:, None]  # or batched=False",
            )
        self.shapes = [part.shape for part in parts]
        self.rows = len(parts[0]) if batched else 1
        self.sizes = [part.numel() // self.rows for part in parts]
        self.dtype, self.device = parts[0].dtype, parts[0].device

    def pack(self, y: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the state as rows, shape (B, n)."""
        parts = [y] if isinstance(y, Tensor) else list(y)
        flat = [part.reshape(self.rows, -1) for part in parts]
        return flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)

    def unpack(self, rows: Tensor) -> Any:
        """Return rows (*lead, B, n) as the state with the leading axes in front of each part."""
        lead = rows.shape[:-2]
        parts = rows.split(self.sizes, dim=-1) if self.several else [rows]
        shaped = [part.reshape(lead + shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return tuple(shaped) if self.several else shaped[0]

    def time(self, t: Tensor) -> Tensor:
        """Return times (B,) as the function gets them: a scalar, or (B, 1, ...) for a batch."""
        if not self.batched:
            return t[0]
        return t.reshape(-1, *[1] * (max(len(shape) for shape in self.shapes) - 1))


class Field:
    """A right-hand side f(t, y) on rows, with its value, derivatives and a count of the calls.

    Args:
        func: ``func(t, y)`` with y in the user's shape.
        y0: the initial state, rows (B, n).
        t0: the initial times, (B,).
        packing: how the user's shape and the rows correspond.
        params: tensors to differentiate for; None takes every leaf tensor that func depends on
            (parameters of a module, tensors in a closure).
        jacobian: None, or a function (t, y) -> df/dy of shape (n, n), or (B, n, n) for a batch.
    """

    def __init__(
        self,
        func: Any,
        packing: Packing,
        params: Iterable[Tensor] | None = None,
        jacobian: Jacobian | None = None,
    ) -> None:
        if isinstance(func, tuple) and len(func) == 2:
            func = Sum(*func)
        if not callable(func):
            raise DtypeError(f"func must be callable, got {type(func).__name__}", "", "def func(t, y): ...")
        self.func, self.packing, self.given = func, packing, jacobian
        self.evaluations = self.jacobians = 0
        self._together = self._given_together = self._batched_grads = True
        self.params: list[Tensor] = []
        self._first: Tensor | None = None  # the first value, until it is known whether memory is reused
        self._reuses = False
        self._listed = None if params is None else [p for p in params if p.requires_grad]

    def find_params(self, t: Tensor, y: Tensor, last: Tensor | None = None) -> list[Tensor]:
        """Evaluate with a tape and list what the value depends on; also checks shape and dtype.

        Args:
            t: initial times, (B,).
            y: initial rows, (B, n).
            last: final times, where a function that is no module is asked again: it may switch.
        """
        given = y.detach().clone()
        version = 0 if given.is_inference() else given._version
        with torch.enable_grad():
            out = self._call(t, given)
        if not given.is_inference() and given._version != version:
            raise ArgumentError(
                "func changes the state that it is given",
                "the solver still needs it: the solution would silently be another one",
                "def func(t, y): return -y  # not y.neg_()",
            )
        packed = self._checked(out, y)
        self._first = packed.detach()
        own = list(self.func.parameters()) if isinstance(self.func, nn.Module | Sum) else []
        known = self._listed if self._listed is not None else [p for p in own if p.requires_grad]
        self.params = known if self._listed is not None else known + _leaves(packed, known)
        if last is not None and self._listed is None and not isinstance(self.func, nn.Module):
            with torch.enable_grad():
                late = self.packing.pack(self._call(last, given))
            self.params += _leaves(late, self.params)
        return self.params

    def _checked(self, out: Any, y: Tensor) -> Tensor:
        parts = list(out) if isinstance(out, tuple | list) else [out]
        shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part) for part in parts]
        if isinstance(out, tuple | list) != self.packing.several or shapes != [
            *map(tuple, self.packing.shapes)
        ]:
            raise ShapeError(
                f"func returned shape {shapes}, the state has {[tuple(s) for s in self.packing.shapes]}",
                "func(t, y) is the time derivative of y",
                "def func(t, y): return -y",
            )
        if any(part.dtype != y.dtype for part in parts):
            raise DtypeError(
                f"func returned {parts[0].dtype} for a state of {y.dtype}",
                "the accuracy would silently be that of the coarser one",
                f"func = func.to({y.dtype})",
            )
        return self.packing.pack(out)

    def _call(self, t: Tensor, y: Tensor) -> Any:
        return self.func(self.packing.time(t).to(y.dtype), self.packing.unpack(y))

    def _rows(self, t: Tensor, y: Tensor) -> Tensor:
        packed = self.packing.pack(self._call(t, y))
        if self._first is not None and not under_transform(packed):
            # func may return the same memory each time, where an earlier slope would be overwritten.
            self._reuses = _place(packed) == _place(self._first)
            self._first = None
        return packed.clone() if self._reuses else packed

    def value(self, t: Tensor, y: Tensor) -> Tensor:
        """Return f at times (B,) and rows (B, n)."""
        self.evaluations += 1
        return self._rows(t, y)

    def values(self, t: Tensor, y: Tensor) -> Tensor:
        """Return f at m points, times (m, B) and states (m, B, n), one after the other."""
        return torch.stack([self.value(ti, yi) for ti, yi in zip(t, y, strict=True)])

    def many(self, t: Tensor, y: Tensor) -> Tensor:
        """Return f at m points in one call where func can be vmapped; keeps the tape."""
        if self._together and len(t) > 2:
            try:
                return torch.vmap(self._rows)(t, y)
            except (RuntimeError, ValueError, TypeError):  # func branches on values, or has no batching rule
                self._together = False
        return torch.stack([self._rows(ti, yi) for ti, yi in zip(t, y, strict=True)])

    def takes_many(self) -> bool:
        """Whether func, and the Jacobian given, took many points in one call so far."""
        return self._together and self._given_together

    def jacobian(self, t: Tensor, y: Tensor) -> Tensor:
        """Return df/dy at m points, shape (m, B, n, n). Cost: one call and n transposed products."""
        self.jacobians += 1
        if self.given is None:
            return self.partials(t, y)[0]
        if self._given_together and len(t) > 2:
            try:
                return torch.vmap(self._given)(t, y)
            except (RuntimeError, ValueError, TypeError):
                self._given_together = False
        return torch.stack([self._given(ti, yi) for ti, yi in zip(t, y, strict=True)])

    def linearised(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return f and df/dy at m points: of one evaluation where the Jacobian is not given."""
        self.evaluations += len(t)
        if self.given is not None:
            return self.many(t, y), self.jacobian(t, y)
        self.jacobians += 1
        value, jac, _ = self._differentiated(t, y)
        return value.detach(), jac

    def _given(self, t: Tensor, y: Tensor) -> Tensor:
        assert self.given is not None
        with torch.no_grad():
            value = self.given(self.packing.time(t).to(y.dtype), self.packing.unpack(y))
        shape = (*y.shape, y.shape[1])
        if not isinstance(value, Tensor) or value.numel() != shape[0] * shape[1] * shape[2]:
            raise ShapeError(
                f"jacobian returned {getattr(value, 'shape', type(value))}, needed {shape} entries",
                "row i, column j is the derivative of component i of func for component j of y",
                "jacobian=None  # computed by automatic differentiation",
            )
        return value.reshape(shape).to(y.dtype)

    def series(self, t: Tensor, coefficients: list[Tensor]) -> Tensor:
        """Return the Taylor coefficient of f(t + s, y(s)) of the order that y(s) is known to, (B, n).

        Args:
            t: times, (B,).
            coefficients: those of y(s) in rising order, each (B, n).

        Raises:
            MissingRule: if func contains an operation without a Taylor rule.
        """
        self.evaluations += 1
        order = len(coefficients) - 1
        clock = self.packing.time(t).to(coefficients[0].dtype)
        rows = self.packing.unpack(torch.stack(coefficients))
        state = tuple(Jet(part, order) for part in rows) if self.packing.several else Jet(rows, order)
        time = Jet(torch.stack([clock, torch.ones_like(clock)][: order + 1]), order)
        out = self.func(time, state)
        parts = []
        for part, shape in zip(out if self.packing.several else [out], self.packing.shapes, strict=True):
            rest = part if isinstance(part, Tensor) and order == 0 else coefficients[0].new_zeros(shape)
            parts.append(part.coefficient(order) if isinstance(part, Jet) else rest)
        return self.packing.pack(parts if self.packing.several else parts[0])

    def split(self) -> tuple[Field, Field]:
        """Return the explicit and the implicit part of func, which share parameters and counters.

        Raises:
            ArgumentError: if func has no ``explicit`` and ``implicit``.
        """
        explicit, implicit = (getattr(self.func, name, None) for name in ("explicit", "implicit"))
        if not (callable(explicit) and callable(implicit)):
            raise ArgumentError(
                "an implicit-explicit method needs the two parts of func",
                "only one part is solved for",
                "ode.odeint((explicit, implicit), y0, t, ...)  # or attributes func.explicit, func.implicit",
            )
        parts = Field(explicit, self.packing), Field(implicit, self.packing, None, self.given)
        for part in parts:
            part.params = self.params
        return parts

    def partials(
        self, t: Tensor, y: Tensor, *, time: bool = False, keep: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return (df/dy, df/dt), shapes (m, B, n, n) and (m, B, n); df/dt is empty unless asked.

        Args:
            t: times, (m, B).
            y: states, (m, B, n).
            time: also differentiate for the time.
            keep: leave the result on the tape of y, t and the parameters.
        """
        return self._differentiated(t, y, time=time, keep=keep)[1:]

    def _differentiated(
        self, t: Tensor, y: Tensor, *, time: bool = False, keep: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return f and its :meth:`partials`."""
        with torch.enable_grad():
            y = y if y.requires_grad and keep else y.detach().requires_grad_()
            t = t.to(y.dtype)
            t = (t if t.requires_grad and keep else t.detach().requires_grad_()) if time else t
            out = self.many(t, y)
            n = y.shape[-1]
            if not out.requires_grad:
                return out, y.new_zeros((*y.shape, n)), y.new_zeros(y.shape)
            seeds = torch.eye(n, dtype=y.dtype, device=y.device)
            seeds = seeds.reshape(n, *[1] * (y.ndim - 1), n).expand(n, *y.shape)
            wanted = [y, t] if time else [y]
            parts = [
                self.cotangents(out, wanted, part, keep)
                for part in seeds.split(max(1, MOST_SEEDED // out.numel()))
            ]
            grads = [torch.cat(part) for part in zip(*parts, strict=True)]
        jac = grads[0].movedim(0, -2)
        return out, jac, (grads[1].movedim(0, -1) if time else jac.new_zeros(0))

    def cotangents(self, out: Tensor, wanted: list[Tensor], seeds: Tensor, keep: bool) -> list[Tensor]:
        """Return seeds^T d(out)/d(wanted) for every seed along the first axis."""
        if self._batched_grads and len(seeds) > 1:
            try:
                grads = torch.autograd.grad(
                    out, wanted, seeds, is_grads_batched=True, retain_graph=True,
                    create_graph=keep, allow_unused=True,
                )  # fmt: skip
                return [
                    w.new_zeros((len(seeds), *w.shape)) if g is None else g
                    for w, g in zip(wanted, grads, strict=True)
                ]
            except RuntimeError:  # a backward without a batching rule
                self._batched_grads = False
        rows = [_grads(out, wanted, seed, create_graph=keep) for seed in seeds]
        return [torch.stack(column) for column in zip(*rows, strict=True)]

    def vjp(self, t: Tensor, y: Tensor, cotangent: Tensor, *, state: bool = False) -> list[Tensor]:
        """Return cotangent^T df/dp for every parameter, summed over the points; state puts df/dy first.

        Args:
            t: times, (m, B).
            y: states, (m, B, n).
            cotangent: (m, B, n).
            state: whether the first entry of the list is cotangent^T df/dy, (m, B, n).
        """
        if not self.params and not state:
            return []
        with torch.enable_grad():
            y = y.detach().requires_grad_(state)
            out = self.many(t, y)
            wanted = ([y] if state else []) + self.params
            return _grads(out, wanted, cotangent)

    def param_jacobian(self, t: Tensor, y: Tensor) -> Tensor:
        """Return df/dp at m points, shape (m, B, n, P). Cost: m·B·n transposed products."""
        with torch.enable_grad():
            out = self.many(t, y.detach())
            total = out.numel()
            if not out.requires_grad or not self.params:
                count = sum(p.numel() for p in self.params)
                return y.new_zeros((*y.shape, count))
            seeds = torch.eye(total, dtype=y.dtype, device=y.device).reshape(total, *y.shape)
            grads = self.cotangents(out, self.params, seeds, keep=False)
        flat = torch.cat([g.reshape(total, -1) for g in grads], dim=1)
        return flat.reshape(*y.shape, -1)


def _grads(out: Tensor, wanted: list[Tensor], seed: Tensor, *, create_graph: bool = False) -> list[Tensor]:
    """Return the gradients, zeros for what ``out`` does not depend on."""
    if not out.requires_grad:
        return [torch.zeros_like(w) for w in wanted]
    # The tape may reach past func (a parameter that is itself computed), so it is kept.
    grads = torch.autograd.grad(
        out, wanted, seed, retain_graph=True, create_graph=create_graph, allow_unused=True
    )
    return [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, grads, strict=True)]


def _place(x: Tensor) -> int:
    """Return where the memory of a tensor is."""
    return int(x.untyped_storage().data_ptr())


def _leaves(out: Tensor, known: list[Tensor]) -> list[Tensor]:
    """Return the leaf tensors on the tape of ``out`` that are not among the known ones."""
    ids = {id(p) for p in known}
    found: list[Tensor] = []
    seen: set[Any] = set()
    stack = [out.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor) and id(variable) not in ids:
            ids.add(id(variable))
            found.append(variable)
        stack.extend(parent for parent, _ in node.next_functions)
    return found


def check_times(t: Any, packing: Packing) -> Tensor:
    """Return output times as a 1-d floating tensor, strictly increasing or decreasing."""
    if not isinstance(t, Tensor):
        raise DtypeError(f"t must be a tensor, got {type(t).__name__}", "", "t = torch.linspace(0, 1, 11)")
    if t.ndim != 1 or len(t) < 2:
        raise ShapeError(
            f"t must have shape (T,) with T >= 2, got {tuple(t.shape)}",
            "the first entry is the initial time, the others are output times",
            "t = torch.linspace(0.0, 1.0, 11)",
        )
    if not t.dtype.is_floating_point:
        raise DtypeError(f"t has dtype {t.dtype}", "times are real numbers", "t = t.to(torch.float64)")
    steps = t.detach().diff()
    if not bool(torch.isfinite(t).all()) or not (bool((steps > 0).all()) or bool((steps < 0).all())):
        raise ArgumentError(
            "t must be finite and strictly increasing or decreasing",
            "the solver walks from each output time to the next",
            "t = t.unique()  # or t.unique().flip(0), backwards",
        )
    return t.to(packing.device)
