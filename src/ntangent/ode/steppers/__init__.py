"""Steppers: one file per family; importing them makes their methods available to the solvers."""

from ntangent.ode.steppers import adams as adams
from ntangent.ode.steppers import additive as additive
from ntangent.ode.steppers import exponential as exponential
from ntangent.ode.steppers import implicit as implicit
from ntangent.ode.steppers import multistep as multistep
from ntangent.ode.steppers import rosenbrock as rosenbrock
from ntangent.ode.steppers import runge_kutta as runge_kutta
from ntangent.ode.steppers import taylor as taylor
from ntangent.ode.steppers.base import Attempt as Attempt
from ntangent.ode.steppers.base import Step as Step
from ntangent.ode.steppers.base import Stepper as Stepper
from ntangent.ode.steppers.base import Steps as Steps
from ntangent.ode.steppers.base import make_stepper as make_stepper
from ntangent.ode.steppers.base import serves as serves
