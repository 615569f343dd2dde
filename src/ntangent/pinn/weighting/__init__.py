"""Weightings: how much each term and each point counts, one argument of ``solve``."""

from ntangent.pinn.weighting.base import WEIGHTINGS as WEIGHTINGS
from ntangent.pinn.weighting.base import Layout as Layout
from ntangent.pinn.weighting.base import Product as Product
from ntangent.pinn.weighting.base import Term as Term
from ntangent.pinn.weighting.base import View as View
from ntangent.pinn.weighting.base import Weighting as Weighting
from ntangent.pinn.weighting.causal import Causal as Causal
from ntangent.pinn.weighting.fixed import Fixed as Fixed
from ntangent.pinn.weighting.grad_norm import GradNorm as GradNorm
from ntangent.pinn.weighting.ntk import NTK as NTK
from ntangent.pinn.weighting.rba import RBA as RBA
from ntangent.pinn.weighting.relobralo import ReLoBRaLo as ReLoBRaLo
from ntangent.pinn.weighting.self_adaptive import SelfAdaptive as SelfAdaptive
from ntangent.pinn.weighting.softadapt import SoftAdapt as SoftAdapt
