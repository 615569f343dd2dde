"""Implicit Runge-Kutta steps: full tableaux in transformed form, triangular ones stage by stage.

Source: Hairer & Wanner II, IV.8. The Newton matrix I - hA ⊗ J of a full tableau falls into one
matrix I - h λ_i J for each eigenvalue of A (one of each complex pair suffices): for Radau IIA of
three stages a real and a complex one of size n, instead of one of size 3n.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ntangent._base.errors import ArgumentError
from ntangent.ode.controller import Control, norm
from ntangent.ode.field import Field
from ntangent.ode.methods.base import Method, RungeKutta
from ntangent.ode.newton import Solved, most_iterations, simplified_newton, stage_tolerance
from ntangent.ode.steppers.base import Attempt, Leap, Stepper, serves
from ntangent.ode.steppers.runge_kutta import RungeKuttaStepper
from ntangent.ode.steppers.together import Together

# The Jacobian is kept while the iteration contracts faster than this (Hairer & Wanner's THET).
GOOD_CONTRACTION = 1e-3


class Matrices:
    """I - hλJ for several λ, factorised, and again only when h or J change.

    Args:
        field: the right-hand side.
        factors: the λ, real or complex, shape (q,).
    """

    def __init__(self, field: Field, factors: Tensor) -> None:
        self.field, self.factors = field, factors
        self.jacobian: Tensor | None = None
        self.fresh = False
        self.factorisations = 0
        self._h: Tensor | None = None
        self._lu: tuple[Tensor, Tensor] | None = None

    def forget(self) -> None:
        """Drop the Jacobian."""
        self.jacobian = None

    def age(self, rate: float) -> None:
        """Count the Jacobian as old after a step; drop it where the iteration contracted slowly."""
        if rate > GOOD_CONTRACTION:
            self.forget()
        self.fresh = False

    def prepare(self, t: Tensor, y: Tensor, h: Tensor, *, renew: bool = False) -> None:
        """Make the factors for a step of size h, with a Jacobian at (t, y) where none is at hand."""
        if self.jacobian is None or renew:
            self.jacobian = self.field.jacobian(t[None], y[None])[0]
            self.fresh, self._h = True, None
        if self._h is None or not torch.equal(h, self._h):
            self._h = h.clone()
            self.factorisations += 1
            n = y.shape[-1]
            scaled = self.jacobian.to(self.factors.dtype) * h.to(y.dtype)[:, None, None]
            matrix = -self.factors[:, None, None, None] * scaled
            matrix.diagonal(dim1=-2, dim2=-1).add_(1)
            matrix = torch.where(
                torch.isfinite(matrix), matrix, torch.eye(n, dtype=matrix.dtype, device=matrix.device)
            )
            lu, pivots, _ = torch.linalg.lu_factor_ex(matrix)
            self._lu = lu, pivots

    def solve(self, right: Tensor, index: slice) -> Tensor:
        """Return (I - hλJ)^-1 right for the chosen λ; right is (q, B, n)."""
        assert self._lu is not None
        lu, pivots = self._lu
        solution: Tensor = torch.linalg.lu_solve(lu[index], pivots[index], right[..., None])
        return solution[..., 0]


class ImplicitStepper(RungeKuttaStepper):
    """What implicit Runge-Kutta steppers share: Newton with a kept Jacobian, the filtered error."""

    def __init__(self, method: Method, field: Field, control: Control, *, tight: bool) -> None:
        super().__init__(method, field, control, tight=tight)
        self.accuracy = stage_tolerance(control, field.packing.dtype, tight=tight)
        self.most = most_iterations(control)
        self.together = Together(field, self.tableau, control, self.accuracy)
        self.matrices: Matrices
        self.rate = 0.0

    def initial(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the state to start from; forgets the Jacobian."""
        self.matrices.forget()
        return super().initial(t, y)

    def accept(self, accepted: Tensor, t: Tensor, h: Tensor, attempt: Attempt) -> None:
        """Let the Jacobian age, and drop it where the iteration was slow."""
        del t, h, attempt
        if bool(accepted.any()):
            self.matrices.age(self.rate)

    def longest_leap(self, state: Tensor) -> int:
        """Return how many given steps may be solved at once."""
        return self.together.longest(state[0])

    def leap(self, t: Tensor, h: Tensor, state: Tensor) -> Leap | None:
        """Solve K given steps at once, or return None."""
        found = self.together.solve(t, h, state[0])
        if found is not None:
            self.newton_iterations += found.iterations
            self.matrices.factorisations += found.factorisations
            self.factorisations = self.matrices.factorisations
        return found

    @property
    def guesses(self) -> bool:
        """Whether the iteration starts from an extrapolation, which a failure drops."""
        return False

    def _solve(self, t: Tensor, h: Tensor, y: Tensor) -> tuple[Solved, Tensor, Tensor]:
        """Return the iteration's result, the increments Z and h·k at the stages, all (s, B, n)."""
        raise NotImplementedError

    def _filter(self, error: Tensor) -> Tensor:
        """Return (I - hγJ)^-1 error, which is bounded where hJ is large."""
        raise NotImplementedError

    def attempt(self, t: Tensor, h: Tensor, state: Tensor) -> Attempt:
        """Try a step; a Jacobian that is not fresh is renewed when the iteration fails with it."""
        y = state[0]
        self.matrices.prepare(t, y, h)
        guessed = self.guesses
        solved, z, hk = self._solve(t, h, y)
        if not bool(solved.ok.all()) and (guessed or not self.matrices.fresh):
            # Anew from zero: an extrapolation over a fast decay leads far away.
            self.matrices.prepare(t, y, h, renew=True)
            solved, z, hk = self._solve(t, h, y)
        if self.control.fixed and not bool(solved.ok.all()):
            # The step cannot be made shorter: try the Jacobian of where the iteration got, twice. The
            # first may be that of a diverged iteration, so large that every correction looks small.
            for _ in range(2):
                end = torch.where(torch.isfinite(z[-1]), y + z[-1], y)
                self.matrices.prepare(t + h, end, h, renew=True)
                solved, z, hk = self._solve(t, h, y)
            self.matrices.forget()
        self.rate = solved.rate
        self.newton_iterations += solved.iterations
        self.factorisations = self.matrices.factorisations
        if self.method.stiffly_accurate:
            new = y + z[-1]
        elif self.tableau.d is not None and not self.tableau.triangular:
            new = y + torch.einsum("i,ibn->bn", self.tableau.d, z)
        else:
            new = y + torch.einsum("i,ibn->bn", self.tableau.b, hk)
        error = None if self.control.fixed else self._error(t, h, y, hk)
        ok = solved.ok & torch.isfinite(new).all(-1)
        return Attempt(new[None], error, ok, y + z, effort=solved.iterations / self.most)

    def _error(self, t: Tensor, h: Tensor, y: Tensor, hk: Tensor) -> Tensor | None:
        if self.weights is None:
            return None
        part = torch.einsum("i,ibn->bn", self.weights.e, hk)
        if self.weights.e0 == 0:
            return self._filter(part)
        scaled = self.weights.e0 * h.to(y.dtype)[:, None]
        error = self._filter(part + scaled * self.field.value(t, y))
        if bool((norm(error / self.control.scale(y)) > 1).any()):
            # Off the slow manifold f(t, y) is dominated by what the step damps: look once more.
            again = self._filter(part + scaled * self.field.value(t, y + error))
            error = torch.where(torch.isfinite(again), again, error)
        return error


class FullStepper(ImplicitStepper):
    """A full tableau (Radau, Gauss, Lobatto), in the coordinates of the eigenvectors of A."""

    def __init__(self, method: Method, field: Field, control: Control, *, tight: bool) -> None:
        super().__init__(method, field, control, tight=tight)
        dtype, device = field.packing.dtype, field.packing.device
        a = np.array([[float(x) for x in row] for row in self.method.A])
        values, vectors = np.linalg.eig(a)
        if np.linalg.cond(vectors) > 1e8:
            raise ArgumentError(
                f"the matrix A of {method.name!r} is defective",
                "its stages are solved in the coordinates of the eigenvectors of A",
                'method="radau5"',
            )
        chosen = np.flatnonzero(values.imag > -1e-12)
        twice = np.where(values[chosen].imag > 1e-12, 2.0, 1.0)
        wide = torch.complex128 if (twice > 1).any() else torch.float64
        if dtype == torch.float32:
            wide = torch.complex64 if wide.is_complex else torch.float32

        def tensor(x: np.ndarray) -> Tensor:
            return (
                torch.from_numpy(np.ascontiguousarray(x if wide.is_complex else x.real)).to(wide).to(device)
            )

        self.to = tensor(np.linalg.inv(vectors)[chosen])
        self.back = tensor(vectors[:, chosen] * twice)
        self.values = tensor(values[chosen])
        gamma = 0.0 if self.weights is None else abs(self.weights.e0)
        if gamma == 0:
            gamma = float(np.abs(values).max())
        self.matrices = Matrices(field, torch.cat([self.values, self.values.new_full((1,), gamma)]))
        nodes = np.array([float(x) for x in self.method.c])
        self.smooth: Tensor | None = None
        if np.all(nodes != 0) and len(set(nodes.tolist())) == len(nodes):
            powers = nodes[:, None] ** np.arange(1, len(nodes) + 1)
            self.smooth = torch.from_numpy(np.linalg.inv(powers)).to(dtype=dtype, device=device)
        self.previous: tuple[Tensor, Tensor] | None = None
        self.last: Tensor | None = None

    def initial(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the state to start from; forgets the last step."""
        self.previous = None
        return super().initial(t, y)

    def accept(self, accepted: Tensor, t: Tensor, h: Tensor, attempt: Attempt) -> None:
        """Keep the stages as a polynomial that the next step starts from."""
        super().accept(accepted, t, h, attempt)
        if self.smooth is None or self.last is None:
            return
        coefficients = torch.einsum("ij,jbn->ibn", self.smooth, self.last)
        coefficients = torch.where(accepted[:, None], coefficients, torch.zeros_like(coefficients))
        if self.previous is not None:
            keep, before = self.previous
            coefficients = torch.where(accepted[:, None], coefficients, keep)
            h = torch.where(accepted, h, before)
        self.previous = coefficients, h.clone()

    @property
    def guesses(self) -> bool:
        """Whether the last step's polynomial is continued."""
        return self.previous is not None

    def _guess(self, h: Tensor, y: Tensor) -> Tensor:
        """Return the polynomial of the last step continued over this one, where it is not far."""
        if self.previous is None:
            return y.new_zeros((len(self.tableau.b), *y.shape))
        coefficients, before = self.previous
        ratio = torch.where(before != 0, h / before, torch.zeros_like(h)).to(y.dtype)
        ratio = torch.where(ratio > 10, torch.zeros_like(ratio), ratio)
        ends = 1 + ratio * self.tableau.c[:, None]
        powers = torch.stack([ends ** (j + 1) - 1 for j in range(len(coefficients))], dim=1)
        return torch.einsum("sjb,jbn->sbn", powers, coefficients)

    def _solve(self, t: Tensor, h: Tensor, y: Tensor) -> tuple[Solved, Tensor, Tensor]:
        a, step = self.tableau.a, h.to(y.dtype)[:, None]
        times, q = self.stage_times(t, h), slice(0, len(self.values))

        def correction(z: Tensor) -> Tensor:
            slopes = self.field.values(times, y + z)
            residual = step * torch.einsum("ij,jbn->ibn", a, slopes) - z
            inner = torch.einsum("qi,ibn->qbn", self.to, residual.to(self.to.dtype))
            moved = torch.einsum("iq,qbn->ibn", self.back, self.matrices.solve(inner, q))
            return moved.real if moved.is_complex() else moved

        solved = simplified_newton(
            self._guess(h, y), correction, self.control.scale(y), self.accuracy, self.most
        )
        z = self.last = solved.value
        if not bool(solved.ok.all()):
            self.previous = None  # a guess that led nowhere is not used again
        return solved, z, self._slopes(times, step, y, z)

    def _slopes(self, times: Tensor, step: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Return h·k at the stages: from Z where A can be inverted, which stiff rounding asks for."""
        if abs(float(torch.linalg.det(self.tableau.a))) > 1e-12:
            return torch.einsum("ij,jbn->ibn", torch.linalg.inv(self.tableau.a), z)
        if self.tableau.d is not None and self.control.fixed:
            return z
        return step * self.field.values(times, y + z)

    def _filter(self, error: Tensor) -> Tensor:
        wide = error[None].to(self.matrices.factors.dtype)
        out = self.matrices.solve(wide, slice(len(self.values), None))[0]
        return out.real if out.is_complex() else out


class DiagonalStepper(ImplicitStepper):
    """A lower triangular tableau (SDIRK, ESDIRK, backward Euler, trapezoid): one stage after the other."""

    def __init__(self, method: Method, field: Field, control: Control, *, tight: bool) -> None:
        super().__init__(method, field, control, tight=tight)
        diagonal = [row[i] for i, row in enumerate(self.rows)]
        kinds = sorted({x for x in diagonal if x != 0})
        self.which = [kinds.index(x) if x != 0 else -1 for x in diagonal]
        dtype, device = field.packing.dtype, field.packing.device
        self.matrices = Matrices(field, torch.tensor(kinds, dtype=dtype, device=device))

    def _solve(self, t: Tensor, h: Tensor, y: Tensor) -> tuple[Solved, Tensor, Tensor]:
        step, times, scale = h.to(y.dtype)[:, None], self.stage_times(t, h), self.control.scale(y)
        z: list[Tensor] = []
        hk: list[Tensor] = []
        ok = torch.ones_like(h, dtype=torch.bool)
        iterations, rate = 0, 0.0
        for i, row in enumerate(self.rows):
            known = torch.zeros_like(y)
            for weight, slope in zip(row, hk, strict=False):
                if weight != 0:
                    known = torch.add(known, slope, alpha=weight)
            if self.which[i] < 0:
                z.append(known)
                hk.append(step * self.field.value(times[i], y + known))
                continue
            solved = self._stage(i, times[i], step, y, known, self._start(i, z), scale)
            z.append(solved.value[0])
            hk.append((solved.value[0] - known) / row[i])
            ok, rate = ok & solved.ok, max(rate, solved.rate)
            iterations = max(iterations, solved.iterations)
            if not bool(ok.any()):
                break
        missing = len(self.rows) - len(z)
        z, hk = z + [z[-1]] * missing, hk + [hk[-1]] * missing
        stages = torch.stack(z)
        return Solved(stages, ok, iterations, rate), stages, torch.stack(hk)

    def _start(self, i: int, z: list[Tensor]) -> Tensor | None:
        """Return a guess for Z_i on the line through the last stage."""
        c = self.tableau.c.tolist()
        return z[-1] * (c[i] / c[i - 1]) if i > 0 and c[i - 1] != 0 else None

    def _stage(
        self, i: int, t: Tensor, step: Tensor, y: Tensor, known: Tensor, start: Tensor | None, scale: Tensor
    ) -> Solved:
        gamma, index = step * self.rows[i][i], slice(self.which[i], self.which[i] + 1)

        def correction(z: Tensor) -> Tensor:
            residual = known + gamma * self.field.value(t, y + z[0]) - z[0]
            return self.matrices.solve(residual[None], index)

        guess = torch.zeros_like(y) if start is None else start
        return simplified_newton(guess[None], correction, scale, self.accuracy, self.most)

    def _filter(self, error: Tensor) -> Tensor:
        return self.matrices.solve(error[None], slice(0, 1))[0]


@serves(lambda method: isinstance(method, RungeKutta) and method.structure == "full")
def _full(method: Method, field: Field, control: Control, tight: bool) -> Stepper:
    return FullStepper(method, field, control, tight=tight)


@serves(lambda method: isinstance(method, RungeKutta) and method.structure == "dirk")
def _diagonal(method: Method, field: Field, control: Control, tight: bool) -> Stepper:
    return DiagonalStepper(method, field, control, tight=tight)
