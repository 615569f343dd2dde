"""Adams steps on a given mesh, equal or not.

The state is y_n and the slopes before f_n: one new call of f in an explicit step. The coefficients
are those of the accepted mesh, so the order does not depend on equal steps.
"""

from __future__ import annotations

import math
import warnings
from typing import ClassVar

import torch
from torch import Tensor

from ntangent._base.errors import InstabilityWarning
from ntangent.ode.controller import Control, norm
from ntangent.ode.field import Field
from ntangent.ode.methods.adams import Adams, equal_weights, unequal_weights
from ntangent.ode.methods.base import Method
from ntangent.ode.methods.catalogue import get
from ntangent.ode.steppers.base import Attempt, Linearised, Stepper, Steps, serves
from ntangent.ode.steppers.multistep import EndEquation
from ntangent.ode.steppers.runge_kutta import FEW_UNKNOWNS, ExplicitStepper

# Fixed-point iterations for many unknowns, where a Jacobian costs more than any of them.
MANY_ITERATIONS = 40

# Of more slopes than this a method is stable for so short steps only that it is watched.
WATCHED = 5


class AdamsStepper(Stepper):
    """Steps of an Adams method; the state holds y_n, f_{n-1}, ..., f_{n-k+1}.

    All rows of a batch share their mesh, which is given.
    """

    recomputable: ClassVar[bool] = False

    def __init__(self, method: Method, field: Field, control: Control, *, tight: bool) -> None:
        super().__init__(method, field, control, tight=tight)
        assert isinstance(method, Adams)
        self.adams = method
        first = get("rk4" if method.start == "rising" else "dopri8")
        self.starter = ExplicitStepper(first, field, control, tight=tight)
        self.equation = EndEquation(field, control, tight=tight)
        self.mesh: list[float] = []
        self.equal = True
        self.warned = False

    @property
    def error_order(self) -> int | None:
        """There is no error estimate."""
        return None

    def initial(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the start; slopes before it are zero and have no weight."""
        self.equation.forget()
        self.mesh = [float(t[0])]
        return torch.cat([y[None], y.new_zeros((self.adams.slopes - 1, *y.shape))])

    def accept(self, accepted: Tensor, t: Tensor, h: Tensor, attempt: Attempt) -> None:
        """Take the new point into the mesh."""
        del attempt
        if bool(accepted.any()):
            row = int(accepted.int().argmax())
            self.mesh = [float(t[row] + h[row]), *self.mesh[: self.adams.slopes - 1]]
            self.equation.age()

    def weights(self, h: float, *, implicit: bool) -> list[float]:
        """Return β_0, β_1, ..., β_k of a step from the newest point; zeros where no slope is known."""
        k = min(len(self.mesh), self.adams.slopes)
        nodes = [(t - self.mesh[0]) / h for t in self.mesh[:k]]
        slack = 64 * torch.finfo(torch.float64).eps * (k + max(abs(t) for t in self.mesh) / abs(h))
        self.equal = all(abs(x + j) <= slack for j, x in enumerate(nodes))
        if self.equal:
            found = [float(b) for b in equal_weights(k, implicit=implicit)]
        else:
            found = unequal_weights(nodes, implicit=implicit)
        found = found if implicit else [0.0, *found]
        return found + [0.0] * (self.adams.slopes + 1 - len(found))

    def attempt(self, t: Tensor, h: Tensor, state: Tensor) -> Attempt:
        """Try a step."""
        y, past = state[0], state[1:]
        size = self.adams.slopes + 1
        effort = 0.0
        if len(self.mesh) < self.adams.from_slopes:
            begun = self.starter.attempt(t, h, state[:1])
            assert self.starter.first is not None
            slope, value, ok = self.starter.first, begun.state[0], begun.ok
            self.starter.first = None
            beta = y.new_zeros(size)
        else:
            slope = self.field.value(t, y)
            length = float(h[int((h != 0).int().argmax())])
            slopes, step = torch.cat([slope[None], past]), h.to(y.dtype)[:, None]

            def moved(weights: list[float]) -> Tensor:
                return y + step * torch.einsum("j,jbn->bn", slopes.new_tensor(weights[1:]), slopes)

            weights = self.weights(length, implicit=self.adams.moulton)
            beta, value = y.new_tensor(weights), moved(weights)
            if self.adams.moulton:
                guess = moved(self.weights(length, implicit=False))
                most = self.control.max_iters
                if most is None:
                    most = MANY_ITERATIONS if y.shape[-1] > FEW_UNKNOWNS else 0
                ok, value, effort = self.equation.solve(
                    t + h, h * weights[0], value, guess, y, functional=most
                )
                self.newton_iterations = self.equation.iterations
                self.factorisations = self.equation.factorisations
            else:
                ok = torch.isfinite(value).all(-1)
            self._watch(slopes, step, y)
        new = torch.cat([value[None], slope[None], past[:-1]])[: len(state)]
        return Attempt(new, None, ok, value[None], beta[:, None].expand(size, len(y)), effort)

    def _watch(self, slopes: Tensor, step: Tensor, y: Tensor) -> None:
        """Warn where differences of f grow with their order: a parasitic root has taken over."""
        k = min(len(self.mesh), self.adams.slopes)
        if self.warned or not self.equal or k <= WATCHED:
            return

        def size(order: int) -> Tensor:
            signs = slopes.new_tensor([(-1) ** j * math.comb(order, j) for j in range(order + 1)])
            difference = torch.einsum("j,jbn->bn", signs, slopes[: order + 1])
            return norm(step * difference / self.control.scale(y))

        highest = size(k - 1)
        if bool(((highest > 1) & (highest > 2 * size(3))).any()):
            self.warned = True
            warnings.warn(
                f"ode: the steps of {self.adams.name!r} are too long for {k} slopes: differences of f of "
                f"order {k - 1} exceed those of order 3, so that it amplifies its own errors; take "
                'method="adams_bashforth4", "adams_moulton4" or shorter steps',
                InstabilityWarning,
                stacklevel=2,
            )

    def linearise(self, steps: Steps) -> Linearised:
        """Return the derivative of accepted steps."""
        return AdamsLinearised(self, steps)

    def begun(self, steps: Steps, count: int) -> Linearised:
        """Return the derivative of the first steps, which are Runge-Kutta steps."""
        stages = []
        with torch.no_grad():
            for k in range(count):
                self.starter.first = None
                stages.append(self.starter.attempt(steps.t[k], steps.h[k], steps.state[k, :1]).stages)
            self.starter.first = None
        early = slice(0, count)
        return self.starter.linearise(
            Steps(steps.t[early], steps.h[early], steps.state[early, :1], torch.stack(stages), None)
        )


class AdamsLinearised:
    """Derivative of K steps, starting ones among them.

    f is differentiated at the start of each step, and at its end where the step is implicit: by
    Jacobians of all steps at once, or for many unknowns and explicit steps by one product a step.

    Args:
        stepper: who made the steps.
        steps: the accepted steps.
    """

    def __init__(self, stepper: AdamsStepper, steps: Steps) -> None:
        assert steps.extra is not None
        self.field, self.steps = stepper.field, steps
        state = steps.state
        self.h = steps.h.to(state.dtype)[..., None]
        self.beta = steps.extra[..., None]
        self.starts = int((steps.extra == 0).all(-1).all(-1).sum())
        self.first = stepper.begun(steps, self.starts) if self.starts else None
        self.jacobian: Tensor | None = None
        self.inverse: Tensor | None = None
        if stepper.adams.moulton or state.shape[-1] <= FEW_UNKNOWNS:
            self.jacobian = self.field.jacobian(steps.t, state[:, 0])
        if stepper.adams.moulton:
            jac = self.field.jacobian(steps.t + steps.h, steps.stages[:, 0])
            eye = torch.eye(jac.shape[-1], dtype=jac.dtype, device=jac.device)
            self.inverse = torch.linalg.inv(eye - (self.h * self.beta[:, 0])[..., None] * jac)
        self.slopes: tuple[Tensor, Tensor] | None = None
        self.total: list[Tensor] = [torch.zeros_like(p) for p in self.field.params]
        self.pulled: dict[int, tuple[Tensor, Tensor]] = {}

    def pull(self, k: int, cotangent: Tensor) -> Tensor:
        """Return the cotangent of the state at the start of step k."""
        h, beta = self.h[k], self.beta[k]
        behind = torch.cat([cotangent[1:], torch.zeros_like(cotangent[:1])])  # of f_n and those before it
        if k < self.starts:
            assert self.first is not None
            w, at_end = self.first.pull(k, cotangent[:1])[0], torch.zeros_like(cotangent[0])
        else:
            w = cotangent[0]
            if self.inverse is not None:
                w = (self.inverse[k].mT @ w[..., None])[..., 0]
            behind = behind + h * beta[1:] * w
            at_end = h * beta[0] * w
        start = torch.cat([(w + self._transposed(k, behind[0]))[None], behind[1:]])
        self.pulled[k] = behind[0], at_end
        return torch.where((h != 0), start, cotangent)

    def _transposed(self, k: int, cotangent: Tensor) -> Tensor:
        """Return J^T times a cotangent of f_n; without Jacobians also count it for the parameters."""
        if self.jacobian is not None:
            return (self.jacobian[k].mT @ cotangent[..., None])[..., 0]
        grads = self.field.vjp(
            self.steps.t[k : k + 1], self.steps.state[k : k + 1, 0], cotangent[None], state=True
        )
        for total, grad in zip(self.total, grads[1:], strict=True):
            total += grad
        return grads[0][0]

    def gradients(self) -> list[Tensor]:
        """Return the gradients for the parameters."""
        parts = [self.total]
        pulled = [self.pulled[k] for k in sorted(self.pulled)]
        seeds = [torch.stack(column) for column in zip(*pulled, strict=True)]
        if self.jacobian is not None:
            parts.append(self.field.vjp(self.steps.t, self.steps.state[:, 0], seeds[0]))
        if self.inverse is not None:
            parts.append(self.field.vjp(self.steps.t + self.steps.h, self.steps.stages[:, 0], seeds[1]))
        if self.first is not None:
            parts.append(self.first.gradients())
        return [torch.stack(column).sum(0) for column in zip(*parts, strict=True)]

    def push(self, k: int, tangent: Tensor) -> Tensor:
        """Return the tangent of the state at the end of step k."""
        if self.slopes is None:
            self.slopes = self._sources()
        if self.jacobian is None:
            self.jacobian = self.field.jacobian(self.steps.t, self.steps.state[:, 0])
        h, beta = self.h[k][..., None], self.beta[k][..., None]
        extra = tangent.shape[-1] - self.slopes[0].shape[-1]  # columns of y0 come after the parameters
        slope = self.jacobian[k] @ tangent[0] + torch.nn.functional.pad(self.slopes[0][k], (0, extra))
        if k < self.starts:
            assert self.first is not None
            new = self.first.push(k, tangent[:1])[0]
        else:
            known = torch.cat([slope[None], tangent[1:]])
            new = tangent[0] + h * (beta[1:] * known).sum(0)
            if self.inverse is not None:
                source = torch.nn.functional.pad(self.slopes[1][k], (0, extra))
                new = self.inverse[k] @ (new + h * beta[0] * source)
        moved = torch.cat([new[None], slope[None], tangent[1:-1]])[: len(tangent)]
        return torch.where(h != 0, moved, tangent)

    def _sources(self) -> tuple[Tensor, Tensor]:
        """Return df/dp at the starts and, for implicit steps, the ends of the steps."""
        steps = self.steps
        at_start = self.field.param_jacobian(steps.t, steps.state[:, 0])
        if self.inverse is None:
            return at_start, at_start[:0]
        return at_start, self.field.param_jacobian(steps.t + steps.h, steps.stages[:, 0])


@serves(lambda method: isinstance(method, Adams))
def _adams(method: Method, field: Field, control: Control, tight: bool) -> Stepper:
    return AdamsStepper(method, field, control, tight=tight)
