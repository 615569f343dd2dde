"""Hard conditions: constructions that satisfy them exactly, with exact derivatives."""

from ntangent.pinn.hard.compose import HardAnsatz as HardAnsatz
from ntangent.pinn.hard.compose import Trace as Trace
from ntangent.pinn.hard.compose import clamped as clamped
from ntangent.pinn.hard.compose import compose as compose
from ntangent.pinn.hard.compose import dirichlet as dirichlet
from ntangent.pinn.hard.compose import initial as initial
from ntangent.pinn.hard.compose import neumann as neumann
from ntangent.pinn.hard.compose import robin as robin
