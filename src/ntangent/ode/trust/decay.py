"""What a step does to the gradient of each mode, beside what the equation itself does.

A mode λ of the Jacobian is multiplied by R(z), z = hλ, in a step of a scheme, and by e^z by the
equation. The sensitivity to ln λ is z e^z for the equation and z R'(z) for the scheme.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError
from ntangent.ode import methods
from ntangent.ode.field import Field, Func, Jacobian, Packing
from ntangent.ode.methods.base import Method
from ntangent.ode.solution import Solution


@dataclass(frozen=True, eq=False)
class GradientDecay:
    """Sensitivities mode by mode at K points of a solution with n modes.

    Args:
        method: the scheme.
        t: times, (K,).
        h: step sizes, (K,).
        eigenvalues: λ of the Jacobian, complex, (K, n), fastest first.
        z: h·λ.
        numerical: R'(z), the scheme's.
        intrinsic: e^z, the equation's.
        steps: N; sensitivities of N equal steps are N R^(N-1) R' and N e^(Nz).
        controls: d ln|λ| / d ln p, (K, n, P), for the parameters that were given, or None.
        names: names of those parameters.
    """

    method: Method
    t: Tensor
    h: Tensor
    eigenvalues: Tensor
    z: Tensor
    numerical: Tensor
    intrinsic: Tensor
    steps: int
    controls: Tensor | None = None
    names: tuple[str, ...] = ()

    @property
    def wrong_sign(self) -> Tensor:
        """Where the scheme's gradient points against the equation's: decaying modes, (K, n) bool.

        Of a complex mode, where Re(R' · e^(-i Im z)) < 0.
        """
        direction = torch.exp(-1j * self.z.imag * self.steps)
        return (self.z.real < 0) & ((self.numerical * direction).real < 0)

    @property
    def numerical_log(self) -> Tensor:
        """|z R'(z)|: the scheme's sensitivity to ln λ, (K, n)."""
        return (self.z * self.numerical).abs()

    @property
    def intrinsic_log(self) -> Tensor:
        """|z e^z|: the equation's, (K, n)."""
        return (self.z * self.intrinsic).abs()

    @property
    def excess(self) -> Tensor:
        """|z (R'(z) - e^z)|: what the scheme adds to the sensitivity to ln λ, (K, n)."""
        return (self.z * (self.numerical - self.intrinsic)).abs()

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table: for each mode the point where the scheme adds most."""
        out = []
        finite = torch.nan_to_num(self.excess, nan=torch.inf, posinf=torch.inf)
        for mode in range(self.z.shape[1]):
            k = int(finite[:, mode].argmax())
            note = "wrong sign" if bool(self.wrong_sign[k, mode]) else ""
            if float(self.method.stability(complex(self.z[k, mode])).__abs__()) > 1 + 1e-12 and bool(
                self.z[k, mode].real < 0
            ):
                note = "a decaying mode grows"
            row = [
                str(mode + 1), f"{float(self.t[k]):.4g}", f"{float(self.h[k]):.3g}",
                _number(self.eigenvalues[k, mode]), _number(self.z[k, mode]),
                f"{float(self.numerical[k, mode].abs()):.3e}", f"{float(self.intrinsic[k, mode].abs()):.3e}",
                f"{float(self.numerical_log[k, mode]):.3e}", f"{float(self.intrinsic_log[k, mode]):.3e}",
                note,
            ]  # fmt: skip
            if self.controls is not None:
                j = int(self.controls[k, mode].abs().argmax())
                row.append(f"{self.names[j]} ({float(self.controls[k, mode, j]):+.2f})")
            out.append(tuple(row))
        return out

    @property
    def headings(self) -> tuple[str, ...]:
        """What the columns of the table are."""
        base = ("mode", "t", "h", "λ", "z = hλ", "|R'(z)|", "|e^z|", "|zR'|", "|ze^z|", "")
        return (*base, "set by") if self.controls is not None else base

    def __str__(self) -> str:
        table = [self.headings, *self.rows()]
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        lines = [
            "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        title = f"{self.method.name}: gradients of {self.z.shape[1]} modes at {len(self.t)} steps"
        return "\n".join([title, *lines])

    __repr__ = __str__


def _number(x: Tensor) -> str:
    value = complex(x)
    if value.imag == 0:
        return f"{value.real:.4g}"
    return f"{value.real:.3g}{value.imag:+.3g}i"


def gradient_decay(
    what: Solution | Func,
    y: Any = None,
    h: float | None = None,
    method: str | Method = "radau5",
    params: Iterable[Tensor] = (),
    *,
    t: float = 0.0,
    jacobian: Jacobian | None = None,
    steps: int = 1,
) -> GradientDecay:
    """Compare the gradient of each mode under a scheme with that of the equation itself.

    Two calls: ``gradient_decay(func, y, h, method)`` looks at one state; ``gradient_decay(solution)``
    at every accepted step of what :func:`ode.solve` returned.

    The numbers are those of the linear test equation, mode by mode: an order of magnitude and a sign
    for a nonlinear problem, exact for a linear one with constant coefficients.

    Args:
        what: a right-hand side func(t, y), or a solution (of one sample).
        y: the state.
        h: the step size.
        method: the scheme (for a solution, its own).
        params: tensors with requires_grad; the table then says which of them sets each mode.
        t: the time.
        jacobian: df/dy as a function of (t, y).
        steps: number N of equal steps.

    Raises:
        ArgumentError: if y or h is missing, or the solution is that of a batch.

    Cost: one Jacobian and one eigendecomposition a point; with params one transposed product through
    the Jacobian for each mode.
    """
    check_positive(steps, "steps", integer=True)
    if isinstance(what, Solution):
        if what.packing.rows != 1:
            raise ArgumentError(
                "the solution is that of a batch",
                "modes are looked at one by one",
                "ode.solve(func, y0[0], t)",
            )
        interpolant = what.dense
        field, scheme = interpolant.field, interpolant.stepper.method
        times, sizes = interpolant.t[:, 0], interpolant.h[:, 0]
        states = torch.stack([step.state[0] for step in interpolant.steps])
    else:
        if y is None or h is None:
            raise ArgumentError(
                "y or h is missing", "a mode is judged by h·λ at a state", "gradient_decay(func, y, 0.1)"
            )
        packing = Packing(y, batched=False)
        field, scheme = Field(what, packing, (), jacobian), methods.get(method)
        times = torch.tensor([float(t)], dtype=torch.float64)
        sizes = torch.tensor([float(h)], dtype=torch.float64)
        states = packing.pack(y).detach()[None]
    chosen = list(params)
    values, controls = _modes(field, times, states, chosen)
    z = sizes.abs()[:, None] * values
    return assemble(scheme, times, sizes, values, z, steps, controls, _names(chosen))


def assemble(
    scheme: Method,
    times: Tensor,
    sizes: Tensor,
    values: Tensor,
    z: Tensor,
    steps: int = 1,
    controls: Tensor | None = None,
    names: tuple[str, ...] = (),
) -> GradientDecay:
    """Evaluate R' and e^z for given modes."""
    numerical, intrinsic = scheme.stability_derivative(z), torch.exp(z)
    if steps > 1:
        numerical = steps * scheme.stability(z) ** (steps - 1) * numerical
        intrinsic = steps * torch.exp(steps * z)
    return GradientDecay(scheme, times, sizes, values, z, numerical, intrinsic, steps, controls, names)


def _names(params: Sequence[Tensor]) -> tuple[str, ...]:
    return tuple(
        f"p{i + 1}[{j}]" if p.numel() > 1 else f"p{i + 1}"
        for i, p in enumerate(params)
        for j in range(p.numel())
    )


def sort_modes(jacobians: Tensor) -> Tensor:
    """Return eigenvalues of (K, n, n), fastest first, (K, n) complex128."""
    values = torch.linalg.eigvals(jacobians.double())
    order = values.abs().argsort(dim=-1, descending=True, stable=True)
    sorted_values: Tensor = values.gather(-1, order)
    return sorted_values


def _modes(field: Field, times: Tensor, states: Tensor, params: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return eigenvalues, and d ln|λ| / d ln p where parameters are given."""
    t = times[:, None]
    if not params:
        return sort_modes(field.jacobian(t, states)[:, 0]), None
    with torch.enable_grad():
        leaf = states.detach().requires_grad_()
        jac = field.partials(t, leaf, keep=True)[0][:, 0]
    values, right = torch.linalg.eig(jac.detach().double())
    order = values.abs().argsort(dim=-1, descending=True, stable=True)
    values = values.gather(-1, order)
    right = right.gather(-1, order[:, None, :].expand_as(right))
    left = torch.linalg.pinv(right)
    out = []
    for k in range(len(times)):
        for i in range(values.shape[1]):
            # dλ = l dJ r for l r = 1; d ln|λ| = Re(dλ / λ).
            weight = (left[k, i][:, None] * right[k, :, i][None, :] / values[k, i]).real
            if not bool(torch.isfinite(weight).all()) or not jac.requires_grad:
                out.append(torch.cat([torch.zeros(p.numel(), dtype=torch.float64) for p in params]))
                continue
            grads = torch.autograd.grad(
                (jac[k].double() * weight).sum(), params, retain_graph=True, allow_unused=True
            )
            out.append(torch.cat([
                (torch.zeros_like(p) if g is None else g * p.detach()).reshape(-1).double()
                for g, p in zip(grads, params, strict=True)
            ]))  # fmt: skip
    return values, torch.stack(out).reshape(len(times), values.shape[1], -1)
