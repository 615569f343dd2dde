"""Fast variables eliminated: a reduced equation without stiffness, with its derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ntangent._base.check import check_order, check_positive
from ntangent._base.errors import ArgumentError, ConvergenceError

ITERATIONS = 20


class QuasiSteady(nn.Module):
    """The slow equation of a system whose fast components follow it: func_fast(t, fast, slow) = 0.

    Order 0 takes that root φ(slow); order 1 adds the lag, fast = φ + J⁻¹ (∂φ/∂t + ∂φ/∂slow · func_slow), with
    J = ∂func_fast/∂fast. Slow data know the rates of the fast part through the lag alone: the error left
    is of the second order in slow over fast rates. Roots are found by Newton and differentiated by
    the implicit function theorem.

    Args:
        func: func(t, y) on states (n,).
        fast: indices of the fast components.
        size: n.
        order: 0 or 1.
        guess: where Newton starts, for the fast components; zeros by default.
    """

    def __init__(
        self,
        func: Callable[[Tensor, Tensor], Tensor],
        fast: Sequence[int],
        size: int,
        *,
        order: int = 1,
        guess: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_positive(size, "size", integer=True)
        self.func, self.order = func, check_order(order)
        self.fast = list(fast)
        self.slow = [i for i in range(size) if i not in self.fast]
        if not self.fast or not self.slow or not set(self.fast) <= set(range(size)) or order > 1:
            raise ArgumentError(
                f"fast={self.fast} of {size} components, order={order}",
                "some are fast and some are slow; the order is 0 or 1",
                "QuasiSteady(func, fast=[0], size=2)",
            )
        self.guess = torch.zeros(len(self.fast), dtype=torch.float64) if guess is None else guess

    def _join(self, fast: Tensor, slow: Tensor) -> Tensor:
        order = torch.tensor([*self.fast, *self.slow], device=slow.device).argsort()
        return torch.cat([fast, slow])[order]

    def _balance(self, t: Tensor, fast: Tensor, slow: Tensor) -> Tensor:
        return self.func(t, self._join(fast, slow))[self.fast]

    def _root(self, t: Tensor, slow: Tensor) -> Tensor:
        """Return φ(slow); the last Newton step is on the tape, which makes its derivatives right."""
        jac = torch.func.jacrev(self._balance, argnums=1)
        x, frozen = self.guess.to(slow), slow.detach()
        with torch.no_grad():
            for _ in range(ITERATIONS):
                x = x - torch.linalg.solve(jac(t, x, frozen), self._balance(t, x, frozen))
        matrix = jac(t, x, slow)
        root: Tensor = x - torch.linalg.solve(matrix, self._balance(t, x, slow))
        return root

    def complete(self, t: Tensor, slow: Tensor) -> Tensor:
        """Return the whole state (n,) for the slow components."""
        fast = self._root(t, slow)
        if self.order == 1:
            by_time, by_fast, by_slow = torch.func.jacrev(self._balance, argnums=(0, 1, 2))(t, fast, slow)
            drift = self.func(t, self._join(fast, slow))[self.slow]
            lag = -torch.linalg.solve(by_fast, by_slow @ drift + by_time.reshape(-1))
            fast = fast + torch.linalg.solve(by_fast, lag)
        return self._join(fast, slow)

    def check(self, t: Tensor, slow: Tensor, tolerance: float = 1e-8) -> None:
        """Raise unless Newton finds the root at a state.

        Raises:
            ConvergenceError: if the balance is not zero there.
        """
        with torch.no_grad():
            fast = self._root(t, slow)
            left = self._balance(t, fast, slow).abs().max()
            speed = torch.func.jacrev(self._balance, argnums=1)(t, fast, slow).abs().max()
        if not float(left) <= tolerance * float(speed) * max(1.0, float(fast.abs().max())):
            raise ConvergenceError(
                f"the fast balance is {float(left):.2g} after {ITERATIONS} Newton steps",
                "the start is too far from the root, or there is none",
                "QuasiSteady(..., guess=fast_values)",
            )

    def forward(self, t: Tensor, slow: Tensor) -> Tensor:
        """Return d(slow)/dt, for one state."""
        return self.func(t, self.complete(t, slow))[self.slow]
