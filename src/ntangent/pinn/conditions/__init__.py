"""What a solution must satisfy besides its equation; one file for each kind of condition."""

from ntangent.pinn.conditions.base import Condition as Condition
from ntangent.pinn.conditions.data import PointData as PointData
from ntangent.pinn.conditions.initial import Initial as Initial
from ntangent.pinn.conditions.integral import Integral as Integral
from ntangent.pinn.conditions.interface import Interface as Interface
from ntangent.pinn.conditions.operator import Operator as Operator
from ntangent.pinn.conditions.periodic import Periodic as Periodic
from ntangent.pinn.conditions.prescribed import Dirichlet as Dirichlet
from ntangent.pinn.conditions.prescribed import Neumann as Neumann
from ntangent.pinn.conditions.prescribed import Robin as Robin
from ntangent.pinn.conditions.symmetry import Symmetry as Symmetry
from ntangent.pinn.conditions.taylor import TaylorResidual as TaylorResidual
from ntangent.pinn.equation import Block as Block
from ntangent.pinn.equation import Demand as Demand
