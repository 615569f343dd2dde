"""A problem and a network as a sum of squares over one flat parameter vector."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from ntangent._base.errors import ArgumentError, ProblemError
from ntangent.jet.jacobian import batched_jacobian, per_point_jacobian
from ntangent.pinn.conditions import Block, residual_block
from ntangent.pinn.correction import Corrections
from ntangent.pinn.field import Parameters
from ntangent.pinn.problem import Problem
from ntangent.pinn.products import Products


class PinnObjective(Corrections, Products):
    """loss(θ) = sum over blocks and components of weight · mean(residual²).

    θ is the network's trainable parameters in their own order, then one raw number per unknown.

    Args:
        problem: the problem.
        net: the network; its parameters are overwritten by each evaluation.
        points: collocation points, shape (N, 1).
        sobolev: weights of the mean squares of the residual's derivatives of order 1, 2, ...
        equation_weights: weight of each equation, 1 by default.
    """

    def __init__(
        self,
        problem: Problem,
        net: nn.Module,
        points: Tensor,
        sobolev: Sequence[float] = (),
        equation_weights: Sequence[float] | None = None,
    ) -> None:
        self.problem, self.net, self.points = problem, net, points
        self.weighting = (sobolev, equation_weights)
        self.parameters = [p for p in net.parameters() if p.requires_grad]
        self.dtype, self.device = points.dtype, points.device
        if not self.parameters and not problem.unknowns:
            raise ProblemError(
                "there is nothing to train", "the network has no trainable parameter", "MLP(1, 1)"
            )
        count = len(problem.equations)
        weights = check_weights([1.0] * count if equation_weights is None else equation_weights, "weight")
        if len(weights) != count:
            raise ArgumentError(f"{len(weights)} weights for {count} equations", "", f"{[1.0] * count}")
        blocks: list[Block] = []
        for i in range(count):
            equation, need = problem.equation(i)
            blocks.append(residual_block(f"equation[{i}]", equation, need, points, weights[i], sobolev))
        for condition in problem.conditions:
            blocks.extend(condition.blocks(problem, self.dtype, self.device))
        self.blocks = _numbered(blocks)
        self._structured: bool | None = None
        self._check_graph()

    def _check_graph(self) -> None:
        """Evaluate once: shapes must fit, every unknown must matter, nothing else may want training."""
        raw = [q.detach().requires_grad_() for q in self.start()[self._split() :]]
        with torch.enable_grad():
            r = self._vector(raw)
        leaves = _leaves(r)
        unused = [
            n
            for n, q in zip(self.problem.unknowns, raw, strict=True)
            if not any(q is leaf for leaf in leaves)
        ]
        if unused:
            raise ProblemError(
                f"no equation and no condition depends on the unknown(s) {', '.join(unused)}",
                "they could never move from their start",
                f"lambda u, p: u.{self.problem.coordinate} + p.{unused[0]} * u",
            )
        own = {id(p) for p in [*self.parameters, *raw]}
        if any(id(leaf) not in own for leaf in leaves):
            raise ProblemError(
                "an equation or the ansatz uses a tensor that requires a gradient and is not trained",
                "only the network's parameters and the problem's unknowns are",
                'unknowns={"k": Unknown(1.0)}, or tensor.detach()',
            )

    def _split(self) -> int:
        return sum(p.numel() for p in self.parameters)

    @property
    def order(self) -> int:
        """The highest derivative of the field that is used."""
        return max(block.order for block in self.blocks)

    def start(self) -> Tensor:
        """Return θ of the network as it is, with the unknowns at their start values."""
        raw = torch.tensor(
            [u.raw_start for u in self.problem.unknowns.values()], dtype=self.dtype, device=self.device
        )
        own = parameters_to_vector(self.parameters).detach() if self.parameters else raw[:0]
        return torch.cat([own.clone(), raw])

    def load(self, theta: Tensor) -> Tensor:
        """Write θ into the network and return the raw unknowns."""
        split = self._split()
        with torch.no_grad():
            # A copy: parameters that were views of θ would change every state that holds it.
            for p, values in zip(
                self.parameters, theta[:split].split([p.numel() for p in self.parameters]), strict=True
            ):
                p.copy_(values.view_as(p))
        return theta[split:]

    def unknowns(self, theta: Tensor) -> dict[str, float]:
        """Return the values of the unknowns at θ, which ends with them whatever the network is."""
        raw = theta[len(theta) - len(self.problem.unknowns) :]
        return {n: float(u.value(raw[i])) for i, (n, u) in enumerate(self.problem.unknowns.items())}

    def _parameters(self, raw: Sequence[Tensor]) -> Parameters:
        pairs = zip(self.problem.unknowns.items(), raw, strict=True)
        return Parameters({name: unknown.value(q) for (name, unknown), q in pairs})

    def rebuilt(self, net: nn.Module, points: Tensor) -> PinnObjective:
        """Return the objective of the same problem with the same weights for another network and points."""
        other = PinnObjective(self.problem, net, points, *self.weighting)
        other.denser = self.denser
        return other

    def _rows(self, block: Block, raw: Sequence[Tensor]) -> Tensor:
        """Return the weighted residuals of a block, shape (C, N)."""
        u, x = self.problem.field(self.net, block.points, block.order)
        return block.rows(u, self._parameters(raw), x) * scale(block)[:, None]

    def _vector(self, raw: Sequence[Tensor]) -> Tensor:
        return torch.cat([self._rows(block, raw).reshape(-1) for block in self.blocks])

    def residuals(self, theta: Tensor) -> Tensor:
        """Return the weighted residual vector, shape (M,)."""
        with torch.no_grad():
            return self._vector(list(self.load(theta)))

    def terms(self, theta: Tensor) -> dict[str, float]:
        """Return each block's share of the loss."""
        with torch.no_grad():
            raw = list(self.load(theta))
            return {block.name: float(self._rows(block, raw).square().sum()) for block in self.blocks}

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient, shape (P,); one forward and one backward pass."""
        raw = self.load(theta).detach().clone().requires_grad_()
        with torch.enable_grad():
            r = self._vector(list(raw))
            loss = r @ r
        return loss.detach(), self._gradient(loss, raw)

    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residuals, shape (M,), and their Jacobian, shape (M, P).

        One backward pass for each component of each block while the network is a chain of linear
        layers over independent points; a general, slower method otherwise. Which of them holds is
        found out once, by comparing a product of the Jacobian with automatic differentiation.
        """
        if self._structured is None:
            self._structured = self._structure_holds(theta)
        if not self._structured:
            return self._general(theta)
        result = self._per_point(theta)
        assert result is not None
        return result

    def _per_point(self, theta: Tensor) -> tuple[Tensor, Tensor] | None:
        raw = self.load(theta)
        residuals, jacobians = [], []
        for block in self.blocks:
            leaves = [q.detach().expand(len(block.points), 1).clone().requires_grad_() for q in raw]
            rows = self._evaluation(block, leaves)
            result = per_point_jacobian(rows, self.parameters, leaves)
            if result is None:
                return None
            residuals.append(result[0].reshape(-1))
            jacobians.append(result[1].flatten(0, 1))
        return torch.cat(residuals), torch.cat(jacobians)

    def _evaluation(self, block: Block, leaves: Sequence[Tensor]) -> Callable[[], Tensor]:
        return lambda: self._rows(block, leaves)

    def _structure_holds(self, theta: Tensor) -> bool:
        """Compare Jᵀv of both methods for a random v, at a point where no weight is exactly zero.

        At θ itself a layer that starts at zero would hide what lies behind it.
        """
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(len(theta), generator=generator, dtype=torch.float64).to(theta)
        result = self._per_point(theta + 0.1 * noise)
        if result is None:
            return False
        r, jacobian = result
        v = torch.randn(len(r), generator=generator, dtype=torch.float64).to(r)
        raw = self.load(theta + 0.1 * noise).detach().clone().requires_grad_()
        with torch.enable_grad():
            product = self._vector(list(raw)) @ v
        expected = self._gradient(product, raw)
        error = (jacobian.T @ v - expected).norm()
        return bool(error <= torch.finfo(self.dtype).eps ** 0.5 * jacobian.norm() * v.norm())

    def _gradient(self, value: Tensor, raw: Tensor) -> Tensor:
        inputs = [*self.parameters, raw]
        grads = torch.autograd.grad(value, inputs, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for p, g in zip(inputs, grads, strict=True)]
        return torch.cat([g.reshape(-1) for g in flat])

    def _general(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.load(theta).detach().clone().requires_grad_()
        with torch.enable_grad():
            r = self._vector(list(raw))
        return r.detach(), batched_jacobian(r, [*self.parameters, raw])


def _numbered(blocks: Sequence[Block]) -> list[Block]:
    """Return the blocks under different names: a name that occurs twice is numbered."""
    names = [block.name for block in blocks]
    return [
        replace(block, name=f"{block.name}[{names[:i].count(block.name)}]")
        if names.count(block.name) > 1
        else block
        for i, block in enumerate(blocks)
    ]


def _leaves(value: Tensor) -> list[Tensor]:
    """Return the leaves of a graph: the tensors that would receive a gradient."""
    found, seen, pending = [], set(), [value.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        pending.extend(parent for parent, _ in node.next_functions)
    return found


def check_weights(weights: Sequence[float], name: str) -> list[float]:
    """Return weights as floats if they are finite and not negative."""
    values = [float(w) for w in weights]
    for value in values:
        if not 0 <= value < math.inf:
            raise ArgumentError(
                f"a {name} is {value}", "a loss is a sum of squares with weights >= 0", f"{name}=1.0"
            )
    return values


def scale(block: Block) -> Tensor:
    """Return the factor of each component: the mean square becomes a plain sum of squares."""
    return (block.weights / max(1, len(block.points))).sqrt()
