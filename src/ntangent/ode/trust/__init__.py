"""What a gradient through a solver is worth: modes, alarms, a monitor."""

from ntangent.ode.trust.check import Alarm as Alarm
from ntangent.ode.trust.check import TrustReport as TrustReport
from ntangent.ode.trust.check import check_gradient as check_gradient
from ntangent.ode.trust.decay import GradientDecay as GradientDecay
from ntangent.ode.trust.decay import gradient_decay as gradient_decay
from ntangent.ode.trust.monitor import TrustMonitor as TrustMonitor
