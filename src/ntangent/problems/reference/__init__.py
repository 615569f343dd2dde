"""Solvers for the catalogue's reference solutions: spectral in space, high order in time."""

from ntangent.problems.reference.cavity import cavity as cavity
from ntangent.problems.reference.cole_hopf import cole_hopf as cole_hopf
from ntangent.problems.reference.periodic import PeriodicSolution as PeriodicSolution
from ntangent.problems.reference.periodic import solve_periodic as solve_periodic
from ntangent.problems.reference.trajectory import trajectory as trajectory
