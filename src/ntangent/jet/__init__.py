"""Truncated Taylor series through networks."""

from ntangent.jet import attention as attention
from ntangent.jet import convolution as convolution
from ntangent.jet import functions as functions
from ntangent.jet import nested as nested
from ntangent.jet import products as products
from ntangent.jet.api import derivatives as derivatives
from ntangent.jet.api import jet as jet
from ntangent.jet.api import variable as variable
from ntangent.jet.jax_like import jax_jet as jax_jet
from ntangent.jet.layers import rules as rules
from ntangent.jet.mlp import MLP as MLP
from ntangent.jet.series import Jet as Jet
from ntangent.jet.series import compose as compose
