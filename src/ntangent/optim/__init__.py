"""Optimisers: frozen configurations with two pure functions, ``begin`` and ``step``.

They see a flat parameter vector and an objective, and nothing of networks or equations. No method
stops, or changes its course, because a loss is small in itself.
"""

from ntangent._base.protocols import Objective, Stage, State
from ntangent.optim.adam import Adam
from ntangent.optim.funnel import Funnel
from ntangent.optim.gauss_newton import GaussNewton
from ntangent.optim.lbfgs import LBFGS
from ntangent.optim.levenberg_marquardt import LevenbergMarquardt
from ntangent.optim.line_search import LineSearchResult, strong_wolfe
from ntangent.optim.multistage import MultiStage
from ntangent.optim.polish import Polish
from ntangent.optim.schedules import Cosine, ExponentialDecay, Schedule
from ntangent.optim.soap import SOAP
from ntangent.optim.ssbroyden import SSBFGS, SSBroyden

__all__ = [
    "LBFGS",
    "SOAP",
    "SSBFGS",
    "Adam",
    "Cosine",
    "ExponentialDecay",
    "Funnel",
    "GaussNewton",
    "LevenbergMarquardt",
    "LineSearchResult",
    "MultiStage",
    "Objective",
    "Polish",
    "SSBroyden",
    "Schedule",
    "Stage",
    "State",
    "strong_wolfe",
]
