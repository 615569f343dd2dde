"""Ordinary differential equations: methods, solvers, and what their gradients are worth."""

from ntangent.ode import methods as methods
from ntangent.ode.events import Event as Event
from ntangent.ode.solution import Solution as Solution
from ntangent.ode.solve import odeint as odeint
from ntangent.ode.solve import odeint_adjoint as odeint_adjoint
from ntangent.ode.solve import odeint_event as odeint_event
from ntangent.ode.solve import sensitivity as sensitivity
from ntangent.ode.solve import solve as solve
