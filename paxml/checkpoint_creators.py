"""What opens the checkpoints of a run, gathered under its public path."""

from paxml.checkpoint.flax_file import FlaxCheckpointHandler
from paxml.checkpoint.kinds import CheckpointType
from paxml.checkpoint.pax_handler import BaseInputCheckpointHandler, PaxCheckpointHandler
from paxml.train_states import TrainState, TrainStateProvenance

__all__ = [
    "BaseInputCheckpointHandler",
    "CheckpointType",
    "FlaxCheckpointHandler",
    "PaxCheckpointHandler",
    "TrainState",
    "TrainStateProvenance",
]
