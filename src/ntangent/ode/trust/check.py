"""Alarms: is the gradient of a loss through a solver worth anything?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ntangent._base.errors import ArgumentError, SolverError
from ntangent.ode.field import Field, Func, Jacobian
from ntangent.ode.integration import Graded, Integration, Question, Traced, halved, trace
from ntangent.ode.trust.decay import GradientDecay, assemble
from ntangent.ode.trust.probe import Growth, growth, modes, newton_rest, thinned

Loss = Callable[[Tensor], Tensor]

# A gradient may differ by this from the one on the halved mesh.
DISAGREEMENT = 1e-2
# Of the largest entry (of p ∂L/∂p): smaller entries are judged against this much of it.
FLOOR = 1e-6
# Decades of growth of a perturbation beyond what the equation's own growing modes explain.
SPURIOUS_DECADES = 6.0
# Newton corrections left at accepted steps, over the tolerance of a step.
NEWTON_REST = 0.1
# From here on entries are not judged one by one, but by the norm of each parameter tensor.
MANY = 64


@dataclass(frozen=True)
class Alarm:
    """Why a gradient is not to be trusted.

    Args:
        kind: "growth", "newton", "mesh", "non-finite" or "failure".
        what: what was measured.
        mode: λ of the mode that explains it, or None.
        z: h·λ there.
        t: time there.
        method: the scheme.
        remedy: arguments with which the gradient holds; "" where none was found or looked for.
    """

    kind: str
    what: str
    mode: complex | None
    z: complex | None
    t: float
    method: str
    remedy: str = ""

    def __str__(self) -> str:
        place = ""
        if self.mode is not None and self.z is not None:
            place = f"; mode λ = {_complex(self.mode)}, z = hλ = {_complex(self.z)}, t = {self.t:.4g}"
        fix = f"; would do: {self.remedy}" if self.remedy else ""
        return f"{self.kind}: {self.what}{place}; scheme {self.method}{fix}"


@dataclass(frozen=True, eq=False)
class TrustReport:
    """What :func:`check_gradient` found.

    Args:
        alarms: empty where nothing speaks against the gradient.
        names: names of the parameters' entries.
        gradient: p ∂L/∂p entry by entry (∂L/∂p where p = 0), (P,).
        refined: the same with every step halved.
        disagreement: largest relative difference of the two.
        loss: the loss.
        refined_loss: with every step halved.
        growth: of perturbations along the steps.
        newton: largest Newton correction left, over the tolerance.
        decay: the modes along the solution.
        steps: accepted steps.
    """

    alarms: tuple[Alarm, ...]
    names: tuple[str, ...]
    gradient: Tensor
    refined: Tensor
    disagreement: float
    loss: float
    refined_loss: float
    growth: Growth
    newton: float
    decay: GradientDecay
    steps: int

    @property
    def ok(self) -> bool:
        """Whether there is no alarm."""
        return not self.alarms

    def __str__(self) -> str:
        verdict = "trusted" if self.ok else "NOT trusted"
        lines = [f"gradient through {self.decay.method.name}, {self.steps} steps: {verdict}"]
        lines += [f"  ! {alarm}" for alarm in self.alarms]
        lines.append(f"  loss {self.loss:.6g}, with steps halved {self.refined_loss:.6g}")
        lines.append(f"  gradient differs by {self.disagreement:.2e} with steps halved")
        grown, own = self.growth.decades, self.growth.own
        lines.append(f"  perturbations grow by {grown:.1f} decades; the equation explains {own:.1f}")
        lines.append(f"  Newton corrections left: {self.newton:.1e} of the tolerance")
        if len(self.names) <= 12:
            lines += [
                f"  {name:>12}: {float(g):+.6e}  (halved: {float(r):+.6e})"
                for name, g, r in zip(self.names, self.gradient, self.refined, strict=True)
            ]
        return "\n".join(lines)

    __repr__ = __str__


def check_gradient(
    func: Func,
    y0: Tensor,
    t: Tensor,
    loss: Loss | None = None,
    *,
    params: Iterable[Tensor] | None = None,
    jacobian: Jacobian | None = None,
    suggest: bool = True,
    **integration: Any,
) -> TrustReport:
    """Check the gradient of a loss of the solution: three tests, none of which looks at the state.

    1. Growth: the product of the step Jacobians must not grow by more than the equation's own growing
       modes. An explicit method at the edge of its stability holds the state and not the gradient.
    2. Newton: what is left of the stage equations at the accepted steps. The adjoint holds at their
       solution.
    3. Mesh: every accepted step is halved, and the gradient compared.

    An alarm names the mode, the scheme, and what would do instead, which has itself been checked.

    Args:
        func: func(t, y), for one state.
        y0: initial state, (n,).
        t: output times, (T,).
        loss: function of the states at the output times, (T, n), to a scalar. By default the sum of
            the components, each over its largest size, with random signs (the same at every call).
        params: tensors to differentiate for; by default all leaf tensors that func depends on.
        jacobian: df/dy as a function of (t, y).
        suggest: whether to look for a remedy if there is an alarm.
        integration: arguments of :class:`Integration`: method, rtol, atol, mesh, options.

    Returns:
        The report; ``report.ok`` is True where nothing speaks against the gradient.

    Cost: three solves with gradients and one Jacobian a step; with an alarm the same for each of at
    most four remedies.

    Example:
        >>> from ntangent import ode
        >>> p = ode.problems.get("robertson").parameters().requires_grad_()
        >>> problem = ode.problems.get("robertson")
        >>> ode.check_gradient(problem.func(p), problem.initial(), problem.times(5, first=1e-3)).ok
        True
    """
    if y0.ndim != 1:
        raise ArgumentError(f"y0 has shape {tuple(y0.shape)}", "one sample is checked at a time", "y0[0]")
    how = Integration(**integration)
    listed = None if params is None else list(params)
    question = Question(func, y0, t, listed, jacobian)
    report = _check(question, how, loss or _signs)
    if report.alarms and suggest:
        remedy = _remedy(question, how, loss or _signs)
        report = replace(report, alarms=tuple(replace(alarm, remedy=remedy) for alarm in report.alarms))
    return report


def _signs(y: Tensor) -> Tensor:
    """The default loss."""
    generator = torch.Generator().manual_seed(0)
    signs = 2.0 * torch.randint(0, 2, y.shape, generator=generator).to(y) - 1
    size = y.detach().abs().amax(0)
    return (signs * y / torch.where(size > 0, size, torch.ones_like(size))).sum()


def _check(question: Question, how: Integration, loss: Loss) -> TrustReport:
    base = trace(question, how)
    field = base.problem.field
    if not field.params:
        raise ArgumentError(
            "func depends on no tensor with requires_grad",
            "there is no gradient to check",
            "p.requires_grad_()",
        )
    value, grads = _gradient(base, loss)
    gradient = _flat(grads, field.params)
    fine = _finer(question, how, base)
    fine_value, fine_grads = math.nan, [torch.full_like(g, torch.nan) for g in grads]
    if fine is not None:
        fine_value, fine_grads = _gradient(fine, loss)
    refined = _flat(fine_grads, field.params)
    # Nothing is known of a gradient below the error that the tolerance allows the loss itself.
    noise = min(how.rtol, 1e-6) * float((_cotangent(base, loss)[1] * base.outputs[:, 0]).abs().sum())
    gap = disagreement(gradient, refined, [p.numel() for p in field.params], noise)
    plain = Field(question.func, base.problem.packing, (), question.jacobian)
    size = torch.stack([step.state[0, 0].abs() for step in base.tape.steps]).amax(0)
    scale = torch.maximum(size, 1e-3 * how.control(question.y0).scale(size[None])[0]).clamp_min(1e-300)
    grown = growth(plain, base.tape, scale)
    tolerance = how.control(question.y0).scale(size[None])[0]
    newton, newton_time = newton_rest(plain, base.tape, how.scheme, tolerance)
    decay = _modes(plain, base, how)
    alarms = _alarms(decay, gap, gradient, grown, newton, newton_time)
    return TrustReport(
        alarms, _names(question.func, field.params), gradient, refined, gap, value, fine_value, grown, newton,
        decay, len(base.tape.steps),
    )  # fmt: skip


def _finer(question: Question, how: Integration, base: Traced) -> Traced | None:
    """Return the solution with every step halved; where that fails, with tolerances 32 times less."""
    try:
        return trace(question, how, knots=halved(base.knots()))
    except SolverError:
        if how.mesh is not None or base.problem.control.fixed:
            return None
    atol = tuple(x / 32 for x in how.atol) if isinstance(how.atol, tuple) else how.atol / 32
    try:
        return trace(question, replace(how, rtol=how.rtol / 32, atol=atol))
    except SolverError:
        return None


def _cotangent(traced: Traced, loss: Loss) -> tuple[float, Tensor]:
    with torch.enable_grad():
        leaf = traced.outputs[:, 0].detach().requires_grad_()
        value = loss(leaf)
        return float(value.detach()), torch.autograd.grad(value, leaf)[0]


def _gradient(traced: Traced, loss: Loss) -> tuple[float, list[Tensor]]:
    value, cotangent = _cotangent(traced, loss)
    return value, traced.gradient(cotangent[:, None])[0]


def _flat(grads: list[Tensor], params: list[Tensor]) -> Tensor:
    """Return p ∂L/∂p (∂L/∂p where p = 0), flat in double precision."""
    factors = [torch.where(p == 0, torch.ones_like(p), p).detach().double().reshape(-1) for p in params]
    return torch.cat([g.detach().double().reshape(-1) * f for g, f in zip(grads, factors, strict=True)])


def disagreement(gradient: Tensor, refined: Tensor, sizes: list[int], noise: float) -> float:
    """Return the largest relative difference, entry by entry, or tensor by tensor if there are many.

    Entries and differences below ``noise`` count as zero.
    """
    if not bool(torch.isfinite(gradient).all()) or not bool(torch.isfinite(refined).all()):
        return math.inf
    difference, size = (gradient - refined).abs(), refined.abs()
    if len(gradient) > MANY:
        difference = torch.stack([part.norm() for part in difference.split(sizes)])
        size = torch.stack([part.norm() for part in size.split(sizes)])
    difference = torch.where(difference <= noise, torch.zeros_like(difference), difference)
    least = max(FLOOR * float(size.max()), noise, 1e-300)
    return float((difference / size.clamp_min(least)).max())


def _names(func: Func, params: list[Tensor]) -> tuple[str, ...]:
    known = {id(p): name for name, p in func.named_parameters()} if isinstance(func, nn.Module) else {}
    out = []
    for i, p in enumerate(params):
        name = known.get(id(p), f"p{i + 1}")
        out += [name] if p.numel() == 1 else [f"{name}[{j}]" for j in range(p.numel())]
    return tuple(out)


def _modes(field: Field, base: Traced, how: Integration) -> GradientDecay:
    """Return the modes at accepted steps, evenly thinned out."""
    steps = [base.tape.steps[k] for k in thinned(len(base.tape.steps))]
    values = modes(field, steps)
    t = torch.tensor([float(step.t[0]) for step in steps], dtype=torch.float64)
    h = torch.tensor([float(step.h[0]) for step in steps], dtype=torch.float64)
    return assemble(how.scheme, t, h, values, h.abs()[:, None] * values)


def _alarms(
    decay: GradientDecay, gap: float, gradient: Tensor, grown: Growth, newton: float, newton_time: float
) -> tuple[Alarm, ...]:
    found: list[tuple[str, str, int, int]] = []
    stable = decay.z.real < 0
    amplification = torch.where(stable, decay.method.stability(decay.z).abs(), torch.zeros_like(decay.z.real))
    added = torch.nan_to_num(decay.excess, nan=math.inf)
    if not bool(torch.isfinite(gradient).all()):
        found.append(("non-finite", "the gradient is not finite", *_largest(amplification)))
    if grown.spurious > SPURIOUS_DECADES:
        text = (
            f"perturbations grow by {grown.decades:.0f} decades from t = {grown.start:.3g} to "
            f"{grown.end:.3g}, of which the equation explains {grown.own:.1f}"
        )
        k, i = _largest(amplification)
        text += (
            f"; |R(z)| = {float(amplification[k, i]):.3g} for a decaying mode"
            if amplification[k, i] > 1
            else ""
        )
        found.append(("growth", text, k, i))
    if not newton <= NEWTON_REST:
        text = f"Newton corrections of {newton:.1e} times the tolerance are left at t = {newton_time:.3g}"
        found.append(("newton", text, *_largest(decay.z.abs())))
    if not gap <= DISAGREEMENT:
        k, i = _largest(added)
        text = (
            f"the gradient differs by {gap:.2g} (relative) with every step halved; |zR'| = "
            f"{float(decay.numerical_log[k, i]):.2g} where |ze^z| = {float(decay.intrinsic_log[k, i]):.2g}"
        )
        text += ", of the wrong sign" if bool(decay.wrong_sign[k, i]) else ""
        found.append(("mesh", text, k, i))
    return tuple(
        Alarm(
            kind,
            text,
            complex(decay.eigenvalues[k, i]),
            complex(decay.z[k, i]),
            float(decay.t[k]),
            decay.method.name,
        )
        for kind, text, k, i in found
    )


def _largest(values: Tensor) -> tuple[int, int]:
    index = int(values.argmax())
    return index // values.shape[1], index % values.shape[1]


def _remedy(question: Question, how: Integration, loss: Loss) -> str:
    """Return the arguments of the first of a few candidates that passes the same tests."""
    fixed = how.mesh is not None or how.control(question.y0).fixed
    tolerances = {"rtol": how.rtol, "atol": how.atol}
    candidates: list[dict[str, Any]] = []
    if how.scheme.implicit and fixed and how.mesh is None:
        candidates.append({"method": how.scheme.name, "mesh": Graded()})
        candidates.append({"method": "lobatto_iiic4", "mesh": Graded()})
    candidates.append({"method": "radau5", **tolerances})
    atol = how.atol if isinstance(how.atol, tuple) else 1e-2 * how.atol
    candidates.append({"method": "radau5", "rtol": 1e-2 * how.rtol, "atol": atol})
    for arguments in candidates:
        candidate = Integration(**arguments)
        if candidate == how:
            continue
        try:
            other = _check(question, candidate, loss)
        except SolverError:
            continue
        if other.ok:
            return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return ""


def _complex(value: complex) -> str:
    return f"{value.real:.3g}" if value.imag == 0 else f"{value.real:.3g}{value.imag:+.3g}i"
