"""What a diagnostic sees of a training at one moment, and what a diagnostic is.

The same view serves the run loop and a plain torch loop: a sum of squares over a flat θ (the protocol
``Objective``), and facts that only its owner knows: which rows of the residual belong to which condition,
which entries of θ to which layer, the points, the domain, the activations, the optimiser's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ntangent._base.check import check_finite
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError
from ntangent._base.protocols import Objective
from ntangent._base.registry import Registry
from ntangent.jet.jacobian import batched_jacobian, grouped_gradients, per_point_jacobian
from ntangent.jet.layers import TAPE

Extent = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Layer:
    """A tensor of parameters inside θ.

    Args:
        name: of the layer.
        start: first entry in θ.
        stop: one past the last.
        is_weight: whether it is a weight matrix; biases and unknown parameters are none.
    """

    name: str
    start: int
    stop: int
    is_weight: bool = True

    @property
    def entries(self) -> slice:
        """Its entries in θ."""
        return slice(self.start, self.stop)


def layers_of(net: nn.Module) -> tuple[Layer, ...]:
    """Return the layers of a network in the order of its trainable parameters; biases have one axis."""
    layers, start = [], 0
    for name, p in net.named_parameters():
        if p.requires_grad:
            layers.append(Layer(name, start, start + p.numel(), p.ndim >= 2))
            start += p.numel()
    return tuple(layers)


@dataclass(frozen=True)
class Block:
    """Rows of the residual that belong together: an equation at its points, or a condition.

    Args:
        name: of the equation or condition.
        start: first row.
        stop: one past the last; rows are component by component, each over all points.
        points: shape (N, d), or None where rows have no place.
        weights: what multiplies the residual of each point beyond the constant weights, shape (N,);
            None where there are no such weights.
        batched: whether the signal-to-noise ratio splits it into batches; conditions with few points
            are shared by all batches.
        components: numbers per point.
    """

    name: str
    start: int
    stop: int
    points: Tensor | None = None
    weights: Tensor | None = None
    batched: bool = True
    components: int = 1

    @property
    def rows(self) -> slice:
        """Its rows in the residual."""
        return slice(self.start, self.stop)

    @property
    def count(self) -> int:
        """Number of points."""
        return (self.stop - self.start) // self.components


@dataclass(frozen=True)
class Snapshot:
    """A training at one moment.

    Only ``iteration`` and ``theta`` are always there; a measure names what else it needs.

    Args:
        iteration: iterations done.
        theta: parameters, shape (P,).
        layers: where the layers are in θ.
        objective: the loss as |r(θ)|².
        blocks: what the rows of r are.
        extent: lower and upper end of each coordinate of the domain.
        activations: returns the hidden activations by layer, shape (N, width) each.
        memory: what the optimiser carries; Adam's moments under "first" and "second".
        batch_gradients: from a wanted number of batches to one gradient per batch, shape (B, P); where it
            is given, no Jacobian is formed for them.
    """

    iteration: int
    theta: Tensor
    layers: tuple[Layer, ...] = ()
    objective: Objective | None = None
    blocks: tuple[Block, ...] = ()
    extent: Extent | None = None
    activations: Callable[[], Mapping[str, Tensor]] | None = None
    memory: Mapping[str, Any] | None = None
    batch_gradients: Callable[[int], Tensor] | None = None

    @cached_property
    def residuals_and_jacobian(self) -> tuple[Tensor, Tensor]:
        """r, shape (M,), and dr/dθ, shape (M, P): computed once, shared by all measures."""
        return self._objective.residuals_and_jacobian(self.theta)

    @cached_property
    def residuals(self) -> Tensor:
        """r, shape (M,); without the Jacobian unless it is known already."""
        if "residuals_and_jacobian" in self.__dict__:
            return self.residuals_and_jacobian[0]
        return self._objective.residuals(self.theta)

    @cached_property
    def recorded(self) -> Mapping[str, Tensor]:
        """The hidden activations, recorded once."""
        if self.activations is None:
            raise ArgumentError("the snapshot has no activations", "", "Snapshot(..., activations=...)")
        return self.activations()

    @property
    def _objective(self) -> Objective:
        if self.objective is None:
            raise ArgumentError("the snapshot has no objective", "", "Snapshot(..., objective=...)")
        return self.objective

    def residual_by_block(self) -> dict[str, Tensor]:
        """Return the rows of every block, shape (components, points); one block without names."""
        r = self.residuals
        if not self.blocks:
            return {"residual": r[None]}
        return {block.name: r[block.rows].reshape(-1, block.count) for block in self.blocks}


@dataclass(frozen=True)
class Measure:
    """A diagnostic that can be called by name.

    Args:
        name: under which it is registered.
        cost: what a call costs, in words.
        needs: the fields of a :class:`Snapshot` it cannot do without.
        compute: from a snapshot to named numbers and tensors.
    """

    name: str
    cost: str
    needs: tuple[str, ...]
    compute: Callable[[Snapshot], dict[str, float | Tensor]]

    def lacking(self, snapshot: Snapshot) -> list[str]:
        """Return the fields that the measure needs and a snapshot does not have."""
        return [name for name in self.needs if getattr(snapshot, name) in (None, ())]

    def __call__(self, snapshot: Snapshot) -> dict[str, float | Tensor]:
        """Return the named values at a snapshot.

        Raises:
            ArgumentError: if the snapshot lacks something the measure needs.
        """
        if lacking := self.lacking(snapshot):
            raise ArgumentError(
                f"the measure {self.name!r} needs {' and '.join(lacking)}",
                "the snapshot does not say",
                f"Snapshot(..., {lacking[0]}=...)",
            )
        return self.compute(snapshot)


measures: Registry[Measure] = Registry("measure")


class ModuleObjective:
    """The sum of squares of a plain torch loop, over the flat parameters of a module.

    Args:
        net: the network; θ is its trainable parameters in their order. Evaluations at another θ put
            the module's own parameters back.
        residual: evaluates the residual: a tensor of shape (N,) or (C, N), one column per point, or a
            mapping from names to such tensors. Its weights are its own affair: the loss is |r|².
    """

    def __init__(self, net: nn.Module, residual: Callable[[], Tensor | Mapping[str, Tensor]]) -> None:
        self.net, self.residual = net, residual
        self.parameters = [p for p in net.parameters() if p.requires_grad]
        if not self.parameters:
            raise ArgumentError("the network has no trainable parameter", "", "p.requires_grad_()")

    def theta(self) -> Tensor:
        """Return the parameters as they are, shape (P,)."""
        return torch.cat([p.detach().reshape(-1) for p in self.parameters])

    def components(self) -> dict[str, Tensor]:
        """Return the blocks of the residual at the module's own parameters, shape (C, N) each."""
        given = self.residual()
        named = given if isinstance(given, Mapping) else {"residual": given}
        found = {}
        for name, r in named.items():
            if not isinstance(r, Tensor) or r.ndim not in (1, 2):
                raise ShapeError(f"the residual {name!r} is {_kind(r)}", "", "shape (N,) or (C, N)")
            found[name] = check_finite(r if r.ndim == 2 else r[None], f"residual {name!r}")
        return found

    def blocks(
        self,
        points: Mapping[str, Tensor] | None = None,
        shared: Sequence[str] = (),
        weights: Mapping[str, Tensor] | None = None,
    ) -> tuple[Block, ...]:
        """Return the blocks, with points and weights where given; ``shared`` ones are not batched."""
        blocks, start, known, factors = [], 0, points or {}, weights or {}
        with torch.no_grad():
            components = self.components()
        unknown = [name for name in (*known, *shared, *factors) if name not in components]
        if unknown:
            raise ArgumentError(f"there is no residual {unknown[0]!r}", "", ", ".join(components))
        for name, rows in components.items():
            place = known.get(name)
            if place is not None and len(place) != rows.shape[1]:
                raise ShapeError(f"{len(place)} points for {rows.shape[1]} columns of {name!r}", "", "(N, d)")
            block = Block(
                name, start, start + rows.numel(), place, factors.get(name), name not in shared, len(rows)
            )
            blocks.append(block)
            start += rows.numel()
        return tuple(blocks)

    def _at(self, theta: Tensor) -> _Loaded:
        return _Loaded(self.parameters, theta)

    def _vector(self) -> Tensor:
        return torch.cat([rows.reshape(-1) for rows in self.components().values()])

    def residuals(self, theta: Tensor) -> Tensor:
        """Return r, shape (M,)."""
        with self._at(theta), torch.no_grad():
            return self._vector()

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return |r|² and its gradient, shape (P,)."""
        with self._at(theta), torch.enable_grad():
            r = self._vector()
            loss = r @ r
            grads = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, grads, strict=True)]
        return loss.detach(), torch.cat([g.reshape(-1) for g in flat])

    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return r, shape (M,), and dr/dθ, shape (M, P), by M vectorised backward passes.

        The one-pass method needs points that are independent of each other, which a function cannot
        promise; :class:`IndependentPoints` is for those that do.
        """
        with self._at(theta), torch.enable_grad():
            r = self._vector()
            return r.detach(), batched_jacobian(r, self.parameters)


class IndependentPoints(ModuleObjective):
    """A :class:`ModuleObjective` whose caller promises that column i depends on point i alone.

    The Jacobian then takes one backward pass per component, where the network is made of linear layers
    over points; the promise is checked in one random product when the Jacobian is first asked for.
    """

    _holds: bool | None = None

    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return r, shape (M,), and dr/dθ, shape (M, P), in one backward pass per component."""
        if self._holds is not False:
            with self._at(theta):
                found = self._per_point()
            if self._holds is None:
                self._holds = found is not None and self._agrees(theta, *found)
            if self._holds and found is not None:
                return found
        return super().residuals_and_jacobian(theta)

    def _per_point(self) -> tuple[Tensor, Tensor] | None:
        with torch.no_grad():
            names = list(self.components())
        residuals, jacobians = [], []
        for name in names:
            with _PlainLayers(self.net):
                found = per_point_jacobian(self._component(name), self.parameters)
            if found is None:
                return None
            residuals.append(found[0].reshape(-1))
            jacobians.append(found[1].flatten(0, 1))
        return torch.cat(residuals), torch.cat(jacobians)

    def _component(self, name: str) -> Callable[[], Tensor]:
        return lambda: self.components()[name]

    def batch_gradients(self, batches: int, blocks: Sequence[Block]) -> Tensor | None:
        """Return the gradients of batch losses at the module's own parameters, shape (B, P).

        The same as :func:`ntangent.diagnose.batch_gradients`, in one backward pass per block and without
        a Jacobian; None where the structure does not hold.
        """
        if self._holds is None:
            self.residuals_and_jacobian(self.theta())
        if not self._holds:
            return None
        total: Tensor | None = None
        for block in blocks:
            points = torch.arange(block.count, device=self.parameters[0].device)
            groups = points.tensor_split(batches) if block.batched else [points]
            with _PlainLayers(self.net):
                found = grouped_gradients(self._component(block.name), self.parameters, groups)
            if found is None:
                return None
            sizes = found.new_tensor([block.count / len(group) for group in groups])[:, None]
            total = found * sizes if total is None else total + found * sizes
        return total

    def _agrees(self, theta: Tensor, r: Tensor, jacobian: Tensor) -> bool:
        v = torch.randn(len(r), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(r)
        with self._at(theta), torch.enable_grad():
            grads = torch.autograd.grad(self._vector() @ v, self.parameters, allow_unused=True)
        expected = [
            torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, grads, strict=True)
        ]
        error = (jacobian.T @ v - torch.cat([g.reshape(-1) for g in expected])).norm()
        return bool(error <= torch.finfo(r.dtype).eps ** 0.5 * jacobian.norm() * v.norm())


class _PlainLayers:
    """Hooks by which linear layers that are called on plain tensors show themselves as jets' layers do."""

    def __init__(self, net: nn.Module) -> None:
        self.layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        self.handles = [layer.register_forward_hook(self._hook) for layer in self.layers]

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    @staticmethod
    def _hook(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        tape = TAPE.get()
        if tape is None or type(output) is not Tensor or output.ndim != 2:
            return None
        assert isinstance(layer, nn.Linear)
        # One row: the value.
        return tape.linear(layer.weight, layer.bias, inputs[0][None], output[None])[0]


class _Loaded:
    """Parameters set to θ for a while."""

    def __init__(self, parameters: Sequence[nn.Parameter], theta: Tensor) -> None:
        if theta.numel() != sum(p.numel() for p in parameters):
            raise ShapeError(f"theta has {theta.numel()} entries", "", "objective.theta()")
        self.parameters, self.theta = parameters, theta
        self.saved: list[Tensor] = []

    def __enter__(self) -> None:
        parts = self.theta.detach().split([p.numel() for p in self.parameters])
        with torch.no_grad():
            same = all(bool((p.reshape(-1) == v).all()) for p, v in zip(self.parameters, parts, strict=True))
            if same:
                return
            self.saved = [p.detach().clone() for p in self.parameters]
            for p, values in zip(self.parameters, parts, strict=True):
                p.copy_(values.view_as(p))

    def __exit__(self, *_: object) -> None:
        with torch.no_grad():
            for p, old in zip(self.parameters, self.saved, strict=False):
                p.copy_(old)


def _kind(value: Any) -> str:
    return f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def check_layers(layers: Sequence[Layer], size: int) -> tuple[Layer, ...]:
    """Return the layers if they lie inside a vector of ``size`` entries."""
    for layer in layers:
        if not isinstance(layer, Layer):
            raise DtypeError(f"{layer!r} is no Layer", "", "layers_of(net)")
        if not 0 <= layer.start <= layer.stop <= size:
            raise ShapeError(
                f"layer {layer.name!r} is entries {layer.start} to {layer.stop} of {size}",
                "",
                "layers_of(net)",
            )
    return tuple(layers)
