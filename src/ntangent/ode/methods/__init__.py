"""The catalogue of methods: coefficients, proofs, stability.

One file per family; importing it puts its methods into the table. ``get(name)`` proves a method at
its first use, ``table()`` proves all of them.
"""

from ntangent.ode.methods import adams as adams
from ntangent.ode.methods import collocation as collocation
from ntangent.ode.methods import dopri8 as dopri8
from ntangent.ode.methods import explicit as explicit
from ntangent.ode.methods import exponential as exponential
from ntangent.ode.methods import kencarp as kencarp
from ntangent.ode.methods import kvaerno as kvaerno
from ntangent.ode.methods import multistep as multistep
from ntangent.ode.methods import rosenbrock as rosenbrock
from ntangent.ode.methods import sdirk as sdirk
from ntangent.ode.methods import taylor_series as taylor_series
from ntangent.ode.methods import tsit5 as tsit5
from ntangent.ode.methods.adams import Adams as Adams
from ntangent.ode.methods.base import Method as Method
from ntangent.ode.methods.base import RungeKutta as RungeKutta
from ntangent.ode.methods.base import matrix as matrix
from ntangent.ode.methods.base import vector as vector
from ntangent.ode.methods.catalogue import METHODS as METHODS
from ntangent.ode.methods.catalogue import get as get
from ntangent.ode.methods.catalogue import names as names
from ntangent.ode.methods.catalogue import pade_taylor as pade_taylor
from ntangent.ode.methods.catalogue import register as register
from ntangent.ode.methods.catalogue import taylor as taylor
from ntangent.ode.methods.kinds import AdditiveRungeKutta as AdditiveRungeKutta
from ntangent.ode.methods.kinds import Exponential as Exponential
from ntangent.ode.methods.kinds import Multistep as Multistep
from ntangent.ode.methods.kinds import Rosenbrock as Rosenbrock
from ntangent.ode.methods.kinds import Taylor as Taylor
from ntangent.ode.methods.listing import HEADINGS as HEADINGS
from ntangent.ode.methods.listing import Row as Row
from ntangent.ode.methods.listing import markdown as markdown
from ntangent.ode.methods.listing import table as table
