"""Fitting of differential equations to data."""

from ntangent.ode.fitting.rates import LogRate as LogRate
from ntangent.ode.fitting.rates import log_rates as log_rates
