"""Networks for differential equations, as plain ``torch.nn`` modules of operations with Taylor rules.

Each maps points of shape (N, inputs), a tensor or a series, to (N, outputs) and is as smooth as its
activation, except where its docstring says otherwise. ``generator`` is a seed or a generator on the
CPU; the same seed gives the same parameters on every device.
"""

from ntangent.jet.mlp import MLP as MLP
from ntangent.nn.embeddings import FourierFeatures as FourierFeatures
from ntangent.nn.embeddings import PeriodicEmbedding as PeriodicEmbedding
from ntangent.nn.factorised import FactorisedLinear as FactorisedLinear
from ntangent.nn.factorised import factorise as factorise
from ntangent.nn.kan import ChebyshevKAN as ChebyshevKAN
from ntangent.nn.kan import ChebyshevLayer as ChebyshevLayer
from ntangent.nn.kan import SplineKAN as SplineKAN
from ntangent.nn.kan import SplineLayer as SplineLayer
from ntangent.nn.networks import SIREN as SIREN
from ntangent.nn.networks import ModifiedMLP as ModifiedMLP
from ntangent.nn.networks import PirateNet as PirateNet
from ntangent.nn.networks import ResidualMLP as ResidualMLP
