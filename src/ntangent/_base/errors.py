"""Every exception of the package. Each says what is wrong, why, and how to mend it."""

from __future__ import annotations


class NtangentError(Exception):
    """Base of all errors raised by ntangent.

    Args:
        what: what is wrong, with the offending value.
        why: the reason it cannot work.
        fix: a line of code or a command that does work.
    """

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        lines = [what]
        if why:
            lines.append(f"  why: {why}")
        if fix:
            lines.append(f"  fix: {fix}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.what, self.why, self.fix)


class ArgumentError(NtangentError, ValueError):
    """An argument has a value that cannot be used."""


class ShapeError(ArgumentError):
    """A tensor has the wrong shape."""


class DtypeError(NtangentError, TypeError):
    """A tensor or argument has the wrong type."""


class NonFiniteError(ArgumentError):
    """A tensor contains NaN or infinity where a finite number is needed."""


class UnknownNameError(ArgumentError):
    """A name is not in the table it was looked up in."""


class MissingRule(NtangentError, NotImplementedError):
    """An operation has no Taylor rule."""


class BackendError(NtangentError, RuntimeError):
    """A backend cannot serve this network on this machine."""


class ProblemError(ArgumentError):
    """A problem statement contradicts itself or lacks something."""


class RunFolderError(NtangentError, RuntimeError):
    """A run folder exists, is missing, or belongs to another run."""


class CheckpointError(RunFolderError):
    """A checkpoint is cut off, damaged, or belongs to another configuration."""


class MissingExtraError(NtangentError, ImportError):
    """An optional dependency is needed and not installed."""


class ConvergenceError(NtangentError, ArithmeticError):
    """A numerical method could not continue."""


class SolverError(ConvergenceError):
    """The integration of a differential equation could not go on.

    Attributes:
        solution: what had been computed until then, or None.
    """

    solution: object | None = None


class DistributedError(NtangentError, RuntimeError):
    """Another process of a distributed run failed or was lost."""


class NotRepeatable(NtangentError, RuntimeError):
    """A computation depends on more than the values of tensors; whoever recorded it goes on without."""


class NoEffectWarning(UserWarning):
    """An option does nothing in this combination."""


class InstabilityWarning(UserWarning):
    """A method amplifies what it should damp: its results look finite and mean little."""


class UndeterminedWarning(UserWarning):
    """A problem says too little to have one solution."""
