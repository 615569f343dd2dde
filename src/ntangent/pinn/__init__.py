"""Problems that read like their equation, solved by networks."""

from ntangent.pinn.conditions import Dirichlet as Dirichlet
from ntangent.pinn.conditions import Initial as Initial
from ntangent.pinn.conditions import Integral as Integral
from ntangent.pinn.conditions import Interface as Interface
from ntangent.pinn.conditions import Neumann as Neumann
from ntangent.pinn.conditions import Operator as Operator
from ntangent.pinn.conditions import Periodic as Periodic
from ntangent.pinn.conditions import PointData as PointData
from ntangent.pinn.conditions import Robin as Robin
from ntangent.pinn.conditions import TaylorResidual as TaylorResidual
from ntangent.pinn.domain import Box as Box
from ntangent.pinn.problem import Output as Output
from ntangent.pinn.problem import Problem as Problem
from ntangent.pinn.problem import even as even
from ntangent.pinn.problem import odd as odd
from ntangent.pinn.problem import plain as plain
from ntangent.pinn.sampling import Chebyshev as Chebyshev
from ntangent.pinn.sampling import Grid as Grid
from ntangent.pinn.sampling import Sampler as Sampler
from ntangent.pinn.sampling import Uniform as Uniform
from ntangent.pinn.solution import Solution as Solution
from ntangent.pinn.solve import solve as solve
from ntangent.pinn.unknown import Unknown as Unknown
