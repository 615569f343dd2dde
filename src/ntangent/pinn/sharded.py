"""An objective whose points are spread over the ranks of a distributed run."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from ntangent._base.describe import describe
from ntangent._base.protocols import Linearisation
from ntangent.pinn.crew import Crew, shared
from ntangent.pinn.duties import Duty, duties
from ntangent.pinn.objective import PinnObjective
from ntangent.pinn.passes import Pass, section
from ntangent.pinn.problem import Problem
from ntangent.pinn.sums import Pairwise, nodes_of
from ntangent.run import Outcome
from ntangent.run.distribution import Team, moved


class ShardedObjective(PinnObjective):
    """A :class:`PinnObjective` of which each rank evaluates a share; the leader sees the whole.

    Without ``chunk`` each rank has one part of the collocation points and some of the conditions, and
    results are those of one process to rounding. With ``chunk`` the parts are the chunks of one
    process, and sums are taken in the same order: results are the same to the bit, on any number of
    ranks.

    Args:
        problem: the problem.
        net: the network.
        points: collocation points, shape (N, d), those of rank 0.
        sobolev: weights by order, as for :class:`PinnObjective`.
        equation_weights: weight of each equation.
        chunk: points evaluated together.
        crew: the ranks.
    """

    address: tuple[int, ...]

    def __init__(
        self,
        problem: Problem,
        net: nn.Module,
        points: Tensor,
        sobolev: Sequence[float] = (),
        equation_weights: Sequence[float] | None = None,
        chunk: int | None = None,
        *,
        crew: Crew,
    ) -> None:
        self.crew, self._plain, self.sharing = crew, False, ShardedObjective
        self.address = (len(crew.objectives),)
        self._linear: Linearisation | None = None
        super().__init__(problem, net, points, sobolev, equation_weights, chunk)
        crew.objectives.append(self)

    # --- who does what -------------------------------------------------------------------------------

    def _arrange(self) -> None:
        if self.crew.over:
            self._plain = True
            super()._arrange()
            return
        team = self.crew.team
        self._duties: list[Duty] = duties(self.blocks, team.size, self.chunk)
        own = [(i, duty) for i, duty in enumerate(self._duties) if duty.rank == team.rank]
        self._numbers = [i for i, _ in own]
        self.passes = [Pass(self.problem, duty.segments) for _, duty in own]
        self._scales = [self._scale(block) for block in self.blocks]
        self._found: list[Tensor] | None = None
        self._direct, self._evaluations = None, 0

    def gather_all(self) -> None:
        """Go on alone: this process evaluates all points from now on."""
        if not self._plain:
            self._arrange()

    def whole(self) -> Self:
        """Return the objective with all of its points in this process, beside which the others do nothing."""
        twin = self
        if not self.crew.over:
            twin = copy.copy(self)
            twin.crew = Crew(self.crew.team)
            twin.crew.over = True
        twin.gather_all()
        return twin

    def _check_graph(self) -> None:
        """Check on every rank alike, at all conditions and at a few of the other points."""
        passes, self.passes = self.passes, []
        for block in range(len(self.blocks)):
            entry = (block, self.blocks[block], slice(0, self.blocks[block].count))
            few = section([[entry]], 0, min(2, entry[1].count)) if entry[1].free else [[entry]]
            self.passes.append(Pass(self.problem, few))
        try:
            super()._check_graph()
        finally:
            self.passes = passes

    def _columns(self, rank: int) -> list[list[slice]]:
        """Return which residuals of each block a rank has, in the order in which it has them."""
        columns: list[list[slice]] = [[] for _ in self.blocks]
        for duty in self._duties:
            if duty.rank == rank:
                for entries in duty.segments:
                    for index, _, part in entries:
                        columns[index].append(part)
        return columns

    @property
    def _positions(self) -> list[Tensor]:
        """Where each rank's residuals stand in the residual vector."""
        if self._found is None:
            self._found = []
            for rank in range(self.crew.team.size):
                pieces, start = [torch.zeros(0, dtype=torch.long)], 0
                for block, parts in zip(self.blocks, self._columns(rank), strict=True):
                    whole = torch.arange(start, start + len(block.weights) * block.count)
                    whole = whole.view(len(block.weights), block.count)
                    pieces += [torch.cat([whole[:, part] for part in parts], 1).reshape(-1)] if parts else []
                    start += whole.numel()
                self._found.append(torch.cat(pieces).to(self.device))
        return self._found

    # --- from shares to the whole --------------------------------------------------------------------

    def _gathered(self, share: Tensor, everywhere: bool = True) -> Tensor:
        """Return the rows of all ranks in the order of one process; zeros where they are not needed."""
        positions, team = self._positions, self.crew.team
        found = team.gather(share, [len(place) for place in positions], everywhere)
        if not found:
            return share.new_zeros((0, *share.shape[1:]))
        whole = share.new_empty((sum(map(len, positions)), *share.shape[1:]))
        for place, part in zip(positions, found, strict=True):
            whole[place] = part
        return whole

    def _named(self, values: Tensor) -> dict[str, Tensor]:
        sizes = [(len(block.weights), block.count) for block in self.blocks]
        parts = values.split([rows * count for rows, count in sizes])
        return {
            block.name: part.view(size) for block, part, size in zip(self.blocks, parts, sizes, strict=True)
        }

    def _total(self, sums: Pairwise, like: Tensor) -> Tensor:
        """Return the sum over all ranks: in the order of one process where its parts are known."""
        if self.crew.over:
            return super()._total(sums, like)
        team = self.crew.team
        if self.chunk is None:
            return team.sum(sums.total(torch.zeros_like(like)))
        ranks = range(team.size)
        nodes = [nodes_of(i for i, duty in enumerate(self._duties) if duty.rank == rank) for rank in ranks]
        own = [sums.nodes[key] for key in nodes[team.rank]]
        share = torch.stack(own) if own else like.new_zeros((0, *like.shape))
        merged = Pairwise()
        for keys, values in zip(nodes, team.gather(share, [len(keys) for keys in nodes]), strict=True):
            for (level, number), value in zip(keys, values, strict=True):
                merged.add(number, value, level)
        return merged.total(torch.zeros_like(like))

    # --- what a training asks for --------------------------------------------------------------------

    @shared
    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient, shape (P,). Communication: P numbers."""
        return self._summed_gradient(theta)

    @shared
    def residuals(self, theta: Tensor) -> Tensor:
        """Return the weighted residual vector, shape (M,). Communication: M numbers."""
        with torch.no_grad():
            return self._gathered(self._vector(list(self.load(theta))))

    @shared
    def rows(self, theta: Tensor) -> dict[str, Tensor]:
        """Return the residuals of every block, unweighted, shape (C, n) each. Communication: M numbers."""
        with torch.no_grad():
            pieces = self._pieces(list(self.load(theta)), weighted=False)
            return self._named(self._gathered(torch.cat([rows.reshape(-1) for rows in pieces])))

    def _own_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        self._settle_structure(theta)
        if not self.passes:
            return theta.new_zeros(0), theta.new_zeros(0, len(theta))
        return super().residuals_and_jacobian(theta)

    def _settle_structure(self, theta: Tensor) -> None:
        """Find out whether points are independent of each other, for all ranks alike."""
        if self._structured is None:
            holds = not self.passes or self._structure_holds(theta)
            self._structured = bool(self.crew.team.sum(torch.tensor([float(not holds)])) == 0)

    @shared
    def residuals_and_jacobian(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residuals, shape (M,), and their Jacobian, shape (M, P), to the leader.

        Its rows are gathered, not its normal equations: they come out as in one process, so that
        every method goes the same way, one that is not to square the condition number too.
        Communication and the leader's memory: M·P numbers.
        """
        r, jacobian = self._own_jacobian(theta)
        both = self._gathered(torch.cat([jacobian, r[:, None]], 1), everywhere=False)
        return both[:, -1].contiguous(), both[:, :-1].contiguous()

    @shared
    def row_squares(self, theta: Tensor) -> dict[str, Tensor]:
        """Return |dr/dθ|² of each unweighted residual by block, shape (C, n)."""
        bare = copy.copy(self)
        bare._scales = [torch.ones_like(scale[:, :1]) for scale in self._scales]
        return self._named(self._gathered(bare._own_jacobian(theta)[1].square().sum(1)))

    @shared
    def term_gradient(self, theta: Tensor, name: str, factor: Tensor) -> Tensor:
        """Return the gradient of a block's mean(factor · r²), rows added by relative weight, shape (P,)."""
        place = [block.name for block in self.blocks].index(name)
        block, weights = self.blocks[place], self.layout()[name].relative
        alone = copy.copy(self)
        alone.blocks, alone._seen = [block], None
        alone._arrange()
        whole = factor.to(self.device).expand(len(block.weights), block.count)
        raw, sums = alone.load(theta).detach().clone().requires_grad_(), Pairwise()
        for number, one in zip(alone._numbers, alone.passes, strict=True):
            with torch.enable_grad():
                ((part, rows),) = one.rows(self.net, alone._parameters(raw.unbind(0) if len(raw) else ()))
                value = weights @ (whole[:, part.columns] * rows.square()).sum(1) / block.count
            sums.add(number, self._gradient(value, raw) if value.requires_grad else torch.zeros_like(theta))
        return alone._total(sums, theta)

    # --- products with the Jacobian ------------------------------------------------------------------

    def linearise(self, theta: Tensor) -> Linearisation:
        """Return the residual at θ and products with its Jacobian, of which each rank keeps its rows."""
        if self.crew.over:
            self.gather_all()
            return super().linearise(theta)
        return Linearisation(self._linearised(theta), self._jvp, self._vjp)

    @shared
    def _linearised(self, theta: Tensor) -> Tensor:
        self._settle_structure(theta)
        self._linear = super().linearise(theta) if self.passes else None
        return self._gathered(theta.new_zeros(0) if self._linear is None else self._linear.residual)

    @shared
    def _jvp(self, v: Tensor) -> Tensor:
        return self._gathered(v.new_zeros(0) if self._linear is None else self._linear.jvp(v))

    @shared
    def _vjp(self, w: Tensor) -> Tensor:
        if self._linear is None:
            zero, factored = w.new_zeros(len(self.start())), self._structured and self._single
            return self._total(Pairwise(), zero) if factored else self.crew.team.sum(zero)
        return self._linear.vjp(w[self._positions[self.crew.team.rank]])

    def _twice_backward(self, theta: Tensor) -> Linearisation:
        linear = super()._twice_backward(theta)
        if self.crew.over:
            return linear
        return dataclasses.replace(linear, vjp=lambda w: self.crew.team.sum(linear.vjp(w)))

    # --- what changes on all ranks -------------------------------------------------------------------

    @shared
    def set_factors(self, factors: Mapping[str, Tensor | float]) -> None:
        """Set the factors of squared residuals on every rank."""
        super().set_factors(factors)

    @shared
    def set_points(self, points: Tensor) -> None:
        """Replace the collocation points on every rank, and share them out anew."""
        super().set_points(points)

    @shared
    def magnitude(self, theta: Tensor, points: Tensor) -> Tensor:
        """Return the size of the equations' residual at any points, shape (M,)."""
        return super().magnitude(theta, points)

    def batch(self, size: int, index: int) -> Self:
        """Return the objective on a mini-batch; each rank makes the same and has a share of it."""
        part = super().batch(size, index)
        if part is not self:
            part.address = (*self.address, size, index)
        return part

    @shared
    def with_features(self, theta: Tensor, **options: Any) -> tuple[PinnObjective, Tensor]:
        """Return the objective over random features, on every rank."""
        return super().with_features(theta, **options)

    @shared
    def with_basis(self, theta: Tensor, **options: Any) -> tuple[PinnObjective, Tensor]:
        """Return the objective over a tensor basis, on every rank."""
        return super().with_basis(theta, **options)

    @shared
    def with_network(self, theta: Tensor, **options: Any) -> tuple[PinnObjective, Tensor]:
        """Return the objective over a second network, on every rank."""
        return super().with_network(theta, **options)

    def _made(self, net: nn.Module, points: Tensor) -> PinnObjective:
        if self.crew.over:
            return PinnObjective(self.problem, net, points, *self.settings)
        return ShardedObjective(self.problem, net, points, *self.settings, crew=self.crew)

    def _more_points(self, density: int) -> Tensor:
        points = super()._more_points(density)
        return points if self.crew.over else self.crew.team.share(points).to(points)


def sharded(
    team: Team,
    problem: Problem,
    net: nn.Module,
    points: Tensor,
    settings: tuple[Sequence[float], Sequence[float] | None, int | None],
) -> ShardedObjective:
    """Return the objective of a distributed run, with the leader's points and fixed tensors.

    Raises:
        ArgumentError: the ranks have different problems or networks.
    """
    shapes = [(tuple(p.shape), p.dtype, p.requires_grad) for p in net.parameters()]
    text = repr((describe(problem), describe(net), shapes, settings, str(points.dtype)))
    team.agree(hashlib.sha256(text.encode()).digest(), "problem or network")
    fixed = [t.detach() for t in (*net.buffers(), *net.parameters())]
    with torch.no_grad():
        for mine, theirs in zip(fixed, team.share(fixed), strict=True):
            mine.copy_(theirs)
    points = team.share(points).to(points)
    objective = ShardedObjective(problem, net, points, *settings, crew=Crew(team))
    where = hashlib.sha256()
    for block in objective.blocks:
        where.update(block.points.detach().cpu().numpy().tobytes())
    team.agree(where.digest(), "set of points of a condition")
    return objective


def follow(objective: ShardedObjective) -> Outcome:
    """Do this rank's share until the leader has finished, and return what it reached."""
    (reached,) = objective.crew.follow()
    return Outcome(**moved(reached, objective.device), objective=objective.latest)


@contextmanager
def led(objective: PinnObjective) -> Iterator[list[Outcome]]:
    """Lead the other ranks, if there are any; they return the outcome that is put into the list."""
    outcomes: list[Outcome] = []
    if not isinstance(objective, ShardedObjective):
        yield outcomes
        return
    with objective.crew.led() as handed:
        yield outcomes
        handed += [_message(outcome) for outcome in outcomes]


def _message(outcome: Outcome) -> dict[str, Any]:
    # Without the objective, which every rank has.
    return {
        field.name: getattr(outcome, field.name)
        for field in dataclasses.fields(Outcome)
        if field.name != "objective"
    }
