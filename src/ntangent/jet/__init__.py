"""Truncated Taylor series through networks."""

from ntangent.jet import entries as entries
from ntangent.jet.api import derivatives as derivatives
from ntangent.jet.api import jet as jet
from ntangent.jet.api import variable as variable
from ntangent.jet.layers import rules as rules
from ntangent.jet.mlp import MLP as MLP
from ntangent.jet.series import Jet as Jet
from ntangent.jet.series import compose as compose
