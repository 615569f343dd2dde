"""Where equations hold: boxes, discs, balls, shells, polygons, point clouds, and what is made of them."""

from ntangent.pinn.domains.base import Boundary as Boundary
from ntangent.pinn.domains.base import Domain as Domain
from ntangent.pinn.domains.box import Box as Box
from ntangent.pinn.domains.box import Interval as Interval
from ntangent.pinn.domains.cloud import PointCloud as PointCloud
from ntangent.pinn.domains.combine import Combination as Combination
from ntangent.pinn.domains.combine import Product as Product
from ntangent.pinn.domains.polygon import Polygon as Polygon
from ntangent.pinn.domains.round import Ball as Ball
from ntangent.pinn.domains.round import Disc as Disc
from ntangent.pinn.domains.round import Shell as Shell
