"""Linear differential operators: data, plans, application."""

from ntangent.operators.apply import apply as apply
from ntangent.operators.apply import biharmonic as biharmonic
from ntangent.operators.apply import curl as curl
from ntangent.operators.apply import divergence as divergence
from ntangent.operators.apply import evaluate as evaluate
from ntangent.operators.apply import gradient as gradient
from ntangent.operators.apply import hessian as hessian
from ntangent.operators.apply import jacobian as jacobian
from ntangent.operators.apply import laplacian as laplacian
from ntangent.operators.apply import material_derivative as material_derivative
from ntangent.operators.apply import partial as partial
from ntangent.operators.apply import polyharmonic as polyharmonic
from ntangent.operators.apply import taylor_polynomial as taylor_polynomial
from ntangent.operators.operator import Operator as Operator
from ntangent.operators.plan import Plan as Plan
from ntangent.operators.plan import make_plan as make_plan
