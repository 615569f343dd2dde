"""Pure measurements of training: spectra, signal-to-noise ratios, phases, information, and a monitor."""

import importlib
import pkgutil

from ntangent.diagnose.information import LayerInformation as LayerInformation
from ntangent.diagnose.information import activation_information as activation_information
from ntangent.diagnose.information import bin_activations as bin_activations
from ntangent.diagnose.information import information_measure as information_measure
from ntangent.diagnose.information import joint_entropy as joint_entropy
from ntangent.diagnose.information import record_activations as record_activations
from ntangent.diagnose.information import saturation as saturation
from ntangent.diagnose.monitor import EarlyAndEvery as EarlyAndEvery
from ntangent.diagnose.monitor import Monitor as Monitor
from ntangent.diagnose.monitor import Reading as Reading
from ntangent.diagnose.monitor import snapshot_of as snapshot_of
from ntangent.diagnose.random_features import RandomFeatures as RandomFeatures
from ntangent.diagnose.random_features import Rows as Rows
from ntangent.diagnose.random_features import feature_functions as feature_functions
from ntangent.diagnose.random_features import precise_system_matrix as precise_system_matrix
from ntangent.diagnose.random_features import system_matrix as system_matrix
from ntangent.diagnose.snapshot import Block as Block
from ntangent.diagnose.snapshot import IndependentPoints as IndependentPoints
from ntangent.diagnose.snapshot import Layer as Layer
from ntangent.diagnose.snapshot import Measure as Measure
from ntangent.diagnose.snapshot import ModuleObjective as ModuleObjective
from ntangent.diagnose.snapshot import Snapshot as Snapshot
from ntangent.diagnose.snapshot import layers_of as layers_of
from ntangent.diagnose.snapshot import measures as measures
from ntangent.diagnose.snr import AdamSignal as AdamSignal
from ntangent.diagnose.snr import SignalToNoise as SignalToNoise
from ntangent.diagnose.snr import adam_moments as adam_moments
from ntangent.diagnose.snr import adam_snr as adam_snr
from ntangent.diagnose.snr import batch_gradients as batch_gradients
from ntangent.diagnose.snr import gradient_order_parameter as gradient_order_parameter
from ntangent.diagnose.snr import gradient_snr as gradient_snr
from ntangent.diagnose.snr import gradients_of_batches as gradients_of_batches
from ntangent.diagnose.snr import layer_snr as layer_snr
from ntangent.diagnose.snr import residual_homogeneity as residual_homogeneity
from ntangent.diagnose.snr import residual_order as residual_order
from ntangent.diagnose.snr import snr_measure as snr_measure
from ntangent.diagnose.snr import weight_entries as weight_entries
from ntangent.diagnose.spectra import GradientFlow as GradientFlow
from ntangent.diagnose.spectra import Spectrum as Spectrum
from ntangent.diagnose.spectra import condition_number as condition_number
from ntangent.diagnose.spectra import effective_cutoff as effective_cutoff
from ntangent.diagnose.spectra import gradient_flow_loss as gradient_flow_loss
from ntangent.diagnose.spectra import leading_singular_values as leading_singular_values
from ntangent.diagnose.spectra import singular_values as singular_values
from ntangent.diagnose.spectra import spectrum as spectrum
from ntangent.diagnose.spectra import stable_rank as stable_rank
from ntangent.diagnose.spectra import training_kernel as training_kernel
from ntangent.diagnose.spectra import truncated_entropy as truncated_entropy
from ntangent.diagnose.transitions import Boundary as Boundary
from ntangent.diagnose.transitions import Phase as Phase
from ntangent.diagnose.transitions import Phases as Phases
from ntangent.diagnose.transitions import moving_average as moving_average
from ntangent.diagnose.transitions import phases as phases
from ntangent.diagnose.transitions import smoothed_snr as smoothed_snr

# A file of this folder registers its measures when it is imported: a new diagnostic is one new file.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
