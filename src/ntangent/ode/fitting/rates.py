"""Rates that stay positive and are trained in logarithms.

Rates of one system span many decades: a gradient in the raw rates mixes units (Robertson: -0.8 and
6e-10 for two rates at one point), and a step can make a rate negative. In logarithms the gradient is
k ∂L/∂k, one scale for all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ntangent._base.check import check_finite
from ntangent._base.errors import ArgumentError, DtypeError


class LogRate(nn.Module):
    """Positive numbers with their logarithms as the parameters: ``LogRate([0.04, 3e7, 1e4])()``.

    Args:
        values: initial values: a tensor of any shape or a sequence of numbers (float64 then).

    Raises:
        ArgumentError: if a value is not positive.
    """

    def __init__(self, values: Tensor | Sequence[float] | float) -> None:
        super().__init__()
        given = values if isinstance(values, Tensor) else torch.tensor(values, dtype=torch.float64)
        self.log = nn.Parameter(_positive(given, "values").detach().log())

    def forward(self) -> Tensor:
        """Return the values."""
        return self.log.exp()


class _Exponential(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp()

    def right_inverse(self, value: Tensor) -> Tensor:
        return value.log()


def log_rates(module: nn.Module, *names: str) -> nn.Module:
    """Make parameters of a module positive, in place: what is trained are their logarithms.

    ``log_rates(model, "k")``: ``model.k`` keeps its value and its use.

    Raises:
        ArgumentError: if a parameter is missing or not positive.
    """
    if not names:
        raise ArgumentError("no parameter is named", "nothing would be changed", 'log_rates(model, "k")')
    for name in names:
        value = getattr(module, name, None)
        if not isinstance(value, nn.Parameter):
            known = [n for n, _ in module.named_parameters(recurse=False)]
            raise ArgumentError(
                f"{name!r} is not a parameter of the module", f"it has {known}", "log_rates(model)"
            )
        _positive(value.detach(), name)
        parametrize.register_parametrization(module, name, _Exponential())
    return module


def _positive(values: Tensor, name: str) -> Tensor:
    if not values.is_floating_point():
        raise DtypeError(f"{name} has dtype {values.dtype}", "rates are real numbers", f"{name}.double()")
    check_finite(values, name)
    if not bool((values > 0).all()):
        raise ArgumentError(
            f"{name} must be positive, the smallest is {float(values.min()):g}",
            "only positive numbers have a logarithm",
            "LogRate([0.04, 3e7, 1e4])",
        )
    return values
