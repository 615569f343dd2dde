"""What a problem of the catalogue is, and its reference solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ntangent._base.check import check_finite
from ntangent._base.errors import ArgumentError, ShapeError, SolverError
from ntangent._base.extras import require_extra
from ntangent._base.registry import Registry
from ntangent.ode.fitting.rates import LogRate

Rhs = Callable[[Tensor, Tensor, Tensor], Tensor]
Exact = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class OdeProblem:
    """An initial value problem y' = f(t, y; p) with known truth.

    Components are the last axis of y, so that ``func`` serves one state (n,) and a batch (B, n).

    Args:
        name: name in the catalogue.
        title: what it is, in words.
        source: where it comes from.
        names: names of the parameters.
        values: their true values.
        y0: initial state.
        span: first and last time.
        rhs: f(t, y, p).
        jac: ∂f/∂y(t, y, p), shape (..., n, n), or None.
        exact: y(t, p) for times (T,), shape (T, n), or None where no closed form is known.
        scale: typical sizes of the components.
    """

    name: str
    title: str
    source: str
    names: tuple[str, ...]
    values: tuple[float, ...]
    y0: tuple[float, ...]
    span: tuple[float, float]
    rhs: Rhs
    jac: Rhs | None = None
    exact: Exact | None = None
    scale: tuple[float, ...] | None = None

    def __repr__(self) -> str:
        pairs = zip(self.names, self.values, strict=True)
        return f"<{self.name}: {', '.join(f'{name}={value:g}' for name, value in pairs)}, t in {self.span}>"

    def parameters(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the true parameters, (P,)."""
        return torch.tensor(self.values, dtype=dtype)

    def initial(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the initial state, (n,)."""
        return torch.tensor(self.y0, dtype=dtype)

    def scales(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return typical sizes of the components, (n,)."""
        return torch.tensor(self.scale or (1.0,) * len(self.y0), dtype=dtype)

    def times(self, count: int, *, first: float | None = None) -> Tensor:
        """Return output times: the initial one, then ``count`` even ones, or geometric from ``first``."""
        start, end = self.span
        if first is None:
            return torch.linspace(start, end, count + 1, dtype=torch.float64)
        if not 0 < first < end - start:
            raise ArgumentError(
                f"first={first} is outside {self.span}", "", f"first={1e-3 * (end - start):g}"
            )
        later = torch.tensor(np.geomspace(first, end - start, count), dtype=torch.float64)
        return torch.cat([torch.zeros(1, dtype=torch.float64), later]) + start

    def func(self, parameters: Tensor | None = None) -> Callable[[Tensor, Tensor], Tensor]:
        """Return f as a function of (t, y) for given parameters (P,); the true ones by default."""
        p = self._checked(parameters)

        def func(t: Tensor, y: Tensor) -> Tensor:
            return self.rhs(align(t, y), y, p.to(y.dtype))

        return func

    def jacobian(self, parameters: Tensor | None = None) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Return ∂f/∂y as a function of (t, y), or None where no closed form is written down."""
        if self.jac is None:
            return None
        jac, p = self.jac, self._checked(parameters).detach()

        def jacobian(t: Tensor, y: Tensor) -> Tensor:
            return jac(align(t, y), y, p.to(y.dtype))

        return jacobian

    def model(self, parameters: Tensor | Sequence[float] | None = None, *, log: bool = True) -> ProblemModel:
        """Return f as a module with trainable parameters, in logarithms unless ``log`` is False."""
        given = None if parameters is None else torch.as_tensor(parameters, dtype=torch.float64)
        return ProblemModel(self, self._checked(given).detach(), log)

    def reference(self, t: Tensor, parameters: Tensor | None = None) -> Tensor:
        """Return the solution at the times t, (T, n), in double precision.

        The closed form where there is one; else Radau IIA of order 5 of scipy at rtol = 1e-12.

        Raises:
            MissingExtraError: scipy is needed and not installed.
            SolverError: scipy's solver failed.
        """
        p = self._checked(parameters).detach().double()
        times = t.detach().double()
        if self.exact is not None:
            return self.exact(times, p)
        require_extra("qmc", "a reference solution")
        import scipy.integrate

        func, jac = self.func(p), self.jacobian(p)
        with torch.no_grad():
            found = scipy.integrate.solve_ivp(
                lambda s, y: func(torch.tensor(s, dtype=torch.float64), torch.from_numpy(y)).numpy(),
                (float(times[0]), float(times[-1])), np.array(self.y0), method="Radau",
                t_eval=times.numpy(), rtol=1e-12, atol=1e-14 * self.scales().numpy(),
                jac=lambda s, y: self._matrix(func, jac, s, y),
            )  # fmt: skip
        if not found.success:
            raise SolverError(f"scipy's Radau failed on {self.name}", str(found.message), "a shorter span")
        return torch.from_numpy(found.y.T.copy())

    def _matrix(self, func: Any, jac: Any, s: float, y: Any) -> Any:
        t, state = torch.tensor(s, dtype=torch.float64), torch.from_numpy(np.asarray(y))
        if jac is not None:
            return jac(t, state).numpy()
        return torch.func.jacrev(lambda x: func(t, x))(state).numpy()

    def _checked(self, parameters: Tensor | None) -> Tensor:
        if parameters is None:
            return self.parameters()
        if parameters.shape != (len(self.values),):
            raise ShapeError(
                f"the parameters have shape {tuple(parameters.shape)}",
                f"{self.name} has {len(self.values)}: {', '.join(self.names)}",
                "problem.parameters()",
            )
        return check_finite(parameters, "parameters")


class ProblemModel(nn.Module):
    """The right-hand side of a problem with trainable parameters.

    Args:
        problem: the problem.
        start: initial values of the parameters, (P,).
        log: whether logarithms are trained (the values must be positive then).
    """

    def __init__(self, problem: OdeProblem, start: Tensor, log: bool) -> None:
        super().__init__()
        self.problem = problem
        self.rates = LogRate(start) if log else None
        self.raw = None if log else nn.Parameter(start.clone())

    def values(self) -> Tensor:
        """Return the parameters, (P,)."""
        if self.rates is not None:
            return self.rates()  # type: ignore[no-any-return]
        assert self.raw is not None
        return self.raw

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Return f(t, y)."""
        return self.problem.rhs(align(t, y), y, self.values().to(y.dtype))


def align(t: Tensor, y: Tensor) -> Tensor:
    """Return t in the shape of one component of y: a scalar, or (B,) for a batch with t of (B, 1)."""
    return t[..., 0] if t.ndim == y.ndim and t.ndim > 0 else t


def rows(entries: Sequence[Sequence[Any]], like: Tensor) -> Tensor:
    """Return a matrix (..., n, n) from entries that are numbers or tensors of the shape of ``like``."""
    return torch.stack(
        [torch.stack([x * torch.ones_like(like) for x in row], dim=-1) for row in entries], dim=-2
    )


Builder = Callable[..., OdeProblem]
PROBLEMS: Registry[Builder] = Registry("ODE problem")


def register(builder: Builder) -> Builder:
    """Put a function that builds a problem into the catalogue under its name."""
    return PROBLEMS.add(builder.__name__, builder)


def get(name: str, **options: Any) -> OdeProblem:
    """Return a problem of the catalogue, e.g. ``get("van_der_pol", mu=1000.0)``.

    Raises:
        UnknownNameError: with the nearest names.
    """
    return PROBLEMS[name](**options)


def names() -> list[str]:
    """Return the names of the catalogue."""
    return list(PROBLEMS)
