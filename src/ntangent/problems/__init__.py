"""The catalogue of problems, one file each; importing a file puts its problem into the table."""

from ntangent.problems.burgers_profile import BurgersProfile as BurgersProfile
from ntangent.problems.catalogue import CATALOGUE as CATALOGUE
from ntangent.problems.catalogue import Recipe as Recipe
from ntangent.problems.catalogue import run as run
