"""Training of an experiment, under its public path."""

from paxml.checkpoint.kinds import CheckpointType
from paxml.checkpoint.pax_handler import PaxCheckpointHandler
from paxml.launch.train import (
    train_and_evaluate,
    write_experiment_class_vars_file,
    write_hparams_file,
)
from paxml.trainer.types import RunningMode

__all__ = [
    "CheckpointType",
    "PaxCheckpointHandler",
    "RunningMode",
    "train_and_evaluate",
    "write_experiment_class_vars_file",
    "write_hparams_file",
]
