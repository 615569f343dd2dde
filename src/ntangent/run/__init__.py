"""A run: its folder, configuration, metrics, checkpoints, progress, and the training loop."""

from ntangent.run.callbacks import Callback, EndRecord, Outcome, Record, StageRecord
from ntangent.run.checkpoint import Checkpoint, Loaded, load_checkpoint, save_checkpoint
from ntangent.run.folder import RunFolder, run_config
from ntangent.run.loop import train
from ntangent.run.metrics import Metrics, MetricsWriter, read_metrics
from ntangent.run.progress import Progress
from ntangent.run.stopping import EarlyStopping
from ntangent.run.tensorboard import TensorBoard

__all__ = [
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "EndRecord",
    "Loaded",
    "Metrics",
    "MetricsWriter",
    "Outcome",
    "Progress",
    "Record",
    "RunFolder",
    "StageRecord",
    "TensorBoard",
    "load_checkpoint",
    "read_metrics",
    "run_config",
    "save_checkpoint",
    "train",
]
