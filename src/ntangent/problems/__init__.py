"""The catalogue of problems, one file each; importing a file puts its problem into the table."""

from ntangent.problems.advection import Advection as Advection
from ntangent.problems.allen_cahn import AllenCahn as AllenCahn
from ntangent.problems.beam import Beam as Beam
from ntangent.problems.biharmonic import Biharmonic1D as Biharmonic1D
from ntangent.problems.biharmonic import Biharmonic2D as Biharmonic2D
from ntangent.problems.burgers import Burgers as Burgers
from ntangent.problems.burgers_profile import BurgersProfile as BurgersProfile
from ntangent.problems.catalogue import CATALOGUE as CATALOGUE
from ntangent.problems.catalogue import Recipe as Recipe
from ntangent.problems.catalogue import run as run
from ntangent.problems.cavity import Cavity as Cavity
from ntangent.problems.diffusion import DiffusionCoefficient as DiffusionCoefficient
from ntangent.problems.heat import Heat as Heat
from ntangent.problems.helmholtz import Helmholtz as Helmholtz
from ntangent.problems.kawahara import Kawahara as Kawahara
from ntangent.problems.kdv import KortewegDeVries as KortewegDeVries
from ntangent.problems.kuramoto_sivashinsky import KuramotoSivashinsky as KuramotoSivashinsky
from ntangent.problems.lorenz import Lorenz as Lorenz
from ntangent.problems.pendulum import Pendulum as Pendulum
from ntangent.problems.poisson import Poisson1D as Poisson1D
from ntangent.problems.poisson import Poisson2D as Poisson2D
from ntangent.problems.schroedinger import Schroedinger as Schroedinger
from ntangent.problems.wave import Wave as Wave
