"""A problem and a network as a sum of squares over one flat parameter vector."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch._utils import _unflatten_dense_tensors

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError, ProblemError, ShapeError, UnknownNameError
from ntangent._base.registry import nearest_names
from ntangent.jet.jacobian import batched_jacobian, per_point_jacobian
from ntangent.pinn.correction import Corrections
from ntangent.pinn.direct import Directly, leaves_of
from ntangent.pinn.equation import Block, numbered, residual_block
from ntangent.pinn.field import Parameters
from ntangent.pinn.passes import Part, Pass, plan
from ntangent.pinn.problem import Problem
from ntangent.pinn.products import Products
from ntangent.pinn.revisable import Revisable
from ntangent.pinn.sums import Pairwise


class PinnObjective(Corrections, Directly, Products, Revisable):
    """loss(θ) = sum over blocks and rows of weight · mean(factor · residual²).

    θ is the network's trainable parameters in their own order, then one raw number per unknown.

    Args:
        problem: the problem.
        net: the network; its parameters are overwritten by each evaluation.
        points: collocation points, shape (N, d).
        sobolev: weights of the mean squares of the residual's derivatives of order 1, 2, ...
        equation_weights: weight of each equation, 1 by default.
        chunk: how many collocation points are evaluated together; bounds the memory of the pass,
            the result is the same to rounding. All by default.
    """

    def __init__(
        self,
        problem: Problem,
        net: nn.Module,
        points: Tensor,
        sobolev: Sequence[float] = (),
        equation_weights: Sequence[float] | None = None,
        chunk: int | None = None,
    ) -> None:
        self.problem, self.net = problem, net
        self.settings = (sobolev, equation_weights, chunk)
        self.chunk = None if chunk is None else int(check_positive(chunk, "chunk", integer=True))
        self.parameters: list[Tensor] = [p for p in net.parameters() if p.requires_grad]
        self._sizes = [p.numel() for p in self.parameters]
        self._own = sum(self._sizes)
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
            equation = problem.equation(i)
            blocks.append(residual_block(equation.name, equation, points, weights[i], sobolev))
        for condition in problem.conditions:
            blocks.extend(condition.blocks(problem, self.dtype, self.device))
        self.points = points
        self.blocks = numbered(blocks)
        self._factors: dict[str, Tensor] = {}
        self._structured: bool | None = None
        self._arrange()
        self._check_graph()

    def _arrange(self) -> None:
        """Plan the passes and the scale of every residual."""
        self.passes = plan(self.problem, self.blocks, self.chunk)
        self._numbers: Sequence[int] = range(len(self.passes))
        self._scales = [self._scale(block) for block in self.blocks]
        self._direct, self._evaluations = None, 0

    def _scale(self, block: Block) -> Tensor:
        own, factor = scale(block)[:, None], self._factors.get(block.name)
        return own if factor is None else own * factor.sqrt()

    def _check_graph(self) -> None:
        """Evaluate once: shapes must fit, every unknown must matter, nothing else may want training."""
        raw = [q.detach().requires_grad_() for q in self.start()[self._split() :]]
        with torch.enable_grad():
            r = self._vector(raw)
        leaves = leaves_of(r)
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
        strangers = {id(leaf) for leaf in leaves} - {id(p) for p in [*self.parameters, *raw]}
        if strangers:  # not those made anew in each evaluation, as by nested differentiation
            strangers &= {id(leaf) for leaf in leaves_of(self._vector(raw))}
        if strangers:
            raise ProblemError(
                "an equation or the ansatz uses a tensor that requires a gradient and is not trained",
                "only the network's parameters and the problem's unknowns are",
                'unknowns={"k": Unknown(1.0)}, or tensor.detach()',
            )

    def _split(self) -> int:
        return self._own

    @property
    def order(self) -> int:
        """The highest derivative of a field that is used."""
        names = self.problem.components
        return max(
            (
                sum(b)
                for block in self.blocks
                for n, s in block.demand.fields.items()
                if n in names
                for b in s
            ),
            default=0,
        )

    # --- what may change between iterations ----------------------------------------------------------

    def set_factors(self, factors: Mapping[str, Tensor | float]) -> None:
        """Set the factors of squared residuals; blocks that are not named keep theirs.

        Args:
            factors: by block: a number, or one for each row (C, 1), point (N,) or both (C, N).

        Raises:
            UnknownNameError: if there is no such block.
            ShapeError, ArgumentError: if a factor does not fit or is negative.
        """
        known = {block.name: block for block in self.blocks}
        for name, value in factors.items():
            if name not in known:
                raise UnknownNameError(f"there is no block {name!r}", "", nearest_names(name, list(known)))
            block = known[name]
            factor = torch.as_tensor(value, dtype=self.dtype, device=self.device).detach()
            try:
                torch.broadcast_shapes(factor.shape, (len(block.weights), block.count))
                fits = factor.ndim <= 2 and factor.numel() <= len(block.weights) * block.count
            except RuntimeError:
                fits = False
            if not fits:
                raise ShapeError(
                    f"the factor of {name} has shape {tuple(factor.shape)}",
                    f"the block has {len(block.weights)} row(s) of {block.count} residual(s)",
                    f"torch.ones({block.count})",
                )
            if not bool(torch.isfinite(factor).all()) or bool((factor < 0).any()):
                raise ArgumentError(
                    f"a factor of {name} is negative or not finite",
                    "a loss is a sum of squares",
                    "factor.abs()",
                )
            self._factors[name] = factor
        self._scales = [self._scale(block) for block in self.blocks]
        self._changed()

    def set_points(self, points: Tensor) -> None:
        """Replace the collocation points of the equations, shape (N, d).

        Factors per point are dropped: they belong to the old points.
        """
        if points.ndim != 2 or points.shape[1] != self.points.shape[1] or len(points) == 0:
            raise ShapeError(
                f"the new points have shape {tuple(points.shape)}",
                f"each row is a point with {self.points.shape[1]} coordinate(s)",
                "sampler.points(domain, dtype, device)",
            )
        points = points.detach().to(dtype=self.dtype, device=self.device)
        old, self.points = self.points, points
        for i, block in enumerate(self.blocks):
            if block.points is old:
                self.blocks[i] = replace(block, points=points)
                factor = self._factors.get(block.name)
                if factor is not None and factor.ndim and factor.shape[-1] > 1:
                    del self._factors[block.name]
        self._changed()
        self._arrange()

    # --- the flat vector -----------------------------------------------------------------------------

    def start(self) -> Tensor:
        """Return θ of the network as it is, with the unknowns at their start values."""
        raw = torch.tensor(
            [u.raw_start for u in self.problem.unknowns.values()], dtype=self.dtype, device=self.device
        )
        own = [p.detach().reshape(-1) for p in self.parameters]  # of any memory layout
        return torch.cat([*own, raw])

    def load(self, theta: Tensor) -> Tensor:
        """Write θ into the network and return the raw unknowns."""
        split = self._split()
        with torch.no_grad():
            # A copy: parameters that were views of θ would change every state that holds it.
            if self.parameters:
                own = theta if split == len(theta) else theta[:split]
                torch._foreach_copy_(self.parameters, _unflatten_dense_tensors(own, self.parameters))
        return theta[split:]

    def unknowns(self, theta: Tensor) -> dict[str, float]:
        """Return the values of the unknowns at θ, which ends with them whatever the network is."""
        raw = theta[len(theta) - len(self.problem.unknowns) :]
        return {n: float(u.value(raw[i])) for i, (n, u) in enumerate(self.problem.unknowns.items())}

    # --- residuals -----------------------------------------------------------------------------------

    def _parameters(self, raw: Sequence[Tensor]) -> Callable[[slice | None], Parameters]:
        """Return the parameters as a function of the points; raw numbers may be one for each."""
        named = zip(self.problem.unknowns.items(), raw, strict=True)
        values = {name: unknown.value(q) for (name, unknown), q in named}

        def at(points: slice | None) -> Parameters:
            if points is None:
                return Parameters(values)
            return Parameters({n: v[points] if v.ndim else v for n, v in values.items()})

        return at

    def _scaled(self, part: Part, rows: Tensor) -> Tensor:
        factor = self._scales[part.index]
        if factor.shape[1] > 1 and part.columns.stop - part.columns.start < factor.shape[1]:
            factor = factor[:, part.columns]
        return rows * factor

    def _pieces(self, raw: Sequence[Tensor], weighted: bool = True) -> list[Tensor]:
        """Return the residuals of every block, (C, n)."""
        pieces: list[list[Tensor]] = [[] for _ in self.blocks]
        parameters = self._parameters(raw)
        for one in self.passes:
            for part, rows in one.rows(self.net, parameters):
                pieces[part.index].append(self._scaled(part, rows) if weighted else rows)
        # Of some blocks another process has all rows.
        none = [self.points.new_zeros(len(block.weights), 0) for block in self.blocks]
        return [f[0] if len(f) == 1 else torch.cat(f or [n], 1) for f, n in zip(pieces, none, strict=True)]

    def _vector(self, raw: Sequence[Tensor]) -> Tensor:
        return torch.cat([rows.reshape(-1) for rows in self._pieces(raw)])

    def rows(self, theta: Tensor) -> dict[str, Tensor]:
        """Return the residuals of every block, unweighted, shape (C, n) each, detached.

        Those of the last gradient are kept: at its θ, the same tensor, this costs nothing.
        """
        if (known := self._known_rows(theta)) is not None:
            return known
        with torch.no_grad():
            pieces = self._pieces(list(self.load(theta)), weighted=False)
        return {block.name: rows for block, rows in zip(self.blocks, pieces, strict=True)}

    def residuals(self, theta: Tensor) -> Tensor:
        """Return the weighted residual vector, shape (M,)."""
        with torch.no_grad():
            return self._vector(list(self.load(theta)))

    def terms(self, theta: Tensor) -> dict[str, float]:
        """Return each block's share of the loss."""
        named = self.rows(theta)
        r = self._known_residuals(theta)
        if r is None:
            pairs = zip(named.values(), self._scales, strict=True)
            r = torch.cat([(rows * factor).reshape(-1) for rows, factor in pairs])
        parts = r.square().split([rows.numel() for rows in named.values()])
        return dict(zip(named, torch.stack([part.sum() for part in parts]).tolist(), strict=True))

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient, shape (P,); one forward and one backward pass.

        In chunks, each of them is evaluated and differentiated by itself.
        """
        if self.chunk is not None:
            return self._summed_gradient(theta)
        raw = self.load(theta).detach()
        direct = self._direct_pass(raw)
        if direct is not None:
            found = direct(raw, self._scales)
            if direct.consistent:
                self._keep_rows(theta, found.rows, found.residuals)
                return found.loss, found.gradient
            self._inconsistent()
        raw = raw.clone().requires_grad_()
        with torch.enable_grad():
            loss, r, pieces = self._losses(raw, self._scales)
        self._keep_rows(theta, pieces, r.detach())
        return loss.detach(), self._gradient(loss, raw)

    def _summed_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient, each pass evaluated and differentiated by itself."""
        raw, sums = self.load(theta).detach().clone().requires_grad_(), Pairwise()
        for number, one in zip(self._numbers, self.passes, strict=True):
            sums.add(number, self._pass_gradient(one, raw))
        total = self._total(sums, theta.new_zeros(len(theta) + 1))
        return total[-1], total[:-1]

    def _pass_gradient(self, one: Pass, raw: Tensor) -> Tensor:
        """Return the gradient of a pass's share of the loss, then the share itself, (P + 1,)."""
        with torch.enable_grad():
            parameters = self._parameters(raw.unbind(0) if len(raw) else ())
            squares = [self._scaled(p, rows).square().sum() for p, rows in one.rows(self.net, parameters)]
            loss = torch.stack(squares).sum()
        if not loss.requires_grad:
            return torch.cat([loss.new_zeros(self._own + len(raw)), loss[None]])
        return torch.cat([self._gradient(loss, raw), loss.detach()[None]])

    # --- Jacobian ------------------------------------------------------------------------------------

    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residuals, shape (M,), and their Jacobian, shape (M, P).

        One backward pass for each row of each block while the network is a chain of linear
        layers over independent points; a general, slower method otherwise. Which of them holds is
        found out once, by comparing a product of the Jacobian with automatic differentiation.
        """
        if not self.structured(theta):
            return self._general(theta)
        result = self._per_point(theta)
        assert result is not None
        return result

    def _per_point(self, theta: Tensor) -> tuple[Tensor, Tensor] | None:
        raw = self.load(theta)
        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.blocks]
        for one in self.passes:
            leaves = [q.detach().expand(len(one.points), 1).clone().requires_grad_() for q in raw]
            result = per_point_jacobian(self.matrix(one, leaves), self.parameters, leaves)
            if result is None:
                return None
            for index, residuals, jacobian in _unfolded(one, *result):
                found[index].append((residuals, jacobian))
        values, jacobians = [], []
        for pieces in filter(None, found):
            r, jacobian = pieces[0]
            if len(pieces) > 1:
                r, jacobian = (torch.cat([piece[i] for piece in pieces], 1) for i in (0, 1))
            values.append(r.reshape(-1))
            jacobians.append(jacobian.reshape(-1, jacobian.shape[-1]))
        return torch.cat(values), torch.cat(jacobians)

    def _places(self, one: Pass, rows: Tensor) -> list[tuple[int, Tensor]]:
        """Return where the residuals of each block stand among the flattened rows of a pass, (C, n)."""
        order = torch.arange(rows.numel(), dtype=torch.float64, device=rows.device).view(rows.shape)
        unfolded = _unfolded(one, order, order.new_zeros((*order.shape, 1)))
        return [(index, places.long()) for index, places, _ in unfolded]

    def matrix(self, one: Pass, leaves: Sequence[Tensor]) -> Callable[[], Tensor]:
        """Return a function that evaluates a pass as rows with one entry for each point.

        A residual that depends on several points stands at the first of them, with zeros at the
        others: the backward pass of its sum reaches all of them alike.
        """

        def evaluate() -> Tensor:
            segments: dict[int, list[Tensor]] = {}
            for part, values in one.rows(self.net, self._parameters(leaves)):
                scaled = self._scaled(part, values)
                missing = len(part.block.points) - scaled.shape[1]
                rows = torch.nn.functional.pad(scaled, (0, missing)) if missing else scaled
                segments.setdefault(part.segment, []).append(rows)
            columns = []
            for found in segments.values():
                rows = found[0] if len(found) == 1 else torch.cat(found)
                missing = one.height - len(rows)
                columns.append(torch.nn.functional.pad(rows, (0, 0, 0, missing)) if missing else rows)
            return columns[0] if len(columns) == 1 else torch.cat(columns, 1)

        return evaluate

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


def _unfolded(one: Pass, values: Tensor, jacobian: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Split the rows of a pass into its blocks, with what several points contribute added up."""
    row, segment = 0, -1
    for part in one.parts:
        count, block = part.block.count, part.block
        row, segment = (row if part.segment == segment else 0), part.segment
        rows, points = slice(row, row + len(block.weights)), part.points or slice(None)
        row += len(block.weights)
        r, j = values[rows, points], jacobian[rows, points]
        if block.fold > 1:
            r = r[:, :count]
            j = j.reshape(len(j), block.fold, count, -1).sum(1)
        yield part.index, r, j


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
    """Return the factor of each row: the mean square becomes a plain sum of squares."""
    return (block.weights / max(1, block.count)).sqrt()
