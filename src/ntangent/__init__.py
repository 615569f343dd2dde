"""Exact derivatives of any order for networks that solve differential equations."""

import importlib
from types import ModuleType

from ntangent.jet import MLP as MLP
from ntangent.jet import Jet as Jet
from ntangent.jet import derivatives as derivatives
from ntangent.jet import jet as jet
from ntangent.operators import Operator as Operator
from ntangent.operators import biharmonic as biharmonic
from ntangent.operators import curl as curl
from ntangent.operators import divergence as divergence
from ntangent.operators import finite_difference as fd  # noqa: F401
from ntangent.operators import gradient as gradient
from ntangent.operators import hessian as hessian
from ntangent.operators import laplacian as laplacian
from ntangent.operators import partial as partial

__version__ = "0.1.0"

# Imported at their first use, so that `import ntangent` stays light.
_NAMESPACES = ("diagnose", "extend", "nn", "ode", "optim", "pinn", "problems", "run", "testing")


def __getattr__(name: str) -> ModuleType:
    if name not in _NAMESPACES:
        raise AttributeError(f"module 'ntangent' has no attribute {name!r}")
    return importlib.import_module(f"ntangent.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMESPACES})
