"""A problem and a network as a sum of squares over one flat parameter vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ntangent._base.errors import ProblemError
from ntangent.jet.jacobian import batched_jacobian, per_point_jacobian
from ntangent.pinn.conditions import Block, residual_block
from ntangent.pinn.field import Parameters
from ntangent.pinn.problem import Problem


class PinnObjective:
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
        self.problem, self.net = problem, net
        self.parameters = [p for p in net.parameters() if p.requires_grad]
        self.dtype, self.device = points.dtype, points.device
        weights = equation_weights or [1.0] * len(problem.equations)
        self.blocks: list[Block] = []
        for i in range(len(problem.equations)):
            equation, need = problem.equation(i)
            self.blocks.append(residual_block(f"equation[{i}]", equation, need, points, weights[i], sobolev))
        for condition in problem.conditions:
            self.blocks.extend(condition.blocks(problem, self.dtype, self.device))
        if not self.parameters and not problem.unknowns:
            raise ProblemError(
                "there is nothing to train", "the network has no trainable parameter", "MLP(1, 1)"
            )
        self._structured: bool | None = None

    def start(self) -> Tensor:
        """Return θ of the network as it is, with the unknowns at their start values."""
        raw = torch.tensor(
            [u.raw_start for u in self.problem.unknowns.values()], dtype=self.dtype, device=self.device
        )
        own = parameters_to_vector(self.parameters).detach() if self.parameters else raw[:0]
        return torch.cat([own.clone(), raw])

    def load(self, theta: Tensor) -> Tensor:
        """Write θ into the network and return the raw unknowns."""
        split = len(theta) - len(self.problem.unknowns)
        if self.parameters:
            vector_to_parameters(theta[:split], self.parameters)
        return theta[split:]

    def unknowns(self, theta: Tensor) -> dict[str, float]:
        """Return the values of the unknowns at θ."""
        raw = theta[len(theta) - len(self.problem.unknowns) :]
        return {n: float(u.value(raw[i])) for i, (n, u) in enumerate(self.problem.unknowns.items())}

    def _parameters(self, raw: Sequence[Tensor]) -> Parameters:
        pairs = zip(self.problem.unknowns.items(), raw, strict=True)
        return Parameters({name: unknown.value(q) for (name, unknown), q in pairs})

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
        inputs = [*self.parameters, raw]
        grads = torch.autograd.grad(loss, inputs, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for p, g in zip(inputs, grads, strict=True)]
        return loss.detach(), torch.cat([g.reshape(-1) for g in flat])

    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residuals, shape (M,), and their Jacobian, shape (M, P).

        One backward pass for each component of each block while the network is a chain of linear
        layers over independent points; a general, slower method otherwise. Which of them holds is
        found out once, by comparing J^T r with the gradient.
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
        result = self._per_point(theta)
        if result is None:
            return False
        r, jacobian = result
        loss, gradient = self.value_and_gradient(theta)
        error = (2 * (jacobian.T @ r) - gradient).norm()
        bound = torch.finfo(self.dtype).eps ** 0.5 * jacobian.norm() * r.norm()
        return bool(error <= bound)

    def _general(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.load(theta).detach().clone().requires_grad_()
        with torch.enable_grad():
            r = self._vector(list(raw))
        return r.detach(), batched_jacobian(r, [*self.parameters, raw])


def scale(block: Block) -> Tensor:
    """Return the factor of each component: the mean square becomes a plain sum of squares."""
    return (block.weights / max(1, len(block.points))).sqrt()
