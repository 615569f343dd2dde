"""Exact derivatives of any order for networks that solve differential equations."""

from ntangent import extend as extend
from ntangent.jet import MLP as MLP
from ntangent.jet import Jet as Jet
from ntangent.jet import derivatives as derivatives
from ntangent.jet import jet as jet

__version__ = "0.1.0"
