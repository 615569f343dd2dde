"""Collocation points: a sampler is a frozen dataclass with one method, ``points``."""

from ntangent.pinn.sampling.adaptive import R3 as R3
from ntangent.pinn.sampling.adaptive import RAD as RAD
from ntangent.pinn.sampling.adaptive import RAR as RAR
from ntangent.pinn.sampling.adaptive import Resample as Resample
from ntangent.pinn.sampling.adaptive import Resampler as Resampler
from ntangent.pinn.sampling.base import RESAMPLERS as RESAMPLERS
from ntangent.pinn.sampling.base import SAMPLERS as SAMPLERS
from ntangent.pinn.sampling.base import Sampler as Sampler
from ntangent.pinn.sampling.base import denser as denser
from ntangent.pinn.sampling.clustered import Clustered as Clustered
from ntangent.pinn.sampling.random import Halton as Halton
from ntangent.pinn.sampling.random import LatinHypercube as LatinHypercube
from ntangent.pinn.sampling.random import Sobol as Sobol
from ntangent.pinn.sampling.random import Uniform as Uniform
from ntangent.pinn.sampling.spectral import Spectral as Spectral
from ntangent.pinn.sampling.tensor import Chebyshev as Chebyshev
from ntangent.pinn.sampling.tensor import FixedPoints as FixedPoints
from ntangent.pinn.sampling.tensor import Grid as Grid
