"""Stiff problems with known truth. Adding one is adding a file here."""

from ntangent.ode.problems import hires as hires
from ntangent.ode.problems import linear_decay as linear_decay
from ntangent.ode.problems import orego as orego
from ntangent.ode.problems import pollu as pollu
from ntangent.ode.problems import prothero_robinson as prothero_robinson
from ntangent.ode.problems import robertson as robertson
from ntangent.ode.problems import slow_data as slow_data
from ntangent.ode.problems import two_scale as two_scale
from ntangent.ode.problems import van_der_pol as van_der_pol
from ntangent.ode.problems.base import PROBLEMS as PROBLEMS
from ntangent.ode.problems.base import OdeProblem as OdeProblem
from ntangent.ode.problems.base import ProblemModel as ProblemModel
from ntangent.ode.problems.base import get as get
from ntangent.ode.problems.base import names as names
from ntangent.ode.problems.base import register as register
